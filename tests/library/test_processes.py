"""Processes: importing, forking, threads, the next process, and the command that warms up.

Each script runs in a process of its own, with a limit in time only so that a hang fails the test.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.python_process import HANGS_AFTER, run_python


def run(script, *arguments, **environment):
    """Run a script on two threads; returns what its last line says in JSON, and stderr."""
    out, err = run_python(script, *arguments, **{"NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "2", **environment})
    return json.loads(out.splitlines()[-1]), err


# What all scripts begin with. `large` is work enough for two threads on every layer.
COMMON = """
import json, os, sys
import numpy as np
import nbdense as nb

def model_and_data(widths, rows, activation="relu"):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, widths[0])).astype("float32")
    y = rng.integers(0, widths[-1], rows)
    layers = [nb.Dense(n, activation) for n in widths[1:-1]]
    nb.set_random_seed(0)
    model = nb.Sequential([nb.Input((widths[0],)), *layers, nb.Dense(widths[-1], "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return model, x, y

def large():
    return model_and_data([100, 300, 200, 10], 2048)

def alone(model, x):
    # In pieces too small for a second thread.
    return np.concatenate([model.predict(x[i : i + 8]) for i in range(0, len(x), 8)])
"""


IMPORT = """
import gc, json, sys, threading
import numba
from numba.core.dispatcher import Dispatcher
from numba.core.event import install_recorder
from numba.np.ufunc import parallel
from llvmlite import binding

def dispatchers():
    return sum(isinstance(thing, Dispatcher) for thing in gc.get_objects())

before, targets = dispatchers(), []
create = binding.Target.create_target_machine
binding.Target.create_target_machine = lambda *a, **k: targets.append(a) or create(*a, **k)
with install_recorder("numba:compile") as compilations:
    import nbdense
    imported = [len(compilations.buffer), len(targets), parallel._is_initialized, threading.active_count()]
    import nbdense.models
    used = [len(compilations.buffer), len(targets), parallel._is_initialized, threading.active_count()]
print(json.dumps([imported, used, dispatchers() - before]))
"""


def test_import_compiles_and_probes_nothing(tmp_path):
    """Not even the CPU is looked at, and no cache folder is made; importing a front end compiles nothing either.

    Nor are the kernels, hundreds, made known to numba.
    """
    cache = tmp_path / "cache"
    (imported, used, made), err = run(IMPORT, NBDENSE_CACHE_DIR=str(cache))
    assert imported == [0, 0, False, 1]
    assert [used[0], *used[2:]] == [0, False, 1]
    assert made < 20
    assert not err
    assert not cache.exists()


OTHER_ARCHITECTURE = (
    COMMON
    + """
from nbdense._compile import compilations, numba_internals
from nbdense.engine import program

saved = []  # by this process: others may be filling the cache's folder meanwhile
save = numba_internals.Cache.save_overload
numba_internals.Cache.save_overload = lambda cache, *a: saved.append(cache._function.__name__) or save(cache, *a)
if sys.argv[1] == "first":
    model, x, y = large()
else:
    model, x, y = model_and_data([70, 400, 150, 90, 3], 3000, sys.argv[2])
for part in (slice(None), slice(2)):  # parallel and serial
    model.fit(x[part], y[part], 1024, epochs=2, verbose=0, validation_split=0.1)
    model.predict(x[part])
    model.predict(x[part].astype("float64"))
entries = {"run_steps": program.run_steps, "predict": program.predict}
print(json.dumps({
    "misses": {name: sum(entry.stats.cache_misses.values()) for name, entry in entries.items()},
    "hits": {name: sum(entry.stats.cache_hits.values()) for name, entry in entries.items()},
    "compiled": [done.entry for done in compilations.compilations],
    "saved": saved,
}))
"""
)


def test_a_second_process_with_another_architecture_compiles_nothing():
    run(OTHER_ARCHITECTURE, "first")
    of_tanh = ["tanh_backward", "tanh_forward", "differentiate"]
    for activation, loops in (("relu", []), ("tanh", of_tanh), ("tanh", [])):
        second, err = run(OTHER_ARCHITECTURE, "second", activation)
        assert set(second["misses"].values()) == {0}
        assert set(second["hits"].values()) == {1}, "an entry was not reached"
        assert set(second["compiled"]) <= set(loops)  # another test's process may have been the first
        assert len(second["saved"]) == len(second["compiled"])
        assert loops or not err, "compiling was announced"


THREADS = (
    COMMON
    + """
import threading
from nbdense._compile import thread_pool
from nbdense.engine import program

granted = []
predict = program.predict
program.predict = lambda *a: granted.extend([a[-1]] * (a[-1] > 1)) or predict(*a)
model, x, y = large()
model.fit(x, y, 1024, verbose=0)
inputs = [x[: 8 * (1 + 31 * (i % 8))] for i in range(8)]
expected = [alone(model, part) for part in inputs]
wrong, start = [], threading.Barrier(9)

def ask(i):
    start.wait()
    for _ in range(30):
        if not (model.predict(inputs[i]) == expected[i]).all():
            wrong.append(i)

def trained():
    other, x, y = large()
    other.fit(x, y, 1024, epochs=2, verbose=0)
    for _ in range(20):
        other.train_on_batch(x, y)
    return other.network.params

weights = trained()

def train():
    start.wait()
    if not (trained() == weights).all():
        wrong.append("the weights")

threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)] + [threading.Thread(target=train)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps([thread_pool.layer(), wrong, len(granted)]))
"""
)


@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_eight_threads_predict_at_once(layer):
    """While a ninth trains another model, by fit and single batches.

    workqueue ends a process in which two parallel regions meet.
    """
    # Thresholds as on omp, so that workqueue has as many regions to run.
    script = THREADS.replace("granted = []", 'thread_pool.PARALLEL_FLOPS["workqueue"] = 4e6\ngranted = []')
    (found, wrong, regions), _ = run(script, NUMBA_THREADING_LAYER=layer)
    assert layer in ("default", found)
    assert not wrong
    assert regions > 0, "nothing ran in parallel"


FORK = """
def in_a_child(work):
    # What work() returns in a forked child, through a pipe.
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with os.fdopen(write, "w") as pipe:
                json.dump(work(), pipe)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    return json.loads(text)
"""

FORKED_CHILD = (
    COMMON
    + FORK
    + """
import hashlib
from nbdense._compile import thread_pool
from nbdense.engine import program

predict, granted = program.predict, []
program.predict = lambda *a: granted.append(a[-1]) or predict(*a)
model, x, y = large()
thread_pool.PARALLEL_FLOPS["workqueue"] = 4e6
expected = alone(model, x)
assert (model.predict(x) == expected).all()
assert max(granted) > 1, "nothing ran in parallel"

def digest(model):
    model.fit(x, y, 1024, epochs=2, verbose=0)
    return hashlib.sha256(model.network.params.tobytes()).hexdigest()

def child():
    right = bool((model.predict(x) == expected).all()) and bool((model.predict(x.astype("f8")) == expected).all())
    grandchild = in_a_child(lambda: bool((model.predict(x) == expected).all()))
    return [right, thread_pool.available(), digest(large()[0]), grandchild]

before = digest(large()[0])
found = in_a_child(child)
# With the lock held by another thread of the parent's: its owner is not in the child.
thread_pool._region.acquire()
locked = in_a_child(lambda: bool((model.predict(x) == expected).all()))
thread_pool._region.release()
print(json.dumps([found == [True, 1, before, True], locked, thread_pool.available(), digest(large()[0]) == before]))
"""
)


@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_a_forked_child_works_alone(layer):
    """After parallel training in the parent; and the parent goes on in parallel."""
    found, _ = run(FORKED_CHILD, NUMBA_THREADING_LAYER=layer)
    assert found == [True, True, 2, True]


IMPORTED_IN_THE_CHILD = (
    COMMON
    + FORK
    + """
import numba

@numba.njit(parallel=True)
def of_the_users_own(x):
    for i in numba.prange(x.size):
        x[i] += 1

of_the_users_own(np.zeros(1000))

def child():
    model, x, y = large()  # the engine is imported here
    from nbdense._compile import thread_pool
    return [bool((model.predict(x) == alone(model, x)).all()), thread_pool.available()]

assert "nbdense._compile.thread_pool" not in sys.modules
print(json.dumps(in_a_child(child)))
"""
)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only Linux has a layer that a fork breaks")
def test_imported_in_a_child_whose_parent_had_used_numbas_threads():
    found, _ = run(IMPORTED_IN_THE_CHILD)
    assert found == [True, 1]


WEIGHTS = (
    COMMON
    + """
import hashlib
from nbdense._compile import thread_pool

model, x, y = large()
model.fit(x, y, 1000, epochs=3, verbose=0)
outputs = model.predict(x)
print(json.dumps([thread_pool.limit(), hashlib.sha256(model.network.params.tobytes() + outputs.tobytes()).hexdigest()]))
"""
)


def test_the_same_weights_with_omp_num_threads_1_and_2():
    one, _ = run(WEIGHTS, OMP_NUM_THREADS="1")
    two, _ = run(WEIGHTS, OMP_NUM_THREADS="2")
    workqueue, _ = run(WEIGHTS, NUMBA_THREADING_LAYER="workqueue")
    assert [one[0], two[0], workqueue[0]] == [1, 2, 2]
    assert one[1] == two[1] == workqueue[1]


def warmup(*arguments, **environment):
    environment = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", "from nbdense.commands.cli import main; raise SystemExit(main())", "warmup", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=HANGS_AFTER,
    )


# All that changes types inside: dtypes, layouts, masks, weights, several schemes.
AFTER_WARMUP = (
    COMMON
    + """
from nbdense._compile import compilations

for dtype in ("float32", "float64"):
    model, x, y = large()
    model = nb.Sequential(
        [nb.Input((100,)), nb.Dense(200, "tanh"), nb.Dense(50, "sigmoid"), nb.Dense(10, "softmax")], dtype=dtype
    )
    model.compile("sgd", "categorical_crossentropy", ["accuracy"])
    one_hot = nb.to_categorical(y)
    model.fit(x, one_hot, 1024, verbose=0, sample_weight=np.ones(len(x)))
    for kind in ("float16", "float32", "float64", "int8", "uint64", "bool"):
        other = (x * 3).astype(kind)
        other.flags.writeable = False
        model.fit(np.asfortranarray(other)[::3], one_hot[::3], verbose=0)
        model.predict(other)
    model.evaluate(x, one_hot)
    sparse = nb.prune(model, 0.5)
    sparse.fit(x, one_hot, 1024, verbose=0)
    sparse.predict(x[:5])
    if dtype == "float32":
        nb.sparsify(sparse, choice="1x8").predict(x)
    nb.sparsify(nb.quantize(sparse, calibration=x[:100]), choice="4x16").predict(x)
    for options in ({}, {"rounding": "tflite"}, {"activation_dtype": "uint8"}, {"granularity": "per_tensor"}):
        small = nb.quantize(model, calibration=x[:100], **options)
        small.predict(x)
        small.predict(x[:1])
print(json.dumps([str(done) for done in compilations.compilations]))
"""
)


def test_warmup_reaches_everything():
    first = warmup("--dtype", "float32", "float64", "--quant")
    assert (first.returncode, first.stderr) == (0, "")
    second = warmup("--dtype", "float32", "float64", "--quant")
    assert (second.returncode, second.stderr) == (0, "")
    before, after = second.stdout.splitlines()
    assert before.startswith("compiling for float32 and float64 what is not there yet, in ")
    assert after.startswith("all was compiled already, in ")
    compiled, err = run(AFTER_WARMUP)
    assert compiled == []
    assert not err


def test_warmup_that_cannot_keep_anything(tmp_path):
    (tmp_path / "file").touch()
    done = warmup(NBDENSE_CACHE_DIR=str(tmp_path / "file"))
    assert done.returncode == 1
    assert done.stderr.startswith("nbdense warmup: ") and done.stderr.count("\n") == 1
    assert "set NBDENSE_CACHE_DIR" in done.stderr


def test_warmup_without_a_jit():
    done = warmup(NUMBA_DISABLE_JIT="1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "nbdense warmup: NUMBA_DISABLE_JIT is set: nothing is compiled\n"
