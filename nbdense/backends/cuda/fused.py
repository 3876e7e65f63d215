"""Whole networks of narrow dense layers in one launch: a block takes some rows of data through all layers.

The rows' values stay in shared memory, column by column; the kernels of the layers pass through it in slices. Each
thread holds 8 x 8 sums in registers, four rows and four columns of each of the tile's halves: so what a warp reads at
once lies side by side.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import cuda, float32

from nbdense.backends.cuda.device import SIMULATED, kernel
from nbdense.backends.cuda.translation import Translation
from nbdense.backends.cuda.vectors import load4, store4
from nbdense.engine.elementwise import custom, elementary, row_sums
from nbdense.engine.elementwise.activations import ON_DEMAND, SOFTMAX
from nbdense.engine.rows import DENSE

AREA = 256 if SIMULATED else 8192  # elements of a tile, rows times columns
WIDTHS = (16,) if SIMULATED else (64, 128)
SLICE = 256 if SIMULATED else 2048  # elements of the kernels' slices

_SOURCE = """
def fused(layers, params, x, out, rows):
    values = cuda.shared.array({size}, float32)
    weights = cuda.shared.array({slice}, float32)
    thread, zero = cuda.threadIdx.x, np.float32(0.0)
    row, column = np.uint64(thread // {across} * 4), np.uint64(thread % {across} * 4)
    lane, group = thread % 8, thread // 8
    for tile in range(cuda.blockIdx.x, (rows + {rows} - 1) // {rows}, cuda.gridDim.x):
        first = tile * {rows}
        n = layers[0]["n_in"]
        {read}
        for index in range(layers.shape[0]):
            layer = layers[index]
            n, n_out, ld, at_kernel = layer["n_in"], layer["n_out"], layer["ld_out"], layer["kernel"]
            {start}
            for begin in range(0, n, {deep}):
                deep = min({deep}, n - begin)
                cuda.syncthreads()
                for e in range(thread, deep * {width} // 4, {threads}):
                    k, j = e // ({width} // 4), e % ({width} // 4) * 4
                    a, b, c, d = zero, zero, zero, zero
                    if j < ld:
                        a, b, c, d = load4(params, np.uint64(at_kernel + (begin + k) * ld + j))
                    store4(weights, np.uint64(k * {width} + j), a, b, c, d)
                cuda.syncthreads()
                at_a, at_b = np.uint64(begin * {ld}) + row, column
                for k in range(deep // 4):
                    for q in range(4):  # a constant, which the compiler unrolls
                        next_a, next_b = at_a + np.uint64(q * {ld}), at_b + np.uint64(q * {width})
                        {load}
                        {step}
                    at_a, at_b = at_a + np.uint64(4 * {ld}), at_b + np.uint64(4 * {width})
                for q in range(deep % 4):
                    next_a, next_b = at_a + np.uint64(q * {ld}), at_b + np.uint64(q * {width})
                    {load_more}
                    {step_more}
            cuda.syncthreads()
            low, high = np.float32(layer["lower"]), np.float32(layer["upper"])
            {finish}
            loop = layer["call_forward"]
            if loop != 0:
                cuda.syncthreads()
                for e in range(thread, n_out * {rows}, {threads}):
                    at = e // {rows} * {ld} + e % {rows}
                    call(loop, values, at, at, at, 1, layer["alpha"], layer["beta"], layer["gamma"])
                cuda.syncthreads()
                if index == layers.shape[0] - 1:
                    {reload}
            if index == layers.shape[0] - 1:
                {write}
        cuda.syncthreads()
"""


def _indented(lines: list[str], spaces: int) -> str:
    return ("\n" + " " * spaces).join(lines)


def _reading(rows: int, width: int, ld: int) -> list[str]:
    """Return how a tile of the input is read: four columns at a time of rows that lie side by side in a warp."""
    if SIMULATED:  # there are not so many threads
        source = f"""
for e in range(thread, n * {rows}, {rows * width // 64}):
    k, i = e // {rows}, e % {rows}
    values[k * {ld} + i] = x[(first + i) * n + k] if first + i < rows else zero
"""
    else:
        source = f"""
for k in range(group % 4 * 4, n, 16):
    for i in range(group // 4 * 8 + lane, {rows}, {max(8, rows * width // 64 // 32 * 8)}):
        a, b, c, d = zero, zero, zero, zero
        if first + i < rows:
            at = (first + i) * n + k
            if n % 4 == 0:
                a, b, c, d = load4(x, np.uint64(at))
            else:
                a = x[at]
                b = x[at + 1] if k + 1 < n else zero
                c = x[at + 2] if k + 2 < n else zero
                d = x[at + 3] if k + 3 < n else zero
        place = k * {ld} + i
        values[place], values[place + {ld}] = a, b
        values[place + {2 * ld}], values[place + {3 * ld}] = c, d
"""
    return source.strip().split("\n")


def _pieces(rows: int, width: int, ld: int) -> dict[str, str]:
    """Return what is done with a thread's 64 sums, written out: every one is in a register of its own."""
    cells = [(i, j) for i in range(8) for j in range(8)]
    at_row = [f"row + np.uint64({i % 4 + i // 4 * (rows // 2)})" for i in range(8)]
    at_column = [f"column + np.uint64({j % 4 + j // 4 * (width // 2)})" for j in range(8)]
    finish: list[str] = []
    reload: list[str] = []
    write: list[str] = []
    load = [f"{v}0, {v}1, {v}2, {v}3 = load4({array}, next_{v})" for v, array in (("a", "values"), ("b", "weights"))]
    load += [f"a4, a5, a6, a7 = load4(values, next_a + np.uint64({rows // 2}))"]
    load += [f"b4, b5, b6, b7 = load4(weights, next_b + np.uint64({width // 2}))"]
    step = [f"c{i}{j} += a{i} * b{j}" for i, j in cells]
    for j in range(8):
        finish += [f"j = np.int64({at_column[j]})", "bias = params[layer['start'] + j] if j < n_out else zero"]
        for i in range(8):
            finish += [f"c{i}{j} = c{i}{j} + bias", f"c{i}{j} = low if c{i}{j} < low else c{i}{j}"]
            finish += [f"c{i}{j} = high if c{i}{j} > high else c{i}{j}"]
        for half in (0, 4):
            four = ", ".join(f"c{half + i}{j}" for i in range(4))
            place = f"({at_column[j]}) * np.uint64({ld}) + {at_row[half]}"
            finish += [f"store4(values, {place}, {four})"]
            reload += [f"{four} = load4(values, {place})"]
    for i in range(8):
        write += [f"i = first + np.int64({at_row[i]})", "if i < rows:"]
        for half in (0, 4):
            sums = [f"c{i}{half + k}" for k in range(4)]
            write += [f"    j = np.int64({at_column[half]})", "    if n_out % 4 == 0 and j + 4 <= n_out:"]
            write += [f"        store4(out, np.uint64(i * n_out + j), {', '.join(sums)})", "    else:"]
            for k, cell in enumerate(sums):
                write += [f"        if j + {k} < n_out:", f"            out[i * n_out + j + {k}] = {cell}"]
    return {
        "read": _indented(_reading(rows, width, ld), 8),
        "start": _indented([f"c{i}{j} = zero" for i, j in cells], 12),
        "load": _indented(load, 24),
        "step": _indented(step, 24),
        "load_more": _indented(load, 20),
        "step_more": _indented(step, 20),
        "finish": _indented(finish, 12),
        "reload": _indented(reload, 20),
        "write": _indented(write, 16),
    }


def make(translate: Translation, width: int) -> Any:
    """Return the kernel for networks of float32 that are up to ``width`` wide."""
    rows = AREA // width
    ld = rows + 4  # with 4 more, columns fall into other banks
    text = _SOURCE.format(
        size=width * ld,
        slice=SLICE,
        rows=rows,
        width=width,
        across=width // 8,
        threads=AREA // 64,
        deep=SLICE // width,
        ld=ld,
        **_pieces(rows, width, ld),
    )
    space = {"cuda": cuda, "np": np, "float32": float32, "load4": load4, "store4": store4}
    space["call"] = translate(custom.call_loop)
    exec(compile(text, "<nbdense fused>", "exec"), space)
    return kernel(space["fused"], most_registers=128)  # so that four blocks share a multiprocessor


def softmax(translate: Translation) -> Any:
    """Return the kernel that turns rows of logits, ``n`` each, into probabilities."""
    shift_row, normalise_row = translate(row_sums.shift_row), translate(row_sums.normalise_row)
    exp = translate(elementary.exp)

    @kernel
    def rowwise(out, n):
        for i in range(cuda.grid(1), out.size // n, cuda.gridsize(1)):
            shift_row(out, i * n, n)
            for j in range(i * n, (i + 1) * n):
                out[j] = exp(out[j])
            normalise_row(out, i * n, n)

    return rowwise


def width_of(layers: npt.NDArray[Any], dtype: np.dtype[Any]) -> int | None:
    """Return the width of the kernel that runs a network, or None where it takes a launch for each layer."""
    chain = all(int(a["output"]) == int(b["input"]) for a, b in itertools.pairwise(layers))
    elementwise = (layers["activation"] < ON_DEMAND) | (layers["joins"] != 0)
    plain = (layers["kind"] == DENSE.code) & elementwise & (layers["scales"] < 0)
    softmax_inside = (layers["activation"][:-1] == SOFTMAX).any()
    if dtype != np.float32 or not chain or not plain.all() or softmax_inside:
        return None
    widest = int(max(layers["n_in"].max(), layers["n_out"].max()))
    return next((width for width in WIDTHS if widest <= width), None)
