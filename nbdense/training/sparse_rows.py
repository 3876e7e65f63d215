"""Rows of scipy's sparse matrices, which become dense some batches at a time, in the order of the engine's epochs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import _checks
from nbdense.backends.base import Data
from nbdense.engine.tables import SHUFFLE_STREAM
from nbdense.training.state import TrainState

ELEMENTS = 2**22  # that are dense at a time, or one batch's

_U64 = npt.NDArray[np.uint64]
# The constants of nbdense.engine.kernels.random: what is here gives the same numbers, for all rows at once.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)


class SparseRows:
    """Rows of a sparse matrix, for the ``x`` of `Sequential.fit` and `evaluate`: never all of them are dense.

    Parameters
    ----------
    matrix : sparse matrix or array, (rows, columns)
        Of any of scipy's formats; one that is not CSR is converted, once.

    Attributes
    ----------
    shape : (int, int)
        Its rows and columns.
    """

    def __init__(self, matrix: Any) -> None:
        self._matrix = matrix.tocsr()
        self.shape: tuple[int, int] = self._matrix.shape

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def stored(self) -> npt.NDArray[Any]:
        """The numbers that are stored; all others are zero."""
        return np.asarray(self._matrix.data)

    def dense(self, which: Any, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return some rows as a dense matrix.

        Parameters
        ----------
        which : slice or ndarray of int
            Their numbers.
        dtype : dtype
            The type of the result.
        """
        return np.asarray(self._matrix[which].astype(dtype).toarray(order="C"))


class SparseFeed:
    """The rows of a sparse data set, batch by batch: see `nbdense.training.feeding.Feed`.

    Parameters
    ----------
    state : TrainState
        State of a model that is built and compiled.
    x : SparseRows
        Inputs.
    y, sample_weight : array-like, optional
        Targets and weights of rows.
    class_weight : mapping or str, optional
        Weights of classes.
    batch : int
        Rows in a step.
    shuffle : bool
        Whether each epoch has the order that dense rows would have.
    """

    has_order = True

    def __init__(
        self, state: TrainState, x: SparseRows, y: Any, sample_weight: Any, class_weight: Any, batch: int, shuffle: bool
    ) -> None:
        self._seed, self._dtype, self._x = state.seed, state.network.dtype, x
        self._y, self._weights = state.targets(y, len(x), sample_weight, class_weight)
        with np.errstate(over="ignore"):
            if not np.isfinite(x.stored.astype(self._dtype)).all():
                raise ValueError(f"x: NaN or infinity (in {self._dtype}) among the stored numbers; remove it first")
        _checks.refuse_not_finite("y", _checks.source(self._y), self._dtype)
        self.batch, self._shuffle, self.order = min(batch, len(x)), shuffle, 0
        self.steps: int | None = -(-len(x) // self.batch)
        self._at_once = max(1, ELEMENTS // (self.batch * max(1, x.shape[1])))
        self._places: npt.NDArray[np.int64] | None = None

    def begin(self, epoch: int) -> bool:
        """Begin an epoch, a pass over all rows."""
        self.order = epoch
        self._places = epoch_order(self._seed, epoch, len(self._x)) if self._shuffle else None
        return True

    def take(self, first: int, count: int) -> tuple[Data, int, int] | None:
        """Return steps whose rows have been made dense, or None behind the last."""
        assert self.steps is not None
        count = min(count, self._at_once, self.steps - first)
        if count <= 0:
            return None
        span = slice(first * self.batch, min((first + count) * self.batch, len(self._x)))
        which = span if self._places is None else self._places[span]
        weights = _checks.no_source() if self._weights is None else _checks.source(self._weights[which])
        sources = _checks.source(self._x.dense(which, self._dtype)), _checks.source(self._y[which])
        return Data(*sources, weights, span.stop - span.start), 0, count


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
