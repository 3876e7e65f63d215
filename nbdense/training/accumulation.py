"""Steps of training, prepared: in one run each, or with the gradients of several batches added up first.

Adding up takes three runs a batch in place of one, and is paid for by those who ask for it alone: the compiled program
knows nothing of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import _checks
from nbdense.backends.base import Accepted, Bytes, Data, Plan, Workspace
from nbdense.optimizers import RESTING, Optimizer
from nbdense.training import phases

Result = tuple[int, npt.NDArray[np.float64]]  # of Plan.run
NO_BYTES = _checks.no_source()[0]


class Pass:
    """Runs over what is in the workspace already: the first prepares what the others take.

    Parameters
    ----------
    plan : Plan
    rows : int
        Of the batch that is there.
    """

    def __init__(self, plan: Plan, rows: int) -> None:
        self._plan, self._rows, self._has_run = plan, rows, False

    def run(self) -> None:
        """Run once more."""
        if self._has_run:
            self._plan.again(NO_BYTES, NO_BYTES, NO_BYTES)
            return
        nothing = _checks.no_source()
        self._plan.run(Data(nothing, nothing, nothing, self._rows))
        self._has_run = True


class TrainingSteps:
    """Steps of training in one workspace, each up to a loss that is not finite.

    Parameters
    ----------
    workspace : Workspace
        Memory of the runs.
    layers : structured array of `LAYER`
        The table for training.
    optimizer : Optimizer
        With ``gradient_accumulation_steps`` it gets one batch at a time. It is not told of the steps.
    accepted : Accepted, optional
        Of `Workspace.plan`.
    """

    def __init__(
        self,
        workspace: Workspace,
        layers: npt.NDArray[Any],
        optimizer: Optimizer,
        accepted: Accepted | None = None,
    ) -> None:
        self._clips = optimizer.clips_by_norm
        self._workspace, self._optimizer = workspace, optimizer
        self._updates: Updates | None = None
        if optimizer.gradient_accumulation_steps:
            self._updates = Updates(workspace, layers, optimizer)
            table = phases.training(layers, updates=False)
            self._plan: Plan = workspace.plan(table, layers=layers, accepted=accepted)
        else:
            table = phases.training(layers, self._clips)
            self._plan = workspace.plan(table, layers=layers, optimizer=optimizer, accepted=accepted)

    def fits(self, workspace: Workspace, optimizer: Optimizer) -> bool:
        """Tell whether this is what would be made of a workspace and an optimizer, as it clips now."""
        return workspace is self._workspace and optimizer is self._optimizer and optimizer.clips_by_norm == self._clips

    def run(self, data: Data, **options: Any) -> Result:
        """Take steps on batches of a data set; parameters and results are those of `Plan.run`."""
        done, totals = self._plan.run(data, **options)
        if self._updates is not None and done:
            self._updates.take()
        return done, totals

    def again(self, x: Bytes, y: Bytes, weights: Bytes, seed: int) -> Result:
        """Take a step on one batch more; parameters and results are those of `Plan.again`."""
        done, totals = self._plan.again(x, y, weights, seed)
        if self._updates is not None and done:
            self._updates.take()
        return done, totals


class Updates:
    """The optimizer's steps with the gradients that are there, or their adding up until a step is due.

    Parameters
    ----------
    workspace : Workspace
        Memory of the batch that the gradients are of; its statistics are taken over in any case.
    layers : structured array of `LAYER`
        The table for training.
    optimizer : Optimizer
        With its count of batches before each.
    """

    def __init__(self, workspace: Workspace, layers: npt.NDArray[Any], optimizer: Optimizer) -> None:
        self._workspace, self._layers, self._optimizer = workspace, layers, optimizer
        self._passes: dict[tuple[bool, bool], Pass] = {}

    def take(self) -> None:
        """Take a step, or add the gradients up."""
        optimizer, workspace = self._optimizer, self._workspace
        every, gradients = optimizer.gradient_accumulation_steps, workspace.state[0]
        if every:
            total = workspace.state[1 + optimizer.slots]
            total += gradients
            if (optimizer.batches + 1) % every == 0:
                np.divide(total, every, out=gradients)
                total[:] = 0.0
            else:
                optimizer = RESTING
        kind = optimizer is RESTING, optimizer.clips_by_norm
        if kind not in self._passes:
            plan = workspace.plan(phases.update(optimizer.clips_by_norm), layers=self._layers, optimizer=optimizer)
            self._passes[kind] = Pass(plan, workspace.batch)
        self._passes[kind].run()
