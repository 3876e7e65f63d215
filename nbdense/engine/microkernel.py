"""The microkernel: a tile of C = clamp(init + A B) held in registers over the whole depth.

Forward (X W), weight gradient (X^T D) and input gradient (D W^T) are this one kernel with other strides of A.
The tile starts from ``init`` (a bias row, zeros, or C itself to add to) and is clamped on its way out, which is
linear, relu and relu6 at no cost; or gated, which is the derivative of relu: zero where another matrix, relu's output,
is not above zero. Every element is summed over the depth in order, in one accumulator, whatever
the tile's shape: results do not depend on how the work was tiled or split over threads.

Operands are tuples ``(array, offset, row_stride)``, A's with ``depth_stride`` at the end; all arrays are
one-dimensional, of one dtype, and counted in elements. A row stride of 0 repeats one row; a gate at a negative offset
is none.

Method: Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), the inner kernel,
without packing: at the sizes of small MLPs the operands are in cache as they are.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from nbdense import _cpu
from nbdense._jit import intrinsic, kernel, switch

VECTOR_BYTES = _cpu.target().vector_bytes
FMA = _cpu.target().fma
I32, I64 = ir.IntType(32), ir.IntType(64)

# Rows a tile: as many accumulators as the registers hold (32 with AVX-512 and on arm64, 16 elsewhere), less two
# vectors of B and a broadcast. Fewer rows take over where the matrix ends.
ROWS = {64: (12, 8, 4, 2, 1), 32: (6, 4, 2, 1), 16: (6, 4, 2, 1)}[VECTOR_BYTES]


def _plain_tile(rows, vectors):
    def tile(depth, a, b, init, c, gate, lower, upper):
        a, a_offset, a_row, a_depth = a
        b, b_offset, b_row = b
        init, init_offset, init_row = init
        c, c_offset, c_row = c
        gate, gate_offset, gate_row = gate
        columns = vectors * (VECTOR_BYTES // c.itemsize)
        for i in range(rows):
            for j in range(columns):
                total = init[init_offset + i * init_row + j]
                for k in range(depth):
                    total += a[a_offset + i * a_row + k * a_depth] * b[b_offset + k * b_row + j]
                if gate_offset >= 0 and not gate[gate_offset + i * gate_row + j] > 0:
                    total = c.dtype.type(0)
                total = lower if total < lower else total
                c[c_offset + i * c_row + j] = upper if total > upper else total

    return tile


def make_tile(rows, vectors):
    """The kernel for a tile of ``rows`` by ``vectors`` times the vector width, as an intrinsic with its plain twin."""

    @intrinsic(_plain_tile(rows, vectors))
    def tile(typing_context, depth, a, b, init, c, gate, lower, upper):
        scalar = c[0].dtype
        signature = types.void(types.int64, a, b, init, c, gate, scalar, scalar)

        def codegen(context, builder, signature, arguments):
            _emit_tile(context, builder, signature, arguments, rows, vectors)
            return context.get_dummy_value()

        return signature, codegen

    return tile


def operand(context, builder, operand_type, value):
    """Pointer to an operand tuple's first element, and its strides."""
    parts = [builder.extract_value(value, i) for i in range(len(operand_type))]
    array = context.make_array(operand_type[0])(context, builder, parts[0])
    return builder.gep(array.data, [parts[1]]), parts[2:]


