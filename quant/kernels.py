"""The integer program: walks the layer table from float rows to the last layer's integers.

One compiled program runs every quantized network, as in nbdense.engine.program. Inside, an activation is a byte
counted from its type's minimum, so int8 and uint8 are one program (and u8 times s8 is what dot-product
instructions take). The zero point of the input is folded into the bias: sums wrap modulo 2**32, and are exact
because check_network has seen that the true accumulator fits.

`integer_product`, of nbdense.quant.microkernel, is the matrix product: it fills a tile of accumulators that stays
in the L1 cache while `requantise_tile` turns it into the next layer's bytes.

`observe` and `evaluate`, at the end, are for the float side of quantization.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from nbdense._jit import entry, entry_pair, kernel
from nbdense.activations import SOFTMAX
from nbdense.engine.activation import activate
from nbdense.engine.program import forward
from nbdense.quant.microkernel import GROUP, integer_product
from nbdense.quant.rounding import ONNX, fixed_point_multiply, round_to_byte

# Offsets and strides in elements; buffers are named by their first column, as in nbdense.network.LAYER.
LAYER = np.dtype(
    [
        ("n_in", np.int64),
        ("n_out", np.int64),
        ("input", np.int64),
        ("ld_in", np.int64),
        ("output", np.int64),
        ("ld_out", np.int64),
        ("kernel", np.int64),  # among the weights, in packed rows of ld_out columns
        ("channels", np.int64),  # among the biases and multipliers
        ("table", np.int64),  # among the tables; -1: none
        ("zero_point", np.int64),  # of the requantised bytes, and the bytes that the activation leaves possible:
        ("low", np.int64),
        ("high", np.int64),
    ]
)

FORM = np.dtype(
    [
        ("width", np.int64),  # columns of the workspace
        ("rounding", np.int64),
        ("softmax", np.int64),
        ("input_zero_point", np.int64),  # counted from the type's minimum
        ("output_zero_point", np.int64),
        ("input_scale", np.float32),
        ("output_scale", np.float32),
    ]
)

CHUNK = 96  # rows that go through all layers at a time
TILE_ROWS, TILE_COLUMNS = 12, 128  # accumulators: 6 KiB
_BLOCK = 16  # columns: what rows are padded to


@kernel
def requantise_tile(m, n, row, tile, vectors, offset, rounding, out):
    """The next layer's bytes of a tile of accumulators: rescale, clamp, and look up where there is a table.

    vectors : as in `predict`; the tile's channels start at ``offset``
    out : (uint8 array, offset, row stride)
    """
    _, _, multipliers, fixed, shifts, tables = vectors
    out, out_offset, out_row = out
    zero_point, low, high = row["zero_point"], row["low"], row["high"]
    for i in range(m):
        sums = tile[i * TILE_COLUMNS : i * TILE_COLUMNS + n]
        target = out[out_offset + i * out_row : out_offset + i * out_row + n]
        if rounding == ONNX:
            scales = multipliers[offset : offset + n]
            for j in range(n):
                target[j] = np.uint8(round_to_byte(np.float32(sums[j]) * scales[j], zero_point, low, high))
        else:
            for j in range(n):
                value = fixed_point_multiply(sums[j], fixed[offset + j], shifts[offset + j]) + zero_point
                target[j] = np.uint8(min(max(value, low), high))
        if row["table"] >= 0:
            for j in range(n):
                target[j] = tables[row["table"] + target[j]]


@kernel
def walk(layers, vectors, work, tile, capacity, count, rounding):
    """``count`` rows of bytes from the input's buffer through all layers."""
    weights, bias = vectors[0], vectors[1]
    for index in range(layers.shape[0]):
        row = layers[index]
        ld_in, ld_out, n_out = row["ld_in"], row["ld_out"], row["n_out"]
        # Columns outside: their weights stay in the L2 cache for all the rows.
        for j in range(0, n_out, TILE_COLUMNS):
            n = min(TILE_COLUMNS, n_out - j)
            at = row["channels"] + j
            w = (weights, row["kernel"] + GROUP * j, GROUP * ld_out)
            for i in range(0, count, TILE_ROWS):
                m = min(TILE_ROWS, count - i)
                x = (work, row["input"] * capacity + i * ld_in, ld_in)
                integer_product(m, n, row["n_in"], x, w, (bias, at), tile, TILE_COLUMNS)
                out = (work, row["output"] * capacity + i * ld_out + j, ld_out)
                requantise_tile(m, n, row, tile, vectors, at, rounding, out)


