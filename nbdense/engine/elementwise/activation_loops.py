"""Activations over matrices in the workspace: softmax and clamps, and calls of the loops of all others.

Matrices are given by their offset in one flat array: a slice would cost its reference count, twice, for every row.
Offsets are unsigned, which spares numba's test for negative indices in every access. A loop's count is never a
constant: LLVM would unroll it before it could vectorise it.
"""

from __future__ import annotations

import numpy as np

from nbdense._compile.policy import kernel, unit
from nbdense.engine.elementwise.activations import ACTIVATIONS, RELU, RELU6, SOFTMAX
from nbdense.engine.elementwise.custom import call_loop
from nbdense.engine.elementwise.elementary import exp
from nbdense.engine.elementwise.row_sums import normalise_row, shift_row

BLOCK = 16  # rows are padded to whole blocks of this many columns
_relu_derivative, _relu6_derivative = (ACTIVATIONS[name].derivative for name in ("relu", "relu6"))


@kernel
def padded(n):
    """Return ``n`` rounded up to whole blocks."""
    return (n + BLOCK - 1) // BLOCK * BLOCK


@unit
def exponentials(values, offset, ld, m, n):
    """Replace the (m, n) matrix at ``offset`` by its exponentials; its padding is left zero."""
    width = padded(n)
    rows, count = (1, m * width) if width == ld else (m, width)  # rows end to end are one loop
    for i in range(rows):
        start = np.uint64(offset + i * ld)
        for j in range(count):
            k = start + np.uint64(j)
            values[k] = exp(values[k])
    clear_padding(values, offset, ld, m, n)


@kernel
def clear_padding(values, offset, ld, m, n):
    """Zero the columns from n to the last block's end in m rows."""
    for i in range(m):
        for j in range(offset + i * ld + n, offset + i * ld + padded(n)):
            values[np.uint64(j)] = 0


@kernel
def copy_block(values, source, target, size):
    """Copy ``size`` elements from one place to another that does not overlap it."""
    s, t = np.uint64(source), np.uint64(target)
    for j in range(size):
        values[t + np.uint64(j)] = values[s + np.uint64(j)]


@kernel
def accumulate(values, source, target, size):
    """Add ``size`` elements from one place to those at another."""
    s, t = np.uint64(source), np.uint64(target)
    for j in range(size):
        k = np.uint64(j)
        values[t + k] += values[s + k]


@kernel
def hand_over(values, source, target, size, adds):
    """Add ``size`` elements to those at another place, or put them there."""
    if adds:
        accumulate(values, source, target, size)
    else:
        copy_block(values, source, target, size)


@kernel
def _clamp(values, offset, count, lower, upper):
    """Clamp ``count`` elements in place; ordered comparisons leave a NaN as it is."""
    number = values.dtype.type
    start, low, high = np.uint64(offset), number(lower), number(upper)
    for j in range(count):
        k = start + np.uint64(j)
        value = low if values[k] < low else values[k]
        values[k] = high if value > high else value


@unit
def softmax(values, offset, ld, m, n):
    """Turn the (m, n) matrix at ``offset`` into its rows' softmax, in place; its padding is left zero."""
    for i in range(m):
        shift_row(values, offset + i * ld, n)
    exponentials(values, offset, ld, m, n)
    for i in range(m):
        normalise_row(values, offset + i * ld, n)


@kernel
def _stretches(row, m):
    """Return (count, length) of what an activation's loop is called for in m rows: all of them, where they join."""
    n, ld = row["n_out"], row["ld_out"]
    if row["joins"] and padded(n) == ld:
        return 1, m * ld
    return m, n


@kernel
def activate_elements(row, values, offset, m):
    """Apply a table row's activation in place to m rows of its outputs at ``offset``, if it is any but softmax."""
    n, ld = row["n_out"], row["ld_out"]
    if row["call_forward"] != 0:
        count, length = _stretches(row, m)
        for i in range(count):
            at = offset + i * ld
            call_loop(row["call_forward"], values, at, at, at, length, row["alpha"], row["beta"], row["gamma"])
        if length != n:
            clear_padding(values, offset, ld, m, n)
    elif row["lower"] != -np.inf or row["upper"] != np.inf:
        _clamp(values, offset, m * ld, row["lower"], row["upper"])
        clear_padding(values, offset, ld, m, n)


@kernel
def activate_row(row, values, offset, m):
    """Apply a table row's activation, whatever it is, in place to m rows of its outputs at ``offset``."""
    if row["activation"] == SOFTMAX:
        softmax(values, offset, row["ld_out"], m, row["n_out"])
    else:
        activate_elements(row, values, offset, m)


@kernel
def differentiate(row, values, inputs, outputs, deltas, m):
    """Turn the deltas of an activation's outputs into those of its inputs, in place. All are offsets in ``values``."""
    n, ld, code = row["n_out"], row["ld_out"], row["activation"]
    if code == SOFTMAX:
        for i in range(m):
            a, d = np.uint64(outputs + i * ld), np.uint64(deltas + i * ld)
            product = values[a] * values[d]
            for j in range(1, n):
                product += values[a + np.uint64(j)] * values[d + np.uint64(j)]
            for j in range(n):
                k = np.uint64(j)
                values[d + k] = values[a + k] * (values[d + k] - product)
        return
    if row["call_backward"] != 0:
        call, alpha, beta, gamma = row["call_backward"], row["alpha"], row["beta"], row["gamma"]
        count, length = _stretches(row, m)
        for i in range(count):
            at = i * ld
            call_loop(call, values, inputs + at, outputs + at, deltas + at, length, alpha, beta, gamma)
        return
    a, d = np.uint64(outputs), np.uint64(deltas)
    if code == RELU:
        for j in range(m * ld):
            k = np.uint64(j)
            values[d + k] = values[d + k] * _relu_derivative(values[a + k], values[a + k], 0.0)
    elif code == RELU6:
        for j in range(m * ld):
            k = np.uint64(j)
            values[d + k] = values[d + k] * _relu6_derivative(values[a + k], values[a + k], row["alpha"])
