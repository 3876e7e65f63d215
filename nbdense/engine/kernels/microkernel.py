"""The microkernel: a tile of C = clamp(init + A B) held in registers over the whole depth.

Forward (X W), weight gradient (X^T D) and input gradient (D W^T) are this one kernel with other strides of A.
The tile starts from ``init`` (a bias row, zeros, or C itself to add to) and is clamped on its way out, which is
linear, relu and relu6 at no cost; or gated, which is the derivative of relu: zero where another matrix, relu's output,
is not above zero. The depth is at least 1. Every element is summed over the depth in order, in one accumulator,
whatever the tile's shape: results do not depend on how the work was tiled or split over threads. What lies ``ahead``
elements behind the tile's columns of B is asked for meanwhile; 0 is nothing.

Operands are as in `product`, which works through matrices of any shape by tiles.

Method: Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), the inner kernel. Nothing is
packed: at the sizes of small MLPs the operands are in cache as they are, and prefetching hides that they are strided.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types

from nbdense._compile import processor
from nbdense._compile.policy import intrinsic
from nbdense.engine.kernels.cache_lines import LINE_BYTES, SECOND_LEVEL, prefetch

VECTOR_BYTES = processor.target().vector_bytes
FMA = processor.target().fma
I32, I64 = ir.IntType(32), ir.IntType(64)

# Rows a tile: as many accumulators as the registers hold (32 with AVX-512 and on arm64, 16 elsewhere), less two
# vectors of B and a broadcast. Fewer rows take over where the matrix ends.
ROWS = {32: (12, 8, 4, 2, 1), 16: (6, 4, 2, 1)}[processor.target().registers]


# Operands are prefetched so many steps of the depth ahead: rows of B, and of a transposed A, lie on other cache lines
# and mostly on other pages, which no hardware foresees. A tile's step takes 6 to 24 cycles; the second level of cache
# and of the TLB 15 to 25 together, the third level 50 to 70.
STEPS_AHEAD = 8


def _plain_tile(rows, vectors):
    def tile(depth, ahead, a, b, init, c, gate, lower, upper):
        a, a_offset, a_row, a_depth = a
        b, b_offset, b_row = b
        init, init_offset, init_row = init
        c, c_offset, c_row = c
        gate, gate_offset, gate_row = gate
        columns = vectors * (VECTOR_BYTES // c.itemsize)
        for i in range(rows):
            for j in range(columns):
                total = init[init_offset + i * init_row + j]
                for k in range(depth):
                    total += a[a_offset + i * a_row + k * a_depth] * b[b_offset + k * b_row + j]
                if gate_offset >= 0 and not gate[gate_offset + i * gate_row + j] > 0:
                    total = c.dtype.type(0)
                total = lower if total < lower else total
                c[c_offset + i * c_row + j] = upper if total > upper else total

    return tile


def make_tile(rows, vectors):
    """Make the kernel for a tile of ``rows`` by ``vectors`` vectors, as an intrinsic with its plain twin."""

    @intrinsic(_plain_tile(rows, vectors))
    def tile(typing_context, depth, ahead, a, b, init, c, gate, lower, upper):
        scalar = c[0].dtype
        signature = types.void(types.int64, types.int64, a, b, init, c, gate, scalar, scalar)

        def codegen(context, builder, signature, arguments):
            _emit_tile(context, builder, signature, arguments, rows, vectors)
            return context.get_dummy_value()

        return signature, codegen

    return tile


def operand(context, builder, operand_type, value):
    """Return the pointer to an operand tuple's first element, and its strides; for its array `memory` will do."""
    parts = [builder.extract_value(value, i) for i in range(len(operand_type))]
    base = parts[0]
    if isinstance(operand_type[0], types.Array):
        base = context.make_array(operand_type[0])(context, builder, base).data
    return builder.gep(base, [parts[1]]), parts[2:]


@intrinsic(lambda array: array)
def memory(typing_context, array):
    """Return the pointer to an array's elements: one number in a call, where the array is seven."""

    def codegen(context, builder, signature, arguments):
        return context.make_array(signature.args[0])(context, builder, arguments[0]).data

    return types.CPointer(array.dtype)(array), codegen


