"""Targets and sample weights, checked and brought into the shape that the engine gathers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import _validate
from nbdense.losses import BinaryCrossentropy, CategoricalCrossentropy, Loss


def check_targets(y: Any, loss: Loss, rows: int, n_out: int, layer: str) -> npt.NDArray[Any]:
    """Targets as a two-dimensional array: (rows, n_out), or (rows, 1) of class numbers where the loss is sparse.

    Raises
    ------
    ValueError, TypeError
        For another number of rows, another kind of label than the loss takes, or a label out of range.
    """
    array = y if isinstance(y, np.ndarray) else np.asarray(y)
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"y: expected numbers, got dtype {array.dtype}; number the classes from 0, for example with np.unique"
        )
    if array.shape[:1] != (rows,):
        raise ValueError(f"y: expected a target for each of the {rows} rows of x, got shape {array.shape}")
    if array.ndim == 1 and (loss.sparse or n_out == 1):
        array = array.reshape(-1, 1)
    if loss.sparse:
        return _check_classes(array, loss, n_out, layer)
    if array.ndim != 2 or array.shape[1] != n_out:
        hint = ""
        if isinstance(loss, CategoricalCrossentropy):
            hint = "; for class numbers use loss='sparse_categorical_crossentropy', or to_categorical(y)"
        raise ValueError(
            f"y: {loss.name} on layer {layer!r} takes targets of shape ({rows}, {n_out}), got {array.shape}{hint}"
        )
    if isinstance(loss, BinaryCrossentropy) and array.size and (array.min() < 0 or array.max() > 1):
        raise ValueError(f"y: {loss.name} takes targets in [0, 1], got {array.min()} to {array.max()}")
    return array


def _check_classes(array: npt.NDArray[Any], loss: Loss, n_out: int, layer: str) -> npt.NDArray[Any]:
    if array.ndim != 2 or array.shape[1] != 1:
        raise ValueError(
            f"y: {loss.name} takes class numbers of shape (rows,), got {array.shape}; "
            "for one-hot rows use loss='categorical_crossentropy'"
        )
    labels = array[:, 0]
    with np.errstate(invalid="ignore"):
        wrong = (labels < 0) | (labels >= n_out)
        if array.dtype.kind == "f":
            wrong |= labels != np.floor(labels)  # NaN too
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"y: label {labels[row]} in row {row} is not a whole number in 0..{n_out - 1}, "
            f"one for each unit of layer {layer!r}"
        )
    return array


def row_weights(
    sample_weight: Any, class_weight: Mapping[int, float] | None, y: npt.NDArray[Any], loss: Loss
) -> npt.NDArray[Any] | None:
    """One weight a row, as a column: sample weights times the weight of the row's class. None: all alike."""
    weights = None
    if sample_weight is not None:
        weights = np.asarray(sample_weight)
        if weights.shape not in ((len(y),), (len(y), 1)) or weights.dtype.kind not in "fiub":
            raise ValueError(
                f"sample_weight: expected {len(y)} numbers, got shape {weights.shape}, dtype {weights.dtype}"
            )
        weights = weights.reshape(-1, 1).astype(np.float64)
        if not np.isfinite(weights).all():
            raise ValueError("sample_weight: holds NaN or infinity")
    if class_weight is not None:
        if y.shape[1] > 1:
            classes = y.argmax(axis=1)
        else:
            classes = y[:, 0].astype(np.int64)
        present = np.unique(classes)
        missing = [int(c) for c in present if int(c) not in class_weight]
        if missing:
            raise ValueError(f"class_weight: no weight for class {missing[0]}, which is in y")
        table = {int(c): float(class_weight[int(c)]) for c in present}
        by_class = np.array([table[int(c)] for c in classes]).reshape(-1, 1)
        weights = by_class if weights is None else weights * by_class
    return weights


def as_sources(x: npt.NDArray[Any], y: npt.NDArray[Any], weights: npt.NDArray[Any] | None, dtype: np.dtype[Any]) -> Any:
    """The engine's view of a data set, after refusing NaN and infinity in it."""
    from nbdense.training import Data

    sources = _validate.source(x), _validate.source(y)
    for name, source in zip(("x", "y"), sources, strict=True):
        _validate.refuse_not_finite(name, source, dtype)
    weight_source = _validate.no_source() if weights is None else _validate.source(weights)
    return Data(*sources, weight_source, x.shape[0])
