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

_TARGET = processor.target()
_LANES = _TARGET.vector_bytes // 4
# Latency 4 or 5, two a cycle: ten at least. AVX-512 and arm64 have 32 registers, others 16, two of which are operands.
_CHAINS = 24 if _TARGET.vector_bytes != 32 else 12
_VECTOR = ir.VectorType(ir.FloatType(), _LANES)
OPERATIONS = 2 * _LANES * _CHAINS  # in each iteration


@intrinsic
def _multiply_adds(typing_context, iterations, x):  # type: ignore[no-untyped-def]
    """Run ``iterations`` times `_CHAINS` independent vector multiply-adds; return a sum, so that none is left out."""

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
        sums = [builder.phi(_VECTOR) for _ in range(_CHAINS)]
        i.add_incoming(ir.Constant(i64, 0), before)
        after = builder.add(i, ir.Constant(i64, 1))
        i.add_incoming(after, loop)
        for k, total in enumerate(sums):
            # Other starts: chains that are alike would be merged into one.
            total.add_incoming(ir.Constant(_VECTOR, [float(k + 1)] * _LANES), before)
            if _TARGET.fma:
                grown = builder.call(fma, [total, factor, factor])
            else:
                grown = builder.fadd(builder.fmul(total, factor), factor)
            total.add_incoming(grown, loop)
        builder.cbranch(builder.icmp_signed("<", after, iterations), loop, done)
        builder.position_at_end(done)
        result = sums[0]
        for total in sums[1:]:
            result = builder.fadd(result, total)
        return builder.extract_element(result, ir.Constant(ir.IntType(32), 0))

    return types.float32(types.int64, types.float32), codegen


@njit(parallel=True)
def _run(threads, iterations, out):  # type: ignore[no-untyped-def]
    for thread in prange(threads):
        # Below one, so that sums stay finite; unknown to the compiler.
        out[thread] = _multiply_adds(iterations, np.float32(0.5))


class Limit:
    """A job for a worker: ``run(count)`` does ``count * operations`` floating-point operations."""

    operations: int

    def __init__(self, threads: int) -> None:
        numba.set_num_threads(threads)
        self._threads, self._iterations = threads, 100_000
        self._out = np.zeros(threads, np.float32)
        self.operations = threads * self._iterations * OPERATIONS

    def run(self, count: int) -> None:
        """Do the operations of ``count`` jobs."""
        _run(self._threads, self._iterations * count, self._out)
