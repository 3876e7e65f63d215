"""Calling loops that were compiled by themselves: a user's own activation or loss is one, and its address is data.

A loop is ``double loop(T* a, T* b, T* c, int64 count, double scale)``; `nbdense._compile.loops.loop` makes them.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types

from nbdense._compile.loops import LOOPS
from nbdense._compile.policy import intrinsic


def _call_plain(address, values, a, b, c, count, scale):
    a, b, c, count = int(a), int(b), int(c), int(count)
    return LOOPS[int(address)](values[a : a + count], values[b : b + count], values[c : c + count], scale)


@intrinsic(_call_plain)
def call_loop(typing_context, address, values, a, b, c, count, scale):
    """Run the loop at ``address`` on ``count`` elements from each of three offsets in ``values``."""
    signature = types.float64(types.int64, values, *[types.int64] * 4, types.float64)

    def codegen(context, builder, signature, arguments):
        address, values, *offsets, count, scale = arguments
        base = context.make_array(signature.args[1])(context, builder, values).data
        places = [builder.gep(base, [offset]) for offset in offsets]
        kind = ir.FunctionType(scale.type, [*(place.type for place in places), count.type, scale.type])
        return builder.call(builder.inttoptr(address, kind.as_pointer()), [*places, count, scale])

    return signature, codegen
