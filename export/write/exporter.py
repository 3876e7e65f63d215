"""Networks as ONNX graphs: the table of flavours, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import onnx

from nbdense.export.graph.builder import FLOAT, PLAIN, Form, Graph, Shape
from nbdense.export.graph.checks import check
from nbdense.export.graph.opsets import DEFAULT_OPSET, checked_opset, ir_version_of, newest_opset
from nbdense.export.networks import is_quantized, shapes_of
from nbdense.export.write.convolution import convolution_shapes, write_convolution
from nbdense.export.write.dynamic_flavour import write_dynamic
from nbdense.export.write.float_flavour import write_float
from nbdense.export.write.labels import write_labels
from nbdense.export.write.metadata import as_json, listed_class_names, metadata_of
from nbdense.export.write.qdq_flavour import write_qdq
from nbdense.export.write.qoperator_flavour import write_qoperator
from nbdense.export.write.weight_only_flavour import needed_opset, write_weight_only
from nbdense.quant.layers.checks import LIMITS
from nbdense.quant.schemes.options import Options
from nbdense.quant.schemes.table import SCHEMES


@dataclass(frozen=True)
class Flavour:
    """A way to write a network: its writer, and the kind of network that it takes.

    The writer gets the graph, the network, and the form in which it is wanted.
    """

    write: Callable[[Graph, Any, Form], None]
    kind: str


def _write_float(graph: Graph, network: Any, form: Form) -> None:
    (write_convolution if form.convolution else write_float)(graph, network, form.fold)


# The first of a kind is what models of it become by default.
FLAVOURS = {
    "float": Flavour(_write_float, "float"),
    "qdq": Flavour(write_qdq, "static"),
    "qoperator": Flavour(write_qoperator, "static"),
    "dynamic": Flavour(write_dynamic, "dynamic"),
    "weight_only": Flavour(write_weight_only, "weight_only"),
}
# What models of each kind are called, and what quantize() makes them of float ones.
KINDS = {
    "float": ("a float model", ""),
    **{name: (scheme.title, f"quantize it with scheme={name!r}") for name, scheme in SCHEMES.items()},
    Options.scheme: (SCHEMES[Options.scheme].title, "quantize it first"),
}


def network_to_onnx(
    network: Any,
    *,
    flavour: str | None,
    opset: int | None,
    ends: tuple[str, str],
    label_name: str | None,
    class_names: Sequence[str] | None,
    metadata: Mapping[str, Any] | None,
    form: Form = PLAIN,
    file_name: str | None,
) -> tuple[onnx.ModelProto, Mapping[str, npt.NDArray[Any]]]:
    """Write a network as an ONNX model that has passed onnx's checker, and the constants that it does not hold.

    Parameters
    ----------
    network : Network or QuantizedNetwork
        The network.
    flavour : str, optional
        A key of FLAVOURS; None: the first of the network's kind.
    opset : int, optional
        None: the least that has all that is needed, from DEFAULT_OPSET on.
    ends : (str, str)
        The names of the graph's input and output.
    label_name : str, optional
        The name of an output of labels; None: there is none.
    class_names : sequence of str, optional
        What the outputs stand for.
    metadata : mapping of str to str, number, list or dict, optional
        The user's.
    form : Form
        The form in which the network is written.
    file_name : str, optional
        The name of the model's file; None: it gets none.

    Raises
    ------
    TypeError, ValueError
        As `to_onnx`.
    """
    name = default_flavour(network) if flavour is None else _checked_flavour(flavour, _kind(network))
    ends_quantized = _check_ends(network, form, label_name is not None)
    shapes: tuple[Shape, Shape] = convolution_shapes(network) if form.convolution else shapes_of(network)
    names = None if class_names is None else listed_class_names(class_names, shapes_of(network)[1][-1])
    entries = metadata_of(name, metadata, names)
    _check_rounding(network)
    if is_quantized(network) and network.report:
        entries["nbdense_report"] = as_json(network.report)
    entries |= {f"nbdense_{side}_quantization": as_json(known) for side, known in ends_quantized.items()}
    graph = Graph(opset_for(opset, network), *ends, label_name)
    FLAVOURS[name].write(graph, network, form)
    if label_name is not None:
        write_labels(graph, shapes[1], _last_activation(network), label_name, names)
    model = graph.finish(*shapes, entries, file_name)
    check(model, "the exported graph", graph.outside)
    return model, graph.outside


def _check_ends(network: Any, form: Form, labels: bool) -> dict[str, list[float]]:
    """Return scales and zero points of the ends that are to be integers."""
    known = {}
    for side, dtype in (("input", form.input_type), ("output", form.output_type)):
        argument = f"to_onnx: inference_{side}_type={dtype!r}"
        if dtype == FLOAT:
            continue
        if dtype not in LIMITS:
            raise ValueError(f"to_onnx: inference_{side}_type must be one of {FLOAT!r}, 'int8', 'uint8', got {dtype!r}")
        quantized = is_quantized(network)
        end = (network.input_format if side == "input" else network.formats[-1]) if quantized else None
        if end is None:
            why = "the input is not read as one kind of" if side == "input" else "the last layer does not compute in"
            raise ValueError(f"{argument}: {why} integers; quantize with scheme='static', or leave it out")
        if dtype != network.activation_dtype:
            raise ValueError(
                f"{argument}: the network's integers are {network.activation_dtype}; give that, or quantize with "
                f"activation_dtype={dtype!r}"
            )
        if side == "output" and labels:
            raise ValueError(f"{argument}: labels are made of probabilities or values; leave labels out")
        known[side] = list(end)
    return known


def _check_rounding(network: Any) -> None:
    if is_quantized(network) and network.rounding != "onnx" and any(form is not None for form in network.formats):
        raise ValueError(
            f"to_onnx: the network rounds as {network.rounding!r}, which ONNX's operators do not; "
            "quantize with rounding='onnx' to export"
        )


def _last_activation(network: Any) -> str:
    if is_quantized(network):
        own = getattr(network.layers[-1], "activation", network.layers[-1].kind)
        return "softmax" if network.final_activation == "softmax" else str(own)
    return str(list(network.rows())[-1].activation.name)


def default_flavour(network: Any) -> str:
    """Return the flavour that a network is written in by default.

    Parameters
    ----------
    network : Network or QuantizedNetwork
        The network.
    """
    return next(key for key, flavour in FLAVOURS.items() if flavour.kind == _kind(network))


def _kind(network: Any) -> str:
    return str(network.scheme) if is_quantized(network) else "float"


def _checked_flavour(name: str, kind: str) -> str:
    if name not in FLAVOURS:
        there = ", ".join(f"{key!r} (of {KINDS[flavour.kind][0]})" for key, flavour in FLAVOURS.items())
        raise ValueError(f"to_onnx: unknown flavour {name!r}; there are: {there}")
    wanted, hint = KINDS[FLAVOURS[name].kind]
    if FLAVOURS[name].kind != kind:
        hint = f"; {hint}" if kind == "float" else ""
        raise ValueError(f"to_onnx: flavour {name!r} needs {wanted}, got {KINDS[kind][0]}{hint}")
    return name


def opset_for(value: int | None, network: Any) -> int:
    """Return the opset to write a network in.

    Parameters
    ----------
    value : int, optional
        The user's; None: the least that has all that is needed, from DEFAULT_OPSET on.
    network : Network or QuantizedNetwork
        The network.

    Raises
    ------
    TypeError, ValueError
        If there is no such opset, or the network needs a newer one.
    """
    needed, why = needed_opset(network) if is_quantized(network) else (0, "")
    if value is None:
        return max(DEFAULT_OPSET, needed)
    opset = checked_opset("to_onnx", value, newest_opset(), "onnx")
    if opset < needed:
        raise ValueError(f"to_onnx: {why} need opset {needed} (IR version {ir_version_of(needed)}), got {opset}")
    return opset
