"""Losses, under Keras's names: what each is, how its targets look, and which compiled form computes it.

A loss is the quantity it is named after, a number for each row; a batch's loss is the sum over its rows, each times
its weight, divided by the batch's size (Keras's ``sum_over_batch_size``). Where the outputs have positions, each
position is such a row. A loss that ``fuses`` with the last layer's activation is computed from what enters that
activation, exactly and without overflow. `nbdense.engine.elementwise.loss_forms` has the formulas.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nbdense._checks import finite_number
from nbdense._registry import Registry
from nbdense.activations import ACTIVATIONS
from nbdense.engine.elementwise.loss_forms import FORMS as FORMS
from nbdense.engine.elementwise.loss_forms import LossForm as LossForm
from nbdense.losses.base import Chosen, CustomLoss, check_derivative
from nbdense.losses.base import Loss as Loss

_PROBABILITIES = ("softmax", "sigmoid", "hard_sigmoid")  # activations whose outputs may be taken for these
_NOT_NEGATIVE = tuple(name for name, row in ACTIVATIONS.items() if row.not_negative)


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """Mean over the columns of (y - target)^2.

    Parameters
    ----------
    reduction : str
        Nothing but "sum_over_batch_size".
    name : str
        What it is called.
    """

    kind: ClassVar[str] = "mean_squared_error"


@dataclass(frozen=True)
class MeanAbsoluteError(Loss):
    """Mean over the columns of |y - target|; its derivative is 0 where they are equal.

    Parameters
    ----------
    reduction : str
        Nothing but "sum_over_batch_size".
    name : str
        What it is called.
    """

    kind: ClassVar[str] = "mean_absolute_error"


@dataclass(frozen=True)
class Huber(Loss):
    """Mean over the columns of e^2 / 2 where e = |y - target| is up to delta, and of delta e - delta^2 / 2 beyond.

    P. J. Huber, "Robust estimation of a location parameter" (1964), section 3.

    Parameters
    ----------
    delta : float
        Above 0: where the parabola goes over into lines.
    reduction : str
        Nothing but "sum_over_batch_size".
    name : str
        What it is called.
    """

    kind: ClassVar[str] = "huber"
    delta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        finite_number(self.name, "delta", self.delta, 0.0, ends="()")

    def form(self, activation: str) -> Chosen:
        return FORMS[self.kind], False, float(self.delta)


@dataclass(frozen=True)
class LogCosh(Loss):
    """Mean over the columns of log(cosh(y - target)), for errors of any size.

    Parameters
    ----------
    reduction : str
        Nothing but "sum_over_batch_size".
    name : str
        What it is called.
    """

    kind: ClassVar[str] = "log_cosh"


@dataclass(frozen=True)
class Quantile(Loss):
    """Pinball loss, whose least mean is at a quantile of the targets; Keras has none.

    Mean over the columns of q e where e = target - y is above 0, and of (q - 1) e below; the derivative is 0 between.
    R. Koenker and G. Bassett, "Regression Quantiles" (1978), section 2.

    Parameters
    ----------
    quantile : float
        Between 0 and 1: the share q of targets that shall lie below the outputs; 0.5 is their median.
    reduction : str
        Nothing but "sum_over_batch_size".
    name : str
        What it is called.
    """

    kind: ClassVar[str] = "quantile"
    quantile: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        finite_number(self.name, "quantile", self.quantile, 0.0, 1.0, ends="()", expected="between 0 and 1")

    def form(self, activation: str) -> Chosen:
        return FORMS[self.kind], False, float(self.quantile)


@dataclass(frozen=True)
class Poisson(Loss):
    """Mean over the columns of y - target log(y + 1e-7); targets are counts, or other numbers of at least 0.

    Outputs are rates, at least 0: let the last layer be a softplus, for example.

    Parameters
    ----------
    reduction : str
        Nothing but "sum_over_batch_size".
    name : str
        What it is called.
    """

    kind: ClassVar[str] = "poisson"
    suited: ClassVar[tuple[str, ...]] = _NOT_NEGATIVE
    advice: ClassVar[str] = "it takes the outputs' logarithm, and they may be negative; end with 'softplus'"


@dataclass(frozen=True)
class Hinge(Loss):
    """Mean over the columns of max(1 - target y, 0); targets are -1 and 1.

    If all targets are 0 or 1, 0 stands for -1. The whole data set decides that, where Keras asks each batch. The
    derivative is 0 where target y = 1.

    Parameters
    ----------
    reduction : str
        Nothing but "sum_over_batch_size".
    name : str
        What it is called.
    """

    kind: ClassVar[str] = "hinge"


@dataclass(frozen=True)
class KLDivergence(Loss):
    """Sum over the columns of target log(target / y), both clipped to [1e-7, 1]; targets are class probabilities.

    Where y is clipped its derivative is 0.

    Parameters
    ----------
    reduction : str
        Nothing but "sum_over_batch_size".
    name : str
        What it is called.
    """

    kind: ClassVar[str] = "kl_divergence"
    suited: ClassVar[tuple[str, ...]] = _NOT_NEGATIVE
    advice: ClassVar[str] = "it takes outputs for probabilities, and clips others to [1e-7, 1]; end with 'softmax'"


@dataclass(frozen=True)
class _Crossentropy(Loss):
    wanted: ClassVar[str] = ""  # the activation that it fuses with
    from_logits: bool = False
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.from_logits, bool | np.bool_):
            raise ValueError(f"{self.name}: from_logits must be True or False, got {self.from_logits!r}")
        finite_number(self.name, "label_smoothing", self.label_smoothing, 0.0, 1.0)

    def advice_after(self, activation: str) -> str:
        if self.from_logits and activation in ("softmax", "sigmoid"):
            return "from_logits=True takes these probabilities for logits; leave it out, or end with 'linear'"
        if not self.from_logits and activation in ACTIVATIONS and activation not in _NOT_NEGATIVE:
            return f"outputs are taken for probabilities; end with {self.wanted!r}, or say from_logits=True"
        return ""


@dataclass(frozen=True)
class BinaryCrossentropy(_Crossentropy):
    """Mean over the columns of -(t log p + (1 - t) log(1 - p)); targets in [0, 1].

    After a sigmoid layer, or with ``from_logits``, it is computed from the logits: the true value, where Keras
    clips probabilities to [1e-7, 1 - 1e-7], and so never tells of more than about 16.1.

    Parameters
    ----------
    from_logits : bool
        Whether the model puts out logits instead of probabilities.
    label_smoothing : float
        In [0, 1]: this share of each target is moved to 0.5.
    reduction : str
        Nothing but "sum_over_batch_size".
    name : str
        What it is called.
    """

    kind: ClassVar[str] = "binary_crossentropy"
    wanted: ClassVar[str] = "sigmoid"

    def form(self, activation: str) -> Chosen:
        fused = activation == "sigmoid" and not self.from_logits
        logits = self.from_logits or fused
        form = FORMS["binary_crossentropy_from_logits" if logits else "binary_crossentropy"]
        return form, fused, self.label_smoothing


@dataclass(frozen=True)
class CategoricalCrossentropy(_Crossentropy):
    """Cross-entropy, -sum t log p; targets are rows of class probabilities (one-hot).

    After a softmax layer, or with ``from_logits``, it is computed from the logits by log-sum-exp: the true value,
    where Keras clips at about 16.1. After any other activation outputs are normalised and clipped as Keras does;
    but a row of zeros, of which Keras makes NaN, is clipped to 1e-7 each: a loss of about 16.1, and no gradient.

    Parameters
    ----------
    from_logits : bool
        Whether the model puts out logits instead of probabilities.
    label_smoothing : float
        In [0, 1]: this share of each target is spread evenly over the classes.
    reduction : str
        Nothing but "sum_over_batch_size".
    name : str
        What it is called.
    """

    kind: ClassVar[str] = "categorical_crossentropy"
    wanted: ClassVar[str] = "softmax"

    def form(self, activation: str) -> Chosen:
        if self.from_logits:
            return FORMS["softmax_crossentropy_of_outputs"], False, self.label_smoothing
        fused = activation == "softmax"
        return FORMS["softmax_crossentropy" if fused else "categorical_crossentropy"], fused, self.label_smoothing


@dataclass(frozen=True)
class SparseCategoricalCrossentropy(CategoricalCrossentropy):
    """`CategoricalCrossentropy` with class numbers 0..n-1 for targets.

    Parameters
    ----------
    from_logits : bool
        Whether the model puts out logits instead of probabilities.
    label_smoothing : float
        In [0, 1]: this share of each target is spread evenly over the classes. Keras has it for one-hot targets only.
    reduction : str
        Nothing but "sum_over_batch_size".
    name : str
        What it is called.
    """

    kind: ClassVar[str] = "sparse_categorical_crossentropy"
    sparse: ClassVar[bool] = True


def custom(name: str, value: Callable[[Any, Any], Any], derivative: Callable[[Any, Any], Any]) -> Loss:
    """Make a loss of one's own: the mean over the columns of a scalar function, as `MeanSquaredError` is.

    Parameters
    ----------
    name : str
        What it is called. Files keep the name only: whoever loads one brings the loss by ``custom_objects``.
    value : callable
        ``value(y, t)``: an output's share in the loss, of output and target; a number. Numba compiles it, for
        numbers of the model's dtype.
    derivative : callable
        ``derivative(y, t)``: the derivative of ``value`` by ``y``.

    Returns
    -------
    Loss

    Raises
    ------
    ValueError, TypeError
        For a name that is taken, or what is not a function of two numbers that returns one. That numba cannot compile
        it is a ValueError of `fit`.

    Warns
    -----
    UserWarning
        If ``derivative`` is not ``value``'s, by central differences at a few points.

    Examples
    --------
    >>> from nbdense.losses import custom
    >>> def value(y, t):
    ...     return (y - t) ** 4
    >>> def derivative(y, t):
    ...     return 4 * (y - t) ** 3
    >>> custom("quartic", value, derivative).name
    'quartic'
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"custom: name must be a string, got {name!r}")
    if name in REGISTRY:
        raise ValueError(f"custom: {name!r} is a loss already; take another name")
    for role, function in (("value", value), ("derivative", derivative)):
        if not callable(function):
            raise TypeError(f"custom: {role} must be a function of (output, target), got {type(function).__name__}")
    check_derivative(name, value, derivative)
    return CustomLoss(name=name, value=value, derivative=derivative)


