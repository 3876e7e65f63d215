"""Memory for the length of a call. NumPy's would be counted, and takes numba a tenth of a second to compile."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from nbdense._compile.policy import intrinsic

LINE = 64  # where it starts: vectors lie on whole cache lines
_I64, _BYTES = ir.IntType(64), ir.IntType(8).as_pointer()


@intrinsic(lambda count, like: np.empty(count, like if isinstance(like, type) else like.dtype))
def allocate(typing_context, count, like):
    """Return an array of ``count`` elements of a dtype, or an array's; `release` gives its memory back."""
    result = types.Array(like.dtype, 1, "C")

    def codegen(context, builder, signature, arguments):
        made = context.make_array(result)(context, builder)
        itemsize = ir.Constant(_I64, context.get_abi_sizeof(context.get_data_type(like.dtype)))
        size = builder.add(builder.mul(arguments[0], itemsize), ir.Constant(_I64, 2 * LINE))
        allocator = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_BYTES, [_I64]), "NRT_Allocate")
        memory = builder.call(allocator, [size])
        cgutils.guard_memory_error(context, builder, memory, "Allocation failed")
        # Where it begins is written down before the first line.
        begin = builder.ptrtoint(memory, _I64)
        line = builder.and_(builder.add(begin, ir.Constant(_I64, 2 * LINE - 1)), ir.Constant(_I64, -LINE))
        builder.store(begin, builder.inttoptr(builder.sub(line, ir.Constant(_I64, 8)), _I64.as_pointer()))
        context.populate_array(
            made,
            data=builder.inttoptr(line, made.data.type),
            shape=[arguments[0]],
            strides=[itemsize],
            itemsize=itemsize,
            meminfo=None,
        )
        return made._getvalue()

    return result(types.int64, like), codegen


@intrinsic(lambda array: None)
def release(typing_context, array):
    """Give an array's memory back, which is `allocate`'s."""

    def codegen(context, builder, signature, arguments):
        line = builder.ptrtoint(context.make_array(array)(context, builder, arguments[0]).data, _I64)
        begin = builder.load(builder.inttoptr(builder.sub(line, ir.Constant(_I64, 8)), _I64.as_pointer()))
        free = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), [_BYTES]), "NRT_Free")
        builder.call(free, [builder.inttoptr(begin, _BYTES)])
        return context.get_dummy_value()

    return types.void(array), codegen
