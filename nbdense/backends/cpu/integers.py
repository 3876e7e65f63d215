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
from nbdense.engine.rows.kind import set_addresses
from nbdense.quant.kernels import dynamic, integer, sparse, tables


def load(program: IntegerProgram) -> IntegerPredictor:
    """Return what runs a program."""
    if program.floats is not None:
        set_addresses(program.floats[0], np.float32, ("forward",))
    return _Dynamic(program) if program.takes_whole_call else _Static(program)


class _Static:
    """A program whose rows are independent of each other."""

    def __init__(self, program: IntegerProgram) -> None:
        self._program = program
        self._flops_a_row = program.flops_a_row
        self._predict = integer.predict if program.sparse is None else sparse.predict
        general = None if program.floats is None and integer.is_plain(program.packed) else 1
        self._tables = (program.packed, program.floats, general if program.sparse is None else program.sparse)
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
        if self._entry is not None:  # some microseconds: no time for another call
            self._entry(*self._tables, x, integers, values, 0, 1)
        else:
            self._call(*self._tables, x, integers, values, 0, 1)

    def _call(self, *arguments: Any) -> None:
        """Call the compiled program; the types of its arguments are always the same."""
        if self._entry is None:
            self._entry = bound(self._predict, arguments)
        self._entry(*arguments)

    def _predict_many(self, x: npt.NDArray[np.float32], integers: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
        flops = self._flops_a_row * x.shape[0]
        for first in range(0, x.shape[0], self._at_once):  # for Ctrl-C to be heard
            rows = slice(first, first + self._at_once)
            given = (*self._tables, x[rows], integers[rows], values[rows])
            with self._pace.region(flops, float(len(x[rows]))) as threads:
                self._call(*given, thread_pool.launcher(threads), threads)


class _Dynamic:
    """A program that takes scales from all rows of a call together; it has no integers to give."""

    def __init__(self, program: IntegerProgram) -> None:
        self._packed, self._floats, self._flops_a_row = program.packed, program.floats, program.flops_a_row
        parts = self._packed[: tables.FORM_AT].view(tables.PARTS)[0]
        form = self._packed[tables.FORM_AT : tables.FORM_END].view(tables.FORM)[0]
        layers = self._packed[parts["layers"] : parts["end"]].view(tables.LAYER)
        self._width = int(form["float_width"])
        # Of a row, in each pass: looks at a layer's inputs, its products, and what is done with the last outputs.
        looks = [float(row["positions"] * row["n_in"]) for row in layers]
        products = [2.0 * look * float(row["n_out"]) for look, row in zip(looks, layers, strict=True)]
        self._work = [work for pair in zip(looks, products, strict=True) for work in pair] + [float(form["n_out"])]
        self._pace = Pace()

    def predict(self, x: npt.NDArray[np.float32], integers: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
        rows = x.shape[0]
        memory = np.zeros(self._width * rows, np.float32), np.zeros(2, np.float32)
        if sum(self._work) * rows <= plan.SIGNAL_WORK:
            self._take(x, values, memory, (0, len(self._work), 0, rows), self._flops_a_row)
            return
        for at, work in enumerate(self._work):  # for Ctrl-C to be heard
            at_once = max(1, int(plan.SIGNAL_WORK / max(1.0, work)))
            for first in range(0, rows, at_once):
                self._take(x, values, memory, (at, at + 1, first, min(rows, first + at_once)), work)

    def _take(
        self,
        x: npt.NDArray[np.float32],
        values: npt.NDArray[Any],
        memory: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
        span: tuple[int, int, int, int],
        work: float,
    ) -> None:
        work *= span[3] - span[2]
        with self._pace.region(work, work) as threads:
            launcher = thread_pool.launcher(threads)
            dynamic.predict_dynamic(self._packed, self._floats, x, values, memory, span, launcher, threads)
