"""The second half of a step: each slab's gradient, what is done to it, the optimizer's step, and the transpose."""

from __future__ import annotations

import math

import numpy as np

from nbdense._compile.policy import inlined, kernel
from nbdense.engine.elementwise.optimizer import NONE, may_pass, update
from nbdense.engine.kernels.microkernel import VECTOR_BYTES
from nbdense.engine.kernels.norms import norms
from nbdense.engine.kernels.product import owning_product, product
from nbdense.engine.kernels.transpose import transpose
from nbdense.engine.kernels.views import stretch
from nbdense.engine.on_demand import on_demand
from nbdense.engine.rows import fake_quant
from nbdense.engine.rows.kind import by_kind
from nbdense.engine.tables import (
    BIAS,
    CLIP,
    CLIP_GLOBAL_NORM,
    CLIP_NORM,
    CLIP_VALUE,
    FACTORS,
    GAMMA,
    GRADIENT,
    MOVING,
    NO_CLIP,
    NO_DELTA,
    PAD,
    TRANSPOSES,
    UPDATE,
)


@inlined
def _slab_range(row, slab):
    """Return a slab's place in the parameter vector: (low, high)."""
    ld_out = row["ld_out"]
    if slab["first"] == BIAS:
        return row["bias"], row["bias"] + ld_out
    if slab["first"] == GAMMA:
        return row["kernel"], row["kernel"] + ld_out
    if slab["first"] == FACTORS:
        return row["kernel"], row["kernel"] + PAD
    return row["kernel"] + slab["first"] * ld_out, row["kernel"] + slab["last"] * ld_out


@inlined
def _sum_or_product(row, params, gradient, work, run, count, slab, low, at):
    """Compute a slab's gradient at ``at``, as a product of ``count`` rows of inputs with the deltas of outputs.

    Meanwhile the thread comes to own what its update is going to write and all threads have read.
    """
    n_out, ld_in, ld_out, capacity = row["n_out"], row["ld_in"], row["ld_out"], run["batch"]
    deltas = run["deltas"] + row["output"] * capacity
    shares = run["threads"] > 1 and run["optimizer"] != NONE
    weights = (params, low if shares else np.int64(-1), ld_out)
    transposes = (work, np.int64(-1), ld_in)
    behind = 0
    if slab["first"] < 0:  # a sum over rows, as a product with a row of ones
        rows = 1
        x = (work, run["one"], np.int64(0), np.int64(0))
        if slab["first"] == GAMMA:
            deltas = row["pre"] * capacity
    else:
        rows = slab["last"] - slab["first"]
        behind = min(rows, row["n_in"] - slab["last"])  # the next slab's inputs, which others may have made
        x = (work, row["input"] * capacity + slab["first"], np.int64(1), ld_in)
        if shares and row["flags"] & NO_DELTA == 0:
            transposes = (work, _transpose_of(row, run, slab), ld_in)
    d, zeros, g = (work, deltas, ld_out), (work, run["zeros"], np.int64(0)), (gradient, at, ld_out)
    owning_product(rows, n_out, count * row["positions"], x, d, zeros, g, behind, weights, transposes)


@inlined
def _transpose_of(row, run, slab):
    """Return where the transpose of a slab begins, whose rows are columns of the kernel's."""
    return run["aside"] + row["transposed"] + slab["first"]


@inlined
def _is_narrow(row, slab, work):
    """Tell whether a slab's gradient is less work transposed: its rows are many, and hardly fill a vector."""
    lanes = VECTOR_BYTES // work.itemsize
    rows, n_out = slab["last"] - slab["first"], row["n_out"]
    across, down = (n_out + lanes - 1) // lanes, (rows + lanes - 1) // lanes
    # Half as much at the least: tiles of few rows are slower, and what comes out has to be turned.
    return slab["first"] >= 0 and row["flags"] & NO_DELTA == 0 and 2 * n_out * down <= rows * across


@kernel
def _narrow_product(row, gradient, work, run, count, slab, at):
    """Compute the gradient of a slab of few columns as `_sum_or_product` does, its transpose in the kernel's place.

    That one is read by nobody until it is written anew, behind the slab's update. The sums are the same, bit by bit.
    """
    rows, n_out, ld_in, ld_out = slab["last"] - slab["first"], row["n_out"], row["ld_in"], row["ld_out"]
    aside = _transpose_of(row, run, slab)
    d = (work, run["deltas"] + row["output"] * run["batch"], np.int64(1), ld_out)
    x = (work, row["input"] * run["batch"] + slab["first"], ld_in)
    zeros, turned, infinity = (work, run["zeros"], np.int64(0)), (work, aside, ld_in), work.dtype.type(np.inf)
    product(n_out, rows, count * row["positions"], d, x, zeros, turned, -infinity, infinity)
    for j in range(n_out):
        for i in range(rows):
            gradient[np.uint64(at + i * ld_out + j)] = work[np.uint64(aside + j * ld_in + i)]


