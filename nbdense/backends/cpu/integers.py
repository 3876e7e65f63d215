"""Integer programs on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense._compile import thread_pool
from nbdense.backends.base import IntegerPredictor, IntegerProgram
from nbdense.quant.kernels import dynamic, integer

ENTRIES = [integer.predict, dynamic.predict_dynamic]  # (serial, parallel) of each


def load(program: IntegerProgram) -> IntegerPredictor:
    """Return what runs a program."""
    return _Dynamic(program) if program.takes_whole_call else _Static(program)


class _Static:
    """A program whose rows are independent of each other."""

    def __init__(self, program: IntegerProgram) -> None:
        self._packed, self._floats, self._flops_a_row = program.packed, program.floats, program.flops_a_row

    def predict(self, x: npt.NDArray[np.float32], integers: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
        flops = self._flops_a_row * x.shape[0]
        if flops < thread_pool.LEAST_PARALLEL_FLOPS:  # a few microseconds: no time for more questions
            integer.predict[0](self._packed, self._floats, x, integers, values, 1)
        else:
            with thread_pool.region(thread_pool.worthwhile(flops)) as threads:
                integer.predict[threads > 1](self._packed, self._floats, x, integers, values, threads)


class _Dynamic:
    """A program that takes scales from all rows of a call together; it has no integers to give."""

    def __init__(self, program: IntegerProgram) -> None:
        self._packed, self._floats, self._flops_a_row = program.packed, program.floats, program.flops_a_row

    def predict(self, x: npt.NDArray[np.float32], integers: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
        with thread_pool.region(thread_pool.worthwhile(self._flops_a_row * x.shape[0])) as threads:
            dynamic.predict_dynamic[threads > 1](self._packed, self._floats, x, values, threads)
