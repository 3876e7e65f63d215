"""The memory of runs on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.backends.base import Accepted, Data, Objective
from nbdense.backends.cpu import plan
from nbdense.backends.cpu.plan import CpuPlan, Memory
from nbdense.engine.tables import RUN, aligned_zeros, leading_dimension
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
        self._target_width = objective.target_width
        self._run = run = np.zeros(1, RUN)
        layers = network.layers
        widest = int(max(layers["ld_in"].max(), layers["ld_out"].max()))
        rows = batch * network.positions_out
        # One-hot targets are read in the outputs' columns; the row is as wide even where only a class number is in it.
        ld_target = leading_dimension(max(objective.target_width, int(layers[-1]["n_out"])))
        parts = {
            "deltas": network.width * batch,
            "targets": network.width * batch,
            "weights": ld_target * rows,
            "room": rows,
            "aside": rows,
            "zeros": network.aside,
        }
        end = 0
        for name, size_ahead in parts.items():
            end += -(-size_ahead // 16) * 16
            run[name] = end
        work = aligned_zeros(end + widest + 1, network.dtype)
        run["one"] = end + widest
        work[-1] = 1.0
        run["ld_target"] = ld_target
        run["batch"] = batch
        run["loss"] = objective.form.code
        run["loss_parameter"] = objective.parameter
        run["loss_call"] = objective.call
        run["sparse"], run["fused"] = objective.sparse, objective.fused
        run["rounds_kernels"] = network.rounds_kernels
        self.memory = Memory(
            network,
            batch,
            state,
            run,
            work,
            values=np.zeros(rows * (1 + len(objective.metrics))),
            metrics=np.array(objective.metrics, np.int64),
            order=np.zeros(batch, np.int64),
            sums=np.zeros((max(1, network.slabs.size), 2)),
            rounded=aligned_zeros(network.params.size if network.rounds_kernels else 0, network.dtype),
        )
        self._deltas = int(run["deltas"][0])
        self.steps_at_once = max(1, plan.rows_at_once(network) // batch)

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
        if name in ("input", "second"):
            n, ld, positions = int(row["n_in"]), int(row["ld_in"]), int(row["positions"])
        else:
            n, ld, positions = int(row["n_out"]), int(row["ld_out"]), int(row["positions_out"])
        start = int(row[name]) * self.batch + (self._deltas if deltas else 0)
        return self._matrix(start, rows, positions, ld)[:, :, :n]

    def set_deltas(self, row: Any, deltas: npt.NDArray[Any]) -> None:
        """Set the deltas of a row's output."""
        self.tensor(row, "output", len(deltas), deltas=True)[...] = deltas

    def targets(self, rows: int) -> npt.NDArray[Any]:
        """Return a view of the last batch's targets, (rows, positions, target_width)."""
        start, ld = int(self._run["targets"][0]), int(self._run["ld_target"][0])
        return self._matrix(start, rows, self.network.positions_out, ld)[:, :, : self._target_width]

    def weights(self, rows: int) -> npt.NDArray[Any]:
        """Return a view of the weights of the last batch's rows, (rows, positions, 1)."""
        return self._matrix(int(self._run["weights"][0]), rows, self.network.positions_out, 1)

    def _matrix(self, start: int, rows: int, positions: int, ld: int) -> npt.NDArray[Any]:
        return self.memory.work[start : start + rows * positions * ld].reshape(rows, positions, ld)
