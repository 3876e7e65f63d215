"""The silicon's limit: fused multiply-adds on registers alone, as many at once as hide their latency.

Nothing that multiplies float32 matrices can be faster. Measured in the same run as everything else, because clocks,
and neighbours on a shared machine, change it.
"""

from __future__ import annotations

import numba
import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from nbdense._compile import processor
from nbdense.engine.kernels.microkernel import keep_rolled

_TARGET = processor.target()
_LANES = _TARGET.vector_bytes // 4
# Latency 4 or 5, two a cycle: ten at least, and as many as there are registers beside the operands' for the loop's own
# instructions to be few. Without fused ones each multiplication takes a register more.
CHAINS = {32: 24, 16: 12 if _TARGET.fma else 8}[_TARGET.registers]
_VECTOR = ir.VectorType(ir.FloatType(), _LANES)
OPERATIONS = 2 * _LANES * CHAINS  # in each iteration


@intrinsic
def _multiply_adds(typing_context, iterations, x):  # type: ignore[no-untyped-def]
    """Run ``iterations`` times `CHAINS` independent vector multiply-adds; return a sum, so that none is left out."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        iterations, x = arguments
        i64 = ir.IntType(64)
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        factor = builder.shuffle_vector(
            builder.insert_element(undefined, x, ir.Constant(ir.IntType(32), 0)), undefined, lanes
        )
        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fma.v{_LANES}f32"
        )
        before = builder.block
        loop, done = builder.append_basic_block("loop"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        i = builder.phi(i64)
        sums = [builder.phi(_VECTOR) for _ in range(CHAINS)]
        i.add_incoming(ir.Constant(i64, 0), before)
        after = builder.add(i, ir.Constant(i64, 1))
        i.add_incoming(after, loop)
        grown = []
        for k, total in enumerate(sums):
            # Other starts: chains that are alike would be merged into one.
            total.add_incoming(ir.Constant(_VECTOR, [float(k + 1)] * _LANES), before)
            if _TARGET.fma:
                grown.append(builder.call(fma, [total, factor, factor]))
            else:
                grown.append(builder.fadd(builder.fmul(total, factor), factor))
            total.add_incoming(grown[-1], loop)
        # What follows reads what the last turn made: if it read what that turn began with, each turn would have to keep
        # both, in registers that there are not. And an unrolled loop's sums move from register to register.
        keep_rolled(builder, builder.cbranch(builder.icmp_signed("<", after, iterations), loop, done))
        builder.position_at_end(done)
        result = grown[0]
        for total in grown[1:]:
            result = builder.fadd(result, total)
        return builder.extract_element(result, ir.Constant(ir.IntType(32), 0))

    return types.float32(types.int64, types.float32), codegen


@njit(nogil=True)
def one_thread(iterations, x):  # type: ignore[no-untyped-def]
    """Return the sum of the chains after so many turns of the loop."""
    return _multiply_adds(iterations, x)


@njit(parallel=True)
def _run(threads, iterations, factors, out):  # type: ignore[no-untyped-def]
    for thread in prange(threads):
        out[thread] = _multiply_adds(iterations, factors[thread])


class Limit:
    """A job for a worker: ``run(count)`` does ``count * operations`` floating-point operations."""

    operations: int

    def __init__(self, threads: int) -> None:
        numba.set_num_threads(threads)
        self._threads, self._iterations = threads, 100_000
        self._out = np.zeros(threads, np.float32)
        self._factors = np.full(threads, 0.5, np.float32)  # below one, so that sums stay finite
        self.operations = threads * self._iterations * OPERATIONS

    def run(self, count: int) -> None:
        """Do the operations of ``count`` jobs."""
        _run(self._threads, self._iterations * count, self._factors, self._out)
