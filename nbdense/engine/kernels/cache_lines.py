"""Cache lines that a thread brings near while it computes something else: to be read, and to be written to.

Where two cores have read a line, the one that writes to it waits until the other has given it up. A Zen 4 does that for
one store after the other, 6 to 9 ns a line between cores that share a third level of cache and 28 between others, and
a prefetch for writing leaves such a line as it is: it is at hand, only not owned. A store takes it, and waits in the
store buffer while products, which store little, go on.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types

from nbdense._compile.policy import intrinsic, kernel

LINE_BYTES = 64
FIRST_LEVEL, SECOND_LEVEL = 3, 2  # of cache, by LLVM's names


def prefetch(builder, pointer, level=FIRST_LEVEL):
    """Emit a prefetch of one cache line into a level of cache: a hint, which never faults."""
    byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    signature = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
    function = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
    to_read, keep, data = (ir.Constant(number, n) for n in (0, level, 1))
    builder.call(function, [builder.bitcast(pointer, byte), to_read, keep, data])


def _asking(level):
    """Make ``ask(data, start, size)``: bring ``size`` bytes from an element on into a level of cache.

    The data are an array or a `memory`; any address will do.
    """

    @intrinsic(lambda data, start, size: None)
    def ask(typing_context, data, start, size):
        signature = types.void(data, types.int64, types.int64)

        def codegen(context, builder, signature, arguments):
            data, start, size = arguments
            if isinstance(signature.args[0], types.Array):
                data = context.make_array(signature.args[0])(context, builder, data).data
            base = builder.bitcast(builder.gep(data, [start]), ir.IntType(8).as_pointer())
            line = ir.Constant(size.type, LINE_BYTES)
            lines = builder.sdiv(builder.add(size, ir.Constant(size.type, LINE_BYTES - 1)), line)
            with cgutils.for_range(builder, lines) as loop:
                prefetch(builder, builder.gep(base, [builder.mul(loop.index, line)]), level)
            return context.get_dummy_value()

        return signature, codegen

    return ask


ask_near, ask = _asking(FIRST_LEVEL), _asking(SECOND_LEVEL)


def _plain_own(array, index):
    array[index] = array[index]


@intrinsic(_plain_own)
def _own(typing_context, array, index):
    """Write an element of a `memory` back as it is, by instructions that no compiler leaves out: atomic ones."""

    def codegen(context, builder, signature, arguments):
        bits = ir.IntType(signature.args[0].dtype.bitwidth)
        place = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), bits.as_pointer())
        value = builder.load_atomic(place, "monotonic", bits.width // 8)
        builder.store_atomic(value, place, "monotonic", bits.width // 8)
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


@kernel
def own(operand, row, rows, column, columns, line):
    """Own the cache lines that begin in a block of a matrix ``(memory, offset, row_stride)``.

    A line is of ``line`` elements, and each row of the matrix begins with one.
    """
    array, offset, stride = operand
    first = (column + line - 1) // line * line
    for i in range(row, row + rows):
        for j in range(first, column + columns, line):
            _own(array, offset + i * stride + j)
