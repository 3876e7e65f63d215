"""The table of activations' ONNX forms: how each is written, in every flavour, and by which operators it is read.

To add an activation's form is to add a row to ACTIVATION_FORMS. What computes an activation with other operators need
not be in it: `nbdense.export.read.patterns` knows that by its values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.activations import ACTIVATIONS, Activation, Alpha
from nbdense.export.graph.builder import Graph
from nbdense.export.graph.steps import Array, Doubles, FunctionStep, Step, affine, clip, function

HARD_SWISH_OPSET = 14  # the first that has the operator
_SELU = (1.67326319217681884765625, 1.05070102214813232421875)  # the operator's defaults

# (graph, activation, the pre-activation's tensor, the output's)
ActivationWriter = Callable[[Graph, Activation, str, str], None]
# (the operator's attributes, its constants by place: None where it reads the data) to steps
OperatorReader = Callable[[Mapping[str, Any], Sequence[Array | None]], list[Step]]


@dataclass(frozen=True)
class Operator:
    """An ONNX operator that is an activation, perhaps between affine steps.

    Attributes
    ----------
    read : OperatorReader
        Gives its steps; raises a ValueError for a use that no layer has.
    compute : callable, optional
        ``compute(x, attributes)`` in float64; None for an operator of which no decomposition is made.
    arguments : int
        Tensors that it reads, elementwise.
    """

    read: OperatorReader
    compute: Callable[[Doubles, Mapping[str, Any]], Doubles] | None = None
    arguments: int = 1


@dataclass(frozen=True)
class ActivationForm:
    """The writer and the readers of an activation in ONNX.

    Attributes
    ----------
    write : ActivationWriter or None
        Writes its nodes; None: there is nothing to write.
    operators : dict of str to Operator
        Operators that are this activation, by their names.
    elementwise : bool
        Whether it is a function of one number, which several operators together may compute.
    fit : callable, optional
        ``fit(points, values, constants)``, the parameters with which it may have these values, where constants are
        those of the operators that have them; None where it has no parameter.
    is_probability : bool
        Whether an output is the probability of a class.
    """

    write: ActivationWriter | None
    operators: Mapping[str, Operator] = field(default_factory=dict)
    elementwise: bool = True
    fit: Callable[[Doubles, Doubles, Sequence[float]], Iterable[Alpha]] | None = None
    is_probability: bool = False


# -- writers ---------------------------------------------------------------------------------------------------------


def _one_operator(graph: Graph, activation: Activation, source: str, target: str) -> None:
    graph.node(activation.onnx, [source], target)


def _softmax(graph: Graph, activation: Activation, source: str, target: str) -> None:
    graph.node(activation.onnx, [source], target, axis=graph.axis)


def _with_alpha(graph: Graph, activation: Activation, source: str, target: str) -> None:
    graph.node(activation.onnx, [source], target, alpha=activation.numbers[0])


def _clip(graph: Graph, activation: Activation, source: str, target: str) -> None:
    ends = {"least": activation.lower, "most": activation.upper}
    bounds = [_number(graph, target, end, value) if math.isfinite(value) else "" for end, value in ends.items()]
    graph.node("Clip", [source, *bounds] if bounds[1] else [source, bounds[0]], target)


def _number(graph: Graph, target: str, name: str, value: float) -> str:
    """Write a constant of an activation's; return its name."""
    return graph.constant(f"{target}_{name}", value, np.float32)


def _hard_sigmoid(graph: Graph, activation: Activation, source: str, target: str) -> None:
    graph.node(activation.onnx, [source], target, alpha=1 / 6, beta=0.5)


def _hard_swish(graph: Graph, activation: Activation, source: str, target: str) -> None:
    if graph.opset >= HARD_SWISH_OPSET:
        graph.node(activation.onnx, [source], target)
        return
    gate = graph.node("HardSigmoid", [source], f"{target}_gate", alpha=1 / 6, beta=0.5)
    graph.node("Mul", [source, gate], target)


