"""Take a thread's rows of data through any kind of row: forward, and backward with its deltas.

Offsets in the workspace follow from a row's buffers: buffer b of a batch of ``capacity`` rows of data starts at
b * capacity, and its deltas lie ``deltas`` further on. ``span`` is a thread's share, (first, count) in rows of data.
Every kernel leaves the padding of what it writes zero where zeros came in.
"""

from __future__ import annotations

import numpy as np

from nbdense._compile.policy import inlined, kernel
from nbdense.engine.elementwise.activation_loops import activate_row, clear_padding, copy_block, differentiate
from nbdense.engine.elementwise.activations import RELU
from nbdense.engine.kernels.microkernel import gated_product, product
from nbdense.engine.kernels.random import dropout_mask
from nbdense.engine.rows import fake_quant, norm
from nbdense.engine.tables import (
    ACTIVATION,
    ADD,
    ADD_DELTA,
    ADD_DELTA_2,
    BATCH_NORM,
    DELTA_GATED,
    DENSE,
    DROPOUT,
    FAKE_QUANT,
    FROZEN_NORM,
    GATE_DELTA,
    IDLE,
    LAYER_NORM,
    NO_DELTA,
    NO_DELTA_2,
    RESHAPE,
)


@inlined
def dense(row, params, x, work, capacity, span, linear, column, columns):
    """Compute columns ``column`` .. ``column + columns`` of a dense row's products, clamped as they are stored."""
    first, count = span
    x_array, x_offset, x_row = x
    number = params.dtype.type
    ld_in, ld_out, positions = row["ld_in"], row["ld_out"], row["positions"]
    lower = number(-np.inf) if linear else number(row["lower"])
    upper = number(np.inf) if linear else number(row["upper"])
    if row["input"] == 0:
        a = (x_array, x_offset + first * positions * x_row, x_row, 1)
    else:
        a = (work, row["input"] * capacity + first * positions * ld_in, ld_in, 1)
    b = (params, row["kernel"] + column, ld_out)
    c = (work, row["pre"] * capacity + first * positions * ld_out + column, ld_out)
    start = (params, row["start"] + column, 0)
    product(count * positions, columns, row["n_in"], a, b, start, c, lower, upper)


@inlined
def finish_dense(row, work, capacity, span):
    """Apply the activation of a dense row: all but the clamps, which were done in the product."""
    if row["activation"] > RELU and row["lower"] == -np.inf and row["upper"] == np.inf:
        _activated(row, row["pre"], work, capacity, span)


@kernel
def _activated(row, source, work, capacity, span):
    first, count = span
    positions, ld = row["positions"], row["ld_out"]
    m, start = count * positions, first * positions * ld
    source, output = source * capacity + start, row["output"] * capacity + start
    if source != output:
        copy_block(work, source, output, m * ld)
    activate_row(row, work, output, m)


@inlined
def forward_row(row, params, x, work, capacity, span, linear, aside, noise):
    """Take one share of the rows of data forward through one row of the table.

    ``x`` is the operand of the network's input; ``linear`` leaves the activation out, because the loss takes its
    place; ``aside`` is where transposes and statistics begin; ``noise`` is the step's key for dropout.
    """
    if row["kind"] == DENSE:
        dense(row, params, x, work, capacity, span, linear, 0, row["n_out"])
        if not linear:
            finish_dense(row, work, capacity, span)
        return
    first, count = span
    kind, positions, n, ld = row["kind"], row["positions"], row["n_in"], row["ld_in"]
    m, start = count * positions, first * positions * ld
    source, output, pre = (
        row["input"] * capacity + start,
        row["output"] * capacity + start,
        row["pre"] * capacity + start,
    )
    if kind == ACTIVATION:
        if linear:
            copy_block(work, source, output, m * ld)
        else:
            _activated(row, row["input"], work, capacity, span)
    elif kind == ADD:
        copy_block(work, source, output, m * ld)
        _accumulate(work, row["second"] * capacity + start, output, m * ld)
    elif kind == RESHAPE:
        _flatten(row, work, row["input"] * capacity, row["output"] * capacity, span)
    elif kind == DROPOUT:
        dropout_mask(noise, row["number"], row["rate"], first * positions, m, n, work, pre, ld)
        _multiplied(work, source, pre, output, m * ld)
    elif kind == LAYER_NORM:
        norm.forward_layer(row, params, work, source, pre, output, m)
    elif kind == BATCH_NORM:
        norm.forward_batch(row, params, work, aside + row["transposed"], source, pre, output, m)
    elif kind == FROZEN_NORM:
        norm.forward_frozen(row, params, work, source, pre, output, m)
    elif kind == FAKE_QUANT:
        fake_quant.forward(row, params, work, source, output, m)


