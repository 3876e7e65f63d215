"""Parts of all normalisations: the columns of their rows, and gamma and beta."""

from __future__ import annotations

import numpy as np

from nbdense._compile.policy import kernel

GAMMA, BETA, EPSILON = "kernel", "bias", "alpha"  # the row's columns: two offsets, -1 for none, and a number


@kernel
def scaled(row, params, work, source, output, n):
    """Compute gamma times ``source`` plus beta, at ``output``, of one row of columns."""
    s, o = np.uint64(source), np.uint64(output)
    gamma, beta = row[GAMMA], row[BETA]
    for j in range(n):
        k = np.uint64(j)
        value = work[s + k]
        if gamma >= 0:
            value = value * params[np.uint64(gamma) + k]
        if beta >= 0:
            value = value + params[np.uint64(beta) + k]
        work[o + k] = value


@kernel
def times_gamma(row, params, work, at, n):
    """Multiply one row of columns by gamma, where the row has one."""
    if row[GAMMA] >= 0:
        start, gamma = np.uint64(at), np.uint64(row[GAMMA])
        for j in range(n):
            k = np.uint64(j)
            work[start + k] *= params[gamma + k]
