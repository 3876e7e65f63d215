"""The CPU's engine as a backend."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense._compile import thread_pool
from nbdense.backends.base import IntegerPredictor, IntegerProgram, Objective, Workspace
from nbdense.backends.cpu import workspace
from nbdense.engine import program
from nbdense.engine.memory import aligned_zeros
from nbdense.network import Network

FEW_ROWS = 8  # up to so many rows, a network of MUCH_TO_READ kernel elements is read by all threads, in columns
MUCH_TO_READ = 262_144


class CpuBackend:
    """Run networks by the compiled programs of this process; see `nbdense.backends.base.Backend`."""

    def workspace(self, network: Network, objective: Objective, batch: int, state: npt.NDArray[Any]) -> Workspace:
        """Return the memory for runs of a network."""
        return workspace.CpuWorkspace(network, objective, batch, state)

    def predict(self, network: Network, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a network's outputs for the rows of ``x``, a C-ordered, writable matrix in its dtype."""
        rows, multiply_adds = x.shape[0], network.multiply_adds
        out = np.empty((rows, network.n_out), network.dtype)
        layers, params = network.inference, network.params
        if network.rounds_kernels:
            params = aligned_zeros(params.size, network.dtype)
            program.round_kernels(layers, network.params, params)
        flops = 2.0 * rows * multiply_adds
        by_columns = rows <= FEW_ROWS and multiply_adds >= MUCH_TO_READ
        if by_columns:
            flops = 16.0 * multiply_adds  # in time: a kernel is read no faster than eight rows are multiplied
        if flops < thread_pool.LEAST_PARALLEL_FLOPS:  # a few microseconds: no time for more questions
            program.predict[0](layers, params, x, out, network.width, 1, False)
            return out
        with thread_pool.region(thread_pool.worthwhile(flops)) as granted:
            by_columns = by_columns and granted > 1
            step = max(FEW_ROWS, int(workspace.SIGNAL_FLOPS / (2.0 * max(1, multiply_adds))))
            for first in range(0, rows, step):
                block, results = x[first : first + step], out[first : first + step]
                program.predict[granted > 1](layers, params, block, results, network.width, granted, by_columns)
        return out

    def load(self, program: IntegerProgram) -> IntegerPredictor:
        """Make a quantized network ready to predict; the kernels of integers are imported by the first."""
        from nbdense.backends.cpu import integers

        return integers.load(program)

    def compilers(self, quant: bool) -> Sequence[Callable[[], object]]:
        """Return calls that compile the parallel twin of each entry, for all that the serial one is compiled for."""
        pairs = [program.run_steps, program.predict]
        if quant:
            from nbdense.backends.cpu import integers

            pairs += integers.ENTRIES
        return [functools.partial(_compile_twin, pair) for pair in pairs]


def _compile_twin(pair: tuple[Any, Any]) -> None:
    serial, parallel = pair
    for signature in serial.signatures:
        parallel.compile(signature)
