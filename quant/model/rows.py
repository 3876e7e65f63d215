"""Rows of data on their way into a program and its outputs on their way out: checks, dtypes, slices, shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import _checks
from nbdense.quant.model.network import QuantizedNetwork

_SLICE = 16384  # rows that are converted to float32 at a time
FLOAT32 = np.dtype(np.float32)


class RowsOfData:
    """Shapes and dtypes of a model's rows of data.

    Parameters
    ----------
    network : QuantizedNetwork
        The model's; nothing of it is kept.
    """

    def __init__(self, network: QuantizedNetwork) -> None:
        self.input_shape, self.output_shape, self.n_out = network.input_shape, network.output_shape, network.n_out
        # Of rows that go in and come out as they are; None: there are none.
        self._columns = self.input_shape if len(self.input_shape) == len(self.output_shape) == 1 else None
        self._owner, self.last = f"layer {network.layers[0].name!r}", network.layers[-1].name
        self._integer_dtype = np.dtype(network.activation_dtype) if network.ends_in_integers else None
        # The scale of a dynamic layer is that of the whole call.
        self._slice = None if network.takes_whole_call else _SLICE

    def integer_dtype(self) -> np.dtype[Any]:
        """Return the dtype of the last layer's integers.

        Raises
        ------
        ValueError
            If it computes in float.
        """
        if self._integer_dtype is None:
            raise ValueError(f"predict_integers: the last layer, {self.last!r}, computes in float; use predict")
        return self._integer_dtype

    def run(
        self, run: Callable[[Any], npt.NDArray[Any]], dtype: np.dtype[Any], x: Any, batch_size: int | None
    ) -> npt.NDArray[Any]:
        """Run rows, as many at a time as shall be, and return their outputs.

        Parameters
        ----------
        run : callable
            Takes a C-ordered, writable matrix of float32; returns (rows, n_out) of ``dtype``.
        dtype : dtype
            Type of the outputs.
        x : array-like, (rows, *input_shape)
            As the user gives it.
        batch_size : int or None
            Rows at a time.

        Raises
        ------
        TypeError, ValueError
            If ``x`` is no array of numbers of the right shape.
        """
        if batch_size is None and type(x) is np.ndarray and x.dtype is FLOAT32 and x.shape[1:] == self._columns:
            flags = x.flags  # some microseconds: no time for questions
            if 0 < len(x) <= _SLICE and flags.c_contiguous and flags.writeable and flags.aligned:
                return run(x)
        array = _checks.rows("x", x, self.input_shape, self._owner)
        if batch_size is not None:
            batch_size = _checks.positive_int("predict", "batch_size", batch_size)
        rows = array.shape[0]
        step = batch_size or self._slice or max(rows, 1)
        if 0 < rows <= step:
            out = run(_as_float32(array))
        else:
            out = np.empty((rows, self.n_out), dtype)
            for start in range(0, rows, step):
                out[start : start + step] = run(_as_float32(array[start : start + step]))
        return out if len(self.output_shape) == 1 else out.reshape(rows, *self.output_shape)


def _as_float32(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the array that the program takes: numba would compile anew for another layout, or a read-only one."""
    flags = array.flags
    if array.dtype == np.float32 and flags.c_contiguous and flags.writeable and flags.aligned:
        return array
    return _checks.matrix_of(array, np.dtype(np.float32))  # what is too large becomes infinite, and saturates
