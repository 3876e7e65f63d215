"""The table of losses, and their classes under Keras's names.

A loss is the quantity it is named after, a number for each row; a batch's loss is the mean over its rows.
Elementwise losses average ``value(output, target, parameter)`` over the columns. A loss that ``fuses`` with the
last layer's activation is computed from what enters that activation, exactly and without overflow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nbdense._jit import kernel
from nbdense.engine.elementary import exp, like, log, sigmoid

SOFTMAX_CROSSENTROPY = 100  # codes of losses that are no mean of scalar functions; see engine.loss
CATEGORICAL_CROSSENTROPY = 101
SOFTMAX_CROSSENTROPY_OF_OUTPUTS = 102  # an activation that is still to be differentiated made the logits: they stay
CUSTOM_LOSS = 1000  # a user's own, by the address of its loop


@dataclass(frozen=True)
class LossForm:
    """One compiled loss: its code, and its scalar functions if it is elementwise."""

    name: str
    code: int
    value: Callable[..., Any] | None = None
    derivative: Callable[..., Any] | None = None


@kernel
def _squared(y, t, parameter):
    return (y - t) * (y - t)


@kernel
def _squared_derivative(y, t, parameter):
    return like(y, 2.0) * (y - t)


@kernel
def _log1p_exp_minus(size):
    """log(1 + exp(-size)), size >= 0. With u = 1 + e rounded, log(u) e / (u - 1) cancels the rounding (Higham 1.14)."""
    one = like(size, 1.0)
    e = exp(-size)
    u = one + e
    return log(u) * (e / (u - one)) if u > one else e


@kernel
def _binary_logit(z, t, smoothing):
    half, zero = like(z, 0.5), like(z, 0.0)
    t = t * (like(z, 1.0) - like(z, smoothing)) + half * like(z, smoothing)
    return (z if z > zero else zero) - z * t + _log1p_exp_minus(abs(z))


@kernel
def _binary_logit_derivative(z, t, smoothing):
    t = t * (like(z, 1.0) - like(z, smoothing)) + like(z, 0.5) * like(z, smoothing)
    return sigmoid(z) - t


@kernel
def _clipped(p):
    """Keras's guard of a probability: within [1e-7, 1 - 1e-7]."""
    low, high = like(p, 1e-7), like(p, 1.0) - like(p, 1e-7)
    p = low if p < low else p
    return high if p > high else p


@kernel
def _binary(p, t, smoothing):
    one = like(p, 1.0)
    t = t * (one - like(p, smoothing)) + like(p, 0.5) * like(p, smoothing)
    q = _clipped(p)
    return -(t * log(q) + (one - t) * log(one - q))


@kernel
def _binary_derivative(p, t, smoothing):
    one = like(p, 1.0)
    t = t * (one - like(p, smoothing)) + like(p, 0.5) * like(p, smoothing)
    q = _clipped(p)
    return (q - t) / (q * (one - q)) if q == p else like(p, 0.0)


FORMS: dict[str, LossForm] = {
    form.name: form
    for form in [
        LossForm("mean_squared_error", 0, _squared, _squared_derivative),
        LossForm("binary_crossentropy", 1, _binary, _binary_derivative),
        LossForm("binary_crossentropy_from_logits", 2, _binary_logit, _binary_logit_derivative),
        LossForm("softmax_crossentropy", SOFTMAX_CROSSENTROPY),
        LossForm("categorical_crossentropy", CATEGORICAL_CROSSENTROPY),
        LossForm("softmax_crossentropy_of_outputs", SOFTMAX_CROSSENTROPY_OF_OUTPUTS),
    ]
}


@dataclass(frozen=True)
class Loss:
    """A loss as users name it.

    Attributes
    ----------
    name : str
        Keras's name.
    sparse : bool
        Whether targets are class numbers instead of rows of numbers.
    """

    name: str = ""
    sparse: bool = False

    def form(self, activation: str) -> tuple[LossForm, bool, float]:
        """The compiled loss to use after ``activation``, whether it fuses with it, and its parameter."""
        return FORMS[self.name], False, 0.0

    def call(self, dtype: Any) -> int:
        """Address of a custom loss's compiled loop; 0 for the others."""
        return 0

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild it."""
        return {}


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """Mean over the columns of (y - target)^2.

    Parameters
    ----------
    name : str
        What it is called.
    sparse : bool
        False: targets are numbers, one an output.
    """

    name: str = "mean_squared_error"


@dataclass(frozen=True)
class _Crossentropy(Loss):
    from_logits: bool = False
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.label_smoothing <= 1.0:
            raise ValueError(f"{self.name}: label_smoothing must be in [0, 1], got {self.label_smoothing!r}")

    def get_config(self) -> dict[str, Any]:
        return {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing}


@dataclass(frozen=True)
class BinaryCrossentropy(_Crossentropy):
    """-(t log p + (1 - t) log(1 - p)), mean over the columns; targets in [0, 1].

    After a sigmoid layer, or with ``from_logits``, it is computed from the logits: the true value, where Keras
    clips probabilities to [1e-7, 1 - 1e-7].

    Parameters
    ----------
    name : str
        What it is called.
    sparse : bool
        Whether targets are class numbers.
    from_logits : bool
        Whether the model puts out logits instead of probabilities.
    label_smoothing : float
        In [0, 1]: this share of each target is spread evenly over the classes.
    """

    name: str = "binary_crossentropy"

    def form(self, activation: str) -> tuple[LossForm, bool, float]:
        fused = activation == "sigmoid" and not self.from_logits
        logits = self.from_logits or fused
        form = FORMS["binary_crossentropy_from_logits" if logits else "binary_crossentropy"]
        return form, fused, self.label_smoothing


@dataclass(frozen=True)
class CategoricalCrossentropy(_Crossentropy):
    """-sum t log p; targets are rows of class probabilities (one-hot).

    After a softmax layer, or with ``from_logits``, it is computed from the logits by log-sum-exp: the true value,
    where Keras clips at about 16.1. After any other activation outputs are normalised and clipped as Keras does.

    Parameters
    ----------
    name : str
        What it is called.
    sparse : bool
        Whether targets are class numbers.
    from_logits : bool
        Whether the model puts out logits instead of probabilities.
    label_smoothing : float
        In [0, 1]: this share of each target is spread evenly over the classes.
    """

    name: str = "categorical_crossentropy"

    def form(self, activation: str) -> tuple[LossForm, bool, float]:
        if self.from_logits:
            return FORMS["softmax_crossentropy_of_outputs"], False, self.label_smoothing
        fused = activation == "softmax"
        return FORMS["softmax_crossentropy" if fused else "categorical_crossentropy"], fused, self.label_smoothing


@dataclass(frozen=True)
class SparseCategoricalCrossentropy(CategoricalCrossentropy):
    """`CategoricalCrossentropy` with class numbers 0..n-1 for targets.

    Parameters
    ----------
    name : str
        What it is called.
    sparse : bool
        Whether targets are class numbers.
    from_logits : bool
        Whether the model puts out logits instead of probabilities.
    label_smoothing : float
        In [0, 1]: this share of each target is spread evenly over the classes.
    """

    name: str = "sparse_categorical_crossentropy"
    sparse: bool = True


LOSSES: dict[str, type[Loss]] = {
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "binary_crossentropy": BinaryCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
}


def get(loss: str | Loss) -> Loss:
    """The loss of that name.

    Raises
    ------
    ValueError
        If there is no such loss.
    """
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, str) or loss not in LOSSES:
        raise ValueError(f"unknown loss {loss!r}; there are: {', '.join(sorted(LOSSES))}")
    return LOSSES[loss]()
