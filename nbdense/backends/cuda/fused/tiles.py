"""Products of a block's rows with kernels, in shared memory: pieces of the text of which the fused kernels are made.

A block takes some rows of data through all layers. Their values stay in shared memory, column by column; the layers'
kernels pass through it in slices. Each thread holds some sums in registers, four rows and four columns of each part of
the tile: so what a warp reads at once lies side by side, and in vectors.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import cuda, float32

from nbdense.backends.cuda.device import SIMULATED, device_function
from nbdense.backends.cuda.vectors import load4, store4
from nbdense.engine.rows import DENSE
from nbdense.network import Network

WIDTHS = (16,) if SIMULATED else (64, 128)

Lines = list[str]


@dataclass(frozen=True)
class Tile:
    """A block's rows by the columns of the widest layer; a thread holds ``each`` x ``each`` sums, 4 or 8."""

    rows: int
    width: int
    each: int

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.rows * self.width // self.each**2

    @property
    def across(self) -> int:
        """Threads side by side in a row."""
        return self.width // self.each

    @property
    def ld(self) -> int:
        """Elements between the columns of the rows' values: with 4 more they fall into other banks."""
        return self.rows + 4

    @property
    def cells(self) -> list[tuple[int, int]]:
        """A thread's sums."""
        return [(i, j) for i in range(self.each) for j in range(self.each)]

    def row(self, i: int) -> str:
        """Return the place of a thread's row i in the tile."""
        return f"row + np.uint64({i % 4 + i // 4 * (self.rows * 4 // self.each)})"

    def column(self, j: int) -> str:
        """Return the place of a thread's column j in the tile."""
        return f"column + np.uint64({j % 4 + j // 4 * (self.width * 4 // self.each)})"


def width_of(network: Network, layers: npt.NDArray[Any]) -> int | None:
    """Return the width of the tiles in which one launch takes rows through a table, or None where it does not.

    The table is a chain of dense layers, none of them wider, in float32; activations inside are elementwise.
    """
    chain = all(int(a["output"]) == int(b["input"]) for a, b in itertools.pairwise(layers))
    plain = (layers["kind"] == DENSE.code) & (layers["scales"] < 0)
    if network.dtype != np.float32 or not chain or not plain.all():
        return None
    if any(network.activation_of(row).rowwise for row in layers[:-1]):
        return None
    widest = int(max(layers["n_in"].max(), layers["n_out"].max()))
    return next((width for width in WIDTHS if widest <= width), None)


@device_function
def clamped(value, low, high):
    """Clamp a number; ordered comparisons leave a NaN as it is."""
    value = low if value < low else value
    return high if value > high else value


@device_function
def only(inside, value):
    """Return a number, or zero for what is outside."""
    return value if inside else np.float32(0.0)


@device_function
def write4(array, at, count, a, b, c, d):
    """Write as many of four numbers as there are columns for."""
    if count >= 4 and at % 4 == 0:
        store4(array, np.uint64(at), a, b, c, d)
    else:
        if count > 0:
            array[at] = a
        if count > 1:
            array[at + 1] = b
        if count > 2:
            array[at + 2] = c
        if count > 3:
            array[at + 3] = d


# What texts name. Branches are functions: numba's front end takes long over many in one.
NAMES: dict[str, Any] = {
    "cuda": cuda,
    "np": np,
    "float32": float32,
    "load4": load4,
    "store4": store4,
    "clamped": clamped,
    "only": only,
    "write4": write4,
}


def assembled(template: str, **pieces: Any) -> Lines:
    """Return the lines of a text: in place of one that is ``{name}`` alone that piece's lines, as far to the right."""
    lines: Lines = []
    for line in template.strip("\n").split("\n"):
        name = line.strip()[1:-1]
        if line.strip() == f"{{{name}}}" and isinstance(pieces.get(name), list):
            indent = line[: len(line) - len(line.lstrip())]
            lines += [indent + more for more in pieces[name]]
        else:
            lines.append(line.format(**pieces))
    return lines


