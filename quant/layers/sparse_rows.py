"""Rows of sparse dense layers in a program, and what their tiles read: see `nbdense.quant.kernels.sparse`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.activations import ACTIVATIONS, Activation
from nbdense.engine.rows import ACTIVATION
from nbdense.quant.kernels import tables
from nbdense.quant.kernels.sparse_formats import Blocks, Slices, slices, windows
from nbdense.quant.kernels.sparse_tiles import HAS_WINDOWS, WIDEST, WINDOW
from nbdense.quant.layers.layout import Layout

Vector = npt.NDArray[np.float32]


def lay_out(layout: Layout, index: int, function: Activation, bias: Vector | None) -> None:
    """Write the row of a layer in float whose kernel is held without its zeros.

    Parameters
    ----------
    layout : Layout
        Layout of the program.
    index : int
        The layer's place in the network, among the layout's sparse ones.
    function : Activation
        The layer's.
    bias : ndarray of float32, (n_out,), optional
        The layer's.
    """
    (_rows if layout.sparse.few else _columns)(layout, index, function, bias)


def _columns(layout: Layout, index: int, function: Activation, bias: Vector | None) -> None:
    blocks = layout.sparse.blocks[index]
    start = np.zeros(blocks.counts.size * blocks.width, np.float32)
    start[: blocks.shape[1]] = 0 if bias is None else bias
    source = layout.columns_of_input(index)
    tensor = layout.inputs[index][0]
    in_rows = function.rowwise
    output = layout.room_of(index + 1) if in_rows else layout.columns_of_output(index)
    own = ACTIVATIONS["linear"] if in_rows else function
    layout.row(
        tables.SPARSE_COLUMNS,
        tensor,
        index + 1,
        input=source,
        output=output,
        engine_row=layout.engine_row(ACTIVATION, index, output, output, own),
        kernel=layout.put("values", blocks.values.reshape(-1)),
        start=layout.put("values", start),
        indices=layout.put("indices", blocks.indices),
        starts=layout.put("integers", blocks.starts),
        block=blocks.width,
    )
    if in_rows:
        target = layout.float_output(index)
        number = layout.engine_row(ACTIVATION, index, target, target, function)
        layout.row(tables.TO_ROWS, index + 1, index + 1, input=output, output=target, engine_row=number)


def _rows(layout: Layout, index: int, function: Activation, bias: Vector | None) -> None:
    blocks = layout.sparse.blocks[index]
    made = sliced(blocks)
    padded = np.zeros((blocks.counts.size + 1) * blocks.width, np.float32)
    padded[: blocks.shape[1]] = 0 if bias is None else bias
    start = padded.reshape(-1, blocks.width)[made.outputs]  # -1, no outputs: the last, of zeros
    in_windows = made.bases.size > 0
    source, output = layout.floats_of_input(index), layout.float_output(index)
    layout.row(
        tables.SPARSE_ROWS,
        layout.inputs[index][0],
        index + 1,
        input=source,
        output=output,
        second=layout.room(WIDEST),
        engine_row=layout.engine_row(ACTIVATION, index, output, output, function),
        kernel=layout.put("values", made.values.reshape(-1)),
        start=layout.put("values", start.reshape(-1)),
        indices=layout.put("places" if in_windows else "indices", made.indices.reshape(-1)),
        starts=layout.put("integers", made.starts),
        outputs=layout.put("integers", made.outputs.reshape(-1)),
        bases=layout.put("integers", made.bases) if in_windows else -1,
        block=blocks.width,
    )


def sliced(blocks: Blocks) -> Slices:
    """Lay a kernel's blocks out for few rows, as this CPU's tiles read them.

    Parameters
    ----------
    blocks : Blocks
        The kernel's.
    """
    if HAS_WINDOWS and blocks.width == 1 and blocks.shape[0] >= WINDOW and blocks.values.size:
        return windows(blocks)
    return slices(blocks)


def integer_fields(layout: Layout, blocks: Blocks) -> dict[str, Any]:
    """Lay the blocks of a kernel of integers out; returns the fields of its row.

    Parameters
    ----------
    layout : Layout
        Layout of the program.
    blocks : Blocks
        The kernel's, of GROUP inputs by OUTPUTS outputs.
    """
    packed = blocks.values.reshape(-1, blocks.height, blocks.width).transpose(0, 2, 1)
    return {
        "kernel": layout.put("weights", packed.reshape(-1)),
        "indices": layout.put("indices", blocks.indices),
        "starts": layout.put("integers", blocks.starts),
        "block": blocks.width,
    }
