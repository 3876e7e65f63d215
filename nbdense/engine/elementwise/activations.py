"""The table of activations: one row holds all that compiled code knows of one.

The scalar functions are compiled into the engine's loops; ``derivative`` takes the pre-activation, the output and
the parameter, and uses what it needs. To add an activation, add a row.

Accuracy: a few units in the last place of the result, in float32 and float64, with two exceptions. Results below
about 100 times the least normal number lose digits, and disappear with exp. In the far negative tail of gelu and
gelu_tanh, at -x, the argument of exp is rounded: x^2 / 2 (gelu_tanh: 0.07 x^3) units more, at most. Infinities give
the limits, forward and backward, and NaN stays NaN.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nbdense._compile.loops import loop
from nbdense._compile.policy import kernel
from nbdense.engine.elementwise.elementary import exp, expm1, like, log1p, normal_tail, sigmoid, tanh


@dataclass(frozen=True)
class Activation:
    """One activation function.

    Parameters
    ----------
    name : str
        Keras's name.
    code : int
        Its number in layer tables.
    forward : kernel or None
        ``forward(z, alpha)``; None where the clamp ``lower..upper`` in the product's epilogue is all of it, or where
        it is no scalar function (softmax).
    derivative : kernel or None
        ``derivative(z, a, alpha)`` of the output with respect to z; None: 1 everywhere, or no scalar function.
    from_output : bool
        Whether the derivative reads only the output ``a``; then the pre-activation is not kept.
    onnx : str
        The operator that computes it in ONNX; empty for none.
    lower, upper : float
        The clamp.
    alpha : float
        The parameter of those that have one.
    least : float
        The least that ``alpha`` may be; infinite where there is no parameter.
    write_onnx : callable or None
        ``write_onnx(graph, source, target)`` writes the ONNX nodes of a custom one, if it has such a form.
    """

    name: str
    code: int
    forward: Callable[..., Any] | None
    derivative: Callable[..., Any] | None
    from_output: bool
    onnx: str
    lower: float = -math.inf
    upper: float = math.inf
    alpha: float = 0.0
    least: float = math.inf
    write_onnx: Callable[[Any, str, str], Any] | None = None

    def with_alpha(self, alpha: float) -> Activation:
        """Return the same activation with another parameter.

        Parameters
        ----------
        alpha : float
            relu6's most (above 0), leaky_relu's slope, elu's most negative output (both at least 0).

        Raises
        ------
        ValueError
            If it is not such a number, or the activation has no parameter.
        """
        if self.least == math.inf:
            raise ValueError(f"activation {self.name!r} has no parameter alpha")
        try:
            fits = not isinstance(alpha, bool) and math.isfinite(alpha) and alpha >= self.least
        except TypeError:
            fits = False
        if not fits:
            least = "above 0" if self.least else "at least 0"
            raise ValueError(f"activation {self.name!r}: alpha must be a finite number {least}, got {alpha!r}")
        alpha = float(alpha)
        return dataclasses.replace(self, alpha=alpha, upper=alpha if self.code == RELU6 else self.upper)

    def calls(self, dtype: Any) -> tuple[int, int]:
        """Return the addresses of a custom activation's compiled loops, forward and backward.

        Parameters
        ----------
        dtype : dtype
            Type of the elements.

        Raises
        ------
        ValueError
            If numba cannot compile its functions.
        """
        assert self.forward is not None and self.derivative is not None
        owner = f"activation {self.name!r}"
        return loop("forward", dtype, self.forward, owner=owner), loop("backward", dtype, self.derivative, owner=owner)


# A loop with a call in it would not vectorise, and LLVM would leave the longer of these calls.
_inlined = functools.partial(kernel, inline=True)


@_inlined
def _relu_derivative(z, a, alpha):
    return like(a, 1.0) if a > like(a, 0.0) else like(a, 0.0)


@_inlined
def _relu6_derivative(z, a, alpha):
    return like(a, 1.0) if (a > like(a, 0.0)) & (a < like(a, alpha)) else like(a, 0.0)


@_inlined
def _leaky_relu(z, alpha):
    return z if z > like(z, 0.0) else like(z, alpha) * z


@_inlined
def _leaky_relu_derivative(z, a, alpha):
    return like(a, 1.0) if a > like(a, 0.0) else like(a, alpha)


@_inlined
def _elu(z, alpha):
    return z if z > like(z, 0.0) else like(z, alpha) * expm1(z)


@_inlined
def _elu_derivative(z, a, alpha):
    return like(a, 1.0) if a > like(a, 0.0) else a + like(a, alpha)


_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017, section 2


@_inlined
def _selu(z, alpha):
    return like(z, _SELU_SCALE) * z if z > like(z, 0.0) else like(z, _SELU_SCALE * _SELU_ALPHA) * expm1(z)


@_inlined
def _selu_derivative(z, a, alpha):
    return like(a, _SELU_SCALE) if a > like(a, 0.0) else a + like(a, _SELU_SCALE * _SELU_ALPHA)


@_inlined
def _sigmoid(z, alpha):
    return sigmoid(z)


@_inlined
def _sigmoid_derivative(z, a, alpha):
    return a * (like(a, 1.0) - a)


@_inlined
def _tanh(z, alpha):
    return tanh(z)


@_inlined
def _tanh_derivative(z, a, alpha):
    return like(a, 1.0) - a * a


@_inlined
def _softplus(z, alpha):
    return (z if z > like(z, 0.0) else like(z, 0.0)) + log1p(exp(-abs(z)))


@_inlined
def _softplus_derivative(z, a, alpha):
    return -expm1(-a)  # sigmoid(z), and exact where a is tiny


# silu, gelu, gelu_tanh and mish are relu(z) - g(|z|), with g from exp(-|z|) or the like: nothing cancels on either
# side, and one body serves both. g is |z| times what vanishes, which at infinity would be NaN: hence a size that ends
# where exp has become 0, in float64 too.


@_inlined
def _size(z, most):
    size = abs(z)
    return like(z, most) if size > like(z, most) else size


@_inlined
def _relu(z):
    return z if z > like(z, 0.0) else like(z, 0.0)


@_inlined
def _either(z, below):
    """Return a derivative: ``below`` where z is negative, and 1 less that elsewhere."""
    return below if z < like(z, 0.0) else like(z, 1.0) - below


@_inlined
def _silu(z, alpha):
    e = exp(-abs(z))
    return _relu(z) - _size(z, 800.0) * (e / (like(z, 1.0) + e))


@_inlined
def _silu_derivative(z, a, alpha):
    e, one = exp(-abs(z)), like(z, 1.0)
    r = one / (one + e)
    return _either(z, e * r * (one - _size(z, 800.0) * r))


_GELU_1, _GELU_3 = 2.0 * math.sqrt(2.0 / math.pi), 2.0 * math.sqrt(2.0 / math.pi) * 0.044715


@_inlined
def _gelu_tanh(z, alpha):
    # (1 + tanh u) / 2 is sigmoid(2u). Hendrycks and Gimpel 2016, section 2.
    size, one = _size(z, 40.0), like(z, 1.0)
    e = exp(-size * (like(z, _GELU_1) + like(z, _GELU_3) * size * size))
    return _relu(z) - size * (e / (one + e))


@_inlined
def _gelu_tanh_derivative(z, a, alpha):
    size, one = _size(z, 40.0), like(z, 1.0)
    cubic = like(z, _GELU_3) * size * size
    e = exp(-size * (like(z, _GELU_1) + cubic))
    r = one / (one + e)
    return _either(z, e * r * (one - size * r * (like(z, _GELU_1) + like(z, 3.0) * cubic)))


@_inlined
def _gelu(z, alpha):
    return _relu(z) - _size(z, 40.0) * (exp(like(z, -0.5) * z * z) * normal_tail(abs(z)))


@_inlined
def _gelu_derivative(z, a, alpha):
    tail, density = normal_tail(abs(z)), like(z, 0.3989422804014327)  # 1 / sqrt(2 pi)
    return _either(z, exp(like(z, -0.5) * z * z) * (tail - _size(z, 40.0) * density))


@_inlined
def _mish(z, alpha):
    # tanh(softplus(z)) is n / (n + 2), n = w (w + 2) and w = exp(z).
    zero, one, two = like(z, 0.0), like(z, 1.0), like(z, 2.0)
    e = exp(-abs(z))
    n, rest = (e * (e + two), two) if z < zero else (one + two * e, two * e * e)
    return _relu(z) - _size(z, 800.0) * ((n if z < zero else rest) / (n + rest))


@_inlined
def _mish_derivative(z, a, alpha):
    zero, one, two = like(z, 0.0), like(z, 1.0), like(z, 2.0)
    e = exp(-abs(z))
    n, rest = (e * (e + two), two) if z < zero else (one + two * e, two * e * e)
    r = one / (n + rest)
    bend = _size(z, 800.0) * (like(z, 4.0) * (one + e) * (e if z < zero else e * e)) * r
    return (n - bend if z < zero else n + bend) * r


@_inlined
def _within(z, low, high):
    z = like(z, low) if z < like(z, low) else z
    return like(z, high) if z > like(z, high) else z


@_inlined
def _hard_sigmoid(z, alpha):
    return _within(z + like(z, 3.0), 0.0, 6.0) * like(z, 1.0 / 6.0)


@_inlined
def _hard_sigmoid_derivative(z, a, alpha):
    return like(a, 1.0 / 6.0) if (a > like(a, 0.0)) & (a < like(a, 1.0)) else like(a, 0.0)


@_inlined
def _hard_swish(z, alpha):
    return _within(z, -3.0, math.inf) * (_within(z + like(z, 3.0), 0.0, 6.0) * like(z, 1.0 / 6.0))


@_inlined
def _hard_swish_derivative(z, a, alpha):
    middle = z * like(z, 1.0 / 3.0) + like(z, 0.5)
    above = like(z, 1.0) if z >= like(z, 3.0) else middle
    return like(z, 0.0) if z <= like(z, -3.0) else above


RELU, SOFTMAX, RELU6 = 1, 4, 5
CUSTOM = 1000  # codes from here on are users' own, numbered in each network
_POSITIVE = math.ulp(0.0)

ACTIVATIONS: dict[str, Activation] = {
    row.name: row
    for row in [
        Activation("linear", 0, None, None, True, ""),
        Activation("relu", RELU, None, _relu_derivative, True, "Relu", lower=0.0),
        Activation("sigmoid", 2, _sigmoid, _sigmoid_derivative, True, "Sigmoid"),
        Activation("tanh", 3, _tanh, _tanh_derivative, True, "Tanh"),
        Activation("softmax", SOFTMAX, None, None, True, "Softmax"),
        Activation(
            "relu6", RELU6, None, _relu6_derivative, True, "Clip", lower=0.0, upper=6.0, alpha=6.0, least=_POSITIVE
        ),
        Activation("leaky_relu", 6, _leaky_relu, _leaky_relu_derivative, True, "LeakyRelu", alpha=0.2, least=0.0),
        Activation("elu", 7, _elu, _elu_derivative, True, "Elu", alpha=1.0, least=0.0),
        Activation("selu", 8, _selu, _selu_derivative, True, "Selu"),
        Activation("gelu", 9, _gelu, _gelu_derivative, False, ""),
        Activation("gelu_tanh", 10, _gelu_tanh, _gelu_tanh_derivative, False, ""),
        Activation("silu", 11, _silu, _silu_derivative, False, ""),
        Activation("hard_sigmoid", 12, _hard_sigmoid, _hard_sigmoid_derivative, True, "HardSigmoid"),
        Activation("hard_swish", 13, _hard_swish, _hard_swish_derivative, False, "HardSwish"),
        Activation("softplus", 14, _softplus, _softplus_derivative, True, "Softplus"),
        Activation("mish", 15, _mish, _mish_derivative, False, ""),
    ]
}
_BY_CODE = {row.code: row for row in ACTIVATIONS.values()}


def activation_by_code(code: int) -> Activation:
    """Return the table row of a layer table's activation code."""
    return _BY_CODE[code]
