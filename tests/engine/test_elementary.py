"""Elementary functions against long double, over every exponent."""

import math

import numpy as np
import pytest

from nbdense._compile.policy import JIT, switch
from nbdense.engine.elementwise import elementary
from tests.support.compiled import compiled

FUNCTIONS = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "erf": lambda x: np.array([math.erf(v) for v in x], np.longdouble),  # libm's, itself within an ulp in float64
}
ULPS = 3
globals().update({name: getattr(elementary, name) for name in FUNCTIONS})
_call = switch("_call", dict(enumerate(FUNCTIONS)), "x, out, i", "out[i] = {f}(x[i])", globals())


@compiled
def evaluate(code, x, out):
    for i in range(x.size):
        _call(code, x, out, i)


def every_exponent(dtype, count, rng):
    """``count`` numbers of each sign and exponent: denormals, infinities and NaN are among them."""
    bits, mantissa, integer = (32, 23, np.uint32) if dtype == np.float32 else (64, 52, np.uint64)
    tops = np.arange(2 ** (bits - mantissa), dtype=integer) << integer(mantissa)
    low = rng.integers(0, 2**mantissa, (tops.size, count), dtype=integer)
    low[:, 0], low[:, 1] = 0, 2**mantissa - 1
    return (tops[:, None] | low).view(dtype).ravel()


def errors_in_ulps(got, exact):
    """Distance from the exact value in units of its last place; beyond the largest number lies infinity, next to it."""
    limits = np.finfo(got.dtype)
    wider = np.finfo(np.longdouble).maxexp > limits.maxexp  # not so for float64 on some systems
    end = np.ldexp(np.longdouble(1), limits.maxexp) if wider else limits.max
    largest = np.nextafter(limits.max, got.dtype.type(0)).astype(np.longdouble)  # spacing(max) would overflow
    unit = np.abs(np.spacing(np.clip(exact, -largest, largest).astype(got.dtype))).astype(np.longdouble)
    return np.abs(np.clip(got.astype(np.longdouble), -end, end) - np.clip(exact, -end, end)) / unit


@pytest.mark.kernels
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_within_a_few_ulps(name, dtype):
    rng = np.random.default_rng(1)
    count = 2 if not JIT else 1000 if dtype == np.float32 else 100
    x = np.concatenate([every_exponent(dtype, count, rng), rng.uniform(-800, 800, 200 * count).astype(dtype)])
    if not JIT:
        x = x[rng.permutation(x.size)[:1000]]
    got = np.empty_like(x)
    evaluate(list(FUNCTIONS).index(name), x, got)
    with np.errstate(all="ignore"):
        exact = FUNCTIONS[name](x.astype(np.longdouble))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(exact))
    known = ~np.isnan(exact)
    errors = errors_in_ulps(got[known], exact[known])
    worst = errors.argmax()
    at = f"{name}({x[known][worst]!r}) is {got[known][worst]!r}"
    assert errors[worst] <= ULPS, f"{at}, off by {errors[worst]:.1f} ulps"


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ends_are_exact(dtype):
    """Overflow, underflow and zero give what they must, to the bit."""
    expected = {
        "exp": {0.0: 1.0, -np.inf: 0.0, np.inf: np.inf, 1e30: np.inf, -1e30: 0.0},
        "expm1": {0.0: 0.0, -np.inf: -1.0, np.inf: np.inf},
        "log": {1.0: 0.0, 0.0: -np.inf, np.inf: np.inf, -1.0: np.nan, -np.inf: np.nan},
        "tanh": {0.0: 0.0, -np.inf: -1.0, np.inf: 1.0, 50.0: 1.0, -50.0: -1.0},
        "sigmoid": {0.0: 0.5, -np.inf: 0.0, np.inf: 1.0},
        "erf": {0.0: 0.0, -np.inf: -1.0, np.inf: 1.0, 50.0: 1.0, -50.0: -1.0},
    }
    for code, name in enumerate(FUNCTIONS):
        x = np.array(list(expected[name]), dtype)
        got = np.empty_like(x)
        evaluate(code, x, got)
        np.testing.assert_array_equal(got, np.array(list(expected[name].values()), dtype), err_msg=name)
