"""The memory of a run on the CPU, and the calls into the compiled program that work on it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense._compile import thread_pool
from nbdense.backends.base import Data, Objective
from nbdense.backends.cutting import in_parts
from nbdense.backends.layout import Layout
from nbdense.engine import program
from nbdense.engine.elementwise import optimizer as steps
from nbdense.engine.memory import aligned_zeros
from nbdense.engine.tables import ROWS, SLABS, UPDATE, WHOLE
from nbdense.network import Network
from nbdense.optimizers import Optimizer

# Floating-point operations between two looks for Ctrl-C, which Python hears only outside compiled code: a few
# hundredths of a second of a fast core, a second of a very slow one.
SIGNAL_FLOPS = 4e9


class CpuWorkspace:
    """Everything that batches of up to ``batch`` rows need, allocated once: see `nbdense.backends.base.Workspace`.

    Parameters
    ----------
    network : Network
    objective : Objective
    batch : int
        Rows of data at a time, at most.
    state : ndarray, (1 + slots, parameters)
        Row 0 takes gradients; the rest are the optimizer's slots.
    """

    def __init__(self, network: Network, objective: Objective, batch: int, state: npt.NDArray[Any]) -> None:
        self.network, self.state, self.batch = network, state, batch
        self._layout = Layout(network, objective, batch)
        self._run = self._layout.run
        rows = batch * network.positions_out
        work = aligned_zeros(self._layout.size, network.dtype)
        work[-1] = 1.0
        self._work = work
        self._values = np.zeros(rows * (1 + len(objective.metrics)))
        self._metrics = np.array(objective.metrics, np.int64)
        self._order = np.zeros(batch, np.int64)
        self._sums = np.zeros((max(1, network.slabs.size), 2))
        self._flops = 2.0 * batch * network.multiply_adds
        self.steps_at_once = max(1, int(SIGNAL_FLOPS / max(1.0, self._flops)))
        self._no_mask = np.zeros(0, network.dtype)
        self._rounded = aligned_zeros(network.params.size if network.rounds_kernels else 0, network.dtype)

    def run(
        self,
        phases: npt.NDArray[Any],
        data: Data,
        *,
        layers: npt.NDArray[Any] | None = None,
        first_step: int = 0,
        count: int = 1,
        epoch: int = 0,
        seed: int = 0,
        shuffle: bool = False,
        optimizer: Optimizer | None = None,
    ) -> tuple[int, npt.NDArray[np.float64]]:
        """Work through batches ``first_step``.. of an epoch."""
        updates = phases[-1]["kind"] == SLABS and bool(phases[-1]["flags"] & UPDATE)
        if updates and self.network.projections and optimizer is not None and count > 1:
            options = {"layers": layers, "epoch": epoch, "seed": seed, "shuffle": shuffle}
            return in_parts(self, phases, data, first_step, count, optimizer, options)
        run, network = self._run, self.network
        flops = self._flops * (3 if len(phases) > 1 else 1)
        threads = thread_pool.worthwhile(flops)
        totals = np.zeros((count, 1 + len(self._metrics)))
        self._layout.fill_in(data, first_step, count, epoch, seed, shuffle, optimizer)
        hyper = np.zeros(steps.HYPER) if optimizer is None else optimizer.hyper()
        rates = np.zeros(count) if optimizer is None else optimizer.rates(count)
        values = network.params
        if network.rounds_kernels:  # the parameters may have been written to since the last run
            values = self._rounded
            program.round_kernels(network.layers, network.params, values)
        with thread_pool.region(threads) as granted:
            run["threads"] = granted

            def call(some: npt.NDArray[Any], begin: int = 0, end: int = WHOLE) -> int:
                run["begin"], run["end"] = begin, end
                done = program.run_steps[granted > 1](
                    (network.layers if layers is None else layers, network.slabs, network.segments, some),
                    (network.params, self.state, self._no_mask if network.mask is None else network.mask, values),
                    (self._work, self._values, totals, self._metrics, self._order, self._sums),
                    (*data.x, *data.y, *data.weights),
                    run,
                    (hyper, rates),
                )
                return int(done)

            if count == 1 and flops > SIGNAL_FLOPS:
                rows = min(self.batch, data.rows - first_step * self.batch)
                done = self._in_parts(call, phases, rows, flops)
            else:
                done = call(phases)
        if updates:
            network.version += done
            if done and optimizer is not None:
                network.project()
        return done, totals

    def _in_parts(self, call: Callable[..., int], phases: npt.NDArray[Any], rows: int, flops: float) -> int:
        """Take one long step in calls between which Python hears Ctrl-C, and undo it where that comes.

        Returns
        -------
        int
            1, or 0 where the loss was not finite.
        """
        saved: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None
        params, slots = self.network.params, self.state[1:]
        try:
            for index, phase in enumerate(phases):
                parts = {ROWS: rows, SLABS: self.network.slabs.size}.get(int(phase["kind"]), 1)
                if phase["kind"] == SLABS and phase["flags"] & UPDATE:
                    saved = params.copy(), slots.copy()
                count = min(parts, -int(-flops // SIGNAL_FLOPS))
                for begin, end in pairwise(parts * part // max(1, count) for part in range(count + 1)):
                    if call(phases[index : index + 1], begin, end if end < parts else WHOLE) == 0:
                        return 0
        except BaseException:
            if saved is not None:
                params[:], slots[:] = saved
            raise
        return 1

    @property
    def nbytes(self) -> int:
        """Bytes of memory; gradients and slots, which belong to the model, are not among them."""
        return sum(array.nbytes for array in (self._work, self._values, self._order, self._sums, self._rounded))

    def tensor(self, row: Any, name: str, rows: int, *, deltas: bool = False) -> npt.NDArray[Any]:
        """Return a view of a row's values for the last batch, or of their deltas, (rows, positions, columns)."""
        return self._matrix(rows, *self._layout.place(row, name, deltas))

    def set_deltas(self, row: Any, deltas: npt.NDArray[Any]) -> None:
        """Set the deltas of a row's output."""
        self.tensor(row, "output", len(deltas), deltas=True)[...] = deltas

    def targets(self, rows: int) -> npt.NDArray[Any]:
        """Return a view of the last batch's targets, (rows, positions, target_width)."""
        return self._matrix(rows, *self._layout.targets)

    def weights(self, rows: int) -> npt.NDArray[Any]:
        """Return a view of the weights of the last batch's rows, (rows, positions, 1)."""
        return self._matrix(rows, *self._layout.weights)

    def _matrix(self, rows: int, start: int, positions: int, ld: int, n: int) -> npt.NDArray[Any]:
        return self._work[start : start + rows * positions * ld].reshape(rows, positions, ld)[:, :, :n]
