"""Sums and means of numbers, and of a function of targets and outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nbdense._checks import array_of
from nbdense.losses.reductions import squeeze_or_expand_to_same_rank
from nbdense.metrics.base import Array, Metric

Reduce = Callable[..., Any]


def values_of_rows(values: Any, sample_weight: Any, reduce: Reduce) -> tuple[Array, Array | None]:
    """Weigh values, and reduce what belongs to one row to a number, as Keras does; return weights of rows too.

    Parameters
    ----------
    values : array-like
        With a first axis of rows, or a number.
    sample_weight : array-like, optional
        A weight for each row, or for each element of leading axes.
    reduce : callable
        `numpy.sum` or `numpy.mean`.
    """
    values = np.asarray(array_of("values", values), np.float64)
    if sample_weight is None:
        return reduce(values, axis=tuple(range(1, values.ndim))), None
    weights = np.asarray(array_of("sample_weight", sample_weight), np.float64)
    values, weights = squeeze_or_expand_to_same_rank(values, weights)
    axes = weights.ndim
    values = reduce(values, axis=tuple(range(axes, values.ndim)))
    weights = np.broadcast_to(weights, values.shape)
    trailing = tuple(range(1, values.ndim))
    return reduce(values * weights, axis=trailing), reduce(weights, axis=trailing if axes > 1 else ())


class Sum(Metric):
    """The sum of numbers, each times its weight.

    Parameters
    ----------
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.

    Examples
    --------
    >>> from nbdense.metrics import Sum
    >>> Sum()([1, 3, 5, 7], sample_weight=[1, 1, 0, 0])
    4.0
    """

    def __init__(self, name: str = "sum", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_variable((), name="total")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Count in numbers.

        Parameters
        ----------
        values : array-like
            The numbers.
        sample_weight : array-like, optional
            A weight for each row.
        """
        self.total.assign_add(values_of_rows(values, sample_weight, np.sum)[0].sum())

    def result(self) -> float:
        return float(self.total)


class Mean(Metric):
    """The mean of numbers, each times its weight; 0 of none.

    Parameters
    ----------
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.

    Examples
    --------
    >>> from nbdense.metrics import Mean
    >>> Mean()([1, 3, 5, 7], sample_weight=[1, 1, 0, 0])
    2.0
    """

    def __init__(self, name: str = "mean", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_variable((), name="total")
        self.count = self.add_variable((), name="count")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Count in numbers.

        Parameters
        ----------
        values : array-like
            The numbers, with a first axis of rows; what belongs to a row is averaged.
        sample_weight : array-like, optional
            A weight for each row.
        """
        values, weights = values_of_rows(values, sample_weight, np.mean)
        self.total.assign_add(values.sum())
        self.count.assign_add(values.size if weights is None else weights.sum())

    def result(self) -> float:
        return self.finish(float(self.total) / float(self.count)) if self.count else 0.0


class MeanMetricWrapper(Mean):
    """The mean over rows of a function of targets and outputs, batch by batch: what Keras makes of a function.

    A function that returns one number counts once a batch, however many rows that has; `FunctionMetric` calls it with
    all rows at once instead.

    Parameters
    ----------
    fn : callable
        ``fn(y_true, y_pred)``; returns a number for each row, or several, which are averaged.
    name : str, optional
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    **kwargs
        More arguments for ``fn``.

    Examples
    --------
    >>> from nbdense.metrics import MeanMetricWrapper
    >>> MeanMetricWrapper(lambda y_true, y_pred: abs(y_true - y_pred))([[1.0], [2.0]], [[1.5], [2.0]])
    0.25
    """

    def __init__(self, fn: Callable[..., Any], name: str | None = None, dtype: Any = None, **kwargs: Any) -> None:
        if not callable(fn):
            raise ValueError(f"{type(self).__name__}: expected a function of (y_true, y_pred), got {fn!r}")
        super().__init__(name=name or "mean_metric_wrapper", dtype=dtype)
        self.fn, self._fn_kwargs = fn, kwargs

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Count in targets and outputs of a batch.

        Parameters
        ----------
        y_true : array-like
            Targets.
        y_pred : array-like
            Outputs.
        sample_weight : array-like, optional
            A weight for each row.
        """
        y_true, y_pred = array_of("y_true", y_true), array_of("y_pred", y_pred)
        values = np.asarray(self.fn(y_true, y_pred, **self._fn_kwargs))
        if values.dtype.kind not in "fiub":
            raise ValueError(
                f"metric {self.name!r} must return a number, or one for each of the {len(y_pred)} rows; it returned "
                f"dtype {values.dtype}, shape {values.shape}"
            )
        super().update_state(values, sample_weight)

    def get_config(self) -> dict[str, Any]:
        own = type(self) is MeanMetricWrapper
        return super().get_config() | (self._fn_kwargs if own else {})


class MeanOverRows(MeanMetricWrapper):
    """The mean of a function that gives each row a number of its own, whatever batch the row is in."""

    by_batch = False
