"""Runs of networks whose steps are followed by projections: these are Python's, so that each step is a run."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.backends.base import Data, Workspace
from nbdense.optimizers import Optimizer


def one_by_one(
    workspace: Workspace,
    phases: npt.NDArray[Any],
    data: Data,
    first_step: int,
    count: int,
    optimizer: Optimizer,
    options: Mapping[str, Any],
) -> tuple[int, npt.NDArray[np.float64]]:
    """Take ``count`` steps, at least one, in a run each; arguments and results are those of `Workspace.run`."""
    optimizer = copy.copy(optimizer)
    done, totals = 0, []
    for step in range(first_step, first_step + count):
        finished, total = workspace.run(phases, data, first_step=step, optimizer=optimizer, **options)
        totals.append(total)
        if not finished:
            break
        done += 1
        optimizer.batches += 1
    return done, np.concatenate([*totals, np.zeros((count - len(totals), totals[0].shape[1]))])
