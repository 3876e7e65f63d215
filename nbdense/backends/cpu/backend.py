"""The CPU's engine as a backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense._compile import thread_pool
from nbdense._compile.pace import Pace
from nbdense._compile.policy import bound
from nbdense.backends.base import IntegerPredictor, IntegerProgram, Objective, Predictor, Workspace
from nbdense.backends.cpu import plan, workspace
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

    def predictor(self, network: Network) -> Predictor:
        """Prepare the prediction of rows."""
        return CpuPredictor(network)

    def predict(self, network: Network, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a network's outputs for the rows of ``x``, a C-ordered, writable matrix in its dtype."""
        return CpuPredictor(network).predict(x)

    def load(self, program: IntegerProgram) -> IntegerPredictor:
        """Make a quantized network ready to predict; the kernels of integers are imported by the first."""
        from nbdense.backends.cpu import integers

        return integers.load(program)


class CpuPredictor:
    """Predictions of a network, prepared; they have nothing in common that two threads could both write to.

    Parameters
    ----------
    network : Network
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._n_out, self._dtype, self._width = network.n_out, network.dtype, network.width
        self._chunk = plan.rows_of_chunk(network)
        self._at_once = max(FEW_ROWS, plan.rows_at_once(network))
        least = thread_pool.LEAST_PARALLEL_FLOPS / (2.0 * max(1, network.multiply_adds))
        self._shares_columns = network.multiply_adds >= MUCH_TO_READ
        # Fewer rows than these take some microseconds: no time for questions.
        self._few = 0 if self._shares_columns or network.rounds_kernels else int(min(least, self._at_once))
        self._entry: Callable[..., Any] | None = None
        self._entry_by_columns: Callable[..., Any] | None = None
        self._rows: npt.NDArray[Any] | None = None  # those whose addresses are set
        self._pace = Pace()

    def predict(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the outputs of rows."""
        rows, network = x.shape[0], self._network
        if self._rows is not network.inference:
            self._rows = network.inference
            program.set_addresses_forward(self._rows, network.dtype)
        out = np.empty((rows, self._n_out), self._dtype)
        if rows >= self._few:
            self._predict_many(x, out)
        elif self._entry is not None:
            self._entry(network.inference, network.params, x, out, self._width, self._chunk, 0, 1)
        else:
            self._by_rows(network.inference, network.params, x, out, self._width, self._chunk, 0, 1)
        return out

    def _by_rows(self, *arguments: Any) -> None:
        """Call the compiled program; the types of its arguments are always the same."""
        if self._entry is None:
            self._entry = bound(program.predict, arguments)
        self._entry(*arguments)

    def _by_columns(self, *arguments: Any) -> None:
        """Call the compiled program of few rows."""
        if self._entry_by_columns is None:
            self._entry_by_columns = bound(program.predict_by_columns, arguments)
        self._entry_by_columns(*arguments)

    def _predict_many(self, x: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        network, rows = self._network, x.shape[0]
        layers, params, multiply_adds = network.inference, network.params, network.multiply_adds
        if network.rounds_kernels:
            params = aligned_zeros(params.size, network.dtype)
            program.round_kernels(layers, network.params, params)
        flops = 2.0 * rows * multiply_adds
        by_columns = rows <= FEW_ROWS and self._shares_columns
        if by_columns:
            flops = 16.0 * multiply_adds  # in time: a kernel is read no faster than eight rows are multiplied
        for first in range(0, rows, self._at_once):
            block, results = x[first : first + self._at_once], out[first : first + self._at_once]
            with self._pace.region(flops, float(len(block))) as granted:
                launcher = thread_pool.launcher(granted)
                if by_columns and granted > 1:
                    self._by_columns(layers, params, block, results, self._width, launcher, granted)
                else:
                    self._by_rows(layers, params, block, results, self._width, self._chunk, launcher, granted)
