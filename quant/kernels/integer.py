"""The integer program: walks the table of a quantized network from float rows to the last layer's outputs.

One compiled program runs every quantized network, as in nbdense.engine.program. Inside, an activation is a byte
counted from its type's minimum, so int8 and uint8 are one program (and u8 times s8 is what dot-product
instructions take). The zero point of the input is folded into the bias: sums wrap modulo 2**32, and are exact
because the network's checks have seen that the true accumulator fits.

`integer_product`, of nbdense.quant.kernels.microkernel, is the matrix product: it fills a tile of accumulators that
stays in the L1 cache while `requantise_tile` turns it into the next layer's bytes.

Layers that were left in float are rows of the engine's own table, in a workspace of floats beside the bytes;
QUANTIZE and DEQUANTIZE rows lead from one to the other. A network of integers alone gets None for all of that, and
with it a program without the engine's kernels in it. Most networks are plain: products alone, of symmetric weights,
rounded as in ONNX, of rows of one position. What others want is not in their program either, which gets None for
``general``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nbdense._compile.policy import entry, kernel, region
from nbdense.engine.elementwise.activation_loops import clear_padding, padded, softmax
from nbdense.engine.kernels.scratch import allocate, release
from nbdense.engine.kernels.views import flat, part, stretch
from nbdense.engine.rows.dispatch import forward_row
from nbdense.quant.kernels.microkernel import GROUP, integer_product, take_zero_points_off
from nbdense.quant.kernels.rounding import (
    ONNX,
    byte_of,
    fixed_point_multiply,
    fixed_point_sum,
    may_be_nan,
    quotient,
    round_to_byte,
    rounded_bits,
)
from nbdense.quant.kernels.tables import (
    DEQUANTIZE,
    FORM,
    FORM_AT,
    FORM_END,
    LAYER,
    LOOKUP,
    PARTS,
    PRODUCT,
    QUANTIZE,
    RESHAPE,
    SOFTMAX_OF_BYTES,
    SUM,
)

CHUNK = 96  # rows that go through all layers at a time
TILE_ROWS, TILE_COLUMNS = 12, 128  # accumulators: 6 KiB


class Vectors(NamedTuple):
    """The numbers that a static program reads."""

    weights: npt.NDArray[np.int8]
    bias: npt.NDArray[np.int32]
    multipliers: npt.NDArray[np.float32]
    fixed_multipliers: npt.NDArray[np.int32]
    shifts: npt.NDArray[np.int32]
    zero_points: npt.NDArray[np.int32]
    exponentials: npt.NDArray[np.int32]
    tables: npt.NDArray[np.uint8]


@kernel
def _rescale(sums, scales, target, zero_point, low, high):
    for j in range(sums.size):
        target[j] = round_to_byte(np.float32(sums[j]) * scales[j], zero_point, low, high)


@kernel
def requantise_tile(m, n, row, tile, vectors, offset, rounding, out):
    """Turn a tile of accumulators into the next layer's bytes: rescale, clamp, and look up where there is a table.

    vectors : `Vectors`; the tile's channels start at ``offset``
    out : (uint8 array, offset, row stride)
    rounding : one of `nbdense.quant.kernels.rounding.CODES`, or None for ONNX's
    """
    fixed_multipliers, shifts, tables = vectors.fixed_multipliers, vectors.shifts, vectors.tables
    out, out_offset, out_row = out
    zero_point, low, high = row["zero_point"], row["low"], row["high"]
    for i in range(m):
        sums = stretch(tile, i * TILE_COLUMNS, n)
        target = stretch(out, out_offset + i * out_row, n)
        if rounding is None or rounding == ONNX:
            _rescale(sums, stretch(vectors.multipliers, offset, n), target, zero_point, low, high)
        else:
            for j in range(n):
                value = fixed_point_multiply(sums[j], fixed_multipliers[offset + j], shifts[offset + j], rounding)
                target[j] = np.uint8(min(max(value + zero_point, low), high))
        if row["table"] >= 0:
            for j in range(n):
                target[j] = tables[row["table"] + target[j]]


@kernel
def _multiply(row, vectors, work, tile, capacity, m, rounding):
    ld_in, ld_out, n_out = row["ld_in"], row["ld_out"], row["n_out"]
    # Columns outside: their weights stay in the L2 cache for all the rows.
    for j in range(0, n_out, TILE_COLUMNS):
        n = min(TILE_COLUMNS, n_out - j)
        at = row["channels"] + j
        w = (vectors.weights, row["kernel"] + GROUP * j, GROUP * ld_out)
        for i in range(0, m, TILE_ROWS):
            rows = min(TILE_ROWS, m - i)
            x = (work, row["input"] * capacity + i * ld_in, ld_in)
            integer_product(rows, n, row["n_in"], x, w, (vectors.bias, at), tile, TILE_COLUMNS)
            if rounding is not None and row["zero_points"] >= 0:
                zero_points = (vectors.zero_points, row["zero_points"] + j)
                take_zero_points_off(rows, n, row["n_in"], x, zero_points, tile, TILE_COLUMNS)
            out = (work, row["output"] * capacity + i * ld_out + j, ld_out)
            requantise_tile(rows, n, row, tile, vectors, at, rounding, out)


@kernel
def _add(row, vectors, work, capacity, m, rounding):
    at, n = row["channels"], row["n_in"]
    za, zb = vectors.zero_points[row["zero_points"]], vectors.zero_points[row["zero_points"] + 1]
    ra, rb = vectors.multipliers[at], vectors.multipliers[at + 1]
    zero_point, low, high = row["zero_point"], row["low"], row["high"]
    for i in range(m):
        first, second = row["input"] * capacity + i * row["ld_in"], row["second"] * capacity + i * row["ld_in"]
        output = row["output"] * capacity + i * row["ld_out"]
        a, b, target = stretch(work, first, n), stretch(work, second, n), stretch(work, output, n)
        if rounding == ONNX:
            for j in range(n):
                value = np.float32(np.int32(a[j]) - za) * ra + np.float32(np.int32(b[j]) - zb) * rb
                target[j] = round_to_byte(value, zero_point, low, high)
        else:
            for j in range(n):
                terms = np.int32(a[j]) - za, np.int32(b[j]) - zb
                fixed, shifts = stretch(vectors.fixed_multipliers, at, 3), stretch(vectors.shifts, at, 3)
                value = fixed_point_sum(terms[0], terms[1], fixed, shifts, rounding)
                target[j] = np.uint8(min(max(value + zero_point, low), high))


@kernel
def _look_up(row, tables, work, capacity, m):
    n = row["n_in"]
    for i in range(m):
        source, output = row["input"] * capacity + i * row["ld_in"], row["output"] * capacity + i * row["ld_out"]
        for j in range(n):
            work[output + j] = tables[row["table"] + work[source + j]]


@kernel
def _softmax(row, exponentials, work, capacity, m):
    """Take the softmax of rows of bytes: see nbdense.quant.layers.integer_layers.QuantizedSoftmax."""
    n, at = row["n_in"], row["exponentials"]
    for i in range(m):
        source, output = row["input"] * capacity + i * row["ld_in"], row["output"] * capacity + i * row["ld_out"]
        largest = np.int64(0)
        for j in range(n):
            largest = max(largest, np.int64(work[source + j]))
        total = np.int64(0)
        for j in range(n):
            total += np.int64(exponentials[at + largest - np.int64(work[source + j])])
        for j in range(n):
            value = np.int64(exponentials[at + largest - np.int64(work[source + j])])
            work[output + j] = np.uint8(min((512 * value + total) // (2 * total), np.int64(255)))


@kernel
def _flatten(row, work, capacity, count):
    positions, n = row["positions"], row["n_in"]
    for i in range(count):
        for p in range(positions):
            source = row["input"] * capacity + (i * positions + p) * row["ld_in"]
            output = row["output"] * capacity + i * row["ld_out"] + p * n
            for j in range(n):
                work[output + j] = work[source + j]


@kernel
def _quantize_finite(source, target, scale, zero_point):
    """Quantize a row of finite numbers to bytes; returns False if they may not all have been finite."""
    reciprocal = np.float32(1.0) / scale
    seen = np.int32(0)
    for j in range(source.size):
        bits = rounded_bits(quotient(source[j], scale, reciprocal))
        seen = np.int32(seen | bits)
        target[j] = byte_of(bits, zero_point, 0, 255)
    return not may_be_nan(seen)


@kernel
def _quantize_any(source, target, scale, zero_point):
    """Quantize a row to bytes, a NaN taken as zero; returns whether there was one."""
    unordered = np.int32(0)  # integers, which vectorise; leaving at the first would not
    for j in range(source.size):
        value = source[j] / scale
        unordered = np.int32(unordered | np.int32(value != value))
        value = value if value == value else np.float32(0.0)
        target[j] = round_to_byte(value, zero_point, 0, 255)
    return unordered != 0


@kernel
def quantize_rows(x, offset, ld_x, m, n, scale, zero_point, work, target, ld, missing):
    """Quantize m rows of n floats at ``offset`` to bytes at ``target``: ONNX's QuantizeLinear; a NaN is taken as zero.

    ``missing`` gets 1 for each row that holds a NaN, unless it has no elements.
    """
    usual = scale > np.float32(1e-29) and scale < np.float32(1e37)  # what `quotient` takes
    for i in range(m):
        source = stretch(x, offset + i * ld_x, n)
        bytes_of_row = stretch(work, target + i * ld, n)
        if usual and _quantize_finite(source, bytes_of_row, scale, zero_point):
            continue
        if _quantize_any(source, bytes_of_row, scale, zero_point) and missing.size > 0:
            missing[i] = 1


@kernel
def _dequantize(row, work, floats, capacity, m):
    n, scale, zero_point = row["n_in"], np.float32(row["scale"]), np.int32(row["zero_point"])
    for i in range(m):
        source, output = row["input"] * capacity + i * row["ld_in"], row["output"] * capacity + i * row["ld_out"]
        for j in range(n):
            floats[output + j] = np.float32(np.int32(work[source + j]) - zero_point) * scale
    clear_padding(floats, row["output"] * capacity, row["ld_out"], m, n)


@kernel
def walk(layers, vectors, form, floats, general, x, x_offset, memory, count):
    """Take ``count`` rows of data, whose inputs start at ``x_offset`` in ``x``, through all layers."""
    work, float_work, tile, missing, _, capacity = memory
    rounding = None if general is None else form["rounding"]
    for index in range(layers.shape[0]):
        row = layers[index]
        kind, m = row["kind"], count * row["positions"]
        if kind == PRODUCT:
            _multiply(row, vectors, work, tile, capacity, m, rounding)
        elif kind == QUANTIZE:
            scale, target = np.float32(row["scale"]), row["output"] * capacity
            n, ld, zero_point = row["n_in"], row["ld_out"], row["zero_point"]
            if row["input"] == 0:
                noted = stretch(missing, 0, missing.size if row["positions"] == 1 else 0)
                quantize_rows(x, x_offset, n, m, n, scale, zero_point, work, target, ld, noted)
            elif floats is not None:
                at, nowhere = row["input"] * capacity, stretch(missing, 0, 0)
                quantize_rows(float_work, at, row["ld_in"], m, n, scale, zero_point, work, target, ld, nowhere)
        elif general is not None:
            if kind == SUM:
                _add(row, vectors, work, capacity, m, rounding)
            elif kind == LOOKUP:
                _look_up(row, vectors.tables, work, capacity, m)
            elif kind == SOFTMAX_OF_BYTES:
                _softmax(row, vectors.exponentials, work, capacity, m)
            elif kind == RESHAPE:
                _flatten(row, work, capacity, count)
            elif floats is not None:
                if kind == DEQUANTIZE:
                    _dequantize(row, work, float_work, capacity, m)
                else:
                    _forward(row, floats, x, x_offset, float_work, capacity, count)


@kernel
def _forward(row, floats, x, x_offset, float_work, capacity, count):
    """Take rows of data through a row of the engine's table."""
    layers, params = floats
    operand, span = (x, x_offset, row["n_in"]), (np.int64(0), count)
    engine_row = layers[row["engine_row"]]
    forward_row(engine_row, params, operand, float_work, capacity, span, False, np.int64(0), np.uint64(0))