_gradient_of_kind = by_kind("gradient", globals())
_move = by_kind("move", globals())


# The loops below run over slices, from 0: an index that might be negative would keep them from becoming vectors.


@kernel
def _penalise(segment, params, gradients, sums, index, low, high):
    """Add the slope of the penalties to a slab's gradient; their share of the loss goes into the sums."""
    number = params.dtype.type
    l1, l2 = segment["l1"], segment["l2"]
    sums[index, 0] = 0.0
    if l1 != 0.0 or l2 != 0.0:
        sizes, squares = norms(params, low, high)
        sums[index, 0] = (l1 * sizes if l1 != 0.0 else 0.0) + (l2 * squares if l2 != 0.0 else 0.0)
        slope, twice, zero = number(l1), number(2.0 * l2), number(0.0)
        weights, gradient = stretch(params, low, high - low), stretch(gradients, low, high - low)
        for i in range(gradient.size):
            w = weights[i]
            sign = slope if w > zero else (-slope if w < zero else zero)
            gradient[i] += sign + twice * w


@kernel
def _hold(gradients, mask, low, high):
    """Zero the gradient of what the mask holds at zero."""
    gradient, kept = stretch(gradients, low, high - low), stretch(mask, low, high - low)
    for i in range(gradient.size):
        gradient[i] *= kept[i]


@kernel
def _clip(gradients, sums, run, index, low, high):
    """Clip a slab's gradient by value, or sum up the squares that clipping by a norm needs of all slabs."""
    if run["clip"] == CLIP_VALUE:
        gradient = stretch(gradients, low, high - low)
        most = gradients.dtype.type(run["clip_at"])
        for i in range(gradient.size):
            value = most if gradient[i] > most else gradient[i]
            gradient[i] = -most if value < -most else value
    else:
        sums[index, 1] = norms(gradients, low, high)[1]


@kernel
def _scale_and_decay(params, gradients, low, high, factor, decay):
    """Multiply the gradient by clipping's factor, and take a share ``decay`` off the weights.

    That is taken off, not multiplied by 1 - decay: near 1 that would round a small decay to another, or to none.
    """
    number = params.dtype.type
    if factor != 1.0:
        scale, gradient = number(factor), stretch(gradients, low, high - low)
        for i in range(gradient.size):
            gradient[i] *= scale
    if decay != 0.0:
        take, weights = number(decay), stretch(params, low, high - low)
        for i in range(weights.size):
            weights[i] -= weights[i] * take


@kernel
def adjust(run, segment, vectors, sums, flags, index, low, high, rate):
    """Do all that comes between a slab's gradient and the optimizer's step: penalties, mask, clipping, decay.

    ``rate`` is the learning rate by which weights decay.
    """
    params, state, mask, _ = vectors
    gradient = state[0]
    if flags & GRADIENT and run["penalties"]:
        _penalise(segment, params, gradient, sums, index, low, high)
    if flags & (GRADIENT | CLIP) and mask.size > 0:
        _hold(gradient, mask, low, high)
    if flags & CLIP and run["clip"] != NO_CLIP:
        _clip(gradient, sums, run, index, low, high)
    if flags & UPDATE:
        factor = sums[index, 1] if run["clip"] >= CLIP_NORM else 1.0
        _scale_and_decay(params, gradient, low, high, factor, rate * run["decay"] * segment["decay"])


@kernel
def _average(params, state, low, high, momentum):
    """Update the moving average of the weights, in the last slot."""
    number = params.dtype.type
    average, weights = state[state.shape[0] - 1, low:high], stretch(params, low, high - low)
    keep = number(momentum)
    take = number(1.0) - keep
    for i in range(weights.size):
        average[i] = keep * average[i] + take * weights[i]


@kernel
def follow(run, row, slab, vectors, low, high, iteration):
    """Bring up to date what follows a slab's weights: their moving average, and the copy that rows read rounded."""
    params, state, _, values = vectors
    if run["average"] >= 0.0:
        _average(params, state, low, high, run["average"] if iteration > 1 else 0.0)
    if run["rounds_kernels"]:
        if slab["first"] >= 0 and row["scales"] >= 0:
            fake_quant.round_kernel(row, params, values, slab["first"], slab["last"])
        else:
            copied, of = stretch(values, low, high - low), stretch(params, low, high - low)
            for i in range(copied.size):
                copied[i] = of[i]


