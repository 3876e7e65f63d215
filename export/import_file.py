"""Reading an ONNX file that nobody vouches for: what it claims is checked before anything is made of it.

A file is data. Nothing in it is run, and nothing that it names is imported. Tensors are held against the bytes that are
there before memory is taken for them; data beside the file is read only from within the file's folder; and what is
handed on is a sorted list of nodes, without cycles, that onnx's checker has passed. The checker sees the nodes without
the constants' data: it would copy them.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from nbdense.files import FileFormatError

OLDEST_OPSET = 7  # older ones broadcast by other rules
MOST_NODES = 10_000  # that a graph may have: the deepest MLPs have hundreds
LARGEST_FILE = 2**31 - 1  # bytes: what protobuf can hold
LEAST_DENSE, MOST_ZEROS = 2**20, 1000  # sparse tensors may claim so many elements, or so many for each that they hold
CORE = ("", "ai.onnx")
ML = "ai.onnx.ml"

Array = npt.NDArray[Any]

# Element types that are read, the bits of one, and the field that holds them where they are not raw bytes.
_BITS = {
    **dict.fromkeys((TensorProto.INT8, TensorProto.UINT8, TensorProto.BOOL), 8),
    **dict.fromkeys((TensorProto.INT16, TensorProto.UINT16, TensorProto.FLOAT16, TensorProto.BFLOAT16), 16),
    **dict.fromkeys((TensorProto.INT32, TensorProto.UINT32, TensorProto.FLOAT), 32),
    **dict.fromkeys((TensorProto.INT64, TensorProto.UINT64, TensorProto.DOUBLE), 64),
    **{kind: 4 for kind in (getattr(TensorProto, name, None) for name in ("INT4", "UINT4")) if kind is not None},
}
_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, *_HALVES)
LABELS = {"ArgMax", "ArrayFeatureExtractor", "Binarizer", "LabelEncoder", "TopK"}  # what makes classes of numbers
_PASSING = {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"}  # what labels may go through


def describe(node: onnx.NodeProto) -> str:
    """What errors call a node: its operator, with its domain where it is not ONNX's own, and its name.

    Parameters
    ----------
    node : NodeProto
        The node.
    """
    operator = node.op_type if node.domain in CORE else f"{node.domain}.{node.op_type}"
    if node.name:
        return f"{operator} node {node.name!r}"
    return f"{operator} node that writes {next((name for name in node.output if name), '')!r}"


class Constants:
    """The tensors that a file holds, by name: checked when it is opened, read when they are first asked for.

    Parameters
    ----------
    name : str
        What errors call the file.
    folder : Path or None
        Where data beside the file may lie.
    """

    def __init__(self, name: str, folder: Path | None) -> None:
        self._name, self._folder = name, folder
        self._protos: dict[str, TensorProto] = {}
        self._arrays: dict[str, Array] = {}
        self._beside: dict[Path, int] = {}
        self._claimed = self._dense = self._sparse = 0
        self.half = False  # whether some have but half of float32's digits

    def __contains__(self, name: str) -> bool:
        return name in self._protos or name in self._arrays

    def __getitem__(self, name: str) -> Array:
        if name not in self._arrays:
            self._arrays[name] = self._read(self._protos[name])
        return self._arrays[name]

    def names(self) -> list[str]:
        """All of them."""
        return [*self._protos, *(name for name in self._arrays if name not in self._protos)]

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one, without reading it.

        Parameters
        ----------
        name : str
            The tensor's name.
        """
        return tuple(self._protos[name].dims) if name in self._protos else self._arrays[name].shape

    def add(self, name: str, tensor: TensorProto) -> None:
        """Take a tensor in, after holding its claims against the bytes that are there.

        Parameters
        ----------
        name : str
            What nodes call it.
        tensor : TensorProto
            The tensor.

        Raises
        ------
        FileFormatError
            If the name is empty or taken, or its bytes are missing.
        """
        if not name or name in self:
            raise FileFormatError(f"{self._name}: there are two tensors named {name!r}, or one without a name")
        self._check(name, tensor)
        self._protos[name] = tensor
        self.half |= tensor.data_type in _HALVES

    def add_array(self, name: str, array: Array) -> None:
        """Take in an array that was made of the file.

        Parameters
        ----------
        name : str
            What nodes call it.
        array : ndarray
            Its values.

        Raises
        ------
        FileFormatError
            If the name is empty or taken.
        """
        if not name or name in self:
            raise FileFormatError(f"{self._name}: there are two tensors named {name!r}, or one without a name")
        self._arrays[name] = array

    def add_sparse(self, name: str, sparse: onnx.SparseTensorProto) -> None:
        """Take in a sparse tensor, made dense.

        Parameters
        ----------
        name : str
            What nodes call it.
        sparse : SparseTensorProto
            Its values and where they stand.

        Raises
        ------
        FileFormatError
            If it claims far more elements than it has, or places outside its shape.
        """
        where, dims = f"{self._name}: sparse tensor {name!r}", tuple(sparse.dims)
        self._check(name, sparse.values)
        self._check(name, sparse.indices)
        values, places = self._read(sparse.values), self._read(sparse.indices).astype(np.int64)
        self._dense += 0 if any(n < 0 for n in dims) else math.prod(dims)
        self._sparse += values.size
        if any(n < 0 for n in dims) or self._dense > max(LEAST_DENSE, MOST_ZEROS * self._sparse):
            raise FileFormatError(f"{where} claims shape {list(dims)} and holds {values.size} values")
        if values.ndim != 1 or places.shape not in ((values.size,), (values.size, len(dims))):
            raise FileFormatError(f"{where}: its {values.size} values and {list(places.shape)} indices do not fit")
        bounds = math.prod(dims) if places.ndim == 1 else np.array(dims, np.int64)
        if (places < 0).any() or (places >= bounds).any():
            raise FileFormatError(f"{where} has values outside of its shape {list(dims)}")
        dense = np.zeros(dims, values.dtype)
        if places.ndim == 1:
            dense.reshape(-1)[places] = values
        else:
            dense[tuple(places.T)] = values
        self.add_array(name, dense)

    def _check(self, name: str, tensor: TensorProto) -> None:
        where = f"{self._name}: tensor {name!r}"
        if any(n < 0 for n in tensor.dims):
            raise FileFormatError(f"{where} has a negative dimension, {list(tensor.dims)}")
        elements = math.prod(tensor.dims)
        if tensor.data_type == TensorProto.STRING:
            if len(tensor.string_data) != elements:
                raise FileFormatError(f"{where} claims {elements} strings and holds {len(tensor.string_data)}")
            return
        if tensor.data_type not in _BITS:
            kinds = {number: kind for kind, number in TensorProto.DataType.items()}
            raise ValueError(f"{where} is of type {kinds.get(tensor.data_type, tensor.data_type)}, which is not read")
        wanted = (elements * _BITS[tensor.data_type] + 7) // 8
        if tensor.data_location == TensorProto.EXTERNAL:
            path, _ = self._locate(where, tensor, wanted)
            self._beside[path] = path.stat().st_size
            self._claimed += wanted
            if self._claimed > 2 * sum(self._beside.values()):  # the same bytes again and again
                raise FileFormatError(f"{where}: all tensors together claim more than the files beside the model hold")
        elif tensor.raw_data:
            if len(tensor.raw_data) != wanted:
                raise FileFormatError(
                    f"{where} claims shape {list(tensor.dims)}, {wanted} bytes, and holds {len(tensor.raw_data)}"
                )
        else:
            count = len(getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type)))
            if count != ((elements + 1) // 2 if _BITS[tensor.data_type] == 4 else elements):
                raise FileFormatError(f"{where} claims shape {list(tensor.dims)} and holds {count} numbers")

    def _locate(self, where: str, tensor: TensorProto, wanted: int) -> tuple[Path, int]:
        """File and offset of data beside the file: inside its folder, and long enough."""
        said = {entry.key: entry.value for entry in tensor.external_data}
        location = said.get("location", "")
        if self._folder is None:
            raise FileFormatError(f"{where} lies in a file beside the model's ({location!r}): give from_onnx the path")
        paths = PurePosixPath(location), PureWindowsPath(location)
        outside = any(path.is_absolute() or path.drive or path.root or ".." in path.parts for path in paths)
        folder = self._folder.resolve()
        path = (folder / location).resolve() if location and not outside and "\0" not in location else folder
        if path == folder or not path.is_relative_to(folder):
            raise FileFormatError(f"{where}: its data lies at {location!r}, which is not inside the model's folder")
        if not path.is_file():
            raise FileFormatError(f"{where}: its data file {location!r} is missing")
        size = path.stat().st_size
        numbers = [said.get("offset", "0"), said.get("length", str(wanted))]
        if not all(number.isascii() and number.isdigit() and len(number) < 20 for number in numbers):
            raise FileFormatError(f"{where}: offset and length of its data are {numbers}")
        offset, length = map(int, numbers)
        if length != wanted or offset + length > size:
            raise FileFormatError(
                f"{where} claims {wanted} bytes, as {length} from {offset} on in {location!r}, which holds {size}"
            )
        return path, offset

    def _read(self, tensor: TensorProto) -> Array:
        """As an array; what has half of float32's digits as float32."""
        if tensor.data_type == TensorProto.STRING:
            strings = [value.decode("utf-8", "replace") for value in tensor.string_data]
            return np.array(strings, object).reshape(tuple(tensor.dims))
        if tensor.data_location == TensorProto.EXTERNAL:
            wanted = (math.prod(tensor.dims) * _BITS[tensor.data_type] + 7) // 8
            path, offset = self._locate(f"{self._name}: tensor {tensor.name!r}", tensor, wanted)
            with path.open("rb") as file:
                file.seek(offset)
                content = file.read(wanted)
            filled = TensorProto(dims=tensor.dims, data_type=tensor.data_type, raw_data=content)
        else:
            filled = tensor
        try:
            array = numpy_helper.to_array(filled)
        except (TypeError, ValueError) as error:
            raise FileFormatError(f"{self._name}: tensor {tensor.name!r} cannot be read: {error}") from error
        if tensor.data_type in _HALVES:
            array = array.astype(np.float32)
        elif _BITS[tensor.data_type] == 4:
            array = array.astype(np.int8 if array.dtype.name == "int4" else np.uint8)
        return array


@dataclass(frozen=True)
class OnnxFile:
    """What there is to import of a file.

    Attributes
    ----------
    name : str
        What errors call it.
    opsets : dict of str to int
        By domain; ONNX's own is "".
    nodes : list of NodeProto
        Those that the output needs, each behind those that it reads.
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
        """Of ONNX's own operators."""
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
        raise ValueError(f"{name}: a network has one input that its output depends on, this one: {listed}")
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
        What was read.

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
    """Whether it is a Constant node; its tensor is among the constants then."""
    if node.op_type != "Constant" or node.domain not in CORE:
        return False
    if len(node.output) != 1 or len(node.attribute) != 1:
        raise FileFormatError(f"{name}: {describe(node)} needs one output and one attribute")
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
        raise FileFormatError(f"{name}: {describe(node)} has an attribute {attribute.name!r}")
    return True


def _writers(
    nodes: list[onnx.NodeProto], graph: onnx.GraphProto, constants: Constants, name: str
) -> dict[str, onnx.NodeProto]:
    """The node that writes each tensor."""
    taken = {entry.name for entry in graph.input}
    writers: dict[str, onnx.NodeProto] = {}
    for node in nodes:
        for output in node.output:
            if not output:
                continue
            if output in writers or output in taken or output in constants:
                raise FileFormatError(f"{name}: {describe(node)} writes {output!r}, which is there already")
            writers[output] = node
    return writers


def _choose_output(
    graph: onnx.GraphProto, writers: dict[str, onnx.NodeProto], wanted: str | None, name: str
) -> tuple[str, onnx.NodeProto | None]:
    """The tensor of probabilities or values, and the ZipMap behind it, if there is one."""
    if wanted is not None:
        if wanted not in writers:
            raise ValueError(f"{name}: there is no tensor {wanted!r} that a node writes")
        node = writers[wanted]
        return (node.input[0], node) if node.op_type == "ZipMap" else (wanted, None)
    found = {}
    for entry in graph.output:
        node = writers.get(entry.name)
        if node is not None and node.op_type == "ZipMap" and node.input:
            found[node.input[0]] = node
        elif entry.type.tensor_type.elem_type in (*FLOATS, TensorProto.UNDEFINED) and not _is_label(node, writers):
            found.setdefault(entry.name, None)
    if len(found) == 1:
        return next(iter(found.items()))
    ends = ", ".join(repr(entry.name) for entry in graph.output)
    if found:
        raise ValueError(
            f"{name}: which of its outputs {ends} holds the probabilities or values? Say it: output='...' "
            "takes the name of any tensor in the graph"
        )
    raise ValueError(
        f"{name}: none of its outputs ({ends or 'none'}) holds probabilities or values; "
        "output='...' takes the name of any tensor in the graph"
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
    """The nodes that the wanted tensor needs, each behind those that it reads."""
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
    """From the metadata that to_onnx writes, a ZipMap, or what picks the label out of a constant."""
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