@kernel
def note_missing(x, offset, n, count, missing):
    """Mark each of ``count`` rows of n elements that holds a NaN."""
    for i in range(count):
        unordered = np.int32(0)
        source = stretch(x, offset + i * n, n)
        for j in range(n):
            unordered |= np.int32(source[j] != source[j])
        if unordered:
            missing[i] = 1


@kernel
def give_values(form, memory, count, out, first):
    """Write the last outputs as float32 from row ``first`` of the flat ``out``, through a softmax where there is one.

    NaN in rows that came with one.
    """
    work, float_work, _, missing, buffer, capacity = memory
    n, positions, ld = form["n_out"], form["positions_out"], form["ld_output"]
    scale, zero_point = form["output_scale"], np.int32(form["output_zero_point"])
    width = padded(n)
    rows, few = count * positions, buffer.size // width
    for begin in range(0, rows, few):
        m = min(few, rows - begin)
        for i in range(m):
            source = form["output"] * capacity + (begin + i) * ld
            target = stretch(buffer, i * width, width)
            if form["integers"]:
                bytes_of_row = stretch(work, source, width)
                for j in range(width):
                    target[j] = np.float32(np.int32(np.int32(bytes_of_row[j]) - zero_point)) * scale
            else:
                floats_of_row = stretch(float_work, source, width)
                for j in range(width):
                    target[j] = floats_of_row[j]
        if form["softmax"]:
            softmax(buffer, 0, width, m, n)
        for i in range(m):
            target, source = stretch(out, (first * positions + begin + i) * n, n), stretch(buffer, i * width, n)
            if missing[(begin + i) // positions]:
                for j in range(n):
                    target[j] = np.float32(np.nan)
            else:
                for j in range(n):
                    target[j] = source[j]


@kernel
def give_integers(form, memory, count, out, first):
    """Write the last outputs as bytes from row ``first`` of ``out``."""
    work, capacity = memory[0], memory[5]
    n, positions, ld = form["n_out"], form["positions_out"], form["ld_output"]
    for i in range(count):
        for p in range(positions):
            source = form["output"] * capacity + (i * positions + p) * ld
            for j in range(n):
                out[first + i, p * n + j] = work[source + j]


@kernel
def copy_input(form, x, offset, n_in, count, work):
    """Copy the input of ``count`` rows of data into its buffer among the floats, for rows of the engine's to read."""
    n, ld = n_in // form["positions"], form["ld_input"]
    for i in range(count * form["positions"]):
        for j in range(n):
            work[i * ld + j] = x[offset + i * n + j]


@kernel
def parts_of(program):
    """Return layers and vectors of a static program."""
    at = part(program, 0, FORM_AT, PARTS)[0]
    vectors = Vectors(
        part(program, at["weights"], at["bias"], np.int8),
        part(program, at["bias"], at["multipliers"], np.int32),
        part(program, at["multipliers"], at["fixed_multipliers"], np.float32),
        part(program, at["fixed_multipliers"], at["shifts"], np.int32),
        part(program, at["shifts"], at["weight_sums"], np.int32),
        part(program, at["zero_points"], at["exponentials"], np.int32),
        part(program, at["exponentials"], at["tables"], np.int32),
        part(program, at["tables"], at["layers"], np.uint8),
    )
    return part(program, at["layers"], at["end"], LAYER), vectors


@kernel
def take_rows(form, floats, general, inputs, at, n_in, count, memory):
    """Look at rows of the input before they go through the layers, and copy them where float layers want them."""
    missing = memory[3]
    for i in range(missing.size):
        missing[i] = 0
    if general is not None and (floats is not None or form["positions"] > 1):
        note_missing(inputs, at, n_in, count, missing)  # other rows are looked at as they are quantized
    if floats is not None and form["copies_input"]:
        copy_input(form, inputs, at, n_in, count, memory[1])


@kernel
def give_rows(form, memory, count, integers, values, first):
    """Write outputs of rows, from ``first`` on, to those of both arrays that have rows."""
    if values.shape[0] > 0:
        give_values(form, memory, count, flat(values), first)
    if integers.shape[0] > 0:
        give_integers(form, memory, count, integers, first)


@kernel
def _work_on_rows(program, form, floats, general, x, integers, values, span, memory):
    """Take one thread's rows from float to bytes or float.

    memory : (bytes, floats, tile, a flag for each row, a buffer for some rows of outputs, rows that fit)
    """
    layers, vectors = parts_of(program)
    begin, end = span
    n_in, inputs, capacity = x.shape[1], flat(x), memory[5]
    for first in range(begin, end, capacity):
        count, at = min(capacity, end - first), first * n_in
        take_rows(form, floats, general, inputs, at, n_in, count, memory)
        walk(layers, vectors, form, floats, general, inputs, at, memory, count)
        give_rows(form, memory, count, integers, values, first)


@kernel
def allocate_rows(form, capacity):
    """Return memory for ``capacity`` rows of data: see `_work_on_rows`."""
    # Bytes need not be zero: those behind a row's end meet weights that are.
    work = allocate(form["width"] * capacity, np.uint8)
    float_work = allocate(form["float_width"] * capacity, np.float32)
    for i in range(float_work.size):
        float_work[i] = np.float32(0.0)
    tile = allocate(TILE_ROWS * TILE_COLUMNS, np.int32)
    buffer = allocate(TILE_ROWS * padded(form["n_out"]), np.float32)
    return work, float_work, tile, allocate(capacity, np.uint8), buffer, capacity


@kernel
def release_rows(memory):
    """Give memory back that is `allocate_rows`'s."""
    work, float_work, tile, missing, buffer, _ = memory
    release(work)
    release(float_work)
    release(tile)
    release(missing)
    release(buffer)


@kernel
def _predict_share(program, forms, floats, general, x, integers, values, threads, thread):
    rows = x.shape[0]
    share = (rows + threads - 1) // threads
    begin = thread * share
    end = min(rows, begin + share)
    if begin < end:
        capacity = min(CHUNK, end - begin)
        memory = allocate_rows(forms[0], capacity)
        _work_on_rows(program, forms[0], floats, general, x, integers, values, (begin, end), memory)
        release_rows(memory)


_run = region(_predict_share)


def _predict(program, floats, general, x, integers, values, launcher, threads):
    """Predict all rows of ``x`` (float32, C-ordered): bytes into ``integers``, floats into ``values``.

    program : bytes (see `PARTS`); floats : (the engine's rows, their parameters), or None
    general : None where `is_plain` says so, else any number
    Either output may have no rows: then it is not wanted.
    """
    forms = part(program, FORM_AT, FORM_END, FORM)
    _run(launcher, threads, program, forms, floats, general, x, integers, values, threads)


def is_plain(program: npt.NDArray[np.uint8]) -> bool:
    """Tell whether a program does without what only the general one has."""
    at = program[:FORM_AT].view(PARTS)[0]
    rows = program[int(at["layers"]) : int(at["end"])].view(LAYER)
    form, kinds = program[FORM_AT:FORM_END].view(FORM)[0], rows["kind"]
    plain = ((kinds == PRODUCT) | (kinds == QUANTIZE)).all() and (rows["zero_points"] < 0).all()
    return bool(plain and form["rounding"] == ONNX and form["positions"] == 1)


predict = entry(_predict, "the program of integers", seconds=3)
