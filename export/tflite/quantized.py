"""Quantized networks as TFLite graphs: every layer in the operators that compute its integers.

Tables of activations are looked up by GATHER, which gives nbdense's integers in every interpreter. TFLite's own
operators of int8 (LOGISTIC, TANH, ...) are written where that is asked for: each runtime computes them in its own way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nbdense.export.tflite.graph import TfliteGraph, quantization
from nbdense.export.tflite.schema import NONE, RELU, RELU6, RELU_N1_TO_1, TYPES
from nbdense.export.write.quantized import Integers, LayerWriter, Walk, write_float_layer
from nbdense.quant.model.network import (
    LIMITS,
    FloatLayer,
    QuantizedActivation,
    QuantizedAdd,
    QuantizedDense,
    QuantizedFlatten,
    QuantizedNetwork,
    QuantizedSoftmax,
)
from nbdense.runtime.rounding import round_half_away

DTYPE = "int8"  # what TFLite's kernels take
# Operators that take and give int8, by the activation that they compute.
INT8_OPERATORS = {
    "sigmoid": "LOGISTIC",
    "tanh": "TANH",
    "hard_swish": "HARD_SWISH",
    "gelu": "GELU",
    "leaky_relu": "LEAKY_RELU",
}
_CLAMPS = {NONE: (-np.inf, np.inf), RELU: (0.0, np.inf), RELU6: (0.0, 6.0), RELU_N1_TO_1: (-1.0, 1.0)}


def write_quantized(graph: TfliteGraph, network: QuantizedNetwork, operators: bool) -> None:
    """Write a quantized network's operators, from ``input`` to ``output``.

    Parameters
    ----------
    graph : TfliteGraph
        The graph that is written.
    network : QuantizedNetwork
        The network.
    operators : bool
        Whether activations are TFLite's operators of int8, where it has one, instead of tables.

    Raises
    ------
    ValueError
        If a layer or its activation has no form in TFLite, or the integers are uint8; the layer is named.
    """
    kinds = {**WRITERS}
    for layer in network.layers:
        if type(layer) not in kinds:
            raise ValueError(
                f"to_tflite: layer {layer.name!r} is a {layer.title} layer, which TFLite has no form of; give the "
                "float model, or quantize it with scheme='static'"
            )
        if layer.output_format is not None and network.activation_dtype != DTYPE:
            raise ValueError(
                f"to_tflite: TFLite's integers are int8, the network's are {network.activation_dtype}; "
                "quantize with activation_dtype='int8'"
            )
    _TfliteWalk(graph, network, operators).run(kinds)


class _TfliteWalk(Walk):
    """A walk that writes TFLite's operators."""

    graph: TfliteGraph

    def __init__(self, graph: TfliteGraph, network: QuantizedNetwork, operators: bool) -> None:
        super().__init__(graph, network)
        self.operators = operators

    def give(
        self, index: int, kind: str, inputs: list[str], n_out: int, clamp: tuple[int, int], **options: Any
    ) -> None:
        """Write an operator that gives a layer's integers, and what clamps them where no option of it does."""
        form = self.network.formats[index + 1]
        assert form is not None
        self.give_integers(index, self.clamped(self.output(index), kind, inputs, n_out, form, clamp, **options))

    def clamped(
        self,
        made: Integers,
        kind: str,
        inputs: list[str],
        n_out: int,
        form: tuple[float, int],
        clamp: tuple[int, int],
        **options: Any,
    ) -> Integers:
        """Write an operator whose integers lie within a clamp."""
        graph, known = self.graph, quantization(*form)
        shape = (graph.shape(inputs[0])[0], n_out)
        fused = next((code for code in _CLAMPS if _range_of(code, form) == clamp), None)
        ends = {"MAXIMUM": clamp[0], "MINIMUM": clamp[1]}
        steps = [(name, end) for name, end in ends.items() if fused is None and end not in LIMITS[DTYPE]]
        tensor = f"{made.tensor}_sum" if steps else made.tensor
        graph.operator(kind, inputs, tensor, shape, DTYPE, known, **options, **({"fused": fused} if fused else {}))
        for place, (name, end) in enumerate(steps):
            bound = graph.integers(f"{made.tensor}_{name.lower()}", np.array([end], np.int8), *form)
            target = made.tensor if place == len(steps) - 1 else f"{tensor}_{place}"
            tensor = graph.operator(name, [tensor, bound], target, shape, DTYPE, known)
        return made

    def looked_up(self, index: int, source: str, layer: Any, prefix: str) -> None:
        """Write the activation of integers that a layer has as its table."""
        graph, made, form = self.graph, self.output(index), self.network.formats[index + 1]
        assert form is not None
        known, shape = quantization(*form), graph.shape(source)
        kind = INT8_OPERATORS.get(layer.activation) if self.operators else None
        if kind is not None:
            options = {"LEAKY_RELU": {"alpha": layer.alpha}, "GELU": {"approximate": False}}.get(kind, {})
            graph.operator(kind, [source], made.tensor, shape, DTYPE, known, **options)
        else:
            table = graph.integers(f"{prefix}/table", layer.table, *form)
            number = graph.operator(
                "CAST",
                [source],
                f"{prefix}/integer",
                shape,
                "int32",
                None,
                **{"from": TYPES[DTYPE], "to": TYPES["int32"]},
            )
            offset = graph.constant(f"{prefix}/offset", [-LIMITS[DTYPE][0]], np.int32)
            place = graph.operator("ADD", [number, offset], f"{prefix}/index", shape, "int32")
            graph.operator("GATHER", [table, place], made.tensor, shape, DTYPE, known, axis=0)
        self.give_integers(index, made)