_adjust_slab = on_demand("adjust", adjust, globals())
_follow_slab = on_demand("follow", follow, globals())


@inlined
def _gradients_pass(run, flags, iteration):
    """Tell whether a slab's gradient is needed for its step alone: all is done at once, and not in the last step.

    Then a thread writes one slab's over another's of the same layer, which is still in the cache, and whose padding
    lies in the same columns. Written each to its place, those of a large network would fetch that from memory and go
    back there, in every step.
    """
    at_once = flags == GRADIENT | CLIP | UPDATE and run["adjust"] == 0
    return at_once and may_pass(run["optimizer"], run["optimizer_call"]) and iteration < run["iteration"] + run["steps"]


@kernel
def work_on_slabs(tables, vectors, scratch, run, phase, settings, rates_of_step, batch, thread):
    """Work through one thread's slabs, an equal part of the call's elements: gradients, steps, transposes.

    A slab is the thread's in whose part its middle lies.
    """
    layers, slabs, segments, _ = tables
    begin, end = run["begin"], min(run["end"], slabs.size)
    if begin >= end:
        return
    params, state, _, values = vectors
    work, sums = scratch[0], scratch[5]
    hyper, _ = settings
    rate, adjusted, iteration = rates_of_step
    flags = phase["flags"]
    updates = flags & UPDATE != 0
    passing, layer, room, place = _gradients_pass(run, flags, iteration), -1, 0, 0
    begins = slabs[begin]["begins"]
    total = slabs[end - 1]["ends"] - begins
    least, most = begins + total * thread // run["threads"], begins + total * (thread + 1) // run["threads"]
    for index in range(begin, end):
        slab = slabs[index]
        if not least <= (slab["begins"] + slab["ends"]) // 2 < most:
            continue
        row, segment = layers[slab["layer"]], segments[slab["segment"]]
        if phase["kind"] == TRANSPOSES:
            _transpose(row, values, work, run, slab)
        elif slab["first"] == MOVING:
            if updates:
                _move(row, params, work, run["aside"] + row["transposed"])
        elif segment["trainable"]:
            low, high = _slab_range(row, slab)
            if not passing or slab["layer"] != layer or row["gradient"] != 0 or high - low > room:
                layer, room, place = slab["layer"], high - low, low
            if flags & GRADIENT:
                if row["gradient"] != 0:
                    _gradient_of_kind(row, state[0], work, run, batch, slab, low)
                elif updates and _is_narrow(row, slab, work):
                    _narrow_product(row, state[0], work, run, batch, slab, place)
                else:
                    _sum_or_product(row, params, state[0], work, run, batch, slab, low, place)
            _adjust_slab(
                run, segment, vectors, sums, flags, index, low, high, 0.0 if slab["first"] == FACTORS else rate
            )
            if updates:
                code, call = run["optimizer"], run["optimizer_call"]
                update(code, call, params, state, low, high, place, adjusted, iteration, hyper)
                _follow_slab(run, row, slab, vectors, low, high, iteration)
                _transpose(row, values, work, run, slab)


@kernel
def _transpose(row, values, work, run, slab):
    """Bring the transpose of one slab of a kernel up to date, if backward reads it."""
    if slab["first"] < 0 or row["flags"] & NO_DELTA:
        return
    source = (values, row["kernel"] + slab["first"] * row["ld_out"], row["ld_out"])
    target = (work, _transpose_of(row, run, slab), row["ld_in"])
    transpose(source, target, slab["last"] - slab["first"], row["n_out"])


@kernel
def set_factors(run, slabs, segments, sums):
    """Set what each slab's gradient is to be multiplied by, from the slabs' sums of squares."""
    if run["clip"] == CLIP_GLOBAL_NORM:
        total = 0.0
        for index in range(slabs.size):
            if segments[slabs[index]["segment"]]["trainable"]:
                total += sums[index, 1]
        factor = _factor(total, run["clip_at"])
        for index in range(slabs.size):
            sums[index, 1] = factor
        return
    first = 0
    while first < slabs.size:  # a segment's slabs are side by side
        end, total = first, 0.0
        while end < slabs.size and slabs[end]["segment"] == slabs[first]["segment"]:
            total += sums[end, 1]
            end += 1
        for index in range(first, end):
            sums[index, 1] = _factor(total, run["clip_at"])
        first = end


@kernel
def _factor(squares, most):
    size = math.sqrt(squares)
    return most / size if size > most else 1.0
