"""Penalties on activities: what passes through is unchanged, and adds l1 sum |a| + l2 sum a^2 to the loss of the batch.

That sum is over the batch's rows of data, and divided by their number, as Keras does it.
"""

from __future__ import annotations

import numpy as np

from nbdense._compile.policy import kernel
from nbdense.engine.kernels.norms import norms
from nbdense.engine.rows.activation import ACTIVATION
from nbdense.engine.rows.kind import RowKind, buffers, register

_L1, _L2 = "alpha", "rate"  # the row's columns


@kernel
def _backward(row, params, work, capacity, span, deltas, aside, batch):
    """Add the penalty's slope to the deltas of the output."""
    number = work.dtype.type
    m, source, _, output = buffers(row, capacity, span)
    d = deltas + output
    slope, twice, zero = number(row[_L1] / batch), number(2.0 * row[_L2] / batch), number(0.0)
    s, t = np.uint64(source), np.uint64(d)
    for j in range(m * row["ld_in"]):
        k = np.uint64(j)
        a = work[s + k]
        sign = slope if a > zero else (-slope if a < zero else zero)
        work[t + k] += sign + twice * a
    return d


ACTIVITY = register(
    RowKind(
        "activity",
        "ActivityRegularization",
        "activity_regularization",
        settings={"l1": _L1, "l2": _L2},
        keeps_format=True,
        inference=ACTIVATION,  # linear: a copy
        forward=ACTIVATION.forward,
        backward=_backward,
    )
)
_CODE = ACTIVITY.code


@kernel
def penalties(layers, work, capacity, batch):
    """Return what all such rows add to the loss of a batch, times its number of rows; taken by a single thread."""
    total = 0.0
    for index in range(layers.shape[0]):
        row = layers[index]
        if row["kind"] == _CODE:
            start = row["output"] * capacity
            sizes, squares = norms(work, start, start + batch * row["positions"] * row["ld_out"])
            total += row[_L1] * sizes + row[_L2] * squares
    return total
