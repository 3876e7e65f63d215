"""Losses and metrics of a batch's rows, and the deltas that the losses start.

``places`` are the offsets of a batch's matrices in the workspace: (outputs, targets, deltas, weights, room); weights
are a number a row, and room is space for one. ``shape`` is (rows, outputs, ld, ld_target, batch size), ``form`` (code,
parameter, sparse, address of the loop of a loss on demand). Each loss writes one number a row to ``losses``, ``stride``
apart, times the row's weight, and to the deltas the derivative of that number over the batch size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nbdense._compile.policy import kernel
from nbdense.engine.elementwise.activation_loops import copy_block, exponentials
from nbdense.engine.elementwise.custom import call_loop
from nbdense.engine.elementwise.elementary import log
from nbdense.engine.elementwise.loss_forms import (
    CUSTOM_SUM,
    FORMS,
    MEAN_SQUARED_ERROR,
    SOFTMAX_CROSSENTROPY,
    SOFTMAX_CROSSENTROPY_OF_OUTPUTS,
    target_of,
)
from nbdense.engine.elementwise.row_sums import normalise_row, shift_row

_squared, _squared_slope = FORMS["mean_squared_error"].value, FORMS["mean_squared_error"].derivative


@kernel
def _squared_error(work, y, t, d, n, scale):
    # Two loops over numbers, each of which the compiler vectorises: it would not if one of them had a sum in it.
    y, t, d, total = np.uint64(y), np.uint64(t), np.uint64(d), 0.0
    for j in range(n):
        k = np.uint64(j)
        work[d + k] = _squared(work[y + k], work[t + k], 0.0)
    for j in range(n):
        total += work[d + np.uint64(j)]
    for j in range(n):
        k = np.uint64(j)
        work[d + k] = _squared_slope(work[y + k], work[t + k], 0.0) * scale
    return total


@kernel
def _softmax_crossentropy(work, places, shape, sparse, smoothing, losses, stride):
    """Compute (sum t) log-sum-exp - sum t z from logits ``y``, and leave their softmax in their place.

    In passes over all rows, so that exp and log run over long vectors.
    """
    number = work.dtype.type
    y, t, d, weights, room = places
    count, n, ld, ld_target, batch = shape
    for i in range(count):
        shift_row(work, y + i * ld, n)
        losses[i * stride] = -_chosen(work, y + i * ld, t + i * ld_target, n, sparse, smoothing)
    exponentials(work, y, ld, count, n)
    for i in range(count):
        at, delta = np.uint64(y + i * ld), np.uint64(d + i * ld)
        work[np.uint64(room + i)] = normalise_row(work, y + i * ld, n)
        scale = work[np.uint64(weights + i)] / number(batch)
        weight = _target_sum(work, t + i * ld_target, n, sparse, smoothing) * scale
        for j in range(n):
            work[delta + np.uint64(j)] = work[at + np.uint64(j)] * weight
        _subtract_targets(work, delta, t + i * ld_target, n, sparse, smoothing, scale)
    for i in range(count):
        k = np.uint64(room + i)
        work[k] = log(work[k])
    for i in range(count):
        weight = _target_sum(work, t + i * ld_target, n, sparse, smoothing)
        losses[i * stride] += weight * work[np.uint64(room + i)]


@kernel
def _chosen(work, z, t, n, sparse, smoothing):
    """Return a row's sum of t z, in which 0 times an infinite logit is 0."""
    number = work.dtype.type
    if sparse and smoothing == 0.0:
        return work[np.uint64(z + int(work[np.uint64(t)]))]
    total = number(0.0)
    for j in range(n):
        target = target_of(work, t, j, n, sparse, smoothing)
        total += target * work[np.uint64(z + j)] if target != number(0.0) else number(0.0)
    return total


@kernel
def _target_sum(work, t, n, sparse, smoothing):
    number = work.dtype.type
    if sparse:
        return number(1.0)
    total = number(0.0)
    for j in range(n):
        total += target_of(work, t, j, n, sparse, smoothing)
    return total


@kernel
def _subtract_targets(work, delta, t, n, sparse, smoothing, scale):
    if sparse and smoothing == 0.0:
        work[delta + np.uint64(int(work[np.uint64(t)]))] -= scale
        return
    for j in range(n):
        work[delta + np.uint64(j)] -= target_of(work, t, j, n, sparse, smoothing) * scale


@kernel
def _weigh(work, weights, count, losses, stride):
    for i in range(count):
        losses[i * stride] *= float(work[np.uint64(weights + i)])


