"""Batch and layer normalisation: Ioffe and Szegedy 2015, algorithms 1 and 2; Ba, Kiros and Hinton 2016, section 3.

A batch's statistics are sums over all its rows, so they are taken by columns, between parallel regions: each column's
sum is one thread's, in the order of the rows. ``aside`` has five vectors of a batch normalisation: mean, inverse
deviation, in backward the sums of the deltas and of the deltas times the standardised inputs, and the variance.
"""

from __future__ import annotations

import math

import numpy as np

from nbdense._compile.policy import kernel
from nbdense.engine.elementwise.activation_loops import clear_padding


@kernel
def _scaled(row, params, work, source, output, n):
    """Write gamma times ``source`` plus beta to ``output``, for one row of columns."""
    s, o = np.uint64(source), np.uint64(output)
    gamma, beta = row["kernel"], row["bias"]
    for j in range(n):
        k = np.uint64(j)
        value = work[s + k]
        if gamma >= 0:
            value = value * params[np.uint64(gamma) + k]
        if beta >= 0:
            value = value + params[np.uint64(beta) + k]
        work[o + k] = value


@kernel
def _times_gamma(row, params, work, at, n):
    if row["kernel"] >= 0:
        start, gamma = np.uint64(at), np.uint64(row["kernel"])
        for j in range(n):
            k = np.uint64(j)
            work[start + k] *= params[gamma + k]


@kernel
def _moments(row, work, at):
    """Return mean and inverse deviation of one row of columns."""
    number = work.dtype.type
    n, start = row["n_in"], np.uint64(at)
    total = number(0.0)
    for j in range(n):
        total += work[start + np.uint64(j)]
    mean = total / number(n)
    total = number(0.0)
    for j in range(n):
        apart = work[start + np.uint64(j)] - mean
        total += apart * apart
    return mean, number(1.0) / math.sqrt(total / number(n) + number(row["alpha"]))


@kernel
def forward_layer(row, params, work, source, pre, output, m):
    """Standardise each of m rows, to ``pre``, then scale it, to ``output``."""
    n, ld = row["n_in"], row["ld_in"]
    for i in range(m):
        at, put = np.uint64(source + i * ld), np.uint64(pre + i * ld)
        mean, inverse = _moments(row, work, source + i * ld)
        for j in range(n):
            k = np.uint64(j)
            work[put + k] = (work[at + k] - mean) * inverse
        _scaled(row, params, work, pre + i * ld, output + i * ld, n)
    clear_padding(work, output, ld, m, n)


@kernel
def backward_layer(row, params, work, source, pre, d, result, m):
    """Write deltas of the inputs to ``result``; ``pre`` becomes deltas times standardised: summed, gamma's gradient."""
    number = work.dtype.type
    n, ld = row["n_in"], row["ld_in"]
    for i in range(m):
        x, delta, out = np.uint64(pre + i * ld), np.uint64(d + i * ld), np.uint64(result + i * ld)
        _, inverse = _moments(row, work, source + i * ld)
        for j in range(n):
            k = np.uint64(j)
            work[out + k] = work[delta + k]
        _times_gamma(row, params, work, result + i * ld, n)
        total, pull = number(0.0), number(0.0)
        for j in range(n):
            k = np.uint64(j)
            total += work[out + k]
            pull += work[out + k] * work[x + k]
        total, pull = total / number(n), pull / number(n)
        for j in range(n):
            k = np.uint64(j)
            work[out + k] = (work[out + k] - total - work[x + k] * pull) * inverse
            work[x + k] *= work[delta + k]


@kernel
def column_statistics(row, work, aside, source, m, first, last):
    """Write mean and inverse deviation of columns first..last over m rows to ``aside``."""
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
        work[inverse + k] = number(1.0) / math.sqrt(work[variance + k] + number(row["alpha"]))


@kernel
def forward_batch(row, params, work, aside, source, pre, output, m):
    """Standardise m rows by the batch's statistics, to ``pre``, then scale them, to ``output``."""
    n, ld = row["n_in"], row["ld_in"]
    mean, inverse = np.uint64(aside), np.uint64(aside + ld)
    for i in range(m):
        at, put = np.uint64(source + i * ld), np.uint64(pre + i * ld)
        for j in range(n):
            k = np.uint64(j)
            work[put + k] = (work[at + k] - work[mean + k]) * work[inverse + k]
        _scaled(row, params, work, pre + i * ld, output + i * ld, n)
    clear_padding(work, output, ld, m, n)


@kernel
def column_sums(row, work, aside, pre, d, m, first, last):
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
def backward_batch(row, params, work, aside, pre, d, m, batch):
    """Write deltas of the inputs in the place of the outputs'; ``batch`` rows went into the statistics."""
    number = work.dtype.type
    n, ld = row["n_in"], row["ld_in"]
    inverse, total, pull = np.uint64(aside + ld), np.uint64(aside + 2 * ld), np.uint64(aside + 3 * ld)
    share = number(1.0) / number(batch)
    for i in range(m):
        x, delta = np.uint64(pre + i * ld), np.uint64(d + i * ld)
        for j in range(n):
            k = np.uint64(j)
            rest = work[delta + k] - (work[total + k] + work[x + k] * work[pull + k]) * share
            work[delta + k] = rest * work[inverse + k]
        _times_gamma(row, params, work, d + i * ld, n)


@kernel
def move_averages(row, params, work, aside):
    """Move the running statistics towards the batch's: its mean and its (biased) variance."""
    number = params.dtype.type
    keep, take = number(row["rate"]), number(1.0 - row["rate"])
    for j in range(row["n_in"]):
        mean, variance = row["mean"] + j, row["variance"] + j
        params[mean] = params[mean] * keep + work[aside + j] * take
        params[variance] = params[variance] * keep + work[aside + 4 * row["ld_in"] + j] * take


@kernel
def forward_frozen(row, params, work, source, pre, output, m):
    """Standardise m rows by the running statistics, to ``pre``, then scale them, to ``output``; the two may be one."""
    number = params.dtype.type
    n, ld = row["n_in"], row["ld_in"]
    mean, variance = np.uint64(row["mean"]), np.uint64(row["variance"])
    epsilon = number(row["alpha"])
    for i in range(m):
        at, put = np.uint64(source + i * ld), np.uint64(pre + i * ld)
        for j in range(n):
            k = np.uint64(j)
            work[put + k] = (work[at + k] - params[mean + k]) / math.sqrt(params[variance + k] + epsilon)
        _scaled(row, params, work, pre + i * ld, output + i * ld, n)
    clear_padding(work, output, ld, m, n)


@kernel
def backward_frozen(row, params, work, pre, d, result, m):
    """Write deltas of the inputs to ``result``; ``pre`` becomes what it becomes in `backward_layer`."""
    number = params.dtype.type
    n, ld = row["n_in"], row["ld_in"]
    variance, epsilon = np.uint64(row["variance"]), number(row["alpha"])
    for i in range(m):
        x, delta, out = np.uint64(pre + i * ld), np.uint64(d + i * ld), np.uint64(result + i * ld)
        for j in range(n):
            k = np.uint64(j)
            work[out + k] = work[delta + k] / math.sqrt(params[variance + k] + epsilon)
            work[x + k] *= work[delta + k]
        _times_gamma(row, params, work, result + i * ld, n)
