"""The weight-only flavour: float operators on weights that are kept as integers of 8 or 4 bits.

8 bits with one scale a column: DequantizeLinear of int8 weights [N, K], then Gemm, in any opset. With blocks or 4 bits:
DequantizeLinear of weights [K, N] with scales [K / block, N], then MatMul, from opset 21 on; onnxruntime makes one
MatMulNBits of that where the blocks are a power of two from 16 on. A Relu or Clip behind it would keep it from that:
there, clamps are Max and Min.

By default onnxruntime's MatMulNBits rounds its input to int8, block by block, which costs about 1e-3 of the output. It
computes in float where the session option "session.qdq_matmulnbits_accuracy_level" is "1", as in `verify_onnx`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.activations import Activation
from nbdense.export.graph.builder import PLAIN, Form, Graph
from nbdense.export.write.quantized import LayerWriter, Walk, weight_format, write_float_layer
from nbdense.quant.model.network import FloatLayer, QuantizedNetwork
from nbdense.quant.schemes.weight_only import WeightOnlyDense

BLOCKS_OPSET = 21  # the first with int4, and with scales of blocks


def write_weight_only(graph: Graph, network: QuantizedNetwork, form: Form = PLAIN) -> None:
    """Write a network of quantized weights, from ``input`` to ``output``.

    Parameters
    ----------
    graph : Graph
        The graph that is written.
    network : QuantizedNetwork
        A network of layers that compute in float.
    form : Form
        Whether to write it as a convolution. Batch normalisations stay in any case: their neighbours are integers.

    Raises
    ------
    ValueError
        If a layer's activation has no ONNX form; the layer is named.
    """
    Walk(graph, network, form).run(WRITERS)


def needed_opset(network: QuantizedNetwork) -> tuple[int, str]:
    """Return the first opset that has all that the weights need, and the reason.

    Parameters
    ----------
    network : QuantizedNetwork
        The network.
    """
    for layer in network.layers:
        if isinstance(layer, WeightOnlyDense) and _in_blocks(layer):
            return BLOCKS_OPSET, f"weights of {layer.bits} bits" + (" in blocks" if layer.block_size else "")
    return 0, ""


def _in_blocks(layer: WeightOnlyDense) -> bool:
    return layer.bits == 4 or len(layer.kernel_scales) > 1


def weight_only_dense(walk: Walk, index: int, layer: WeightOnlyDense, prefix: str) -> None:
    """Write one layer of weights that are kept as integers.

    Parameters
    ----------
    walk : Walk
        The walk.
    index : int
        The layer's number.
    layer : WeightOnlyDense
        The layer.
    prefix : str
        The prefix of its tensors' names.
    """
    graph, source = walk.graph, walk.floats(index)
    bias = [] if layer.bias is None else [graph.constant(f"{prefix}/bias", layer.bias, np.float32)]
    if _in_blocks(layer):
        if walk.convolution:
            raise ValueError(
                f"to_onnx: as_convolution does not support weights of 4 bits or in blocks, as layer {layer.name!r} has"
            )
        weight = _blocks(graph, layer, prefix)

        def multiply(target: str) -> None:
            if bias:
                graph.node("Add", [graph.node("MatMul", [source, weight], f"{prefix}/product"), *bias], target)
            else:
                graph.node("MatMul", [source, weight], target)

        clamps = layer.function.is_clamp and walk.activation(layer) is not None
        walk.activate(index, multiply, _clamp if clamps else None)
        return
    scales, zeros = weight_format(layer)
    operator, kernel, attributes = walk.product(index, layer.kernel)
    constants = [
        graph.constant(f"{prefix}/weight_quantized", kernel, np.int8),
        graph.constant(f"{prefix}/weight_scale", scales, np.float32),
        graph.constant(f"{prefix}/weight_zero_point", zeros, np.int8),
    ]
    weight = graph.node("DequantizeLinear", constants, f"{prefix}/weight", axis=0)
    walk.activate(index, lambda target: graph.node(operator, [source, weight, *bias], target, **attributes))


def _clamp(graph: Graph, activation: Activation, source: str, target: str) -> None:
    bounds = [(o, b) for o, b in (("Max", activation.lower), ("Min", activation.upper)) if np.isfinite(b)]
    for operator, bound in bounds:
        limit = graph.constant(f"{target}_{operator.lower()}", bound, np.float32)
        after = target if operator == bounds[-1][0] else f"{target}_from_below"
        source = graph.node(operator, [source, limit], after)


def _blocks(graph: Graph, layer: WeightOnlyDense, prefix: str) -> str:
    """Write the dequantized weight [K, N]."""
    scales, zeros = weight_format(layer)

    def integers(part: str, values: npt.NDArray[np.int8]) -> str:
        name = f"{prefix}/weight_{part}"
        return graph.int4(name, values) if layer.bits == 4 else graph.constant(name, values, np.int8)

    inputs = [integers("quantized", layer.kernel), graph.constant(f"{prefix}/weight_scale", scales, np.float32)]
    if layer.kernel_zero_points is not None:
        inputs.append(integers("zero_point", zeros))
    attributes: dict[str, Any] = {"axis": 1} if scales.ndim == 1 else {"axis": 0, "block_size": layer.block_size}
    return graph.node("DequantizeLinear", inputs, f"{prefix}/weight", **attributes)


WRITERS: dict[type, LayerWriter] = {FloatLayer: write_float_layer, WeightOnlyDense: weight_only_dense}
