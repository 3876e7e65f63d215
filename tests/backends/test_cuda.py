"""The CUDA engine beside the CPU's: by numba's simulator, or, with ``pytest -m gpu``, on the GPU that is there."""

import functools
import json
import re

import numpy as np
import pytest

import nbdense as nb
from tests.backends.cuda_cases import GROUPS
from tests.support.python_process import run_python

TOLERANCE = 1e-5
CASES = [(group, name) for group, cases in GROUPS.items() for name in cases]
RUN = "from tests.backends import cuda_cases; cuda_cases.main()"


@functools.cache
def results(group, simulated):
    environment = {"NUMBA_ENABLE_CUDASIM": "1", "OMP_NUM_THREADS": "1"} if simulated else {}
    output, _ = run_python(RUN, group, *([] if simulated else ["--twice"]), **environment)
    return json.loads(output.splitlines()[-1])


@pytest.mark.parametrize(("group", "name"), CASES)
def test_simulated(group, name):
    assert results(group, simulated=True)[name]["gap"] <= TOLERANCE


@pytest.mark.gpu
@pytest.mark.parametrize(("group", "name"), CASES)
def test_on_the_gpu(group, name):
    result = results(group, simulated=False)[name]
    assert result["gap"] <= TOLERANCE
    assert result["same bits"]


@pytest.mark.gpu
def test_shared_memory_is_declared_for_vectors():
    """The compiled products, of steps that are not fused, read it four numbers at once."""
    output, _ = run_python(DECLARED)
    declared = re.findall(r"\.shared \.align (\d+)", output)
    assert len(declared) >= 2
    assert set(declared) == {"16"}
    assert "ld.shared.v4.f32" in output


DECLARED = """
import numpy as np
import nbdense as nb
from nbdense.backends.cuda.program import common
from tests.support.builders import make_model

nb.set_device("cuda")
model = make_model([3, 200, 2], ["relu", "linear"], "mse", "sgd", dtype="float32")
model.fit(np.ones((6, 3)), np.ones((6, 2)), 3, epochs=1, verbose=0)
print(*common("float32").products.forward.inspect_asm().values())
"""


def test_other_devices_are_refused():
    with pytest.raises(ValueError, match="'cpu' or 'cuda', got 'tpu'"):
        nb.set_device("tpu")


def test_numpys_functions_of_numbers():
    """Those that numba.cuda lacks have others in their place, and what has none is refused by name."""
    from nbdense.backends.cuda.translation import UFUNCS, Translation

    numbers = [-np.inf, -2.5, -1e-3, 0.0, 1.0, 30.0, np.inf]
    for x in numbers:
        assert UFUNCS[np.sign](x) == np.sign(x)
        for y in numbers:
            np.testing.assert_allclose(UFUNCS[np.logaddexp](x, y), np.logaddexp(x, y), rtol=1e-14)
    with pytest.raises(NotImplementedError, match=r"no numpy\.floor.*set_device\('cpu'\)"):
        Translation("float32")(lambda z: np.floor(z))


VIEWS = """
import numpy as np
from numba import float32, int64, uint8
from numba.cuda.compiler import compile_cuda
from nbdense.backends.cuda.translation import Translation
from nbdense.engine.kernels.views import flat, part, stretch


def last(values, matrix, data, first):
    return stretch(values, first, 3)[2] + flat(matrix)[1] + part(data, first, first + 8, np.float32)[1]


arguments = float32[::1], float32[:, ::1], uint8[::1], int64
print(compile_cuda(Translation("float32")(last).py_func, None, arguments, cc=(9, 0)).signature.return_type)
"""


def test_the_engines_views_are_a_devices():
    """A device has no functions that return arrays; up to LLVM's text no GPU is needed."""
    output, _ = run_python(VIEWS, NUMBA_ENABLE_CUDASIM="0")
    assert output == "float32\n"


WITHOUT = """
import sys
import nbdense as nb
if len(sys.argv) > 1:
    sys.modules[sys.argv[1]] = None
from nbdense import backends
before = backends.current()
try:
    nb.set_device("cuda")
except RuntimeError as error:
    print(error)
assert backends.current() is before
"""


@pytest.mark.parametrize("missing", [[], ["numba.cuda"]])
def test_no_gpu_is_one_clear_error(missing):
    output, _ = run_python(WITHOUT, *missing, CUDA_VISIBLE_DEVICES="-1", NUMBA_ENABLE_CUDASIM="0")
    assert output.startswith("device 'cuda': ")
    assert "install nbdense[cuda]" in output
    assert output.count("\n") == 1


FAILING = """
import sys
import numpy as np
import nbdense as nb
from nbdense.backends.cuda.device import Stream
from nbdense.callbacks import LambdaCallback
from tests.support.builders import make_model
from tests.support.cuda_simulator import take_turns

take_turns()
nb.set_device("cuda")
model = make_model([3, 4, 2], ["tanh", "linear"], "mse", "adam")
CudaError = type("CudaError", (Exception,), {"__module__": sys.argv[1]})
read, last = Stream.read, []


def failing(self, source, out=None):
    if last:
        raise CudaError(f"[2] Call to a function results in {sys.argv[2]}")
    return read(self, source, out)


def keep(epoch, logs):
    last[:] = [*model.get_weights(), model.train_state.vectors[1:].copy()]


Stream.read = failing
try:
    model.fit(np.ones((6, 3)), np.ones((6, 2)), 3, epochs=3, verbose=0, callbacks=[LambdaCallback(on_epoch_end=keep)])
except Exception as error:
    print(type(error).__name__, error)
for ours, kept in zip([*model.get_weights(), model.train_state.vectors[1:]], last, strict=True):
    np.testing.assert_array_equal(ours, kept)
nb.set_device("cpu")
model.fit(np.ones((6, 3)), np.ones((6, 2)), verbose=0)
"""


