"""The program of networks with DynamicDense layers: each takes its scale from the whole of what it is called with.

A call is one pass of all rows through each layer in turn, in a workspace of floats, and not `predict`'s pass of a chunk
of rows through all layers. So that Ctrl-C can part it, it is told which passes it takes, and of which rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nbdense._compile.policy import entry, kernel, region
from nbdense.engine.elementwise.activation_loops import activate_row, clear_padding, padded
from nbdense.engine.kernels.views import flat, part, stretch
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
    at = part(program, 0, FORM_AT, PARTS)[0]
    vectors = DynamicVectors(
        part(program, at["weights"], at["bias"], np.int8),
        part(program, at["multipliers"], at["fixed_multipliers"], np.float32),
        part(program, at["weight_sums"], at["float_bias"], np.int32),
        part(program, at["float_bias"], at["zero_points"], np.float32),
        part(program, at["zero_points"], at["exponentials"], np.int32),
    )
    return part(program, at["layers"], at["end"], LAYER), vectors


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
        source = stretch(values, offset + i * ld, n)
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
        quantize_rows(values, offset + begin * ld_x, ld_x, m, n_in, scale, zero_point, work, 0, ld, stretch(work, 0, 0))
        for j in range(0, n_out, TILE_COLUMNS):
            n = min(TILE_COLUMNS, n_out - j)
            w = (vectors.weights, row["kernel"] + GROUP * j, GROUP * row["ld_out"])
            x_bytes = (work, np.int64(0), ld)
            integer_product(m, n, n_in, x_bytes, w, (corrections, at + j), tile, TILE_COLUMNS)
            if row["zero_points"] >= 0:
                zero_points = (vectors.zero_points, row["zero_points"] + j)
                take_zero_points_off(m, n, n_in, x_bytes, zero_points, tile, TILE_COLUMNS)
            for i in range(m):
                sums = stretch(tile, i * TILE_COLUMNS, n)
                output = row["output"] * capacity + (begin + i) * row["ld_out"] + j
                for k in range(n):
                    factor = scale * scales[at + j + k]
                    value = np.float32(sums[k]) * factor
                    floats[output + k] = value + biases[at + j + k]
        start = row["output"] * capacity + begin * row["ld_out"]
        clear_padding(floats, start, row["ld_out"], m, n_out)
        activate_row(float_layers[row["engine_row"]], floats, start, m)


@kernel
def _form_of_bytes(row, extremes, weight_sums, corrections):
    """Return scale and zero point of a layer's input, and fill in what they add to its sums."""
    scale = (extremes[1] - extremes[0]) / np.float32(255.0)
    scale = scale if scale > np.float32(0.0) else np.float32(1.0)
    zero_point = np.int64(round_to_byte(-extremes[0] / scale, 0, 0, 255))
    for j in range(row["channels"], row["channels"] + row["ld_out"]):
        corrections[j] = weight_sums[j] * np.int32(zero_point - OFFSET)
    return scale, zero_point


@kernel
def _float_rows(row, floats, x, work, rows, begin, end, threads, thread):
    """Take one thread's rows of data through one row of the engine's."""
    first, count = _share(begin, end, threads, thread)
    if count > 0:
        operand, span = (x, np.int64(0), row["n_in"]), (first, count)
        float_layers, params = floats
        layer = float_layers[row["engine_row"]]
        forward_row(layer, params, operand, work, rows, span, False, np.int64(0), np.uint64(0))


@kernel
def _share(begin, end, threads, thread):
    share = (end - begin + threads - 1) // threads
    first = begin + thread * share
    return first, min(share, end - first)


@kernel
def _range_of_share(row, x, work, rows, begin, end, bounds, threads, thread):
    """Find the range of one thread's rows of a layer's input."""
    first, count = _share(begin, end, threads, thread)
    low, high = np.float32(0.0), np.float32(0.0)
    if count > 0:
        low, high = _range_of_rows(row, x, work, rows, first, count)
    bounds[thread, 0], bounds[thread, 1] = low, high


def _dynamic_share(program, index, float_layers, x, how, work, rows, part, threads, thread):
    """Take one thread's rows through a layer of int8 weights."""
    form, corrections, ld_in = how
    span = _share(part[0], part[1], threads, thread)
    if span[1] > 0:
        tile = np.empty(TILE_ROWS * TILE_COLUMNS, np.int32)
        memory = (np.zeros(TILE_ROWS * ld_in, np.uint8), tile)
        _dynamic_rows(program, index, float_layers, x, form, corrections, work, rows, span, memory)


_run_floats = region(_float_rows)
_run_ranges = region(_range_of_share)
_run_dynamic = region(kernel(_dynamic_share, allocates=True))


def _predict_dynamic(program, floats, x, values, memory, span, launcher, threads):
    """Take some rows of ``x`` through some of the program's passes, which are through all rows, one after the other.

    Each layer has two: the first finds the range of its input, where it is DYNAMIC, and the second takes rows through
    it. The last pass of all gives the outputs.

    program : bytes (see `nbdense.quant.kernels.tables.PARTS`); floats : (the engine's rows, their parameters);
    memory : (the floats' workspace, zero at first, least and greatest value of the input that is looked at);
    span : (first pass, end of the passes, first row, end of the rows)
    """
    layers, vectors = parts_of(program)
    weight_sums = vectors.weight_sums
    form = part(program, FORM_AT, FORM_END, FORM)[0]
    float_layers = floats[0]
    work, extremes = memory
    first_pass, end_pass, begin, end = span
    rows, n_in = x.shape
    inputs = flat(x)
    bounds = np.empty((threads, 2), np.float32)
    corrections = np.empty(weight_sums.size, np.int32)
    if first_pass == 0 and form["copies_input"]:
        copy_input(form, inputs, begin * n_in, n_in, end - begin, work[begin * form["positions"] * form["ld_input"] :])
    for at_pass in range(first_pass, min(end_pass, 2 * layers.shape[0])):
        index, looks = at_pass // 2, at_pass % 2 == 0
        row = layers[index]
        if row["kind"] == FLOAT:
            if not looks:
                _run_floats(launcher, threads, row, floats, inputs, work, rows, begin, end, threads)
        elif looks:
            _run_ranges(launcher, threads, row, inputs, work, rows, begin, end, bounds, threads)
            if begin == 0:
                extremes[:] = np.float32(0.0)
            for thread in range(threads):
                extremes[0] = min(extremes[0], bounds[thread, 0])
                extremes[1] = max(extremes[1], bounds[thread, 1])
        else:
            bytes_form, ld_in = _form_of_bytes(row, extremes, weight_sums, corrections), row["ld_in"]
            how, span_of_call = (bytes_form, corrections, ld_in), (begin, end)
            _run_dynamic(
                launcher, threads, program, index, float_layers, inputs, how, work, rows, span_of_call, threads
            )
    if end_pass > 2 * layers.shape[0]:
        missing = np.zeros(end - begin, np.uint8)
        buffer = np.empty(padded(form["n_out"]) * TILE_ROWS, np.float32)
        outputs = work[begin * form["positions_out"] * form["ld_output"] :]
        note_missing(inputs, begin * n_in, n_in, end - begin, missing)
        memory_of_rows = (np.zeros(0, np.uint8), outputs, corrections, missing, buffer, rows)
        give_values(form, memory_of_rows, end - begin, flat(values), begin)


predict_dynamic = entry(_predict_dynamic, "the program of dynamic quantization", seconds=5)
