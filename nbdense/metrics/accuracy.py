"""Accuracies: shares of rows, or of outputs, that are right."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbdense._checks import array_of, finite_number, positive_int
from nbdense.engine.elementwise import loss as rows
from nbdense.losses.reductions import squeeze_or_expand_to_same_rank
from nbdense.metrics.base import COLLECTED, Array
from nbdense.metrics.reduction import MeanOverRows


def accuracy(y_true: Any, y_pred: Any) -> Array:
    """Mark the outputs that equal their targets.

    Parameters
    ----------
    y_true : array-like
        Targets.
    y_pred : array-like
        Outputs, such as class numbers.

    Returns
    -------
    ndarray, float32
        1 where they are equal, else 0.
    """
    y_true, y_pred = squeeze_or_expand_to_same_rank(array_of("y_true", y_true), array_of("y_pred", y_pred))
    return np.equal(y_true, y_pred).astype(np.float32)


def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> Array:
    """Mark the outputs that are on their target's side of the threshold.

    Parameters
    ----------
    y_true : array-like
        Targets, 0 or 1.
    y_pred : array-like
        Outputs, of the same shape.
    threshold : float
        An output above it counts as 1; a target does above 0.5.

    Returns
    -------
    ndarray, float32
        1 where output and target agree, else 0.
    """
    y_true, y_pred = squeeze_or_expand_to_same_rank(array_of("y_true", y_true), array_of("y_pred", y_pred))
    return np.equal(y_true > 0.5, y_pred > threshold).astype(np.float32)


def categorical_accuracy(y_true: Any, y_pred: Any) -> Array:
    """Mark the rows whose largest output is at the largest target.

    Parameters
    ----------
    y_true : array-like, (..., n_out)
        Rows of targets: one-hot, or probabilities.
    y_pred : array-like, (..., n_out)
        Outputs.

    Returns
    -------
    ndarray, (...,), float32
        1 for a row that is right, else 0.
    """
    return sparse_categorical_accuracy(array_of("y_true", y_true).argmax(axis=-1), y_pred)


def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> Array:
    """Mark the rows whose largest output is at the class number that is their target.

    Parameters
    ----------
    y_true : array-like, (...,) or (..., 1)
        Class numbers.
    y_pred : array-like, (..., n_out)
        Outputs.

    Returns
    -------
    ndarray, (...,), float32
        1 for a row that is right, else 0.
    """
    y_true, y_pred = array_of("y_true", y_true), array_of("y_pred", y_pred)
    if y_true.ndim == y_pred.ndim and y_true.shape[-1] == 1:
        y_true = y_true[..., 0]
    return np.equal(y_true, y_pred.argmax(axis=-1)).astype(np.float32)


def top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Array:
    """Mark the rows in which fewer than k outputs are larger than the one at the largest target.

    Parameters
    ----------
    y_true : array-like, (..., n_out)
        Rows of targets.
    y_pred : array-like, (..., n_out)
        Outputs.
    k : int
        How many outputs are looked at.

    Returns
    -------
    ndarray, (...,), float32
        1 for a row that is right, else 0.
    """
    return sparse_top_k_categorical_accuracy(array_of("y_true", y_true).argmax(axis=-1), y_pred, k)


def sparse_top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5, from_sorted_ids: bool = False) -> Array:
    """Mark the rows in which fewer than k outputs are larger than the one at the target's class number.

    Parameters
    ----------
    y_true : array-like, (...,) or (..., 1)
        Class numbers.
    y_pred : array-like, (..., n_out)
        Outputs.
    k : int
        How many outputs are looked at. Ties count as hits; an output that is NaN is no hit.
    from_sorted_ids : bool
        Whether ``y_pred`` holds class numbers instead, the best one first.

    Returns
    -------
    ndarray, of the shape of ``y_true``, float32
        1 for a row that is right, else 0.
    """
    y_true, y_pred = array_of("y_true", y_true), array_of("y_pred", y_pred)
    classes, outputs = y_true.reshape(-1), y_pred.reshape(-1, y_pred.shape[-1])
    if from_sorted_ids:
        hits = (classes[:, None] == outputs[:, :k]).any(axis=1)
    else:
        chosen = np.take_along_axis(outputs, classes.astype(np.int64)[:, None], axis=1)
        hits = ((outputs > chosen).sum(axis=1) < k) & ~np.isnan(chosen[:, 0])
    return hits.reshape(y_true.shape).astype(np.float32)


class Accuracy(MeanOverRows):
    """The share of outputs that equal their targets.

    ``metrics=["accuracy"]`` of `compile` is not this one, but the accuracy that fits the targets.

    Parameters
    ----------
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    """

    direction = "max"

    def __init__(self, name: str = "accuracy", dtype: Any = None) -> None:
        super().__init__(accuracy, name, dtype)


class BinaryAccuracy(MeanOverRows):
    """The share of outputs that are on their target's side of the threshold.

    Parameters
    ----------
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    threshold : float
        An output above it counts as 1; a target does above 0.5. Only 0.5 is compiled, others collect outputs.

    Examples
    --------
    >>> from nbdense.metrics import BinaryAccuracy
    >>> BinaryAccuracy()([[1], [1], [0], [0]], [[0.98], [1], [0], [0.6]])
    0.75
    """

    direction = "max"
    targets = "rows"

    def __init__(self, name: str = "binary_accuracy", dtype: Any = None, threshold: float = 0.5) -> None:
        self.threshold = finite_number("BinaryAccuracy", "threshold", threshold, expected="one finite number")
        self.code = rows.BINARY_ACCURACY if self.threshold == 0.5 else COLLECTED
        super().__init__(binary_accuracy, name, dtype, threshold=self.threshold)


class CategoricalAccuracy(MeanOverRows):
    """The share of rows whose largest output is at the largest target.

    Parameters
    ----------
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    """

    code = rows.CATEGORICAL_ACCURACY
    direction = "max"
    targets = "rows"

    def __init__(self, name: str = "categorical_accuracy", dtype: Any = None) -> None:
        super().__init__(categorical_accuracy, name, dtype)


class SparseCategoricalAccuracy(MeanOverRows):
    """The share of rows whose largest output is at the class number that is their target.

    Parameters
    ----------
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    """

    code = rows.SPARSE_CATEGORICAL_ACCURACY
    direction = "max"
    targets = "classes"

    def __init__(self, name: str = "sparse_categorical_accuracy", dtype: Any = None) -> None:
        super().__init__(sparse_categorical_accuracy, name, dtype)


class TopKCategoricalAccuracy(MeanOverRows):
    """The share of rows in which fewer than k outputs are larger than the one at the largest target.

    So ties count as hits, as in Keras. A row whose output there is NaN is none.

    Parameters
    ----------
    k : int
        How many outputs are looked at; at least 1.
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    """

    direction = "max"
    targets = "rows"

    def __init__(self, k: int = 5, name: str = "top_k_categorical_accuracy", dtype: Any = None) -> None:
        self.k = positive_int("TopKCategoricalAccuracy", "k", k)
        self.code = rows.TOP_K + min(self.k, rows.TOP_K - 1)
        super().__init__(top_k_categorical_accuracy, name, dtype, k=self.k)


class SparseTopKCategoricalAccuracy(MeanOverRows):
    """`TopKCategoricalAccuracy` with class numbers for targets.

    Parameters
    ----------
    k : int
        How many outputs are looked at; at least 1.
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    from_sorted_ids : bool
        Whether outputs are class numbers instead, the best one first; these are not compiled.
    """

    direction = "max"
    targets = "classes"

    def __init__(
        self,
        k: int = 5,
        name: str = "sparse_top_k_categorical_accuracy",
        dtype: Any = None,
        from_sorted_ids: bool = False,
    ) -> None:
        self.k = positive_int("SparseTopKCategoricalAccuracy", "k", k)
        self.from_sorted_ids = bool(from_sorted_ids)
        self.code = COLLECTED if from_sorted_ids else rows.SPARSE_TOP_K + min(self.k, rows.TOP_K - 1)
        function = sparse_top_k_categorical_accuracy
        super().__init__(function, name, dtype, k=self.k, from_sorted_ids=self.from_sorted_ids)
