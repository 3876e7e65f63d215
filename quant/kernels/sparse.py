"""The sparse program: an integer program some of whose kernels hold their weights other than zero alone.

Rows of kinds that it does not know are `nbdense.quant.kernels.integer.walk`'s. Dense layers in float have two forms.
SPARSE_COLUMNS is for many rows of data, whose activations lie feature by feature: TO_COLUMNS and TO_ROWS lead there and
back, at the ends of a chain of such layers. SPARSE_ROWS takes rows as they lie, one at a time. SPARSE_PRODUCT is of
integers, for any number of rows.
"""

from __future__ import annotations

import numpy as np

from nbdense._compile.policy import entry, kernel, region, switch
from nbdense.engine.elementwise.activation_loops import activate_row, clear_padding
from nbdense.engine.elementwise.custom import call_loop
from nbdense.engine.kernels.transpose import transpose
from nbdense.engine.kernels.views import flat, part, stretch
from nbdense.quant.kernels.integer import (
    TILE_COLUMNS,
    TILE_ROWS,
    allocate_rows,
    give_rows,
    parts_of,
    release_rows,
    requantise_tile,
    take_rows,
    walk,
)
from nbdense.quant.kernels.microkernel import take_zero_points_off
from nbdense.quant.kernels.sparse_tiles import (
    ABREAST,
    COLUMNS_TILES,
    INTEGER_ROWS,
    INTEGER_TILES,
    LANES,
    OUTPUTS,
    SHAPES,
    SIDE_BY_SIDE,
    SLICES_TILES,
    TILE_OUTPUTS,
    TILE_VECTORS,
    abreast_tile,
    slices_of,
    windows_tile,
)
from nbdense.quant.kernels.tables import (
    FORM,
    FORM_AT,
    FORM_END,
    SPARSE_COLUMNS,
    SPARSE_PRODUCT,
    SPARSE_ROWS,
    TO_COLUMNS,
    TO_ROWS,
)

CHUNK = 64  # rows that go through all layers at a time, and whole vectors of them

globals().update(COLUMNS_TILES)
globals().update(SLICES_TILES)
globals().update(INTEGER_TILES)

_ARGUMENTS = "first, last, values, indices, x, bias, out, lower, upper"
_CODES = {100 * outputs + vectors: f"_columns_{outputs}_{vectors}" for outputs, vectors in SHAPES}
_columns_tile = switch("_columns_tile", _CODES, _ARGUMENTS, f"{{f}}({_ARGUMENTS})", globals(), inline=True)
_ARGUMENTS = "first, last, values, indices, x, bias, out"
_BY_BLOCK = {int(name.rpartition("_")[2]): name for name in SLICES_TILES}
_slices_tile = switch("_slices_tile", _BY_BLOCK, _ARGUMENTS, f"{{f}}({_ARGUMENTS})", globals(), inline=True)
_ARGUMENTS = "first, last, x, w, indices, bias, out"
_BY_ROWS = {int(name.rpartition("_")[2]): name for name in INTEGER_TILES}
_integer_tile = switch("_integer_tile", _BY_ROWS, _ARGUMENTS, f"{{f}}({_ARGUMENTS})", globals(), inline=True)

_SLICES = np.array([slices_of(block) for block in range(1, 17)])  # by V - 1
_OUTPUTS = np.array([TILE_OUTPUTS.get(block, 1) for block in range(17)])  # by V
_VECTORS = np.array([TILE_VECTORS.get(outputs, 1) for outputs in range(17)])


# -- many rows in float --


@kernel
def sparse_columns(row, engine_row, sparse, work, source, target, stride, m):
    """Compute a layer of ``m`` rows feature by feature: features of ``stride`` elements, from ``source`` to ``target``.

    m is rounded up to whole vectors, and the outputs to whole blocks.
    """
    values, indices, _, integers = sparse
    block = row["block"]
    outputs, most = _OUTPUTS[block], _VECTORS[_OUTPUTS[block]]
    lower, upper = work.dtype.type(engine_row["lower"]), work.dtype.type(engine_row["upper"])
    lanes = LANES * 4 // work.itemsize
    vectors = (m + lanes - 1) // lanes
    listed, starts = (indices, np.int64(row["indices"])), row["starts"]
    columns = (row["n_out"] + block - 1) // block
    v = 0
    while v < vectors:
        wide = most if vectors - v >= most else 1
        x = (work, np.int64(source + v * lanes), np.int64(stride))
        c = 0
        while c < columns:
            first, last = np.int64(integers[starts + c]), np.int64(integers[starts + c + 1])
            some = ABREAST if block == 1 and wide == 1 and columns - c >= ABREAST else 1
            for j in range(0, block, outputs):
                weights = (values, np.int64(row["kernel"] + j), np.int64(block))
                output = c * block + j
                bias = (values, np.int64(row["start"] + output))
                out = (work, np.int64(target + output * stride + v * lanes), np.int64(stride))
                if some > 1:
                    ends, singles = (integers, np.int64(starts + c)), (values, np.int64(row["kernel"]))
                    abreast_tile(ends, singles, listed, x, bias, out, lower, upper)
                else:
                    _columns_tile(100 * outputs + wide, first, last, weights, listed, x, bias, out, lower, upper)
            c += some
        v += wide
    _activate_columns(engine_row, work, target, stride, vectors * lanes)


