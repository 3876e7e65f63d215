"""The memory of runs on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.backends.base import Accepted, Data, Objective
from nbdense.backends.cpu import plan
from nbdense.backends.cpu.plan import CpuPlan, Memory
from nbdense.backends.layout import Layout
from nbdense.engine.memory import aligned_zeros
from nbdense.network import Network
from nbdense.optimizers import Optimizer


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
        rows = batch * network.positions_out
        work = aligned_zeros(self._layout.size, network.dtype)
        work[-1] = 1.0
        self.memory = Memory(
            network,
            batch,
            state,
            self._layout.run,
            work,
            values=np.zeros(rows * (1 + len(objective.metrics))),
            metrics=np.array(objective.metrics, np.int64),
            order=np.zeros(batch, np.int64),
            sums=np.zeros((max(1, network.slabs.size), 2)),
            rounded=aligned_zeros(network.params.size if network.rounds_kernels else 0, network.dtype),
        )
        self.steps_at_once = max(1, plan.rows_at_once(network) // batch)
        self._views: dict[tuple[int, int, int, int, int], npt.NDArray[Any]] = {}  # that were asked for, by their places

    def plan(
        self,
        phases: npt.NDArray[Any],
        *,
        layers: npt.NDArray[Any] | None = None,
        optimizer: Optimizer | None = None,
        accepted: Accepted | None = None,
    ) -> CpuPlan:
        """Prepare runs of these phases."""
        return CpuPlan(self.memory, phases, layers, optimizer, accepted)

    def run(
        self,
        phases: npt.NDArray[Any],
        data: Data,
        *,
        layers: npt.NDArray[Any] | None = None,
        optimizer: Optimizer | None = None,
        **options: Any,
    ) -> tuple[int, npt.NDArray[np.float64]]:
        """Prepare a run and take it once."""
        return self.plan(phases, layers=layers, optimizer=optimizer).run(data, **options)

    @property
    def nbytes(self) -> int:
        """Bytes of memory; gradients and slots, which belong to the model, are not among them."""
        memory = self.memory
        return sum(part.nbytes for part in (memory.work, memory.values, memory.order, memory.sums, memory.rounded))

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
        place = rows, start, positions, ld, n
        view = self._views.get(place)
        if view is None:
            view = self.memory.work[start : start + rows * positions * ld].reshape(rows, positions, ld)[:, :, :n]
            self._views[place] = view
        return view