def _times(operator: str) -> ActivationWriter:
    """Return a writer of the source times what one operator makes of it."""

    def write(graph: Graph, activation: Activation, source: str, target: str) -> None:
        graph.node("Mul", [source, graph.node(operator, [source], f"{target}_gate")], target)

    return write


def _mish(graph: Graph, activation: Activation, source: str, target: str) -> None:
    # The operator Mish is opset 18's.
    gate = graph.node("Tanh", [graph.node("Softplus", [source], f"{target}_softplus")], f"{target}_gate")
    graph.node("Mul", [source, gate], target)


def _gelu(graph: Graph, activation: Activation, source: str, target: str) -> None:
    # source (1 + erf(source / sqrt 2)) / 2; the operator Gelu is opset 20's.
    root, one, half = (
        graph.constant(f"{target}_{name}", value, np.float32)
        for name, value in (("root", 0.5**0.5), ("one", 1.0), ("half", 0.5))
    )
    scaled = graph.node("Mul", [source, root], f"{target}_scaled")
    gate = graph.node("Add", [graph.node("Erf", [scaled], f"{target}_erf"), one], f"{target}_gate")
    graph.node("Mul", [graph.node("Mul", [source, gate], f"{target}_twice"), half], target)


def _gelu_tanh(graph: Graph, activation: Activation, source: str, target: str) -> None:
    # source sigmoid(2 sqrt(2 / pi) (source + 0.044715 source^3)), the same as with tanh.
    factor = 2 * (2 / np.pi) ** 0.5
    linear, cubic = (
        graph.constant(f"{target}_{name}", value, np.float32)
        for name, value in (("linear", factor), ("cubic", 0.044715 * factor))
    )
    square = graph.node("Mul", [source, source], f"{target}_square")
    slope = graph.node("Add", [graph.node("Mul", [square, cubic], f"{target}_bend"), linear], f"{target}_slope")
    gate = graph.node("Sigmoid", [graph.node("Mul", [source, slope], f"{target}_scaled")], f"{target}_gate")
    graph.node("Mul", [source, gate], target)


def _negated_softplus(graph: Graph, activation: Activation, source: str, target: str) -> None:
    negated = graph.node("Neg", [source], f"{target}_negated")
    graph.node("Neg", [graph.node("Softplus", [negated], f"{target}_softplus")], target)


def _shrink(graph: Graph, activation: Activation, source: str, target: str) -> None:
    threshold = activation.numbers[0]
    bias = threshold if activation.name == "soft_shrink" else 0.0
    graph.node("Shrink", [source], target, lambd=threshold, bias=bias)


def _tanh_shrink(graph: Graph, activation: Activation, source: str, target: str) -> None:
    graph.node("Sub", [source, graph.node("Tanh", [source], f"{target}_tanh")], target)


def _squareplus(graph: Graph, activation: Activation, source: str, target: str) -> None:
    # relu(source) + b / 2 / (sqrt(source^2 + b) + |source|): no difference of like numbers.
    (b,) = activation.numbers
    size = graph.node("Abs", [source], f"{target}_size")
    square = graph.node("Mul", [size, size], f"{target}_square")
    raised = graph.node("Add", [square, _number(graph, target, "b", b)], f"{target}_raised")
    total = graph.node("Add", [graph.node("Sqrt", [raised], f"{target}_root"), size], f"{target}_total")
    rest = graph.node("Div", [_number(graph, target, "half_b", b / 2), total], f"{target}_rest")
    graph.node("Add", [graph.node("Relu", [source], f"{target}_relu"), rest], target)


