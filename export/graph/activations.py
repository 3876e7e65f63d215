"""The table of activations' ONNX forms: how each is written, in every flavour, and by which operators it is read.

To add an activation's form is to add a row to ACTIVATION_FORMS. What computes an activation with other operators need
not be in it: `nbdense.export.read.patterns` knows that by its values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nbdense.activations import Activation
from nbdense.export.graph.builder import Graph
from nbdense.export.graph.steps import Array, Doubles, Step, affine, clip, function

HARD_SWISH_OPSET = 14  # the first that has the operator
_SELU = (1.67326319217681884765625, 1.05070102214813232421875)  # the operator's defaults

# (graph, activation, alpha, the pre-activation's tensor, the output's)
ActivationWriter = Callable[[Graph, Activation, float, str, str], None]
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
        ``fit(points, values)``, the parameter alpha with which it would have these values; None where it has none.
    is_probability : bool
        Whether an output is the probability of a class.
    """

    write: ActivationWriter | None
    operators: Mapping[str, Operator] = field(default_factory=dict)
    elementwise: bool = True
    fit: Callable[[Doubles, Doubles], float] | None = None
    is_probability: bool = False


# -- writers ---------------------------------------------------------------------------------------------------------


def _one_operator(graph: Graph, activation: Activation, alpha: float, source: str, target: str) -> None:
    graph.node(activation.onnx, [source], target)


def _softmax(graph: Graph, activation: Activation, alpha: float, source: str, target: str) -> None:
    graph.node(activation.onnx, [source], target, axis=graph.axis)


def _with_alpha(graph: Graph, activation: Activation, alpha: float, source: str, target: str) -> None:
    graph.node(activation.onnx, [source], target, alpha=alpha)


def _relu6(graph: Graph, activation: Activation, alpha: float, source: str, target: str) -> None:
    bounds = [graph.constant(f"{target}_{end}", value, np.float32) for end, value in (("least", 0.0), ("most", alpha))]
    graph.node(activation.onnx, [source, *bounds], target)


def _hard_sigmoid(graph: Graph, activation: Activation, alpha: float, source: str, target: str) -> None:
    graph.node(activation.onnx, [source], target, alpha=1 / 6, beta=0.5)


def _hard_swish(graph: Graph, activation: Activation, alpha: float, source: str, target: str) -> None:
    if graph.opset >= HARD_SWISH_OPSET:
        graph.node(activation.onnx, [source], target)
        return
    gate = graph.node("HardSigmoid", [source], f"{target}_gate", alpha=1 / 6, beta=0.5)
    graph.node("Mul", [source, gate], target)


def _times(operator: str) -> ActivationWriter:
    """Return a writer of the source times what one operator makes of it."""

    def write(graph: Graph, activation: Activation, alpha: float, source: str, target: str) -> None:
        graph.node("Mul", [source, graph.node(operator, [source], f"{target}_gate")], target)

    return write


def _mish(graph: Graph, activation: Activation, alpha: float, source: str, target: str) -> None:
    # The operator Mish is opset 18's.
    gate = graph.node("Tanh", [graph.node("Softplus", [source], f"{target}_softplus")], f"{target}_gate")
    graph.node("Mul", [source, gate], target)


def _gelu(graph: Graph, activation: Activation, alpha: float, source: str, target: str) -> None:
    # source (1 + erf(source / sqrt 2)) / 2; the operator Gelu is opset 20's.
    root, one, half = (
        graph.constant(f"{target}_{name}", value, np.float32)
        for name, value in (("root", 0.5**0.5), ("one", 1.0), ("half", 0.5))
    )
    scaled = graph.node("Mul", [source, root], f"{target}_scaled")
    gate = graph.node("Add", [graph.node("Erf", [scaled], f"{target}_erf"), one], f"{target}_gate")
    graph.node("Mul", [graph.node("Mul", [source, gate], f"{target}_twice"), half], target)


def _gelu_tanh(graph: Graph, activation: Activation, alpha: float, source: str, target: str) -> None:
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
    return [function("leaky_relu", _attribute(attributes, "alpha", 0.01))]


def _read_prelu(attributes: Mapping[str, Any], constants: Sequence[Array | None]) -> list[Step]:
    data, slope = constants
    if data is not None or slope is None or np.unique(slope).size != 1:
        raise ValueError("its slope must be one constant number, as leaky_relu's is")
    return [function("leaky_relu", float(str(np.float32(slope.reshape(-1)[0]))))]


def _read_elu(attributes: Mapping[str, Any], constants: Sequence[Array | None]) -> list[Step]:
    return [function("elu", _attribute(attributes, "alpha", 1.0))]


def _read_celu(attributes: Mapping[str, Any], constants: Sequence[Array | None]) -> list[Step]:
    alpha = _attribute(attributes, "alpha", 1.0)
    if alpha <= 0:
        raise ValueError(f"alpha must be above 0, got {alpha}")
    return [affine(scale=1 / alpha), function("elu", 1.0), affine(scale=alpha)]


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
    return [affine(scale=6 * slope, shift=6 * (offset - 0.5)), function("hard_sigmoid")]


# -- what decompositions compute -------------------------------------------------------------------------------------


def _clipped(x: Doubles, attributes: Mapping[str, Any]) -> Doubles:
    return np.minimum(np.maximum(x, attributes["min"]), attributes["max"])


def _line_clipped(x: Doubles, attributes: Mapping[str, Any]) -> Doubles:
    return np.clip(attributes.get("alpha", 0.2) * x + attributes.get("beta", 0.5), 0.0, 1.0)


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
        _relu6, {"Clip": Operator(_read_clip, _clipped)}, fit=lambda points, values: float(values.max())
    ),
    "leaky_relu": ActivationForm(
        _with_alpha,
        {"LeakyRelu": Operator(_read_leaky_relu), "PRelu": Operator(_read_prelu, arguments=2)},
        fit=lambda points, values: float(values[0] / points[0]),
    ),
    "elu": ActivationForm(
        _with_alpha,
        {"Elu": Operator(_read_elu), "Celu": Operator(_read_celu)},
        fit=lambda points, values: float(-values.min()),
    ),
    "selu": ActivationForm(_one_operator, {"Selu": Operator(_read_selu)}),
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
    return lambda graph, activation, alpha, source, target: write(graph, source, target)
