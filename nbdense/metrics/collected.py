"""Metrics that are no mean over rows: they collect all outputs of an epoch and compute once, in NumPy.

Values are scikit-learn's, down to what it makes of a class that does not occur; NaN where it has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense._checks import array_of, positive_int
from nbdense._registry import name_of
from nbdense.losses import BinaryCrossentropy, Loss
from nbdense.metrics.base import COLLECTED, Array, Metric, threshold_of

Counts = tuple[Array, Array, Array]  # hits, predictions, targets of each class
Ratio = Callable[[Array, Array, Array], Array]


def as_columns(targets: Any, outputs: Any) -> tuple[Array, Array]:
    """Return targets and outputs as matrices of as many rows; a vector is a column.

    Raises
    ------
    ValueError
        If ``targets`` has neither one column nor as many as ``outputs``.
    """
    targets, outputs = array_of("compute: targets", targets), array_of("compute: outputs", outputs)
    targets, outputs = (value.reshape(-1, 1) if value.ndim == 1 else value for value in (targets, outputs))
    if targets.ndim != 2 or outputs.ndim != 2 or targets.shape not in ((len(outputs), 1), outputs.shape):
        raise ValueError(f"compute: targets of shape {targets.shape} do not go with outputs of shape {outputs.shape}")
    return targets, outputs


def is_undefined(outputs: Array) -> bool:
    """Return True where there is nothing to score, or NaN in it."""
    return not outputs.size or bool(np.isnan(outputs).any())


def classes_of(targets: Array) -> npt.NDArray[np.int64]:
    """Return class numbers, (rows,): from a column of them, or from rows whose largest element marks the class."""
    return targets[:, 0].astype(np.int64) if targets.shape[1] == 1 else targets.argmax(axis=1)


def positives(targets: Array, n_out: int, multi_label: bool) -> npt.NDArray[np.bool_]:
    """Mark the rows that belong to a column's class, or have its label, (rows, n_out)."""
    if n_out == 1 or (multi_label and targets.shape[1] == n_out):
        return np.asarray(targets > 0.5)
    return np.asarray(classes_of(targets)[:, None] == np.arange(n_out))


def count(targets: Array, outputs: Array, threshold: float, multi_label: bool) -> Counts:
    """Count the hits, predictions and targets of each class or label. One output makes two classes."""
    n_out = outputs.shape[1]
    if multi_label:
        marked, positive = outputs > threshold, positives(targets, n_out, True)
        return (marked & positive).sum(axis=0), marked.sum(axis=0), positive.sum(axis=0)
    if n_out == 1:
        predicted, actual = (outputs[:, 0] > threshold).astype(np.int64), (targets[:, 0] > 0.5).astype(np.int64)
    else:
        predicted, actual = outputs.argmax(axis=1), classes_of(targets)
    lists = actual[actual == predicted], predicted, actual
    hits, predictions, reals = (np.bincount(values, minlength=max(n_out, 2)) for values in lists)
    return hits, predictions, reals


def average_ratio(ratio: Ratio, counts: Counts, average: str, multi_label: bool) -> float:
    """Return class 1's ratio ("binary"), that of all together ("micro"), or a mean over classes ("macro", "weighted").

    "macro" leaves out classes that occur neither among targets nor among predictions, and keeps such labels.
    """
    if average == "micro":
        hits, predicted, actual = (each.sum(keepdims=True) for each in counts)
        return float(ratio(hits, predicted, actual)[0])
    values, (_, predicted, actual) = ratio(*counts), counts
    if average == "binary":
        return float(values[1])
    if average == "weighted":
        return float((values * actual).sum() / max(int(actual.sum()), 1))
    return float(values.mean() if multi_label else values[predicted + actual > 0].mean())


def precision(hits: Array, predicted: Array, actual: Array) -> Array:
    """Return hits a prediction; 0 without a prediction."""
    return np.asarray(hits / np.maximum(predicted, 1))


