"""Cache lines that a thread is going to write to, taken from the other cores while it computes something else.

Where two cores have read a line, the one that writes to it waits until the other has given it up. A Zen 4 does that for
one store after the other, 6 to 9 ns a line between cores that share a third level of cache and 28 between others, and
a prefetch for writing leaves such a line as it is: it is at hand, only not owned. A store takes it, and waits in the
store buffer while products, which store little, go on.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types

from nbdense._compile.policy import intrinsic, kernel


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
