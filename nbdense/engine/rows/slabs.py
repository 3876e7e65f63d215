"""The second half of a step: each slab's gradient, what is done to it, the optimizer's step, and the transpose."""

from __future__ import annotations

import math

import numpy as np

from nbdense._compile.policy import inlined, kernel
from nbdense.engine.elementwise.optimizer import NONE, may_pass, update
from nbdense.engine.kernels.microkernel import VECTOR_BYTES
from nbdense.engine.kernels.norms import norms
from nbdense.engine.kernels.product import owning_product
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
def _place_of(row, first, last):
    """Return the place in the parameter vector of what a slab, or a thread's rows of one, stand for: (low, high)."""
    ld_out = row["ld_out"]
    if first == BIAS:
        return row["bias"], row["bias"] + ld_out
    if first == GAMMA:
        return row["kernel"], row["kernel"] + ld_out
    if first == FACTORS:
        return row["kernel"], row["kernel"] + PAD
    return row["kernel"] + first * ld_out, row["kernel"] + last * ld_out


@inlined
def _sum_or_product(row, params, gradient, work, run, count, first, last, low, at, updates):
    """Compute a slab's gradient at ``at``, as a product of ``count`` rows of inputs with the deltas of outputs.

    Meanwhile the thread comes to own what its update is going to write and all threads have read.

    Rows that hardly fill a vector are multiplied the other way round if the step ``updates``, in the place of their
    transpose: nobody reads that before it is written anew. The sums are the same, bit by bit.
    """
    n_out, ld_in, ld_out, capacity = row["n_out"], row["ld_in"], row["ld_out"], run["batch"]
    inputs, deltas = row["input"] * capacity + first, run["deltas"] + row["output"] * capacity
    shares = run["threads"] > 1 and run["optimizer"] != NONE
    weights = (params, low if shares else np.int64(-1), ld_out)
    transposes = (work, np.int64(-1), ld_in)
    rows, columns, behind, narrow = last - first, n_out, np.int64(0), False
    g = (gradient, at, ld_out)
    if first < 0:  # a sum over rows, as a product with a row of ones
        rows = 1
        x = (work, run["one"], np.int64(0), np.int64(0))
        if first == GAMMA:
            deltas = row["pre"] * capacity
        d = (work, deltas, ld_out)
    elif updates and _is_narrow(row, work, rows):
        narrow, rows, columns = True, n_out, rows
        x, d = (work, deltas, np.int64(1), ld_out), (work, inputs, ld_in)
        g, weights = (work, _transpose_of(row, run, first), ld_in), transposes  # which are none: few lines, not owned
    else:
        behind = min(rows, row["n_in"] - last)  # the next slab's inputs, which others may have made
        x, d = (work, inputs, np.int64(1), ld_in), (work, deltas, ld_out)
        if shares and row["flags"] & NO_DELTA == 0:
            transposes = (work, _transpose_of(row, run, first), ld_in)
    zeros = (work, run["zeros"], np.int64(0))
    owning_product(rows, columns, count * row["positions"], x, d, zeros, g, behind, weights, transposes)
    if narrow:
        for j in range(n_out):
            for i in range(last - first):
                gradient[np.uint64(at + i * ld_out + j)] = work[np.uint64(g[1] + j * ld_in + i)]


@inlined
def _transpose_of(row, run, first):
    """Return where the transpose of a kernel's rows from ``first`` on begins, which are columns there."""
    return run["aside"] + row["transposed"] + first


@inlined
def _is_narrow(row, work, rows):
    """Tell whether rows' gradient is less work transposed: they are many, and hardly fill a vector."""
    lanes = VECTOR_BYTES // work.itemsize
    across, down = (row["n_out"] + lanes - 1) // lanes, (rows + lanes - 1) // lanes
    # Half as much at the least: tiles of few rows are slower, and what comes out has to be turned.
    return row["flags"] & NO_DELTA == 0 and 2 * row["n_out"] * down <= rows * across


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
def follow(run, row, vectors, first, last, low, high, iteration):
    """Bring up to date what follows a slab's weights: their moving average, and the copy that rows read rounded."""
    params, state, _, values = vectors
    if run["average"] >= 0.0:
        _average(params, state, low, high, run["average"] if iteration > 1 else 0.0)
    if run["rounds_kernels"]:
        if first >= 0 and row["scales"] >= 0:
            fake_quant.round_kernel(row, params, values, first, last)
        else:
            copied, of = stretch(values, low, high - low), stretch(params, low, high - low)
            for i in range(copied.size):
                copied[i] = of[i]