def recall(hits: Array, predicted: Array, actual: Array) -> Array:
    """Return hits a target; 0 without a target."""
    return np.asarray(hits / np.maximum(actual, 1))


def f1(hits: Array, predicted: Array, actual: Array) -> Array:
    """Return the harmonic mean of precision and recall; 0 without a prediction or target."""
    return np.asarray(2 * hits / np.maximum(predicted + actual, 1))


def area_under_roc(positive: Array, score: Array) -> float:
    """Return the share of (positive, negative) pairs whose scores are in order, ties half; NaN without a pair.

    It is the area under the ROC curve: Mann and Whitney's U over its greatest value (Fawcett 2006, section 7).
    """
    hits = int(positive.sum())
    pairs = hits * (len(positive) - hits)
    if not pairs:
        return math.nan
    _, place, run = np.unique(score, return_inverse=True, return_counts=True)
    rank = np.cumsum(run) - (run - 1) / 2.0  # from 1; equal scores share the middle rank of their run
    return float((rank[place][positive].sum() - hits * (hits + 1) / 2.0) / pairs)


def average_precision(positive: Array, score: Array) -> float:
    """Sum, over falling thresholds, the precision times the gain in recall; 0 without a positive."""
    values, place = np.unique(score, return_inverse=True)
    hits = np.bincount(place, weights=positive, minlength=values.size)[::-1]
    chosen = np.cumsum(np.bincount(place, minlength=values.size)[::-1])
    return float((np.cumsum(hits) / chosen * hits).sum() / max(int(positive.sum()), 1))


def r_squared(targets: Array, outputs: Array) -> float:
    """Return the mean over columns of 1 - sum (target - output)^2 / sum (target - mean)^2; NaN of less than two rows.

    A column whose targets are all the same counts 1 where it is met exactly, else 0.
    """
    if len(outputs) < 2:
        return math.nan
    targets, outputs = targets.astype(np.float64), outputs.astype(np.float64)
    with np.errstate(all="ignore"):
        rest = ((targets - outputs) ** 2).sum(axis=0)
        spread = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
        return float(np.where(spread > 0, 1.0 - rest / spread, np.where(rest > 0, 0.0, 1.0)).mean())


@dataclass(frozen=True, init=False)
class _Counted(Metric):
    """A ratio of numbers of hits, of predictions and of targets, for each class; averaged."""

    average: str | None
    multi_label: bool
    collects = True
    direction = "max"

    def __init__(self, name: str, average: str | None, multi_label: bool) -> None:
        super().__init__(name, COLLECTED)
        if average not in (None, "binary", "macro", "micro", "weighted"):
            raise ValueError(
                f"{type(self).__name__}: average must be None, 'binary', 'macro', 'micro' or 'weighted', "
                f"got {average!r}"
            )
        self._set(average=average, multi_label=bool(multi_label))

    def for_loss(self, loss: Loss, n_out: int) -> Metric:
        labels = self.multi_label or (n_out > 1 and isinstance(loss, BinaryCrossentropy))
        self._check_average(n_out, labels)
        return type(self)(**(self.get_config() | {"multi_label": True})) if labels else self

    def _check_average(self, n_out: int, labels: bool) -> None:
        if self.average == "binary" and (labels or n_out > 2):
            raise ValueError(
                f"{type(self).__name__}: average='binary' is for two classes, there are {n_out} "
                f"{'labels' if labels else 'classes'}; use 'macro', 'micro' or 'weighted'"
            )

    def _value(self, targets: Any, outputs: Any, threshold: float | None) -> float:
        targets, outputs = as_columns(targets, outputs)
        n_out = outputs.shape[1]
        self._check_average(n_out, self.multi_label)
        if is_undefined(outputs):
            return math.nan
        counts = count(targets, outputs, 0.5 if threshold is None else threshold, self.multi_label)
        average = self.average or ("binary" if n_out <= 2 and not self.multi_label else "macro")
        return average_ratio(self._ratio(), counts, average, self.multi_label)

    def _ratio(self) -> Ratio:
        raise NotImplementedError


