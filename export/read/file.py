"""Reading an ONNX file that nobody vouches for: what it claims is checked before anything is made of it.

A file is data. Nothing in it is run, and nothing that it names is imported. Tensors are held against the bytes that are
there before memory is taken for them; data beside the file is read only from within the file's folder; and what is
handed on is a sorted list of nodes, without cycles, that onnx's checker has passed. The checker sees the nodes without
the constants' data: it would copy them.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from nbdense.export.read.tensors import FLOATS, Constants
from nbdense.files import FileFormatError

OLDEST_OPSET = 7  # older ones broadcast by other rules
MOST_NODES = 5_000  # that a graph may have: the deepest MLPs have hundreds
LARGEST_FILE = 2**31 - 1  # bytes: what protobuf can hold
CORE = ("", "ai.onnx")
ML = "ai.onnx.ml"

LABELS = {"ArgMax", "ArrayFeatureExtractor", "Binarizer", "LabelEncoder", "TopK"}  # what makes classes of numbers
_PASSING = {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"}  # what labels may go through


def describe(node: onnx.NodeProto) -> str:
    """Return a node's description for errors: its operator, with its domain where it is not ONNX's own, and its name.

    Parameters
    ----------
    node : NodeProto
        The node.
    """
    operator = node.op_type if node.domain in CORE else f"{node.domain}.{node.op_type}"
    if node.name:
        return f"{operator} node {node.name!r}"
    return f"{operator} node that writes {next((name for name in node.output if name), '')!r}"


@dataclass(frozen=True)
class OnnxFile:
    """The parts of a file that are imported.

    Attributes
    ----------
    name : str
        Its name for errors.
    opsets : dict of str to int
        Opsets by domain; ONNX's own is "".
    nodes : list of NodeProto
        Nodes that the output needs, each behind those that it reads.
    constants : Constants
        Its tensors.
    input : ValueInfoProto
        The one input.
    output : str
        The tensor that is wanted.
    class_names : list of str or None
        What the columns of the output stand for, where the file says so.
    """

    name: str
    opsets: dict[str, int]
    nodes: list[onnx.NodeProto]
    constants: Constants
    input: onnx.ValueInfoProto
    output: str
    class_names: list[str] | None

    @property
    def opset(self) -> int:
        """Opset of ONNX's own operators."""
        return self.opsets[""]


def read_file(source: Any, output: str | None) -> OnnxFile:
    """Read and check an ONNX file.

    Parameters
    ----------
    source : path, bytes or ModelProto
        The file.
    output : str, optional
        The tensor that is wanted; None: the one that holds probabilities or values.

    Raises
    ------
    FileNotFoundError
        If there is none.
    FileFormatError
        If it is damaged, no ONNX file, of a newer version, or not what it claims to be.
    ValueError
        If it has several inputs, or outputs among which the choice is not plain.
    """
    proto, name, folder = _parse(source)
    opsets = _check_versions(proto, name)
    graph = proto.graph
    if not graph.node and not graph.output:
        raise FileFormatError(f"{name}: there is no graph in it: it is truncated, or no ONNX file")
    if len(graph.node) > MOST_NODES:
        raise FileFormatError(f"{name} has {len(graph.node)} nodes; from_onnx takes up to {MOST_NODES}")
    constants = Constants(name, folder)
    for tensor in graph.initializer:
        constants.add(tensor.name, tensor)
    for sparse in graph.sparse_initializer:
        constants.add_sparse(sparse.values.name, sparse)
    nodes = [node for node in graph.node if not _take_constant(node, constants, name)]
    writers = _writers(nodes, graph, constants, name)
    inputs = [entry for entry in graph.input if entry.name not in constants]
    wanted, zip_map = _choose_output(graph, writers, output, name)
    ordered = _in_order(wanted, writers, {entry.name for entry in inputs}, constants, name)
    used = {source for node in ordered for source in node.input} | {wanted}
    inputs = [entry for entry in inputs if entry.name in used]
    if len(inputs) != 1:
        listed = ", ".join(repr(entry.name) for entry in inputs) or "none"
        raise ValueError(f"{name}: its output must depend on one input, got {listed}")
    functions = {(function.domain, function.name) for function in proto.functions}
    for node in ordered:
        if (node.domain, node.op_type) in functions:
            raise ValueError(
                f"{name}: {describe(node)} calls a function of the file's own; "
                "onnx.inliner.inline_local_functions puts operators in its place"
            )
    names = _class_names(proto, zip_map, constants)
    return OnnxFile(name, opsets, ordered, constants, inputs[0], wanted, names)


