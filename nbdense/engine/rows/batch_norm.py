"""Batch normalisation: Ioffe and Szegedy 2015, algorithms 1 and 2.

A batch's statistics are sums over all its rows, so they are taken by columns, between parallel regions: each column's
sum is one thread's, in the order of the rows. ``aside`` has five vectors of a batch normalisation: mean, inverse
deviation, in backward the sums of the deltas and of the deltas times the standardised inputs, and the variance. The
``pre`` buffer keeps the standardised inputs. Where nothing is trained the running statistics take the batch's place.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nbdense._compile.policy import kernel
from nbdense.engine.elementwise.activation_loops import clear_padding
from nbdense.engine.rows.kind import RowKind, buffers, register
from nbdense.engine.rows.norms import BETA, EPSILON, GAMMA, scaled, times_gamma
from nbdense.engine.tables import BIAS, NO_DELTA

_MEAN, _VARIANCE, _MOMENTUM = "mean", "variance", "rate"  # the row's columns


@kernel
def _statistics(row, work, aside, source, m, first, last):
    """Mean and inverse deviation of columns first..last over m rows, to ``aside``."""
    number = work.dtype.type
    ld = row["ld_in"]
    mean, inverse = np.uint64(aside + first), np.uint64(aside + ld + first)
    variance = np.uint64(aside + 4 * ld + first)
    count = last - first
    for j in range(count):
        work[mean + np.uint64(j)] = number(0.0)
        work[variance + np.uint64(j)] = number(0.0)
    for i in range(m):
        at = np.uint64(source + i * ld + first)
        for j in range(count):
            k = np.uint64(j)
            work[mean + k] += work[at + k]
    for j in range(count):
        work[mean + np.uint64(j)] /= number(m)
    for i in range(m):
        at = np.uint64(source + i * ld + first)
        for j in range(count):
            k = np.uint64(j)
            apart = work[at + k] - work[mean + k]
            work[variance + k] += apart * apart
    for j in range(count):
        k = np.uint64(j)
        work[variance + k] /= number(m)
        work[inverse + k] = number(1.0) / math.sqrt(work[variance + k] + number(row[EPSILON]))


@kernel
def _forward(row, params, work, capacity, span, aside, noise):
    m, source, pre, output = buffers(row, capacity, span)
    aside += row["transposed"]
    n, ld = row["n_in"], row["ld_in"]
    mean, inverse = np.uint64(aside), np.uint64(aside + ld)
    for i in range(m):
        at, put = np.uint64(source + i * ld), np.uint64(pre + i * ld)
        for j in range(n):
            k = np.uint64(j)
            work[put + k] = (work[at + k] - work[mean + k]) * work[inverse + k]
        scaled(row, params, work, pre + i * ld, output + i * ld, n)
    clear_padding(work, output, ld, m, n)


@kernel
def _sums(row, work, aside, pre, d, m, first, last):
    """Sum deltas, and deltas times standardised inputs, of columns first..last over m rows, to ``aside``."""
    number = work.dtype.type
    ld = row["ld_in"]
    total, pull = np.uint64(aside + 2 * ld + first), np.uint64(aside + 3 * ld + first)
    count = last - first
    for j in range(count):
        work[total + np.uint64(j)] = number(0.0)
        work[pull + np.uint64(j)] = number(0.0)
    for i in range(m):
        x, delta = np.uint64(pre + i * ld + first), np.uint64(d + i * ld + first)
        for j in range(count):
            k = np.uint64(j)
            work[total + k] += work[delta + k]
            work[pull + k] += work[delta + k] * work[x + k]


@kernel
def _backward(row, params, work, capacity, span, deltas, aside, batch):
    """Put the deltas of the input in the place of the output's."""
    number = work.dtype.type
    m, _, pre, output = buffers(row, capacity, span)
    d = deltas + output
    if row["flags"] & NO_DELTA:
        return d
    aside += row["transposed"]
    n, ld = row["n_in"], row["ld_in"]
    inverse, total, pull = np.uint64(aside + ld), np.uint64(aside + 2 * ld), np.uint64(aside + 3 * ld)
    share = number(1.0) / number(batch * row["positions"])
    for i in range(m):
        x, delta = np.uint64(pre + i * ld), np.uint64(d + i * ld)
        for j in range(n):
            k = np.uint64(j)
            rest = work[delta + k] - (work[total + k] + work[x + k] * work[pull + k]) * share
            work[delta + k] = rest * work[inverse + k]
        times_gamma(row, params, work, d + i * ld, n)
    return d


