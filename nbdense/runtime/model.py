"""`load_model`: a file's model, which predicts."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.compression import open_tensors
from nbdense.files import FileFormatError, TensorFile
from nbdense.runtime.integers import has_nan, number
from nbdense.runtime.program import Program
from nbdense.runtime.quantized import quantized
from nbdense.runtime.sequential import sequential
from nbdense.runtime.sparse import sparse

# The reader of each kind of file. One of a new kind is one more row.
READERS: dict[str, Callable[[TensorFile], Program]] = {
    "model": sequential,
    "quantized model": quantized,
    "sparse model": sparse,
}
# What descriptions that no library wrote come to.
_DAMAGE = (ArithmeticError, AttributeError, LookupError, RecursionError, StopIteration, TypeError, ValueError)
_BLOCK = 1024  # rows that go through all steps at a time


class Model:
    """A model of a file, ready to predict; `load_model` makes it.

    Parameters
    ----------
    program : Program
        Its steps.

    Attributes
    ----------
    input_shape, output_shape : tuple of int
        Shapes of one row of data.
    """

    def __init__(self, program: Program) -> None:
        self._program, self._columns = program, math.prod(program.input_shape)
        self._format = None if program.output_format is None else [*map(number, program.output_format)]
        self.input_shape, self.output_shape = program.input_shape, program.output_shape

    def predict(self, x: Any) -> npt.NDArray[Any]:
        """Return the outputs of rows of data: probabilities or values.

        Parameters
        ----------
        x : array-like, (rows, *input_shape)
            Real numbers. In a quantized model a row that holds a NaN gives a row of NaN.

        Returns
        -------
        ndarray, (rows, *output_shape), of float32, or float64 of a model of that dtype

        Raises
        ------
        TypeError, ValueError
            If ``x`` is no array of numbers of the right shape.
        """
        return self._outputs(x, self._values)

    def predict_integers(self, x: Any) -> npt.NDArray[Any]:
        """Return the last layer's integers, before dequantization and softmax: those of `nbdense.quant`, bit for bit.

        Parameters
        ----------
        x : array-like, (rows, *input_shape)
            Real numbers; a NaN is taken as zero.

        Returns
        -------
        ndarray of int8 or uint8, (rows, *output_shape)

        Raises
        ------
        TypeError, ValueError
            If ``x`` is no array of numbers of the right shape, or the last layer computes in float.
        """
        if self._format is None:
            raise ValueError("predict_integers: the last layer computes in float; use predict")
        return self._outputs(x, self._integers)

    def _outputs(self, x: Any, make: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        program = self._program
        with np.errstate(all="ignore"):
            rows = _checked(x, self.input_shape).astype(program.dtype, copy=False).reshape(-1, self._columns)
            if len(rows) <= _BLOCK or program.takes_whole_call:
                made = make(rows)
            else:
                made = np.concatenate([make(rows[i : i + _BLOCK]) for i in range(0, len(rows), _BLOCK)])
        return made.reshape(len(rows), *self.output_shape)

    def _values(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        program = self._program
        made = program.run(rows)
        if self._format is not None:
            made = made * self._format[0]
        if program.final is not None:
            made = program.final(made)
        if program.integers is not None and has_nan(rows):
            made = made.reshape(len(rows), -1).copy()
            made[np.isnan(rows).any(axis=1)] = np.nan
        return made

    def _integers(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        assert self._format is not None
        assert self._program.integers is not None
        return (self._program.run(rows) + self._format[1]).astype(self._program.integers)


def _checked(x: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return rows of data of this shape as an array, or raise if they are none."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError("x: expected an array without a mask; fill it, or leave its rows out, first")
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"x: expected numbers, got dtype {array.dtype}; convert it, for example with .astype('float32')"
        )
    if array.shape[1:] != shape or array.ndim != len(shape) + 1:
        expected = ", ".join(map(str, shape))
        hint = "; a column is x.reshape(-1, 1)" if shape == (1,) else f"; one row is x.reshape(1, {expected})"
        hint = hint if array.ndim == len(shape) else ""
        raise ValueError(f"x: the model expects shape (rows, {expected}), got {array.shape}{hint}")
    return array


def load_model(path: str | os.PathLike[str]) -> Model:
    """Read a model that nbdense saved, float, quantized or sparse, compressed or not, and prepare its weights.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    Model

    Raises
    ------
    FileNotFoundError
        If there is none.
    nbdense.files.FileFormatError
        If the file is damaged, truncated, not ours, of a newer format, of a kind of model that has no form here, or has
        an activation of a user's own in float.

    Examples
    --------
    >>> import nbdense as nb
    >>> nb.Sequential([nb.Input((4,)), nb.Dense(3, "softmax")]).save("model.nbd")
    >>> import nbdense.runtime
    >>> nbdense.runtime.load_model("model.nbd").predict([[0, 0, 0, 0]]).round(3)
    array([[0.333, 0.333, 0.333]], dtype=float32)
    """
    file = open_tensors(path)
    if file.kind not in READERS:
        raise FileFormatError(
            f"{file.path} holds a {file.kind!r}, which nbdense.runtime has no form of; it reads: {', '.join(READERS)}"
        )
    try:
        with np.errstate(all="ignore"):
            return Model(READERS[file.kind](file))
    except FileFormatError:
        raise
    except _DAMAGE as error:
        raise FileFormatError(f"{file.path}: its description does not make a model: {error}") from error
