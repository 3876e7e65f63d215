"""Calls into compiled code that does nothing: the measure of what is around a step from Python."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

EMPTY, ALLOCATING = "njit_call", "njit_allocating"


@njit
def _empty() -> None:
    pass


@njit
def _allocating(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.empty((x.shape[0], 2), np.float32)


class Calls:
    """A job for a worker: ``run(count)`` makes ``count * steps`` calls."""

    def __init__(self, kind: str) -> None:
        self._allocates = kind == ALLOCATING

    def set_steps(self, steps: int) -> None:
        """Set how many calls stand for a job."""
        self._steps = steps

    def run(self, count: int) -> None:
        """Make the calls of so many jobs."""
        if self._allocates:
            x = np.zeros((1, 20), np.float32)
            for _ in range(count * self._steps):
                _allocating(x)
        else:
            for _ in range(count * self._steps):
                _empty()
