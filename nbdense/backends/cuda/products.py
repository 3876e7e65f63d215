"""Matrix products by tiles: forward, the deltas of the inputs, and the kernels' gradients over shares of a batch.

A block makes a tile of C, ``TILE`` x ``TILE``; its threads hold parts of it in registers while slices of A and B pass
through shared memory. The three kernels are one source text: they differ in how the operands lie, and in what is done
with a sum. Each element is summed over the depth in order; a gradient's depth is the batch, of which each block takes a
share, and `nbdense.backends.cuda.update` adds the shares up in order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda, float32, float64

from nbdense.backends.cuda.device import SIMULATED, kernel
from nbdense.backends.cuda.rows import rows_of_batch
from nbdense.backends.cuda.vectors import ALIGNED

TILE, DEPTH, EACH = (4, 4, 2) if SIMULATED else (64, 16, 4)  # of C, of the slices; a thread's rows and columns of C
SIDE = TILE // EACH
THREADS_OF_TILE = SIDE * SIDE
_LD = TILE + 4  # of a slice in shared memory: with 4 more its columns fall into other banks, and vectors stay aligned

_SOURCE = """
def {name}(run, cursor, A, a_at, a_row, B, b_at, b_row, C, c_at, c_row, m, n, depth, positions, {arguments}):
    slice_a = cuda.shared.array({size}, number{aligned})
    slice_b = cuda.shared.array({size}, number{aligned})
    thread = cuda.threadIdx.x
    zero = kind(0.0)
    first = 0
    {limits}
    across = (n + {tile} - 1) // {tile}
    top, left = cuda.blockIdx.x // across * {tile}, cuda.blockIdx.x % across * {tile}
    if top >= m:
        return
    row, column = np.uint64(thread // {side} * {each}), np.uint64(thread % {side} * {each})
    {start}
    for begin in range(first, depth, {deep}):
        for e in range(thread, {elements}, {threads}):
            {place_a}
            inside = top + i < m and begin + k < depth
            slice_a[k * {ld} + i] = A[a_at + {index_a}] if inside else zero
        for e in range(thread, {elements}, {threads}):
            {place_b}
            inside = left + i < n and begin + k < depth
            slice_b[k * {ld} + i] = B[b_at + {index_b}] if inside else zero
        cuda.syncthreads()
        for k in range({deep}):
            at_a, at_b = np.uint64(k * {ld}) + row, np.uint64(k * {ld}) + column
            {step}
        {more}
        cuda.syncthreads()
    {store}
    {end}
"""
_ALONG_DEPTH = f"k, i = e % {DEPTH}, e // {DEPTH}"  # neighbours in memory are neighbours in depth, or across it
_ACROSS = f"i, k = e % {TILE}, e // {TILE}"


_ROWS = "m = rows_of_batch(run, cursor)[1] * positions"
_CLAMP = """
total += bias[bias_at + j]
total = low if total < low else total
C[c_at + i * c_row + j] = high if total > high else total
"""
_GATE = """
at = c_at + i * c_row + j
total = total + C[at] if adds else total
C[at] = zero if gate_at >= 0 and not C[gate_at + i * c_row + j] > zero else total
"""
# Of a gradient the depth is the batch; blockIdx.y chooses the share. A block of the first row of tiles adds up its
# deltas besides: the bias's gradient.
_SHARE = """
depth = rows_of_batch(run, cursor)[1] * positions
first = cuda.blockIdx.y * share
depth = min(depth, first + share)
c_at += cuda.blockIdx.y * stride
column_sum = zero
"""
_COLUMNS = f"""
if bias_at >= 0 and top == 0 and thread < {TILE}:
    for k in range({DEPTH}):
        column_sum += slice_b[k * {_LD} + thread]
"""
_BIAS = f"""
if bias_at >= 0 and top == 0 and thread < {TILE} and left + thread < n:
    C[bias_at + cuda.blockIdx.y * stride + left + thread] = column_sum
"""


def _lines(lines: list[str], spaces: int) -> str:
    return ("\n" + " " * spaces).join(lines)


def _step() -> list[str]:
    """Return one step over the depth of a thread's part of C, every number in a register of its own."""
    operands = [f"{v}{i} = slice_{v}[at_{v} + np.uint64({i})]" for v in "ab" for i in range(EACH)]
    return operands + [f"c{i}{j} += a{i} * b{j}" for i in range(EACH) for j in range(EACH)]


def _store(body: str, guard: str = "i < m and j < n") -> list[str]:
    lines = []
    for r in range(EACH):
        for s in range(EACH):
            lines += [f"i, j, total = top + np.int64(row) + {r}, left + np.int64(column) + {s}, c{r}{s}"]
            lines += [f"if {guard}:", *(f"    {line}" for line in body.strip().split("\n"))]
    return lines


def _make(
    name: str,
    dtype: Any,
    arguments: str,
    *,
    a: str,
    b: str,
    store: str,
    limits: str = _ROWS,
    more: str = "",
    end: str = "",
) -> Any:
    start = [f"c{i}{j} = zero" for i in range(EACH) for j in range(EACH)]
    text = _SOURCE.format(
        name=name,
        arguments=arguments,
        size=DEPTH * _LD,
        aligned=ALIGNED,
        elements=DEPTH * TILE,
        tile=TILE,
        deep=DEPTH,
        side=SIDE,
        each=EACH,
        ld=_LD,
        threads=THREADS_OF_TILE,
        limits=_lines(limits.strip().split("\n"), 4),
        start=_lines(start, 4),
        place_a=_ALONG_DEPTH if a == "depth" else _ACROSS,
        place_b=_ALONG_DEPTH if b == "depth" else _ACROSS,
        index_a="(top + i) * a_row + begin + k" if a == "depth" else "(begin + k) * a_row + top + i",
        index_b="(left + i) * b_row + begin + k" if b == "depth" else "(begin + k) * b_row + left + i",
        step=_lines(_step(), 12),
        more=_lines(more.strip().split("\n"), 8),
        store=_lines(_store(store), 4),
        end=_lines(end.strip().split("\n"), 4),
    )
    precise = np.dtype(dtype) == np.float64
    space = {
        "cuda": cuda,
        "np": np,
        "rows_of_batch": rows_of_batch,
        "number": float64 if precise else float32,
        "kind": np.float64 if precise else np.float32,
    }
    exec(compile(text, f"<nbdense {name}>", "exec"), space)
    return kernel(space[name])


class Products:
    """The three kernels of products, compiled for one dtype."""

    def __init__(self, dtype: Any) -> None:
        self.forward = _make("forward", dtype, "bias, bias_at, low, high", a="depth", b="across", store=_CLAMP)
        self.backward = _make("backward", dtype, "gate_at, adds", a="depth", b="depth", store=_GATE)
        self.gradient = _make(
            "gradient",
            dtype,
            "bias_at, share, stride",
            a="across",
            b="across",
            limits=_SHARE,
            more=_COLUMNS,
            store="C[c_at + i * c_row + j] = total",
            end=_BIAS,
        )
