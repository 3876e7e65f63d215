"""Parts of a softmax: take the largest of a row of numbers off all of them, make their sum 1."""

from __future__ import annotations

import numpy as np

from nbdense._compile.policy import kernel


@kernel
def shift_row(values, at, n):
    """Subtract the largest of the n numbers at ``at`` from them, so that no exponential overflows; returns it."""
    start = np.uint64(at)
    largest = values[start]
    for j in range(1, n):
        value = values[start + np.uint64(j)]
        largest = value if value > largest else largest
    for j in range(n):
        values[start + np.uint64(j)] -= largest
    return largest


@kernel
def normalise_row(values, at, n):
    """Divide the n numbers at ``at`` by their sum, which is returned."""
    number = values.dtype.type
    start = np.uint64(at)
    total = number(0.0)
    for j in range(n):
        total += values[start + np.uint64(j)]
    scale = number(1.0) / total
    for j in range(n):
        values[start + np.uint64(j)] *= scale
    return total
