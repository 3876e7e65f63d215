"""Products of matrices of any shape, by the tiles of `microkernel`.

Operands are tuples ``(array, offset, row_stride)``, A's with ``depth_stride`` at the end; all arrays are
one-dimensional, of one dtype, and counted in elements. A row stride of 0 repeats one row; a gate at a negative offset
is none, and so are other operands that may be left out. The depth is at least 1.
"""

from __future__ import annotations

import numpy as np

from nbdense._compile.policy import kernel, switch, unit
from nbdense.engine.kernels.cache_lines import LINE_BYTES, ask, own
from nbdense.engine.kernels.microkernel import ROWS, TILES, VECTOR_BYTES, memory

globals().update(TILES)


def _tiles_of(vectors, heights):
    """Compile the choice among the tiles of one width: ``run(rows, depth, ahead, a, ..., upper)``."""
    arguments = "depth, ahead, a, b, init, c, gate, lower, upper"
    names = {rows: f"_tile_{rows}_{vectors}" for rows in heights}
    return switch(f"run_{vectors}", names, arguments, f"{{f}}({arguments})", globals(), inline=True)


_run_1, _run_2 = _tiles_of(1, ROWS), _tiles_of(2, ROWS)
_run_4, _run_8 = _tiles_of(4, [1]), _tiles_of(8, [1])


@kernel
def _rows_of_next_tile(left):
    """Return the height of the tallest tile that ``left`` rows fill."""
    for rows in ROWS:
        if rows <= left:
            return rows
    return 1


@kernel
def product(m, n, depth, a, b, init, c, lower, upper):
    """Compute C[:m, :n] = clamp(init + A B, lower, upper), A (m, depth), B (depth, n), in operand tuples.

    Columns are worked in whole vectors: B's rows, init and C must reach to ``n`` rounded up to the vector width.
    """
    none = _none(c)
    tiled(_sizes(m, n, depth, 0, c), _left(a), _right(b), _right(init), _right(c), none, lower, upper, none, none)


@kernel
def gated_product(m, n, depth, a, b, init, c, gate):
    """Compute C[:m, :n] = init + A B, and 0 where a gate is and is not above 0; otherwise as `product`."""
    low, high = c[0].dtype.type(-np.inf), c[0].dtype.type(np.inf)
    none = _none(c)
    tiled(_sizes(m, n, depth, 0, c), _left(a), _right(b), _right(init), _right(c), _right(gate), low, high, none, none)


@kernel
def owning_product(m, n, depth, a, b, init, c, behind, owned, owned_columns):
    """Compute C[:m, :n] = init + A B, and meanwhile own the cache lines of two other matrices.

    ``owned`` is as large as C, ``owned_columns`` as its transpose; either may be none. A is the transpose of columns
    of a matrix: ``behind`` of those that follow are wanted next, and asked for.
    """
    low, high = c[0].dtype.type(-np.inf), c[0].dtype.type(np.inf)
    first, second = _right(owned), _right(owned_columns)
    tiled(
        _sizes(m, n, depth, behind, c), _left(a), _right(b), _right(init), _right(c), _none(c), low, high, first, second
    )


# Numba compiles a function anew for a tuple with another constant in it: operands go on as numbers, to one set of
# tiles.
@kernel
def _sizes(m, n, depth, behind, c):
    return np.int64(m), np.int64(n), np.int64(depth), np.int64(behind), np.int64(VECTOR_BYTES // c[0].itemsize)


@kernel
def _left(a):
    return memory(a[0]), np.int64(a[1]), np.int64(a[2]), np.int64(a[3])


@kernel
def _right(b):
    return memory(b[0]), np.int64(b[1]), np.int64(b[2])


@kernel
def _none(c):
    return memory(c[0]), np.int64(-1), np.int64(0)


@unit
def tiled(sizes, a, b, init, c, gate, lower, upper, owned, owned_columns):
    """Work through a product of ``sizes`` (m, n, depth, behind, a vector's lanes) by tiles, in operands of `memory`.

    The first tile of each panel of B asks for the next panel, which would else be waited for, step by step, where it
    lies in a cache that cores share, or another core has written it.
    """
    m, n, depth, behind, lanes = sizes
    a_array, a_offset, a_row, a_depth = a
    b_array, b_offset, b_row = b
    init_array, init_offset, init_row = init
    c_array, c_offset, c_row = c
    gate_array, gate_offset, gate_row = gate
    vectors, line = (n + lanes - 1) // lanes, lanes * (LINE_BYTES // VECTOR_BYTES)
    v = 0
    while v < vectors:
        left = vectors - v
        width = 2 if left >= 2 else 1
        if m == 1 and left >= 4:
            width = 8 if left >= 8 else 4
        column = v * lanes
        if behind > 0:
            for k in range(depth * v // vectors, depth * (v + width) // vectors):
                ask(a_array, a_offset + m + k * a_depth, behind * (VECTOR_BYTES // lanes))
        i = 0
        while i < m:
            ahead = width * lanes if i == 0 and v + width < vectors else 0
            rows = _rows_of_next_tile(m - i)
            if owned[1] >= 0:
                own(owned, i, rows, column, width * lanes, line)
            if owned_columns[1] >= 0:
                own(owned_columns, column, min(width * lanes, n - column), i, rows, line)
            tile_a = (a_array, a_offset + i * a_row, a_row, a_depth)
            tile_b = (b_array, b_offset + column, b_row)
            tile_init = (init_array, init_offset + i * init_row + column, init_row)
            tile_c = (c_array, c_offset + i * c_row + column, c_row)
            tile_gate = (gate_array, gate_offset + i * gate_row + column if gate_offset >= 0 else gate_offset, gate_row)
            if width == 2:
                _run_2(rows, depth, ahead, tile_a, tile_b, tile_init, tile_c, tile_gate, lower, upper)
            elif width == 1:
                _run_1(rows, depth, ahead, tile_a, tile_b, tile_init, tile_c, tile_gate, lower, upper)
            elif width == 8:
                _run_8(rows, depth, ahead, tile_a, tile_b, tile_init, tile_c, tile_gate, lower, upper)
            else:
                _run_4(rows, depth, ahead, tile_a, tile_b, tile_init, tile_c, tile_gate, lower, upper)
            i += rows
        v += width
