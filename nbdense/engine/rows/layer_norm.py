"""Layer normalisation: Ba, Kiros and Hinton 2016, section 3. The ``pre`` buffer keeps the standardised inputs.

Kinds that divide by a root mean square, and take no mean off, share its functions (`rms_norm`): compiled once, they
cost nobody a second.
"""

from __future__ import annotations

import math

import numpy as np

from nbdense._compile.policy import kernel
from nbdense.engine.elementwise.activation_loops import clear_padding
from nbdense.engine.rows.kind import RowKind, buffers, register
from nbdense.engine.rows.norms import BETA, EPSILON, GAMMA, scaled, times_gamma


@kernel
def _moments(row, work, at):
    """Mean, 0 where none is taken off, and inverse deviation from it of one row of columns."""
    number = work.dtype.type
    n, start = row["n_in"], np.uint64(at)
    mean = number(0.0)
    if row["kind"] == _CENTRES:
        total = number(0.0)
        for j in range(n):
            total += work[start + np.uint64(j)]
        mean = total / number(n)
    total = number(0.0)
    for j in range(n):
        apart = work[start + np.uint64(j)] - mean
        total += apart * apart
    return mean, number(1.0) / math.sqrt(total / number(n) + number(row[EPSILON]))


@kernel
def forward(row, params, work, capacity, span, aside, noise):
    """Standardise a share of the rows, and scale them."""
    m, source, pre, output = buffers(row, capacity, span)
    n, ld = row["n_in"], row["ld_in"]
    for i in range(m):
        at, put = np.uint64(source + i * ld), np.uint64(pre + i * ld)
        mean, inverse = _moments(row, work, source + i * ld)
        for j in range(n):
            k = np.uint64(j)
            work[put + k] = (work[at + k] - mean) * inverse
        scaled(row, params, work, pre + i * ld, output + i * ld, n)
    clear_padding(work, output, ld, m, n)


@kernel
def backward(row, params, work, capacity, span, deltas, aside, batch):
    """Leave the deltas of the input beside ``pre``, which becomes deltas times standardised: its sums are gamma's."""
    number = work.dtype.type
    m, source, pre, output = buffers(row, capacity, span)
    d, result = deltas + output, deltas + pre
    n, ld = row["n_in"], row["ld_in"]
    for i in range(m):
        x, delta, out = np.uint64(pre + i * ld), np.uint64(d + i * ld), np.uint64(result + i * ld)
        _, inverse = _moments(row, work, source + i * ld)
        for j in range(n):
            k = np.uint64(j)
            work[out + k] = work[delta + k]
        times_gamma(row, params, work, result + i * ld, n)
        total, pull = number(0.0), number(0.0)
        for j in range(n):
            k = np.uint64(j)
            total += work[out + k]
            pull += work[out + k] * work[x + k]
        total, pull = total / number(n), pull / number(n)
        if row["kind"] != _CENTRES:
            total = number(0.0)
        for j in range(n):
            k = np.uint64(j)
            work[out + k] = (work[out + k] - total - work[x + k] * pull) * inverse
            work[x + k] *= work[delta + k]
    return result


LAYER_NORM = register(
    RowKind(
        "layer_norm",
        "LayerNormalization",
        "layer_normalization",
        tensors={"gamma": GAMMA, "beta": BETA},
        settings={"epsilon": EPSILON},
        keeps=True,
        forward=forward,
        backward=backward,
    )
)
_CENTRES = LAYER_NORM.code
