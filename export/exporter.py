"""`to_onnx`: one door for all flavours."""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx

from nbdense.export.float_flavour import write_float
from nbdense.export.graph import INPUT, OUTPUT, Graph, check, newest_opset, serialize
from nbdense.export.qdq_flavour import write_qdq
from nbdense.export.verification import compare, is_quantized, network_of, shapes_of
from nbdense.files import atomic_write

DEFAULT_OPSET = 17  # with IR version 8 the widest target of float and int8
OLDEST_OPSET = 13  # the first with scales per channel, and with today's Softmax


@dataclass(frozen=True)
class Flavour:
    """One way to write a network: its writer, and whether that takes quantized networks or float ones."""

    write: Callable[[Graph, Any], None]
    quantized: bool


FLAVOURS = {
    "float": Flavour(write_float, quantized=False),
    "qdq": Flavour(write_qdq, quantized=True),
}


def to_onnx(
    model_or_quantized: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    flavour: str | None = None,
    opset: int | None = None,
    input_name: str = INPUT,
    output_name: str = OUTPUT,
    class_names: Sequence[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    verify: bool = True,
) -> onnx.ModelProto:
    """Export a model to ONNX, and see that onnxruntime computes what it computes.

    The graph takes float32 ``input`` [batch, ..., n_in], for any batch, and gives float32 ``output`` [batch, ...,
    n_out]: probabilities or values, as ``predict``. The file's bytes are the same for the same model, in every process.
    Dropout is left out, and batch normalisation is by its running statistics.

    Parameters
    ----------
    model_or_quantized : Sequential, QuantizedModel, Network or QuantizedNetwork
        The model. float64 weights are stored as float32.
    path : path, optional
        Where to write the file; replaced, in one step, if it exists. None writes none.
    flavour : str, optional
        "float", for a float model of any layers; "qdq", for a quantized one: QuantizeLinear and DequantizeLinear around
        float operators, which runtimes fuse into integer ones. None: what the model is.
    opset : int, optional
        From 13 to the newest that the installed onnx knows, written with the lowest IR version that has it; by default
        17, with IR version 8.
    input_name, output_name : str
        What the graph calls its input and its output.
    class_names : sequence of str, optional
        What the outputs stand for, as many as they are; of a model of one output, two: of values below 0.5 and from
        there on. Kept in the file's metadata as "class_names", a JSON list.
    metadata : mapping of str to str, number, list or dict, optional
        What else the file shall say of itself, such as metrics. What is no str is written as JSON. Runtimes show all
        of it as strings, beside "nbdense_version" and "nbdense_flavour".
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
        rounding than "onnx", or names, class names or metadata that do not fit.
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
    network = network_of(model_or_quantized)
    name = _flavour(flavour, is_quantized(network))
    source, target = shapes_of(network)
    said = {"nbdense_flavour": name, **_class_names(class_names, target[-1]), **_metadata(metadata)}
    graph = Graph(_opset(opset), input_name, output_name)
    FLAVOURS[name].write(graph, network)
    model = graph.finish(source, target, said)
    check(model, "the exported graph")
    if verify and find_spec("onnxruntime") is not None:
        result = compare(model, model_or_quantized)
        if not result.agrees:
            raise RuntimeError(f"onnxruntime does not compute what the model predicts, nothing was written: {result}")
    if path is not None:
        atomic_write(path, serialize(model))
    return model


def _flavour(name: str | None, quantized: bool) -> str:
    kinds = {False: "a float model", True: "a quantized model"}
    if name is None:
        return next(key for key, flavour in FLAVOURS.items() if flavour.quantized == quantized)
    if name not in FLAVOURS:
        there = ", ".join(f"{key!r} (of {kinds[flavour.quantized]})" for key, flavour in FLAVOURS.items())
        raise ValueError(f"to_onnx: there is no flavour {name!r}; there are: {there}")
    if FLAVOURS[name].quantized != quantized:
        hint = "; quantize it first" if not quantized else ""
        raise ValueError(f"to_onnx: flavour {name!r} is of {kinds[not quantized]}, this is {kinds[quantized]}{hint}")
    return name


def _class_names(names: Sequence[str] | None, n_out: int) -> dict[str, str]:
    if names is None:
        return {}
    listed = list(names) if isinstance(names, Iterable) and not isinstance(names, str) else []
    wanted = n_out if n_out > 1 else 2
    if len(listed) != wanted or len(set(listed)) != wanted or not all(isinstance(name, str) for name in listed):
        raise ValueError(f"to_onnx: class_names must be {wanted} different strings for {n_out} outputs, got {names!r}")
    return {"class_names": json.dumps(listed, ensure_ascii=False)}


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


def _opset(value: int | None) -> int:
    if value is None:
        return DEFAULT_OPSET
    newest = newest_opset()
    try:
        opset = operator.index(value)
    except TypeError:
        opset = 0
    if not OLDEST_OPSET <= opset <= newest:
        raise ValueError(f"to_onnx: opset must be from {OLDEST_OPSET} to {newest}, the installed onnx's, got {value!r}")
    return opset
