"""The tables of an integer program, plain data: what `nbdense.quant.layers.layout` writes and compiled code reads."""

from __future__ import annotations

import numpy as np

# Kinds of rows. FLOAT is a row of the engine's table; DYNAMIC one of dynamic.py's; from SPARSE_PRODUCT on sparse.py's.
PRODUCT, SUM, LOOKUP, SOFTMAX_OF_BYTES, RESHAPE, QUANTIZE, DEQUANTIZE, FLOAT, DYNAMIC = range(9)
SPARSE_PRODUCT, SPARSE_ROWS, SPARSE_COLUMNS, TO_COLUMNS, TO_ROWS = range(9, 14)

# Offsets and strides in elements; buffers are named by their first column, as in the engine's own table, of bytes or of
# floats as the kind has it.
LAYER = np.dtype(
    [
        ("kind", np.int64),
        ("positions", np.int64),
        ("n_in", np.int64),
        ("n_out", np.int64),
        ("input", np.int64),
        ("ld_in", np.int64),
        ("second", np.int64),
        ("output", np.int64),
        ("ld_out", np.int64),
        ("kernel", np.int64),  # among the weights, in packed rows of ld_out columns
        ("channels", np.int64),  # among the `COLUMNS`
        ("zero_points", np.int64),  # among the zero points: of a kernel's columns, or of the terms of a sum; -1: none
        ("table", np.int64),  # among the tables; -1: none
        ("exponentials", np.int64),  # among the exponentials; -1: none
        ("engine_row", np.int64),  # of FLOAT the layer, of DYNAMIC its activation
        ("scale", np.float64),  # a float32 number: of the bytes that QUANTIZE gives, or DEQUANTIZE takes
        ("zero_point", np.int64),  # of the requantised bytes, and the bytes that the activation leaves possible:
        ("low", np.int64),
        ("high", np.int64),
        # Of sparse kernels: V, and offsets among the values, indices and integers of `SPARSE`.
        ("block", np.int64),
        ("start", np.int64),  # of what is summed to: the bias, or zeros
        ("indices", np.int64),
        ("starts", np.int64),  # of the blocks, or steps, of each block or group of outputs; and the last ones' end
        ("outputs", np.int64),  # of SPARSE_ROWS: which blocks of outputs
        ("bases", np.int64),  # of SPARSE_ROWS in windows; -1: there are none
    ]
)

# The columns: numbers of which a layer has one for each of its outputs, or a sum one for each factor. A kind that no
# row of a program needs is empty there.
COLUMNS = {
    "bias": np.int32,
    "multipliers": np.float32,  # of rounding "onnx", of sums too; of DYNAMIC the scales of its weights
    "fixed_multipliers": np.int32,  # of the roundings in fixed point, with their
    "shifts": np.int32,
    "weight_sums": np.int32,  # of DYNAMIC, negated: a zero point of its input times these comes on top of its sums
    "float_bias": np.float32,  # of DYNAMIC
}

VECTORS = {"weights": np.int8, **COLUMNS, "zero_points": np.int32, "exponentials": np.int32, "tables": np.uint8}

# The vectors of sparse kernels: weights and biases in float, numbers of inputs (uint32 where one is past 16 bits),
# places in windows, all other integers.
SPARSE = {"values": np.float32, "indices": np.uint16, "places": np.uint8, "integers": np.int32}

FORM = np.dtype(
    [
        ("width", np.int64),  # columns of the bytes' workspace
        ("float_width", np.int64),  # of the floats'
        ("whole", np.int64),  # of a sparse program: its workspaces have a multiple of so many rows
        ("copies_input", np.int64),  # whether rows of the engine's read the input there
        ("positions", np.int64),  # of the input, and its row stride in the workspaces
        ("ld_input", np.int64),
        ("rounding", np.int64),
        ("softmax", np.int64),
        ("integers", np.int64),  # whether the last output is bytes
        ("output", np.int64),  # its buffer
        ("n_out", np.int64),  # its columns, positions and row stride
        ("positions_out", np.int64),
        ("ld_output", np.int64),
        ("output_zero_point", np.int64),
        ("output_scale", np.float32),
    ]
)

# A program is one array of bytes, since numba takes 50 ns to look at an argument of a call, and several times
# that for a table or a tuple. It begins with where in it the parts lie; the form follows.
PARTS = np.dtype([(name, np.int64) for name in (*VECTORS, "layers", "end")])
FORM_AT, FORM_END = PARTS.itemsize, PARTS.itemsize + FORM.itemsize
