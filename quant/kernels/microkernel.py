"""The integer microkernel: a tile of bias + X W in int32 registers over the whole depth; X is u8, W is s8.

Weights are packed once, four of a column side by side: ``[depth / 4][columns][4]`` bytes, zeros behind the depth
and the last column. Four activations of a row are one 32-bit number, which meets a column's four weights in a lane:

- x86 with VNNI (AVX-512, or AVX on CPUs without it): vpdpbusd, four products and their sum in one instruction;
- other x86: bytes widened to int16, those at even places and those at odd ones, and pmaddwd; pmaddubsw would saturate;
- arm64 with i8mm: usdot, as vpdpbusd;
- arm64 with dotprod: sdot, of s8 and s8: it gets the activations less 128 (`OFFSET`), and the bias makes up for that;
- other arm64: bytes widened to int16, whose products fit int16, and sadalp;
- elsewhere: the four products one by one, in int32.

Sums wrap modulo 2**32 and nothing saturates on the way, so all of these give the same bits. What activations hold
behind the depth changes nothing: the weights there are zero.

Operands are tuples ``(array, offset, row stride)``, counted in elements, as in nbdense.engine.kernels.product; a
row of packed weights is a step of four in depth.
"""

from __future__ import annotations

import functools
import re

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types

from nbdense._compile import processor
from nbdense._compile.policy import intrinsic, kernel, switch
from nbdense.engine.kernels.microkernel import keep_rolled, operand, splat
from nbdense.engine.kernels.views import stretch

_DOTS = ("vnni", "usdot", "sdot")  # ways that take four products in one instruction
_IN_SHORTS = ("pmaddwd", "sadalp")  # and those that widen bytes to int16
GROUP = 4  # activations of a row, and weights of a column, that lie side by side
_I32, _I64 = ir.IntType(32), ir.IntType(64)

# Summed products of u8 (or s8) and s8, which LLVM turns into vpdpbusd, usdot or sdot where the CPU has it. Calling one
# of these to see if it is there would end the process where it is not.
_PROBE = """
define i32 @probe(ptr %p, ptr %q) {{
  %a = load <{n} x i8>, ptr %p
  %b = load <{n} x i8>, ptr %q
  %x = {extend} <{n} x i8> %a to <{n} x i32>
  %y = sext <{n} x i8> %b to <{n} x i32>
  %z = mul <{n} x i32> %x, %y
  %s = call i32 @llvm.vector.reduce.add.v{n}i32(<{n} x i32> %z)
  ret i32 %s
}}
declare i32 @llvm.vector.reduce.add.v{n}i32(<{n} x i32>)
"""


@functools.cache
def instructions() -> tuple[str, int]:
    """Return the instructions that multiply on the CPU that numba compiles for, and bytes a vector.

    "vnni" or "pmaddwd"; on arm64 "usdot", "sdot" or "sadalp"; elsewhere "portable".
    """
    if processor.is_arm64():
        for method, extend in (("usdot", "zext"), ("sdot", "sext")):
            if re.search(rf"\b{method}\b", processor.assembly(_PROBE.format(n=16, extend=extend))):
                return method, 16
        return "sadalp", 16
    for width, letter in ((64, "z"), (32, "y")):
        if processor.target().vector_bytes >= width:
            text = processor.assembly(_PROBE.format(n=width, extend="zext"))
            if re.search(rf"vpdpbusd.*%{letter}mm", text):
                return "vnni", width
    if "%xmm" in processor.assembly(_PROBE.format(n=16, extend="zext")):
        return "pmaddwd", min(32, processor.target().vector_bytes)
    return "portable", 16


def offset_of(method: str) -> int:
    """Return the number that these instructions take off the activations."""
    return 128 if method == "sdot" else 0


METHOD, VECTOR_BYTES = instructions()
LANES = VECTOR_BYTES // 4
OFFSET = offset_of(METHOD)

