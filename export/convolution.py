"""A dense network on flattened images as a convolution, which slides over larger ones.

A dense layer on the flattened (C, H, W) is a Conv whose kernel is as large as the image; what follows is 1x1 Convs, on
tensors (batch, channels, height, width) of one pixel. A larger image makes more pixels, each of them what the network
says of one window (Long et al. 2015, section 3.1; there "fully convolutional").
"""

from __future__ import annotations

import functools

import numpy as np

from nbdense.export.float_flavour import ROW_WRITERS, RowWriter, write_layer_norm, write_rows
from nbdense.export.folding import inference_rows, reads
from nbdense.export.graph import Graph, Shape, finite_float32
from nbdense.network import ACTIVATION, DENSE, LAYER_NORM, Network, Row

CHANNELS = 1  # the axis


def convolution_shapes(network: Network) -> tuple[Shape, Shape]:
    """Shapes of one row of data before and behind the convolution, with names for what is dynamic.

    Parameters
    ----------
    network : Network
        The network.
    """
    return (network.input_shape[0], "height", "width"), (network.n_out, "height_out", "width_out")


def write_convolution(graph: Graph, network: Network, fold: bool = True) -> None:
    """Write a float network's nodes, from ``input`` to ``output``.

    Parameters
    ----------
    graph : Graph
        Where to; its axis becomes the channels'.
    network : Network
        Whose layers all stand behind a Flatten of (C, H, W).
    fold : bool
        Whether dense layers take over the batch normalisations beside them.

    Raises
    ------
    ValueError
        If the network is another, a layer needs all pixels at once, a row has no ONNX form, or a weight is not a finite
        float32 number; the layer is named.
    """
    rows = inference_rows(network, fold)
    images = _images(network, rows)
    graph.axis = CHANNELS
    conv = functools.partial(_conv, images=images, shape=network.input_shape)
    writers: dict[int, RowWriter] = {**ROW_WRITERS, DENSE: conv, LAYER_NORM: write_layer_norm}
    write_rows(graph, rows, graph.input, graph.output, writers)


def _images(network: Network, rows: list[Row]) -> set[int]:
    """The buffers that hold a flattened image: the input, and what activations make of it."""
    shape = network.input_shape
    wrong = next((row for row in rows if row.positions != 1), None)
    if len(shape) != 3 or wrong is not None:
        where = "" if wrong is None else f"; layer {wrong.name!r} is not behind it"
        raise ValueError(
            "to_onnx: as_convolution needs an Input((channels, height, width)) and a Flatten, then layers on one axis; "
            f"the input is {shape}{where}"
        )
    images = {0}
    for row in rows:
        if not images.intersection(reads(row)) or row.kind == DENSE:
            continue
        if row.kind != ACTIVATION or row.activation.name == "softmax":
            raise ValueError(
                f"to_onnx: as_convolution: layer {row.name!r} works on all pixels at once, which no convolution does; "
                "only Dense and activations can stand right behind the Flatten"
            )
        images.add(row.output)
    if rows[-1].output in images:
        raise ValueError("to_onnx: as_convolution needs a Dense layer behind the Flatten")
    return images


def _conv(
    graph: Graph, row: Row, prefix: str, source: str, target: str, images: set[int], shape: tuple[int, ...]
) -> None:
    window = shape if row.input in images else (row.n_in, 1, 1)
    kernel = finite_float32(row.kernel, row.name, "kernel").T.reshape(row.n_out, *window)
    inputs = [source, graph.constant(f"{prefix}/weight", kernel, np.float32)]
    if row.bias is not None:
        inputs.append(graph.constant(f"{prefix}/bias", finite_float32(row.bias, row.name, "bias"), np.float32))
    graph.node("Conv", inputs, target, kernel_shape=list(window[1:]))
