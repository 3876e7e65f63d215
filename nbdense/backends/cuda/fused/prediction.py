"""Predictions of whole networks in one launch, and the softmax behind it."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
from numba import cuda

from nbdense.backends.cuda.device import SIMULATED, kernel
from nbdense.backends.cuda.fused import tiles
from nbdense.backends.cuda.fused.tiles import Lines, Tile
from nbdense.backends.cuda.translation import Translation
from nbdense.backends.cuda.vectors import ALIGNED
from nbdense.engine.elementwise import custom, elementary, row_sums
from nbdense.engine.elementwise.activations import SOFTMAX
from nbdense.network import Network

_AREA = 256 if SIMULATED else 8192  # elements of a tile, rows times columns
_SLICE = 256 if SIMULATED else 2048  # elements of the kernels' slices

_SOURCE = """
def fused(layers, params, x, out, rows):
    values = cuda.shared.array({size}, float32{aligned})
    weights = cuda.shared.array({slice}, float32{aligned})
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
            {product}
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
_READ = """
for k in range(group % 4 * 4, n, 16):
    for i in range(group // 4 * 8 + lane, {rows}, {apart}):
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
        values[place + 2 * {ld}], values[place + 3 * {ld}] = c, d
"""
_READ_BY_FEW = """
for e in range(thread, n * {rows}, {threads}):
    k, i = e // {rows}, e % {rows}
    values[k * {ld} + i] = x[(first + i) * n + k] if first + i < rows else zero
"""


def tile_of(width: int) -> Tile:
    """Return the tile in which networks up to ``width`` wide predict."""
    return Tile(_AREA // width, width, 8)


def _read(tile: Tile) -> Lines:
    """Return how a tile of the input is read: four columns at a time of rows that lie side by side in a warp."""
    text = _READ_BY_FEW if SIMULATED else _READ  # which takes whole warps
    apart = max(8, tile.threads // 32 * 8)
    return tiles.assembled(text, rows=tile.rows, threads=tile.threads, ld=tile.ld, apart=apart)


def make(translate: Translation, width: int) -> Any:
    """Return the kernel for networks of float32 that are up to ``width`` wide."""
    tile = tile_of(width)
    reload = [f"{sums} = load4(values, {at})" for j in range(tile.each) for _, sums, at in tiles.fours(tile, j, "0")]
    text = tiles.assembled(
        _SOURCE,
        size=width * tile.ld,
        slice=_SLICE,
        aligned=ALIGNED,
        rows=tile.rows,
        across=tile.across,
        threads=tile.threads,
        ld=tile.ld,
        read=_read(tile),
        product=tiles.product(tile, _SLICE // width, width, source="0", slices="weights", at="0"),
        finish=tiles.finished(tile, "0"),
        reload=reload,
        write=tiles.written(tile, "out", "0", "n_out", "rows"),
    )
    space = tiles.NAMES | {"call": translate(custom.call_loop)}
    exec(compile("\n".join(text), "<nbdense fused>", "exec"), space)
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


def width_of(network: Network, layers: npt.NDArray[Any]) -> int | None:
    """Return the width of the kernel that predicts by a table, or None where it takes a launch for each layer."""
    last = layers[-1]
    wanted = last["activation"] == SOFTMAX or not network.activation_of(last).rowwise
    return tiles.width_of(network, layers) if wanted else None
