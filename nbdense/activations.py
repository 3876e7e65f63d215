"""The table of activations: one row holds all that is known of one.

The scalar functions are compiled into the engine's loops; ``derivative`` takes the pre-activation, the output and
the parameter, and uses what it needs. To add an activation, add a row.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nbdense._jit import kernel, loop
from nbdense.engine.elementary import like, sigmoid, tanh


@dataclass(frozen=True)
class Activation:
    """One activation function.

    Attributes
    ----------
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

    def with_alpha(self, alpha: float) -> Activation:
        """The same with another parameter.

        Parameters
        ----------
        alpha : float
            The parameter.
        """
        return dataclasses.replace(self, alpha=float(alpha))

    def calls(self, dtype: Any) -> tuple[int, int]:
        """Addresses of a custom activation's compiled loops, forward and backward.

        Parameters
        ----------
        dtype : dtype
            Of the elements.
        """
        assert self.forward is not None and self.derivative is not None
        return loop("forward", dtype, self.forward), loop("backward", dtype, self.derivative)


@kernel
def _relu_derivative(z, a, alpha):
    return like(a, 1.0) if a > like(a, 0.0) else like(a, 0.0)


@kernel
def _sigmoid(z, alpha):
    return sigmoid(z)


@kernel
def _sigmoid_derivative(z, a, alpha):
    return a * (like(a, 1.0) - a)


@kernel
def _tanh(z, alpha):
    return tanh(z)


@kernel
def _tanh_derivative(z, a, alpha):
    return like(a, 1.0) - a * a


RELU, SOFTMAX = 1, 4
CUSTOM = 1000  # codes from here on are users' own, numbered in each network

ACTIVATIONS: dict[str, Activation] = {
    row.name: row
    for row in [
        Activation("linear", 0, None, None, True, ""),
        Activation("relu", RELU, None, _relu_derivative, True, "Relu", lower=0.0),
        Activation("sigmoid", 2, _sigmoid, _sigmoid_derivative, True, "Sigmoid"),
        Activation("tanh", 3, _tanh, _tanh_derivative, True, "Tanh"),
        Activation("softmax", SOFTMAX, None, None, True, "Softmax"),
    ]
}
_BY_CODE = {row.code: row for row in ACTIVATIONS.values()}


def activation_by_code(code: int) -> Activation:
    """The table row of a layer table's activation code."""
    return _BY_CODE[code]


def serialize(activation: Activation) -> Any:
    """What `get` makes the activation of again.

    Parameters
    ----------
    activation : Activation
        The activation.
    """
    return activation.name


def get(name: str | Activation | None) -> Activation:
    """The activation of that name; None is linear, as in Keras.

    Raises
    ------
    ValueError
        If there is no such activation.
    """
    if isinstance(name, Activation):
        return name
    row = ACTIVATIONS.get("linear" if name is None else name) if isinstance(name, str | None) else None
    if row is None:
        raise ValueError(f"unknown activation {name!r}; there are: {', '.join(sorted(ACTIVATIONS))}")
    return row