def splat(builder, value, vector):
    """Emit a vector with ``value`` in every lane."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(I32, 0))
    lanes = ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, undefined, lanes)


def multiply_add(builder, x, y, total):
    """Emit ``x * y + total``: fused where the CPU fuses; without FMA, llvm.fma would be a call into libm."""
    vector = total.type
    if not FMA:
        return builder.fadd(builder.fmul(x, y), total)
    suffix = f"v{vector.count}f{'32' if isinstance(vector.element, ir.FloatType) else '64'}"
    fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.{suffix}")
    return builder.call(fma, [x, y, total])


def _number(n):
    return ir.Constant(I64, n)


def _opaque(builder, value):
    """Emit a copy of a value of which the compiler knows nothing: an assembler's line that has no instruction."""
    return builder.asm(ir.FunctionType(value.type, [value.type]), "", "=r,0", [value], side_effect=False)


def keep_rolled(builder, branch, **most):
    """Forbid unrolling of the loop that ``branch`` closes: a second step's operands would spill a tile's sums.

    ``most`` limits vectors, too, by LLVM's names: ``width`` their lanes, ``interleave`` how many are worked on side by
    side.
    """
    module = builder.module
    limits = {"width": "vectorize.width", "interleave": "interleave.count"}
    advice = [[ir.MetaDataString(module, "llvm.loop.unroll.disable")]]
    advice += [[ir.MetaDataString(module, f"llvm.loop.{limits[n]}"), ir.Constant(I32, k)] for n, k in most.items()]
    nodes = [module.add_metadata(node) for node in advice]
    loop = ir.MDValue(module, nodes, name=str(len(module.metadata)))
    loop.operands = (loop, *nodes)  # a loop's identity is a node that names itself first
    branch.set_metadata("llvm.loop", loop)