def _softplus_beta(graph: Graph, activation: Activation, source: str, target: str) -> None:
    beta, threshold = activation.numbers
    factor = _number(graph, target, "beta", beta)
    scaled = graph.node("Mul", [source, factor], f"{target}_scaled")
    softplus = graph.node("Softplus", [scaled], f"{target}_softplus")
    if threshold == math.inf:
        graph.node("Div", [softplus, factor], target)
        return
    value = graph.node("Div", [softplus, factor], f"{target}_soft")
    _choose(graph, target, scaled, threshold, source, value)


def _choose(graph: Graph, target: str, source: str, threshold: float, above: str, below: str) -> None:
    """Write the choice between two tensors by whether a third is above a threshold."""
    is_above = graph.node("Greater", [source, _number(graph, target, "threshold", threshold)], f"{target}_is_above")
    graph.node("Where", [is_above, above, below], target)


def _sparse_plus(graph: Graph, activation: Activation, source: str, target: str) -> None:
    # ((c + 1) / 2)^2 + relu(source - 1), c being the source in [-1, 1].
    half = graph.node("HardSigmoid", [source], f"{target}_half", alpha=0.5, beta=0.5)
    square = graph.node("Mul", [half, half], f"{target}_square")
    above = graph.node("Sub", [source, _number(graph, target, "one", 1.0)], f"{target}_above")
    graph.node("Add", [square, graph.node("Relu", [above], f"{target}_relu")], target)


def _sparse_sigmoid(graph: Graph, activation: Activation, source: str, target: str) -> None:
    graph.node("HardSigmoid", [source], target, alpha=0.5, beta=0.5)


def _threshold(graph: Graph, activation: Activation, source: str, target: str) -> None:
    threshold, value = activation.numbers
    _choose(graph, target, source, threshold, source, _number(graph, target, "value", value))


def _thresholded_relu(graph: Graph, activation: Activation, source: str, target: str) -> None:
    threshold, slope, most = activation.numbers
    if slope == 0 and most == math.inf:
        graph.node(activation.onnx, [source], target, alpha=threshold)
        return
    above, below = source, _number(graph, target, "below", 0.0) if slope == 0 else ""
    if most != math.inf:
        above = graph.node("Min", [source, _number(graph, target, "most", most)], f"{target}_above")
    if slope != 0:
        moved = graph.node("Sub", [source, _number(graph, target, "moved_by", threshold)], f"{target}_moved")
        below = graph.node("Mul", [moved, _number(graph, target, "slope", slope)], f"{target}_sloped")
    _choose(graph, target, source, threshold, above, below)


# -- readers ---------------------------------------------------------------------------------------------------------


def _is(name: str) -> OperatorReader:
    """Return a reader of an operator that is the activation itself."""
    return lambda attributes, constants: [function(name)]


def _attribute(attributes: Mapping[str, Any], name: str, default: float) -> float:
    """Return an attribute as it was written: 0.2, where float32 has made another number of it."""
    return float(str(np.float32(attributes.get(name, default))))


def _read_clip(attributes: Mapping[str, Any], constants: Sequence[Array | None]) -> list[Step]:
    return clip(attributes["min"], attributes["max"])


def _read_leaky_relu(attributes: Mapping[str, Any], constants: Sequence[Array | None]) -> list[Step]:
    return _sloped(_attribute(attributes, "alpha", 0.01))


def _sloped(slope: float) -> list[Step]:
    """Return the step of a rectifier with a slope, which may be negative."""
    return [FunctionStep(ACTIVATIONS["relu"].with_parameters(negative_slope=slope))]


def _read_prelu(attributes: Mapping[str, Any], constants: Sequence[Array | None]) -> list[Step]:
    data, slope = constants
    if data is not None or slope is None or np.unique(slope).size != 1:
        raise ValueError("its slope must be one constant number, as leaky_relu's is")
    return _sloped(float(str(np.float32(slope.reshape(-1)[0]))))


def _read_elu(attributes: Mapping[str, Any], constants: Sequence[Array | None]) -> list[Step]:
    return [function("elu", _attribute(attributes, "alpha", 1.0))]


