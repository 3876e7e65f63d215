"""Four numbers at once: 16-byte loads and stores of float32, which the device does as fast as those of one.

A place that is not on a 16-byte boundary ends the whole process's use of the GPU, so all are, by what they add up from:

- Device memory begins on bounds of 256 bytes, and arrays that kernels get are whole allocations; shared memory is
  declared with `ALIGNED`, for numba aligns it as the dtype asks, on 4 bytes.
- Places are multiples of four elements: offsets of parameters and the elements between a kernel's rows are of 16
  (`leading_dimension`), columns in shared memory are `Tile.ld` apart and rows of slices a width and 4, rows and columns
  of a thread begin at multiples of 4, slices at multiples of 8. What callers lay out, inputs and outputs without
  padding, is looked at first.

The twins hold all of it to the second.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types

from nbdense.backends.cuda.device import SIMULATED, intrinsic

# Behind the dtype of a shared array that vectors lie in; the simulator's know of none.
ALIGNED = "" if SIMULATED else ", alignment=16"


def _load_plain(values, at):
    _check(at)
    return values[at], values[at + type(at)(1)], values[at + type(at)(2)], values[at + type(at)(3)]


def _store_plain(values, at, a, b, c, d):
    _check(at)
    for k, value in enumerate((a, b, c, d)):
        values[at + type(at)(k)] = value


def _check(at):
    assert at % 4 == 0, f"a vector at element {at}, which is on no 16-byte boundary"


def _place(context, builder, array_type, array, at):
    base = context.make_array(array_type)(context, builder, array).data
    vector = ir.VectorType(base.type.pointee, 4)
    return vector, builder.bitcast(builder.gep(base, [at]), vector.as_pointer(base.type.addrspace))


def _load(typing_context, values, at):
    """Return values[at : at + 4] as a tuple; the place is on a 16-byte boundary."""
    signature = types.UniTuple(values.dtype, 4)(values, types.uint64)

    def codegen(context, builder, signature, arguments):
        _, place = _place(context, builder, signature.args[0], *arguments)
        loaded = builder.load(place, align=16)
        parts = [builder.extract_element(loaded, ir.Constant(ir.IntType(32), k)) for k in range(4)]
        return context.make_tuple(builder, signature.return_type, parts)

    return signature, codegen


def _store(typing_context, values, at, a, b, c, d):
    """Set values[at : at + 4]; the place is on a 16-byte boundary."""
    signature = types.void(values, types.uint64, *[values.dtype] * 4)

    def codegen(context, builder, signature, arguments):
        array, at, *parts = arguments
        vector, place = _place(context, builder, signature.args[0], array, at)
        packed = ir.Constant(vector, ir.Undefined)
        for k, part in enumerate(parts):
            packed = builder.insert_element(packed, part, ir.Constant(ir.IntType(32), k))
        builder.store(packed, place, align=16)
        return context.get_dummy_value()

    return signature, codegen


load4 = intrinsic(_load, _load_plain)
store4 = intrinsic(_store, _store_plain)
