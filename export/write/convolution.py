"""A dense network on flattened images as a convolution, which slides over larger ones.

A dense layer on the flattened (C, H, W) is a Conv whose kernel is as large as the image; what follows is 1x1 Convs, on
tensors (batch, channels, height, width) of one pixel. A larger image makes more pixels, each of them what the network
says of one window (Long et al. 2015, section 3.1; there "fully convolutional").
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nbdense._checks import finite_float32
from nbdense.engine.rows import ACTIVATION, DENSE
from nbdense.export.graph.builder import Graph, Shape
from nbdense.export.write.float_flavour import write_rows
from nbdense.export.write.folding import inference_rows
from nbdense.network import Network, Row
from nbdense.network.folding import reads
from nbdense.quant.model.network import QuantizedNetwork

CHANNELS = 1  # the axis


def convolution_shapes(network: Network | QuantizedNetwork) -> tuple[Shape, Shape]:
    """Return the shapes of one row of data before and behind the convolution, with names for dynamic axes.

    Parameters
    ----------
    network : Network or QuantizedNetwork
        The network.
    """
    return (network.input_shape[0], "height", "width"), (network.n_out, "height_out", "width_out")


def write_convolution(graph: Graph, network: Network, fold: bool = True) -> None:
    """Write a float network's nodes, from ``input`` to ``output``.

    Parameters
    ----------
    graph : Graph
        The graph that is written; its axis becomes the channels'.
    network : Network
        A network whose layers all stand behind a Flatten of (C, H, W).
    fold : bool
        Whether dense layers take over the batch normalisations beside them.

    Raises
    ------
    ValueError
        If the network is another, a layer needs all pixels at once, a row has no ONNX form, or a weight is not a finite
        float32 number; the layer is named.
    """
    rows = inference_rows(network, fold)
    stages = [Stage(row.label, _what(row), row.positions, reads(row), row.output) for row in rows]
    images = images_of(network.input_shape, stages)
    graph.axis = CHANNELS
    conv = functools.partial(_conv, images=images, shape=network.input_shape)
    write_rows(graph, rows, graph.input, graph.output, {DENSE: conv})


def _what(row: Row) -> str:
    if row.kind is DENSE:
        return "dense"
    return "activation" if row.kind is ACTIVATION and not row.activation.rowwise else ""


@dataclass(frozen=True)
class Stage:
    """A layer as far as it matters to a convolution."""

    label: str  # what errors call it
    kind: str  # "dense", "activation" of single elements, or anything else
    positions: int
    reads: tuple[int, ...]  # tensors; 0 is the input
    writes: int


def images_of(shape: tuple[int, ...], stages: list[Stage]) -> set[int]:
    """Return the tensors that hold a flattened image: the input, and activations of it.

    Parameters
    ----------
    shape : tuple of int
        Shape of one row of data.
    stages : list of Stage
        The layers.

    Raises
    ------
    ValueError
        If they are no convolution; the layer is named.
    """
    wrong = next((stage for stage in stages if stage.positions != 1), None)
    if len(shape) != 3 or wrong is not None:
        where = "" if wrong is None else f"; {wrong.label} is not behind it"
        raise ValueError(
            "to_onnx: as_convolution needs an Input((channels, height, width)) and a Flatten, then layers on one axis; "
            f"the input is {shape}{where}"
        )
    images = {0}
    for stage in stages:
        if not images.intersection(stage.reads) or stage.kind == "dense":
            continue
        if stage.kind != "activation":
            raise ValueError(
                f"to_onnx: as_convolution: {stage.label} works on all pixels at once, as no convolution does; "
                "only Dense and activations can stand right behind the Flatten"
            )
        images.add(stage.writes)
    if stages[-1].writes in images:
        raise ValueError("to_onnx: as_convolution needs a Dense layer behind the Flatten")
    return images


def _conv(
    graph: Graph, row: Row, prefix: str, inputs: Sequence[str], target: str, images: set[int], shape: tuple[int, ...]
) -> None:
    write_conv(graph, row, prefix, inputs, target, shape if row.input in images else (row.n_in, 1, 1))


def write_conv(
    graph: Graph, row: Row, prefix: str, inputs: Sequence[str], target: str, window: tuple[int, ...]
) -> None:
    """Write a dense row as a Conv.

    Parameters
    ----------
    graph : Graph
        The graph that is written.
    row : Row
        A row of kind DENSE.
    prefix : str
        The prefix of its tensors' names.
    inputs : sequence of str
        The tensor that it reads.
    target : str
        The tensor that it writes.
    window : tuple of int
        Channels, height and width of what it multiplies.
    """
    kernel = finite_float32(row.kernel, row.label, "kernel").T.reshape(row.n_out, *window)
    factors = [*inputs, graph.constant(f"{prefix}/weight", kernel, np.float32)]
    if row.bias is not None:
        factors.append(graph.constant(f"{prefix}/bias", finite_float32(row.bias, row.label, "bias"), np.float32))
    graph.node("Conv", factors, target, kernel_shape=list(window[1:]))
