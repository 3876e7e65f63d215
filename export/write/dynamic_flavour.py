"""The dynamic flavour: int8 weights, and inputs that are quantized anew in every call.

DynamicQuantizeLinear gives uint8 and one scale for all that comes in a call, so that a row's result depends on the
batch that it is in. MatMulInteger, Cast and Mul by the product of the scales follow, which onnxruntime fuses into
MatMulIntegerToFloat or DynamicQuantizeMatMul.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from nbdense.export.graph.builder import PLAIN, Form, Graph
from nbdense.export.write import weight_only_flavour
from nbdense.export.write.quantized import LayerWriter, Walk, weight_format
from nbdense.quant.model.network import QuantizedNetwork
from nbdense.quant.schemes.dynamic import DynamicDense


def write_dynamic(graph: Graph, network: QuantizedNetwork, form: Form = PLAIN) -> None:
    """Write a dynamically quantized network, from ``input`` to ``output``.

    Parameters
    ----------
    graph : Graph
        The graph that is written.
    network : QuantizedNetwork
        A network of dynamic layers, and others that compute in float.
    form : Form
        Whether to write it as a convolution. Batch normalisations stay in any case: their neighbours are integers.

    Raises
    ------
    ValueError
        If a layer's activation has no ONNX form; the layer is named.
    """
    Walk(graph, network, form).run(WRITERS)


def dynamic_dense(walk: Walk, index: int, layer: DynamicDense, prefix: str) -> None:
    """Write one layer of int8 weights on inputs that are quantized anew in every call.

    Parameters
    ----------
    walk : Walk
        The walk.
    index : int
        The layer's number.
    layer : DynamicDense
        The layer.
    prefix : str
        The prefix of its tensors' names.
    """
    graph = walk.graph
    if walk.convolution:
        raise ValueError(f"to_onnx: as_convolution does not support dynamically quantized layers, as {layer.name!r} is")
    names = [f"{prefix}/input_{part}" for part in ("quantized", "scale", "zero_point")]
    quantized, scale, zero_point = graph.nodes("DynamicQuantizeLinear", [walk.floats(index)], names)
    scales, zeros = weight_format(layer)
    weight = graph.constant(f"{prefix}/weight_quantized", layer.kernel, np.int8)
    weight_scale = graph.constant(f"{prefix}/weight_scale", scales, np.float32)
    weight_zero_point = graph.constant(f"{prefix}/weight_zero_point", zeros, np.int8)
    product = graph.node("MatMulInteger", [quantized, weight, zero_point, weight_zero_point], f"{prefix}/accumulator")
    product = graph.node("Cast", [product], f"{prefix}/product", to=TensorProto.FLOAT)
    factor = graph.node("Mul", [scale, weight_scale], f"{prefix}/accumulator_scale")

    def write(target: str) -> None:
        if layer.bias is None:
            graph.node("Mul", [product, factor], target)
            return
        bias = graph.constant(f"{prefix}/bias", layer.bias, np.float32)
        graph.node("Add", [graph.node("Mul", [product, factor], f"{prefix}/scaled"), bias], target)

    walk.activate(index, write)


WRITERS: dict[type, LayerWriter] = {**weight_only_flavour.WRITERS, DynamicDense: dynamic_dense}