class _Emitter:
    """Emitter of one tile: ``rows`` rows of ``vectors`` vectors, of the element type of C."""

    def __init__(self, context, builder, c_type, rows, vectors):
        self.builder, self.rows, self.vectors = builder, rows, vectors
        self.bytes_each = c_type[0].dtype.bitwidth // 8
        self.lanes = VECTOR_BYTES // self.bytes_each
        self.vector = ir.VectorType(context.get_value_type(c_type[0].dtype), self.lanes)

    def row(self, base, stride, i):
        """Emit the pointer to row i of a matrix."""
        return self.builder.gep(base, [self.builder.mul(stride, _number(i))])

    def places(self, row):
        """Emit the pointers to a row's vectors from one to its first element."""
        first = self.builder.bitcast(row, self.vector.as_pointer())
        return [first, *(self.builder.gep(first, [_number(j)]) for j in range(1, self.vectors))]

    def load(self, row):
        """Load a row's vectors from a pointer to its first element."""
        return [self.builder.load(place, align=self.bytes_each) for place in self.places(row)]

    def tile(self, base, stride):
        """Load all vectors of a tile in memory, by row."""
        return [self.load(self.row(base, stride, i)) for i in range(self.rows)]

    def loop(self, depth, ahead, a, b, start):
        """Emit the loop that makes start + A B in registers, over at least one step of the depth.

        Each step also asks for what lies ``ahead`` elements behind its row of B, into the second level of cache.
        """
        builder = self.builder
        (a, a_row, a_depth), (b, b_row) = a, b
        # One pointer for some rows, with the strides' multiples in registers: a pointer a row would spill.
        each = self.rows if self.rows <= 6 else 4
        groups = [self.row(a, a_row, i) for i in range(0, self.rows, each)]
        multiples = [builder.mul(a_row, _number(n)) for n in range(each)]
        a_ahead, b_ahead = (builder.mul(stride, _number(STEPS_AHEAD)) for stride in (a_depth, b_row))
        entry, loop = builder.block, builder.append_basic_block("depth.loop")
        done = builder.append_basic_block("depth.done")
        builder.branch(loop)
        builder.position_at_end(loop)
        k, b_now = builder.phi(I64), builder.phi(b.type)
        sums = [[builder.phi(self.vector) for _ in row] for row in start]
        a_places = [builder.phi(a.type) for _ in groups]
        # Else LLVM walks from row to row with one pointer, an addition each: on a CPU that takes four instructions a
        # cycle they would cost a sixth of the multiply-adds' time.
        a_now = [_opaque(builder, place) for place in a_places]
        if self.rows > 1:  # one row's eight vectors lie on lines side by side, which the hardware foresees
            for j in range(0, self.vectors, LINE_BYTES // VECTOR_BYTES):
                prefetch(builder, builder.gep(b_now, [builder.add(b_ahead, _number(j * self.lanes))]))
                wanted = builder.gep(b_now, [builder.add(ahead, _number(j * self.lanes))])
                prefetch(builder, wanted, SECOND_LEVEL)
            prefetch(builder, builder.gep(a_now[0], [a_ahead]))
        b_vectors = self.load(b_now)
        added = []
        for i, row in enumerate(sums):
            value = builder.load(builder.gep(a_now[i // each], [multiples[i % each]]), align=self.bytes_each)
            broadcast = splat(builder, value, self.vector)
            added.append([multiply_add(builder, broadcast, b_vectors[j], total) for j, total in enumerate(row)])
        k_next = builder.add(k, _number(1))
        turns = [(k, _number(0), k_next), (b_now, b, builder.gep(b_now, [b_row]))]
        steps = [builder.gep(now, [a_depth]) for now in a_now]
        turns += zip(a_places, groups, steps, strict=True)
        for i in range(self.rows):
            turns += zip(sums[i], start[i], added[i], strict=True)
        for phi, first, following in turns:
            phi.add_incoming(first, entry)
            phi.add_incoming(following, loop)
        keep_rolled(builder, builder.cbranch(builder.icmp_signed("<", k_next, depth), loop, done))
        builder.position_at_end(done)
        return added

    def finish(self, totals, gate, gated, lower, upper):
        """Return the tile gated, clamped, or as it is; the two that most tiles do without cost them a branch."""
        builder = self.builder
        ends = builder.append_basic_block("finished")
        with_gate, without = builder.append_basic_block("gated"), builder.append_basic_block("not.gated")
        builder.cbranch(gated, with_gate, without)
        builder.position_at_end(with_gate)
        zero = ir.Constant(self.vector, [0.0] * self.lanes)
        openings = zip(self.tile(*gate), totals, strict=True)
        let = [[self._let_through(*one, zero) for one in zip(*rows, strict=True)] for rows in openings]
        ways = [(builder.block, let)]
        builder.branch(ends)
        builder.position_at_end(without)
        infinity = ir.Constant(self.vector.element, float("inf"))
        bounded = builder.or_(
            builder.fcmp_unordered("!=", lower, builder.fneg(infinity)),
            builder.fcmp_unordered("!=", upper, infinity),
        )
        ways.append((builder.block, totals))
        with_bounds = builder.append_basic_block("bounded")
        builder.cbranch(bounded, with_bounds, ends)
        builder.position_at_end(with_bounds)
        low, high = splat(builder, lower, self.vector), splat(builder, upper, self.vector)
        ways.append((builder.block, [[self._clamped(total, low, high) for total in row] for row in totals]))
        builder.branch(ends)
        builder.position_at_end(ends)
        finished = [[builder.phi(self.vector) for _ in row] for row in totals]
        for block, values in ways:
            for phis, row in zip(finished, values, strict=True):
                for phi, value in zip(phis, row, strict=True):
                    phi.add_incoming(value, block)
        return finished

    def _let_through(self, opening, total, zero):
        """Emit a gate: zero where it is not above zero."""
        return self.builder.select(self.builder.fcmp_ordered(">", opening, zero), total, zero)

    def _clamped(self, total, low, high):
        """Emit a clamp; ordered comparisons leave a NaN as it is."""
        total = self.builder.select(self.builder.fcmp_ordered("<", total, low), low, total)
        return self.builder.select(self.builder.fcmp_ordered(">", total, high), high, total)

    def store(self, totals, base, stride):
        """Store all vectors of a tile, by row."""
        for i, row in enumerate(totals):
            for value, place in zip(row, self.places(self.row(base, stride, i)), strict=True):
                self.builder.store(value, place, align=self.bytes_each)


def _emit_tile(context, builder, signature, arguments, rows, vectors):
    depth, ahead, *operands, lower, upper = arguments
    emitter = _Emitter(context, builder, signature.args[5], rows, vectors)
    gated = builder.icmp_signed(">=", builder.extract_value(operands[-1], 1), _number(0))
    placed = []
    for operand_type, value in zip(signature.args[2:7], operands, strict=True):
        pointer, strides = operand(context, builder, operand_type, value)
        placed.append((pointer, *strides))
    a, b, init, c, gate = placed
    totals = emitter.loop(depth, ahead, a, b, emitter.tile(*init))
    emitter.store(emitter.finish(totals, gate, gated, lower, upper), *c)


# Every tile shape in use, by (rows, vectors). One row wants more columns: its additions wait for one another.
SHAPES = [(rows, vectors) for vectors in (2, 1) for rows in ROWS] + [(1, 8), (1, 4)]
TILES = {f"_tile_{rows}_{vectors}": make_tile(rows, vectors) for rows, vectors in SHAPES}
globals().update(TILES)