def splat(builder, value, vector):
    """A vector with ``value`` in every lane."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(I32, 0))
    lanes = ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, undefined, lanes)


def multiply_add(builder, x, y, total):
    """``x * y + total``: fused where the CPU fuses; without FMA, llvm.fma would be a call into libm."""
    vector = total.type
    if not FMA:
        return builder.fadd(builder.fmul(x, y), total)
    suffix = f"v{vector.count}f{'32' if isinstance(vector.element, ir.FloatType) else '64'}"
    fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.{suffix}")
    return builder.call(fma, [x, y, total])


def _emit_tile(context, builder, signature, arguments, rows, vectors):
    depth, a, b, init, c, gate, lower, upper = arguments
    a_type, b_type, init_type, c_type, gate_type = signature.args[1:6]
    element = context.get_value_type(c_type[0].dtype)
    bytes_each = c_type[0].dtype.bitwidth // 8
    lanes = VECTOR_BYTES // bytes_each
    vector = ir.VectorType(element, lanes)
    pointer = element.as_pointer()

    a, (a_row, a_depth) = operand(context, builder, a_type, a)
    b, (b_row,) = operand(context, builder, b_type, b)
    init, (init_row,) = operand(context, builder, init_type, init)
    c, (c_row,) = operand(context, builder, c_type, c)
    gated = builder.icmp_signed(">=", builder.extract_value(gate, 1), ir.Constant(I64, 0))
    gate, (gate_row,) = operand(context, builder, gate_type, gate)

    def number(n):
        return ir.Constant(I64, n)

    def vector_at(base, j):
        return builder.bitcast(builder.gep(base, [number(j * lanes)]), vector.as_pointer())

    def row_of(base, stride, i):
        return builder.gep(base, [builder.mul(stride, number(i))])

    start = []
    for i in range(rows):
        row = row_of(init, init_row, i)
        start.append([builder.load(vector_at(row, j), align=bytes_each) for j in range(vectors)])

    # One pointer for four rows, with the strides' multiples in registers: a pointer a row would spill.
    groups = [row_of(a, a_row, i) for i in range(0, rows, 4)]
    multiples = [number(0), a_row, builder.mul(a_row, number(2)), builder.mul(a_row, number(3))]

    entry = builder.block
    loop, done = builder.append_basic_block("depth.loop"), builder.append_basic_block("depth.done")
    builder.cbranch(builder.icmp_signed(">", depth, number(0)), loop, done)
    builder.position_at_end(loop)
    k = builder.phi(I64)
    k.add_incoming(number(0), entry)
    sums = [[builder.phi(vector) for _ in range(vectors)] for _ in range(rows)]
    a_now = [builder.phi(pointer) for _ in groups]
    b_now = builder.phi(pointer)

    b_vectors = [builder.load(vector_at(b_now, j), align=bytes_each) for j in range(vectors)]
    added = []
    for i in range(rows):
        value = builder.load(builder.gep(a_now[i // 4], [multiples[i % 4]]), align=bytes_each)
        broadcast = splat(builder, value, vector)
        added.append([multiply_add(builder, broadcast, b_vectors[j], sums[i][j]) for j in range(vectors)])
    k_next = builder.add(k, number(1))
    k.add_incoming(k_next, loop)
    for now, group in zip(a_now, groups, strict=True):
        now.add_incoming(group, entry)
        now.add_incoming(builder.gep(now, [a_depth]), loop)
    b_now.add_incoming(b, entry)
    b_now.add_incoming(builder.gep(b_now, [b_row]), loop)
    for i in range(rows):
        for j in range(vectors):
            sums[i][j].add_incoming(start[i][j], entry)
            sums[i][j].add_incoming(added[i][j], loop)
    builder.cbranch(builder.icmp_signed("<", k_next, depth), loop, done)

    builder.position_at_end(done)
    totals = []
    for i in range(rows):
        totals.append([builder.phi(vector) for _ in range(vectors)])
        for j in range(vectors):
            totals[i][j].add_incoming(start[i][j], entry)
            totals[i][j].add_incoming(added[i][j], loop)
    zero = ir.Constant(vector, [0.0] * lanes)
    low, high = splat(builder, lower, vector), splat(builder, upper, vector)
    with builder.if_else(gated) as (with_gate, without):
        for branch, shut in ((with_gate, True), (without, False)):
            with branch:
                for i in range(rows):
                    row = row_of(c, c_row, i)
                    for j in range(vectors):
                        total = totals[i][j]
                        if shut:
                            opening = builder.load(vector_at(row_of(gate, gate_row, i), j), align=bytes_each)
                            total = builder.select(builder.fcmp_ordered(">", opening, zero), total, zero)
                        else:  # ordered comparisons leave a NaN as it is
                            total = builder.select(builder.fcmp_ordered("<", total, low), low, total)
                            total = builder.select(builder.fcmp_ordered(">", total, high), high, total)
                        builder.store(total, vector_at(row, j), align=bytes_each)


# Every tile shape in use, by (rows, vectors). One row wants more columns: its additions wait for one another.
SHAPES = [(rows, vectors) for vectors in (2, 1) for rows in ROWS] + [(1, 8), (1, 4)]
TILES = {f"_tile_{rows}_{vectors}": make_tile(rows, vectors) for rows, vectors in SHAPES}
globals().update(TILES)


def _tiles_of(vectors, heights):
    """Compiled choice among the tiles of one width: ``run(rows, depth, a, b, init, c, gate, lower, upper)``."""
    arguments = "depth, a, b, init, c, gate, lower, upper"
    names = {rows: f"_tile_{rows}_{vectors}" for rows in heights}
    return switch(f"run_{vectors}", names, arguments, f"{{f}}({arguments})", globals())


_run_1, _run_2 = _tiles_of(1, ROWS), _tiles_of(2, ROWS)
_run_4, _run_8 = _tiles_of(4, [1]), _tiles_of(8, [1])


@kernel
def _rows_of_next_tile(left):
    """The tallest tile that ``left`` rows fill."""
    for rows in ROWS:
        if rows <= left:
            return rows
    return 1


@kernel
def product(m, n, depth, a, b, init, c, lower, upper):
    """C[:m, :n] = clamp(init + A B, lower, upper), A (m, depth), B (depth, n), in operand tuples.

    Columns are worked in whole vectors: B's rows, init and C must reach to ``n`` rounded up to the vector width.
    """
    _tiled(m, n, depth, a, b, init, c, (c[0], -1, 0), lower, upper)


@kernel
def gated_product(m, n, depth, a, b, init, c, gate):
    """C[:m, :n] = init + A B, and 0 where a gate is and is not above 0; otherwise as `product`."""
    number = c[0].dtype.type
    _tiled(m, n, depth, a, b, init, c, gate, number(-np.inf), number(np.inf))


@kernel
def _tiled(m, n, depth, a, b, init, c, gate, lower, upper):
    a_array, a_offset, a_row, a_depth = a
    b_array, b_offset, b_row = b
    init_array, init_offset, init_row = init
    c_array, c_offset, c_row = c
    gate_array, gate_offset, gate_row = gate
    lanes = VECTOR_BYTES // c_array.itemsize
    vectors = (n + lanes - 1) // lanes
    v = 0
    while v < vectors:
        left = vectors - v
        width = 2 if left >= 2 else 1
        if m == 1 and left >= 4:
            width = 8 if left >= 8 else 4
        column = v * lanes
        i = 0
        while i < m:
            rows = _rows_of_next_tile(m - i)
            tile_a = (a_array, a_offset + i * a_row, a_row, a_depth)
            tile_b = (b_array, b_offset + column, b_row)
            tile_init = (init_array, init_offset + i * init_row + column, init_row)
            tile_c = (c_array, c_offset + i * c_row + column, c_row)
            tile_gate = (gate_array, gate_offset + i * gate_row + column if gate_offset >= 0 else gate_offset, gate_row)
            if width == 2:
                _run_2(rows, depth, tile_a, tile_b, tile_init, tile_c, tile_gate, lower, upper)
            elif width == 1:
                _run_1(rows, depth, tile_a, tile_b, tile_init, tile_c, tile_gate, lower, upper)
            elif width == 8:
                _run_8(rows, depth, tile_a, tile_b, tile_init, tile_c, tile_gate, lower, upper)
            else:
                _run_4(rows, depth, tile_a, tile_b, tile_init, tile_c, tile_gate, lower, upper)
            i += rows
        v += width