@dataclass(frozen=True, init=False)
class Precision(_Counted):
    """The share of a class's predictions that are right; 0 where there are none.

    It is scikit-learn's ``precision_score``. Classes are the largest output and target of a row (or the class number
    that is its target). One output makes two classes, parted by the threshold. With several outputs and a binary
    cross-entropy each output is a label of its own, parted by the threshold too.

    Parameters
    ----------
    thresholds : float, optional
        Threshold of one output, or of labels: a larger output is a prediction. 0.5 by default.
    average : {None, "binary", "macro", "micro", "weighted"}
        None is "binary" (class 1 alone) with two classes, "macro" with more and with labels.
    multi_label : bool
        Whether outputs are labels of their own whatever the loss.
    name : str
        Name in the logs.

    Examples
    --------
    >>> import numpy as np
    >>> from nbdense.metrics import Precision
    >>> Precision().compute(np.array([0, 1, 1, 0]), np.array([0.2, 0.9, 0.3, 0.6]))
    0.5
    """

    thresholds: float | None

    def __init__(
        self,
        thresholds: float | None = None,
        *,
        average: str | None = None,
        multi_label: bool = False,
        name: str = "precision",
    ) -> None:
        super().__init__(name, average, multi_label)
        if thresholds is not None:
            thresholds = threshold_of(type(self).__name__, "thresholds", thresholds)
        self._set(thresholds=thresholds)

    def compute(self, targets: Array, outputs: Array) -> float:
        return self._value(targets, outputs, self.thresholds)

    def _ratio(self) -> Ratio:
        return precision


@dataclass(frozen=True, init=False)
class Recall(Precision):
    """The share of a class's rows that are found; 0 where there are none. It is scikit-learn's ``recall_score``.

    Parameters
    ----------
    thresholds : float, optional
        As for `Precision`.
    average : {None, "binary", "macro", "micro", "weighted"}
        As for `Precision`.
    multi_label : bool
        As for `Precision`.
    name : str
        Name in the logs.
    """

    def __init__(
        self,
        thresholds: float | None = None,
        *,
        average: str | None = None,
        multi_label: bool = False,
        name: str = "recall",
    ) -> None:
        super().__init__(thresholds, average=average, multi_label=multi_label, name=name)

    def _ratio(self) -> Ratio:
        return recall


@dataclass(frozen=True, init=False)
class F1Score(_Counted):
    """The harmonic mean of precision and recall; 0 where there is neither. It is scikit-learn's ``f1_score``.

    Parameters
    ----------
    average : {None, "binary", "macro", "micro", "weighted"}
        As for `Precision`. One number always, where Keras's None gives one for each class.
    threshold : float, optional
        As `Precision`'s thresholds.
    name : str
        Name in the logs.
    multi_label : bool
        As for `Precision`.
    """

    threshold: float | None

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str = "f1_score",
        multi_label: bool = False,
    ) -> None:
        super().__init__(name, average, multi_label)
        self._set(threshold=None if threshold is None else threshold_of("F1Score", "threshold", threshold))

    def compute(self, targets: Array, outputs: Array) -> float:
        return self._value(targets, outputs, self.threshold)

    def _ratio(self) -> Ratio:
        return f1