@kernel
def _activate_columns(row, work, target, stride, count):
    """Apply an activation that is no clamp to ``count`` elements of each feature."""
    if row["call_forward"] != 0:
        for j in range(row["n_out"]):
            at = target + j * stride
            call_loop(row["call_forward"], work, at, at, at, count, row["alpha"], row["beta"], row["gamma"])


@kernel
def _to_columns(row, x, x_offset, work, capacity, m):
    """Transpose rows to features; the input's lie end to end, and nothing behind the last may be read."""
    n, target, stride = row["n_in"], row["output"] * capacity, capacity * row["positions"]
    if row["input"] > 0:
        source, ld = row["input"] * capacity, row["ld_in"]
        transpose((work, source, ld), (work, target, stride), m, n)
        return
    lanes = LANES * 4 // work.itemsize
    whole = n // lanes * lanes
    transpose((x, x_offset, n), (work, target, stride), m, whole)
    for j in range(whole, n):
        for i in range(m):
            work[target + j * stride + i] = x[x_offset + i * n + j]


@kernel
def _to_rows(row, float_layers, work, capacity, m):
    """Transpose features to rows, and apply an activation of whole rows."""
    n, target, ld = row["n_in"], row["output"] * capacity, row["ld_out"]
    transpose((work, row["input"] * capacity, capacity * row["positions"]), (work, target, ld), n, m)
    clear_padding(work, target, ld, m, n)
    if row["engine_row"] >= 0:
        activate_row(float_layers[row["engine_row"]], work, target, m)


# -- few rows in float --


@kernel
def _put_in_order(outputs, at, count, block, n_out, sums, out, target):
    """Put the sums of some blocks of outputs where these belong."""
    start = np.uint64(target)
    if block == 1:
        for u in range(count):
            output = outputs[at + np.uint64(u)]
            if output >= 0:
                out[start + np.uint64(output)] = sums[np.uint64(u)]
        return
    for u in range(count):
        output = outputs[at + np.uint64(u)] * block
        if output >= 0:
            width, source = min(block, n_out - output), np.uint64(u * block)
            for v in range(width):
                out[start + np.uint64(output + v)] = sums[source + np.uint64(v)]


