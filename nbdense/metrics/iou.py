"""Intersection over union of classes, from a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nbdense._checks import array_of, finite_number, positive_int
from nbdense.metrics.base import Array, Metric

_EPSILON = 1e-7


class IoU(Metric):
    """The mean over chosen classes of true positives / (true positives + false positives + false negatives).

    Classes that neither occur nor are predicted are left out; so are class numbers out of range. Weights need not be
    whole numbers, which Keras takes for whole ones by default.

    Parameters
    ----------
    num_classes : int
        How many classes there are.
    target_class_ids : sequence of int
        Those whose mean is taken.
    name : str, optional
        What it is reported as; "io_u" by default, as in Keras.
    dtype : {None, "float32", "float64"}
        Accepted as by all metrics.
    ignore_class : int, optional
        A class number whose targets are left out.
    sparse_y_true : bool
        Whether targets are class numbers instead of one-hot rows.
    sparse_y_pred : bool
        Whether outputs are class numbers instead of a number for each class, of which the largest counts.
    axis : int
        The axis of the classes where they are not class numbers.

    Examples
    --------
    >>> from nbdense.metrics import IoU
    >>> round(IoU(num_classes=2, target_class_ids=[0])([0, 0, 1, 1], [0, 1, 0, 1]), 6)
    0.333333
    """

    by_batch = False
    direction = "max"

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        owner = type(self).__name__
        self.num_classes, self.target_class_ids = positive_int(owner, "num_classes", num_classes), [*target_class_ids]
        if not all(0 <= number < num_classes for number in self.target_class_ids):
            raise ValueError(
                f"{owner}: target_class_ids must be class numbers from 0 to {num_classes - 1}, got {target_class_ids!r}"
            )
        self.ignore_class, self.axis = ignore_class, axis
        self.sparse_y_true, self.sparse_y_pred = sparse_y_true, sparse_y_pred
        self.total_cm = self.add_variable((num_classes, num_classes), name="total_confusion_matrix")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        pairs = ((array_of("y_true", y_true), self.sparse_y_true), (array_of("y_pred", y_pred), self.sparse_y_pred))
        actual, predicted = (
            (values if sparse else values.argmax(axis=self.axis)).astype(np.int64).ravel() for values, sparse in pairs
        )
        weights: Array = np.ravel(1.0 if sample_weight is None else np.asarray(sample_weight, np.float64))
        weights = np.broadcast_to(weights, actual.shape)
        kept = (actual >= 0) & (actual < self.num_classes) & (predicted >= 0) & (predicted < self.num_classes)
        kept &= actual != self.ignore_class
        cells = actual[kept] * self.num_classes + predicted[kept]
        self.total_cm.assign_add(np.bincount(cells, weights[kept], self.num_classes**2).reshape(self.total_cm.shape))

    def result(self) -> float:
        matrix = self.total_cm.value
        hits = matrix.diagonal()[self.target_class_ids]
        union = (matrix.sum(axis=0) + matrix.sum(axis=1))[self.target_class_ids] - hits
        occurring = union > 1e-9
        return float((hits / (union + _EPSILON))[occurring].sum() / (occurring.sum() + _EPSILON))


class BinaryIoU(IoU):
    """`IoU` of two classes, parted by a threshold.

    Parameters
    ----------
    target_class_ids : sequence of int
        0, 1 or both.
    threshold : float
        An output of at least this is of class 1.
    name : str, optional
        What it is reported as; "binary_io_u" by default, as in Keras.
    dtype : {None, "float32", "float64"}
        Accepted as by all metrics.
    """

    def __init__(
        self,
        target_class_ids: Sequence[int] = (0, 1),
        threshold: float = 0.5,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(2, target_class_ids, name, dtype)
        self.threshold = finite_number("BinaryIoU", "threshold", threshold, expected="one finite number")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        outputs = np.asarray(array_of("y_pred", y_pred), self.dtype)
        super().update_state(y_true, outputs >= outputs.dtype.type(self.threshold), sample_weight)


class MeanIoU(IoU):
    """`IoU` of all classes.

    Parameters
    ----------
    num_classes : int
        As for `IoU`.
    name : str, optional
        What it is reported as; "mean_io_u" by default, as in Keras.
    dtype : {None, "float32", "float64"}
        Accepted as by all metrics.
    ignore_class : int, optional
        As for `IoU`.
    sparse_y_true : bool
        As for `IoU`.
    sparse_y_pred : bool
        As for `IoU`.
    axis : int
        As for `IoU`.
    """

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        classes = range(num_classes)
        super().__init__(num_classes, classes, name, dtype, ignore_class, sparse_y_true, sparse_y_pred, axis)


class OneHotIoU(IoU):
    """`IoU` of one-hot targets, and of a number for each class.

    Parameters
    ----------
    num_classes : int
        As for `IoU`.
    target_class_ids : sequence of int
        As for `IoU`.
    name : str, optional
        What it is reported as; "one_hot_io_u" by default, as in Keras.
    dtype : {None, "float32", "float64"}
        Accepted as by all metrics.
    ignore_class : int, optional
        As for `IoU`.
    sparse_y_pred : bool
        As for `IoU`.
    axis : int
        As for `IoU`.
    """

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, target_class_ids, name, dtype, ignore_class, False, sparse_y_pred, axis)


class OneHotMeanIoU(MeanIoU):
    """`MeanIoU` of one-hot targets, and of a number for each class.

    Parameters
    ----------
    num_classes : int
        As for `IoU`.
    name : str, optional
        What it is reported as; "one_hot_mean_io_u" by default, as in Keras.
    dtype : {None, "float32", "float64"}
        Accepted as by all metrics.
    ignore_class : int, optional
        As for `IoU`.
    sparse_y_pred : bool
        As for `IoU`.
    axis : int
        As for `IoU`.
    """

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, name, dtype, ignore_class, False, sparse_y_pred, axis)
