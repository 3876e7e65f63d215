"""Memory: flat over epochs, and data that does not fit into it."""

import json

from tests.support.python_process import run_python

COMMON = """
import json, resource, sys
import numpy as np
import nbdense as nb

def network(widths):
    nb.set_random_seed(0)
    layers = [nb.Dense(n, "relu") for n in widths[1:-1]]
    model = nb.Sequential([nb.Input((widths[0],)), *layers, nb.Dense(widths[-1], "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return model
"""


def run(script, *arguments, **environment):
    out, _ = run_python(COMMON + script, *arguments, **{"NUMBA_NUM_THREADS": "2", **environment})
    return json.loads(out.splitlines()[-1])


EPOCHS = """
model = network([784, 256, 10])
rng = np.random.default_rng(0)
x, y = rng.normal(size=(1500, 784)).astype("float32"), rng.integers(0, 10, 1500)
peaks = []
for epochs in (5, 95):
    model.fit(x, y, 500, epochs=epochs, verbose=0, validation_data=(x[:200], y[:200]))
    model.predict(x)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
unit = 1 if sys.platform == "darwin" else 1024
print(json.dumps([*(peak * unit for peak in peaks), model.network.params.nbytes]))
"""


def test_the_peak_is_flat_over_epochs():
    """A copy of the parameters kept each epoch would be 75 MB; the allowance is what the allocator may scatter."""
    after_5, after_100, parameters = run(EPOCHS)
    assert 95 * parameters > 4 * 16e6
    assert after_100 - after_5 < 16e6


# RLIMIT_DATA counts what a process writes to, and not the pages of a file that it only reads.
LARGE_FILE = """
rows, columns = 1 << 20, 256
path = sys.argv[1]
with open(path, "wb") as file:
    file.truncate(4 * rows * columns)
x = np.memmap(path, np.float32, "r+", shape=(rows, columns))
x[:: rows // 64] = 1.0  # the rest are holes, and take no disk
x.flush()
x = np.memmap(path, np.float32, "r", shape=(rows, columns))
y = (np.arange(rows) % (rows // 64) == 0).astype(np.int8)

model = network([columns, 8, 2])
model.fit(x[:2048], y[:2048], 1024, verbose=0)  # kernels are compiled
model.predict(x[:2048])

with open("/proc/self/status") as status:
    used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))
allowed = 256 << 20
_, hard = resource.getrlimit(resource.RLIMIT_DATA)
resource.setrlimit(resource.RLIMIT_DATA, (used + allowed, hard))
try:
    np.array(x)
    copied = True
except MemoryError:
    copied = False
history = model.fit(x, y, 1024, epochs=1, verbose=0, validation_split=0.1).history
found = model.evaluate(x, y)
outputs = model.predict(x)
print(json.dumps([copied, x.nbytes > 2 * allowed, history["loss"][0], found[0], bool(np.isfinite(outputs).all())]))
"""


def test_fitting_a_file_larger_than_memory(tmp_path):
    """1 GiB is trained on, evaluated and predicted with 256 MiB to spare; a copy is refused in between."""
    try:
        copied, large, loss, evaluated, finite = run(LARGE_FILE, str(tmp_path / "x"), OMP_NUM_THREADS="1")
    finally:
        (tmp_path / "x").unlink(missing_ok=True)
    assert not copied, "the limit was none"
    assert large and finite
    assert 0 < evaluated < loss < 1


VGG = """
import json, resource
import numpy as np
import nbdense as nb

model = nb.Sequential([
    nb.Input((7, 7, 512)), nb.Flatten(), nb.Dense(4096, "relu"), nb.Dropout(0.5), nb.Dense(4096, "relu"),
    nb.Dropout(0.5), nb.Dense(1000, "softmax"),
])
model.compile("adam", "sparse_categorical_crossentropy")
x = np.random.default_rng(0).random((8, 7, 7, 512), dtype=np.float32)
first = model.predict(x)
loss = model.fit(x, np.arange(8), 8, verbose=0).history["loss"][0]
moved = float(np.abs(model.predict(x) - first).max())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([model.count_params(), loss, moved, peak]))
"""


def test_vgg_16s_head_trains_within_4_gb():
    """102,764,544 + 16,781,312 + 4,097,000 parameters: built, run forward, and trained for a step."""
    parameters, loss, moved, peak = run(VGG)
    assert parameters == 102_764_544 + 16_781_312 + 4_097_000
    assert 4 < loss < 12 and moved > 0
    assert peak < 4e9
