"""Metrics that fit and evaluate report: means over rows, computed in the compiled program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy.typing as npt

from nbdense.engine import loss as rows
from nbdense.losses import Loss


@dataclass(frozen=True)
class Metric:
    """A metric: the name it is reported under, and the code of its compiled form."""

    name: str
    code: int
    collects: ClassVar[bool] = False  # whether it needs all outputs at once; then `compute` is asked

    def finish(self, mean: float) -> float:
        """The metric from the mean of its compiled form over rows."""
        return mean

    def compute(self, targets: npt.NDArray[Any], outputs: npt.NDArray[Any]) -> float:
        """The metric from all targets, (rows, n_out) or class numbers (rows, 1), and outputs, (rows, n_out)."""
        raise NotImplementedError


METRICS: dict[str, int] = {
    "binary_accuracy": rows.BINARY_ACCURACY,
    "categorical_accuracy": rows.CATEGORICAL_ACCURACY,
    "sparse_categorical_accuracy": rows.SPARSE_CATEGORICAL_ACCURACY,
    "mean_squared_error": rows.SQUARED_ERROR,
    "mse": rows.SQUARED_ERROR,
    "mean_absolute_error": rows.ABSOLUTE_ERROR,
    "mae": rows.ABSOLUTE_ERROR,
}


def get(name: str | Metric, loss: Loss, n_out: int) -> Metric:
    """The metric of that name; 'accuracy' (or 'acc') is the accuracy that fits the targets and outputs.

    Raises
    ------
    ValueError
        If there is no such metric, or it does not fit the loss's targets.
    """
    if isinstance(name, Metric):
        return name
    if name in ("accuracy", "acc"):
        if loss.sparse:
            return Metric(name, rows.SPARSE_CATEGORICAL_ACCURACY)
        return Metric(name, rows.BINARY_ACCURACY if n_out == 1 else rows.CATEGORICAL_ACCURACY)
    if not isinstance(name, str) or name not in METRICS:
        raise ValueError(f"unknown metric {name!r}; there are: accuracy, {', '.join(sorted(METRICS))}")
    if loss.sparse and METRICS[name] != rows.SPARSE_CATEGORICAL_ACCURACY:
        raise ValueError(f"metric {name!r} wants targets of the outputs' shape, but {loss.name} takes class numbers")
    return Metric(name, METRICS[name])
