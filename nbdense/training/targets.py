"""Targets and sample weights, checked and brought into the shape that the engine gathers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import _checks
from nbdense._warn import warn
from nbdense.backends.base import Accepted, Data
from nbdense.losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CategoricalHinge,
    Hinge,
    KLDivergence,
    Loss,
    Poisson,
)
from nbdense.network import Network

SUM_TOLERANCE = 0.01  # by which a row of class probabilities may miss 1 unremarked
_NEVER_NEGATIVE = (CategoricalCrossentropy, KLDivergence, Poisson)  # losses of targets that are never negative


def check_targets(y: Any, loss: Loss, rows: int, shape: tuple[int, ...], layer: str) -> npt.NDArray[Any]:
    """Return targets as a matrix, a row for each row of data: the outputs' elements, or class numbers.

    Parameters
    ----------
    y : array-like
        (rows, *shape), or (rows, *shape[:-1]) of class numbers where the loss is sparse.
    loss : Loss
    rows : int
        How many there should be; the outputs' positions are part of ``shape``.
    shape : tuple of int
        Shape of a row of outputs.
    layer : str
        The last layer's name.

    Returns
    -------
    ndarray, (rows, elements)
        Labels of 0 and 1 for hinge as -1 and 1, if there are no others in this data set.

    Raises
    ------
    ValueError, TypeError
        For another number of rows, another kind of label than the loss takes, or a label out of range.

    Warns
    -----
    UserWarning
        For rows of class probabilities that do not sum to 1.
    """
    array = _checks.array_of("y", y)
    if array.ndim == 0:
        array = _checks.numbers_of("y", y)  # which says what came, and how to make numbers of it
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"y: expected numbers, got dtype {array.dtype}; number the classes from 0, for example with np.unique"
        )
    if array.shape[:1] != (rows,):
        raise ValueError(f"y: expected a target for each of the {rows} rows of x, got shape {array.shape}")
    if isinstance(loss, CategoricalCrossentropy) and shape[-1] == 1:
        raise ValueError(
            f"y: {loss.name} over the 1 unit of layer {layer!r} is always 0; "
            "use loss='binary_crossentropy' after a sigmoid, or a unit for each class"
        )
    if loss.sparse:
        return _check_classes(array, loss, shape, layer)
    if array.shape == (rows, *shape[:-1]) and shape[-1] == 1:
        array = array[..., np.newaxis]
    if array.shape != (rows, *shape):
        hint = ""
        if isinstance(loss, CategoricalCrossentropy):
            hint = "; for class numbers use loss='sparse_categorical_crossentropy', or to_categorical(y)"
        elif isinstance(loss, BinaryCrossentropy | CategoricalHinge | Hinge | KLDivergence) and array.ndim == 1:
            hint = "; of class numbers to_categorical(y) makes such rows"
        expected = ", ".join(map(str, (rows, *shape)))
        raise ValueError(
            f"y: {loss.name} on layer {layer!r} takes targets of shape ({expected}), got {array.shape}{hint}"
        )
    return _check_range(array.reshape(rows, -1), loss, shape[-1])


def accepted(loss: Loss, network: Network) -> Accepted | None:
    """Return the targets that pass `check_targets` unchanged and unremarked, whatever others there are beside them.

    None for a loss with which that depends on the others.

    Parameters
    ----------
    loss : Loss
    network : Network
        The network that learns by it.
    """
    largest = float(np.finfo(network.dtype).max)
    if isinstance(loss, Hinge):
        return None
    if loss.sparse:
        return Accepted(0.0, network.output_shape[-1] - 1.0, whole=True)
    if isinstance(loss, BinaryCrossentropy):
        return Accepted(0.0, 1.0)
    sums = SUM_TOLERANCE if isinstance(loss, CategoricalCrossentropy | KLDivergence) else -1.0
    return Accepted(0.0 if isinstance(loss, _NEVER_NEGATIVE) else -largest, largest, sum_tolerance=sums)


def _check_range(array: npt.NDArray[Any], loss: Loss, n_out: int) -> npt.NDArray[Any]:
    """Return targets whose values suit the loss; labels of 0 and 1 as hinge takes them. NaN is refused elsewhere."""
    if array.size == 0 or not isinstance(loss, (BinaryCrossentropy, Hinge, *_NEVER_NEGATIVE)):
        return array
    least, most = array.min(), array.max()
    if isinstance(loss, BinaryCrossentropy) and (least < 0 or most > 1):
        hint = "; for labels -1 and 1 use loss='hinge', or (y + 1) / 2" if least == -1 and most == 1 else ""
        raise ValueError(f"y: {loss.name} takes targets in [0, 1], got {least} to {most}{hint}")
    if isinstance(loss, _NEVER_NEGATIVE) and least < 0:
        kind = "counts" if isinstance(loss, Poisson) else "class probabilities"
        raise ValueError(f"y: {loss.name} takes {kind}, which are never negative; got {least}")
    if isinstance(loss, Hinge):
        if least < -1 or most > 1:
            raise ValueError(f"y: {loss.name} takes labels -1 and 1, or 0 and 1; got {least} to {most}")
        if ((array == 0) | (array == 1)).all():
            signed = array.astype(np.int8 if array.dtype.kind in "iub" else array.dtype)
            return 2 * signed - 1
    if isinstance(loss, CategoricalCrossentropy | KLDivergence):
        with np.errstate(invalid="ignore"):
            sums = array.reshape(-1, n_out).sum(axis=1, dtype=np.float64)
            wrong = np.abs(sums - 1.0) > SUM_TOLERANCE
        if wrong.any():
            row = int(np.argmax(wrong)) // (array.shape[1] // n_out)
            warn(
                f"y: {loss.name} takes class probabilities, but those of row {row} sum to {sums[wrong][0]:.6g}; where "
                "a row may have several labels, use loss='binary_crossentropy' after a sigmoid"
            )
    return array


def _check_classes(array: npt.NDArray[Any], loss: Loss, shape: tuple[int, ...], layer: str) -> npt.NDArray[Any]:
    rows, n_out = array.shape[0], shape[-1]
    if array.shape[1:] not in (shape[:-1], (*shape[:-1], 1)):
        expected = f"({rows},)" if len(shape) == 1 else str((rows, *shape[:-1]))
        raise ValueError(
            f"y: {loss.name} takes class numbers of shape {expected}, got {array.shape}; "
            "for one-hot rows use loss='categorical_crossentropy'"
        )
    labels = array.reshape(rows, -1)
    with np.errstate(invalid="ignore"):
        wrong = (labels < 0) | (labels >= n_out)
        if array.dtype.kind == "f":
            wrong |= labels != np.floor(labels)  # NaN too
    if wrong.any():
        row = int(np.argmax(wrong.any(axis=1)))
        label = labels[row][wrong[row]][0]
        raise ValueError(
            f"y: label {label} in row {row} is not a whole number in 0..{n_out - 1}, "
            f"one for each unit of layer {layer!r}"
        )
    return labels


def row_weights(
    sample_weight: Any,
    class_weight: Mapping[Any, Any] | str | None,
    y: npt.NDArray[Any],
    loss: Loss,
    positions: int = 1,
) -> npt.NDArray[Any] | None:
    """Return a weight for each row of data, as a column: sample weights times the class's; None if all weigh alike.

    A row's class is the number in it, rounded, or the column of its largest number, as in Keras.
    """
    weights = None
    if sample_weight is not None:
        weights = _checks.array_of("sample_weight", sample_weight)
        if weights.shape not in ((len(y),), (len(y), 1)) or weights.dtype.kind not in "fiub":
            raise ValueError(
                f"sample_weight: expected {len(y)} numbers, got shape {weights.shape}, dtype {weights.dtype}"
            )
        weights = weights.reshape(-1, 1)
        if weights.dtype not in (np.float32, np.float64):
            weights = weights.astype(np.float64)
        if not np.isfinite(weights).all():
            raise ValueError(f"sample_weight: NaN or infinity in row {int(np.argmin(np.isfinite(weights)))}")
    if class_weight is not None:
        if positions > 1:
            raise ValueError("class_weight: a row of data has several targets here; use sample_weight")
        if isinstance(class_weight, Mapping):
            for key in class_weight:
                if not isinstance(key, Real):
                    raise TypeError(f"class_weight: its keys must be class numbers, got {_checks.plain(key)!r}")
        with np.errstate(invalid="ignore"):  # NaN is refused elsewhere
            classes = y.argmax(axis=1) if y.shape[1] > 1 else np.rint(y[:, 0]).astype(np.int64)
        if isinstance(loss, Hinge) and isinstance(class_weight, Mapping) and -1 not in class_weight:
            classes = np.where(classes == -1, 0, classes)  # labels 0 and 1, signed by check_targets
        labels, numbers = np.unique(classes, return_inverse=True)
        by_class = weights_by_class(class_weight, labels.tolist(), numbers, None if weights is None else weights[:, 0])
        weights = by_class.reshape(-1, 1) if weights is None else weights * by_class.reshape(-1, 1)
    return weights


def weights_by_class(
    class_weight: Mapping[Any, Any] | str,
    labels: Sequence[Any],
    numbers: npt.NDArray[np.integer[Any]],
    sample_weight: npt.NDArray[np.floating[Any]] | None,
) -> npt.NDArray[np.float64]:
    """Return the weight of each row's class by ``class_weight``, for Sequential and the estimators.

    Parameters
    ----------
    class_weight : mapping of label to float, or "balanced"
        Classes that a mapping does not name weigh 1, as in Keras. Balanced is what scikit-learn's
        ``compute_class_weight`` makes of weighted rows: a row of weight 2 counts as two, and one of weight 0 as none.
    labels : sequence
        The classes' labels.
    numbers : ndarray of int, (rows,)
        Place in ``labels`` of each row's class.
    sample_weight : ndarray, (rows,), or None
        The rows' own weights, which are not in the result.

    Returns
    -------
    ndarray, (rows,), float64

    Raises
    ------
    ValueError, TypeError
        For anything else than a mapping or "balanced", for a weight that is negative or not finite, and for rows of
        negative weight that are to be balanced.
    """
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(f"class_weight: expected a mapping or 'balanced', got {class_weight!r}")
        return balance_of(class_sizes(len(labels), numbers, sample_weight))[numbers]
    if not isinstance(class_weight, Mapping):
        raise TypeError(
            "class_weight: expected a mapping of classes to numbers, such as {0: 1.0, 1: 3.0}, or 'balanced', got "
            f"{type(class_weight).__name__}"
        )
    for label, weight in class_weight.items():
        if not isinstance(weight, Real) or not math.isfinite(weight) or weight < 0.0:
            raise ValueError(
                f"class_weight: the weight of class {_checks.plain(label)!r} must be a finite number of at least 0, "
                f"got {_checks.plain(weight)!r}"
            )
    return np.array([float(class_weight.get(label, 1.0)) for label in labels])[numbers]


def class_sizes(
    count: int, numbers: npt.NDArray[np.integer[Any]], sample_weight: npt.NDArray[np.floating[Any]] | None
) -> npt.NDArray[np.float64]:
    """Return what each class's rows weigh together, for `balance_of`.

    Parameters
    ----------
    count : int
        Number of classes.
    numbers : ndarray of int, (rows,)
        The rows' classes.
    sample_weight : ndarray, (rows,), or None
        The rows' weights; None where each weighs 1.

    Raises
    ------
    ValueError
        For a weight that is negative.
    """
    if sample_weight is not None and (sample_weight < 0).any():
        row = int(np.argmax(sample_weight < 0))
        raise ValueError(
            f"sample_weight: {sample_weight[row]} in row {row}; class_weight='balanced' takes weights of at least 0"
        )
    return np.bincount(numbers, sample_weight, count).astype(np.float64)


def balance_of(sizes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return weights of classes that make all of them weigh alike and keep the sum; 0 for a class without weight.

    Parameters
    ----------
    sizes : ndarray, (classes,)
        What their rows weigh.
    """
    present = sizes > 0
    balance = np.zeros(len(sizes))
    balance[present] = sizes.sum() / (np.count_nonzero(present) * sizes[present])
    return balance


def as_sources(
    x: npt.NDArray[Any], y: npt.NDArray[Any], weights: npt.NDArray[Any] | None, dtype: np.dtype[Any]
) -> Data:
    """Return the engine's view of a data set, after refusing NaN and infinity in it."""
    sources = _checks.source(x), _checks.source(y)
    for name, source in zip(("x", "y"), sources, strict=True):
        _checks.refuse_not_finite(name, source, dtype)
    weight_source = _checks.no_source() if weights is None else _checks.source(weights)
    return Data(*sources, weight_source, x.shape[0])
