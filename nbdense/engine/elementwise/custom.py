"""Calling loops that were compiled by themselves, on demand; a loop's address is data.

A user's activation, loss or optimizer is one, and so are the table's activations that the program has not compiled in.
An activation's or loss's is ``double loop(T* a, T* b, T* c, int64 count, double p, double q, double r)``, an
optimizer's is ``void loop(T* params, T* state, int64 row, int64 count, double rate, int64 iteration, double* hyper)``
with ``row`` elements between the rows of its state; `nbdense._compile.loops` makes them.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types

from nbdense._compile.loops import LOOPS
from nbdense._compile.policy import intrinsic


def _call_plain(address, values, a, b, c, count, p, q, r):
    a, b, c, count = int(a), int(b), int(c), int(count)
    return LOOPS[int(address)](values[a : a + count], values[b : b + count], values[c : c + count], p, q, r)


@intrinsic(_call_plain)
def call_loop(typing_context, address, values, a, b, c, count, p, q, r):
    """Run the loop at ``address`` on ``count`` elements from each of three offsets, with three numbers."""
    signature = types.float64(types.int64, values, *[types.int64] * 4, *[types.float64] * 3)

    def codegen(context, builder, signature, arguments):
        address, values, *offsets, count, p, q, r = arguments
        base = context.make_array(signature.args[1])(context, builder, values).data
        given = [*(builder.gep(base, [offset]) for offset in offsets), count, p, q, r]
        kind = ir.FunctionType(p.type, [value.type for value in given])
        return builder.call(builder.inttoptr(address, kind.as_pointer()), given)

    return signature, codegen


def _step_plain(address, params, state, low, high, rate, iteration, hyper):
    LOOPS[int(address)](params[low:high], state[:, low:high], rate, int(iteration), hyper)


@intrinsic(_step_plain)
def call_step(typing_context, address, params, state, low, high, rate, iteration, hyper):
    """Run the optimizer's loop at ``address`` on parameters low..high, which are in its state's columns too."""
    signature = types.void(types.int64, params, state, types.int64, types.int64, types.float64, types.int64, hyper)

    def codegen(context, builder, signature, arguments):
        address, params, state, low, high, rate, iteration, hyper = arguments
        weights, rows, numbers = (
            context.make_array(kind)(context, builder, array)
            for kind, array in zip((*signature.args[1:3], signature.args[7]), (params, state, hyper), strict=True)
        )
        row = cgutils.unpack_tuple(builder, rows.shape)[1]
        places = [builder.gep(weights.data, [low]), builder.gep(rows.data, [low])]
        values = [*places, row, builder.sub(high, low), rate, iteration, numbers.data]
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        builder.call(builder.inttoptr(address, kind.as_pointer()), values)
        return context.get_dummy_value()

    return signature, codegen