@kernel
def softmax_crossentropies(form, work, places, shape, losses, stride):
    """Compute softmax cross-entropies, which turn logits into probabilities where they stand, or in the deltas."""
    code, parameter, sparse, _ = form
    y, t, d, weights, room = places
    z = y
    if code == SOFTMAX_CROSSENTROPY_OF_OUTPUTS:
        z = d
        copy_block(work, y, d, shape[0] * shape[2])
    _softmax_crossentropy(work, (z, t, d, weights, room), shape, sparse, parameter, losses, stride)
    _weigh(work, weights, shape[0], losses, stride)


@kernel
def losses_row_by_row(form, work, places, shape, losses, stride):
    """Compute the losses that are a number of each row by itself: the squared error, and those on demand."""
    number = work.dtype.type
    code, parameter, sparse, call = form
    y, t, d, weights, _ = places
    count, n, ld, ld_target, batch = shape
    columns = 1 if code == CUSTOM_SUM else n  # that the loss is a mean over
    for i in range(count):
        at, target, delta = y + i * ld, t + i * ld_target, d + i * ld
        scale = work[np.uint64(weights + i)] / number(batch) / number(columns)
        if code == MEAN_SQUARED_ERROR:
            loss = _squared_error(work, at, target, delta, n, scale) / columns
        else:
            of_classes = 1.0 if sparse else 0.0
            loss = call_loop(call, work, at, target, delta, n, float(scale), parameter, of_classes) / columns
        losses[i * stride] = loss
    _weigh(work, weights, count, losses, stride)


@kernel
def losses_of_rows(form, work, places, shape, losses, stride):
    """Compute the weighted losses of some rows, and their derivatives, by the kernel of their form."""
    if form[0] == SOFTMAX_CROSSENTROPY or form[0] == SOFTMAX_CROSSENTROPY_OF_OUTPUTS:
        softmax_crossentropies(form, work, places, shape, losses, stride)
    else:
        losses_row_by_row(form, work, places, shape, losses, stride)


KERNELS = (softmax_crossentropies, losses_row_by_row)  # one of which is compiled for a run


def kernel_of(code: int) -> Any:
    """Return the kernel that computes losses of a form's code."""
    return KERNELS[code not in (SOFTMAX_CROSSENTROPY, SOFTMAX_CROSSENTROPY_OF_OUTPUTS)]


# Metrics that are a mean over rows; nbdense.metrics has their names. What COLLECTED stands for is computed there.
BINARY_ACCURACY, CATEGORICAL_ACCURACY, SPARSE_CATEGORICAL_ACCURACY, SQUARED_ERROR, ABSOLUTE_ERROR, COLLECTED = range(6)
TOP_K, SPARSE_TOP_K = 1 << 32, 1 << 33  # and k is added: the code carries it


@kernel
def _largest(work, at, n):
    best = 0
    for j in range(1, n):
        if work[np.uint64(at + j)] > work[np.uint64(at + best)]:
            best = j
    return best


@kernel
def _in_top(work, y, chosen, n, k):
    """Tell whether fewer than k outputs are larger than the chosen one: Keras's way with ties; NaN is in no top."""
    mine = work[np.uint64(y + chosen)]
    if np.isnan(mine):
        return 0.0
    larger = 0
    for j in range(n):
        if work[np.uint64(y + j)] > mine:
            larger += 1
    return 1.0 if larger < k else 0.0


@kernel
def metric_of_row(code, work, y, t, n):
    """Return one metric of one row's outputs and targets."""
    if code >= SPARSE_TOP_K:
        return _in_top(work, y, int(work[np.uint64(t)]), n, code - SPARSE_TOP_K)
    if code >= TOP_K:
        return _in_top(work, y, _largest(work, t, n), n, code - TOP_K)
    if code == COLLECTED:
        return 0.0
    if code == CATEGORICAL_ACCURACY:
        return 1.0 if _largest(work, y, n) == _largest(work, t, n) else 0.0
    if code == SPARSE_CATEGORICAL_ACCURACY:
        return 1.0 if _largest(work, y, n) == int(work[np.uint64(t)]) else 0.0
    total = 0.0
    for j in range(n):
        output, target = float(work[np.uint64(y + j)]), float(work[np.uint64(t + j)])
        if code == BINARY_ACCURACY:
            total += 1.0 if (output > 0.5) == (target > 0.5) else 0.0
        elif code == SQUARED_ERROR:
            total += (output - target) * (output - target)
        else:
            total += abs(output - target)
    return total / n
