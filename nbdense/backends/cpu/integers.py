"""Integer programs on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense._compile import thread_pool
from nbdense._compile.pace import Pace
from nbdense._compile.policy import bound
from nbdense.backends.base import IntegerPredictor, IntegerProgram
from nbdense.backends.cpu import plan
from nbdense.quant.kernels import dynamic, integer, sparse

ENTRIES = [integer.predict, sparse.predict, dynamic.predict_dynamic]  # (serial, parallel) of each


def load(program: IntegerProgram) -> IntegerPredictor:
    """Return what runs a program."""
    return _Dynamic(program) if program.takes_whole_call else _Static(program)


class _Static:
    """A program whose rows are independent of each other."""

    def __init__(self, program: IntegerProgram) -> None:
        self._program = program
        self._flops_a_row = program.flops_a_row
        self._entries = integer.predict if program.sparse is None else sparse.predict
        vectors = () if program.sparse is None else (program.sparse,)
        self._tables = (program.packed, program.floats, *vectors)
        self._at_once = max(1, int(plan.SIGNAL_WORK / max(1.0, program.flops_a_row)))
        self._few = min(self._at_once, thread_pool.LEAST_PARALLEL_FLOPS / max(1.0, program.flops_a_row))
        self._entry: Callable[..., Any] | None = None
        self._pace = Pace()

    def __reduce__(self) -> tuple[type[_Static], tuple[IntegerProgram]]:
        return type(self), (self._program,)  # compiled functions are this process's

    def predict(self, x: npt.NDArray[np.float32], integers: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
        if x.shape[0] >= self._few:
            self._predict_many(x, integers, values)
            return
        arguments = (*self._tables, x, integers, values, 1)  # some microseconds: no time for questions
        if self._entry is None:
            self._entry = bound(self._entries[0], arguments)
        self._entry(*arguments)

    def _predict_many(self, x: npt.NDArray[np.float32], integers: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
        flops = self._flops_a_row * x.shape[0]
        for first in range(0, x.shape[0], self._at_once):  # for Ctrl-C to be heard
            rows = slice(first, first + self._at_once)
            with self._pace.region(flops, float(len(x[rows]))) as threads:
                self._entries[threads > 1](*self._tables, x[rows], integers[rows], values[rows], threads)


class _Dynamic:
    """A program that takes scales from all rows of a call together; it has no integers to give."""

    def __init__(self, program: IntegerProgram) -> None:
        self._packed, self._floats, self._flops_a_row = program.packed, program.floats, program.flops_a_row
        self._pace = Pace()

    def predict(self, x: npt.NDArray[np.float32], integers: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
        rows = x.shape[0]
        with self._pace.region(self._flops_a_row * rows, float(rows)) as threads:
            dynamic.predict_dynamic[threads > 1](self._packed, self._floats, x, values, threads)
