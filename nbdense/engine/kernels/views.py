"""Views of arrays that kernels are lent: a pointer and a length. To numba a slice is sixty instructions."""

from __future__ import annotations

from numba.core import types

from nbdense._compile.policy import intrinsic


def _populated(context, builder, result, data, size):
    """Return an array of a type: memory of somebody else's, which is not counted."""
    made = context.make_array(result)(context, builder)
    itemsize = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(result.dtype)))
    context.populate_array(
        made,
        data=builder.bitcast(data, made.data.type),
        shape=[size],
        strides=[itemsize],
        itemsize=itemsize,
        meminfo=None,
    )
    return made._getvalue()


def _like(array, dtype):
    return types.Array(dtype, 1, "C", readonly=not array.mutable, aligned=array.aligned)


@intrinsic(lambda array: array.reshape(-1))
def flat(typing_context, array):
    """Return a C-ordered array's elements in one dimension."""
    result = _like(array, array.dtype)

    def codegen(context, builder, signature, arguments):
        source = context.make_array(signature.args[0])(context, builder, arguments[0])
        return _populated(context, builder, result, source.data, source.nitems)

    return result(array), codegen


@intrinsic(lambda array, first, count: array[first : first + count])
def stretch(typing_context, array, first, count):
    """Return ``count`` elements of a one-dimensional C-ordered array from ``first`` on, all of which it has."""
    result = _like(array, array.dtype)

    def codegen(context, builder, signature, arguments):
        array, first, count = arguments
        source = context.make_array(signature.args[0])(context, builder, array)
        return _populated(context, builder, result, builder.gep(source.data, [first]), count)

    return result(array, types.int64, types.int64), codegen


@intrinsic(lambda data, begin, end, dtype: data[begin:end].view(dtype))
def part(typing_context, data, begin, end, dtype):
    """Return bytes ``begin`` to ``end`` as elements of a dtype."""
    result = _like(data, dtype.dtype)

    def codegen(context, builder, signature, arguments):
        data, begin, end, _ = arguments
        source = context.make_array(signature.args[0])(context, builder, data)
        size = context.get_constant(types.int64, context.get_abi_sizeof(context.get_data_type(result.dtype)))
        count = builder.sdiv(builder.sub(end, begin), size)
        return _populated(context, builder, result, builder.gep(source.data, [begin]), count)

    return result(data, types.int64, types.int64, dtype), codegen
