"""The memory of runs, whatever device it lies on: activations, deltas, targets and the rest, in one vector."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbdense.backends.base import Data, Objective
from nbdense.engine.elementwise import optimizer as steps
from nbdense.engine.tables import RUN, leading_dimension
from nbdense.network import Network
from nbdense.optimizers import Optimizer


class Layout:
    """Places in the memory of runs over batches of up to ``batch`` rows.

    Parameters
    ----------
    network : Network
    objective : Objective
    batch : int
        Rows of data at a time, at most.

    Attributes
    ----------
    run : structured array of `RUN`, (1,)
        What the compiled programs read of a run; places and the objective are filled in.
    size : int
        Elements of the vector; the last of them has to be 1.
    """

    def __init__(self, network: Network, objective: Objective, batch: int) -> None:
        self._network, self._batch, self._target_width = network, batch, objective.target_width
        self.run = run = np.zeros(1, RUN)
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
        self.size = end + widest + 1
        run["one"] = end + widest
        run["ld_target"] = ld_target
        run["batch"] = batch
        run["loss"] = objective.form.code
        run["loss_parameter"] = objective.parameter
        run["loss_call"] = objective.call
        run["sparse"], run["fused"] = objective.sparse, objective.fused
        run["average"] = -1.0
        self._deltas = int(run["deltas"][0])
        run["rounds_kernels"] = network.rounds_kernels

    def fill_in(
        self, data: Data, first_step: int, count: int, epoch: int, seed: int, shuffle: bool, optimizer: Optimizer | None
    ) -> None:
        """Fill in what is a run's own; the arguments are those of `Workspace.run`."""
        network = self._network
        for name, value in {
            "rows": data.rows,
            "first_step": first_step,
            "steps": count,
            "shuffle": shuffle,
            "seed": seed,
            "epoch": epoch,
            "penalties": bool((network.segments["l1"] != 0).any() or (network.segments["l2"] != 0).any()),
            **({"optimizer": steps.NONE, "iteration": 0} if optimizer is None else optimizer.run_fields(network.dtype)),
        }.items():
            self.run[name] = value

    def place(self, row: Any, name: str, deltas: bool) -> tuple[int, int, int, int]:
        """Return where a row's values lie, or their deltas: (start, positions, elements between rows, columns)."""
        if name in ("input", "second"):
            n, ld, positions = int(row["n_in"]), int(row["ld_in"]), int(row["positions"])
        else:
            n, ld, positions = int(row["n_out"]), int(row["ld_out"]), int(row["positions_out"])
        return int(row[name]) * self._batch + (self._deltas if deltas else 0), positions, ld, n

    @property
    def targets(self) -> tuple[int, int, int, int]:
        """The targets' place, as `place` returns it."""
        start, ld = int(self.run["targets"][0]), int(self.run["ld_target"][0])
        return start, self._network.positions_out, ld, self._target_width

    @property
    def weights(self) -> tuple[int, int, int, int]:
        """The rows' weights' place, as `place` returns it."""
        return int(self.run["weights"][0]), self._network.positions_out, 1, 1
