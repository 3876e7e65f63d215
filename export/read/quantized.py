"""A QuantizedNetwork of an ONNX graph: integers stay integers, what computes in float stays in float."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from nbdense.activations import ACTIVATIONS, Activation
from nbdense.export.graph.steps import AffineStep, DenseStep, DropoutStep, FunctionStep, LayerStep, ShapeStep, Step
from nbdense.export.read.functions.tables import Composition, compositions
from nbdense.export.read.graph import Trace
from nbdense.export.read.layers import UnknownError, as_layer, layer_name, one_step
from nbdense.export.read.nodes import AccumulatorNode, DenseNode, DequantizeNode, InputNode, LookupNode, ReshapeNode
from nbdense.export.read.tidying import tidy
from nbdense.export.read.values import Value
from nbdense.export.read.weights import Integers
from nbdense.quant.layers.activations import exponentials, tabulated
from nbdense.quant.layers.base import Layer, OfKernelInFloat
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
from nbdense.quant.schemes.dynamic import DynamicDense
from nbdense.quant.schemes.weight_only import WeightOnlyDense

Format = tuple[float, int]


def is_quantized(state: Trace) -> bool:
    """Tell whether a graph has integers in it.

    Parameters
    ----------
    state : Trace
        The graph, followed to its end.
    """
    values = [value for value in state.known.values() if isinstance(value, Value)]
    return any(value.is_integer or _kernel_integers(value) is not None for value in values)


def quantized_network(state: Trace, end: Value) -> QuantizedNetwork:
    """Return the network of a graph.

    Parameters
    ----------
    state : Trace
        The graph, followed to its end.
    end : Value
        Its output.

    Raises
    ------
    ValueError
        If a node's integers are none that a QuantizedNetwork holds; the node is named.
    """
    return _Lowering(state).run(end)


class _Lowering:
    """The layers made so far, and the tensor that each value has become: 0 is the input, i + 1 layer i's output."""

    def __init__(self, state: Trace) -> None:
        self.state = state
        self.layers: list[Layer] = []
        self.names: set[str] = set()
        self.integers_of: dict[Value, int] = {}
        self.compositions: dict[Value, Composition] = {}
        self.floats_of: dict[Value, int] = {state.input: 0}
        self.dtype = "int8"
        self.half = state.file.constants.half

    def run(self, end: Value) -> QuantizedNetwork:
        values = list(dict.fromkeys(v for v in self.state.known.values() if isinstance(v, Value)))
        integers = [(value, value.integers) for value in values if value.integers is not None]
        for value, node in integers:
            if node.dtype not in LIMITS:
                raise _refusal(value, f"activations must be int8 or uint8, got {node.dtype}")
        self.dtype = integers[-1][1].dtype if integers else "int8"
        self.compositions, absorbed = compositions(value for value, _ in integers)
        for value, node in integers:
            if node.format is not None and value not in absorbed:  # others are read through another table
                self.integers(value)
        final, last = "linear", end
        if end.operator == "Softmax" and isinstance(end.values[0].node, DequantizeNode):
            final, last = "softmax", end.values[0]
        index = self.floats(last)
        if index != len(self.layers) or (final == "softmax" and self.layers[-1].output_format is None):
            final = "linear"
            index = self.floats(end)
        if index != len(self.layers) or not self.layers:  # the output is the last layer's
            index = self.add(FloatLayer(self.name(""), "activation", _columns(end), inputs=(index,)), end)
        shape = self.state.input.shape or (1,)
        try:
            layers = _with_activations(self.layers)
            network = QuantizedNetwork(layers, self.dtype, final_activation=final, input_shape=shape)
        except ValueError as error:
            raise ValueError(f"{self.state.file.name}: {error}") from error
        if network.output_shape != (end.shape or (1,)) and math.prod(end.shape) != network.tensors[-1][1]:
            raise ValueError(f"{end.place}: its rows have shape {end.shape}, but as layers {network.output_shape}")
        return network

    def name(self, weights: str) -> str:
        """Return a new layer's name."""
        name = layer_name(weights, self.names)
        number = len(self.layers)
        while name is None:
            if f"layer_{number}" not in self.names:
                name = f"layer_{number}"
                self.names.add(name)
            number += 1
        return name

    def add(self, layer: Layer, value: Value) -> int:
        """Append a layer that reads the tensors that it says; the index of its output."""
        if layer.inputs == (len(self.layers),):
            layer = layer.replaced(inputs=None)
        positions = math.prod(value.shape[:-1]) if not isinstance(layer, QuantizedFlatten) else layer.positions
        if not (isinstance(layer, FloatLayer) and layer.what == "flatten"):
            layer = layer.replaced(positions=positions)
        try:
            layer.check(self.dtype, f"layer {layer.name!r}: ")
        except ValueError as error:
            raise _refusal(value, str(error)) from error
        self.layers.append(layer)
        return len(self.layers)

    def format(self, value: Value) -> Format:
        """Return scale and zero point of integers, in the network's dtype."""
        form = None if value.integers is None else value.integers.format
        if form is None:
            raise _refusal(value, "its integers have no known scale: no node dequantizes them")
        return form.scale, form.zero + LIMITS[self.dtype][0] - LIMITS[form.dtype][0]

    # -- integers --------------------------------------------------------------------------------------------------

    def integers(self, value: Value) -> int:
        """Return the tensor of integers, or of the real numbers that become these integers where they are read."""
        if value not in self.integers_of:
            source = value.values[0]
            composed = self.compositions.get(value)
            if composed is not None:
                made: int | None = self.table(value, composed.source, composed.activation, composed.entries)
            elif isinstance(value.node, LookupNode):
                made = self.table(value, source, None, value.node.table)
            else:
                made = self.static(value, source)
            self.integers_of[value] = self.floats(source) if made is None else made
        return self.integers_of[value]

    def static(self, value: Value, real: Value) -> int | None:
        """Add the layer of integers that makes a value; return None if the value is made in float."""
        function = self.function_of(real)
        activation, operand = (None, real) if function is None else function
        clamps = activation is None or activation.is_clamp
        if isinstance(operand.node, DenseNode) and clamps:
            return self.dense(value, operand, activation)
        read = [isinstance(source.node, DequantizeNode) for source in operand.values]
        if operand.operator == "Add" and clamps and read == [True, True]:
            return self.sum(value, operand, activation)
        if isinstance(operand.node, DequantizeNode):
            source_integers = operand.values[0]
            if activation is None and self.format(source_integers) == self.format(value):
                return self.integers(source_integers)
            if activation is not None and activation.rowwise:
                return self.softmax(value, source_integers, activation)
            return self.table(value, source_integers, activation or ACTIVATIONS["linear"])
        if isinstance(operand.node, ReshapeNode) and read == [True] and activation is None:
            return self.reshape(value, operand)
        return None

    def function_of(self, real: Value) -> tuple[Activation, Value] | None:
        """Return the activation that makes a value, and the value that it reads."""
        if isinstance(real.node, DenseNode | DequantizeNode | InputNode | ReshapeNode | AccumulatorNode):
            return None
        try:
            steps, operand = one_step(real, self.half)
        except ValueError:
            return None
        steps = tidy(steps)
        only = steps[0] if len(steps) == 1 else None
        return (only.activation, operand) if isinstance(only, FunctionStep) else None

    def dense(self, value: Value, product: Value, activation: Activation | None) -> int | None:
        node, source = product.node, product.values[0]
        assert isinstance(node, DenseNode)
        kernel, bias = node.kernel, node.bias
        if kernel is None or not isinstance(source.node, DequantizeNode) or node.is_dynamic:
            return None
        if product.inputs[2] is not None and bias is None:
            return None  # added in float
        weights, scales, zeros, block = self.weights(product, kernel)
        if block or product.readers > 1:
            return None
        form, output = self.format(source.values[0]), self.format(value)
        bias_scales = np.float32(form[0]) * scales[0]
        biases = np.zeros(weights.shape[1], np.int32)
        if bias is not None:
            scale = np.broadcast_to(bias.scale.astype(np.float32), bias_scales.shape)
            zero = bias.zero is not None and bias.zero.any()
            if bias.values.dtype != np.int32 or zero or not np.allclose(scale, bias_scales, rtol=1e-6, atol=0.0):
                return None
            biases = np.ascontiguousarray(np.broadcast_to(bias.values.reshape(-1), biases.shape))
        row = activation or ACTIVATIONS["linear"]
        layer = QuantizedDense(
            name=self.name(product.name),
            kernel=weights,
            kernel_scales=scales[0],
            bias=biases,
            input_scale=form[0],
            input_zero_point=form[1],
            output_scale=output[0],
            output_zero_point=output[1],
            pre_scale=output[0],
            pre_zero_point=output[1],
            activation=row.name,
            granularity=_granularity(kernel),
            alpha=row.alpha,
            inputs=(self.integers(source.values[0]),),
            kernel_zero_points=None if zeros is None else zeros[0],
        )
        return self.add(layer, product)

    def weights(self, product: Value, integers: Integers, bits: int = 8) -> tuple[Any, Any, Any, int]:
        try:
            *arrays, block = integers.of_columns(bits)
        except ValueError as error:
            raise _refusal(product, str(error)) from error
        kernel, scales, zeros = (None if array is None else np.ascontiguousarray(array) for array in arrays)
        return kernel, scales, zeros, block

    def sum(self, value: Value, added: Value, activation: Activation | None) -> int:
        sources = [part.values[0] for part in added.values]
        formats = [self.format(source) for source in sources]
        output, row = self.format(value), activation or ACTIVATIONS["linear"]
        inputs = tuple(self.integers(source) for source in sources)
        layer = QuantizedAdd(
            self.name(""),
            _columns(added),
            (formats[0][0], formats[1][0]),
            (formats[0][1], formats[1][1]),
            *output,
            row.name,
            row.alpha,
            inputs,
        )
        return self.add(layer, added)

    def table(self, value: Value, source: Value, activation: Activation | None, entries: Any = None) -> int:
        """Add an activation of integers by its table: its own, or these entries in the file's dtype."""
        before, after, row = self.format(source), self.format(value), activation or ACTIVATIONS["linear"]
        if entries is None:
            table = tabulated(row, before, after, self.dtype)
        else:
            assert value.integers is not None and value.integers.format is not None
            table = (entries.astype(np.int32) - value.integers.format.zero + after[1]).astype(self.dtype)
        index = self.integers(source)
        layer = QuantizedActivation(
            self.name(""), _columns(value), *before, *after, table, row.name, row.alpha, inputs=(index,)
        )
        return self.add(layer, value)

    def softmax(self, value: Value, source: Value, activation: Activation) -> int | None:
        """Add the integer softmax, where it is one and the output has its fixed scale."""
        before, after = self.format(source), self.format(value)
        if activation.name != "softmax" or after != (QuantizedSoftmax.output_scale, LIMITS[self.dtype][0]):
            return None
        layer = QuantizedSoftmax(
            self.name(""),
            _columns(value),
            *before,
            output_zero_point=after[1],
            exponentials=exponentials(before[0]),
            inputs=(self.integers(source),),
        )
        return self.add(layer, value)

    def reshape(self, value: Value, real: Value) -> int | None:
        source = real.values[0].values[0]
        before, after = source.shape, real.shape
        if self.format(source) != self.format(value):
            return None
        if (before or (1,))[-1] == (after or (1,))[-1] and math.prod(before[:-1]) == math.prod(after[:-1]):
            return self.integers(source)
        if len(after) != 1:
            raise _refusal(real, f"it turns rows of shape {before} into {after}; layers only flatten rows")
        index = self.integers(source)
        layer = QuantizedFlatten(
            self.name(""), before[-1], *self.format(source), inputs=(index,), positions=math.prod(before[:-1])
        )
        return self.add(layer, real)

    # -- float -----------------------------------------------------------------------------------------------------

    def floats(self, value: Value) -> int:
        """Return the tensor that is read as these real numbers; values that it depends on become layers first."""
        waiting = [] if value in self.floats_of else [(value, *self.made_of(value))]
        while waiting:
            last, steps, sources = waiting[-1]
            missing = next((source for source in sources if source not in self.floats_of), None)
            if missing is not None:
                waiting.append((missing, *self.made_of(missing)))
                continue
            if isinstance(last.node, DequantizeNode):
                self.floats_of[last] = self.dequantized(last.values[0])
            elif isinstance(last.node, DenseNode):
                self.floats_of[last] = self.float_dense(last)
            elif steps is None:
                inputs = tuple(self.floats_of[source] for source in sources)
                self.floats_of[last] = self.add(FloatLayer(self.name(""), "add", _columns(last), inputs=inputs), last)
            else:
                self.floats_of[last] = self.float_steps(last, steps, sources[0])
            waiting.pop()
        return self.floats_of[value]

    def made_of(self, value: Value) -> tuple[list[Step] | None, list[Value]]:
        """Return the steps that make a value, or None for a layer of its own, and the real numbers that it reads."""
        if isinstance(value.node, DequantizeNode):
            return None, []
        if isinstance(value.node, DenseNode):
            return None, value.values
        try:
            steps, source = one_step(value, self.half)
        except UnknownError:
            if value.operator not in ("Add", "Sum") or len(value.values) != 2:
                raise
            return None, value.values
        return steps, [source]

    def dequantized(self, source: Value) -> int:
        index = self.integers(source)
        form = self.format(source)
        if index > 0 and self.layers[index - 1].output_format == form:
            return index
        low, high = LIMITS[self.dtype]  # rounded to integers and back
        table = np.arange(low, high + 1).astype(self.dtype)
        layer = QuantizedActivation(self.name(""), _columns(source), *form, *form, table, inputs=(index,))
        self.integers_of[source] = self.add(layer, source)
        return self.integers_of[source]

    def float_dense(self, value: Value) -> int:
        source, kernel, bias, node = value.values[0], value.inputs[1], value.inputs[2], value.node
        assert isinstance(node, DenseNode) and isinstance(kernel, np.ndarray) and not isinstance(bias, Value)
        biases = None if bias is None else np.ascontiguousarray(bias, np.float32)
        index = self.floats(source)
        name = self.name(value.name)
        layer: Layer
        if node.kernel is None:
            tensors = {"kernel": np.ascontiguousarray(kernel, np.float32)}
            tensors |= {} if biases is None else {"bias": biases}
            layer = FloatLayer(name, "dense", kernel.shape[0], tensors, inputs=(index,))
            return self.add(layer, value)
        bits = 4 if not node.is_dynamic and value.name in self.state.file.constants.four_bits else 8
        weights, scales, zeros, block = self.weights(value, node.kernel, bits)
        if node.is_dynamic:
            zeros = None if zeros is None else zeros[0]
            granularity = _granularity(node.kernel)
            layer = DynamicDense(
                name, weights, scales[0], biases, granularity=granularity, inputs=(index,), kernel_zero_points=zeros
            )
        else:
            layer = WeightOnlyDense(
                name, weights, scales, biases, block, bits, inputs=(index,), kernel_zero_points=zeros
            )
        return self.add(layer, value)

    def float_steps(self, value: Value, steps: list[Step], before: Value) -> int:
        """Add layers for the steps of operators that belong together."""
        index, width = self.floats_of[before], _columns(before)
        for step in tidy(steps):
            index, width = self.float_step(step, value, before, index, width)
        return index

    def float_step(self, step: Step, value: Value, before: Value, index: int, width: int) -> tuple[int, int]:
        name = self.name(step.name if isinstance(step, LayerStep) else "")
        last = self.layers[-1] if self.layers and index == len(self.layers) else None
        takes = before.readers == 1 and (isinstance(last, OfKernelInFloat) or _is_dense(last))
        layer: Layer
        if isinstance(step, DropoutStep) or (isinstance(step, ShapeStep) and step.keeps_columns):
            self.names.discard(name)
            return index, width
        if takes and last is not None:
            merged = _with_bias(last, step)
            if merged is not None:
                self.names.discard(name)
                self.layers[-1] = merged
                return index, width
        if isinstance(step, FunctionStep):
            row = step.activation
            layer = FloatLayer(name, "activation", width, activation=row.name, alpha=row.alpha, inputs=(index,))
        elif isinstance(step, AffineStep):
            if not step.by_column:
                raise _refusal(value, step.by_column_only)
            layer = _float_layer(as_layer(step, width), name, index)
        elif isinstance(step, LayerStep):
            layer = _float_layer(step, name, index)
        elif isinstance(step, ShapeStep):
            if len(step.after) != 1:
                raise _refusal(value, f"it turns rows of {step.before} into {step.after}; layers only flatten rows")
            positions = math.prod(step.before[:-1])
            if index == 0 and self.state.input.readers == 1:  # the same numbers, read as one row
                self.names.discard(name)
                return 0, step.after[0]
            layer = FloatLayer(name, "flatten", step.before[-1], inputs=(index,), positions=positions)
        else:
            assert isinstance(step, DenseStep)
            tensors = {"kernel": np.array(step.kernel, np.float32)}
            tensors |= {} if step.bias is None else {"bias": np.array(step.bias, np.float32)}
            layer = FloatLayer(name, "dense", width, tensors, inputs=(index,))
        return self.add(layer, value), layer.n_out


