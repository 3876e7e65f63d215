"""Losses of numbers and of vectors: how far outputs are from targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from nbdense._checks import finite_number
from nbdense.engine.elementwise.loss_forms import FORMS
from nbdense.losses import functions
from nbdense.losses.base import NOT_NEGATIVE, Chosen, NamedLoss


class MeanSquaredError(NamedLoss):
    """Mean over the columns of (y - target)^2.

    Parameters
    ----------
    reduction : str or None
        See `Loss`.
    name : str, optional
        What it is called.
    dtype : {"float32", "float64"}, optional
        See `Loss`.
    """

    kind: ClassVar[str] = "mean_squared_error"
    function: ClassVar[Callable[..., Any]] = functions.mean_squared_error


class MeanAbsoluteError(NamedLoss):
    """Mean over the columns of |y - target|; its derivative is 0 where they are equal.

    Parameters
    ----------
    reduction : str or None
        See `Loss`.
    name : str, optional
        What it is called.
    dtype : {"float32", "float64"}, optional
        See `Loss`.
    """

    kind: ClassVar[str] = "mean_absolute_error"
    function: ClassVar[Callable[..., Any]] = functions.mean_absolute_error


class MeanAbsolutePercentageError(NamedLoss):
    """Mean over the columns of 100 |y - target| / |target|, whose divisor is at least 1e-7.

    Parameters
    ----------
    reduction : str or None
        See `Loss`.
    name : str, optional
        What it is called.
    dtype : {"float32", "float64"}, optional
        See `Loss`.
    """

    kind: ClassVar[str] = "mean_absolute_percentage_error"
    function: ClassVar[Callable[..., Any]] = functions.mean_absolute_percentage_error


class MeanSquaredLogarithmicError(NamedLoss):
    """Mean over the columns of (log(1 + y) - log(1 + target))^2, both at least 1e-7; below that it has no slope.

    Parameters
    ----------
    reduction : str or None
        See `Loss`.
    name : str, optional
        What it is called.
    dtype : {"float32", "float64"}, optional
        See `Loss`.
    """

    kind: ClassVar[str] = "mean_squared_logarithmic_error"
    function: ClassVar[Callable[..., Any]] = functions.mean_squared_logarithmic_error
    suited: ClassVar[tuple[str, ...]] = NOT_NEGATIVE
    advice: ClassVar[str] = "it takes negative outputs for 0, and they have no slope; end with 'softplus'"


class Huber(NamedLoss):
    """Mean over the columns of e^2 / 2 where e = |y - target| is up to delta, and of delta e - delta^2 / 2 beyond.

    P. J. Huber, "Robust estimation of a location parameter" (1964), section 3.

    Parameters
    ----------
    delta : float
        Above 0: where the parabola goes over into lines.
    reduction : str or None
        See `Loss`.
    name : str, optional
        What it is called.
    dtype : {"float32", "float64"}, optional
        See `Loss`.
    """

    kind: ClassVar[str] = "huber"
    function: ClassVar[Callable[..., Any]] = functions.huber
    fields: ClassVar[tuple[str, ...]] = ("delta",)

    def __init__(
        self,
        delta: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "huber_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(reduction, name, dtype)
        finite_number(self.kind, "delta", delta, 0.0, ends="()")
        self.delta = delta

    def compiled_form(self, activation: str) -> Chosen:
        return FORMS[self.kind], False, float(self.delta)


class LogCosh(NamedLoss):
    """Mean over the columns of log(cosh(y - target)), for errors of any size.

    Parameters
    ----------
    reduction : str or None
        See `Loss`.
    name : str, optional
        What it is called.
    dtype : {"float32", "float64"}, optional
        See `Loss`.
    """

    kind: ClassVar[str] = "log_cosh"
    function: ClassVar[Callable[..., Any]] = functions.log_cosh


class Quantile(NamedLoss):
    """Pinball loss, whose least mean is at a quantile of the targets; Keras has none.

    Mean over the columns of q e where e = target - y is above 0, and of (q - 1) e below; the derivative is 0 between.
    R. Koenker and G. Bassett, "Regression Quantiles" (1978), section 2.

    Parameters
    ----------
    quantile : float
        Between 0 and 1: the share q of targets that shall lie below the outputs; 0.5 is their median.
    reduction : str or None
        See `Loss`.
    name : str, optional
        What it is called.
    dtype : {"float32", "float64"}, optional
        See `Loss`.
    """

    kind: ClassVar[str] = "quantile"
    function: ClassVar[Callable[..., Any]] = functions.quantile
    fields: ClassVar[tuple[str, ...]] = ("quantile",)

    def __init__(
        self,
        quantile: float = 0.5,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(reduction, name, dtype)
        finite_number(self.name, "quantile", quantile, 0.0, 1.0, ends="()", expected="between 0 and 1")
        self.quantile = quantile

    def compiled_form(self, activation: str) -> Chosen:
        return FORMS[self.kind], False, float(self.quantile)


class CosineSimilarity(NamedLoss):
    """Minus the cosine between outputs and targets: -1 for one direction, 0 where one of them is 0.

    Parameters
    ----------
    axis : int
        That of the vectors; a model trains with -1.
    reduction : str or None
        See `Loss`.
    name : str, optional
        What it is called.
    dtype : {"float32", "float64"}, optional
        See `Loss`.
    """

    kind: ClassVar[str] = "cosine_similarity"
    function: ClassVar[Callable[..., Any]] = functions.cosine_similarity
    fields: ClassVar[tuple[str, ...]] = ("axis",)

    def __init__(
        self,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(reduction, name, dtype)
        self.axis = axis
