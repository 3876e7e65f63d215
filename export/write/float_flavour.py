"""The float flavour: each row of inference as a few nodes, wired by the buffers that the rows name.

On inputs of one axis Dense is a Gemm with weights [N, K], which is what runtimes fuse and quantize; on more axes it is
MatMul and Add, on the last one. There is no dropout, and softmax is on the last axis.

Batch normalisation that is not folded (`nbdense.export.write.folding`) is BatchNormalization. That operator has its
channels on axis 1, ours are the last: with more axes it is Mul and Add, by scale = gamma / sqrt(variance + epsilon) and
shift = beta - mean scale, computed in float64. Both lose digits where a mean is many deviations away from zero (data
that nobody scaled): runtimes fold BatchNormalization too, and x scale + shift cancels. There it is Sub, Mul and Add,
which lose none. Layer normalisation is LayerNormalization from opset 17 on, and core operators before.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nbdense.engine.tables import ACTIVATION, ADD, DENSE, FAKE_QUANT, FROZEN_NORM, LAYER_NORM, RESHAPE
from nbdense.export.graph.activations import ActivationWriter, activation_writer, custom_writer
from nbdense.export.graph.builder import Graph, finite_float32
from nbdense.export.write.folding import inference_rows, is_far_from_zero, norm_tensors, scale_and_shift
from nbdense.network import Network, Row
from nbdense.network.folding import reads

LAYER_NORM_OPSET = 17
REDUCE_OPSET = 18  # from which ReduceMean takes its axes as an input

# (graph, row, prefix of its tensors, the input's tensor, the output's)
RowWriter = Callable[[Graph, Row, str, str, str], None]


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
    flat_output = flat_input or len(network.input_shape) == 1 or any(row.kind == RESHAPE for row in rows)
    if not flat_output or len(network.output_shape) == 1:
        write_rows(graph, rows, source, graph.output, ROW_WRITERS)
        return
    # All of the output's axes but the last are of one element.
    flat = write_rows(graph, rows, source, f"{graph.output}_flat", ROW_WRITERS)
    shape = graph.constant(f"{graph.output}_shape", [0, *network.output_shape], np.int64)  # 0: the batch stays
    graph.node("Reshape", [flat, shape], graph.output)


def write_rows(graph: Graph, rows: list[Row], source: str, target: str, writers: dict[int, RowWriter]) -> str:
    """Write rows as nodes that are wired by the buffers that the rows name; returns ``target``.

    Parameters
    ----------
    graph : Graph
        The graph that is written.
    rows : list of Row
        In the order in which they run.
    source : str
        The tensor in buffer 0.
    target : str
        The tensor that the last row writes.
    writers : dict of int to RowWriter
        By kind of row, those that are more than an activation or a sum.

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
    graph: Graph, row: Row, prefix: str, inputs: list[str], target: str, writers: dict[int, RowWriter]
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
    writers : dict of int to RowWriter
        As in `write_rows`.

    Raises
    ------
    ValueError
        If the row or its activation has no ONNX form; the layer is named.
    """
    write_activation = _activation(row)
    before = target if write_activation is None else f"{prefix}/preactivation"
    if row.kind == ACTIVATION:
        before = graph.node("Identity", inputs, target) if write_activation is None else inputs[0]
    elif row.kind == ADD:
        graph.node("Add", inputs, before)
    elif row.kind in writers:
        writers[row.kind](graph, row, prefix, inputs[0], before)
    else:
        hint = "; write what nbdense.quantize makes of the model" if row.kind == FAKE_QUANT else ""
        raise ValueError(f"{row.label} has no ONNX form{hint}")
    if write_activation is not None:
        write_activation(graph, row.activation, before, target)
    return target


def _activation(row: Row) -> ActivationWriter | None:
    """Return the function that writes a row's activation; None where there is none to write."""
    if row.activation.own:  # whatever its name
        return custom_writer(row.label, row.activation)
    return activation_writer(row.label, row.activation.name)


def _dense(graph: Graph, row: Row, prefix: str, source: str, target: str) -> None:
    kernel = finite_float32(row.kernel, row.label, "kernel")
    bias = None
    if row.bias is not None:
        bias = graph.constant(f"{prefix}/bias", finite_float32(row.bias, row.label, "bias"), np.float32)
    if row.positions == 1:
        weight = graph.constant(f"{prefix}/weight", kernel.T, np.float32)
        graph.node("Gemm", [source, weight, *([] if bias is None else [bias])], target, transB=1)
        return
    inputs = [source, graph.constant(f"{prefix}/weight", kernel, np.float32)]
    if bias is None:
        graph.node("MatMul", inputs, target)
    else:
        graph.node("Add", [graph.node("MatMul", inputs, f"{prefix}/product"), bias], target)