def _range_of(fused: int, form: tuple[float, int]) -> tuple[int, int]:
    """Return the integers that a fused activation leaves (kernel_util.cc, CalculateActivationRangeQuantized)."""
    (least, most), (scale, zero_point) = LIMITS[DTYPE], form
    low, high = (
        end if np.isinf(end) else zero_point + round_half_away(float(np.float32(end) / np.float32(scale)))
        for end in _CLAMPS[fused]
    )
    return int(max(least, low)), int(min(most, high))


def _dense(walk: Any, index: int, layer: QuantizedDense, prefix: str) -> None:
    graph, source = walk.graph, walk.integers(index).tensor
    if layer.kernel_zero_points is not None and layer.kernel_zero_points.any():
        raise ValueError(
            f"to_tflite: layer {layer.name!r}: its weights have zero points, which TFLite's int8 weights have not; "
            "quantize the float model"
        )
    one = layer.granularity == "per_tensor"
    scales, bias_scales = (part[:1] if one else part for part in (layer.kernel_scales, layer.bias_scales()))
    weights = graph.integers(f"{prefix}/weight", np.ascontiguousarray(layer.kernel.T), scales)
    bias = graph.integers(f"{prefix}/bias", layer.bias, bias_scales)
    inputs = [source, weights, bias]
    clamp = layer.clamp(DTYPE, walk.network.rounding)
    if layer.table is None:
        walk.give(index, "FULLY_CONNECTED", inputs, layer.n_out, clamp)
        return
    before = Integers(f"{prefix}/preactivation", [], "")
    form = (layer.pre_scale, layer.pre_zero_point)
    walk.clamped(before, "FULLY_CONNECTED", inputs, layer.n_out, form, clamp)
    walk.looked_up(index, before.tensor, layer, prefix)


def _add(walk: Any, index: int, layer: QuantizedAdd, prefix: str) -> None:
    inputs = [walk.integers(index, which).tensor for which in range(2)]
    walk.give(index, "ADD", inputs, layer.n_out, layer.clamp(DTYPE, walk.network.rounding))


def _activation(walk: Any, index: int, layer: QuantizedActivation, prefix: str) -> None:
    walk.looked_up(index, walk.integers(index).tensor, layer, prefix)


def _softmax(walk: Any, index: int, layer: QuantizedSoftmax, prefix: str) -> None:
    walk.give(index, "SOFTMAX", [walk.integers(index).tensor], layer.n_out, LIMITS[DTYPE], beta=1.0)


def _flatten(walk: Any, index: int, layer: QuantizedFlatten, prefix: str) -> None:
    graph, made = walk.graph, walk.output(index)
    shape = graph.constant(f"{prefix}/shape", [-1, layer.n_out], np.int64)
    graph.node("Reshape", [walk.integers(index).tensor, shape], made.tensor)
    walk.give_integers(index, made)


WRITERS: Mapping[type, LayerWriter] = {
    QuantizedDense: _dense,
    QuantizedAdd: _add,
    QuantizedActivation: _activation,
    QuantizedSoftmax: _softmax,
    QuantizedFlatten: _flatten,
    FloatLayer: write_float_layer,
}
