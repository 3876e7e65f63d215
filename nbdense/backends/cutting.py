"""Runs that are cut: a step each, for projections in Python, or as many steps as a device has room for the data of."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from nbdense.optimizers import Optimizer

Result = tuple[int, npt.NDArray[np.float64]]


def in_parts(
    runs: Callable[[Optimizer | None], Callable[..., Result]],
    first_step: int,
    count: int,
    optimizer: Optimizer | None,
    most: int = 1,
) -> Result:
    """Take ``count`` steps, ``most`` in a run, up to one whose loss is not finite.

    Parameters
    ----------
    runs : callable
        Returns what runs steps ``first_step=``, ``count=`` with an optimizer: a copy, which is told of them.
    first_step, count : int
        Which steps.
    optimizer : Optimizer or None
    most : int

    Returns
    -------
    tuple
        As of `Plan.run`.
    """
    optimizer = copy.copy(optimizer)
    run = runs(optimizer)
    done, parts = 0, []
    for first in range(0, count, most):
        steps = min(most, count - first)
        finished, totals = run(first_step=first_step + first, count=steps)
        parts.append(totals.copy())
        done += finished
        if finished < steps:
            break
        if optimizer is not None:
            optimizer.batches += finished
    missing = count - sum(len(part) for part in parts)
    return done, np.concatenate([*parts, np.zeros((missing, parts[0].shape[1]))])
