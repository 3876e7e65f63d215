"""Data on the device: all of it, copied once, or the rows of some steps at a time, where it is too large for that."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.backends.base import Data, Source
from nbdense.backends.cuda.device import Stream, free_memory
from nbdense.engine.kernels.gather import DTYPES

SHARE = 0.5  # of the free memory, that a data set takes at most
SLICE = 1 << 28  # bytes of one that goes through in slices, on the device at a time


@dataclass(frozen=True, eq=False)
class Resident:
    """Rows on the device: inputs, targets, and the rows' weights; an array that is not there has one element."""

    x: Any
    y: Any
    weights: Any
    target_columns: int
    weighted: bool


_resident: weakref.WeakKeyDictionary[Data, dict[np.dtype[Any], Resident | None]] = weakref.WeakKeyDictionary()


def resident(data: Data, dtype: np.dtype[Any], stream: Stream) -> Resident | None:
    """Return a data set on the device, in a network's dtype, copied once for each `Data`; None if it is too large."""
    copies = _resident.setdefault(data, {})
    if dtype not in copies:
        fits = data.rows * row_bytes(data, dtype) <= SHARE * free_memory()
        copies[dtype] = _on_device(data, stream, map(_matrix, _sources(data), [dtype] * 3)) if fits else None
    return copies[dtype]


def row_bytes(data: Data, dtype: np.dtype[Any]) -> int:
    """Return the bytes of a row of data on the device."""
    return max(1, sum(_shape(source)[1] for source in _sources(data))) * dtype.itemsize


class Slices:
    """Memory for the rows of some steps.

    Parameters
    ----------
    stream : Stream
    batch : int
        Rows of a step.
    dtype : dtype
        Of the network.
    """

    def __init__(self, stream: Stream, batch: int, dtype: np.dtype[Any]) -> None:
        self._stream, self._batch, self._dtype = stream, batch, dtype
        self._known: Any = None  # what is in it

    def steps(self, data: Data) -> int:
        """Return how many steps' rows there is room for, at least one's."""
        return max(1, SLICE // (self._batch * row_bytes(data, self._dtype)))

    def take(self, data: Data, places: npt.NDArray[np.int64]) -> Resident:
        """Bring the rows at some places to the device, in their order, in the memory of the rows before them."""
        parts = [_matrix(source, self._dtype, places) for source in _sources(data)]
        capacity = self.steps(data) * self._batch
        shapes = [(capacity if len(part) == len(places) else 1, part.shape[1]) for part in parts]
        layout = shapes, data.y[1].tobytes(), data.weights[1].tobytes()
        if layout != self._known:
            self._known = None
            self._held = _on_device(data, self._stream, [np.zeros(shape, self._dtype) for shape in shapes])
            self._known = layout
        for array, part in zip((self._held.x, self._held.y, self._held.weights), parts, strict=True):
            self._stream.write(array[: len(part)], part)
        return self._held


def _sources(data: Data) -> tuple[Source, Source, Source]:
    return data.x, data.y, data.weights


def _on_device(data: Data, stream: Stream, arrays: Iterable[npt.NDArray[Any]]) -> Resident:
    x, y, weights = map(stream.to_device, arrays)
    return Resident(x, y, weights, _shape(data.y)[1], _shape(data.weights)[0] > 0)


def _shape(source: Source) -> tuple[int, int]:
    form = source[1][0]
    return int(form["rows"]), int(form["columns"])


def _matrix(source: Source, dtype: np.dtype[Any], places: npt.NDArray[np.int64] | None = None) -> npt.NDArray[Any]:
    """Return rows of a source, C-ordered, in a dtype: all, or those at some places; of none, a single zero."""
    memory, form = source[0], source[1][0]
    shape = _shape(source)
    if 0 in shape:
        return np.zeros((1, 1), dtype)
    kind = next(dtype for dtype, code in DTYPES.items() if code == form["code"])
    strides = int(form["row_stride"]), int(form["column_stride"])
    rows = np.ndarray(shape, kind, memory.data, int(form["offset"]), strides)
    return np.ascontiguousarray(rows if places is None else rows[places], dtype)
