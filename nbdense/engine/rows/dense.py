"""Products with a kernel. They read the network's input where it lies, and `dispatch` calls them by name."""

from __future__ import annotations

import numpy as np

from nbdense._compile.policy import inlined
from nbdense.engine.elementwise.activations import RELU
from nbdense.engine.kernels.product import gated_product, product
from nbdense.engine.rows.activation import activated
from nbdense.engine.rows.kind import RowKind, register
from nbdense.engine.tables import ADD_DELTA, GATE_DELTA, NO_DELTA

DENSE = register(RowKind("dense", "Dense", tensors={"kernel": "kernel", "bias": "bias"}))


@inlined
def dense(row, params, x, work, capacity, span, linear, column, columns):
    """Columns ``column`` .. ``column + columns`` of a dense row's products, clamped as the epilogue does it."""
    first, count = span
    x_array, x_offset, x_row = x
    number = params.dtype.type
    ld_in, ld_out, positions = row["ld_in"], row["ld_out"], row["positions"]
    lower = number(-np.inf) if linear else number(row["lower"])
    upper = number(np.inf) if linear else number(row["upper"])
    if row["input"] == 0:
        a = (x_array, x_offset + first * positions * x_row, x_row, np.int64(1))
    else:
        a = (work, row["input"] * capacity + first * positions * ld_in, ld_in, np.int64(1))
    b = (params, row["kernel"] + column, ld_out)
    c = (work, row["pre"] * capacity + first * positions * ld_out + column, ld_out)
    start = (params, row["start"] + column, np.int64(0))
    product(count * positions, columns, row["n_in"], a, b, start, c, lower, upper)


@inlined
def finish_dense(row, work, capacity, span):
    """Apply the activation of a dense row: all but the clamps, which were done in the product."""
    if row["activation"] > RELU and row["lower"] == -np.inf and row["upper"] == np.inf:
        activated(row, row["pre"], work, capacity, span)


@inlined
def backward_dense(row, work, capacity, span, deltas, aside, zeros):
    """Make the deltas of a dense row's input by the kernel's transpose, through the gate of a relu before it."""
    if row["flags"] & NO_DELTA == 0:
        first, count = span
        positions, ld, ld_out = row["positions"], row["ld_in"], row["ld_out"]
        source = row["input"] * capacity + first * positions * ld
        output = row["output"] * capacity + first * positions * ld_out
        target = (work, deltas + source, ld)
        before = target if row["flags"] & ADD_DELTA else (work, zeros, np.int64(0))
        gate = (work, source, ld) if row["flags"] & GATE_DELTA else (work, np.int64(-1), np.int64(0))
        d = (work, deltas + output, ld_out, np.int64(1))
        kernel_t = (work, aside + row["transposed"], ld)
        gated_product(count * positions, row["n_in"], row["n_out"], d, kernel_t, before, target, gate)
