"""The scalar functions of activations: each one's value and derivative, written once.

``forward`` gets the pre-activation z and the parameters; ``derivative`` gets z, the output a, and the parameters, and
uses what it needs. Row functions, of which softmax is one, get a whole row of columns. The derivatives of relu and
relu6 are compiled into the program, and get one parameter, alpha; all others are compiled on demand.

Accuracy: a few units in the last place of the result, in float32 and float64, with three exceptions. Results below
about 100 times the least normal number lose digits, and disappear with exp. In the far negative tail of gelu and
gelu_tanh, at -x, the argument of exp is rounded: x^2 / 2 (gelu_tanh: 0.07 x^3) units more, at most. tanh_shrink, near
0, is exact to a unit of z. Infinities give the limits, forward and backward, and NaN stays NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nbdense._compile.policy import inlined
from nbdense.engine.elementwise.elementary import exp, expm1, like, log, log1p, normal_tail
from nbdense.engine.elementwise.elementary import sigmoid as logistic
from nbdense.engine.elementwise.elementary import tanh as hyperbolic_tangent
from nbdense.engine.elementwise.row_sums import normalise_row, shift_row

# All are inlined: a loop with a call in it would not vectorise, and LLVM would leave the longer of these calls.


@inlined
def _relu_derivative(z, a, alpha):
    return like(a, 1.0) if a > like(a, 0.0) else like(a, 0.0)


@inlined
def _relu6_derivative(z, a, alpha):
    return like(a, 1.0) if (a > like(a, 0.0)) & (a < like(a, alpha)) else like(a, 0.0)


@inlined
def _leaky_relu(z, alpha):
    return z if z > like(z, 0.0) else like(z, alpha) * z


@inlined
def _leaky_relu_derivative(z, a, alpha):
    return like(a, 1.0) if a > like(a, 0.0) else like(a, alpha)


@inlined
def _elu(z, alpha):
    return z if z > like(z, 0.0) else like(z, alpha) * expm1(z)


@inlined
def _elu_derivative(z, a, alpha):
    return like(a, 1.0) if a > like(a, 0.0) else a + like(a, alpha)


_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017, section 2


@inlined
def _selu(z):
    return like(z, _SELU_SCALE) * z if z > like(z, 0.0) else like(z, _SELU_SCALE * _SELU_ALPHA) * expm1(z)


@inlined
def _selu_derivative(z, a):
    return like(a, _SELU_SCALE) if a > like(a, 0.0) else a + like(a, _SELU_SCALE * _SELU_ALPHA)


@inlined
def _sigmoid(z):
    return logistic(z)


@inlined
def _sigmoid_derivative(z, a):
    return a * (like(a, 1.0) - a)


@inlined
def _tanh(z):
    return hyperbolic_tangent(z)


@inlined
def _tanh_derivative(z, a):
    return like(a, 1.0) - a * a


@inlined
def _softplus(z):
    return (z if z > like(z, 0.0) else like(z, 0.0)) + log1p(exp(-abs(z)))


@inlined
def _softplus_derivative(z, a):
    return -expm1(-a)  # logistic(z), and exact where a is tiny


# silu, gelu, gelu_tanh and mish are _relu(z) - g(|z|), with g from exp(-|z|) or the like: nothing cancels on either
# side, and one body serves both. g is |z| times what vanishes, which at infinity would be NaN: hence a size that ends
# where exp has become 0, in float64 too.


@inlined
def _size(z, most):
    size = abs(z)
    return like(z, most) if size > like(z, most) else size


@inlined
def _relu(z):
    return z if z > like(z, 0.0) else like(z, 0.0)


@inlined
def _either(z, below):
    """Return a derivative: ``below`` where z is negative, and 1 less that elsewhere."""
    return below if z < like(z, 0.0) else like(z, 1.0) - below


@inlined
def _silu(z):
    e = exp(-abs(z))
    return _relu(z) - _size(z, 800.0) * (e / (like(z, 1.0) + e))


@inlined
def _silu_derivative(z, a):
    e, one = exp(-abs(z)), like(z, 1.0)
    r = one / (one + e)
    return _either(z, e * r * (one - _size(z, 800.0) * r))


_GELU_1, _GELU_3 = 2.0 * math.sqrt(2.0 / math.pi), 2.0 * math.sqrt(2.0 / math.pi) * 0.044715


@inlined
def _gelu_tanh(z):
    # (1 + tanh u) / 2 is logistic(2u). Hendrycks and Gimpel 2016, section 2.
    size, one = _size(z, 40.0), like(z, 1.0)
    e = exp(-size * (like(z, _GELU_1) + like(z, _GELU_3) * size * size))
    return _relu(z) - size * (e / (one + e))


@inlined
def _gelu_tanh_derivative(z, a):
    size, one = _size(z, 40.0), like(z, 1.0)
    cubic = like(z, _GELU_3) * size * size
    e = exp(-size * (like(z, _GELU_1) + cubic))
    r = one / (one + e)
    return _either(z, e * r * (one - size * r * (like(z, _GELU_1) + like(z, 3.0) * cubic)))


@inlined
def _gelu(z):
    return _relu(z) - _size(z, 40.0) * (exp(like(z, -0.5) * z * z) * normal_tail(abs(z)))


@inlined
def _gelu_derivative(z, a):
    tail, density = normal_tail(abs(z)), like(z, 0.3989422804014327)  # 1 / sqrt(2 pi)
    return _either(z, exp(like(z, -0.5) * z * z) * (tail - _size(z, 40.0) * density))


@inlined
def _mish(z):
    # hyperbolic_tangent(_softplus(z)) is n / (n + 2), n = w (w + 2) and w = exp(z).
    zero, one, two = like(z, 0.0), like(z, 1.0), like(z, 2.0)
    e = exp(-abs(z))
    n, rest = (e * (e + two), two) if z < zero else (one + two * e, two * e * e)
    return _relu(z) - _size(z, 800.0) * ((n if z < zero else rest) / (n + rest))


@inlined
def _mish_derivative(z, a):
    zero, one, two = like(z, 0.0), like(z, 1.0), like(z, 2.0)
    e = exp(-abs(z))
    n, rest = (e * (e + two), two) if z < zero else (one + two * e, two * e * e)
    r = one / (n + rest)
    bend = _size(z, 800.0) * (like(z, 4.0) * (one + e) * (e if z < zero else e * e)) * r
    return (n - bend if z < zero else n + bend) * r


@inlined
def _within(z, low, high):
    z = like(z, low) if z < like(z, low) else z
    return like(z, high) if z > like(z, high) else z


@inlined
def _hard_sigmoid(z):
    return _within(z + like(z, 3.0), 0.0, 6.0) * like(z, 1.0 / 6.0)


@inlined
def _hard_sigmoid_derivative(z, a):
    return like(a, 1.0 / 6.0) if (a > like(a, 0.0)) & (a < like(a, 1.0)) else like(a, 0.0)


@inlined
def _hard_swish(z):
    return _within(z, -3.0, math.inf) * (_within(z + like(z, 3.0), 0.0, 6.0) * like(z, 1.0 / 6.0))


@inlined
def _hard_swish_derivative(z, a):
    middle = z * like(z, 1.0 / 3.0) + like(z, 0.5)
    above = like(z, 1.0) if z >= like(z, 3.0) else middle
    return like(z, 0.0) if z <= like(z, -3.0) else above


@inlined
def _softsign(z):
    size = _size(z, 1e30)  # where the result is 1
    value = size / (like(z, 1.0) + size)
    return -value if z < like(z, 0.0) else value


@inlined
def _softsign_derivative(z, a):
    rest = like(z, 1.0) / (like(z, 1.0) + _size(z, 1e30))
    return rest * rest


@inlined
def _exponential(z):
    return exp(z)


@inlined
def _exponential_derivative(z, a):
    return a


@inlined
def _celu(z, alpha):
    # Barron 2017.
    return z if z > like(z, 0.0) else like(z, alpha) * expm1(z / like(z, alpha))


@inlined
def _celu_derivative(z, a, alpha):
    return like(a, 1.0) if a > like(a, 0.0) else a / like(a, alpha) + like(a, 1.0)


@inlined
def _log_sigmoid(z):
    return (z if z < like(z, 0.0) else like(z, 0.0)) - log1p(exp(-abs(z)))


@inlined
def _log_sigmoid_derivative(z, a):
    return -expm1(a)


@inlined
def _hard_tanh_derivative(z, a, least, most):
    return like(a, 1.0) if (a > like(a, least)) & (a < like(a, most)) else like(a, 0.0)


@inlined
def _hard_shrink(z, threshold):
    return like(z, 0.0) if abs(z) <= like(z, threshold) else z


@inlined
def _soft_shrink(z, threshold):
    nearer = z - like(z, threshold) if z > like(z, 0.0) else z + like(z, threshold)
    return like(z, 0.0) if abs(z) <= like(z, threshold) else nearer


@inlined
def _shrink_derivative(z, a, threshold):
    return like(a, 0.0) if a == like(a, 0.0) else like(a, 1.0)


@inlined
def _tanh_shrink(z):
    return z - hyperbolic_tangent(z)


@inlined
def _tanh_shrink_derivative(z, a):
    value = hyperbolic_tangent(z)
    return value * value


@inlined
def _root_of_squares(z, b):
    """Return sqrt(z^2 + b), whose square may be too large for a number."""
    size, root = abs(z), np.sqrt(like(z, b))
    larger, smaller = (size, root) if size > root else (root, size)
    share = smaller / larger
    return larger * np.sqrt(like(z, 1.0) + share * share)


@inlined
def _squareplus(z, b):
    # Barron 2021. (sqrt(z^2 + b) - |z|) / 2 without a difference.
    below = like(z, b) / (like(z, 2.0) * (_root_of_squares(z, b) + abs(z)))
    return below if z < like(z, 0.0) else z + below


@inlined
def _squareplus_derivative(z, a, b):
    root = _root_of_squares(z, b)
    return _either(z, like(z, b) / (like(z, 2.0) * (root + abs(z))) / root)


@inlined
def _softplus_beta(z, beta, threshold):
    scaled = z * like(z, beta)
    return z if scaled > like(z, threshold) else _softplus(scaled) / like(z, beta)


@inlined
def _softplus_beta_derivative(z, a, beta, threshold):
    scaled = z * like(z, beta)
    return like(z, 1.0) if scaled > like(z, threshold) else logistic(scaled)


@inlined
def _sparse_plus(z):
    middle = like(z, 0.25) * (z + like(z, 1.0)) * (z + like(z, 1.0))
    above = z if z >= like(z, 1.0) else middle
    return like(z, 0.0) if z <= like(z, -1.0) else above


@inlined
def _sparse_plus_derivative(z, a):
    return _within(z + like(z, 1.0), 0.0, 2.0) * like(z, 0.5)


@inlined
def _sparse_sigmoid(z):
    # Blondel, Martins and Niculae 2019.
    return _within(z + like(z, 1.0), 0.0, 2.0) * like(z, 0.5)


@inlined
def _sparse_sigmoid_derivative(z, a):
    return like(a, 0.5) if (a > like(a, 0.0)) & (a < like(a, 1.0)) else like(a, 0.0)


@inlined
def _threshold(z, threshold, value):
    return like(z, value) if z <= like(z, threshold) else z


@inlined
def _threshold_derivative(z, a, threshold, value):
    return like(z, 0.0) if z <= like(z, threshold) else like(z, 1.0)


@inlined
def _thresholded_relu(z, threshold, slope, most):
    above = like(z, most) if z > like(z, most) else z
    below = like(z, slope) * (z - like(z, threshold)) if slope != 0.0 else like(z, 0.0)
    return below if z <= like(z, threshold) else above


@inlined
def _thresholded_relu_derivative(z, a, threshold, slope, most):
    above = like(z, 0.0) if (z >= like(z, most)) & (most < math.inf) else like(z, 1.0)
    return like(z, slope) if z <= like(z, threshold) else above


# -- of a whole row --


@inlined
def _softmax(z):
    shift_row(z, 0, z.size)
    for j in range(z.size):
        z[j] = exp(z[j])
    normalise_row(z, 0, z.size)


@inlined
def _log_softmax(z):
    shift_row(z, 0, z.size)
    total = z.dtype.type(0.0)
    for j in range(z.size):
        total += exp(z[j])
    for j in range(z.size):
        z[j] -= log(total)


@inlined
def _log_softmax_derivative(z, a, delta):
    total = z.dtype.type(0.0)
    for j in range(a.size):
        total += delta[j]
    for j in range(a.size):
        delta[j] -= exp(a[j]) * total


# By name: (forward, derivative), as `Activation` has them.
FORMULAS: dict[str, tuple[Callable[..., Any] | None, Callable[..., Any] | None]] = {
    "linear": (None, None),
    "relu": (None, _relu_derivative),
    "sigmoid": (_sigmoid, _sigmoid_derivative),
    "tanh": (_tanh, _tanh_derivative),
    "softmax": (_softmax, None),
    "relu6": (None, _relu6_derivative),
    "leaky_relu": (_leaky_relu, _leaky_relu_derivative),
    "elu": (_elu, _elu_derivative),
    "selu": (_selu, _selu_derivative),
    "gelu": (_gelu, _gelu_derivative),
    "gelu_tanh": (_gelu_tanh, _gelu_tanh_derivative),
    "silu": (_silu, _silu_derivative),
    "hard_sigmoid": (_hard_sigmoid, _hard_sigmoid_derivative),
    "hard_swish": (_hard_swish, _hard_swish_derivative),
    "softplus": (_softplus, _softplus_derivative),
    "mish": (_mish, _mish_derivative),
    "softsign": (_softsign, _softsign_derivative),
    "exponential": (_exponential, _exponential_derivative),
    "celu": (_celu, _celu_derivative),
    "log_softmax": (_log_softmax, _log_softmax_derivative),
    "log_sigmoid": (_log_sigmoid, _log_sigmoid_derivative),
    "hard_tanh": (None, _hard_tanh_derivative),
    "hard_shrink": (_hard_shrink, _shrink_derivative),
    "soft_shrink": (_soft_shrink, _shrink_derivative),
    "tanh_shrink": (_tanh_shrink, _tanh_shrink_derivative),
    "squareplus": (_squareplus, _squareplus_derivative),
    "softplus_beta": (_softplus_beta, _softplus_beta_derivative),
    "sparse_plus": (_sparse_plus, _sparse_plus_derivative),
    "sparse_sigmoid": (_sparse_sigmoid, _sparse_sigmoid_derivative),
    "threshold": (_threshold, _threshold_derivative),
    "thresholded_relu": (_thresholded_relu, _thresholded_relu_derivative),
}
