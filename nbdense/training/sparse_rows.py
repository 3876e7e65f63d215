"""Rows of scipy's sparse matrices, made dense some at a time; and the order in which the engine takes rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import _checks
from nbdense.engine.tables import SHUFFLE_STREAM

ELEMENTS = 2**22  # that are dense at a time, or one row's, or one batch's

_U64 = npt.NDArray[np.uint64]
# The constants of nbdense.engine.kernels.random: what is here gives the same numbers, for all rows at once.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)


def is_sparse(x: Any) -> bool:
    """Tell whether data are one of scipy's sparse matrices or arrays."""
    return hasattr(x, "tocsr")


def readable(name: str, x: Any) -> Any:
    """Return data as an array, or as a CSR matrix without duplicates: then they can be cut by rows.

    Parameters
    ----------
    name : str
        The argument's name, for errors.
    x : array-like or sparse matrix
        The data.

    Raises
    ------
    TypeError, ValueError
        For a sparse matrix of no real numbers, or of other than two dimensions.
    """
    if not is_sparse(x):
        return _checks.array_of(name, x)
    if x.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected numbers, got a sparse {type(x).__name__} of dtype {x.dtype}")
    if len(x.shape) != 2:
        raise ValueError(f"{name}: expected a sparse matrix of shape (rows, columns), got {x.shape}")
    rows = x.tocsr()
    if not rows.has_canonical_format:
        rows = rows.copy() if rows is x else rows
        rows.sum_duplicates()
    return rows


def pieces(rows: Any, dtype: npt.DTypeLike, most: int) -> Iterator[npt.NDArray[Any]]:
    """Yield the rows of a matrix as dense matrices, C-ordered and writable, some rows each.

    Numbers too large for the dtype become infinite.

    Parameters
    ----------
    rows : ndarray or CSR matrix, (rows, columns)
        The matrix.
    dtype : dtype
        Type of the results.
    most : int
        Rows in one, at most; of a sparse matrix `rows_at_once` at most.
    """
    if is_sparse(rows):
        most = min(most, rows_at_once(rows.shape[1]))
    for first in range(0, rows.shape[0], most):
        piece = rows[first : first + most]
        yield dense_rows(piece, dtype) if is_sparse(piece) else _checks.matrix_of(piece, np.dtype(dtype))


def rows_at_once(columns: int) -> int:
    """Return how many rows of a sparse matrix are made dense at a time: at least one."""
    return max(1, ELEMENTS // max(1, columns))


def dense_rows(rows: Any, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return a sparse matrix as a dense one; numbers too large for the dtype become infinite.

    Parameters
    ----------
    rows : CSR matrix, (rows, columns)
        The matrix.
    dtype : dtype
        Type of the result.
    """
    with np.errstate(over="ignore"):
        return np.asarray(rows.astype(dtype).toarray(order="C"))


def epoch_order(seed: int, epoch: int, rows: int) -> npt.NDArray[np.int64]:
    """Return the order in which the engine takes the rows of an epoch: `nbdense.engine.kernels.random.shuffled`.

    Parameters
    ----------
    seed : int
        The model's.
    epoch : int
        Number of the epoch, of all that the model has been trained.
    rows : int
        How many there are.
    """
    with np.errstate(over="ignore"):
        key = _mix(_mix(np.uint64(seed) ^ _mix(np.uint64(SHUFFLE_STREAM))) ^ np.uint64(epoch))
        left = np.uint64(math.ceil(math.sqrt(rows)))
        right = (np.uint64(rows) + left - np.uint64(1)) // left
        places = np.arange(rows, dtype=np.uint64)
        outside = np.arange(rows)
        while outside.size:
            places[outside] = _permuted(key, places[outside], left, right)
            outside = outside[places[outside] >= np.uint64(rows)]
    return places.astype(np.int64)


def _permuted(key: np.uint64, places: _U64, left_size: np.uint64, right_size: np.uint64) -> _U64:
    """Return where a Feistel network of four rounds takes each place of left_size * right_size."""
    left = places // right_size
    right = places - left * right_size
    for number in (0, 2):
        left = left + _below(key, number, right, left_size)
        left = np.where(left >= left_size, left - left_size, left)
        right = right + _below(key, number + 1, left, right_size)
        right = np.where(right >= right_size, right - right_size, right)
    permuted: _U64 = left * right_size + right
    return permuted


def _below(key: np.uint64, number: int, value: _U64, bound: np.uint64) -> _U64:
    bits = (value + key + np.uint64(number) * _M2) * _GOLDEN
    bits = (bits ^ (bits >> _32)) * _M1
    hashed: _U64 = ((bits >> _32) * bound) >> _32
    return hashed


def _mix(value: np.uint64) -> np.uint64:
    value = value + _GOLDEN
    value = (value ^ (value >> _30)) * _M1
    value = (value ^ (value >> _27)) * _M2
    return np.uint64(value ^ (value >> _31))