_ROWS: dict[str, type[Loss]] = {
    kind.kind: kind
    for kind in (
        MeanSquaredError,
        MeanAbsoluteError,
        Huber,
        LogCosh,
        Quantile,
        Poisson,
        BinaryCrossentropy,
        CategoricalCrossentropy,
        SparseCategoricalCrossentropy,
        Hinge,
        KLDivergence,
    )
}
_ALIASES = {
    "mse": "mean_squared_error",
    "mae": "mean_absolute_error",
    "logcosh": "log_cosh",
    "bce": "binary_crossentropy",
    "kld": "kl_divergence",
}
LOSSES: dict[str, type[Loss]] = {**_ROWS, **{alias: _ROWS[name] for alias, name in _ALIASES.items()}}

REGISTRY: Registry[Loss] = Registry(
    "loss",
    Loss,
    _ROWS,
    _ALIASES,
    spelling=lambda name: name.lower() if name.isupper() else name,
    hint="; losses.custom(name, value, derivative) makes a loss of scalar functions",
    describe=lambda loss: {"name": loss.kind, "config": loss.get_config()},
    is_custom=lambda loss: isinstance(loss, CustomLoss),
)


def serialize(loss: Loss) -> dict[str, Any]:
    """Describe a loss so that `get` makes the same again: JSON-able, {"name": ..., "config": ...} or {"custom": name}.

    Parameters
    ----------
    loss : Loss
        The loss.
    """
    description: dict[str, Any] = REGISTRY.serialize(loss)
    return description


def get(loss: str | Loss | type[Loss] | Mapping[str, Any]) -> Loss:
    """Return the loss of a name, class or description.

    Parameters
    ----------
    loss : str, Loss, class of Loss, or mapping
        A name ("mse", "mean_squared_error", "MeanSquaredError"), a loss, a class for its defaults, or what `serialize`
        returned; Keras's {"class_name": ..., "config": ...} too.

    Returns
    -------
    Loss

    Raises
    ------
    ValueError
        If there is no such loss, or it has no such options.
    """
    if isinstance(loss, Mapping):
        _check_options(loss)
    return REGISTRY.get(loss)


def _check_options(description: Mapping[str, Any]) -> None:
    name = description.get("class_name", description.get("name"))
    kind = REGISTRY.find(name) if isinstance(name, str) else None
    if isinstance(kind, type) and issubclass(kind, Loss):
        known = [f.name for f in dataclasses.fields(kind)]
        for option in description.get("config") or {}:
            if option not in known:
                raise ValueError(f"{kind.kind}: no option {option!r}; there are: {', '.join(known)}")
