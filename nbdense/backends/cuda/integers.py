"""Integer programs on the device: products by dp4a, all else by the CPU's own functions, a thread for each row of data.

Bytes and floats of a row of data lie together here, so that to a thread its row is a whole workspace. The results are
the CPU's, bit by bit: sums of integers have no order, and no multiplication is contracted with an addition.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import cuda, int32
from numba.core import types

from nbdense.backends.base import IntegerPredictor, IntegerProgram
from nbdense.backends.cuda.device import SIMULATED, Stream, as_host_errors, device_function, intrinsic, kernel, spread
from nbdense.backends.cuda.translation import Translation, loops_of
from nbdense.quant.kernels import integer, rounding, tables
from nbdense.quant.kernels.microkernel import GROUP, METHOD, integer_product, offset_of, take_zero_points_off

MEMORY = 1 << 28  # bytes, at most, that the rows under way take
OFFSET = offset_of(METHOD)  # that the host's instructions take off the activations; its program's biases make up for it


def _dot_plain(words, at, weights, total):
    for byte in range(GROUP):
        value = np.int32(words[at + byte]) - np.int32(OFFSET)
        total = np.int32(total + value * np.int32(np.int8((np.int64(weights) >> (8 * byte)) & 255)))
    return total


def _dot(typing_context, words, at, weights, total):
    """Add to ``total`` the products of four bytes from ``at``, less OFFSET, with the four in ``weights``: dp4a."""
    signature = types.int32(words, types.int64, types.int32, types.int32)

    def codegen(context, builder, signature, arguments):
        words, at, weights, total = arguments
        i32 = ir.IntType(32)
        base = context.make_array(signature.args[0])(context, builder, words).data
        word = builder.load(builder.bitcast(builder.gep(base, [at]), i32.as_pointer(base.type.addrspace)), align=4)
        if OFFSET:  # less 128 is the same byte with a sign
            word = builder.xor(word, ir.Constant(i32, 0x80808080))
        dot = ir.FunctionType(i32, [i32, i32, i32])
        text = f"dp4a.{'s32' if OFFSET else 'u32'}.s32 $0, $1, $2, $3;"
        return builder.asm(dot, text, "=r,r,r,r", [word, weights, total], False)

    return signature, codegen


dot = intrinsic(_dot, _dot_plain)


def _rounded_bits() -> Any:
    """Return the device's `rounded_bits`: its addition takes no part in a contraction."""
    if SIMULATED:
        return rounding.rounded_bits.py_func
    add, bits, half = cuda.libdevice.fadd_rn, cuda.libdevice.float_as_int, np.float32(12582912.0)

    @device_function
    def rounded_bits(value):
        return bits(add(value, half))

    return rounded_bits


def _no_product(m, n, depth, x, w, bias, tile, ld):
    pass


def _no_zero_points(m, n, depth, x, zero_points, tile, ld):
    pass


def _translation(addresses: tuple[int, ...] = ()) -> Translation:
    instead = {
        rounding.rounded_bits: _rounded_bits(),
        integer_product: device_function(_no_product),  # the products of integers have a kernel of their own
        take_zero_points_off: device_function(_no_zero_points),
    }
    return Translation("float32", addresses, instead)


@functools.cache
def _products() -> Any:
    """Return the kernel of products: a thread makes a column of one row's bytes."""
    translate = _translation()
    requantise = translate(integer.requantise_tile)

    @kernel
    def multiply(layers, index, rounds, weights, bias, multipliers, fixed, shifts, zero_points, tables_, work, count):
        row = layers[index]
        sums = cuda.local.array(1, int32)
        width, positions, n_out, ld = work.size // count, row["positions"], row["n_out"], row["ld_out"]
        empty = zero_points
        vectors = integer.Vectors(weights, bias, multipliers, fixed, shifts, zero_points, empty, tables_)
        groups = (row["n_in"] + GROUP - 1) // GROUP
        for e in range(cuda.grid(1), count * positions * n_out, cuda.gridsize(1)):
            i, j = e // n_out, e % n_out
            start = i // positions * width
            x = start + row["input"] + i % positions * row["ld_in"]
            at = row["kernel"] // GROUP + j
            total = bias[row["channels"] + j]
            for k in range(groups):
                total = dot(work, x + GROUP * k, weights[at + k * ld], total)
            if row["zero_points"] >= 0:
                seen = np.int32(0)
                for k in range(row["n_in"]):
                    seen = np.int32(seen + np.int32(work[x + k]) - np.int32(OFFSET))
                total = np.int32(total - np.int32(zero_points[row["zero_points"] + j] * seen))
            sums[0] = total
            place = start + row["output"] + i % positions * ld + j
            requantise(1, 1, row, sums, vectors, row["channels"] + j, rounds, (work, place, 0))

    return multiply


