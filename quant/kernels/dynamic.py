"""The program of networks with DynamicDense layers: each takes its scale from the whole of what it is called with.

A call is one pass of all rows through each layer in turn, in a workspace of floats, and not `predict`'s pass of a chunk
of rows through all layers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import prange

from nbdense._compile.policy import entry_pair, kernel
from nbdense.engine.elementwise.activation_loops import activate_row, clear_padding, padded
from nbdense.engine.rows.dispatch import forward_row
from nbdense.quant.kernels.integer import (
    TILE_COLUMNS,
    TILE_ROWS,
    copy_input,
    give_values,
    note_missing,
    quantize_rows,
)
from nbdense.quant.kernels.microkernel import GROUP, OFFSET, integer_product, take_zero_points_off
from nbdense.quant.kernels.rounding import round_to_byte
from nbdense.quant.kernels.tables import FLOAT, FORM, FORM_AT, FORM_END, LAYER, PARTS


class DynamicVectors(NamedTuple):
    """The numbers that a dynamic program reads."""

    weights: npt.NDArray[np.int8]
    multipliers: npt.NDArray[np.float32]
    weight_sums: npt.NDArray[np.int32]
    float_bias: npt.NDArray[np.float32]
    zero_points: npt.NDArray[np.int32]


@kernel
def parts_of(program):
    """Return layers and vectors of a dynamic program."""
    at = program[:FORM_AT].view(PARTS)[0]
    vectors = DynamicVectors(
        program[at["weights"] : at["bias"]].view(np.int8),
        program[at["multipliers"] : at["fixed_multipliers"]].view(np.float32),
        program[at["weight_sums"] : at["float_bias"]].view(np.int32),
        program[at["float_bias"] : at["zero_points"]].view(np.float32),
        program[at["zero_points"] : at["exponentials"]].view(np.int32),
    )
    return program[at["layers"] : at["end"]].view(LAYER), vectors


@kernel
def _operand(row, x, work, capacity):
    """Return a layer's input as (array, offset, row stride)."""
    if row["input"] == 0:
        return x, np.int64(0), row["n_in"]
    return work, row["input"] * capacity, row["ld_in"]


@kernel
def _range_of_rows(row, x, work, capacity, first, count):
    """Find the least and greatest finite values, 0 included, of one thread's rows of a layer's input."""
    values, offset, ld = _operand(row, x, work, capacity)
    n, positions = row["n_in"], row["positions"]
    low, high = np.float32(0.0), np.float32(0.0)
    largest = np.float32(3.4028235e38)
    for i in range(first * positions, (first + count) * positions):
        source = values[offset + i * ld : offset + i * ld + n]
        for j in range(n):
            value = source[j]
            finite = abs(value) <= largest
            low = value if finite and value < low else low
            high = value if finite and value > high else high
    return low, high


@kernel
def _dynamic_rows(program, index, float_layers, x, form, corrections, floats, capacity, span, memory):
    """Take one thread's rows through a layer of int8 weights: quantize, multiply, and back to float."""
    layers, vectors = parts_of(program)
    row = layers[index]
    scales, biases = vectors.multipliers, vectors.float_bias
    values, offset, ld_x = _operand(row, x, floats, capacity)
    work, tile = memory
    scale, zero_point = form
    first, last = span[0] * row["positions"], (span[0] + span[1]) * row["positions"]
    n_in, n_out, at, ld = row["n_in"], row["n_out"], row["channels"], row["ld_in"]
    for begin in range(first, last, TILE_ROWS):
        m = min(TILE_ROWS, last - begin)
        quantize_rows(values, offset + begin * ld_x, ld_x, m, n_in, scale, zero_point, work, 0, ld, work[:0])
        for j in range(0, n_out, TILE_COLUMNS):
            n = min(TILE_COLUMNS, n_out - j)
            w = (vectors.weights, row["kernel"] + GROUP * j, GROUP * row["ld_out"])
            x_bytes = (work, np.int64(0), ld)
            integer_product(m, n, n_in, x_bytes, w, (corrections, at + j), tile, TILE_COLUMNS)
            if row["zero_points"] >= 0:
                zero_points = (vectors.zero_points, row["zero_points"] + j)
                take_zero_points_off(m, n, n_in, x_bytes, zero_points, tile, TILE_COLUMNS)
            for i in range(m):
                sums = tile[i * TILE_COLUMNS : i * TILE_COLUMNS + n]
                output = row["output"] * capacity + (begin + i) * row["ld_out"] + j
                for k in range(n):
                    factor = scale * scales[at + j + k]
                    value = np.float32(sums[k]) * factor
                    floats[output + k] = value + biases[at + j + k]
        start = row["output"] * capacity + begin * row["ld_out"]
        clear_padding(floats, start, row["ld_out"], m, n_out)
        activate_row(float_layers[row["engine_row"]], floats, start, m)


