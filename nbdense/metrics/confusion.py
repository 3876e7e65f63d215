"""Numbers of true and false positives and negatives at thresholds, and what is made of them.

Targets and outputs are flattened: each output of a row counts by itself, positive above the threshold. So several
classes are as many questions of yes or no; `nbdense.metrics.collected` has the metrics of the likeliest class.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nbdense._checks import array_of, finite_number, positive_int
from nbdense.losses.reductions import squeeze_or_expand_to_same_rank
from nbdense.metrics.base import Array, Metric, one_hot_targets, plain_number

_LOWEST = -1e10  # below any output: of those that are not among the top k, and the threshold of those that are
_EPSILON = 1e-7


@dataclass(frozen=True)
class Thresholds:
    """Thresholds that outputs are compared with.

    Attributes
    ----------
    values : tuple of float
        In any order.
    even : bool
        Whether they lie at i / (n - 1), as those of curves do; an output's place among them is computed then.
    """

    values: tuple[float, ...]
    even: bool

    @classmethod
    def of(cls, owner: str, thresholds: Any, default: float) -> Thresholds:
        """Return the thresholds that a user gave: a number or several, in [0, 1].

        Parameters
        ----------
        owner : str
            Class, for errors.
        thresholds : float, sequence of float or None
            As given.
        default : float
            Instead of None.
        """
        if thresholds is None:
            return cls((default,), False)
        several = thresholds if isinstance(thresholds, list | tuple | np.ndarray) else [thresholds]
        values = tuple(finite_number(owner, "thresholds", value, 0.0, 1.0) for value in several)
        return cls(values, is_even(values))

    def count_below(self, outputs: Array) -> Array:
        """Return how many thresholds are below each output, in order of size; an output that is NaN is above none."""
        if self.even:
            places = np.ceil(np.clip(outputs, 0.0, 1.0) * outputs.dtype.type(len(self.values) - 1))
            places = np.nan_to_num(np.maximum(places, 1.0) if min(self.values) < 0.0 else places)
            return places.astype(np.int64)
        below = np.searchsorted(np.sort(np.asarray(self.values, outputs.dtype)), outputs, side="left")
        return np.where(np.isnan(outputs), 0, below)


def is_even(values: Iterable[float]) -> bool:
    """Tell whether thresholds lie at i / (n - 1), to 1e-7."""
    array = np.asarray(list(values))
    return array.size >= 3 and np.allclose(array, np.arange(array.size) / (array.size - 1.0), atol=_EPSILON)


@dataclass(frozen=True)
class Counts:
    """Sums of weights of outputs that are above and below thresholds, (thresholds,) or (thresholds, labels)."""

    true_positives: Array
    false_positives: Array
    true_negatives: Array
    false_negatives: Array


def count_outputs(
    y_true: Any,
    y_pred: Any,
    thresholds: Thresholds,
    dtype: str,
    sample_weight: Any = None,
    top_k: int | None = None,
    class_id: int | None = None,
    multi_label: bool = False,
    label_weights: Array | None = None,
) -> Counts:
    """Count the outputs that are above and below each threshold, by what their targets are.

    Parameters
    ----------
    y_true : array-like
        Targets: positive above 0. A column of class numbers beside several columns of outputs will do.
    y_pred : array-like
        Outputs, of the same shape.
    thresholds : Thresholds
        What outputs are compared with.
    dtype : str
        In which they are.
    sample_weight : array-like, optional
        A weight for each row, or for each output.
    top_k : int, optional
        Only the k largest outputs of a row may be positive.
    class_id : int, optional
        The only column that is looked at.
    multi_label : bool
        Whether columns are counted apart.
    label_weights : ndarray, optional
        A weight for each column.
    """
    outputs, targets = np.asarray(array_of("y_pred", y_pred), dtype), np.asarray(array_of("y_true", y_true))
    outputs, targets = squeeze_or_expand_to_same_rank(outputs, one_hot_targets(targets, outputs))
    if outputs.shape != targets.shape:
        raise ValueError(f"y_true of shape {targets.shape} does not go with y_pred of shape {outputs.shape}")
    weights = np.broadcast_to(_weights_of_outputs(sample_weight, outputs), outputs.shape)
    if label_weights is not None:
        weights = weights * label_weights
    if top_k is not None:
        outputs = _only_top(outputs, top_k)
    if class_id is not None:
        if outputs.ndim < 2:
            raise ValueError(f"class_id={class_id}: outputs of several classes are expected, got shape {outputs.shape}")
        outputs, targets, weights = (array[..., class_id, None] for array in (outputs, targets, weights))
    labels = outputs.shape[-1] if multi_label else 1
    outputs, targets, weights = (array.reshape(-1, labels) for array in (outputs, targets, weights))
    sums = _sums_above(thresholds, outputs, np.where(targets > 0, weights, 0.0), np.where(targets > 0, 0.0, weights))
    return Counts(*sums) if multi_label else Counts(*(each[:, 0] for each in sums))


def _sums_above(thresholds: Thresholds, outputs: Array, positive: Array, negative: Array) -> list[Array]:
    """Return the weights of true and false positives, true and false negatives: (thresholds, labels) each."""
    n, labels = len(thresholds.values), outputs.shape[1]
    places = thresholds.count_below(outputs) + (n + 1) * np.arange(labels)
    order = np.argsort(np.argsort(thresholds.values, kind="stable"), kind="stable")
    above = []
    for weights in (positive, negative):
        buckets = np.bincount(places.ravel(), weights.ravel(), (n + 1) * labels).reshape(labels, n + 1)
        above.append(buckets[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:].T[order])
    true_positives, false_positives = above
    return [
        true_positives,
        false_positives,
        negative.sum(axis=0) - false_positives,
        positive.sum(axis=0) - true_positives,
    ]


def _weights_of_outputs(sample_weight: Any, outputs: Array) -> Array:
    if sample_weight is None:
        return np.ones(())
    weights = np.asarray(array_of("sample_weight", sample_weight), np.float64)
    if weights.ndim == outputs.ndim + 1 and weights.shape[-1] == 1:
        return weights[..., 0]
    return weights.reshape(weights.shape + (1,) * (outputs.ndim - weights.ndim)) if weights.ndim else weights


def _only_top(outputs: Array, k: int) -> Array:
    """Return outputs with all but the k largest of a row lowered; of equal ones the first are kept."""
    kept = np.argsort(-outputs, axis=-1, kind="stable")[..., :k]
    lowered = np.full_like(outputs, _LOWEST)
    np.put_along_axis(lowered, kept, np.take_along_axis(outputs, kept, axis=-1), axis=-1)
    return lowered


def quotient(part: Any, whole: Any) -> Array:
    """Return part / whole; 0 where whole is 0."""
    part, whole = np.asarray(part), np.asarray(whole)
    return np.asarray(np.divide(part, whole, out=np.zeros(whole.shape), where=whole != 0))


def ratio(part: Any, rest: Any) -> Array:
    """Return part / (part + rest); 0 where both are 0."""
    return quotient(part, np.asarray(part) + np.asarray(rest))


class Counted(Metric):
    """Metrics whose state is sums of weights of `Counts`, by the names in ``counted``."""

    by_batch = False
    counted: ClassVar[tuple[str, ...]] = ()
    top_k: int | None = None
    class_id: int | None = None

    def __init__(self, thresholds: Thresholds, name: str | None, dtype: Any) -> None:
        super().__init__(name=name, dtype=dtype)
        self._thresholds = thresholds

    def _build(self, *labels: int) -> None:
        for kind in self.counted:
            setattr(self, kind, self.add_variable((len(self._thresholds.values), *labels), name=kind))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        counts = count_outputs(y_true, y_pred, self._thresholds, self.dtype, sample_weight, self.top_k, self.class_id)
        for kind in self.counted:
            getattr(self, kind).assign_add(getattr(counts, kind))


class _Count(Metric):
    """The number of outputs of one kind, or the sum of their weights."""

    by_batch = False
    counted: ClassVar[str] = ""

    def __init__(self, thresholds: Any = None, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self._thresholds = Thresholds.of(type(self).__name__, thresholds, 0.5)
        self.init_thresholds, self.thresholds = thresholds, list(self._thresholds.values)
        self.accumulator = self.add_variable((len(self.thresholds),), name="accumulator")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        counts = count_outputs(y_true, y_pred, self._thresholds, self.dtype, sample_weight)
        self.accumulator.assign_add(getattr(counts, self.counted))

    def result(self) -> Any:
        return plain_number(self.accumulator.value[0] if len(self.thresholds) == 1 else self.accumulator)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"thresholds": self.init_thresholds}


class TruePositives(_Count):
    """The number of outputs above the threshold whose target is positive.

    Parameters
    ----------
    thresholds : float or sequence of float, optional
        In [0, 1]; 0.5 by default. Several give an array, a number for each.
    name : str, optional
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.

    Examples
    --------
    >>> from nbdense.metrics import TruePositives
    >>> TruePositives()([0, 1, 1, 1], [1, 0, 1, 1])
    2.0
    """

    direction = "max"
    counted = "true_positives"


class TrueNegatives(_Count):
    """The number of outputs at or below the threshold whose target is not positive.

    Parameters
    ----------
    thresholds : float or sequence of float, optional
        As for `TruePositives`.
    name : str, optional
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    """

    direction = "max"
    counted = "true_negatives"


class FalsePositives(_Count):
    """The number of outputs above the threshold whose target is not positive.

    Parameters
    ----------
    thresholds : float or sequence of float, optional
        As for `TruePositives`.
    name : str, optional
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    """

    direction = "min"
    counted = "false_positives"


class FalseNegatives(_Count):
    """The number of outputs at or below the threshold whose target is positive.

    Parameters
    ----------
    thresholds : float or sequence of float, optional
        As for `TruePositives`.
    name : str, optional
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    """

    direction = "min"
    counted = "false_negatives"


class _Ratio(Counted):
    """True positives by a sum that they are part of."""

    direction = "max"

    def __init__(
        self,
        thresholds: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        owner = type(self).__name__
        self.top_k = None if top_k is None else positive_int(owner, "top_k", top_k)
        self.class_id = class_id
        super().__init__(Thresholds.of(owner, thresholds, 0.5 if top_k is None else _LOWEST), name, dtype)
        self.init_thresholds, self.thresholds = thresholds, list(self._thresholds.values)
        self._build()

    def result(self) -> Any:
        values = ratio(*(getattr(self, kind) for kind in self.counted))
        return float(values[0]) if len(values) == 1 else values

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"thresholds": self.init_thresholds}


class Precision(_Ratio):
    """The share of outputs above the threshold whose target is positive; 0 where there are none.

    With several classes it counts all columns together, as Keras does; `ClassPrecision` takes a row's largest output
    for its class, and averages classes.

    Parameters
    ----------
    thresholds : float or sequence of float, optional
        In [0, 1]; 0.5 by default. Several give an array, a number for each.
    top_k : int, optional
        Only the k largest outputs of a row may be positive; without ``thresholds`` all of these are.
    class_id : int, optional
        The only column that is looked at.
    name : str, optional
        What it is reported as; "precision" by default.
    dtype : {None, "float32", "float64"}
        As for `Metric`.

    Examples
    --------
    >>> from nbdense.metrics import Precision
    >>> Precision()([0, 1, 1, 0], [0.2, 0.9, 0.3, 0.6])
    0.5
    """

    counted = ("true_positives", "false_positives")


class Recall(_Ratio):
    """The share of positive targets whose outputs are above the threshold; 0 where there are none.

    With several classes it counts all columns together, as Keras does; `ClassRecall` takes a row's largest output for
    its class, and averages classes.

    Parameters
    ----------
    thresholds : float or sequence of float, optional
        As for `Precision`.
    top_k : int, optional
        As for `Precision`.
    class_id : int, optional
        As for `Precision`.
    name : str, optional
        What it is reported as; "recall" by default.
    dtype : {None, "float32", "float64"}
        As for `Metric`.

    Examples
    --------
    >>> from nbdense.metrics import Recall
    >>> Recall()([0, 1, 1, 1], [0.2, 0.9, 0.3, 0.6], sample_weight=[1, 0, 1, 1])
    0.5
    """

    counted = ("true_positives", "false_negatives")
