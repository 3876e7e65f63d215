"""A TFLite graph in the making, which takes ONNX's operators: what writes a layer for ONNX writes it for TFLite too.

Operators that TFLite lacks are written as several of its own; what has no form is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.activations import Activation
from nbdense.export.graph.builder import Graph
from nbdense.export.tflite.schema import FUSES, RELU, RELU6, TYPES, Operator, Quantization, Tensor, TfliteModel

OPSET = 13  # normalisations are core operators there, and ReduceMean has its axes as an attribute
Shape = tuple[int, ...]


class TfliteGraph(Graph):
    """A graph that translates each node as it comes.

    Parameters
    ----------
    input_shape : tuple of int
        Shape of one row of data.

    Attributes
    ----------
    tensors : dict of str to Tensor
        Those that operators read or make.
    operators : list of Operator
        In the order in which they run.
    """

    def __init__(self, input_shape: Shape) -> None:
        super().__init__(OPSET)
        self.tensors: dict[str, Tensor] = {}
        self.operators: list[Operator] = []
        self.tensors[self.input] = Tensor(self.input, (1, *input_shape), "float32", first_is_batch=True)

    # -- as a graph of ONNX's --

    def nodes(
        self, operator: str, inputs: Sequence[str], outputs: list[str], domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add what computes a node; return the outputs' names.

        Parameters
        ----------
        operator : str
            The operator.
        inputs, outputs : sequence and list of str
            Tensor names.
        domain : str
            As in `Graph.nodes`.
        **attributes
            Of the operator.

        Raises
        ------
        ValueError
            If it has no form in TFLite.
        """
        if operator not in OPERATORS or domain or len(outputs) != 1:
            raise ValueError(f"to_tflite: the operator {operator}, which makes {outputs[0]!r}, has no form in TFLite")
        OPERATORS[operator](self, list(inputs), outputs[0], attributes)
        return outputs

    def activate(self, write: Any, activation: Activation, source: str, target: str) -> None:
        """Write an activation: as one operator where TFLite has it and ONNX has not.

        Parameters
        ----------
        write : ActivationWriter
            What writes it otherwise.
        activation : Activation
            The activation.
        source, target : str
            The tensors.
        """
        approximate = {"gelu": False, "gelu_tanh": True}.get("" if activation.own else activation.name)
        if approximate is None:
            super().activate(write, activation, source, target)
        else:
            self.operator("GELU", [source], target, approximate=approximate)

    # -- tensors and operators --

    def value(self, name: str) -> npt.NDArray[Any] | None:
        """Return what a tensor holds, if it is a constant.

        Parameters
        ----------
        name : str
            The tensor.
        """
        return self._constants.get(name)

    def number(self, target: str, value: float) -> str:
        """Add a constant number; return its name.

        Parameters
        ----------
        target : str
            The tensor that it helps to make.
        value : float
            The number.
        """
        return self.constant(f"{target}_constant_{len(self._constants)}", [value], np.float32)

    def shape(self, name: str) -> Shape:
        """Return a tensor's shape, at a batch of 1.

        Parameters
        ----------
        name : str
            The tensor.
        """
        value = self.value(name)
        return self.tensors[name].shape if value is None else value.shape

    def operator(
        self,
        kind: str,
        inputs: list[str],
        output: str,
        shape: Shape | None = None,
        dtype: str | None = None,
        quantization: Quantization | None = None,
        **options: Any,
    ) -> str:
        """Add an operator of TFLite's; return the name of what it makes.

        Parameters
        ----------
        kind : str
            Its kind.
        inputs : list of str
            Tensors that it reads.
        output : str
            The tensor that it makes.
        shape : tuple of int, optional
            The output's shape; by default its inputs', broadcast.
        dtype : str, optional
            The output's type; by default the first input's.
        quantization : Quantization, optional
            The output's.
        **options
            The operator's.
        """
        for name in inputs:
            self._enter(name)
        if shape is None:
            shape = np.broadcast_shapes(*(self.shape(name) for name in inputs))
        dtype = dtype or self.tensors[inputs[0]].dtype
        self.tensors[output] = Tensor(output, shape, dtype, quantization=quantization, first_is_batch=True)
        self.operators.append(Operator(kind, inputs, output, options))
        return output

    def _enter(self, name: str) -> None:
        """Make a tensor of a constant."""
        value = self.value(name)
        if name not in self.tensors and value is not None:
            data = np.atleast_1d(value)  # some kernels take no rank 0
            self.tensors[name] = Tensor(name, data.shape, data.dtype.name, data)

    def integers(
        self, name: str, value: npt.NDArray[Any], scales: npt.ArrayLike, zero_points: npt.ArrayLike = 0
    ) -> str:
        """Add a constant of integers that stand for real numbers; return its name.

        Parameters
        ----------
        name : str
            The tensor's name.
        value : ndarray of int8 or int32
            The integers.
        scales, zero_points : array-like
            One, or one for each index of the first axis.
        """
        self.constant(name, value, value.dtype)
        self._enter(name)
        self.tensors[name].quantization = quantization(scales, zero_points)
        return name

    # -- the end --

    def model(self, input: str, output: str) -> TfliteModel:
        """Return the model between two tensors, without what makes neither, activations fused.

        Parameters
        ----------
        input, output : str
            The tensors.
        """
        wanted, operators = {output}, list[Operator]()
        for operator in reversed(self.operators):
            if operator.output in wanted and operator.output != input:
                wanted.update(operator.inputs)
                operators.insert(0, operator)
        operators = _fused(operators, output)
        used = {name for operator in operators for name in (*operator.inputs, operator.output)} | {input}
        return TfliteModel({name: t for name, t in self.tensors.items() if name in used}, operators, input, output)


