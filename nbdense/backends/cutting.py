"""Runs that are cut: a step each, for projections in Python, or as many steps as a device has room for the data of."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.backends.base import Data, Workspace
from nbdense.optimizers import Optimizer


def in_parts(
    workspace: Workspace,
    phases: npt.NDArray[Any],
    data: Data,
    first_step: int,
    count: int,
    optimizer: Optimizer | None,
    options: Mapping[str, Any],
    most: int = 1,
) -> tuple[int, npt.NDArray[np.float64]]:
    """Take ``count`` steps, ``most`` in a run, up to one whose loss is not finite; all else is `Workspace.run`'s."""
    optimizer = copy.copy(optimizer)
    done, parts = 0, []
    for first in range(0, count, most):
        steps = min(most, count - first)
        finished, totals = workspace.run(
            phases, data, first_step=first_step + first, count=steps, optimizer=optimizer, **options
        )
        parts.append(totals)
        done += finished
        if finished < steps:
            break
        if optimizer is not None:
            optimizer.batches += finished
    missing = count - sum(len(part) for part in parts)
    return done, np.concatenate([*parts, np.zeros((missing, parts[0].shape[1]))])