def write_batch_norm(graph: Graph, row: Row, prefix: str, source: str, target: str) -> None:
    """Write a batch normalisation by its running statistics.

    Parameters
    ----------
    graph : Graph
        The graph that is written.
    row : Row
        Of kind FROZEN_NORM.
    prefix : str
        The prefix of its tensors' names.
    source, target : str
        The tensors that it reads and writes.
    """
    tensors = norm_tensors(row)
    far = is_far_from_zero(row)
    if row.positions == 1 and not far:
        inputs = [graph.constant(f"{prefix}/{name}", value, np.float32) for name, value in tensors.items()]
        graph.node("BatchNormalization", [source, *inputs], target, epsilon=row.alpha)
        return
    scale, shift = scale_and_shift(row)
    parts = {"scale": scale, "shift": tensors["beta"] if far else shift, **({"mean": tensors["mean"]} if far else {})}
    names = {
        name: graph.constant(
            f"{prefix}/{name}", graph.along_columns(finite_float32(value, row.label, name)), np.float32
        )
        for name, value in parts.items()
    }
    if far:
        source = graph.node("Sub", [source, names["mean"]], f"{prefix}/centred")
    graph.node("Add", [graph.node("Mul", [source, names["scale"]], f"{prefix}/scaled"), names["shift"]], target)


def _layer_norm(graph: Graph, row: Row, prefix: str, source: str, target: str) -> None:
    if graph.opset < LAYER_NORM_OPSET:
        write_layer_norm(graph, row, prefix, source, target)
        return
    scale = finite_float32(row.kernel, row.label, "gamma") if row.kernel.size else np.ones(row.n_out, np.float32)
    inputs = [source, graph.constant(f"{prefix}/gamma", scale, np.float32)]
    if row.bias is not None:
        inputs.append(graph.constant(f"{prefix}/beta", finite_float32(row.bias, row.label, "beta"), np.float32))
    graph.node("LayerNormalization", inputs, target, axis=graph.axis, epsilon=row.alpha)


def write_layer_norm(graph: Graph, row: Row, prefix: str, source: str, target: str) -> None:
    """Write a layer normalisation in core operators, over the graph's axis of columns.

    Parameters
    ----------
    graph : Graph
        The graph that is written.
    row : Row
        Of kind LAYER_NORM.
    prefix : str
        The prefix of its tensors' names.
    source, target : str
        The tensors that it reads and writes.
    """
    mean = _mean(graph, prefix, source, f"{prefix}/mean")
    centred = graph.node("Sub", [source, mean], f"{prefix}/centred")
    square = graph.node("Mul", [centred, centred], f"{prefix}/square")
    variance = _mean(graph, prefix, square, f"{prefix}/variance")
    epsilon = graph.constant(f"{prefix}/epsilon", row.alpha, np.float32)
    deviation = graph.node("Sqrt", [graph.node("Add", [variance, epsilon], f"{prefix}/raised")], f"{prefix}/deviation")
    factors = [("Mul", "gamma", row.kernel if row.kernel.size else None), ("Add", "beta", row.bias)]
    steps = [(operator, name, value) for operator, name, value in factors if value is not None]
    tensor = graph.node("Div", [centred, deviation], f"{prefix}/standardised" if steps else target)
    for operator, name, value in steps:
        constant = graph.constant(
            f"{prefix}/{name}", graph.along_columns(finite_float32(value, row.label, name)), np.float32
        )
        after = target if name == steps[-1][1] else f"{prefix}/scaled"
        tensor = graph.node(operator, [tensor, constant], after)


def _mean(graph: Graph, prefix: str, source: str, target: str) -> str:
    if graph.opset < REDUCE_OPSET:
        return graph.node("ReduceMean", [source], target, axes=[graph.axis], keepdims=1)
    axes = graph.constant(f"{prefix}/axes", [graph.axis], np.int64)
    return graph.node("ReduceMean", [source, axes], target, keepdims=1)


def _flatten(graph: Graph, row: Row, prefix: str, source: str, target: str) -> None:
    graph.node("Flatten", [source], target, axis=1)


ROW_WRITERS: dict[int, RowWriter] = {
    DENSE: _dense,
    FROZEN_NORM: write_batch_norm,
    LAYER_NORM: _layer_norm,
    RESHAPE: _flatten,
}