def _read_celu(attributes: Mapping[str, Any], constants: Sequence[Array | None]) -> list[Step]:
    return [function("celu", _attribute(attributes, "alpha", 1.0))]


def _read_shrink(attributes: Mapping[str, Any], constants: Sequence[Array | None]) -> list[Step]:
    threshold, bias = _attribute(attributes, "lambd", 0.5), _attribute(attributes, "bias", 0.0)
    if bias not in (0.0, threshold):
        raise ValueError(f"its bias must be 0 or lambd, {threshold}, got {bias}")
    return [function("hard_shrink" if bias == 0 else "soft_shrink", threshold)]


def _read_thresholded_relu(attributes: Mapping[str, Any], constants: Sequence[Array | None]) -> list[Step]:
    threshold = _attribute(attributes, "alpha", 1.0)
    if threshold < 0:
        return [function("threshold", (threshold, 0.0))]
    return [function("thresholded_relu", (threshold, 0.0, math.inf))]


def _read_selu(attributes: Mapping[str, Any], constants: Sequence[Array | None]) -> list[Step]:
    alpha, gamma = _attribute(attributes, "alpha", _SELU[0]), _attribute(attributes, "gamma", _SELU[1])
    if abs(alpha - _SELU[0]) < 1e-6 and abs(gamma - _SELU[1]) < 1e-6:
        return [function("selu")]
    return [function("elu", alpha), affine(scale=gamma)]


def _read_gelu(attributes: Mapping[str, Any], constants: Sequence[Array | None]) -> list[Step]:
    return [function("gelu_tanh" if attributes.get("approximate", b"none") == b"tanh" else "gelu")]


def _read_swish(attributes: Mapping[str, Any], constants: Sequence[Array | None]) -> list[Step]:
    alpha = _attribute(attributes, "alpha", 1.0)
    if alpha == 0:
        return [affine(scale=0.5)]
    return [affine(scale=alpha), function("silu"), affine(scale=1 / alpha)]


def _read_hard_sigmoid(attributes: Mapping[str, Any], constants: Sequence[Array | None]) -> list[Step]:
    slope, offset = _attribute(attributes, "alpha", 0.2), _attribute(attributes, "beta", 0.5)
    if abs(slope - 1 / 6) < 1e-7 and offset == 0.5:
        return [function("hard_sigmoid")]
    if slope == 0.5 and offset == 0.5:
        return [function("sparse_sigmoid")]
    return [affine(scale=6 * slope, shift=6 * (offset - 0.5)), function("hard_sigmoid")]


# -- what decompositions compute -------------------------------------------------------------------------------------


def _clipped(x: Doubles, attributes: Mapping[str, Any]) -> Doubles:
    return np.minimum(np.maximum(x, attributes["min"]), attributes["max"])


def _line_clipped(x: Doubles, attributes: Mapping[str, Any]) -> Doubles:
    return np.clip(attributes.get("alpha", 0.2) * x + attributes.get("beta", 0.5), 0.0, 1.0)


def _exponential_below(x: Doubles, attributes: Mapping[str, Any]) -> Doubles:
    alpha = attributes.get("alpha", 1.0)
    return np.maximum(x, 0.0) + alpha * np.expm1(np.minimum(x, 0.0) / alpha)


def _power_below(x: Doubles, attributes: Mapping[str, Any]) -> Doubles:
    return np.maximum(x, 0.0) + attributes.get("alpha", 1.0) * np.expm1(np.minimum(x, 0.0))


def _scaled_power_below(x: Doubles, attributes: Mapping[str, Any]) -> Doubles:
    alpha, gamma = attributes.get("alpha", _SELU[0]), attributes.get("gamma", _SELU[1])
    return gamma * _power_below(x, {"alpha": alpha})


def _sloped_below(x: Doubles, attributes: Mapping[str, Any]) -> Doubles:
    return np.maximum(x, 0.0) + attributes.get("alpha", 0.01) * np.minimum(x, 0.0)