def _float_layer(step: LayerStep, name: str, index: int) -> FloatLayer:
    tensors = {key: np.array(tensor, np.float32) for key, tensor in step.tensors.items()}
    return FloatLayer(
        name, step.form.name, step.width, tensors, alpha=step.settings[step.form.setting], inputs=(index,)
    )


def _kernel_integers(value: Value) -> Integers | None:
    return value.node.kernel if isinstance(value.node, DenseNode | AccumulatorNode) else None


def _is_dense(layer: Layer | None) -> bool:
    return isinstance(layer, FloatLayer) and layer.what == "dense"


def _with_bias(layer: Any, step: Step) -> Any:
    """Return a dense layer in float with an added constant as its bias; None where that cannot be."""
    existing = layer.tensors.get("bias") if isinstance(layer, FloatLayer) else layer.bias
    if existing is not None or not isinstance(step, AffineStep) or not step.by_column or not (step.scale == 1).all():
        return None
    mean, _, shift = step.over(layer.n_out)
    bias = (shift - mean).astype(np.float32)
    if isinstance(layer, FloatLayer):
        return dataclasses.replace(layer, tensors={**layer.tensors, "bias": bias})
    return dataclasses.replace(layer, bias=bias)


def _with_activations(layers: list[Layer]) -> list[Layer]:
    """Return the same layers, with activations in the dense layers before them where nothing else reads these."""
    inputs = [(i,) if layer.inputs is None else layer.inputs for i, layer in enumerate(layers)]
    readers = [tensor for sources in inputs for tensor in sources]
    kept: list[Layer] = []
    becomes = {0: 0}  # tensors
    for i, (layer, sources) in enumerate(zip(layers, inputs, strict=True)):
        joined = None
        if sources == (i,) and i > 0 and readers.count(i) == 1 and becomes[i] == len(kept):
            joined = _joined(kept[-1], layer)
        if joined is not None:
            kept[-1] = joined
        else:
            renamed = tuple(becomes[tensor] for tensor in sources)
            kept.append(layer.replaced(inputs=None if renamed == (len(kept),) else renamed))
        becomes[i + 1] = len(kept)
    return kept


