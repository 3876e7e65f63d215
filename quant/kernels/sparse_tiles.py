"""Microkernels of sparse products: sums of a few outputs, held in registers over the blocks of weights that are there.

A block is 1xV: the weights of V outputs side by side for one input; V = 1 is a single weight. Every output is summed
over its inputs in order, in one accumulator that starts from the bias, as nbdense.engine.kernels.microkernel does it:
a weight that is not there would have added zero, and so all of these tiles and the dense one give the same bits for
finite numbers.

Many rows of data lie feature by feature ("columns": the same feature of all rows side by side), so that a weight meets
a vector of rows (`make_columns_tile`). Few rows lie as they come, and a vector is of outputs: of one block
(`make_slices_tile`), or of outputs whose inputs are looked up, in a window of two vectors of inputs where the CPU has a
shuffle of those (`windows_tile`), else one by one (`make_slices_tile` with V = 1).

Operands are tuples ``(array, offset, stride)`` or ``(array, offset)``, counted in elements, as the microkernel's.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from nbdense._compile import processor
from nbdense._compile.policy import intrinsic
from nbdense.engine.kernels.microkernel import I32, I64, VECTOR_BYTES, keep_rolled, multiply_add, operand, splat
from nbdense.quant.kernels import microkernel
from nbdense.quant.kernels.microkernel import GROUP, METHOD, OFFSET, IntegerEmitter

REGISTERS = processor.target().registers
LANES = VECTOR_BYTES // 4  # of float32
BLOCKS = (1, 4, 8, 16)  # V
OUTPUTS = 16  # of a block of integers, for GROUP inputs
STEPS, SIDE_BY_SIDE = 4, 2  # of a window; windows whose sums do not wait for each other

# Whether the CPU shuffles single elements of two vectors by a vector of places: AVX-512's vpermi2ps.
HAS_WINDOWS = VECTOR_BYTES == 64
WINDOW = 2 * LANES

# Outputs and vectors of rows of a tile: accumulators, and the vectors of rows that they share, fill the registers, and
# are enough to hide what a multiply-add waits for the one before.
TILE_OUTPUTS = {1: 1, 4: 4, 8: 8, 16: 16 if REGISTERS == 32 else 8}
TILE_VECTORS = {1: 4, 4: 4, 8: 2, 16: 1} if REGISTERS == 32 else {1: 8, 4: 2, 8: 1}
ABREAST = 4  # outputs of single weights, where there is one vector of rows
SHAPES = sorted({(outputs, vectors) for outputs in TILE_VECTORS for vectors in (TILE_VECTORS[outputs], 1)})


# Rows of a tile of integers, OUTPUTS wide: accumulators and a block's weights (pmaddwd and sadalp have two vectors of
# each) fill the registers.
INTEGER_VECTORS = OUTPUTS // microkernel.LANES
INTEGER_ROWS = {
    ("vnni", 64): (12, 4, 1),
    ("vnni", 32): (6, 2, 1),
    ("usdot", 16): (4, 1),
    ("sdot", 16): (4, 1),
    ("sadalp", 16): (2, 1),
    ("pmaddwd", 32): (4, 1),
}.get((METHOD, microkernel.VECTOR_BYTES), (1,))


WIDEST = 128  # outputs of a tile for few rows, at most


def slices_of(block: int) -> int:
    """Return how many blocks of outputs a tile for few rows takes side by side."""
    if block == 1:
        return LANES
    return max(1, 8 * min(block, LANES) // block)


def _number(n):
    return ir.Constant(I64, n)


class Emitter:
    """Emitter of loops over blocks: vectors of ``lanes`` elements of the type of an array."""

    def __init__(self, context, builder, array_type, lanes=0):
        self.builder = builder
        dtype = array_type.dtype
        self.bytes_each = dtype.bitwidth // 8
        self.scalar = context.get_value_type(dtype)
        self.lanes = lanes or VECTOR_BYTES // self.bytes_each
        self.vector = ir.VectorType(self.scalar, self.lanes)

    def at(self, pointer, *offsets):
        """Emit a pointer so many elements further on: products of numbers and values."""
        builder = self.builder
        for offset in offsets:
            pointer = builder.gep(pointer, [_number(offset) if isinstance(offset, int) else offset])
        return pointer

    def load(self, pointer, j=0):
        """Load the j-th vector from a pointer to an element."""
        place = self.builder.bitcast(self.at(pointer, j * self.lanes), self.vector.as_pointer())
        return self.builder.load(place, align=self.bytes_each)

    def store(self, value, pointer, j=0):
        """Store the j-th vector from a pointer to an element."""
        place = self.builder.bitcast(self.at(pointer, j * self.lanes), self.vector.as_pointer())
        self.builder.store(value, place, align=self.bytes_each)

    def broadcast(self, pointer):
        """Load an element into all lanes."""
        return splat(self.builder, self.builder.load(pointer, align=self.bytes_each), self.vector)

    def index(self, pointer, j=0):
        """Load the j-th of a list of unsigned numbers, as 64 bits."""
        return self.builder.zext(self.builder.load(self.at(pointer, j)), I64)

    def loop(self, first, last, start, step):
        """Emit ``start`` = ``step(k, sums)`` for k from first to last, which may be none; returns the final sums."""
        builder = self.builder
        entry = builder.block
        loop, done = (builder.append_basic_block(f"blocks.{name}") for name in ("loop", "done"))
        builder.cbranch(builder.icmp_signed("<", first, last), loop, done)
        builder.position_at_end(loop)
        k = builder.phi(I64)
        sums = [builder.phi(value.type) for value in start]
        added = step(k, sums)
        k_next = builder.add(k, _number(1))
        body = builder.block
        for phi, before, after in zip([k, *sums], [first, *start], [k_next, *added], strict=True):
            phi.add_incoming(before, entry)
            phi.add_incoming(after, body)
        keep_rolled(builder, builder.cbranch(builder.icmp_signed("<", k_next, last), loop, done))
        builder.position_at_end(done)
        results = [builder.phi(value.type) for value in start]
        for phi, before, after in zip(results, start, added, strict=True):
            phi.add_incoming(before, entry)
            phi.add_incoming(after, body)
        return results

    def clamped(self, total, low, high):
        """Emit a clamp; ordered comparisons leave a NaN as it is."""
        builder = self.builder
        total = builder.select(builder.fcmp_ordered("<", total, low), low, total)
        return builder.select(builder.fcmp_ordered(">", total, high), high, total)


def _placed(context, builder, signature, arguments, first):
    """Return pointers and strides of the operands from the ``first`` on."""
    pairs = zip(signature.args[first:], arguments[first:], strict=True)
    return [operand(context, builder, *pair) for pair in pairs if isinstance(pair[0], types.BaseTuple)]


# -- many rows --


def _plain_columns_tile(outputs, vectors):
    def tile(first, last, values, indices, x, bias, out, lower, upper):
        values, values_offset, block = values
        indices, indices_offset = indices
        x, x_offset, x_feature = x
        bias, bias_offset = bias
        out, out_offset, out_feature = out
        rows = vectors * (VECTOR_BYTES // out.itemsize)
        for v in range(outputs):
            for i in range(rows):
                total = bias[bias_offset + v]
                for k in range(first, last):
                    feature = int(indices[indices_offset + k])
                    total += values[values_offset + k * block + v] * x[x_offset + feature * x_feature + i]
                total = lower if total < lower else total
                out[out_offset + v * out_feature + i] = upper if total > upper else total

    return tile


def make_columns_tile(outputs, vectors):
    """Make the kernel of ``outputs`` outputs of a block and ``vectors`` vectors of rows, with its plain twin.

    Blocks ``first`` .. ``last``; values : (array, offset, V), indices : (array, offset), of blocks;
    x, out : (array, offset, elements between features); bias : (array, offset)
    """

    @intrinsic(_plain_columns_tile(outputs, vectors))
    def tile(typing_context, first, last, values, indices, x, bias, out, lower, upper):
        scalar = out[0].dtype
        signature = types.void(types.int64, types.int64, values, indices, x, bias, out, scalar, scalar)

        def codegen(context, builder, signature, arguments):
            (first, last), (lower, upper) = arguments[:2], arguments[-2:]
            emit = Emitter(context, builder, signature.args[6][0])
            operands = _placed(context, builder, signature, arguments, 2)
            (weights, (block,)), (places, _), (x, (x_feature,)), (start, _), (target, (out_feature,)) = operands
            sums = [emit.broadcast(emit.at(start, v)) for v in range(outputs) for _ in range(vectors)]

            def step(k, sums):
                feature = emit.at(x, builder.mul(emit.index(places, k), x_feature))
                loaded = [emit.load(feature, r) for r in range(vectors)]
                of_block = emit.at(weights, builder.mul(k, block))
                added = []
                for v in range(outputs):
                    weight = emit.broadcast(emit.at(of_block, v))
                    added += [multiply_add(builder, weight, loaded[r], sums[v * vectors + r]) for r in range(vectors)]
                return added

            totals = emit.loop(first, last, sums, step)
            low, high = splat(builder, lower, emit.vector), splat(builder, upper, emit.vector)
            for v in range(outputs):
                row = emit.at(target, builder.mul(out_feature, _number(v)))
                for r in range(vectors):
                    emit.store(emit.clamped(totals[v * vectors + r], low, high), row, r)
            return context.get_dummy_value()

        return signature, codegen

    return tile


def _plain_abreast_tile(starts, values, indices, x, bias, out, lower, upper):
    starts, starts_offset = starts
    values, values_offset = values
    indices, indices_offset = indices
    x, x_offset, x_feature = x
    bias, bias_offset = bias
    out, out_offset, out_feature = out
    for u in range(ABREAST):
        for i in range(VECTOR_BYTES // out.itemsize):
            total = bias[bias_offset + u]
            for k in range(starts[starts_offset + u], starts[starts_offset + u + 1]):
                feature = int(indices[indices_offset + k])
                total += values[values_offset + k] * x[x_offset + feature * x_feature + i]
            total = lower if total < lower else total
            out[out_offset + u * out_feature + i] = upper if total > upper else total


@intrinsic(_plain_abreast_tile)
def abreast_tile(typing_context, starts, values, indices, x, bias, out, lower, upper):
    """Sum ABREAST outputs of single weights over one vector of rows: alone, each would wait for its own additions.

    starts : (array, offset), of each output's weights and the last one's end; the rest is as of `make_columns_tile`
    """
    scalar = out[0].dtype
    signature = types.void(starts, values, indices, x, bias, out, scalar, scalar)

    def codegen(context, builder, signature, arguments):
        emit = Emitter(context, builder, signature.args[5][0])
        operands = _placed(context, builder, signature, arguments, 0)
        (starts, _), (weights, _), (places, _), (x, (x_feature,)), (start, _), (target, (out_feature,)) = operands
        ends = [emit.index(starts, u) for u in range(ABREAST + 1)]
        together = builder.sub(ends[1], ends[0])
        for first, last in itertools.pairwise(ends[1:]):
            count = builder.sub(last, first)
            together = builder.select(builder.icmp_signed("<", count, together), count, together)

        def added(k, total):
            inputs = emit.load(emit.at(x, builder.mul(emit.index(places, k), x_feature)))
            return multiply_add(builder, emit.broadcast(emit.at(weights, k)), inputs, total)

        def step(k, sums):
            return [added(builder.add(k, ends[u]), total) for u, total in enumerate(sums)]

        sums = [emit.broadcast(emit.at(start, u)) for u in range(ABREAST)]
        sums = emit.loop(_number(0), together, sums, step)
        low, high = (splat(builder, bound, emit.vector) for bound in arguments[-2:])
        for u, total in enumerate(sums):
            first = builder.add(ends[u], together)
            (final,) = emit.loop(first, ends[u + 1], [total], lambda k, sums: [added(k, sums[0])])
            emit.store(emit.clamped(final, low, high), emit.at(target, builder.mul(out_feature, _number(u))))
        return context.get_dummy_value()

    return signature, codegen


# -- few rows --


def _plain_slices_tile(block, count):
    def tile(first, last, values, indices, x, bias, out):
        values, values_offset = values
        indices, indices_offset = indices
        x, x_offset = x
        bias, bias_offset = bias
        out, out_offset = out
        for u in range(count):
            for v in range(block):
                total = bias[bias_offset + u * block + v]
                for k in range(first, last):
                    at = k * count + u
                    total += values[values_offset + at * block + v] * x[x_offset + int(indices[indices_offset + at])]
                out[out_offset + u * block + v] = total

    return tile


def make_slices_tile(block):
    """Make the kernel of some blocks of outputs side by side, of one row, with its plain twin.

    Steps ``first`` .. ``last``, each a block for each of `slices_of` blocks of outputs;
    values, indices, x, bias, out : (array, offset), of steps by blocks (by outputs)
    """
    count = slices_of(block)

    @intrinsic(_plain_slices_tile(block, count))
    def tile(typing_context, first, last, values, indices, x, bias, out):
        signature = types.void(types.int64, types.int64, values, indices, x, bias, out)

        def codegen(context, builder, signature, arguments):
            width = count if block == 1 else min(block, LANES)
            emit = Emitter(context, builder, signature.args[6][0], width)
            operands = _placed(context, builder, signature, arguments, 2)
            weights, places, x, start, target = (pointer for pointer, _ in operands)
            vectors = count * block // width

            def step(k, sums):
                listed = emit.at(places, builder.mul(k, _number(count)))
                of_step = emit.at(weights, builder.mul(k, _number(count * block)))
                if block == 1:
                    inputs = [_looked_up(emit, x, listed)]
                else:
                    each = [emit.broadcast(emit.at(x, emit.index(listed, u))) for u in range(count)]
                    inputs = [value for value in each for _ in range(block // width)]
                return [multiply_add(builder, inputs[j], emit.load(of_step, j), total) for j, total in enumerate(sums)]

            totals = emit.loop(*arguments[:2], [emit.load(start, j) for j in range(vectors)], step)
            for j, total in enumerate(totals):
                emit.store(total, target, j)
            return context.get_dummy_value()

        return signature, codegen

    return tile


def _looked_up(emit, x, listed):
    """Emit a vector of the inputs that a list names, one by one: a gather is no faster, and slow on some CPUs."""
    builder, found = emit.builder, ir.Constant(emit.vector, ir.Undefined)
    for lane in range(emit.lanes):
        value = builder.load(emit.at(x, emit.index(listed, lane)), align=emit.bytes_each)
        found = builder.insert_element(found, value, ir.Constant(I32, lane))
    return found


def _chooser(emit, window):
    """Return what emits a vector of the inputs at places in a window; its two vectors are loaded once."""
    if not HAS_WINDOWS:  # no program has windows then, but this is compiled
        return functools.partial(_looked_up, emit, window)
    builder, halves = emit.builder, [emit.load(window, half) for half in (0, 1)]
    numbers = ir.VectorType(I32, LANES)
    kind = ir.FunctionType(emit.vector, [emit.vector, numbers, emit.vector])
    name = "llvm.x86.avx512.vpermi2var.ps.512"
    shuffle = cgutils.get_or_insert_function(builder.module, kind, name)

    def choose(places):
        at = builder.bitcast(places, ir.VectorType(ir.IntType(8), LANES).as_pointer())
        return builder.call(shuffle, [halves[0], builder.zext(builder.load(at, align=1), numbers), halves[1]])

    return choose


def _plain_windows_tile(first, last, values, places, bases, x, bias, out):
    values, values_offset = values
    places, places_offset = places
    bases, bases_offset = bases
    x, x_offset = x
    bias, bias_offset = bias
    out, out_offset = out
    for output in range(SIDE_BY_SIDE * LANES):
        group, lane = output // LANES, output % LANES
        total = bias[bias_offset + output]
        for k in range(first, last):
            window = k * SIDE_BY_SIDE + group
            for step in range(STEPS):
                at = (window * STEPS + step) * LANES + lane
                feature = int(bases[bases_offset + window]) + int(places[places_offset + at])
                total += values[values_offset + at] * x[x_offset + feature]
        out[out_offset + output] = total


@intrinsic(_plain_windows_tile)
def windows_tile(typing_context, first, last, values, places, bases, x, bias, out):
    """Sum vectors of outputs of one row over windows of inputs, in float32.

    Windows ``first`` .. ``last`` of each vector, of `WINDOW` inputs from its base and `STEPS` steps, in which each lane
    takes the input at its place; values, places (uint8), x, bias, out : (array, offset); bases : (array, offset), of
    windows, those of the vectors side by side
    """
    signature = types.void(types.int64, types.int64, values, places, bases, x, bias, out)

    def codegen(context, builder, signature, arguments):
        emit = Emitter(context, builder, signature.args[7][0])
        operands = _placed(context, builder, signature, arguments, 2)
        weights, places, bases, x, start, target = (pointer for pointer, _ in operands)

        def step(k, sums):
            of_windows = emit.at(bases, builder.mul(k, _number(SIDE_BY_SIDE)))
            size = builder.mul(k, _number(SIDE_BY_SIDE * STEPS * LANES))
            values_of, places_of = emit.at(weights, size), emit.at(places, size)
            windows = [emit.at(x, emit.index(of_windows, group)) for group in range(SIDE_BY_SIDE)]
            choosers = [_chooser(emit, window) for window in windows]
            totals = list(sums)
            for j in range(STEPS):
                for group, choose in enumerate(choosers):
                    number = group * STEPS + j
                    inputs = choose(emit.at(places_of, number * LANES))
                    totals[group] = multiply_add(builder, inputs, emit.load(values_of, number), totals[group])
            return totals

        firsts = [emit.load(start, group) for group in range(SIDE_BY_SIDE)]
        for group, total in enumerate(emit.loop(*arguments[:2], firsts, step)):
            emit.store(total, target, group)
        return context.get_dummy_value()

    return signature, codegen


# -- integers --


def _plain_integer_tile(rows):
    def tile(first, last, x, w, indices, bias, out):
        x, x_offset, x_row = x
        w, w_offset = w
        indices, indices_offset = indices
        bias, bias_offset = bias
        out, out_offset, out_row = out
        for i in range(rows):
            for j in range(OUTPUTS):
                total = np.int32(bias[bias_offset + j])
                for k in range(first, last):
                    group = x_offset + i * x_row + GROUP * int(indices[indices_offset + k])
                    for byte in range(GROUP):
                        value = np.int32(x[group + byte]) - np.int32(OFFSET)
                        weight = np.int32(w[w_offset + (k * OUTPUTS + j) * GROUP + byte])
                        total = np.int32(total + value * weight)
                out[out_offset + i * out_row + j] = total

    return tile


def make_integer_tile(rows):
    """Make the kernel of some rows of bytes and a block of outputs, with its plain twin.

    Blocks ``first`` .. ``last``, each of GROUP inputs and OUTPUTS outputs; x, out : (array, offset, row stride);
    w : (array, offset), of blocks as the dense kernel packs them; indices, bias : (array, offset)
    """

    @intrinsic(_plain_integer_tile(rows))
    def tile(typing_context, first, last, x, w, indices, bias, out):
        signature = types.void(types.int64, types.int64, x, w, indices, bias, out)

        def codegen(context, builder, signature, arguments):
            emit = Emitter(context, builder, signature.args[6][0])
            integers = IntegerEmitter(builder, rows, INTEGER_VECTORS, METHOD, microkernel.VECTOR_BYTES)
            operands = _placed(context, builder, signature, arguments, 2)
            (x, (x_row,)), (w, _), (places, _), (start, _), (target, (out_row,)) = operands
            firsts = [integers.load(start, j) for j in range(INTEGER_VECTORS)]

            def step(k, sums):
                of_block = emit.at(w, builder.mul(k, _number(GROUP * OUTPUTS)))
                weights = [integers.weights(integers.load(of_block, j)) for j in range(INTEGER_VECTORS)]
                group = emit.at(x, builder.mul(emit.index(places, k), _number(GROUP)))
                added = []
                for i in range(rows):
                    four = builder.bitcast(emit.at(group, builder.mul(x_row, _number(i))), I32.as_pointer())
                    values = integers.activations(splat(builder, builder.load(four, align=1), integers.sums))
                    row = sums[i * INTEGER_VECTORS : (i + 1) * INTEGER_VECTORS]
                    added += [integers.add(total, values, weights[j]) for j, total in enumerate(row)]
                return added

            totals = emit.loop(*arguments[:2], firsts * rows, step)
            for i in range(rows):
                row = emit.at(target, builder.mul(out_row, _number(i)))
                for j in range(INTEGER_VECTORS):
                    builder.store(totals[i * INTEGER_VECTORS + j], integers.place(row, j), align=4)
            return context.get_dummy_value()

        return signature, codegen

    return tile


COLUMNS_TILES = {f"_columns_{outputs}_{vectors}": make_columns_tile(outputs, vectors) for outputs, vectors in SHAPES}
SLICES_TILES = {f"_slices_{block}": make_slices_tile(block) for block in BLOCKS}
INTEGER_TILES = {f"_integers_{rows}": make_integer_tile(rows) for rows in INTEGER_ROWS}
globals().update(COLUMNS_TILES)
globals().update(SLICES_TILES)
globals().update(INTEGER_TILES)
