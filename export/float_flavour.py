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


# How each activation becomes nodes, in every flavour; None: there is nothing to write. Its keys are those of
# nbdense.activations.ACTIVATIONS.
ACTIVATION_NODES: dict[str, ActivationWriter | None] = {
    "linear": None,
    "relu": _one_operator,
    "sigmoid": _one_operator,
    "tanh": _one_operator,
    "softmax": _softmax,
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