@pytest.mark.parametrize("owner", ["numba.cuda.cudadrv.driver", "cuda.core._utils"])
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("CUDA_ERROR_OUT_OF_MEMORY", "MemoryError the GPU's memory is full: take smaller batches"),
        ("CUDA_ERROR_ILLEGAL_ADDRESS", "DeviceLostError the GPU failed"),
    ],
)
def test_a_failing_gpu_leaves_the_weights_that_were_copied_back_last(owner, code, expected):
    output, _ = run_python(FAILING, owner, code, NUMBA_ENABLE_CUDASIM="1", OMP_NUM_THREADS="1")
    assert output.startswith(expected)
    assert code in output


LAUNCHES = """
import sys
import numpy as np
import nbdense as nb
from numba.cuda.simulator.kernel import FakeCUDAKernel
from tests.support.builders import make_model
from tests.support.cuda_simulator import take_turns

take_turns()
nb.set_device("cuda")
launched, call = [], FakeCUDAKernel.__call__


def counted(self, *arguments):
    launched.append(self.fn.__name__)
    call(self, *arguments)


FakeCUDAKernel.__call__ = counted
model = make_model([3, 4, 4, 2], ["tanh", "relu", "linear"], "mse", "adam", dtype=sys.argv[1])
model.fit(np.ones((6, 3)), np.ones((6, 2)), 3, epochs=1, verbose=0)
print(*launched)
launched.clear()
model.evaluate(np.ones((3, 3)), np.ones((3, 2)), verbose=0)
print(*launched)
"""


def test_launches_of_a_step():
    """Three of a network that one launch takes forward and back, and more than a dozen of another."""
    steps, evaluation = launches("float32")
    assert steps == 2 * ["train", "step", "finish"]
    assert evaluation == ["train", "finish"]
    steps, evaluation = launches("float64")
    assert len(steps) == 2 * 16
    assert "train" not in steps + evaluation


def launches(dtype):
    output, _ = run_python(LAUNCHES, dtype, NUMBA_ENABLE_CUDASIM="1", OMP_NUM_THREADS="1")
    return [line.split() for line in output.splitlines()]


GRAPHS = """
from types import SimpleNamespace
from unittest import mock
import numpy as np
import nbdense as nb
from nbdense.backends.cuda import device, workspace
from nbdense.training import phases
from tests.support.builders import make_model, workspace_and_data
from tests.support.cuda_simulator import take_turns

take_turns()
nb.set_device("cuda")
record, recorded = device.Stream.graph, []
device.Stream.graph = lambda *arguments: recorded.append(0) or record(*arguments)
model = make_model([2, 3, 1], ["relu", "linear"], "mse", "sgd", dtype="float32")
memory, _ = workspace_and_data(model, np.ones((3, 2)), np.ones((3, 1)), batch=1)
sets = [model.train_state.data(np.ones((3, 2)), np.ones((3, 1))) for _ in range(3)]
with mock.patch.object(workspace, "GRAPHS", 2):
    for number in (0, 1, 2, 1, 0):
        memory.run(phases.training(model.network.layers), sets[number], count=3, optimizer=model.optimizer)
        print(len(recorded), end=" ")
print()


def call(name, *values):
    return lambda *arguments: print(name, *arguments) or (0, *values)


names = ("cuGraphInstantiate", "cuGraphDestroy", "cuGraphLaunch", "cuGraphExecDestroy")
driver = SimpleNamespace(**{name: call(name, *("executable",) * (name == names[0])) for name in names})
graph = device.Graph(driver, "record", "stream")
graph()
del graph
print("gone")
"""


def test_graphs_are_dropped_from_the_oldest_on_and_leave_nothing_on_the_device():
    output, _ = run_python(GRAPHS, NUMBA_ENABLE_CUDASIM="1", OMP_NUM_THREADS="1")
    assert [line.strip() for line in output.splitlines()] == [
        "1 2 3 3 4",
        "cuGraphInstantiate record 0",
        "cuGraphDestroy record",
        "cuGraphLaunch executable stream",
        "cuGraphExecDestroy executable",
        "gone",
    ]


REFUSED = """
import numpy as np
import nbdense as nb
from nbdense.layers import Dense, Input
from nbdense.quant import quantize
model = nb.Sequential([Input((4,)), Dense(3)])
x = np.zeros((5, 4), np.float32)
nb.set_device("cuda")
try:
    quantize(model, scheme="dynamic").predict(x)
except NotImplementedError as error:
    print(error)
"""


def test_what_is_not_there_is_refused_by_name():
    output, _ = run_python(REFUSED, NUMBA_ENABLE_CUDASIM="1")
    assert "no dynamic quantization" in output
    assert "set_device('cpu')" in output