@dataclass(frozen=True, init=False)
class AUC(Metric):
    """The exact area under the ROC curve (scikit-learn's ``roc_auc_score``), or the average precision.

    Two outputs for two classes are ranked by the second. With more classes it is the mean over one-versus-rest
    curves; with several outputs and a binary cross-entropy the mean over the labels. NaN where a class or label has
    no row, or all of them.

    Parameters
    ----------
    num_thresholds : int
        Accepted for Keras's sake, which approximates the curve: every threshold counts here.
    curve : {"ROC", "PR"}
        "PR" is scikit-learn's ``average_precision_score``, 0 for a class without a row, as there.
    name : str
        Name in the logs.
    multi_label : bool
        Whether two outputs are labels of their own whatever the loss.

    Examples
    --------
    >>> import numpy as np
    >>> from nbdense.metrics import AUC
    >>> AUC().compute(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
    0.75
    """

    num_thresholds: int
    curve: str
    multi_label: bool
    collects = True
    direction = "max"

    def __init__(
        self, num_thresholds: int = 200, curve: str = "ROC", name: str = "auc", multi_label: bool = False
    ) -> None:
        super().__init__(name, COLLECTED)
        if curve not in ("ROC", "PR"):
            raise ValueError(f"AUC: curve must be 'ROC' or 'PR', got {curve!r}")
        num_thresholds = positive_int("AUC", "num_thresholds", num_thresholds)
        self._set(num_thresholds=num_thresholds, curve=curve, multi_label=bool(multi_label))

    def for_loss(self, loss: Loss, n_out: int) -> Metric:
        labels = n_out > 1 and isinstance(loss, BinaryCrossentropy)
        return type(self)(**(self.get_config() | {"multi_label": True})) if labels else self

    def compute(self, targets: Array, outputs: Array) -> float:
        targets, outputs = as_columns(targets, outputs)
        if is_undefined(outputs):
            return math.nan
        positive = positives(targets, outputs.shape[1], self.multi_label)
        if outputs.shape[1] == 2 and not self.multi_label:
            positive, outputs = positive[:, 1:], outputs[:, 1:]
        area = area_under_roc if self.curve == "ROC" else average_precision
        return float(np.mean([area(positive[:, j], outputs[:, j]) for j in range(outputs.shape[1])]))


@dataclass(frozen=True, init=False)
class R2Score(Metric):
    """1 - sum (target - output)^2 / sum (target - mean target)^2, mean over columns: scikit-learn's ``r2_score``.

    A column whose targets are all the same counts as 1 where it is met exactly, else as 0. NaN for a single row.

    Parameters
    ----------
    name : str
        Name in the logs.
    """

    collects = True
    direction = "max"
    targets = "rows"

    def __init__(self, name: str = "r2_score") -> None:
        super().__init__(name, COLLECTED)

    def compute(self, targets: Array, outputs: Array) -> float:
        targets, outputs = as_columns(targets, outputs)
        return math.nan if is_undefined(outputs) else r_squared(targets, outputs)


@dataclass(frozen=True, init=False)
class FunctionMetric(Metric):
    """A metric made of a function of one's own.

    Parameters
    ----------
    function : callable
        ``function(targets, outputs)`` of arrays as `Metric.compute` takes them; returns a number, or an array of them
        with a first axis of rows, whose mean is taken.
    name : str, optional
        Name in the logs; by default the function's name, and "lambda" of one that has none.
    direction : {"", "max", "min"}
        Direction in which it gets better; callbacks with ``mode="auto"`` and `importance` refuse one that does not say.
    """

    function: Callable[[Array, Array], Any]
    collects = True

    def __init__(self, function: Callable[[Array, Array], Any], name: str | None = None, direction: str = "") -> None:
        if not callable(function):
            raise ValueError(f"FunctionMetric: expected a function of (targets, outputs), got {function!r}")
        super().__init__(name or name_of(function), COLLECTED)
        self._check_direction(direction)
        self._set(function=function, direction=direction)

    def get_config(self) -> dict[str, Any]:
        config = {"function": name_of(self.function), "name": self.name}
        return config | ({"direction": self.direction} if self.direction else {})

    def compute(self, targets: Array, outputs: Array) -> float:
        value = np.asarray(self.function(targets, outputs))
        if value.dtype.kind not in "fiub" or (value.size != 1 and value.shape[:1] != (len(outputs),)):
            raise ValueError(
                f"metric {self.name!r} must return a number, or one for each of the {len(outputs)} rows; it returned "
                f"dtype {value.dtype}, shape {value.shape}"
            )
        return float(value.mean()) if value.size else math.nan