def check_nodes(file: OnnxFile) -> None:
    """Run onnx's checker over the nodes: how many inputs and outputs they have, and their attributes' types.

    Parameters
    ----------
    file : OnnxFile
        The file's content.

    Raises
    ------
    FileFormatError
        With the checker's reason.
    """
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [])
        for name in (file.input.name, *file.constants.names(), file.output)
    ]
    graph = helper.make_graph(file.nodes, "checked", ends[:-1], ends[-1:])
    opsets = [helper.make_opsetid(domain, version) for domain, version in file.opsets.items()]
    try:
        onnx.checker.check_model(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    except (onnx.checker.ValidationError, ValueError, TypeError) as error:
        raise FileFormatError(f"{file.name} is not a valid ONNX model: {error}") from error


def _parse(source: Any) -> tuple[onnx.ModelProto, str, Path | None]:
    if isinstance(source, onnx.ModelProto):
        return source, "the ONNX model", None
    folder: Path | None = None
    if isinstance(source, bytes | bytearray | memoryview):
        content, name = bytes(source), "the ONNX model"
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        name, folder = str(path), path.absolute().parent
        if not path.is_file():
            raise FileNotFoundError(f"no ONNX file at {path}")
        if path.stat().st_size > LARGEST_FILE:
            raise FileFormatError(f"{name} has {path.stat().st_size} bytes; an ONNX file has up to {LARGEST_FILE}")
        content = path.read_bytes()
    else:
        raise TypeError(f"from_onnx: expected a path, bytes or a ModelProto, got {type(source).__name__}")
    if not content:
        raise FileFormatError(f"{name} is empty")
    try:
        return onnx.load_model_from_string(content), name, folder
    except Exception as error:  # protobuf's DecodeError, which onnx does not pass on
        raise FileFormatError(f"{name} is damaged or truncated, or no ONNX file: {error}") from error


def _check_versions(proto: onnx.ModelProto, name: str) -> dict[str, int]:
    if proto.ir_version < 1:
        raise FileFormatError(f"{name} has no IR version: it is damaged or truncated, or no ONNX file")
    known = int(onnx.IR_VERSION)
    if proto.ir_version > known:
        raise FileFormatError(
            f"{name} is of IR version {proto.ir_version}; the installed onnx {onnx.__version__} knows up to {known}: "
            "upgrade onnx"
        )
    versions: dict[str, int] = {}
    for entry in proto.opset_import:
        domain = "" if entry.domain in CORE else entry.domain
        if versions.setdefault(domain, entry.version) != entry.version:
            raise FileFormatError(f"{name} asks for two opsets of domain {domain!r}")
    newest = {"": onnx.defs.onnx_opset_version(), ML: onnx.defs.onnx_ml_opset_version()}
    if "" not in versions:
        raise FileFormatError(f"{name} does not say of which opset it is: it is damaged or truncated")
    for domain, most in newest.items():
        if versions.get(domain, 0) > most:
            raise FileFormatError(
                f"{name} is of opset {versions[domain]} of {domain or 'ai.onnx'}; the installed onnx "
                f"{onnx.__version__} knows up to {most}: upgrade onnx"
            )
    if versions[""] < OLDEST_OPSET:
        raise ValueError(
            f"{name} is of opset {versions['']}; from_onnx reads {OLDEST_OPSET} and later "
            "(onnx.version_converter makes newer ones)"
        )
    return versions


def _take_constant(node: onnx.NodeProto, constants: Constants, name: str) -> bool:
    """Take the tensor of a Constant node among the constants; tell whether the node is one."""
    if node.op_type != "Constant" or node.domain not in CORE:
        return False
    if len(node.output) != 1 or len(node.attribute) != 1:
        raise FileFormatError(f"{name}: {describe(node)} must have one output and one attribute")
    target, attribute = node.output[0], node.attribute[0]
    if attribute.name == "value":
        constants.add(target, attribute.t)
    elif attribute.name == "sparse_value":
        constants.add_sparse(target, attribute.sparse_tensor)
    elif attribute.name in ("value_float", "value_floats", "value_int", "value_ints"):
        kind = np.float32 if "float" in attribute.name else np.int64
        constants.add_array(target, np.array(helper.get_attribute_value(attribute), kind))
    elif attribute.name in ("value_string", "value_strings"):
        constants.add_array(target, np.array(helper.get_attribute_value(attribute), object))
    else:
        raise FileFormatError(f"{name}: {describe(node)} has the attribute {attribute.name!r}, which no Constant has")
    return True


def _writers(
    nodes: list[onnx.NodeProto], graph: onnx.GraphProto, constants: Constants, name: str
) -> dict[str, onnx.NodeProto]:
    """Return the node that writes each tensor."""
    taken = {entry.name for entry in graph.input}
    writers: dict[str, onnx.NodeProto] = {}
    for node in nodes:
        for output in node.output:
            if not output:
                continue
            if output in writers or output in taken or output in constants:
                raise FileFormatError(
                    f"{name}: {describe(node)} writes {output!r}, which is another node's, an input or a constant"
                )
            writers[output] = node
    return writers


def _choose_output(
    graph: onnx.GraphProto, writers: dict[str, onnx.NodeProto], wanted: str | None, name: str
) -> tuple[str, onnx.NodeProto | None]:
    """Return the tensor of probabilities or values, and the ZipMap behind it if there is one."""
    if wanted is not None:
        if wanted not in writers:
            raise ValueError(f"{name}: output={wanted!r} must name a tensor that a node writes")
        named = writers[wanted]
        return (named.input[0], named) if named.op_type == "ZipMap" else (wanted, None)
    candidates: dict[str, onnx.NodeProto | None] = {}
    for entry in graph.output:
        node = writers.get(entry.name)
        if node is not None and node.op_type == "ZipMap" and node.input:
            candidates[node.input[0]] = node
        elif entry.type.tensor_type.elem_type in (*FLOATS, TensorProto.UNDEFINED) and not _is_label(node, writers):
            candidates.setdefault(entry.name, None)
    if len(candidates) == 1:
        return next(iter(candidates.items()))
    ends = ", ".join(repr(entry.name) for entry in graph.output)
    if candidates:
        raise ValueError(
            f"{name}: several of its outputs ({ends}) may hold the probabilities or values; name the one to read, "
            "output='...', or any other tensor in the graph"
        )
    raise ValueError(
        f"{name}: none of its outputs ({ends or 'none'}) holds probabilities or values; "
        "name a tensor in the graph that does, output='...'"
    )


def _is_label(node: onnx.NodeProto | None, writers: dict[str, onnx.NodeProto]) -> bool:
    for _ in range(len(_PASSING)):  # long enough a chain, and no endless one
        if node is None or node.op_type not in _PASSING or not node.input:
            break
        node = writers.get(node.input[0])
    return node is not None and node.op_type in LABELS


def _in_order(
    wanted: str, writers: dict[str, onnx.NodeProto], inputs: set[str], constants: Constants, name: str
) -> list[onnx.NodeProto]:
    """Return the nodes that the wanted tensor needs, in an order in which they can run."""
    ordered: list[onnx.NodeProto] = []
    done, open_ = set[int](), set[int]()
    stack: list[tuple[str, onnx.NodeProto | None]] = [(wanted, None)]
    while stack:
        tensor, leaving = stack.pop()
        if leaving is not None:
            open_.discard(id(leaving))
            done.add(id(leaving))
            ordered.append(leaving)
            continue
        if tensor in inputs or tensor in constants:
            continue
        if tensor not in writers:
            raise FileFormatError(f"{name}: nothing writes the tensor {tensor!r}, which is needed")
        node = writers[tensor]
        if id(node) in done:
            continue
        if id(node) in open_:
            raise FileFormatError(f"{name} has a cycle: {describe(node)} reads what depends on its own output")
        open_.add(id(node))
        stack.append((tensor, node))
        stack.extend((source, None) for source in reversed(node.input) if source)
    return ordered


def _class_names(proto: onnx.ModelProto, zip_map: onnx.NodeProto | None, constants: Constants) -> list[str] | None:
    """Return class names: of to_onnx's metadata, of a ZipMap, or of the constant that labels are picked from."""
    for entry in proto.metadata_props:
        if entry.key == "class_names":
            try:
                listed = json.loads(entry.value)
            except (ValueError, RecursionError):  # somebody else's own
                continue
            if isinstance(listed, list) and all(isinstance(value, str) for value in listed):
                return listed
    for attribute in () if zip_map is None else zip_map.attribute:
        if attribute.name in ("classlabels_strings", "classlabels_int64s"):
            values = attribute.strings or attribute.ints
            return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]
    for node in proto.graph.node:
        if node.op_type == "ArrayFeatureExtractor" and node.input and node.input[0] in constants:
            return [str(value) for value in constants[node.input[0]].reshape(-1)]
    return None