@kernel
def _gradient(row, gradient, work, run, count, slab, low):
    """Take the sums of `_sums`, of all columns."""
    at = run["aside"] + row["transposed"] + (2 if slab["first"] == BIAS else 3) * row["ld_out"]
    for j in range(row["n_out"]):
        gradient[low + j] = work[at + j]


@kernel
def _move(row, params, work, aside):
    """Move the running statistics by their share of the batch's mean and (biased) variance."""
    number = params.dtype.type
    keep, take = number(row[_MOMENTUM]), number(1.0 - row[_MOMENTUM])
    for j in range(row["n_in"]):
        mean, variance = row[_MEAN] + j, row[_VARIANCE] + j
        params[mean] = params[mean] * keep + work[aside + j] * take
        params[variance] = params[variance] * keep + work[aside + 4 * row["ld_in"] + j] * take


@kernel
def _forward_frozen(row, params, work, capacity, span, aside, noise):
    """Standardise by the running statistics; ``pre`` and output may be one."""
    number = params.dtype.type
    m, source, pre, output = buffers(row, capacity, span)
    n, ld = row["n_in"], row["ld_in"]
    mean, variance = np.uint64(row[_MEAN]), np.uint64(row[_VARIANCE])
    epsilon = number(row[EPSILON])
    for i in range(m):
        at, put = np.uint64(source + i * ld), np.uint64(pre + i * ld)
        for j in range(n):
            k = np.uint64(j)
            work[put + k] = (work[at + k] - params[mean + k]) / math.sqrt(params[variance + k] + epsilon)
        scaled(row, params, work, pre + i * ld, output + i * ld, n)
    clear_padding(work, output, ld, m, n)


@kernel
def _backward_frozen(row, params, work, capacity, span, deltas, aside, batch):
    """Leave the deltas of the input beside ``pre``, which becomes deltas times standardised: its sums are gamma's."""
    number = params.dtype.type
    m, _, pre, output = buffers(row, capacity, span)
    d, result = deltas + output, deltas + pre
    n, ld = row["n_in"], row["ld_in"]
    variance, epsilon = np.uint64(row[_VARIANCE]), number(row[EPSILON])
    for i in range(m):
        x, delta, out = np.uint64(pre + i * ld), np.uint64(d + i * ld), np.uint64(result + i * ld)
        for j in range(n):
            k = np.uint64(j)
            work[out + k] = work[delta + k] / math.sqrt(params[variance + k] + epsilon)
            work[x + k] *= work[delta + k]
        times_gamma(row, params, work, result + i * ld, n)
    return result


_COMMON: dict[str, Any] = {
    "layer": "BatchNormalization",
    "title": "batch_normalization",
    "tensors": {"gamma": GAMMA, "beta": BETA, "mean": _MEAN, "variance": _VARIANCE},
    "settings": {"epsilon": EPSILON, "momentum": _MOMENTUM},
    "keeps": True,
}
FROZEN_NORM = register(RowKind("frozen_norm", forward=_forward_frozen, backward=_backward_frozen, **_COMMON))
BATCH_NORM = register(
    RowKind(
        "batch_norm",
        aside=5,
        inference=FROZEN_NORM,
        forward=_forward,
        backward=_backward,
        statistics=_statistics,
        sums=_sums,
        gradient=_gradient,
        move=_move,
        **_COMMON,
    )
)