# Rows a tile of two vectors: accumulators, the vectors of W (pmaddwd and sadalp have two of each) and a broadcast fill
# the registers. One row takes more vectors, since its additions wait for one another.
ROWS = {
    ("vnni", 64): (12, 4, 1),
    ("vnni", 32): (6, 2, 1),
    ("usdot", 16): (12, 4, 1),
    ("sdot", 16): (12, 4, 1),
    ("sadalp", 16): (8, 4, 1),
}.get((METHOD, VECTOR_BYTES), (4, 1))
SHAPES = [(rows, vectors) for vectors in (2, 1) for rows in ROWS] + [(1, 4)]
if VECTOR_BYTES == 64:
    SHAPES.append((1, 8))


def _plain_tile(rows, columns, activation_offset):
    def tile(groups, x, w, bias, out):
        x, x_offset, x_row = x
        w, w_offset, w_row = w
        bias, bias_offset = bias
        out, out_offset, out_row = out
        for i in range(rows):
            for j in range(columns):
                total = np.int32(bias[bias_offset + j])
                for k in range(groups):
                    for byte in range(GROUP):
                        value = np.int32(x[x_offset + i * x_row + GROUP * k + byte]) - np.int32(activation_offset)
                        weight = np.int32(w[w_offset + k * w_row + GROUP * j + byte])
                        total = np.int32(total + value * weight)
                out[out_offset + i * out_row + j] = total

    return tile