def _shrunk(x: Doubles, attributes: Mapping[str, Any]) -> Doubles:
    kept = np.abs(x) > attributes.get("lambd", 0.5)
    return kept * (x - np.sign(x) * attributes.get("bias", 0.0))


# -- parameters of decompositions --


def _edge(points: Doubles, is_above: npt.NDArray[np.bool_], constants: Sequence[float]) -> list[float]:
    """Return the constants that may be where points begin to be above something."""
    least, most = points[~is_above].max(initial=-math.inf), points[is_above].min(initial=math.inf)
    return [constant for constant in constants if least <= constant <= most]


def _fit_hard_shrink(points: Doubles, values: Doubles, constants: Sequence[float]) -> Iterable[Alpha]:
    return _edge(np.abs(points), values != 0, constants)


def _fit_threshold(points: Doubles, values: Doubles, constants: Sequence[float]) -> Iterable[Alpha]:
    value = float(values[points.argmin()])
    return [(edge, value) for edge in _edge(points, values != value, constants)]


def _fit_thresholded_relu(points: Doubles, values: Doubles, constants: Sequence[float]) -> Iterable[Alpha]:
    first, second = np.argsort(points)[:2]
    slope = float((values[second] - values[first]) / (points[second] - points[first]))
    last = float(values[points.argmax()])
    edges = constants if slope else _edge(points, values != 0, constants)
    most = last if last < points.max() else math.inf
    return [(edge, slope, most) for edge in edges]


def _fit_softplus_beta(points: Doubles, values: Doubles, constants: Sequence[float]) -> Iterable[Alpha]:
    return [(beta, threshold) for beta in constants for threshold in (*constants, math.inf)]


def _fit_bounds(points: Doubles, values: Doubles, constants: Sequence[float]) -> Iterable[Alpha]:
    least = float(values.min()) if values.min() > points.min() else -math.inf
    most = float(values.max()) if values.max() < points.max() else math.inf
    return [] if math.isinf(least) and math.isinf(most) else [(least, most)]


def _fit_constants(points: Doubles, values: Doubles, constants: Sequence[float]) -> Iterable[Alpha]:
    return constants


# -- the table -------------------------------------------------------------------------------------------------------