def quantization(scales: npt.ArrayLike, zero_points: npt.ArrayLike = 0) -> Quantization:
    """Return scales and zero points as files have them.

    Parameters
    ----------
    scales, zero_points : array-like
        One of each, or as many scales as there are, with one zero point or as many.
    """
    scales = np.atleast_1d(np.asarray(scales, np.float32))
    return Quantization(scales, np.broadcast_to(np.asarray(zero_points, np.int64), scales.shape).copy())


def _fused(operators: list[Operator], end: str) -> list[Operator]:
    """Return operators whose activations are options of what is before them, where that is read by nothing else."""
    made: dict[str, Operator] = {}
    readers: dict[str, int] = {end: 1}
    for operator in operators:
        for name in operator.inputs:
            readers[name] = readers.get(name, 0) + 1
    kept: list[Operator] = []
    for operator in operators:
        before = made.get(operator.inputs[0])
        fused = {"RELU": RELU, "RELU6": RELU6}.get(operator.kind)
        if fused and before and before.kind in FUSES and readers[before.output] == 1 and "fused" not in before.options:
            before.options = {**before.options, "fused": fused}
            before.output = operator.output
        else:
            kept.append(operator)
            before = operator
        made[operator.output] = before
    return kept


# -- operators -------------------------------------------------------------------------------------------------------

Attributes = Mapping[str, Any]
Translation = Callable[[TfliteGraph, list[str], str, Attributes], Any]


def _as(kind: str, **options: Any) -> Translation:
    """Return the translation of an operator that TFLite has too, elementwise."""
    return lambda graph, inputs, output, attributes: graph.operator(kind, inputs, output, **options)


def _reshaped(graph: TfliteGraph, source: str, output: str, rest: Shape) -> str:
    """Write a change of shape: of rows of that shape, as many as there are."""
    first = math.prod(graph.shape(source)) // math.prod(rest)
    known = graph.tensors[source].quantization
    shape = graph.constant(f"{output}_new_shape", [-1, *rest], np.int32)
    return graph.operator("RESHAPE", [source, shape], output, (first, *rest), quantization=known)


def _flatten(graph: TfliteGraph, inputs: list[str], output: str, attributes: Attributes) -> None:
    _reshaped(graph, inputs[0], output, (math.prod(graph.shape(inputs[0])[1:]),))


def _reshape(graph: TfliteGraph, inputs: list[str], output: str, attributes: Attributes) -> None:
    value = graph.value(inputs[1])
    assert value is not None
    _reshaped(graph, inputs[0], output, tuple(int(size) for size in value[1:]))


def _identity(graph: TfliteGraph, inputs: list[str], output: str, attributes: Attributes) -> None:
    _reshaped(graph, inputs[0], output, graph.shape(inputs[0])[1:])


def _gemm(graph: TfliteGraph, inputs: list[str], output: str, attributes: Attributes) -> None:
    """Write x W^T + b, of constants."""
    weights = graph.value(inputs[1])
    assert weights is not None
    graph.operator("FULLY_CONNECTED", inputs, output, (graph.shape(inputs[0])[0], weights.shape[0]))


