"""Steps of training: in one run each, or with the gradients of several batches added up first.

Adding up takes three runs a batch in place of one, and is paid for by those who ask for it alone: the compiled program
knows nothing of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import _checks
from nbdense.backends.base import Data, Workspace
from nbdense.optimizers import RESTING, Optimizer
from nbdense.training import phases


def take_steps(
    workspace: Workspace,
    layers: npt.NDArray[Any],
    optimizer: Optimizer,
    data: Data,
    *,
    count: int = 1,
    **options: Any,
) -> tuple[int, npt.NDArray[np.float64]]:
    """Take steps of training, up to one whose loss is not finite.

    Parameters
    ----------
    workspace : Workspace
        Memory of the runs.
    layers : structured array of `LAYER`
        The table for training.
    optimizer : Optimizer
        With ``gradient_accumulation_steps`` it gets one batch at a time.
    data : Data
        Rows to learn from.
    count : int
        Batches.
    **options
        Of `Workspace.run`.

    Returns
    -------
    done : int
        Batches whose loss is finite.
    totals : ndarray, (count, 1 + metrics), float64
    """
    if not optimizer.gradient_accumulation_steps:
        table = phases.training(layers, optimizer.clips_by_norm)
        return workspace.run(table, data, count=count, optimizer=optimizer, **options)
    assert count == 1
    done, totals = workspace.run(phases.training(layers, updates=False), data, **options)
    if done:
        use_gradients(workspace, layers, optimizer)
    return done, totals


def use_gradients(workspace: Workspace, layers: npt.NDArray[Any], optimizer: Optimizer) -> None:
    """Take the optimizer's step with the gradients that are there, or add them up until a step is due.

    Parameters
    ----------
    workspace : Workspace
        Memory of the batch that the gradients are of; its statistics are taken over in any case.
    layers : structured array of `LAYER`
        The table for training.
    optimizer : Optimizer
        With its count of batches before this one.
    """
    every, gradients, moving = optimizer.gradient_accumulation_steps, workspace.state[0], optimizer
    if every:
        total = workspace.state[1 + optimizer.slots]
        total += gradients
        if (optimizer.batches + 1) % every == 0:
            np.divide(total, every, out=gradients)
            total[:] = 0.0
        else:
            moving = RESTING
    nothing = _checks.no_source()
    data = Data(nothing, nothing, nothing, workspace.batch)
    workspace.run(phases.update(moving.clips_by_norm), data, layers=layers, optimizer=moving)