def _joined(layer: Any, function: Layer) -> Any:
    """Return a linear dense layer with an activation; None where it is no such, or the activation none."""
    if isinstance(layer, QuantizedDense) and isinstance(function, QuantizedActivation):
        if layer.table is not None or layer.activation != "linear":
            return None
        fields: dict[str, Any] = {"activation": function.activation, "alpha": function.alpha}
        clamps = function.activation in ACTIVATIONS and ACTIVATIONS[function.activation].is_clamp
        if clamps and function.activation != "linear" and function.output_format == layer.output_format:
            return dataclasses.replace(layer, **fields)
        fields |= {"output_scale": function.output_scale, "output_zero_point": function.output_zero_point}
        return dataclasses.replace(layer, table=function.table, **fields)
    in_float = isinstance(layer, OfKernelInFloat) or (isinstance(layer, FloatLayer) and _is_dense(layer))
    if in_float and isinstance(function, FloatLayer) and function.what == "activation" and layer.activation == "linear":
        return dataclasses.replace(layer, activation=function.activation, alpha=function.alpha)
    return None


def _granularity(kernel: Integers) -> str:
    return "per_tensor" if kernel.scale.size == 1 and (kernel.zero is None or kernel.zero.size == 1) else "per_channel"


def _columns(value: Value) -> int:
    return value.shape[-1] if value.shape else 1


def _refusal(value: Value, why: str) -> ValueError:
    return ValueError(f"{value.place}: {why}; from_onnx(..., quantized='float') takes the weights as float")
