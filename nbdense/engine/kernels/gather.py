"""Gathering rows of the user's data: any real dtype, any strides, straight from where it lies.

A source is ``(bytes, form)``: the data's memory as a flat uint8 array, and what it holds. So the type, layout and
writability of the data are values, not types, and a new one compiles nothing.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types

from nbdense._compile.policy import intrinsic, kernel
from nbdense.engine.kernels.cache_lines import ask, ask_near
from nbdense.engine.kernels.microkernel import keep_rolled

FORM = np.dtype(
    [
        ("code", np.int64),  # of the dtype; this and the next three in bytes:
        ("offset", np.int64),  # of row 0, column 0
        ("row_stride", np.int64),
        ("column_stride", np.int64),
        ("rows", np.int64),
        ("columns", np.int64),
    ]
)

_NAMES = ["float32", "float64", "float16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
DTYPES = {np.dtype(name): code for code, name in enumerate(_NAMES)}
DTYPES[np.dtype(bool)] = DTYPES[np.dtype(np.uint8)]  # a bool is a byte of 0 or 1


def _convert_plain(code, data, start, stride, count, out, offset):
    dtype = np.dtype(_NAMES[code])
    for j in range(count):
        at = start + j * stride
        out[offset + j] = data[at : at + dtype.itemsize].view(dtype)[0]


@intrinsic(_convert_plain)
def convert(typing_context, code, data, start, stride, count, out, offset):
    """Convert ``count`` numbers of the dtype ``code``, ``stride`` bytes apart from byte ``start``, to out[offset:]."""
    signature = types.void(types.int64, data, types.int64, types.int64, types.int64, out, types.int64)

    def codegen(context, builder, signature, arguments):
        code, data, start, stride, count, out, offset = arguments
        source = builder.gep(context.make_array(signature.args[1])(context, builder, data).data, [start])
        target = builder.gep(context.make_array(signature.args[5])(context, builder, out).data, [offset])
        end = builder.append_basic_block("converted")
        choice = builder.switch(code, end)
        for number, name in enumerate(_NAMES):
            block = builder.append_basic_block(name)
            choice.add_case(ir.Constant(ir.IntType(64), number), block)
            builder.position_at_end(block)
            size = ir.Constant(ir.IntType(64), np.dtype(name).itemsize)
            # The same loop twice: with the distance known, it compiles to vector loads. One at a time, for rows are
            # short and the loops many: side by side they would be a third of the training program.
            with builder.if_else(builder.icmp_signed("==", stride, size)) as (adjacent, apart):
                with adjacent:
                    _emit_loop(builder, name, source, size, count, target, interleave=1)
                with apart:
                    _emit_loop(builder, name, source, stride, count, target, width=1)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return signature, codegen


def _emit_loop(builder, name, source, stride, count, target, **most):
    """Emit the loop that converts numbers of a dtype; ``most`` as of `keep_rolled`."""
    dtype = np.dtype(name)
    bits, zero = ir.IntType(8 * dtype.itemsize), ir.Constant(count.type, 0)
    stored = {"float32": ir.FloatType(), "float64": ir.DoubleType()}.get(name, bits)
    result = target.type.pointee
    with builder.if_then(builder.icmp_signed(">", count, zero)):
        before, loop, done = builder.block, builder.append_basic_block(name), builder.append_basic_block(name)
        builder.branch(loop)
        builder.position_at_end(loop)
        index = builder.phi(count.type)
        at = builder.gep(source, [builder.mul(index, stride)])
        value = builder.load(builder.bitcast(at, stored.as_pointer()), align=dtype.itemsize)
        if name == "float16":
            value = _emit_half(builder, value)
        elif dtype.kind == "i":
            value = builder.sitofp(value, result)
        elif dtype.kind == "u":
            value = builder.uitofp(value, result)
        if value.type != result:
            value = (builder.fptrunc if isinstance(result, ir.FloatType) else builder.fpext)(value, result)
        builder.store(value, builder.gep(target, [index]))
        following = builder.add(index, ir.Constant(count.type, 1), flags=["nsw", "nuw"])
        index.add_incoming(zero, before)
        index.add_incoming(following, loop)
        keep_rolled(builder, builder.cbranch(builder.icmp_signed("<", following, count), loop, done), **most)
        builder.position_at_end(done)


def _emit_half(builder, bits):
    """Emit the float32 of a float16's bits, shifted into place and times 2**112: exact, denormals included.

    LLVM's own conversion would be a call into a library on CPUs without the instruction.
    """
    i32, f32 = ir.IntType(32), ir.FloatType()
    wide = builder.zext(bits, i32)
    sign = builder.shl(builder.and_(wide, ir.Constant(i32, 0x8000)), ir.Constant(i32, 16))
    size = builder.shl(builder.and_(wide, ir.Constant(i32, 0x7FFF)), ir.Constant(i32, 13))
    scaled = builder.fmul(builder.bitcast(size, f32), ir.Constant(f32, 2.0**112))
    special = builder.or_(size, ir.Constant(i32, 0x7F800000))  # infinity or NaN
    finite = builder.icmp_unsigned("<", size, ir.Constant(i32, 0x0F800000))
    size = builder.select(finite, builder.bitcast(scaled, i32), special)
    return builder.bitcast(builder.or_(size, sign), f32)


# Bytes. Shuffled rows are where no prefetcher of the CPU looks for them. The second level takes more requests at once
# than the first: a batch of 784 columns, from memory, is there in 0.6 of the time.
_AHEAD, _NEAR = 16384, 4096


@kernel
def _ask_for(data, form, row, size, near):
    start = form["offset"] + row * form["row_stride"]
    if near:
        ask_near(data, start, min(size, _AHEAD))
    else:
        ask(data, start, min(size, _AHEAD))


@kernel
def gather(data, form, rows, count, out, offset, ld, pieces):
    """Gather rows ``rows[:count]`` of a source into out[offset:], each as ``pieces`` rows that are ``ld`` apart."""
    size = form["columns"] * abs(form["column_stride"])  # an upper bound of no harm where columns run backwards
    ahead, near = max(1, _AHEAD // max(1, size)), count * size <= _NEAR
    columns = form["columns"] // pieces
    for i in range(min(ahead, count)):
        _ask_for(data, form, rows[i], size, near)
    for i in range(count):
        if i + ahead < count:
            _ask_for(data, form, rows[i + ahead], size, near)
        start = form["offset"] + rows[i] * form["row_stride"]
        for piece in range(pieces):
            at = offset + (i * pieces + piece) * ld
            convert(form["code"], data, start, form["column_stride"], columns, out, at)
            start += columns * form["column_stride"]
