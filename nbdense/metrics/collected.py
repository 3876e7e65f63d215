"""Metrics of all rows at once: scikit-learn's scores of classes, exact areas, and functions of one's own.

Values are scikit-learn's, down to what it makes of a class that does not occur; NaN where it has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense._checks import finite_number
from nbdense._registry import name_of
from nbdense.losses import BinaryCrossentropy, Loss
from nbdense.losses.base import THRESHOLD
from nbdense.metrics.base import Array, Metric, as_columns

Counts = tuple[Array, Array, Array]  # weights of hits, predictions and targets of each class
Ratio = Callable[[Array, Array, Array], Array]


def is_undefined(outputs: Array) -> bool:
    """Return True where there is nothing to score, or NaN in it."""
    return not outputs.size or bool(np.isnan(outputs).any())


def classes_of(targets: Array) -> npt.NDArray[np.int64]:
    """Return class numbers, (rows,): from a column of them, or from rows whose largest element marks the class."""
    return targets[:, 0].astype(np.int64) if targets.shape[1] == 1 else targets.argmax(axis=1)


def predicted_classes(
    outputs: npt.NDArray[Any], threshold: float = THRESHOLD, *, at_threshold: int = 0
) -> npt.NDArray[np.intp]:
    """Return class numbers: of several outputs the largest one's, the first of equal ones; of one, its side's.

    Parameters
    ----------
    outputs : ndarray, (..., n_out)
        Outputs; where there is one, probabilities of class 1, or what the threshold is for.
    threshold : float
        What one output is compared with: above it, it stands for class 1.
    at_threshold : {0, 1}
        The class of one output that equals the threshold: 0 in Keras and scikit-learn, 1 in labels of ONNX files.

    Returns
    -------
    ndarray of intp, (...,)
    """
    if outputs.shape[-1] > 1:
        return np.asarray(outputs.argmax(axis=-1))
    column = outputs[..., 0]
    return np.asarray(column >= threshold if at_threshold else column > threshold).astype(np.intp)


def decision_threshold(model: Any) -> float:
    """Return the threshold for a model's single output: that of the loss that it is known to have, else 0.5.

    Parameters
    ----------
    model : Sequential, QuantizedModel, SparseModel or any object
        The model, whose ``loss`` says what its outputs are.
    """
    loss = getattr(model, "loss", None)
    return loss.decision_threshold if isinstance(loss, Loss) else THRESHOLD


def positives(targets: Array, n_out: int, multi_label: bool) -> npt.NDArray[np.bool_]:
    """Mark the rows that belong to a column's class, or have its label, (rows, n_out)."""
    if n_out == 1 or (multi_label and targets.shape[1] == n_out):
        return np.asarray(targets > 0.5)
    return np.asarray(classes_of(targets)[:, None] == np.arange(n_out))


def count(targets: Array, outputs: Array, weights: Array, threshold: float, multi_label: bool) -> Counts:
    """Sum the weights of hits, predictions and targets of each class or label. One output makes two classes."""
    n_out = outputs.shape[1]
    if multi_label:
        marked, positive, column = outputs > threshold, positives(targets, n_out, True), weights[:, None]
        return tuple((each * column).sum(axis=0) for each in (marked & positive, marked, positive))
    predicted = predicted_classes(outputs, threshold)
    actual = predicted_classes(targets[:, :1]) if n_out == 1 else classes_of(targets)
    size = max(n_out, 2)
    hits = np.bincount(actual, weights * (actual == predicted), size)
    return hits, np.bincount(predicted, weights, size), np.bincount(actual, weights, size)


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
        return float((values * actual).sum() / (actual.sum() or 1.0))
    return float(values.mean() if multi_label else values[predicted + actual > 0].mean())


def precision(hits: Array, predicted: Array, actual: Array) -> Array:
    """Return hits a prediction; 0 without a prediction."""
    return np.asarray(hits / np.where(predicted > 0, predicted, 1.0))


def recall(hits: Array, predicted: Array, actual: Array) -> Array:
    """Return hits a target; 0 without a target."""
    return np.asarray(hits / np.where(actual > 0, actual, 1.0))


def f1(hits: Array, predicted: Array, actual: Array) -> Array:
    """Return the harmonic mean of precision and recall; 0 without a prediction or target."""
    return np.asarray(2.0 * hits / np.where(predicted + actual > 0, predicted + actual, 1.0))


def area_under_roc(positive: Array, score: Array, weights: Array) -> float:
    """Return the share of (positive, negative) pairs whose scores are in order, ties half; NaN without a pair.

    It is the area under the ROC curve: Mann and Whitney's U over its greatest value (Fawcett 2006, section 7).
    """
    _, place = np.unique(score, return_inverse=True)
    hits, misses = np.bincount(place, weights * positive), np.bincount(place, weights * ~positive)
    pairs = hits.sum() * misses.sum()
    if not pairs:
        return math.nan
    return float((hits * (np.cumsum(misses) - misses / 2.0)).sum() / pairs)


