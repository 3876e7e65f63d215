"""Activations in rows of their own; `activated` is the end of every row that has one."""

from __future__ import annotations

from nbdense._compile.policy import kernel
from nbdense.engine.elementwise.activation_loops import activate_row, copy_block
from nbdense.engine.rows.kind import RowKind, buffers, register


@kernel
def activated(row, source, work, capacity, span):
    """Take a share from the buffer ``source``, of the output's layout, through the row's activation to the output."""
    first, count = span
    positions, ld = row["positions_out"], row["ld_out"]
    m, start = count * positions, first * positions * ld
    source, output = source * capacity + start, row["output"] * capacity + start
    if source != output:
        copy_block(work, source, output, m * ld)
    activate_row(row, work, output, m)


@kernel
def _forward(row, params, work, capacity, span, aside, noise):
    m, source, _, output = buffers(row, capacity, span)
    copy_block(work, source, output, m * row["ld_in"])


ACTIVATION = register(RowKind("activation", "Activation", keeps_format=True, forward=_forward))