def _predict_dynamic(program, floats, x, values, threads):
    """Predict all rows of ``x`` as one call: each DYNAMIC layer takes the scale of its whole input.

    program : bytes (see `nbdense.quant.kernels.tables.PARTS`); floats : (the engine's rows, their parameters)
    """
    # Not by `parts_of`: an entry would give up references that a kernel has not counted.
    at = program[:FORM_AT].view(PARTS)[0]
    layers = program[at["layers"] : at["end"]].view(LAYER)
    weight_sums = program[at["weight_sums"] : at["float_bias"]].view(np.int32)
    form = program[FORM_AT:FORM_END].view(FORM)[0]
    float_layers = floats[0]
    rows, n_in = x.shape
    flat = x.reshape(x.size)
    work = np.zeros(form["float_width"] * rows, np.float32)
    bounds = np.empty((threads, 2), np.float32)
    share = (rows + threads - 1) // threads
    corrections = np.empty(weight_sums.size, np.int32)
    if form["copies_input"]:
        copy_input(form, flat, 0, n_in, rows, work)
    for index in range(layers.shape[0]):
        row = layers[index]
        if row["kind"] == FLOAT:
            for thread in prange(threads):
                first = thread * share
                count = min(share, rows - first)
                if count > 0:
                    _float_rows(layers[index], floats, flat, work, rows, first, count)
            continue
        for thread in prange(threads):
            first = thread * share
            count = min(share, rows - first)
            low, high = np.float32(0.0), np.float32(0.0)
            if count > 0:
                low, high = _range_of_rows(layers[index], flat, work, rows, first, count)
            bounds[thread, 0], bounds[thread, 1] = low, high
        least, most = np.float32(0.0), np.float32(0.0)
        for thread in range(threads):
            least, most = min(least, bounds[thread, 0]), max(most, bounds[thread, 1])
        scale = (most - least) / np.float32(255.0)
        scale = scale if scale > np.float32(0.0) else np.float32(1.0)
        zero_point = np.int64(round_to_byte(-least / scale, 0, 0, 255))
        for j in range(row["channels"], row["channels"] + row["ld_out"]):
            corrections[j] = weight_sums[j] * np.int32(zero_point - OFFSET)
        for thread in prange(threads):
            first = thread * share
            count = min(share, rows - first)
            if count > 0:
                tile = np.empty(TILE_ROWS * TILE_COLUMNS, np.int32)
                memory = (np.zeros(TILE_ROWS * layers[index]["ld_in"], np.uint8), tile)
                bytes_form, span = (scale, zero_point), (first, count)
                _dynamic_rows(program, index, float_layers, flat, bytes_form, corrections, work, rows, span, memory)
    missing = np.zeros(rows, np.uint8)
    note_missing(flat, 0, n_in, rows, missing)
    buffer = np.empty(padded(form["n_out"]) * TILE_ROWS, np.float32)
    nothing = np.zeros(0, np.uint8)
    give_values(form, (nothing, work, corrections, missing, buffer, rows), rows, values.reshape(values.size), 0)


@kernel
def _float_rows(row, floats, x, work, capacity, first, count):
    """Take one thread's rows of data through one row of the engine's."""
    operand, span = (x, np.int64(0), row["n_in"]), (first, count)
    float_layers, params = floats
    layer = float_layers[row["engine_row"]]
    forward_row(layer, params, operand, work, capacity, span, False, np.int64(0), np.uint64(0))


predict_dynamic = entry_pair(_predict_dynamic)
