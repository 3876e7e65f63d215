"""Timing of predictions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

SECONDS = 0.05  # that a timing takes, at least

Matrix = npt.NDArray[Any]


def microseconds_a_row(predict: Callable[[Matrix], Any], shape: tuple[int, ...], rows: int) -> float:
    """Measure a prediction: the median of calls that take rows of zeros.

    Parameters
    ----------
    predict : callable
        Takes float32 rows.
    shape : tuple of int
        Shape of one row.
    rows : int
        How many a call takes.
    """
    x = np.zeros((rows, *shape), np.float32)
    predict(x)  # compiles
    times: list[float] = []
    while sum(times) < SECONDS or len(times) < 3:
        started = time.perf_counter()
        predict(x)
        times.append(time.perf_counter() - started)
    return 1e6 * float(np.median(times)) / rows