@kernel
def sparse_row(row, sparse, x, x_offset, out, target, sums):
    """Compute the outputs of one row of data, before the activation.

    sums : array of WIDEST elements
    """
    values, indices, places, integers = sparse
    block, n_out, windows = row["block"], row["n_out"], row["bases"] >= 0
    count = SIDE_BY_SIDE * LANES if windows else _SLICES[block - 1]
    size = count * block
    source, total = (x, np.int64(x_offset)), (sums, np.int64(0))
    weights = (values, np.int64(row["kernel"]))
    blocks = (n_out + block - 1) // block
    for g in range((blocks + count - 1) // count):
        first, last = np.int64(integers[row["starts"] + g]), np.int64(integers[row["starts"] + g + 1])
        bias = (values, np.int64(row["start"] + g * size))
        if windows:
            bases, listed = (integers, np.int64(row["bases"])), (places, np.int64(row["indices"]))
            windows_tile(first, last, weights, listed, bases, source, bias, total)
        else:
            _slices_tile(block, first, last, weights, (indices, np.int64(row["indices"])), source, bias, total)
        _put_in_order(integers, np.uint64(row["outputs"] + g * count), count, block, n_out, sums, out, target)


@kernel
def _rows_of_floats(row, float_layers, sparse, x, x_offset, work, capacity, m):
    ld, target, sums = row["ld_out"], row["output"] * capacity, work[row["second"] * capacity :]
    for i in range(m):
        output = target + i * ld
        if row["input"] == 0:
            sparse_row(row, sparse, x, x_offset + i * row["n_in"], work, output, sums)
        else:
            sparse_row(row, sparse, work, row["input"] * capacity + i * row["ld_in"], work, output, sums)
    clear_padding(work, target, ld, m, row["n_out"])
    activate_row(float_layers[row["engine_row"]], work, target, m)


# -- integers --


@kernel
def sparse_integer_product(m, first_column, n, x, w, sparse, row, bias, tile, ld):
    """Compute tile[i, j] = bias[j] + the sum of (x[i, k] - OFFSET) w[k, j] over the blocks, modulo 2**32.

    x, bias, tile, ld : as of `integer_product`; ``n`` columns from ``first_column`` on, in whole blocks
    """
    x_array, x_offset, x_row = x
    bias_array, bias_offset = bias
    _, indices, _, integers = sparse
    listed = (indices, np.int64(row["indices"]))
    i = 0
    while i < m:
        rows = 1
        for height in INTEGER_ROWS:
            if height <= m - i:
                rows = height
                break
        tile_x = (x_array, np.int64(x_offset + i * x_row), np.int64(x_row))
        for j in range(0, n, OUTPUTS):
            at = row["starts"] + (first_column + j) // OUTPUTS
            first, last = np.int64(integers[at]), np.int64(integers[at + 1])
            tile_bias, out = (bias_array, np.int64(bias_offset + j)), (tile, np.int64(i * ld + j), np.int64(ld))
            _integer_tile(rows, first, last, tile_x, w, listed, tile_bias, out)
        i += rows


@kernel
def _multiply(row, vectors, sparse, work, tile, capacity, m, rounding):
    ld_in, ld_out, n_out = row["ld_in"], row["ld_out"], row["n_out"]
    w = (vectors.weights, np.int64(row["kernel"]))
    for j in range(0, n_out, TILE_COLUMNS):
        n, at = min(TILE_COLUMNS, n_out - j), row["channels"] + j
        for i in range(0, m, TILE_ROWS):
            rows = min(TILE_ROWS, m - i)
            x = (work, row["input"] * capacity + i * ld_in, ld_in)
            sparse_integer_product(rows, j, n, x, w, sparse, row, (vectors.bias, at), tile, TILE_COLUMNS)
            if row["zero_points"] >= 0:
                zero_points = (vectors.zero_points, row["zero_points"] + j)
                take_zero_points_off(rows, n, row["n_in"], x, zero_points, tile, TILE_COLUMNS)
            out = (work, row["output"] * capacity + i * ld_out + j, ld_out)
            requantise_tile(rows, n, row, tile, vectors, at, rounding, out)


# -- the program --


@kernel
def _walk(layers, vectors, form, floats, sparse, x, x_offset, memory, count):
    work, float_work, tile, _, _, capacity = memory
    for index in range(layers.shape[0]):
        row = layers[index]
        kind, m = row["kind"], count * row["positions"]
        if kind == SPARSE_PRODUCT:
            _multiply(row, vectors, sparse, work, tile, capacity, m, form["rounding"])
        elif kind < SPARSE_PRODUCT:
            walk(stretch(layers, index, 1), vectors, form, floats, np.int64(1), x, x_offset, memory, count)
        elif floats is not None:
            float_layers = floats[0]
            if kind == SPARSE_ROWS:
                _rows_of_floats(row, float_layers, sparse, x, x_offset, float_work, capacity, m)
            elif kind == SPARSE_COLUMNS:
                engine_row, stride = float_layers[row["engine_row"]], capacity * row["positions"]
                source, target = row["input"] * capacity, row["output"] * capacity
                sparse_columns(row, engine_row, sparse, float_work, source, target, stride, m)
            elif kind == TO_COLUMNS:
                _to_columns(row, x, x_offset, float_work, capacity, m)
            elif kind == TO_ROWS:
                _to_rows(row, float_layers, float_work, capacity, m)


@kernel
def _work_on_rows(program, form, floats, sparse, x, integers, values, span, memory):
    """Take one thread's rows from float to bytes or float; memory is as of the integer program."""
    layers, vectors = parts_of(program)
    begin, end = span
    n_in, inputs, capacity = x.shape[1], flat(x), memory[5]
    for first in range(begin, end, capacity):
        count, at = min(capacity, end - first), first * n_in
        take_rows(form, floats, np.int64(1), inputs, at, n_in, count, memory)
        _walk(layers, vectors, form, floats, sparse, inputs, at, memory, count)
        give_rows(form, memory, count, integers, values, first)


@kernel
def _predict_share(program, forms, floats, sparse, x, integers, values, threads, thread):
    rows, whole = x.shape[0], forms[0]["whole"]
    share = ((rows + threads - 1) // threads + whole - 1) // whole * whole
    begin = thread * share
    end = min(rows, begin + share)
    if begin < end:
        capacity = min(CHUNK, (end - begin + whole - 1) // whole * whole)
        memory = allocate_rows(forms[0], capacity)
        _work_on_rows(program, forms[0], floats, sparse, x, integers, values, (begin, end), memory)
        release_rows(memory)


_run = region(_predict_share)


def _predict(program, floats, sparse, x, integers, values, launcher, threads):
    """Predict all rows of ``x``: as nbdense.quant.kernels.integer.predict.

    sparse : the vectors of `nbdense.quant.kernels.tables.SPARSE`, as a tuple
    """
    forms = part(program, FORM_AT, FORM_END, FORM)
    _run(launcher, threads, program, forms, floats, sparse, x, integers, values, threads)


predict = entry(_predict, "the program of sparse kernels", seconds=8)
