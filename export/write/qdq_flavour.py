"""The QDQ flavour: QuantizeLinear and DequantizeLinear around float operators, as onnxruntime fuses them to integers.

For each dense layer: Gemm of the dequantized input, weights [N, K] and int32 bias, then QuantizeLinear. onnxruntime
turns that into one QGemm if (and only if) the scales of activations are rank 0, every zero point is there, and the bias
has the scale ``input_scale * weight_scale``. A DequantizeLinear always comes last: without it only part is fused.

Activations are their float operators, between integers on both sides; one of the user's own is its table. Sums are Add
between integers. onnxruntime on x86 fuses both with uint8. With int8 it first makes uint8 of integers that one node
reads: what others stand beside, sums and tables and what leads to them, it computes in float.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.activations import ACTIVATIONS, Activation
from nbdense.export.graph.activations import ActivationWriter, activation_writer
from nbdense.export.graph.builder import PLAIN, Form, Graph
from nbdense.export.write import dynamic_flavour
from nbdense.export.write.quantized import Integers, LayerWriter, Walk, weight_format
from nbdense.quant.layers.activations import tabulated
from nbdense.quant.model.network import (
    LIMITS,
    QuantizedActivation,
    QuantizedAdd,
    QuantizedDense,
    QuantizedFlatten,
    QuantizedNetwork,
    QuantizedSoftmax,
)


def write_qdq(graph: Graph, network: QuantizedNetwork, form: Form = PLAIN) -> None:
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
        If a layer's activation has no QDQ form; the layer is named.
    """
    Walk(graph, network, form).run(WRITERS)


def _dense(walk: Walk, index: int, layer: QuantizedDense, prefix: str) -> None:
    graph, pre = walk.graph, f"{prefix}/preactivation"
    operator, kernel, attributes = walk.product(index, layer.kernel)
    weights = _weights(graph, layer, prefix, kernel)
    tensor = graph.node(operator, [walk.dequantized(index), *weights], pre, **attributes)
    # onnxruntime drops an activation before a QuantizeLinear only where the type's limits do its clamping; any other
    # would keep the Gemm in float, unless there are integers on both its sides.
    if layer.table is not None or layer.clamp(walk.dtype, "onnx") != LIMITS[walk.dtype]:
        _activate(walk, index, layer, prefix, walk.quantize(tensor, pre, layer.pre_scale, layer.pre_zero_point))
    else:
        _give(walk, index, prefix, _function(walk, layer, prefix, tensor))


def _add(walk: Walk, index: int, layer: QuantizedAdd, prefix: str) -> None:
    pre = f"{prefix}/preactivation"
    tensor = walk.graph.node("Add", [walk.dequantized(index, which) for which in range(2)], pre)
    if layer.clamp(walk.dtype, "onnx") != LIMITS[walk.dtype]:
        _activate(walk, index, layer, prefix, walk.quantize(tensor, pre, layer.output_scale, layer.output_zero_point))
    else:
        _give(walk, index, prefix, _function(walk, layer, prefix, tensor))


def _activation(walk: Walk, index: int, layer: QuantizedActivation, prefix: str) -> None:
    _activate(walk, index, layer, prefix, walk.integers(index))


def _activate(
    walk: Walk,
    index: int,
    layer: QuantizedDense | QuantizedAdd | QuantizedActivation,
    prefix: str,
    source: Integers,
) -> None:
    """Write an activation of integers: in float between them, or where that makes others, by its table."""
    if layer.activation in ACTIVATIONS and (isinstance(layer, QuantizedAdd) or _has_own_table(layer, walk.dtype)):
        _give(walk, index, prefix, _function(walk, layer, prefix, walk.dequantize(source)))
        return
    assert not isinstance(layer, QuantizedAdd) and layer.table is not None
    output = walk.output(index)
    walk.look_up(source.tensor, prefix, layer.table, output.tensor)
    walk.give_integers(index, output)


def _has_own_table(layer: QuantizedDense | QuantizedActivation, dtype: str) -> bool:
    """Tell whether a layer's table is what its activation makes: a file's may round on the way."""
    if layer.table is None:
        return True
    before, after = (layer.input_scale, layer.input_zero_point), (layer.output_scale, layer.output_zero_point)
    if isinstance(layer, QuantizedDense):
        before = layer.pre_scale, layer.pre_zero_point
    return np.array_equal(tabulated(layer.function, before, after, dtype), layer.table)


def _function(walk: Walk, layer: QuantizedDense | QuantizedAdd | QuantizedActivation, prefix: str, source: str) -> str:
    """Write an activation in float; return its output, or ``source`` where there is none."""
    write = activation_writer(f"layer {layer.name!r}", layer.activation)
    if write is None:
        return source
    if _readers(write, layer.function, walk.graph.opset) > 1:
        # With int8, a DequantizeLinear that two nodes read would keep the Gemm before it in float.
        source = walk.graph.node("Clip", [source], f"{prefix}/alone")  # no bounds: the identity
    write(walk.graph, layer.function, source, f"{prefix}/activation")
    return f"{prefix}/activation"


def _readers(write: ActivationWriter, activation: Activation, opset: int) -> int:
    """Count the nodes of an activation that read its input."""
    scratch = Graph(opset)
    write(scratch, activation, scratch.input, scratch.output)
    return scratch.readers(scratch.input)


def _give(walk: Walk, index: int, prefix: str, tensor: str) -> None:
    made = walk.output(index)
    walk.graph.node("QuantizeLinear", [tensor, *made.scale], made.tensor)
    walk.give_integers(index, made)


def _softmax(walk: Walk, index: int, layer: QuantizedSoftmax, prefix: str) -> None:
    _give(
        walk,
        index,
        prefix,
        walk.graph.node("Softmax", [walk.dequantized(index)], f"{prefix}/softmax", axis=walk.graph.axis),
    )


def _flatten(walk: Walk, index: int, layer: QuantizedFlatten, prefix: str) -> None:
    shape = walk.graph.constant(f"{prefix}/shape", [-1, layer.n_out], np.int64)
    _give(walk, index, prefix, walk.graph.node("Reshape", [walk.dequantized(index), shape], f"{prefix}/flat"))


def _weights(graph: Graph, layer: QuantizedDense, prefix: str, kernel: npt.NDArray[np.int8]) -> list[str]:
    """Write the dequantized weight [N, ...] and bias [N]: per channel along axis 0, or with rank-0 scales."""
    scales, zeros = weight_format(layer)
    bias_scales = layer.bias_scales() if np.ndim(scales) else layer.bias_scales()[0]
    parts: list[tuple[str, npt.NDArray[np.integer], npt.NDArray[np.float32], npt.NDArray[Any]]] = [
        ("weight", kernel, scales, zeros),
        ("bias", layer.bias, bias_scales, np.zeros(np.shape(scales))),
    ]
    attributes: dict[str, Any] = {} if np.ndim(scales) == 0 else {"axis": 0}
    names = []
    for name, value, scale, zero in parts:
        inputs = [
            graph.constant(f"{prefix}/{name}_quantized", value, value.dtype),
            graph.constant(f"{prefix}/{name}_scale", scale, np.float32),
            graph.constant(f"{prefix}/{name}_zero_point", zero, value.dtype),
        ]
        names.append(graph.node("DequantizeLinear", inputs, f"{prefix}/{name}", **attributes))
    return names


WRITERS: dict[type, LayerWriter] = {
    **dynamic_flavour.WRITERS,
    QuantizedDense: _dense,
    QuantizedAdd: _add,
    QuantizedActivation: _activation,
    QuantizedSoftmax: _softmax,
    QuantizedFlatten: _flatten,
}
