"""The float flavour: a Gemm and an activation for each row, wired by the buffers that the rows name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from nbdense.activations import Activation
from nbdense.export.graph import INPUT, OUTPUT, Graph
from nbdense.network import DENSE, Network, Row

# (graph, activation, alpha, the pre-activation's tensor, the output's)
ActivationWriter = Callable[[Graph, Activation, float, str, str], None]


def _one_operator(graph: Graph, activation: Activation, alpha: float, source: str, target: str) -> None:
    graph.node(activation.onnx, [source], target)


def _softmax(graph: Graph, activation: Activation, alpha: float, source: str, target: str) -> None:
    graph.node(activation.onnx, [source], target, axis=-1)  # the default was 1 before opset 13: say it


def _with_alpha(graph: Graph, activation: Activation, alpha: float, source: str, target: str) -> None:
    graph.node(activation.onnx, [source], target, alpha=alpha)


def _relu6(graph: Graph, activation: Activation, alpha: float, source: str, target: str) -> None:
    bounds = [graph.constant(f"{target}_{end}", value, np.float32) for end, value in (("least", 0.0), ("most", alpha))]
    graph.node(activation.onnx, [source, *bounds], target)


def _hard_sigmoid(graph: Graph, activation: Activation, alpha: float, source: str, target: str) -> None:
    graph.node(activation.onnx, [source], target, alpha=1 / 6, beta=0.5)


def _times(operator: str) -> ActivationWriter:
    """The source times what one operator makes of it."""

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


# How each activation becomes nodes, in every flavour; None: there is nothing to write. Its keys are those of
# nbdense.activations.ACTIVATIONS.
ACTIVATION_NODES: dict[str, ActivationWriter | None] = {
    "linear": None,
    "relu": _one_operator,
    "sigmoid": _one_operator,
    "tanh": _one_operator,
    "softmax": _softmax,
    "relu6": _relu6,
    "leaky_relu": _with_alpha,
    "elu": _with_alpha,
    "selu": _one_operator,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": _times("Sigmoid"),
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": _one_operator,
    "softplus": _one_operator,
    "mish": _mish,
}


def activation_writer(layer: str, activation: str) -> ActivationWriter | None:
    """What writes an activation's nodes.

    Parameters
    ----------
    layer : str
        The layer's name, for the error.
    activation : str
        The activation's.

    Raises
    ------
    ValueError
        If it has no ONNX form.
    """
    if activation not in ACTIVATION_NODES:
        raise ValueError(f"layer {layer!r}: activation {activation!r} has no ONNX form")
    return ACTIVATION_NODES[activation]


def write_float(graph: Graph, network: Network) -> None:
    """Write a float network's nodes, from ``input`` to ``output``.

    Parameters
    ----------
    graph : Graph
        Where to.
    network : Network
        float64 weights are stored as float32.

    Raises
    ------
    ValueError
        If a row or its activation has no ONNX form, or a weight is not a finite float32 number; the layer is named.
    """
    tensors = {0: INPUT}  # by buffer
    rows = list(network.dense_rows("to_onnx"))
    for row in rows:
        if row.kind != DENSE:
            raise ValueError(f"layer {row.name!r}: rows of kind {row.kind} have no ONNX form")
        write = activation_writer(row.name, row.activation.name)
        prefix = graph.layer(row.name)
        target = OUTPUT if row is rows[-1] else f"{prefix}/output"
        gemm = _gemm(graph, row, prefix, tensors[row.input], target if write is None else f"{prefix}/preactivation")
        if write is not None:
            write(graph, row.activation, row.alpha, gemm, target)
        tensors[row.output] = target


def _gemm(graph: Graph, row: Row, prefix: str, source: str, target: str) -> str:
    inputs = [source, graph.constant(f"{prefix}/weight", _float32(row.kernel.T, row.name, "kernel"), np.float32)]
    if row.bias is not None:
        inputs.append(graph.constant(f"{prefix}/bias", _float32(row.bias, row.name, "bias"), np.float32))
    return graph.node("Gemm", inputs, target, transB=1)


def _float32(array: npt.NDArray[np.floating], layer: str, what: str) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        converted = array.astype(np.float32)
    if not np.isfinite(converted).all():
        raise ValueError(f"layer {layer!r}: its {what} holds NaN, infinity, or a number too large for float32")
    return converted
