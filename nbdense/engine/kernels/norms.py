"""Sums of sizes and of squares over a range of a vector, for penalties and for clipping."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from nbdense._compile.policy import intrinsic
from nbdense.engine.kernels.microkernel import I64, VECTOR_BYTES


def _plain_norms(values, low, high):
    sizes, squares = 0.0, 0.0
    for i in range(low, high):
        value = np.float64(values[i])
        sizes += abs(value)
        squares += value * value
    return sizes, squares


@intrinsic(_plain_norms)
def norms(typing_context, values, low, high):
    """Return (sum of sizes, sum of squares) of values[low:high], in float64; high - low is a multiple of 16.

    Lanes are summed by themselves and added up at the end, in an order that depends on the CPU's vectors only.
    """
    element = values.dtype
    signature = types.UniTuple(types.float64, 2)(values, types.int64, types.int64)

    def codegen(context, builder, signature, arguments):
        values, low, high = arguments
        lanes = VECTOR_BYTES // 8
        narrow = ir.VectorType(context.get_value_type(element), lanes)
        wide = ir.VectorType(ir.DoubleType(), lanes)
        base = context.make_array(signature.args[0])(context, builder, values).data
        zero = ir.Constant(wide, [0.0] * lanes)
        totals = [cgutils.alloca_once_value(builder, zero) for _ in range(2)]
        size = cgutils.get_or_insert_function(builder.module, ir.FunctionType(wide, [wide]), f"llvm.fabs.v{lanes}f64")
        with cgutils.for_range_slice(builder, low, high, ir.Constant(I64, lanes), I64, inc=True) as (i, _):
            place = builder.bitcast(builder.gep(base, [i]), narrow.as_pointer())
            value = builder.load(place, align=element.bitwidth // 8)
            if element.bitwidth == 32:
                value = builder.fpext(value, wide)
            for total, term in zip(totals, (builder.call(size, [value]), builder.fmul(value, value)), strict=True):
                builder.store(builder.fadd(builder.load(total), term), total)
        sums = []
        for total in totals:
            vector = builder.load(total)
            added = builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))
            for lane in range(1, lanes):
                added = builder.fadd(added, builder.extract_element(vector, ir.Constant(ir.IntType(32), lane)))
            sums.append(added)
        return context.make_tuple(builder, signature.return_type, sums)

    return signature, codegen
