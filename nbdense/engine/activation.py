"""Activations over a tile of rows: the table's scalar functions in loops that the compiler vectorises."""

from __future__ import annotations

from nbdense._jit import kernel, switch
from nbdense.activations import ACTIVATIONS, SOFTMAX
from nbdense.engine.elementary import exp, like

_BLOCK = 16  # columns at a time: a constant count vectorises without a remainder loop; rows are padded to it

globals().update({f"_forward_{row.name}": row.forward for row in ACTIVATIONS.values()})
globals().update({f"_derivative_{row.name}": row.derivative for row in ACTIVATIONS.values()})

_forward = switch(
    "_forward",
    {row.code: f"_forward_{row.name}" for row in ACTIVATIONS.values() if row.forward is not None},
    "values, blocks, alpha",
    """
for block in range(blocks):
    z = values[block * _BLOCK : block * _BLOCK + _BLOCK]
    for j in range(_BLOCK):
        z[j] = {f}(z[j], alpha)
""",
    globals(),
)

_backward = switch(
    "_backward",
    {row.code: f"_derivative_{row.name}" for row in ACTIVATIONS.values() if row.derivative is not None},
    "inputs, outputs, deltas, blocks, alpha",
    """
for block in range(blocks):
    z = inputs[block * _BLOCK : block * _BLOCK + _BLOCK]
    a = outputs[block * _BLOCK : block * _BLOCK + _BLOCK]
    d = deltas[block * _BLOCK : block * _BLOCK + _BLOCK]
    for j in range(_BLOCK):
        d[j] = d[j] * {f}(z[j], a[j], alpha)
""",
    globals(),
)


@kernel
def softmax_row(z, n):
    """softmax of z[:n] in place; returns log(sum(exp(z))) as (largest, sum), of which it is largest + log(sum)."""
    largest = z[0]
    for j in range(1, n):
        if z[j] > largest:
            largest = z[j]
    blocks = (n + _BLOCK - 1) // _BLOCK
    for block in range(blocks):
        part = z[block * _BLOCK : block * _BLOCK + _BLOCK]
        for j in range(_BLOCK):
            part[j] = exp(part[j] - largest)
    total = like(largest, 0.0)
    for j in range(n):
        total += z[j]
    scale = like(largest, 1.0) / total
    for j in range(n):
        z[j] = z[j] * scale
    for j in range(n, blocks * _BLOCK):
        z[j] = like(largest, 0.0)
    return largest, total


@kernel
def _clear_padding(values, offset, ld, m, n):
    """Zero the columns from n to the next block's end in m rows."""
    end = (n + _BLOCK - 1) // _BLOCK * _BLOCK
    for i in range(m):
        for j in range(offset + i * ld + n, offset + i * ld + end):
            values[j] = 0


@kernel
def activate(code, alpha, values, offset, ld, m, n):
    """Apply an activation in place to the (m, n) matrix at ``offset``; its padding is left zero."""
    blocks = (n + _BLOCK - 1) // _BLOCK
    for i in range(m):
        row = values[offset + i * ld : offset + i * ld + blocks * _BLOCK]
        if code == SOFTMAX:
            softmax_row(row, n)
        else:
            _forward(code, row, blocks, alpha)
    _clear_padding(values, offset, ld, m, n)


@kernel
def differentiate(code, alpha, values, outputs, deltas, ld, m, n):
    """Turn the deltas of an activation's outputs into those of its inputs, in place. All are offsets in ``values``."""
    blocks = (n + _BLOCK - 1) // _BLOCK
    for i in range(m):
        a = values[outputs + i * ld : outputs + i * ld + blocks * _BLOCK]
        d = values[deltas + i * ld : deltas + i * ld + blocks * _BLOCK]
        if code == SOFTMAX:
            product = a[0] * d[0]
            for j in range(1, n):
                product += a[j] * d[j]
            for j in range(n):
                d[j] = a[j] * (d[j] - product)
        else:
            _backward(code, a, a, d, blocks, alpha)