def _matmul(graph: TfliteGraph, inputs: list[str], output: str, attributes: Attributes) -> None:
    """Write x W on the last axis, of constant W."""
    kernel = graph.value(inputs[1])
    if kernel is None:
        raise ValueError(f"to_tflite: the product that makes {output!r} is not with constant weights")
    weights = graph.constant(f"{inputs[1]}_transposed", kernel.T, np.float32)
    shape = (*graph.shape(inputs[0])[:-1], kernel.shape[1])
    graph.operator("FULLY_CONNECTED", [inputs[0], weights], output, shape, keep_num_dims=True)


def _mean(graph: TfliteGraph, inputs: list[str], output: str, attributes: Attributes) -> None:
    shape = graph.shape(inputs[0])
    axes = graph.constant(f"{output}_axes", [len(shape) - 1], np.int32)
    assert [axis % len(shape) for axis in attributes["axes"]] == [len(shape) - 1]
    graph.operator("MEAN", [inputs[0], axes], output, (*shape[:-1], 1), keep_dims=True)


def _batch_norm(graph: TfliteGraph, inputs: list[str], output: str, attributes: Attributes) -> None:
    gamma, beta, mean, variance = (np.asarray(graph.value(name), np.float64) for name in inputs[1:])
    scale = gamma / np.sqrt(variance + attributes["epsilon"])
    factor = graph.constant(f"{output}_factor", scale, np.float32)
    shift = graph.constant(f"{output}_shift", beta - mean * scale, np.float32)
    graph.operator("ADD", [graph.operator("MUL", [inputs[0], factor], f"{output}_scaled"), shift], output)


def _quantize(graph: TfliteGraph, inputs: list[str], output: str, attributes: Attributes) -> None:
    scale, zero_point = (graph.value(name) for name in inputs[1:])
    assert scale is not None
    assert zero_point is not None
    made = quantization(scale, zero_point)
    graph.operator("QUANTIZE", inputs[:1], output, dtype=zero_point.dtype.name, quantization=made)


def _dequantize(graph: TfliteGraph, inputs: list[str], output: str, attributes: Attributes) -> None:
    graph.operator("DEQUANTIZE", inputs[:1], output, dtype="float32")


def _cast(graph: TfliteGraph, inputs: list[str], output: str, attributes: Attributes) -> None:
    (source,) = inputs
    options: dict[str, Any] = {"from": TYPES[graph.tensors[source].dtype], "to": TYPES["int32"]}
    graph.operator("CAST", inputs, output, dtype="int32", **options)


def _clip(graph: TfliteGraph, inputs: list[str], output: str, attributes: Attributes) -> None:
    bounds = [None if not name else graph.value(name) for name in (*inputs[1:], "", "")][:2]
    low, high = (None if bound is None else float(bound.reshape(-1)[0]) for bound in bounds)
    _clamp(graph, inputs[0], output, low, high)


