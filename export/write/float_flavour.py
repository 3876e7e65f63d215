"""The float flavour: each row of inference as a few nodes, wired by the buffers that the rows name.

How a kind of row is written, the module of its layer says (`nbdense.layers.forms`). On inputs of one axis Dense is a
Gemm with weights [N, K], which is what runtimes fuse and quantize; on more axes it is MatMul and Add, on the last one.
There is no dropout, and softmax is on the last axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nbdense.engine.rows import ACTIVATION, FAKE_QUANT, RESHAPE, RowKind
from nbdense.export.graph.activations import ActivationWriter, activation_writer, custom_writer
from nbdense.export.graph.builder import Graph
from nbdense.export.write.folding import inference_rows
from nbdense.layers import form_of
from nbdense.network import Network, Row
from nbdense.network.folding import reads

# (graph, row, prefix of its tensors, the inputs' tensors, the output's)
RowWriter = Callable[[Graph, Row, str, Sequence[str], str], None]
Writers = Mapping[RowKind, RowWriter]
NO_WRITERS: Writers = {}


def write_float(graph: Graph, network: Network, fold: bool = True) -> None:
    """Write a float network's nodes, from ``input`` to ``output``.

    Parameters
    ----------
    graph : Graph
        The graph that is written.
    network : Network
        float64 weights are stored as float32.
    fold : bool
        Whether dense layers take over the batch normalisations beside them.

    Raises
    ------
    ValueError
        If a row or its activation has no ONNX form, or a weight is not a finite float32 number; the layer is named.
    """
    source = graph.input
    rows = inference_rows(network, fold)
    flat_input = len(network.input_shape) > 1 and any(0 in reads(row) and row.positions == 1 for row in rows)
    if flat_input:  # the network has no row for it: it reads the same numbers as one row of columns
        source = graph.node("Flatten", [source], f"{source}_flat", axis=1)
    flat_output = flat_input or len(network.input_shape) == 1 or any(row.kind is RESHAPE for row in rows)
    if not flat_output or len(network.output_shape) == 1:
        write_rows(graph, rows, source, graph.output)
        return
    # All of the output's axes but the last are of one element.
    flat = write_rows(graph, rows, source, f"{graph.output}_flat")
    shape = graph.constant(f"{graph.output}_shape", [0, *network.output_shape], np.int64)  # 0: the batch stays
    graph.node("Reshape", [flat, shape], graph.output)


def write_rows(graph: Graph, rows: list[Row], source: str, target: str, writers: Writers = NO_WRITERS) -> str:
    """Write rows as nodes that are wired by the buffers that the rows name; returns ``target``.

    Parameters
    ----------
    graph : Graph
        The graph that is written.
    rows : list of Row
        Rows, in the order in which they run.
    source : str
        The tensor in buffer 0.
    target : str
        The tensor that the last row writes.
    writers : mapping of RowKind to RowWriter
        By kind of row, of those that are written in another way than their forms say.

    Raises
    ------
    ValueError
        If a row or its activation has no ONNX form; the layer is named.
    """
    tensors = {0: source}  # by buffer
    for row in rows:
        prefix = graph.layer(row.name)
        inputs = [tensors[buffer] for buffer in reads(row)]
        output = target if row is rows[-1] else f"{prefix}/output"
        tensors[row.output] = write_row(graph, row, prefix, inputs, output, writers)
    return target


def write_row(
    graph: Graph, row: Row, prefix: str, inputs: list[str], target: str, writers: Writers = NO_WRITERS
) -> str:
    """Write one row and its activation; returns ``target``.

    Parameters
    ----------
    graph : Graph
        The graph that is written.
    row : Row
        The row.
    prefix : str
        The prefix of its tensors' names.
    inputs : list of str
        The tensors that it reads.
    target : str
        The tensor that it writes.
    writers : mapping of RowKind to RowWriter
        As in `write_rows`.

    Raises
    ------
    ValueError
        If the row or its activation has no ONNX form; the layer is named.
    """
    write_activation = _activation(row)
    preactivation = target if write_activation is None else f"{prefix}/preactivation"
    form = form_of(row.kind)
    write = writers.get(row.kind) or (None if form is None else form.write_onnx)
    if write is None:
        hint = "; write what nbdense.quantize makes of the model" if row.kind is FAKE_QUANT else ""
        raise ValueError(f"{row.label} has no ONNX form{hint}")
    if row.kind is ACTIVATION and write_activation is not None:
        (preactivation,) = inputs
    else:
        write(graph, row, prefix, inputs, preactivation)
    if write_activation is not None:
        graph.activate(write_activation, row.activation, preactivation, target)
    return target


def _activation(row: Row) -> ActivationWriter | None:
    """Return the function that writes a row's activation; None where there is none to write."""
    if row.activation.own:  # whatever its name
        return custom_writer(row.label, row.activation)
    return activation_writer(row.label, row.activation.name)
