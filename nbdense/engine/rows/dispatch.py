"""Take a thread's rows of data through any kind of row: forward, and backward with its deltas.

Offsets in the workspace follow from a row's buffers: buffer b of a batch of ``capacity`` rows of data starts at
b * capacity, and its deltas lie ``deltas`` further on. ``span`` is a thread's share, (first, count) in rows of data.
Every kernel leaves the padding of what it writes zero where zeros came in.

Kinds of row are modules beside this one; a row has the addresses of its kind's functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nbdense._compile.policy import inlined
from nbdense.engine.elementwise.activation_loops import differentiate, hand_over
from nbdense.engine.on_demand import address_of, on_demand
from nbdense.engine.rows.activation import activated
from nbdense.engine.rows.dense import DENSE, backward_dense, dense, finish_dense
from nbdense.engine.rows.kind import by_kind
from nbdense.engine.tables import ADD_DELTA, ADD_DELTA_2, DELTA_GATED, IDLE, NO_DELTA, NO_DELTA_2

_DENSE = DENSE.code

_forward = by_kind("forward", globals())
_backward = by_kind(
    "backward",
    globals(),
    otherwise="deltas + row['output'] * capacity + span[0] * row['positions_out'] * row['ld_out']",
)
column_statistics = by_kind("statistics", globals())
column_sums = by_kind("sums", globals())
_differentiate = on_demand("differentiate", differentiate, globals(), record="row")


@inlined
def forward_row(row, params, x, work, capacity, span, linear, aside, noise):
    """Take one share of the rows of data forward through one row of the table.

    ``x`` is the operand of the network's input; ``linear`` leaves the activation out, because the loss takes its
    place; ``aside`` is where transposes and statistics begin; ``noise`` is the step's key for dropout.
    """
    if row["kind"] == _DENSE:
        dense(row, params, x, work, capacity, span, linear, np.int64(0), row["n_out"])
        if not linear:
            finish_dense(row, work, capacity, span)
        return
    _forward(row, params, work, capacity, span, aside, noise)
    if row["activation"] > 0 and not linear:
        activated(row, row["output"], work, capacity, span)


@inlined
def backward_row(row, params, work, capacity, span, linear, deltas, aside, zeros, batch):
    """Compute the deltas of a row's inputs from those of its output; ``batch`` is the batch's rows of data."""
    if row["flags"] & IDLE:
        return
    first, count = span
    if row["activation"] > 0 and not linear and row["flags"] & DELTA_GATED == 0:
        start = first * row["positions_out"] * row["ld_out"]
        output, pre = row["output"] * capacity + start, row["pre"] * capacity + start
        _differentiate(row, work, pre, output, deltas + output, count * row["positions_out"])
    if row["kind"] == _DENSE:
        backward_dense(row, work, capacity, span, deltas, aside, zeros)
        return
    d = _backward(row, params, work, capacity, span, deltas, aside, batch)
    if d < 0:
        return
    width = row["positions"] * row["ld_in"]
    start, size = first * width, count * width
    if row["flags"] & NO_DELTA == 0:
        hand_over(work, d, deltas + row["input"] * capacity + start, size, row["flags"] & ADD_DELTA)
    if row["second"] >= 0 and row["flags"] & NO_DELTA_2 == 0:
        hand_over(work, d, deltas + row["second"] * capacity + start, size, row["flags"] & ADD_DELTA_2)


def set_derivatives(layers: Any, dtype: Any, fused: bool) -> None:
    """Write to rows of a table where the derivatives of their activations are, if backward is to call any.

    Relu's are mostly the gate of a product; the last row's are the loss's where that is ``fused`` with it. An address
    stays in a table, whose other runs may want it.
    """
    wants = (layers["activation"] > 0) & (layers["flags"] & (DELTA_GATED | IDLE) == 0)
    wants[-1] &= not fused
    if wants.any():
        layers["differentiate"][wants] = address_of(differentiate, dtype)
