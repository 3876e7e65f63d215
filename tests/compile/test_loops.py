"""Loops that are compiled on demand are kept in the cache folder, if their code says all that they compute."""

import functools
import json
import math
import os

import numpy as np
import pytest

from nbdense._compile import kernel_cache, loops
from nbdense._compile.policy import JIT
from tests.support.python_process import run_python

FACTOR, FLAG = 2.0, True
pytestmark = pytest.mark.skipif(not JIT, reason="nothing is compiled without the JIT")


def by_modules(w, g, rate):
    """Read nothing but its arguments, builtins, math and NumPy."""
    return w - rate * math.copysign(min(abs(g), 1.0), g) * np.exp(-abs(w))


def by_a_global(w, g, rate):
    return w - rate * g * FACTOR


def by_a_flag(w, g, rate):
    return w - rate * g if FLAG else w


def by_another(w, g, rate):
    return by_modules(w, g, rate)


def by_a_default(w, g, rate, scale=np.float32(2)):
    return w - rate * g * scale


def by_closure(factor):
    return lambda w, g, rate: w - rate * g * factor


@pytest.mark.parametrize(
    "function",
    [
        by_a_global,
        by_a_flag,
        by_another,
        by_a_default,
        by_closure(2.0),
        functools.partial(by_modules, rate=1),
        os.getcwd,
    ],
)
def test_what_depends_on_more_than_its_code_is_not_kept(function):
    assert loops._text_of(function) is None


def test_functions_are_told_apart_by_all_that_they_compute():
    def doubled(w, g, rate):
        return w - rate * g * 2.0

    def tripled(w, g, rate):
        return w - rate * g * 3.0

    def with_default(w, g, rate=0.5):
        return w - rate * g * 2.0

    def by_sine(w):
        return np.sin(w)

    def by_cosine(w):
        return np.cos(w)

    functions = [by_modules, doubled, tripled, with_default, by_sine, by_cosine]
    texts = [loops._text_of(function) for function in functions]
    assert None not in texts and len(set(texts)) == len(functions)
    assert doubled.__code__.co_code == tripled.__code__.co_code, "or the constants need no looking at"


SCRIPT = """
import json, sys
import numpy as np
import nbdense as nb
from nbdense._compile import numba_internals
from nbdense.optimizers import Optimizer

saved = []
save = numba_internals.Cache.save_overload
numba_internals.Cache.save_overload = lambda cache, *a: saved.append(cache._function.__name__) or save(cache, *a)
FACTOR = float(sys.argv[1])

def own_loss(y_true, y_pred):
    return np.mean(np.abs(y_true - y_pred) * 1.5, axis=-1)

class Own(Optimizer):
    name, fields, base_slots = "Own", (), 0

    @staticmethod
    def step(weight, gradient, rate, iteration):
        return weight - rate * gradient * FACTOR

rng = np.random.default_rng(0)
x, y = rng.normal(size=(64, 3)).astype("float32"), rng.normal(size=(64, 2)).astype("float32")
found = []
for optimizer, loss in (("adamax", "log_cosh"), (Own(0.01), own_loss)):
    nb.set_random_seed(0)
    model = nb.Sequential([nb.Input((3,)), nb.Dense(4, "tanh"), nb.Dense(2)])
    model.compile(optimizer, loss)
    model.fit(x, y, 16, epochs=2, verbose=0)
    found.append([float(weights.sum()) for weights in model.get_weights()])
print(json.dumps({"saved": saved, "found": found}))
"""


def test_a_second_process_loads_them():
    """A step of the user's that reads a global number has each process's own number."""
    # Files are named after what is computed: those of the last run of this test would be loaded.
    script = SCRIPT.replace("1.5", str(1.5 + os.getpid() / 2**24))
    first, second, third = (json.loads(run_python(script, factor)[0].splitlines()[-1]) for factor in ("2", "2", "3"))
    (own,) = (name for name in first["saved"] if name.startswith("loss"))
    for file in kernel_cache.cache_folder().glob(f"{own}*"):
        file.unlink()
    assert second["saved"] == third["saved"] == []
    assert second["found"] == first["found"]
    assert third["found"][0] == first["found"][0] and third["found"][1] != first["found"][1]