def average_precision(positive: Array, score: Array, weights: Array) -> float:
    """Sum, over falling thresholds, the precision times the gain in recall; 0 without a positive."""
    _, place = np.unique(score, return_inverse=True)
    hits, chosen = (np.bincount(place, each)[::-1] for each in (weights * positive, weights))
    chosen = np.cumsum(chosen)
    return float((np.cumsum(hits) / np.where(chosen > 0, chosen, 1.0) * hits).sum() / (hits.sum() or 1.0))


def weights_of(sample_weight: Any, outputs: Array) -> npt.NDArray[np.float64]:
    """Return a weight for each row: 1 where none is given."""
    return np.ones(len(outputs)) if sample_weight is None else np.asarray(sample_weight, np.float64).reshape(-1)


class _OfClasses(Metric):
    """A ratio of weights of hits, of predictions and of targets, for each class; averaged."""

    by_batch = False
    direction = "max"

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        multi_label: bool = False,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        owner = type(self).__name__
        if average not in (None, "binary", "macro", "micro", "weighted"):
            raise ValueError(
                f"{owner}: average must be None, 'binary', 'macro', 'micro' or 'weighted', got {average!r}"
            )
        if threshold is not None:
            threshold = finite_number(owner, "threshold", threshold, expected="one finite number")
        self.average, self.threshold, self.multi_label = average, threshold, bool(multi_label)

    def for_loss(self, loss: Loss, n_out: int) -> Metric:
        labels = self.multi_label or (n_out > 1 and isinstance(loss, BinaryCrossentropy))
        self._check_average(n_out, labels)
        threshold = loss.decision_threshold if self.threshold is None else self.threshold
        if not labels and threshold in (self.threshold, THRESHOLD):
            return self
        return type(self)(**(self.get_config() | {"multi_label": labels, "threshold": threshold}))

    def _check_average(self, n_out: int, labels: bool) -> None:
        if self.average == "binary" and (labels or n_out > 2):
            raise ValueError(
                f"{type(self).__name__}: average='binary' is for two classes, there are {n_out} "
                f"{'labels' if labels else 'classes'}; use 'macro', 'micro' or 'weighted'"
            )

    def compute(self, targets: Any, outputs: Any, sample_weight: Any = None) -> float:
        """Compute the score of a whole data set.

        Parameters
        ----------
        targets : array-like, (rows, n_out) or (rows,)
            Rows of targets, or class numbers.
        outputs : array-like, (rows, n_out) or (rows,)
            What predict returns.
        sample_weight : array-like, (rows,), optional
            A weight for each row.
        """
        targets, outputs = as_columns(targets, outputs)
        n_out = outputs.shape[1]
        self._check_average(n_out, self.multi_label)
        if is_undefined(outputs):
            return math.nan
        threshold = THRESHOLD if self.threshold is None else self.threshold
        counts = count(targets, outputs, weights_of(sample_weight, outputs), threshold, self.multi_label)
        average = self.average or ("binary" if n_out <= 2 and not self.multi_label else "macro")
        return average_ratio(self._ratio(), counts, average, self.multi_label)

    def _ratio(self) -> Ratio:
        raise NotImplementedError


class ClassPrecision(_OfClasses):
    """The share of a class's predictions that are right; 0 where there are none.

    It is scikit-learn's ``precision_score``. Classes are the largest output and target of a row (or the class number
    that is its target). One output makes two classes, parted by the threshold. With several outputs and a binary
    cross-entropy each output is a label of its own, parted by the threshold too. `Precision` is Keras's.

    Parameters
    ----------
    average : {None, "binary", "macro", "micro", "weighted"}
        None is "binary" (class 1 alone) with two classes, "macro" with more and with labels.
    threshold : float, optional
        Of one output, or of labels: a larger output is a prediction. By default 0 in a model whose loss takes logits or
        is a hinge, and else 0.5.
    multi_label : bool
        Whether outputs are labels of their own whatever the loss.
    name : str, optional
        What it is reported as; "class_precision" by default.
    dtype : {None, "float32", "float64"}
        Accepted as by all metrics.

    Examples
    --------
    >>> import numpy as np
    >>> from nbdense.metrics import ClassPrecision
    >>> ClassPrecision().compute(np.array([0, 1, 1, 0]), np.array([0.2, 0.9, 0.3, 0.6]))
    0.5
    """

    def _ratio(self) -> Ratio:
        return precision