# The kernel as it lies, a slice of its rows.
_KERNEL = """
for e in range(thread, deep * {width} // 4, {threads}):
    k, j = e // ({width} // 4), e % ({width} // 4) * 4
    a, b, c, d = zero, zero, zero, zero
    if j < ld:
        a, b, c, d = load4(params, np.uint64(at_kernel + (begin + k) * ld + j))
    store4({slices}, np.uint64({at} + k * {ld_slice} + j), a, b, c, d)
"""
_PRODUCT = """
{start}
for begin in range(0, n, {deep}):
    deep = min({deep}, n - begin)
    cuda.syncthreads()
    {fill}
    cuda.syncthreads()
    at_a, at_b = np.uint64({source} + begin * {ld}) + row, np.uint64({at}) + column
    for k in range(deep // 4):
        for q in range(4):  # a constant, which the compiler unrolls
            next_a, next_b = at_a + np.uint64(q * {ld}), at_b + np.uint64(q * {ld_slice})
            {load}
            {step}
        at_a, at_b = at_a + np.uint64(4 * {ld}), at_b + np.uint64(4 * {ld_slice})
    for q in range(deep % 4):
        next_a, next_b = at_a + np.uint64(q * {ld}), at_b + np.uint64(q * {ld_slice})
        {load}
        {step}
"""


def product(tile: Tile, deep: Any, ld_slice: int, *, source: str, slices: str, at: str, fill: str = _KERNEL) -> Lines:
    """Return the product of n columns of values with a matrix of n rows, into the sums c00, c01..

    Parameters
    ----------
    tile : Tile
    deep, ld_slice : int or str, int
        Rows of a slice, and the elements between them.
    source : str
        The place in ``values`` of the first column.
    slices, at : str
        The array that slices pass through, and their place in it.
    fill : str
        The text that brings one in, by default of the layer's kernel.
    """
    places = {"slices": slices, "at": at, "ld_slice": ld_slice, "width": tile.width, "threads": tile.threads}
    load: Lines = []
    for operand, array, apart in (("a", "values", tile.rows), ("b", slices, tile.width)):
        for k in range(0, tile.each, 4):
            four = ", ".join(f"{operand}{k + i}" for i in range(4))
            load += [f"{four} = load4({array}, next_{operand} + np.uint64({k * apart // tile.each}))"]
    return assembled(
        _PRODUCT,
        **places,
        start=started(tile),
        deep=deep,
        fill=assembled(fill, **places),
        source=source,
        ld=tile.ld,
        load=load,
        step=[f"c{i}{j} += a{i} * b{j}" for i, j in tile.cells],
    )


def started(tile: Tile) -> Lines:
    """Return what sets a thread's sums to zero."""
    return [f"c{i}{j} = zero" for i, j in tile.cells]


def fours(tile: Tile, j: int, place: str) -> list[tuple[range, str, str]]:
    """Return a thread's rows in column j by fours: which they are, their sums, and where these lie in ``values``."""
    parts = [range(i, i + 4) for i in range(0, tile.each, 4)]
    column = f"np.uint64({place}) + ({tile.column(j)}) * np.uint64({tile.ld})"
    return [(rows, ", ".join(f"c{i}{j}" for i in rows), f"{column} + {tile.row(rows[0])}") for rows in parts]


def finished(tile: Tile, place: str, inside: str = "") -> Lines:
    """Return what adds the bias to a thread's sums, clamps them to low..high, and stores them in ``values``.

    Rows of the tile that are not ``inside`` are zeros, if that is given.
    """
    lines: Lines = []
    for j in range(tile.each):
        lines += [f"j = np.int64({tile.column(j)})", "if j < n_out:", "    bias = params[layer['start'] + j]"]
        for rows, sums, at in fours(tile, j, place):
            for i in rows:
                value = f"clamped(c{i}{j} + bias, low, high)"
                value = f"only(np.int64({tile.row(i)}) < {inside}, {value})" if inside else value
                lines += [f"    c{i}{j} = {value}"]
            lines += [f"    store4(values, {at}, {sums})"]
    return lines


def written(tile: Tile, array: str, start: str, ld: str, rows: str) -> Lines:
    """Return what writes a thread's sums to a matrix of ``rows`` rows, ``ld`` elements apart, from ``start`` on."""
    lines: Lines = []
    for i in range(tile.each):
        lines += [f"i = first + np.int64({tile.row(i)})", f"if i < {rows}:"]
        for k in range(0, tile.each, 4):
            sums = ", ".join(f"c{i}{k + q}" for q in range(4))
            lines += [f"    j = np.int64({tile.column(k)})"]
            lines += [f"    write4({array}, {start} + i * {ld} + j, n_out - j, {sums})"]
    return lines
