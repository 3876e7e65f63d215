"""The QDQ flavour: QuantizeLinear and DequantizeLinear around float operators, as onnxruntime fuses them to integers.

For each layer: Gemm of the dequantized input, weights [N, K] and int32 bias, then QuantizeLinear. onnxruntime turns
that into one QGemm if (and only if) the scales of activations are rank 0, every zero point is there, and the bias has
the scale ``input_scale * weight_scale``. A DequantizeLinear always comes last: without it only part is fused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.export.float_flavour import activation_writer
from nbdense.export.graph import Graph
from nbdense.quant.network import LIMITS, QuantizedDense, QuantizedNetwork


class _Integers:
    """Writes QuantizeLinear and DequantizeLinear of one activation dtype."""

    def __init__(self, graph: Graph, dtype: str) -> None:
        self.graph, self.dtype = graph, dtype

    def scale(self, prefix: str, scale: float, zero_point: int) -> list[str]:
        """Constants of a scale and a zero point, rank 0."""
        return [
            self.graph.constant(f"{prefix}_scale", scale, np.float32),
            self.graph.constant(f"{prefix}_zero_point", zero_point, self.dtype),
        ]

    def through(self, source: str, prefix: str, scale: list[str], target: str | None = None) -> str:
        """To integers and back: what a float tensor says in 256 steps."""
        quantized = self.graph.node("QuantizeLinear", [source, *scale], f"{prefix}_quantized")
        return self.graph.node("DequantizeLinear", [quantized, *scale], target or f"{prefix}_dequantized")


def write_qdq(graph: Graph, network: QuantizedNetwork, fold: bool = True) -> None:
    """Write a quantized network's nodes, from ``input`` to ``output``.

    Parameters
    ----------
    graph : Graph
        Where to.
    network : QuantizedNetwork
        Of the rounding "onnx".
    fold : bool
        There is no batch normalisation in it.

    Raises
    ------
    ValueError
        If the rounding is another, or a layer's activation has no QDQ form; the layer is named.
    """
    if network.rounding != "onnx":
        raise ValueError(
            f"the network rounds as {network.rounding!r}, ONNX's operators do not: "
            "quantize with rounding='onnx' to export"
        )
    integers = _Integers(graph, network.activation_dtype)
    first, last = network.layers[0], network.layers[-1]
    tensor = integers.through(
        graph.input, graph.input, integers.scale(graph.input, first.input_scale, first.input_zero_point)
    )
    softmax = network.final_activation == "softmax"
    for layer in network.layers:
        prefix = graph.layer(layer.name)
        target = graph.output if layer is last and not softmax else f"{prefix}/output"
        tensor = _dense(integers, layer, prefix, tensor, target)
    if softmax:
        graph.node("Softmax", [tensor], graph.output, axis=-1)


def _dense(integers: _Integers, layer: QuantizedDense, prefix: str, source: str, target: str) -> str:
    """One layer, from the dequantized input to the dequantized output ``target``."""
    graph, before = integers.graph, f"{prefix}/preactivation"
    tensor = graph.node("Gemm", [source, *_weights(graph, layer, prefix)], before, transB=1)
    write = activation_writer(layer.name, layer.activation)
    if write is not None:
        if layer.clamp(integers.dtype, "onnx") != LIMITS[integers.dtype] or layer.table is not None:
            # onnxruntime drops an activation before a QuantizeLinear only where the type's limits do its clamping; any
            # other would keep the Gemm in float, unless there are integers on both its sides.
            tensor = integers.through(tensor, before, integers.scale(before, layer.pre_scale, layer.pre_zero_point))
        write(graph, layer.function, layer.alpha, tensor, f"{prefix}/activation")
        tensor = f"{prefix}/activation"
    after = integers.scale(f"{prefix}/output", layer.output_scale, layer.output_zero_point)
    return integers.through(tensor, f"{prefix}/output", after, target)


def _weights(graph: Graph, layer: QuantizedDense, prefix: str) -> list[str]:
    """The dequantized weight [N, K] and bias [N]: per channel along axis 0, or with rank-0 scales."""
    parts: list[tuple[str, npt.NDArray[Any], npt.NDArray[np.float32]]] = [
        ("weight", layer.kernel.T, layer.kernel_scales),
        ("bias", layer.bias, layer.bias_scales()),
    ]
    per_tensor = layer.granularity == "per_tensor"
    names = []
    for what, value, scales in parts:
        scale = scales[0] if per_tensor else scales
        inputs = [
            graph.constant(f"{prefix}/{what}_quantized", value, value.dtype),
            graph.constant(f"{prefix}/{what}_scale", scale, np.float32),
            graph.constant(f"{prefix}/{what}_zero_point", np.zeros(np.shape(scale)), value.dtype),
        ]
        names.append(graph.node("DequantizeLinear", inputs, f"{prefix}/{what}", **({} if per_tensor else {"axis": 0})))
    return names
