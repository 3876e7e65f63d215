"""Transposing a block of a matrix in registers: log2(lanes) rounds of two-vector shuffles, a row a vector."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types

from nbdense._compile.policy import intrinsic, kernel
from nbdense.engine.kernels.microkernel import I32, I64, VECTOR_BYTES, operand


def _plain_block(source, target, valid):
    values, offset, row = source
    out, out_offset, out_row = target
    lanes = VECTOR_BYTES // out.itemsize
    for i in range(lanes):
        for j in range(lanes):
            out[out_offset + j * out_row + i] = values[offset + i * row + j] if i < valid else 0


@intrinsic(_plain_block)
def transpose_block(typing_context, source, target, valid):
    """Transpose a square block of one vector's lanes a side; source rows from ``valid`` on count as zero.

    Operands are (array, offset, row_stride) as the microkernel's; the rows that count as zero are not read.
    """
    signature = types.void(source, target, types.int64)

    def codegen(context, builder, signature, arguments):
        source, target, valid = arguments
        source_type, target_type, _ = signature.args
        from_, (row,) = operand(context, builder, source_type, source)
        to, (out_row,) = operand(context, builder, target_type, target)
        bytes_each = target_type[0].dtype.bitwidth // 8
        lanes = VECTOR_BYTES // bytes_each
        vector = ir.VectorType(from_.type.pointee, lanes)
        zero = ir.Constant(vector, [0.0] * lanes)
        rows = []
        for i in range(lanes):
            inside = builder.icmp_signed("<", ir.Constant(I64, i), valid)
            stride = builder.select(inside, builder.mul(row, ir.Constant(I64, i)), ir.Constant(I64, 0))
            at = builder.bitcast(builder.gep(from_, [stride]), vector.as_pointer())
            rows.append(builder.select(inside, builder.load(at, align=bytes_each), zero))
        for i, value in enumerate(_transposed(builder, rows)):
            at = builder.gep(to, [builder.mul(out_row, ir.Constant(I64, i))])
            builder.store(value, builder.bitcast(at, vector.as_pointer()), align=bytes_each)
        return context.get_dummy_value()

    return signature, codegen


def _transposed(builder, rows):
    """Swap quarter blocks, then their quarters, and so on down to single lanes."""
    lanes = len(rows)
    step = lanes // 2
    while step:
        low = [j if not j & step else lanes + j - step for j in range(lanes)]
        high = [j + step if not j & step else lanes + j for j in range(lanes)]
        masks = [ir.Constant(ir.VectorType(I32, lanes), mask) for mask in (low, high)]
        for i in range(lanes):
            if not i & step:
                pair = rows[i], rows[i + step]
                rows[i], rows[i + step] = (builder.shuffle_vector(*pair, mask) for mask in masks)
        step //= 2
    return rows


@kernel
def transpose(source, target, m, n):
    """Transpose an (m, n) matrix; target's rows are written up to m in whole vectors, with zeros.

    n is rounded up to whole vectors too: source's rows must reach so far, and target must have so many rows.
    """
    values, offset, row = source
    out, out_offset, out_row = target
    lanes = VECTOR_BYTES // out.itemsize
    for i in range(0, m, lanes):
        for j in range(0, n, lanes):
            block = (values, offset + i * row + j, row)
            transpose_block(block, (out, out_offset + j * out_row + i, out_row), m - i)