@functools.cache
def _rows(with_floats: bool, addresses: tuple[int, ...]) -> tuple[Any, Any]:
    """Return the kernels of all other layers, and of what a program gives; layers in float name these loops."""
    translate = _translation(addresses)
    walk, note_missing = translate(integer.walk), translate(integer.note_missing)
    give_values, give_integers = translate(integer.give_values), translate(integer.give_integers)
    copy_input = translate(integer.copy_input)
    text = f"""
def pass_on(layers, first, last, forms, vectors, float_layers, params, x, n_in, work, floats, missing, count):
    width, float_width = work.size // count, floats.size // count
    for t in range(cuda.grid(1), count, cuda.gridsize(1)):
        bytes_of_row = work[t * width : (t + 1) * width]
        floats_of_row = floats[t * float_width : (t + 1) * float_width]
        mine = missing[t : t + 1]
        if first == 0:
            mine[0] = 0
            if {with_floats} or forms[0]["positions"] > 1:
                note_missing(x, t * n_in, n_in, 1, mine)
            if {with_floats} and forms[0]["copies_input"] != 0:
                copy_input(forms[0], x, t * n_in, n_in, 1, floats_of_row)
        memory = (bytes_of_row, floats_of_row, vectors[1][:0], mine, floats_of_row, 1)
        parts = Vectors(vectors[0], vectors[1], vectors[2], vectors[3], vectors[4], vectors[5], vectors[6], vectors[7])
        walk(layers[first:last], parts, forms[0], {"(float_layers, params)" if with_floats else "None"}, 1, x, t * n_in,
             memory, 1)
"""
    space = {"cuda": cuda, "walk": walk, "note_missing": note_missing, "copy_input": copy_input}
    space["Vectors"] = integer.Vectors
    exec(compile(text, "<nbdense pass_on>", "exec"), space)

    @kernel
    def give(forms, work, floats, missing, buffer, integers, values, wants, count):
        width, float_width, room = work.size // count, floats.size // count, buffer.size // count
        form = forms[0]
        columns = form["positions_out"] * form["n_out"]
        for t in range(cuda.grid(1), count, cuda.gridsize(1)):
            bytes_of_row = work[t * width : (t + 1) * width]
            floats_of_row = floats[t * float_width : (t + 1) * float_width]
            mine = buffer[t * room : (t + 1) * room]
            memory = (bytes_of_row, floats_of_row, missing, missing[t : t + 1], mine, 1)
            if wants == 0:
                give_integers(form, memory, 1, integers[t : t + 1], 0)
            else:
                give_values(form, memory, 1, values[t * columns : (t + 1) * columns], 0)

    return kernel(space["pass_on"]), give


