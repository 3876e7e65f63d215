"""The QOperator flavour: operators on integers, whose results are nbdense's integers, each of them.

A dense layer is QLinearMatMul, or where it has a bias com.microsoft QGemm, the form that onnxruntime's own quantizer
writes: ONNX's QLinearMatMul has no bias. In a convolution it is QLinearConv. A sum is com.microsoft QLinearAdd.
Activations are their tables, and softmax its integer arithmetic, both in core operators. Other runtimes may lack the
com.microsoft domain: QDQ files have none.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from nbdense.export.graph.builder import PLAIN, Form, Graph
from nbdense.export.write import dynamic_flavour
from nbdense.export.write.quantized import Integers, LayerWriter, Walk, weight_format
from nbdense.quant.model.network import (
    LIMITS,
    QuantizedActivation,
    QuantizedAdd,
    QuantizedDense,
    QuantizedFlatten,
    QuantizedNetwork,
    QuantizedSoftmax,
)

CONTRIB = "com.microsoft"
_AXES_OPSET = 18  # from which ReduceMax takes its axes as an input


def write_qoperator(graph: Graph, network: QuantizedNetwork, form: Form = PLAIN) -> None:
    """Write a quantized network's nodes, from ``input`` to ``output``.

    Parameters
    ----------
    graph : Graph
        The graph that is written.
    network : QuantizedNetwork
        A network of the rounding "onnx".
    form : Form
        Whether to write it as a convolution, and of which types its ends are. Batch normalisations stay in any case:
        their neighbours are integers.

    Raises
    ------
    ValueError
        If the activation of a layer in float has no ONNX form; the layer is named.
    """
    Walk(graph, network, form).run(WRITERS)


def _dense(walk: Walk, index: int, layer: QuantizedDense, prefix: str) -> None:
    graph, source = walk.graph, walk.integers(index)
    scales, zeros = weight_format(layer)
    weight = [
        graph.constant(f"{prefix}/weight_scale", scales, np.float32),
        graph.constant(f"{prefix}/weight_zero_point", zeros, np.int8),
    ]
    output = walk.output(index)
    pre, before = output, f"{prefix}/output"
    if layer.table is not None:
        before = f"{prefix}/preactivation"
        pre = Integers(f"{before}_quantized", walk.scale(before, layer.pre_scale, layer.pre_zero_point), before)
    limits = layer.clamp(walk.dtype, "onnx")
    product = pre.tensor if limits == LIMITS[walk.dtype] else f"{prefix}/product"
    if walk.convolution:
        _, kernel, attributes = walk.product(index, layer.kernel)
        quantized = graph.constant(f"{prefix}/weight_quantized", kernel, np.int8)
        bias = graph.constant(f"{prefix}/bias_quantized", layer.bias, np.int32)
        inputs = [source.tensor, *source.scale, quantized, *weight, *pre.scale, bias]
        graph.node("QLinearConv", inputs, product, **attributes)
    elif layer.bias.any():
        quantized = graph.constant(f"{prefix}/weight_quantized", layer.kernel.T, np.int8)
        bias = graph.constant(f"{prefix}/bias_quantized", layer.bias, np.int32)
        inputs = [source.tensor, *source.scale, quantized, *weight, bias, *pre.scale]
        graph.node("QGemm", inputs, product, CONTRIB, transB=1)
    else:
        quantized = graph.constant(f"{prefix}/weight_quantized", layer.kernel, np.int8)
        graph.node("QLinearMatMul", [source.tensor, *source.scale, quantized, *weight, *pre.scale], product)
    if product != pre.tensor:
        _clamp(walk, prefix, product, limits, pre.tensor)
    if layer.table is not None:
        walk.look_up(pre.tensor, prefix, layer.table, output.tensor)
    walk.give_integers(index, output)


def _clamp(walk: Walk, prefix: str, source: str, limits: tuple[int, int], target: str) -> None:
    bounds = [
        walk.graph.constant(f"{prefix}/{name}", limit, walk.dtype)
        for name, limit in zip(("least", "most"), limits, strict=True)
    ]
    walk.graph.node("Clip", [source, *bounds], target)


def _add(walk: Walk, index: int, layer: QuantizedAdd, prefix: str) -> None:
    first, second = (walk.integers(index, which) for which in range(2))
    output, limits = walk.output(index), layer.clamp(walk.dtype, "onnx")
    inputs = [first.tensor, *first.scale, second.tensor, *second.scale, *output.scale]
    if limits == LIMITS[walk.dtype]:
        walk.graph.node("QLinearAdd", inputs, output.tensor, CONTRIB)
    else:
        _clamp(walk, prefix, walk.graph.node("QLinearAdd", inputs, f"{prefix}/sum", CONTRIB), limits, output.tensor)
    walk.give_integers(index, output)


def _activation(walk: Walk, index: int, layer: QuantizedActivation, prefix: str) -> None:
    output = walk.output(index)
    walk.look_up(walk.integers(index).tensor, prefix, layer.table, output.tensor)
    walk.give_integers(index, output)


def _softmax(walk: Walk, index: int, layer: QuantizedSoftmax, prefix: str) -> None:
    """Write the least integer plus floor((512 e + s) / (2 s)), at most 255: see `QuantizedSoftmax`."""
    graph, int64 = walk.graph, np.int64
    q = graph.node("Cast", [walk.integers(index).tensor], f"{prefix}/logits", to=TensorProto.INT32)
    largest = _reduced(graph, "ReduceMax", q, f"{prefix}/largest")
    entries = graph.constant(f"{prefix}/exponentials_table", layer.exponentials, int64)
    e = graph.node("Gather", [entries, graph.node("Sub", [largest, q], f"{prefix}/below")], f"{prefix}/exponentials")
    s = _reduced(graph, "ReduceSum", e, f"{prefix}/total")
    numbers = {name: graph.constant(f"{prefix}/{name}", n, int64) for name, n in (("two", 2), ("steps", 512))}
    doubled = graph.node("Mul", [e, numbers["steps"]], f"{prefix}/doubled")
    ratio = [
        graph.node("Add", [doubled, s], f"{prefix}/raised"),
        graph.node("Mul", [s, numbers["two"]], f"{prefix}/divisor"),
    ]
    bounds = [graph.constant(f"{prefix}/{name}", n, int64) for name, n in (("least", 0), ("most", 255))]
    steps = graph.node("Clip", [graph.node("Div", ratio, f"{prefix}/quotient"), *bounds], f"{prefix}/counted")
    offset = graph.constant(f"{prefix}/offset", walk.least, int64)
    shifted = graph.node("Add", [steps, offset], f"{prefix}/shifted")
    kind = TensorProto.INT8 if walk.dtype == "int8" else TensorProto.UINT8
    output = walk.output(index)
    graph.node("Cast", [shifted], output.tensor, to=kind)
    walk.give_integers(index, output)


def _reduced(graph: Graph, operator: str, source: str, target: str) -> str:
    """Write a reduction along the columns. ReduceSum takes axes as an input since opset 13, ReduceMax since 18."""
    if operator == "ReduceMax" and graph.opset < _AXES_OPSET:
        return graph.node(operator, [source], target, axes=[graph.axis], keepdims=1)
    return graph.node(operator, [source, graph.constant(f"{target}_axis", [graph.axis], np.int64)], target, keepdims=1)


def _flatten(walk: Walk, index: int, layer: QuantizedFlatten, prefix: str) -> None:
    source = walk.integers(index)
    output = walk.output(index, source.scale)
    shape = walk.graph.constant(f"{prefix}/shape", [-1, layer.n_out], np.int64)
    walk.graph.node("Reshape", [source.tensor, shape], output.tensor)
    walk.give_integers(index, output)


WRITERS: dict[type, LayerWriter] = {
    **dynamic_flavour.WRITERS,
    QuantizedDense: _dense,
    QuantizedAdd: _add,
    QuantizedActivation: _activation,
    QuantizedSoftmax: _softmax,
    QuantizedFlatten: _flatten,
}