@inlined
def backward_row(row, params, work, capacity, span, linear, deltas, aside, zeros, batch):
    """Compute the deltas of a row's inputs from those of its output; ``batch`` is the batch's rows of data."""
    if row["flags"] & IDLE:
        return
    first, count = span
    kind, positions, n, ld = row["kind"], row["positions"], row["n_in"], row["ld_in"]
    ld_out = row["ld_out"]
    m, start = count * positions, first * positions * ld
    source = row["input"] * capacity + start
    output = row["output"] * capacity + first * row["positions_out"] * ld_out
    if row["activation"] > 0 and not linear and row["flags"] & DELTA_GATED == 0:
        pre = row["pre"] * capacity + first * positions * ld_out
        differentiate(row, work, pre, output, deltas + output, m)
    if kind == DENSE:
        if row["flags"] & NO_DELTA == 0:
            target = (work, deltas + source, ld)
            before = target if row["flags"] & ADD_DELTA else (work, zeros, 0)
            gate = (work, source, ld) if row["flags"] & GATE_DELTA else (work, -1, 0)
            d = (work, deltas + output, ld_out, 1)
            kernel_t = (work, aside + row["transposed"], ld)
            gated_product(m, n, row["n_out"], d, kernel_t, before, target, gate)
        return
    d, target, pre = deltas + output, deltas + source, row["pre"] * capacity + start
    # What a row passes on is made where the output's deltas are, or, where slabs read these, beside them at ``pre``.
    if kind == LAYER_NORM:
        norm.backward_layer(row, params, work, source, pre, d, deltas + pre, m)
        d = deltas + pre
    elif kind == FROZEN_NORM:
        norm.backward_frozen(row, params, work, pre, d, deltas + pre, m)
        d = deltas + pre
    elif kind == BATCH_NORM:
        if row["flags"] & NO_DELTA == 0:
            norm.backward_batch(row, params, work, aside + row["transposed"], pre, d, m, batch * positions)
    elif kind == DROPOUT:
        _multiply(work, pre, d, m * ld)
    elif kind == FAKE_QUANT:
        fake_quant.backward(row, params, work, source, d, row["pre"] * capacity, first * positions, m)
    if kind == RESHAPE:
        if row["flags"] & NO_DELTA == 0:
            _unflatten(row, work, deltas + row["input"] * capacity, deltas + row["output"] * capacity, span)
        return
    if row["flags"] & NO_DELTA == 0:
        _hand_over(work, d, target, m * ld, row["flags"] & ADD_DELTA)
    if kind == ADD and row["flags"] & NO_DELTA_2 == 0:
        second = deltas + row["second"] * capacity + start
        _hand_over(work, d, second, m * ld, row["flags"] & ADD_DELTA_2)


@kernel
def _hand_over(work, source, target, size, adds):
    if adds:
        _accumulate(work, source, target, size)
    else:
        copy_block(work, source, target, size)


@kernel
def _accumulate(work, source, target, size):
    s, t = np.uint64(source), np.uint64(target)
    for j in range(size):
        k = np.uint64(j)
        work[t + k] += work[s + k]


@kernel
def _multiply(work, source, target, size):
    s, t = np.uint64(source), np.uint64(target)
    for j in range(size):
        k = np.uint64(j)
        work[t + k] *= work[s + k]


@kernel
def _multiplied(work, source, factor, target, size):
    """Multiply elementwise; what a zero multiplies is left out, so that dropout stops an infinity."""
    s, f, t = np.uint64(source), np.uint64(factor), np.uint64(target)
    zero = work.dtype.type(0.0)
    for j in range(size):
        k = np.uint64(j)
        work[t + k] = work[s + k] * work[f + k] if work[f + k] != zero else zero


@kernel
def _flatten(row, work, source, target, span):
    """Lay the positions of each row of data end to end, without the padding between them."""
    first, count = span
    positions, n, ld_in, ld_out = row["positions"], row["n_in"], row["ld_in"], row["ld_out"]
    for i in range(first, first + count):
        for p in range(positions):
            copy_block(work, source + (i * positions + p) * ld_in, target + i * ld_out + p * n, n)
    clear_padding(work, target + first * ld_out, ld_out, count, row["n_out"])


@kernel
def _unflatten(row, work, target, source, span):
    first, count = span
    positions, n, ld_in, ld_out = row["positions"], row["n_in"], row["ld_in"], row["ld_out"]
    for i in range(first, first + count):
        for p in range(positions):
            at, d = target + (i * positions + p) * ld_in, source + i * ld_out + p * n
            _hand_over(work, d, at, n, row["flags"] & ADD_DELTA)
            if row["flags"] & ADD_DELTA == 0:
                clear_padding(work, at, ld_in, 1, n)