@kernel
def quantize_rows(x, first, count, scale, zero_point, work, ld):
    """Rows of x to bytes at the start of ``work``: ONNX's QuantizeLinear, and a NaN is taken as zero."""
    for i in range(count):
        source, target = x[first + i], work[i * ld : (i + 1) * ld]
        for j in range(source.size):
            value = source[j] / scale
            value = value if value == value else np.float32(0.0)
            target[j] = np.uint8(round_to_byte(value, zero_point, 0, 255))


@kernel
def dequantize_rows(layers, form, work, capacity, count, x, first, out, buffer):
    """The last layer's bytes as float32, through the softmax where there is one; NaN in rows that came with one.

    ``buffer`` takes one row of whole blocks, and is zero behind the last column.
    """
    row = layers[layers.shape[0] - 1]
    n = row["n_out"]
    scale, zero_point = form["output_scale"], form["output_zero_point"]
    for i in range(count):
        source = row["output"] * capacity + i * row["ld_out"]
        for j in range(n):
            buffer[j] = np.float32(np.int32(work[source + j]) - np.int32(zero_point)) * scale
        if form["softmax"]:
            activate(SOFTMAX, 0.0, buffer, 0, buffer.size, 1, n)
        values, missing = x[first + i], np.int32(0)
        for j in range(values.size):  # integers, which vectorise; leaving at the first would not
            missing |= np.int32(values[j] != values[j])
        target = out[first + i]
        for j in range(n):
            target[j] = np.float32(np.nan) if missing else buffer[j]


@kernel
def _work_on_rows(layers, vectors, form, x, integers, values, begin, end, memory):
    """One thread's rows, from float to bytes or float; ``memory`` is (work, tile, buffer, rows that fit)."""
    last = layers[layers.shape[0] - 1]
    work, tile, buffer, capacity = memory
    for first in range(begin, end, capacity):
        count = min(capacity, end - first)
        quantize_rows(x, first, count, form["input_scale"], form["input_zero_point"], work, layers[0]["ld_in"])
        walk(layers, vectors, work, tile, capacity, count, form["rounding"])
        if values.shape[0] > 0:
            dequantize_rows(layers, form, work, capacity, count, x, first, values, buffer)
        if integers.shape[0] > 0:
            for i in range(count):
                source = last["output"] * capacity + i * last["ld_out"]
                for j in range(last["n_out"]):
                    integers[first + i, j] = work[source + j]


def _predict(layers, vectors, forms, x, integers, values, threads):
    """Outputs of all rows of ``x`` (float32, C-ordered): bytes into ``integers``, floats into ``values``.

    vectors : (weights, bias, multipliers, fixed, shifts, tables), bias to shifts one a column; forms : one `FORM`
    Either output may have no rows: then it is not wanted.
    """
    rows = x.shape[0]
    share = (rows + threads - 1) // threads
    for thread in prange(threads):
        begin = thread * share
        end = min(rows, begin + share)
        if begin < end:
            capacity = min(CHUNK, end - begin)
            work = np.zeros(forms[0]["width"] * capacity, np.uint8)
            tile = np.empty(TILE_ROWS * TILE_COLUMNS, np.int32)
            n_out = layers[layers.shape[0] - 1]["n_out"]
            buffer = np.zeros((n_out + _BLOCK - 1) // _BLOCK * _BLOCK, np.float32)
            memory = (work, tile, buffer, capacity)
            _work_on_rows(layers, vectors, forms[0], x, integers, values, begin, end, memory)


def _evaluate(code, alpha, values):
    """An activation of ``values`` in place; a whole number of blocks."""
    activate(code, alpha, values, 0, values.size, 1, values.size)


@kernel
def _widen(work, offset, ld, m, n, bounds):
    low, high = bounds[0], bounds[1]
    for i in range(m):
        for j in range(n):
            value = work[offset + i * ld + j]
            low = value if value < low else low
            high = value if value > high else high
    bounds[0], bounds[1] = low, high


def _observe(layers, params, x, work, bare, bounds):
    """Widen ``bounds`` (layers, pre and output, low and high) to what the rows of ``x`` give.

    ``bare`` is 1 for the layers whose activation is no clamp.
    """
    count, n_in = x.shape
    operand = (x.reshape(x.size), 0, n_in)
    for index in range(layers.shape[0]):
        row = layers[index]
        offset, ld, n = row["output"] * count, row["ld_out"], row["n_out"]
        one = layers[index : index + 1]
        forward(one, params, operand, work, count, (0, count), 0, 1, bare[index] != 0, 0, np.uint64(0))
        _widen(work, offset, ld, count, n, bounds[index, 0])
        if bare[index]:
            activate(row["activation"], row["alpha"], work, offset, ld, count, n)
        _widen(work, offset, ld, count, n, bounds[index, 1])


predict = entry_pair(_predict)
observe = entry(_observe)
evaluate = entry(_evaluate)
