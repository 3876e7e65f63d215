"""Areas and points of curves over many thresholds: AUC, and one quantity at a given value of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from nbdense._checks import array_of, finite_number, positive_int
from nbdense.metrics.base import Array
from nbdense.metrics.confusion import Counted, Counts, Thresholds, count_outputs, is_even, quotient, ratio

_EPSILON = 1e-7
_CURVES = ("ROC", "PR", "PRGAIN")
_SUMMATIONS = ("interpolation", "minoring", "majoring")
_ALL = ("true_positives", "false_positives", "true_negatives", "false_negatives")


def recall_of(counts: Counts) -> Array:
    """Return the share of positive targets that are found."""
    return ratio(counts.true_positives, counts.false_negatives)


def precision_of(counts: Counts) -> Array:
    """Return the share of outputs above thresholds that are right."""
    return ratio(counts.true_positives, counts.false_positives)


def specificity_of(counts: Counts) -> Array:
    """Return the share of negative targets whose outputs are not above thresholds."""
    return ratio(counts.true_negatives, counts.false_positives)


class _OnCurve(Counted):
    counted = _ALL

    def counts(self) -> Counts:
        return Counts(*(getattr(self, kind).value for kind in _ALL))


class _AtValue(_OnCurve):
    """The largest of one quantity among thresholds where another is at least a given value; 0 where none is."""

    direction = "max"
    given: ClassVar[str] = ""  # the argument's name
    constrained: ClassVar[Any]
    wanted: ClassVar[Any]

    def __init__(self, value: float, num_thresholds: int, class_id: int | None, name: str | None, dtype: Any) -> None:
        owner = type(self).__name__
        self.value = finite_number(owner, self.given, value, 0.0, 1.0)
        self.num_thresholds = positive_int(owner, "num_thresholds", num_thresholds)
        self.class_id = class_id
        last = max(self.num_thresholds - 1, 1)
        values = tuple(i / last for i in range(self.num_thresholds)) if self.num_thresholds > 1 else (0.5,)
        super().__init__(Thresholds(values, self.num_thresholds > 1), name, dtype)
        self.thresholds = list(values)
        self._build()
        setattr(self, self.given, self.value)

    def result(self) -> float:
        counts = self.counts()
        feasible = type(self).constrained(counts) >= self.value
        return float(np.where(feasible, type(self).wanted(counts), 0.0).max())


class SensitivityAtSpecificity(_AtValue):
    """The best sensitivity (recall) among thresholds whose specificity is at least a given one; 0 where none's is.

    Sensitivity is the share of positive targets that are found, specificity that of negative targets.

    Parameters
    ----------
    specificity : float
        In [0, 1].
    num_thresholds : int
        Thresholds that are tried, evenly over [0, 1].
    class_id : int, optional
        The only column that is looked at.
    name : str, optional
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.

    Examples
    --------
    >>> from nbdense.metrics import SensitivityAtSpecificity
    >>> SensitivityAtSpecificity(0.5)([0, 0, 0, 1, 1], [0, 0.3, 0.8, 0.3, 0.8])
    0.5
    """

    given, constrained, wanted = "specificity", staticmethod(specificity_of), staticmethod(recall_of)

    def __init__(
        self,
        specificity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(specificity, num_thresholds, class_id, name, dtype)


class SpecificityAtSensitivity(_AtValue):
    """The best specificity among thresholds whose sensitivity (recall) is at least a given one; 0 where none's is.

    Parameters
    ----------
    sensitivity : float
        In [0, 1].
    num_thresholds : int
        As for `SensitivityAtSpecificity`.
    class_id : int, optional
        As for `SensitivityAtSpecificity`.
    name : str, optional
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    """

    given, constrained, wanted = "sensitivity", staticmethod(recall_of), staticmethod(specificity_of)

    def __init__(
        self,
        sensitivity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(sensitivity, num_thresholds, class_id, name, dtype)


class PrecisionAtRecall(_AtValue):
    """The best precision among thresholds whose recall is at least a given one; 0 where none's is.

    Parameters
    ----------
    recall : float
        In [0, 1].
    num_thresholds : int
        As for `SensitivityAtSpecificity`.
    class_id : int, optional
        As for `SensitivityAtSpecificity`.
    name : str, optional
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    """

    given, constrained, wanted = "recall", staticmethod(recall_of), staticmethod(precision_of)

    def __init__(
        self,
        recall: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(recall, num_thresholds, class_id, name, dtype)


class RecallAtPrecision(_AtValue):
    """The best recall among thresholds whose precision is at least a given one; 0 where none's is.

    Parameters
    ----------
    precision : float
        In [0, 1].
    num_thresholds : int
        As for `SensitivityAtSpecificity`.
    class_id : int, optional
        As for `SensitivityAtSpecificity`.
    name : str, optional
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    """

    given, constrained, wanted = "precision", staticmethod(precision_of), staticmethod(recall_of)

    def __init__(
        self,
        precision: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(precision, num_thresholds, class_id, name, dtype)


class AUC(_OnCurve):
    """The area under the ROC or the precision-recall curve, drawn through thresholds as Keras does.

    With several columns each output counts by itself, unless they are labels (``multi_label``). `ExactAUC` is the
    exact area, whatever the outputs' range is: here they are probabilities, or logits with ``from_logits``.

    Parameters
    ----------
    num_thresholds : int
        Above 1: how many thresholds, evenly over [0, 1].
    curve : {"ROC", "PR", "PRGAIN"}
        "PR" is precision over recall, "PRGAIN" the gain in precision over that in recall.
    summation_method : {"interpolation", "minoring", "majoring"}
        How an area between two points is taken: between them (Davis and Goadrich 2006 for "PR"), at least, at most.
    name : str, optional
        What it is reported as; "auc" by default.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    thresholds : sequence of float, optional
        In [0, 1], instead of ``num_thresholds``; the ends are added.
    multi_label : bool
        Whether columns are labels, whose areas are averaged.
    num_labels : int, optional
        With ``multi_label``: how many; else the first batch says it.
    label_weights : sequence of float, optional
        A weight for each label's area, or without ``multi_label`` for each column's outputs.
    from_logits : bool
        Whether outputs are logits, of which the sigmoid is taken first.

    Examples
    --------
    >>> from nbdense.metrics import AUC
    >>> round(AUC()([0, 0, 1, 1], [0, 0.5, 0.3, 0.9]), 6)
    0.75
    """

    direction = "max"

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: Any = None,
        thresholds: Sequence[float] | None = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Any = None,
        from_logits: bool = False,
    ) -> None:
        self.curve = _choice("curve", str(curve).upper(), _CURVES)
        self.summation_method = _choice("summation_method", str(summation_method).lower(), _SUMMATIONS)
        self._given_thresholds = thresholds is not None
        between = sorted(thresholds) if thresholds is not None else _between(num_thresholds)
        inner = tuple(finite_number("AUC", "thresholds", value, 0.0, 1.0) for value in between)
        ends = (-_EPSILON, 1.0 + _EPSILON)
        all_thresholds = Thresholds((ends[0], *inner, ends[1]), not self._given_thresholds or is_even((0, *inner, 1)))
        self.num_thresholds, self.thresholds = len(inner) + 2, list(all_thresholds.values)
        super().__init__(all_thresholds, name, dtype)
        self.multi_label, self.num_labels, self.from_logits = bool(multi_label), num_labels, bool(from_logits)
        if num_labels and not multi_label:
            raise ValueError("AUC: num_labels is for multi_label=True")
        self.label_weights = None if label_weights is None else np.asarray(label_weights, np.float64).tolist()
        if num_labels:
            self._build(num_labels)
        elif not self.multi_label:
            self._build()

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        outputs = np.asarray(array_of("y_pred", y_pred), self.dtype)
        if self.from_logits:
            with np.errstate(over="ignore"):
                outputs = np.asarray(1 / (1 + np.exp(-outputs)), self.dtype)
        if self.multi_label and not self.variables:
            if outputs.ndim != 2:
                raise ValueError(f"AUC: outputs of multi_label=True are (rows, labels), got shape {outputs.shape}")
            self._build(outputs.shape[1])
        weights = None if self.label_weights is None or self.multi_label else np.asarray(self.label_weights)
        counts = count_outputs(
            y_true,
            outputs,
            self._thresholds,
            self.dtype,
            sample_weight,
            multi_label=self.multi_label,
            label_weights=weights,
        )
        for kind in self.counted:
            getattr(self, kind).assign_add(getattr(counts, kind))

    def result(self) -> float:
        if not self.variables:
            return 0.0
        counts = self.counts()
        if self.curve == "PR" and self.summation_method == "interpolation":
            areas = _interpolated_precision(counts)
        else:
            x, y = _points(self.curve, counts)
            heights = {"minoring": np.minimum(y[:-1], y[1:]), "majoring": np.maximum(y[:-1], y[1:])}
            areas = ((x[:-1] - x[1:]) * heights.get(self.summation_method, (y[:-1] + y[1:]) / 2.0)).sum(axis=0)
        if not self.multi_label or self.label_weights is None:
            return float(areas.mean())
        return float(quotient((areas * self.label_weights).sum(), np.sum(self.label_weights)))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config() | {"thresholds": self.thresholds[1:-1]}
        return {name: value for name, value in config.items() if name != "thresholds" or self._given_thresholds}


def _choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"AUC: {name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def _between(num_thresholds: int) -> list[float]:
    n = positive_int("AUC", "num_thresholds", num_thresholds)
    if n < 2:
        raise ValueError(f"AUC: num_thresholds must be a whole number of at least 2, got {num_thresholds!r}")
    return [i / (n - 1) for i in range(1, n - 1)]


def _points(curve: str, counts: Counts) -> tuple[Array, Array]:
    """Return the points of a curve, (thresholds,) or (thresholds, labels) each."""
    if curve == "ROC":
        return ratio(counts.false_positives, counts.true_negatives), recall_of(counts)
    if curve == "PR":
        return recall_of(counts), precision_of(counts)
    # Flach and Kull 2015. What is infinite without a true positive, or negative for outputs worse than chance, is cut.
    hits = counts.true_positives
    odds = quotient(hits + counts.false_negatives, counts.true_negatives + counts.false_positives)
    recall_gain = np.where(hits == 0, 0.0, 1.0 - odds * quotient(counts.false_negatives, hits))
    precision_gain = np.where(hits == 0, 1.0, 1.0 - odds * quotient(counts.false_positives, hits))
    return np.maximum(recall_gain, 0.0), precision_gain


def _interpolated_precision(counts: Counts) -> Array:
    """Return the area under the precision-recall curve, true positives interpolated (Davis and Goadrich 2006).

    Between two thresholds precision is (a + s P) / P, for P predictions, with a slope s: its integral has a logarithm.
    """
    hits, predicted = counts.true_positives, counts.true_positives + counts.false_positives
    gained = hits[:-1] - hits[1:]
    slope = quotient(gained, np.maximum(predicted[:-1] - predicted[1:], 0.0))
    intercept = hits[1:] - slope * predicted[1:]
    both = (predicted[:-1] > 0) & (predicted[1:] > 0)
    growth = np.where(both, quotient(predicted[:-1], predicted[1:]), 1.0)
    positives = hits[1:] + counts.false_negatives[1:]
    return np.asarray(quotient(slope * (gained + intercept * np.log(growth)), positives).sum(axis=0))
