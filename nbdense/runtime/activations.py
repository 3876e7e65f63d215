"""A formula in NumPy for each activation that files name, and what files may say of its parameters.

Each is close to that of `nbdense.engine.elementwise.formulas`, where the derivations are; tests hold one against the
other, their parameters too. Infinities give the limits, and NaN stays NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Function = Callable[[Array], Array]

POSITIVE = math.ulp(0.0)
_erfc = np.frompyfunc(math.erfc, 1, 1)
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805
_GELU_1, _GELU_3 = 2.0 * math.sqrt(2.0 / math.pi), 2.0 * math.sqrt(2.0 / math.pi) * 0.044715


class Parameter(NamedTuple):
    """A number beside what an activation is applied to: its value by default, its least, the infinity that it may be.

    Files have None for the infinity.
    """

    default: float
    least: float = -math.inf
    none: float | None = None


@dataclass(frozen=True)
class Formula:
    """A formula of an activation.

    Parameters
    ----------
    function : callable
        ``function(z, *numbers)`` of an array whose last axis is the columns; a new array, or z itself.
    parameters : tuple of Parameter
        Numbers that it has.
    clamp : callable or None
        ``clamp(*numbers)``, the ends of one that is a clamp and no more.
    """

    function: Callable[..., Array]
    parameters: tuple[Parameter, ...] = ()
    clamp: Callable[..., tuple[float, float]] | None = None


def _relu(z: Array) -> Array:
    return np.maximum(z, 0)


def _sigmoid(z: Array) -> Array:
    e = np.exp(-np.abs(z))
    return np.where(z < 0, e, 1) / (1 + e)


def _softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _log_softmax(z: Array) -> Array:
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def _elu(z: Array, alpha: float) -> Array:
    return np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0)))


def _selu(z: Array) -> Array:
    return np.where(z > 0, _SELU_SCALE * z, _SELU_SCALE * _SELU_ALPHA * np.expm1(np.minimum(z, 0)))


def _celu(z: Array, alpha: float) -> Array:
    return np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0) / alpha))


def _softplus(z: Array) -> Array:
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def _gelu(z: Array) -> Array:
    size = np.minimum(np.abs(z), 40)
    tail = np.asarray(_erfc(size.astype(np.float64) / math.sqrt(2.0)), np.float64) / 2
    return _relu(z) - (size * tail).astype(z.dtype)


def _gelu_tanh(z: Array) -> Array:
    size = np.minimum(np.abs(z), 40)
    e = np.exp(-size * (_GELU_1 + _GELU_3 * size * size))
    return _relu(z) - size * (e / (1 + e))


def _silu(z: Array) -> Array:
    e = np.exp(-np.abs(z))
    return _relu(z) - np.minimum(np.abs(z), 800) * (e / (1 + e))


def _mish(z: Array) -> Array:
    e = np.exp(-np.abs(z))
    below = z < 0
    n, rest = np.where(below, e * (e + 2), 1 + 2 * e), np.where(below, 2, 2 * e * e)
    return _relu(z) - np.minimum(np.abs(z), 800) * (np.where(below, n, rest) / (n + rest))


def _within(z: Array, low: float, high: float) -> Array:
    return np.minimum(np.maximum(z, low), high)


def _hard_sigmoid(z: Array) -> Array:
    return _within(z + 3, 0, 6) * (1 / 6)


def _hard_swish(z: Array) -> Array:
    return np.maximum(z, -3) * _hard_sigmoid(z)


def _softsign(z: Array) -> Array:
    size = np.minimum(np.abs(z), 1e30)
    return np.copysign(size / (1 + size), z)


def _log_sigmoid(z: Array) -> Array:
    return np.minimum(z, 0) - np.log1p(np.exp(-np.abs(z)))


def _hard_shrink(z: Array, threshold: float) -> Array:
    return np.where(np.abs(z) <= threshold, 0, z)


def _soft_shrink(z: Array, threshold: float) -> Array:
    return np.where(np.abs(z) <= threshold, 0, np.where(z > 0, z - threshold, z + threshold))


def _squareplus(z: Array, b: float) -> Array:
    size = np.abs(z)
    below = b / (2 * (np.hypot(z, z.dtype.type(math.sqrt(b))) + size))
    return np.where(z < 0, below, z + below)


def _softplus_beta(z: Array, beta: float, threshold: float) -> Array:
    scaled = z * beta
    return np.where(scaled > threshold, z, _softplus(scaled) / beta)


def _sparse_plus(z: Array) -> Array:
    return np.where(z <= -1, 0, np.where(z >= 1, z, (z + 1) * (z + 1) / 4))


def _sparse_sigmoid(z: Array) -> Array:
    return _within(z + 1, 0, 2) / 2


def _threshold(z: Array, threshold: float, value: float) -> Array:
    return np.where(z <= threshold, value, z)


def thresholded_relu(z: Array, threshold: float, slope: float, most: float) -> Array:
    """Return z above a threshold, up to a most, and slope (z - threshold) below.

    Parameters
    ----------
    z : ndarray
        Numbers.
    threshold, slope, most : float
        As those of `nbdense.layers.ReLU`.
    """
    below = slope * (z - threshold) if slope else 0
    return np.where(z <= threshold, below, np.minimum(z, most))


_ALPHA, _THRESHOLD = Parameter(1.0, POSITIVE), Parameter(0.5, 0.0)
FORMULAS: dict[str, Formula] = {
    "linear": Formula(lambda z: z, clamp=lambda: (-math.inf, math.inf)),
    "relu": Formula(_relu, clamp=lambda: (0.0, math.inf)),
    "sigmoid": Formula(_sigmoid),
    "tanh": Formula(np.tanh),
    "softmax": Formula(_softmax),
    "relu6": Formula(lambda z, most: _within(z, 0, most), (Parameter(6.0, POSITIVE),), clamp=lambda most: (0.0, most)),
    "leaky_relu": Formula(lambda z, slope: np.where(z > 0, z, slope * z), (Parameter(0.2, 0.0),)),
    "elu": Formula(_elu, (Parameter(1.0, 0.0),)),
    "selu": Formula(_selu),
    "gelu": Formula(_gelu),
    "gelu_tanh": Formula(_gelu_tanh),
    "silu": Formula(_silu),
    "hard_sigmoid": Formula(_hard_sigmoid),
    "hard_swish": Formula(_hard_swish),
    "softplus": Formula(_softplus),
    "mish": Formula(_mish),
    "softsign": Formula(_softsign),
    "exponential": Formula(np.exp),
    "celu": Formula(_celu, (_ALPHA,)),
    "log_softmax": Formula(_log_softmax),
    "log_sigmoid": Formula(_log_sigmoid),
    "hard_tanh": Formula(
        _within,
        (Parameter(-1.0, none=-math.inf), Parameter(1.0, none=math.inf)),
        clamp=lambda least, most: (least, most),
    ),
    "hard_shrink": Formula(_hard_shrink, (_THRESHOLD,)),
    "soft_shrink": Formula(_soft_shrink, (_THRESHOLD,)),
    "tanh_shrink": Formula(lambda z: z - np.tanh(z)),
    "squareplus": Formula(_squareplus, (Parameter(4.0, POSITIVE),)),
    "softplus_beta": Formula(_softplus_beta, (Parameter(1.0, POSITIVE), Parameter(20.0, none=math.inf))),
    "sparse_plus": Formula(_sparse_plus),
    "sparse_sigmoid": Formula(_sparse_sigmoid),
    "threshold": Formula(_threshold, (Parameter(0.0), Parameter(0.0))),
    "thresholded_relu": Formula(
        thresholded_relu, (Parameter(1.0, 0.0), Parameter(0.0), Parameter(math.inf, 0.0, none=math.inf))
    ),
}
ROWWISE = ("softmax", "log_softmax")  # an output depends on its whole row


def numbers_of(name: str, alpha: Any = None) -> tuple[float, ...]:
    """Return the parameters of an activation.

    Parameters
    ----------
    name : str
        A name of `FORMULAS`.
    alpha : float, sequence of float or None, optional
        As files have them; without, those that it has by default.

    Raises
    ------
    ValueError
        If there are more or fewer, or one cannot be.
    """
    parameters = FORMULAS[name].parameters
    if alpha is None:
        return tuple(parameter.default for parameter in parameters)
    given = list(alpha) if isinstance(alpha, Sequence) and not isinstance(alpha, str) else [alpha]
    if len(given) != len(parameters):
        raise ValueError(f"activation {name!r} has {len(parameters)} parameters, got {alpha!r}")
    numbers = tuple(_checked(name, value, parameter) for value, parameter in zip(given, parameters, strict=True))
    if (clamp := FORMULAS[name].clamp) is not None and not clamp(*numbers)[0] < clamp(*numbers)[1]:
        raise ValueError(f"activation {name!r}: a clamp to {list(numbers)} leaves no two numbers")
    return numbers


def _checked(name: str, value: Any, parameter: Parameter) -> float:
    if parameter.none is not None and (value is None or value == parameter.none):
        return parameter.none
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not value >= parameter.least:
        raise ValueError(f"activation {name!r}: {value!r} is none of its parameters'")
    return float(value)


def function_of(name: str, numbers: Sequence[float] = ()) -> Function | None:
    """Return an activation as a function of arrays; None for the linear one.

    Parameters
    ----------
    name : str
        A name of `FORMULAS`.
    numbers : sequence of float
        Its parameters.
    """
    formula = FORMULAS[name].function
    if name == "linear":
        return None
    return (lambda z: formula(z, *numbers)) if numbers else formula


def described(description: Any) -> tuple[str, tuple[float, ...]]:
    """Return the name and the parameters of an activation that a file describes.

    Parameters
    ----------
    description : str or dict
        Its name; {"name": ..., "alpha": ...}; or {"custom": name}, of a user's own.

    Raises
    ------
    ValueError
        If there is none of that name, its parameters cannot be, or it is a user's own, which files do not hold.
    """
    name, alpha = description, None
    if isinstance(description, Mapping) and set(description) == {"custom"}:
        raise ValueError(custom_refusal(description["custom"]))
    if isinstance(description, Mapping) and set(description) == {"name", "alpha"}:
        name, alpha = description["name"], description["alpha"]
    if not isinstance(name, str) or name not in FORMULAS:
        raise ValueError(f"unknown activation {description!r}")
    return name, numbers_of(name, alpha)


def custom_refusal(name: Any) -> str:
    """Return what is said of an activation of a user's own.

    Parameters
    ----------
    name : str
        The name.
    """
    return (
        f"activation {name!r} is one of your own, whose code files do not hold: nbdense.runtime has no form of it. "
        "Load the file with nbdense.load_model, or quantize the model: integers take it as a table"
    )
