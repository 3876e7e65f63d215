"""A TFLite file that nobody vouches for, as a model in plain data.

Every offset and every length is held against the bytes that there are, before anything is made of them. Readers that
FlatBuffers generates don't: they raise whatever comes, or read what lies elsewhere.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.export.tflite.schema import (
    IDENTIFIER,
    KIND_NAMES,
    KINDS,
    TYPES,
    VERSION,
    Operator,
    Quantization,
    Tensor,
    TfliteModel,
)

_FORMATS = {"Int8": "<b", "Uint8": "<B", "Bool": "<?", "Int32": "<i", "Uint32": "<I", "Float32": "<f"}
_DTYPES = {code: name for name, code in TYPES.items()}
_MOST_BYTES = 2**20  # of constants that several tensors share, beyond those of the file


class DamagedFileError(ValueError):
    """Error of a file with an offset or a length that leads out of it."""


class _Table:
    """A table of a file: its fields by slot."""

    def __init__(self, content: bytes, position: int) -> None:
        self._content, self._position = content, position
        self._slots = position - _number(content, position, "<i")
        self._size = _number(content, self._slots, "<H")

    def _field(self, slot: int) -> int:
        """Return where a field lies; 0 where it is left out."""
        entry = 4 + 2 * slot
        offset = _number(self._content, self._slots + entry, "<H") if entry + 2 <= self._size else 0
        return self._position + offset if offset else 0

    def number(self, kind: str, slot: int, default: Any = 0) -> Any:
        """Return a number."""
        at = self._field(slot)
        return _number(self._content, at, _FORMATS[kind]) if at else default

    def table(self, slot: int) -> _Table | None:
        """Return a table; None where it is left out."""
        at = self._field(slot)
        return _Table(self._content, at + _number(self._content, at, "<I")) if at else None

    def _vector(self, slot: int, itemsize: int) -> tuple[int, int]:
        """Return where a vector begins, and how many elements it has."""
        at = self._field(slot)
        if not at:
            return 0, 0
        start = at + _number(self._content, at, "<I")
        count = _number(self._content, start, "<I")
        if start + 4 + count * itemsize > len(self._content):
            raise DamagedFileError(f"it claims {count:,} elements at byte {start}, more than it holds")
        return start + 4, count

    def array(self, slot: int, dtype: str) -> npt.NDArray[Any]:
        """Return a vector of numbers."""
        kind = np.dtype(dtype).newbyteorder("<")
        start, count = self._vector(slot, kind.itemsize)
        return np.frombuffer(self._content, kind, count, start) if count else np.zeros(0, kind)

    def text(self, slot: int) -> str:
        """Return a text."""
        return self.array(slot, "uint8").tobytes().decode("utf-8", "replace")

    def tables(self, slot: int) -> Iterator[_Table]:
        """Yield the tables of a vector."""
        start, count = self._vector(slot, 4)
        for at in range(start, start + 4 * count, 4):
            yield _Table(self._content, at + _number(self._content, at, "<I"))


def _number(content: bytes, at: int, form: str) -> Any:
    if at < 0 or at + struct.calcsize(form) > len(content):
        raise DamagedFileError(f"it points to byte {at}, which it does not have")
    return struct.unpack_from(form, content, at)[0]


def parse(content: bytes) -> TfliteModel:
    """Return the model in a file's content.

    Parameters
    ----------
    content : bytes
        The content.

    Raises
    ------
    DamagedFileError
        If it is no TFLite file, or damaged.
    ValueError
        If it has several graphs, inputs or outputs, or an operator or a type that dense networks do not have; it is
        named.
    """
    if content[4:8] != IDENTIFIER:
        raise DamagedFileError(f"it does not begin as a TFLite file does, with {IDENTIFIER.decode()} at byte 4")
    root = _Table(content, _number(content, 0, "<I"))
    if (version := root.number("Uint32", 0)) != VERSION:
        raise DamagedFileError(f"it is of version {version} of the format, expected {VERSION}")
    graphs = list(root.tables(2))
    if len(graphs) != 1:
        raise ValueError(f"it has {len(graphs)} graphs, expected one")
    codes = [max(table.number("Int8", 0), table.number("Int32", 3)) for table in root.tables(1)]
    buffers = list(root.tables(4))
    tensors = list(_tensors(graphs[0], buffers, len(content)))
    ends = [_names(graphs[0].array(slot, "int32"), tensors) for slot in (1, 2)]
    for which, names in zip(("inputs", "outputs"), ends, strict=True):
        if len(names) != 1 or not names[0]:
            raise ValueError(f"it has {len(names)} {which}, expected one")
    operators = [_operator(table, codes, tensors) for table in graphs[0].tables(3)]
    return TfliteModel({tensor.name: tensor for tensor in tensors}, operators, ends[0][0], ends[1][0])


def _tensors(graph: _Table, buffers: list[_Table], size: int) -> Iterator[Tensor]:
    """Yield the tensors, under names that no two of them have."""
    held = 0
    for number, table in enumerate(graph.tables(0)):
        shape = tuple(int(n) for n in table.array(0, "int32"))
        code, buffer = table.number("Int8", 1), table.number("Uint32", 2)
        dtype = _DTYPES.get(code, f"type {code}")
        name = f"{number}:{table.text(3)}"
        if buffer >= len(buffers):
            raise DamagedFileError(f"tensor {name!r} has the buffer {buffer} of {len(buffers)}")
        data = buffers[buffer].array(0, "uint8")
        value = None
        if data.size:
            held += data.size
            if held > size + _MOST_BYTES:
                raise DamagedFileError("its tensors hold more than the file")
            value = _value(name, data, shape, dtype)
        signature = table.array(7, "int32")
        first = bool(signature.size and signature[0] == -1) or shape[:1] == (1,)
        yield Tensor(name, shape, dtype, value, _quantization(table.table(4), name), first and value is None)


def _value(name: str, data: npt.NDArray[np.uint8], shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
    if dtype not in TYPES:
        raise ValueError(f"tensor {name!r} is a constant of {dtype}; those of {', '.join(TYPES)} are taken")
    kind = np.dtype(dtype).newbyteorder("<")
    if any(size < 0 for size in shape) or data.size != math.prod(shape) * kind.itemsize:
        raise DamagedFileError(f"tensor {name!r} of shape {shape} has {data.size:,} bytes")
    return data.view(kind).reshape(shape).astype(dtype)


def _quantization(table: _Table | None, name: str) -> Quantization | None:
    if table is None:
        return None
    scales, zero_points = table.array(2, "float32"), table.array(3, "int64")
    if not scales.size:
        return None
    if table.number("Uint8", 4):
        raise ValueError(f"tensor {name!r} is quantized in a way of its own")
    if zero_points.size not in (0, 1, scales.size):
        raise DamagedFileError(f"tensor {name!r} has {scales.size} scales and {zero_points.size} zero points")
    zeros = zero_points if zero_points.size else np.zeros(1, np.int64)
    axis = table.number("Int32", 6)
    return Quantization(scales.astype(np.float32), np.broadcast_to(zeros, scales.shape).astype(np.int64), axis)


def _names(numbers: npt.NDArray[Any], tensors: list[Tensor]) -> list[str]:
    if ((numbers < -1) | (numbers >= len(tensors))).any():
        raise DamagedFileError(f"it names the tensors {numbers.tolist()} of {len(tensors)}")
    return [tensors[number].name if number >= 0 else "" for number in numbers]


def _operator(table: _Table, codes: list[int], tensors: list[Tensor]) -> Operator:
    index = table.number("Uint32", 0)
    if index >= len(codes):
        raise DamagedFileError(f"it names the operator {index} of {len(codes)}")
    kind = KIND_NAMES.get(codes[index])
    inputs, outputs = (_names(table.array(slot, "int32"), tensors) for slot in (1, 2))
    if kind is None:
        raise ValueError(
            f"the operator of code {codes[index]}, which makes {', '.join(outputs)}, is none that dense networks have"
        )
    if len(outputs) != 1 or not outputs[0] or not inputs or not inputs[0]:
        raise ValueError(f"the {kind} that makes {', '.join(outputs)} has {len(inputs)} inputs, {len(outputs)} outputs")
    options, fields = table.table(4), KINDS[kind].fields
    if fields and options is not None and table.number("Uint8", 3) != KINDS[kind].options:
        raise DamagedFileError(f"the {kind} that makes {outputs[0]!r} has another operator's options")
    given = {} if options is None else {name: options.number(type_, slot) for slot, (name, type_) in enumerate(fields)}
    return Operator(kind, inputs, outputs[0], given)