def _clamp(graph: TfliteGraph, source: str, output: str, low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return _reshaped(graph, source, output, graph.shape(source)[1:])
    if (low, high) == (0.0, 6.0):
        return graph.operator("RELU6", [source], output)
    if low == 0.0:
        source = graph.operator("RELU", [source], output if high is None else f"{output}_above")
    elif low is not None:
        name = output if high is None else f"{output}_above"
        source = graph.operator("MAXIMUM", [source, graph.number(output, low)], name)
    if high is None:
        return source
    return graph.operator("MINIMUM", [source, graph.number(output, high)], output)


def _hard_sigmoid(graph: TfliteGraph, inputs: list[str], output: str, attributes: Attributes) -> None:
    scaled = graph.operator("MUL", [*inputs, graph.number(output, attributes["alpha"])], f"{output}_scaled")
    moved = graph.operator("ADD", [scaled, graph.number(output, attributes["beta"])], f"{output}_moved")
    _clamp(graph, moved, output, 0.0, 1.0)


def _leaky_relu(graph: TfliteGraph, inputs: list[str], output: str, attributes: Attributes) -> None:
    graph.operator("LEAKY_RELU", inputs, output, alpha=attributes["alpha"])


def _exponential_unit(alpha: str | float, scale: float = 1.0, inner: bool = False) -> Translation:
    """Return the translation of scale (relu(x) + alpha elu(min(x, 0))); with ``inner`` elu's argument over alpha."""

    def write(graph: TfliteGraph, inputs: list[str], output: str, attributes: Attributes) -> None:
        factor = attributes[alpha] if isinstance(alpha, str) else alpha
        if factor == scale == 1.0:
            graph.operator("ELU", inputs, output)
            return
        below = graph.operator("MINIMUM", [*inputs, graph.number(output, 0.0)], f"{output}_below")
        if inner:
            below = graph.operator("MUL", [below, graph.number(output, 1 / factor)], f"{output}_inner")
        below = graph.operator("ELU", [below], f"{output}_elu")
        below = graph.operator("MUL", [below, graph.number(output, factor)], f"{output}_sloped")
        above = graph.operator("RELU", inputs, f"{output}_relu")
        total = graph.operator("ADD", [above, below], output if scale == 1.0 else f"{output}_total")
        if scale != 1.0:
            graph.operator("MUL", [total, graph.number(output, scale)], output)

    return write


def _softplus(graph: TfliteGraph, inputs: list[str], output: str, attributes: Attributes) -> None:
    # relu(x) + log(1 + exp(-|x|))
    size = graph.operator("ABS", inputs, f"{output}_size")
    power = graph.operator("EXP", [graph.operator("NEG", [size], f"{output}_negated")], f"{output}_power")
    raised = graph.operator("ADD", [power, graph.number(output, 1.0)], f"{output}_raised")
    logarithm = graph.operator("LOG", [raised], f"{output}_log")
    graph.operator("ADD", [graph.operator("RELU", inputs, f"{output}_relu"), logarithm], output)


def _softsign(graph: TfliteGraph, inputs: list[str], output: str, attributes: Attributes) -> None:
    size = graph.operator("ABS", inputs, f"{output}_size")
    raised = graph.operator("ADD", [size, graph.number(output, 1.0)], f"{output}_raised")
    graph.operator("DIV", [*inputs, raised], output)


def _thresholded_relu(graph: TfliteGraph, inputs: list[str], output: str, attributes: Attributes) -> None:
    _kept_above(graph, inputs[0], inputs[0], output, attributes["alpha"])


def _kept_above(graph: TfliteGraph, source: str, compared: str, output: str, threshold: float) -> None:
    threshold_ = graph.number(output, threshold)
    above = graph.operator("GREATER", [compared, threshold_], f"{output}_is_above", dtype="bool")
    graph.operator("SELECT_V2", [above, source, graph.number(output, 0.0)], output, dtype="float32")


def _shrink(graph: TfliteGraph, inputs: list[str], output: str, attributes: Attributes) -> None:
    threshold, bias = attributes["lambd"], attributes["bias"]
    if bias == 0:
        size = graph.operator("ABS", inputs, f"{output}_size")
        _kept_above(graph, inputs[0], size, output, threshold)
        return
    inside = _clamp(graph, inputs[0], f"{output}_inside", -threshold, threshold)
    graph.operator("SUB", [*inputs, inside], output)


def _where(graph: TfliteGraph, inputs: list[str], output: str, attributes: Attributes) -> None:
    graph.operator("SELECT_V2", inputs, output, dtype="float32")


OPERATORS: dict[str, Translation] = {
    "Abs": _as("ABS"),
    "Add": _as("ADD"),
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Celu": _exponential_unit("alpha", inner=True),
    "Clip": _clip,
    "DequantizeLinear": _dequantize,
    "Div": _as("DIV"),
    "Elu": _exponential_unit("alpha"),
    "Exp": _as("EXP"),
    "Flatten": _flatten,
    "Gemm": _gemm,
    "Greater": _as("GREATER", dtype="bool"),
    "HardSigmoid": _hard_sigmoid,
    "Identity": _identity,
    "LeakyRelu": _leaky_relu,
    "LogSoftmax": _as("LOG_SOFTMAX"),
    "MatMul": _matmul,
    "Max": _as("MAXIMUM"),
    "Min": _as("MINIMUM"),
    "Mul": _as("MUL"),
    "Neg": _as("NEG"),
    "QuantizeLinear": _quantize,
    "ReduceMean": _mean,
    "Relu": _as("RELU"),
    "Reshape": _reshape,
    "Selu": _exponential_unit(1.6732632423543772, 1.0507009873554805),
    "Shrink": _shrink,
    "Sigmoid": _as("LOGISTIC"),
    "Softmax": _as("SOFTMAX", beta=1.0),
    "Softplus": _softplus,
    "Softsign": _softsign,
    "Sqrt": _as("SQRT"),
    "Sub": _as("SUB"),
    "Tanh": _as("TANH"),
    "ThresholdedRelu": _thresholded_relu,
    "Where": _where,
}
