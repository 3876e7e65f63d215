"""The positions of each row of data, end to end, without the padding between them."""

from __future__ import annotations

from nbdense._compile.policy import kernel
from nbdense.engine.elementwise.activation_loops import clear_padding, copy_block, hand_over
from nbdense.engine.rows.kind import RowKind, register
from nbdense.engine.tables import ADD_DELTA, NO_DELTA


@kernel
def _forward(row, params, work, capacity, span, aside, noise):
    first, count = span
    source, target = row["input"] * capacity, row["output"] * capacity
    positions, n, ld_in, ld_out = row["positions"], row["n_in"], row["ld_in"], row["ld_out"]
    for i in range(first, first + count):
        for p in range(positions):
            copy_block(work, source + (i * positions + p) * ld_in, target + i * ld_out + p * n, n)
    clear_padding(work, target + first * ld_out, ld_out, count, row["n_out"])


@kernel
def _backward(row, params, work, capacity, span, deltas, aside, batch):
    if row["flags"] & NO_DELTA:
        return -1
    first, count = span
    source, target = deltas + row["output"] * capacity, deltas + row["input"] * capacity
    positions, n, ld_in, ld_out = row["positions"], row["n_in"], row["ld_in"], row["ld_out"]
    adds = row["flags"] & ADD_DELTA
    for i in range(first, first + count):
        for p in range(positions):
            at = target + (i * positions + p) * ld_in
            hand_over(work, source + i * ld_out + p * n, at, n, adds)
            if adds == 0:
                clear_padding(work, at, ld_in, 1, n)
    return -1


RESHAPE = register(
    RowKind("flatten", "Flatten", keeps_format=True, forward=_forward, backward=_backward),
)