def make_tile(rows, vectors, method=METHOD, width=VECTOR_BYTES):
    """Make the kernel for a tile of ``rows`` by ``vectors`` of ``width`` bytes, as an intrinsic with its plain twin."""

    @intrinsic(_plain_tile(rows, vectors * width // 4, offset_of(method)))
    def tile(typing_context, groups, x, w, bias, out):
        signature = types.void(types.int64, x, w, bias, out)

        def codegen(context, builder, signature, arguments):
            groups, *operands = arguments
            placed = [operand(context, builder, *one) for one in zip(signature.args[1:], operands, strict=True)]
            IntegerEmitter(builder, rows, vectors, method, width).tile(groups, *placed)
            return context.get_dummy_value()

        return signature, codegen

    return tile


def _number(n):
    return ir.Constant(_I64, n)


class IntegerEmitter:
    """Emitter of one tile: ``rows`` rows of ``vectors`` vectors of int32."""

    def __init__(self, builder, rows, vectors, method, width):
        self.builder, self.rows, self.vectors = builder, rows, vectors
        self.method, self.width = method, width
        self.sums = ir.VectorType(_I32, width // 4)
        self.shorts = ir.VectorType(ir.IntType(16), width // 2)

    def tile(self, groups, x, w, bias, out):
        """Emit the whole kernel; operands are (pointer, strides)."""
        builder = self.builder
        (x, (x_row,)), (w, (w_row,)), (bias, _), (out, (out_row,)) = x, w, bias, out
        start = [self.load(bias, j) for j in range(self.vectors)]
        # One pointer for four rows, with the stride's multiples in registers: a pointer a row would spill.
        firsts = [builder.gep(x, [builder.mul(x_row, _number(i))]) for i in range(0, self.rows, 4)]
        multiples = [builder.mul(x_row, _number(i)) for i in range(min(4, self.rows))]
        entry, loop = builder.block, builder.append_basic_block("depth.loop")
        done = builder.append_basic_block("depth.done")
        builder.branch(loop)
        builder.position_at_end(loop)
        k, w_now = builder.phi(_I64), builder.phi(w.type)
        sums = [[builder.phi(self.sums) for _ in start] for _ in range(self.rows)]
        x_now = [builder.phi(x.type) for _ in firsts]
        weights = [self.weights(self.load(w_now, j)) for j in range(self.vectors)]
        added = []
        for i, row in enumerate(sums):
            at = builder.gep(x_now[i // 4], [multiples[i % 4]])
            four = builder.load(builder.bitcast(at, _I32.as_pointer()), align=1)
            values = self.activations(splat(builder, four, self.sums))
            added.append([self.add(total, values, weights[j]) for j, total in enumerate(row)])
        k_next = builder.add(k, _number(1))
        turns = [(k, _number(0), k_next), (w_now, w, builder.gep(w_now, [w_row]))]
        turns += [(now, first, builder.gep(now, [_number(GROUP)])) for now, first in zip(x_now, firsts, strict=True)]
        for i in range(self.rows):
            turns += zip(sums[i], start, added[i], strict=True)
        for phi, first, following in turns:
            phi.add_incoming(first, entry)
            phi.add_incoming(following, loop)
        keep_rolled(builder, builder.cbranch(builder.icmp_signed("<", k_next, groups), loop, done))
        builder.position_at_end(done)
        for i, row in enumerate(added):
            target = builder.gep(out, [builder.mul(out_row, _number(i))])
            for j, total in enumerate(row):
                builder.store(total, self.place(target, j), align=4)

    def place(self, pointer, j):
        """Emit the pointer to the j-th vector from a pointer to a number."""
        vectors = self.builder.bitcast(pointer, self.sums.as_pointer())
        return self.builder.gep(vectors, [_number(j)])

    def load(self, pointer, j):
        """Load the j-th vector from a pointer to a number."""
        return self.builder.load(self.place(pointer, j), align=1)

    def _constant(self, n, vector):
        return ir.Constant(vector, [n] * vector.count)

    def _shorts(self, value):
        return self.builder.bitcast(value, self.shorts)

    def weights(self, lanes):
        """Emit a vector of weights as `add` wants it."""
        builder = self.builder
        if self.method in _DOTS:
            return [lanes]
        if self.method in _IN_SHORTS:
            shorts, eight = self._shorts(lanes), self._constant(8, self.shorts)
            return [builder.ashr(builder.shl(shorts, eight), eight), builder.ashr(shorts, eight)]
        top = self._constant(24, self.sums)
        return [builder.ashr(builder.shl(lanes, self._constant(n, self.sums)), top) for n in (24, 16, 8, 0)]

    def activations(self, lanes):
        """Emit four activations in every lane as `add` wants them."""
        builder = self.builder
        if self.method in _DOTS:
            signs = self._constant(0x80808080 - 2**32, self.sums)
            return [builder.xor(lanes, signs) if offset_of(self.method) else lanes]
        if self.method in _IN_SHORTS:
            shorts = self._shorts(lanes)
            low = builder.and_(shorts, self._constant(255, self.shorts))
            return [low, builder.lshr(shorts, self._constant(8, self.shorts))]
        low = self._constant(255, self.sums)
        return [builder.and_(builder.lshr(lanes, self._constant(n, self.sums)), low) for n in (0, 8, 16, 24)]

    def add(self, total, values, weights):
        """Emit ``total`` plus the products of four bytes in every lane."""
        builder = self.builder
        if self.method in _DOTS:
            arguments = [total, values[0], weights[0]]
            if self.method == "vnni":
                return builder.call(self._function(f"llvm.x86.avx512.vpdpbusd.{8 * self.width}", arguments), arguments)
            arguments[1:] = [builder.bitcast(lanes, ir.VectorType(ir.IntType(8), 16)) for lanes in arguments[1:]]
            return builder.call(self._function(f"llvm.aarch64.neon.{self.method}.v4i32.v16i8", arguments), arguments)
        for value, weight in zip(values, weights, strict=True):
            if self.method == "pmaddwd":
                name = "llvm.x86.avx2.pmadd.wd" if self.width == 32 else "llvm.x86.sse2.pmadd.wd"
                product = builder.call(self._function(name, [value, weight]), [value, weight])
            elif self.method == "sadalp":
                pairs = builder.mul(value, weight)  # u8 times s8 fits int16
                product = builder.call(self._function("llvm.aarch64.neon.saddlp.v4i32.v8i16", [pairs]), [pairs])
            else:
                product = builder.mul(value, weight)
            total = builder.add(total, product)
        return total

    def _function(self, name, arguments):
        kind = ir.FunctionType(self.sums, [argument.type for argument in arguments])
        return cgutils.get_or_insert_function(self.builder.module, kind, name)


# Every tile shape in use, by (rows, vectors).
TILES = {f"_tile_{rows}_{vectors}": make_tile(rows, vectors) for rows, vectors in SHAPES}
globals().update(TILES)
_ARGUMENTS = "groups, x, w, bias, out"
_CODES = {100 * rows + vectors: f"_tile_{rows}_{vectors}" for rows, vectors in SHAPES}
_run_tile = switch("_run_tile", _CODES, _ARGUMENTS, f"{{f}}({_ARGUMENTS})", globals(), inline=True)


@kernel
def integer_product(m, n, depth, x, w, bias, tile, ld):
    """Compute tile[i, j] = bias[j] + sum over k of (x[i, k] - OFFSET) w[k, j] modulo 2**32, of m rows and n columns.

    x : (uint8 array, offset, row stride), rows readable to a whole number of groups
    w : (int8 array, offset, row stride), packed; bias : (int32 array, offset)
    tile : int32 array, rows ``ld`` apart; w, bias and tile reach to ``n`` rounded up to 16 columns
    """
    x_array, x_offset, x_row = x
    w_array, w_offset, w_row = w
    bias_array, bias_offset = bias
    groups = (depth + GROUP - 1) // GROUP
    vectors = (n + LANES - 1) // LANES
    i = 0
    while i < m:
        rows = 1
        for height in ROWS:
            if height <= m - i:
                rows = height
                break
        tile_x = (x_array, np.int64(x_offset + i * x_row), np.int64(x_row))
        v = 0
        while v < vectors:
            left = vectors - v
            width = 2 if left >= 2 else 1
            if rows == 1 and left >= 4:
                width = 8 if VECTOR_BYTES == 64 and left >= 8 else 4
            column = v * LANES
            tile_w = (w_array, np.int64(w_offset + GROUP * column), np.int64(w_row))
            tile_bias = (bias_array, np.int64(bias_offset + column))
            out = (tile, np.int64(i * ld + column), np.int64(ld))
            _run_tile(100 * rows + width, groups, tile_x, tile_w, tile_bias, out)
            v += width
        i += rows


@kernel
def take_zero_points_off(m, n, depth, x, zero_points, tile, ld):
    """Subtract zero_points[j] * sum over k of (x[i, k] - OFFSET) from tile[i, j], modulo 2**32.

    x, tile, ld : as of `integer_product`, which comes before
    zero_points : (int32 array, offset), of the columns
    """
    x_array, x_offset, x_row = x
    z_array, z_offset = zero_points
    for i in range(m):
        row = stretch(x_array, x_offset + i * x_row, depth)
        total = np.int32(0)
        for k in range(depth):
            total = np.int32(total + np.int32(row[k]))
        total = np.int32(total - OFFSET * depth)
        sums = stretch(tile, i * ld, n)
        for j in range(n):
            sums[j] = np.int32(sums[j] - np.int32(z_array[z_offset + j] * total))


def pack(kernel: npt.NDArray[np.int8], out: npt.NDArray[np.int8]) -> None:
    """Pack weights (n_in, n_out) into rows.

    Parameters
    ----------
    kernel : ndarray of int8, (n_in, n_out)
        Weights as layers hold them.
    out : ndarray of int8, (groups, columns, 4)
        Zeros; ``groups`` is ``n_in / 4`` rounded up, and ``columns`` at least ``n_out``.
    """
    n_in, n_out = kernel.shape
    groups = out.shape[0]
    padded = np.zeros((groups * GROUP, n_out), np.int8)
    padded[:n_in] = kernel
    out[:, :n_out] = padded.reshape(groups, GROUP, n_out).transpose(0, 2, 1)