class CudaIntegers:
    """A program whose rows are independent of each other, loaded."""

    def __init__(self, program: IntegerProgram) -> None:
        packed = program.packed
        at = packed[: tables.FORM_AT].view(tables.PARTS)[0]
        self._forms = packed[tables.FORM_AT : tables.FORM_END].view(tables.FORM)
        self._host_layers = packed[int(at["layers"]) : int(at["end"])].view(tables.LAYER)
        self._stream = Stream()
        there: dict[str, Any] = {}
        for name, end in itertools.pairwise(tables.PARTS.names or ()):
            part = packed[int(at[name]) : int(at[end])]
            if name != "layers":
                kind = np.dtype(tables.VECTORS[name])
                there[name] = self._put(part[: part.size // kind.itemsize * kind.itemsize].view(kind))
        self._words = self._put(packed[int(at["weights"]) : int(at["bias"])].view(np.int32))
        self._there, self._layers, self._form = there, self._put(self._host_layers), self._put(self._forms)
        self._floats = program.floats is not None
        rows, params = program.floats if program.floats is not None else (np.zeros(1, np.float32),) * 2
        self._loops = loops_of(rows) if self._floats else ()
        self._float_layers, self._params = self._put(rows), self._put(params)

    def _put(self, array: npt.NDArray[Any]) -> Any:
        return self._stream.to_device(array if array.size else np.zeros(1, array.dtype))

    def predict(self, x: npt.NDArray[np.float32], integers: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
        """Write the outputs of all rows."""
        form = self._forms[0]
        room = -(-int(form["n_out"]) // 16) * 16
        row_bytes = int(form["width"]) + 4 * (int(form["float_width"]) + room + x.shape[1]) + 8
        most = max(1, MEMORY // row_bytes)
        with as_host_errors():
            for first in range(0, len(x), most):
                self._some(x[first : first + most], integers[first : first + most], values[first : first + most], room)

    def _some(self, x: npt.NDArray[Any], integers: npt.NDArray[Any], values: npt.NDArray[Any], room: int) -> None:
        stream, form, there, count = self._stream, self._forms[0], self._there, len(x)
        blocks, threads = spread(count)
        work = stream.zeros(max(1, int(form["width"])) * count, np.uint8)
        floats = stream.zeros(max(1, int(form["float_width"])) * count, np.float32)
        missing, inputs = stream.zeros(count, np.uint8), stream.to_device(x.reshape(-1))
        pass_on, give = _rows(self._floats, self._loops)
        order = ("weights", "bias", "multipliers", "fixed_multipliers", "shifts", "zero_points", "exponentials")
        vectors = tuple(there[name] for name in (*order, "tables"))
        rounds, begin = int(form["rounding"]), 0
        kinds = [*self._host_layers["kind"].tolist(), tables.PRODUCT]
        for index, kind in enumerate(kinds):
            if kind != tables.PRODUCT:
                continue
            if index > begin:
                pass_on[blocks, threads, stream.stream](
                    self._layers, begin, index, self._form, vectors, self._float_layers, self._params, inputs,
                    x.shape[1], work, floats, missing, count,
                )  # fmt: skip
            if index < len(self._host_layers):
                row = self._host_layers[index]
                grid = spread(count * int(row["positions"]) * int(row["n_out"]))
                _products()[(*grid, stream.stream)](
                    self._layers, index, rounds, self._words, there["bias"], there["multipliers"],
                    there["fixed_multipliers"], there["shifts"], there["zero_points"], there["tables"], work, count,
                )  # fmt: skip
            begin = index + 1
        buffer = stream.zeros(room * count, np.float32)
        some = stream.zeros((count if len(integers) else 1, int(form["positions_out"] * form["n_out"])), np.uint8)
        given = stream.zeros(values.size if len(values) else 1, np.float32)
        for wants, (out, target) in enumerate(((integers, some), (values, given))):
            if len(out):
                give[blocks, threads, stream.stream](
                    self._form, work, floats, missing, buffer, some, given, wants, count
                )  # fmt: skip
                stream.read(target, out if wants == 0 else out.reshape(-1))


def load(program: IntegerProgram) -> IntegerPredictor:
    """Return what runs a program.

    Raises
    ------
    NotImplementedError
        If it takes its scales from whole calls, or has sparse kernels.
    """
    if program.sparse is not None:
        raise NotImplementedError(
            "the CUDA engine has no sparse kernels; call set_device('cpu') to run this model, or run the dense one"
        )
    if program.takes_whole_call:
        raise NotImplementedError(
            "the CUDA engine has no dynamic quantization (scales from all rows of a call); call set_device('cpu') to "
            "run this model, or quantize it by the scheme 'static'"
        )
    with as_host_errors():
        return CudaIntegers(program)