_adjust_slab = on_demand("adjust", adjust, globals())
_follow_slab = on_demand("follow", follow, globals())


@inlined
def _cut(row, slab, bound):
    """Return the row of a slab at which the parts of two threads meet, in elements ``bound``: whole blocks of rows."""
    if bound >= slab["ends"]:
        return slab["last"]
    blocks = (bound - slab["begins"] + row["ld_out"] * PAD // 2) // (row["ld_out"] * PAD)
    return min(slab["first"] + max(blocks, 0) * PAD, slab["last"])


@kernel
def work_on_slabs(tables, vectors, scratch, run, phase, settings, rates_of_step, batch, thread):
    """Work through one thread's slabs, an equal part of the call's elements: gradients, steps, transposes.

    A kernel's slab that lies in two threads' parts is cut, if it may be; another is the thread's in whose part its
    middle lies.
    """
    layers, slabs, segments, _ = tables
    begin, end = run["begin"], min(run["end"], slabs.size)
    if begin >= end:
        return
    begins = slabs[begin]["begins"]
    total = slabs[end - 1]["ends"] - begins
    least, most = begins + total * thread // run["threads"], begins + total * (thread + 1) // run["threads"]
    # Whether a slab's gradient is made, used and done with, and nothing is summed up over the slab.
    at_once = phase["flags"] == GRADIENT | CLIP | UPDATE and run["adjust"] == 0
    cuts = at_once or phase["kind"] == TRANSPOSES
    # Whether a thread writes one slab's gradient over another's of the same layer, which is still in the cache, and
    # whose padding lies in the same columns. Written each to its place, those of a large network would fetch that from
    # memory and go back there, in every step; the last step's are left for the user.
    passing = at_once and may_pass(run["optimizer"], run["optimizer_call"])
    passing = passing and rates_of_step[2] < run["iteration"] + run["steps"]
    room = (np.int64(-1), np.int64(0), np.int64(0))
    for index in range(begin, end):
        slab = slabs[index]
        row, first, last = layers[slab["layer"]], slab["first"], slab["last"]
        if cuts and first >= 0:
            first, last = _cut(row, slab, least), _cut(row, slab, most)
            if first >= last:
                continue
        elif not least <= (slab["begins"] + slab["ends"]) // 2 < most:
            continue
        if phase["kind"] == TRANSPOSES:
            _transpose(row, vectors[3], scratch[0], run, first, last)
        elif first == MOVING:
            if phase["flags"] & UPDATE:
                _move(row, vectors[0], scratch[0], run["aside"] + row["transposed"])
        elif segments[slab["segment"]]["trainable"]:
            low, high = _place_of(row, first, last)
            layer, size, place = room
            if not passing or slab["layer"] != layer or row["gradient"] != 0 or high - low > size:
                layer, size, place = slab["layer"], high - low, low
            room = (layer, size, place)
            piece = (index, first, last, low, high, place)
            _work_on_slab(row, slab, segments, vectors, scratch, run, phase, settings[0], rates_of_step, batch, piece)


@inlined
def _work_on_slab(row, slab, segments, vectors, scratch, run, phase, hyper, rates_of_step, batch, piece):
    """Take a slab, or a thread's rows of it, through a phase; ``piece`` says which these are, and their places."""
    params, state, _, values = vectors
    work, sums, flags = scratch[0], scratch[5], phase["flags"]
    rate, adjusted, iteration = rates_of_step
    index, first, last, low, high, place = piece
    if flags & GRADIENT:
        if row["gradient"] != 0:
            _gradient_of_kind(row, state[0], work, run, batch, slab, low)
        else:
            _sum_or_product(row, params, state[0], work, run, batch, first, last, low, place, flags & UPDATE != 0)
    rate_of_decay = 0.0 if first == FACTORS else rate
    _adjust_slab(run, segments[slab["segment"]], vectors, sums, flags, index, low, high, rate_of_decay)
    if flags & UPDATE:
        code, call = run["optimizer"], run["optimizer_call"]
        update(code, call, params, state, low, high, place, adjusted, iteration, hyper)
        _follow_slab(run, row, vectors, first, last, low, high, iteration)
        _transpose(row, values, work, run, first, last)


@kernel
def _transpose(row, values, work, run, first, last):
    """Bring the transpose of some rows of a kernel up to date, if backward reads it."""
    if first < 0 or row["flags"] & NO_DELTA:
        return
    source = (values, row["kernel"] + first * row["ld_out"], row["ld_out"])
    transpose(source, (work, _transpose_of(row, run, first), row["ld_in"]), last - first, row["n_out"])


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