# Its keys are those of nbdense.activations.ACTIVATIONS.
ACTIVATION_FORMS: dict[str, ActivationForm] = {
    "linear": ActivationForm(None, elementwise=False),
    "relu": ActivationForm(_one_operator, {"Relu": Operator(_is("relu"), lambda x, _: np.maximum(x, 0.0))}),
    "sigmoid": ActivationForm(
        _one_operator,
        {"Sigmoid": Operator(_is("sigmoid"), lambda x, _: 1.0 / (1.0 + np.exp(-x)))},
        is_probability=True,
    ),
    "tanh": ActivationForm(_one_operator, {"Tanh": Operator(_is("tanh"), lambda x, _: np.tanh(x))}),
    "softmax": ActivationForm(_softmax, {"Softmax": Operator(_is("softmax"))}, elementwise=False),
    "relu6": ActivationForm(
        _clip, {"Clip": Operator(_read_clip, _clipped)}, fit=lambda points, values, _: [float(values.max())]
    ),
    "leaky_relu": ActivationForm(
        _with_alpha,
        {"LeakyRelu": Operator(_read_leaky_relu, _sloped_below), "PRelu": Operator(_read_prelu, arguments=2)},
        fit=lambda points, values, _: [float(values[0] / points[0])],
    ),
    "elu": ActivationForm(
        _with_alpha,
        {"Elu": Operator(_read_elu, _power_below)},
        fit=lambda points, values, _: [float(-values.min())],
    ),
    "selu": ActivationForm(_one_operator, {"Selu": Operator(_read_selu, _scaled_power_below)}),
    "gelu": ActivationForm(_gelu, {"Gelu": Operator(_read_gelu)}),
    "gelu_tanh": ActivationForm(_gelu_tanh),  # Gelu reads it too
    "silu": ActivationForm(_times("Sigmoid"), {"Swish": Operator(_read_swish)}),
    "hard_sigmoid": ActivationForm(
        _hard_sigmoid, {"HardSigmoid": Operator(_read_hard_sigmoid, _line_clipped)}, is_probability=True
    ),
    "hard_swish": ActivationForm(_hard_swish, {"HardSwish": Operator(_is("hard_swish"))}),
    "softplus": ActivationForm(
        _one_operator, {"Softplus": Operator(_is("softplus"), lambda x, _: np.logaddexp(0.0, x))}
    ),
    "mish": ActivationForm(_mish, {"Mish": Operator(_is("mish"))}),
    "softsign": ActivationForm(
        _one_operator, {"Softsign": Operator(_is("softsign"), lambda x, _: x / (1.0 + np.abs(x)))}
    ),
    "exponential": ActivationForm(_one_operator, {"Exp": Operator(_is("exponential"), lambda x, _: np.exp(x))}),
    "celu": ActivationForm(_with_alpha, {"Celu": Operator(_read_celu, _exponential_below)}, fit=_fit_constants),
    "log_softmax": ActivationForm(_softmax, {"LogSoftmax": Operator(_is("log_softmax"))}, elementwise=False),
    "log_sigmoid": ActivationForm(_negated_softplus),
    "hard_tanh": ActivationForm(_clip, fit=_fit_bounds),
    "hard_shrink": ActivationForm(_shrink, {"Shrink": Operator(_read_shrink, _shrunk)}, fit=_fit_hard_shrink),
    "soft_shrink": ActivationForm(_shrink, fit=lambda points, values, _: [float((points - values)[points.argmax()])]),
    "tanh_shrink": ActivationForm(_tanh_shrink),
    "squareplus": ActivationForm(_squareplus, fit=_fit_constants),
    "softplus_beta": ActivationForm(_softplus_beta, fit=_fit_softplus_beta),
    "sparse_plus": ActivationForm(_sparse_plus),
    "sparse_sigmoid": ActivationForm(_sparse_sigmoid, is_probability=True),
    "threshold": ActivationForm(_threshold, fit=_fit_threshold),
    "thresholded_relu": ActivationForm(
        _thresholded_relu,
        {
            "ThresholdedRelu": Operator(
                _read_thresholded_relu, lambda x, attributes: x * (x > attributes.get("alpha", 1.0))
            )
        },
        fit=_fit_thresholded_relu,
    ),
}
# All rows' operators.
ACTIVATION_OPERATORS = {name: entry for form in ACTIVATION_FORMS.values() for name, entry in form.operators.items()}


def activation_writer(layer: str, activation: str) -> ActivationWriter | None:
    """Return the function that writes an activation's nodes; None where there are none.

    Parameters
    ----------
    layer : str
        The layer's name for the error.
    activation : str
        The activation's name.

    Raises
    ------
    ValueError
        If it has no ONNX form.
    """
    if activation not in ACTIVATION_FORMS:
        raise ValueError(f"{layer}: activation {activation!r} has no ONNX form")
    return ACTIVATION_FORMS[activation].write


def custom_writer(layer: str, activation: Activation) -> ActivationWriter:
    """Return the function that writes a custom activation's nodes.

    Parameters
    ----------
    layer : str
        What the error calls the layer.
    activation : Activation
        The activation.

    Raises
    ------
    ValueError
        If it has no ONNX form.
    """
    write = activation.write_onnx
    if write is None:
        raise ValueError(
            f"{layer}: activation {activation.name!r} is one of your own: it has no ONNX form; those that have one are "
            f"{', '.join(sorted(ACTIVATION_FORMS))}, and what activations.custom makes with onnx=..."
        )
    return lambda graph, activation, source, target: write(graph, source, target)
