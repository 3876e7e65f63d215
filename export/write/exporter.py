"""`to_onnx`: one door for all flavours."""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from nbdense.export.verify.verification import compare, is_quantized, network_of, shapes_of
from nbdense.export.write.convolution import convolution_shapes, write_convolution
from nbdense.export.write.dynamic_flavour import write_dynamic
from nbdense.export.write.float_flavour import write_float
from nbdense.export.write.graph import INPUT, OUTPUT, Form, Graph, Shape, check, ir_version_of, newest_opset
from nbdense.export.write.labels import LABEL, write_labels
from nbdense.export.write.qdq_flavour import write_qdq
from nbdense.export.write.qoperator_flavour import write_qoperator
from nbdense.export.write.weight_only_flavour import needed_opset, write_weight_only
from nbdense.export.write.writing import write_model

DEFAULT_OPSET = 17  # with IR version 8 the widest target of float and int8
OLDEST_OPSET = 13  # the first with scales per channel, and with today's Softmax


@dataclass(frozen=True)
class Flavour:
    """One way to write a network: its writer, and the kind of network that it takes.

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
    "static": ("a quantized model", "quantize it first"),
    "dynamic": ("a dynamically quantized model", "quantize it with scheme='dynamic'"),
    "weight_only": ("a model of which the weights alone are quantized", "quantize it with scheme='weight_only'"),
}


def to_onnx(
    model_or_quantized: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    flavour: str | None = None,
    opset: int | None = None,
    input_name: str = INPUT,
    output_name: str = OUTPUT,
    labels: bool = False,
    label_name: str = LABEL,
    class_names: Sequence[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    fold_batch_norm: bool = True,
    as_convolution: bool = False,
    verify: bool = True,
) -> onnx.ModelProto:
    """Export a model to ONNX, and see that onnxruntime computes what it computes.

    The graph takes float32 ``input`` [batch, ..., n_in], for any batch, and gives float32 ``output`` [batch, ...,
    n_out]: probabilities or values, as ``predict``; it is the last output. The file's bytes are the same for the same
    model, in every process. Dropout is left out, and batch normalisation is by its running statistics. There are no
    other files, unless the weights take 2 GB or more: then they lie in one beside ``path``, called like it with a
    digest and ".data" behind.

    Parameters
    ----------
    model_or_quantized : Sequential, QuantizedModel, Network or QuantizedNetwork
        The model. float64 weights are stored as float32. Or a fitted scikit-learn Pipeline, or an estimator of
        nbdense's: see `pipeline_to_onnx`.
    path : path, optional
        Where to write the file; replaced, in one step, if it exists. None writes none.
    flavour : str, optional
        None: the first that fits the model.

        - "float": a float model, of any layers.
        - "qdq": a statically quantized one, with QuantizeLinear and DequantizeLinear around float operators, which
          runtimes fuse into integer ones. int8 activations are the most portable, uint8 ones the fastest on x86: there
          onnxruntime computes sums (Residual) of int8 in float, and of uint8 in integers.
        - "qoperator": the same in operators on integers, some of them onnxruntime's own; exactly nbdense's integers.
        - "dynamic": one whose inputs are quantized anew in every call.
        - "weight_only": one whose weights alone are integers, of 8 or 4 bits. onnxruntime rounds what weights of 4 bits
          or in blocks multiply to int8, unless its option "session.qdq_matmulnbits_accuracy_level" is "1".

        Layers that were left in float in a quantized model are float in all of them. Weights of 4 bits are stored as
        such by "weight_only", and as int8 by the others.
    opset : int, optional
        From 13 to the newest that the installed onnx knows, written with the lowest IR version that has it. By default
        17, with IR version 8; weights of 4 bits or in blocks need 21, with IR version 10.
    input_name, output_name : str
        What the graph calls its input and its output.
    labels : bool
        Whether there is an output of labels, before the other: the class of the largest output, the first of equal
        ones; of one sigmoid output, 1 from 0.5 on, else 0. int64 [batch, ...], or strings where there are class names.
    label_name : str
        What it is called.
    class_names : sequence of str, optional
        What the outputs stand for, as many as they are; of a model of one output, two: of values below 0.5 and from
        there on. Kept in the file's metadata as "class_names", a JSON list.
    metadata : mapping of str to str, number, list or dict, optional
        What else the file shall say of itself, such as metrics. What is no str is written as JSON. Runtimes show all
        of it as strings, beside "nbdense_version", "nbdense_flavour", and of a quantized model "nbdense_report", what
        `quantize` found out, as JSON.
    fold_batch_norm : bool
        Whether dense layers take over the batch normalisations beside them, inside Residual too. What no dense layer
        can take over, and what stands on inputs whose mean is over 4 deviations away from 0, stays in any case.
    as_convolution : bool
        Whether to write a model whose layers stand behind a Flatten of (C, H, W) as a Conv and 1x1 Convs: input
        [batch, C, height, width], of any size from (H, W) on, and output [batch, n_out, height - H + 1, width - W + 1],
        what the model says of each window. Not of dynamic layers, nor weights of 4 bits or in blocks.
    verify : bool
        Whether to compare with ``predict`` in onnxruntime before anything is written (see `verify_onnx`), where
        onnxruntime is installed. The checker and shape inference run in any case.

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    TypeError
        If the model is none of those, or the metadata no mapping.
    ValueError
        For a flavour or opset that there is not or that does not fit the model, a layer or an activation (one of your
        own, say) that has no ONNX form (named), a weight that is not finite in float32, a quantized model of another
        rounding than "onnx", labels or a convolution of a model that has none, or names or metadata that do not fit.
    RuntimeError
        If onnxruntime cannot load the model (an opset too new for it, say) or computes something else; nothing is
        written.
    OSError
        If the folder does not exist or cannot be written; it is named.

    Examples
    --------
    >>> from nbdense.export import to_onnx
    >>> from nbdense.layers import Dense, Input
    >>> from nbdense.models import Sequential
    >>> model = to_onnx(Sequential([Input((4,)), Dense(8, "relu"), Dense(3, "softmax")]), verify=False)
    >>> [node.op_type for node in model.graph.node]
    ['Gemm', 'Relu', 'Gemm', 'Softmax']
    """
    if hasattr(model_or_quantized, "get_params"):  # scikit-learn's: a Pipeline, or an estimator of nbdense's
        from nbdense.export.pipeline.sklearn import pipeline_to_onnx

        given = (flavour or "float", input_name, output_name, labels, as_convolution)
        if given != ("float", INPUT, OUTPUT, False, False):
            raise ValueError("to_onnx: pipelines have the flavour 'float', and names and labels of their own")
        return pipeline_to_onnx(
            model_or_quantized, path, opset=opset, class_names=class_names, metadata=metadata, verify=verify
        )
    network: Any = network_of(model_or_quantized)  # of the class that _kind finds
    name = _flavour(flavour, _kind(network))
    ends: tuple[Shape, Shape] = convolution_shapes(network) if as_convolution else shapes_of(network)
    names = None if class_names is None else _class_names(class_names, shapes_of(network)[1][-1])
    said = {"nbdense_flavour": name, **_metadata(metadata)}
    if names is not None:
        said["class_names"] = json.dumps(names, ensure_ascii=False)
    if is_quantized(network) and network.report:
        said["nbdense_report"] = json.dumps(network.report, sort_keys=True, default=_plain)
    graph = Graph(_opset(opset, network), input_name, output_name, label_name if labels else None)
    FLAVOURS[name].write(graph, network, Form(fold_batch_norm, as_convolution))
    if labels:
        write_labels(graph, ends[1], _last_activation(network), label_name, names)
    model = graph.finish(*ends, said, None if path is None else Path(path).name)
    check(model, "the exported graph", graph.outside)
    if verify and find_spec("onnxruntime") is not None:
        result = compare(model, model_or_quantized, outside=graph.outside)
        if not result.agrees:
            raise RuntimeError(f"onnxruntime does not compute what the model predicts, nothing was written: {result}")
    if path is not None:
        write_model(path, model, graph.outside)
    return model


def _last_activation(network: Any) -> str:
    if is_quantized(network):
        own = getattr(network.layers[-1], "activation", network.layers[-1].kind)
        return "softmax" if network.final_activation == "softmax" else str(own)
    return str(list(network.rows())[-1].activation.name)


def _kind(network: Any) -> str:
    if not is_quantized(network):
        return "float"
    if any(form is not None for form in network.formats):
        return "static"
    return "dynamic" if any(layer.kind == "dynamic_dense" for layer in network.layers) else "weight_only"


def _flavour(name: str | None, kind: str) -> str:
    if name is None:
        name = next(key for key, flavour in FLAVOURS.items() if flavour.kind == kind)
    if name not in FLAVOURS:
        there = ", ".join(f"{key!r} (of {KINDS[flavour.kind][0]})" for key, flavour in FLAVOURS.items())
        raise ValueError(f"to_onnx: there is no flavour {name!r}; there are: {there}")
    wanted, hint = KINDS[FLAVOURS[name].kind]
    if FLAVOURS[name].kind != kind:
        hint = f"; {hint}" if kind == "float" else ""
        raise ValueError(f"to_onnx: flavour {name!r} is of {wanted}, this is {KINDS[kind][0]}{hint}")
    return name


def _class_names(names: Sequence[str], n_out: int) -> list[str]:
    listed = list(names) if isinstance(names, Iterable) and not isinstance(names, str) else []
    wanted = n_out if n_out > 1 else 2
    if len(listed) != wanted or len(set(listed)) != wanted or not all(isinstance(name, str) for name in listed):
        raise ValueError(f"to_onnx: class_names must be {wanted} different strings for {n_out} outputs, got {names!r}")
    return listed


def _metadata(given: Mapping[str, Any] | None) -> dict[str, str]:
    """The user's metadata as strings, in the order of their keys: equal ones give equal files."""
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"to_onnx: metadata must be a mapping of names to values, got {type(given).__name__}")
    said = {}
    for key, value in sorted((given or {}).items(), key=lambda item: str(item[0])):
        if not isinstance(key, str) or not key or key == "class_names" or key.startswith("nbdense_"):
            raise ValueError(f"to_onnx: metadata needs keys of its own, not {key!r} (class_names is an argument)")
        try:
            said[key] = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=_plain)
        except (TypeError, ValueError) as error:
            raise ValueError(f"to_onnx: metadata {key!r} is neither a string nor JSON: {error}") from error
    return said


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays, which json does not know, as Python's."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"got {type(value).__name__}")


def _opset(value: int | None, network: Any) -> int:
    needed, why = needed_opset(network) if is_quantized(network) else (0, "")
    if value is None:
        return max(DEFAULT_OPSET, needed)
    newest = newest_opset()
    try:
        opset = operator.index(value)
    except TypeError:
        opset = 0
    if not OLDEST_OPSET <= opset <= newest:
        raise ValueError(f"to_onnx: opset must be from {OLDEST_OPSET} to {newest}, the installed onnx's, got {value!r}")
    if opset < needed:
        raise ValueError(f"to_onnx: {why} need opset {needed} (IR version {ir_version_of(needed)}), got {opset}")
    return opset