class ClassRecall(_OfClasses):
    """The share of a class's rows that are found; 0 where there are none. It is scikit-learn's ``recall_score``.

    Parameters
    ----------
    average : {None, "binary", "macro", "micro", "weighted"}
        As for `ClassPrecision`.
    threshold : float, optional
        As for `ClassPrecision`.
    multi_label : bool
        As for `ClassPrecision`.
    name : str, optional
        What it is reported as; "class_recall" by default.
    dtype : {None, "float32", "float64"}
        Accepted as by all metrics.
    """

    def _ratio(self) -> Ratio:
        return recall


class ClassF1(_OfClasses):
    """The harmonic mean of precision and recall; 0 where there is neither. It is scikit-learn's ``f1_score``.

    Parameters
    ----------
    average : {None, "binary", "macro", "micro", "weighted"}
        As for `ClassPrecision`.
    threshold : float, optional
        As for `ClassPrecision`.
    multi_label : bool
        As for `ClassPrecision`.
    name : str, optional
        What it is reported as; "class_f1" by default.
    dtype : {None, "float32", "float64"}
        Accepted as by all metrics.
    """

    def _ratio(self) -> Ratio:
        return f1


class ExactAUC(Metric):
    """The exact area under the ROC curve (scikit-learn's ``roc_auc_score``), or the average precision.

    Outputs may be of any range. Two outputs for two classes are ranked by the second. With more classes it is the
    mean over one-versus-rest curves; with several outputs and a binary cross-entropy the mean over the labels. NaN
    where a class or label has no row, or all of them. `AUC` is Keras's, drawn through thresholds.

    Parameters
    ----------
    curve : {"ROC", "PR"}
        "PR" is scikit-learn's ``average_precision_score``, 0 for a class without a row, as there.
    multi_label : bool
        Whether two outputs are labels of their own whatever the loss.
    name : str, optional
        What it is reported as; "exact_auc" by default.
    dtype : {None, "float32", "float64"}
        Accepted as by all metrics.

    Examples
    --------
    >>> import numpy as np
    >>> from nbdense.metrics import ExactAUC
    >>> ExactAUC().compute(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
    0.75
    """

    by_batch = False
    direction = "max"

    def __init__(
        self, curve: str = "ROC", multi_label: bool = False, name: str = "exact_auc", dtype: Any = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if curve not in ("ROC", "PR"):
            raise ValueError(f"ExactAUC: curve must be 'ROC' or 'PR', got {curve!r}")
        self.curve, self.multi_label = curve, bool(multi_label)

    def for_loss(self, loss: Loss, n_out: int) -> Metric:
        labels = n_out > 1 and isinstance(loss, BinaryCrossentropy)
        return type(self)(**(self.get_config() | {"multi_label": True})) if labels else self

    def compute(self, targets: Any, outputs: Any, sample_weight: Any = None) -> float:
        """Compute the area of a whole data set.

        Parameters
        ----------
        targets : array-like, (rows, n_out) or (rows,)
            Rows of targets, or class numbers.
        outputs : array-like, (rows, n_out) or (rows,)
            Scores: larger is likelier.
        sample_weight : array-like, (rows,), optional
            A weight for each row.
        """
        targets, outputs = as_columns(targets, outputs)
        if is_undefined(outputs):
            return math.nan
        positive = positives(targets, outputs.shape[1], self.multi_label)
        if outputs.shape[1] == 2 and not self.multi_label:
            positive, outputs = positive[:, 1:], outputs[:, 1:]
        area = area_under_roc if self.curve == "ROC" else average_precision
        weights = weights_of(sample_weight, outputs)
        return float(np.mean([area(positive[:, j], outputs[:, j], weights) for j in range(outputs.shape[1])]))


class FunctionMetric(Metric):
    """A metric made of a function of all rows of targets and outputs.

    A function by itself, as in ``metrics=[function]``, is called batch by batch instead, as in Keras.

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

    by_batch = False

    def __init__(self, function: Callable[[Array, Array], Any], name: str | None = None, direction: str = "") -> None:
        if not callable(function):
            raise ValueError(f"FunctionMetric: expected a function of (targets, outputs), got {function!r}")
        self.function, self.direction = function, direction
        super().__init__(name=name or name_of(function))

    def compute(self, targets: Array, outputs: Array) -> float:
        value = np.asarray(self.function(targets, outputs))
        if value.dtype.kind not in "fiub" or (value.size != 1 and value.shape[:1] != (len(outputs),)):
            raise ValueError(
                f"metric {self.name!r} must return a number, or one for each of the {len(outputs)} rows; it returned "
                f"dtype {value.dtype}, shape {value.shape}"
            )
        return float(value.mean()) if value.size else math.nan
