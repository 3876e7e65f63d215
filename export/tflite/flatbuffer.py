"""A model as the bytes of a TFLite file: the same bytes for the same model, in every process.

Slots are those of the schema's tables. Data is aligned to 16 bytes, which runtimes that map a file need.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np

from nbdense.export.tflite.schema import IDENTIFIER, KINDS, TYPES, VERSION, Operator, TfliteModel

_ALIGNMENT = 16


def serialize(model: TfliteModel, description: str) -> bytes:
    """Return the bytes of a model's file.

    Parameters
    ----------
    model : TfliteModel
        The model.
    description : str
        What the file says of itself.
    """
    size = sum(tensor.data.nbytes for tensor in model.tensors.values() if tensor.data is not None)
    return _Writer(model, flatbuffers.Builder(size + 256 * (len(model.tensors) + 8))).file(description)


class _Writer:
    """A file in the making: tables are written from the leaves to the root."""

    def __init__(self, model: TfliteModel, builder: Any) -> None:
        self._model, self._builder = model, builder
        self._numbers = {name: number for number, name in enumerate(model.tensors)}

    def file(self, description: str) -> bytes:
        model = self._model
        constants = [tensor.data for tensor in model.tensors.values() if tensor.data is not None]
        buffers = self._offsets([self._table([]), *(self._buffer(data) for data in constants)])
        codes = list(dict.fromkeys((operator.kind, model.version(operator)) for operator in model.operators))
        tensors = self._offsets(self._tensors())
        operators = self._offsets([self._operator(operator, codes) for operator in model.operators])
        ends = [self._numbers_vector([self._numbers[name]], np.int32) for name in (model.input, model.output)]
        name = self._builder.CreateString("main")
        graph = self._table(
            [
                ("UOffset", 0, tensors),
                ("UOffset", 1, ends[0]),
                ("UOffset", 2, ends[1]),
                ("UOffset", 3, operators),
                ("UOffset", 4, name),
            ]
        )
        known = self._offsets([self._code(*code) for code in codes])
        text = self._builder.CreateString(description)
        root = self._table(
            [
                ("Uint32", 0, VERSION),
                ("UOffset", 1, known),
                ("UOffset", 2, self._offsets([graph])),
                ("UOffset", 3, text),
                ("UOffset", 4, buffers),
            ]
        )
        self._builder.Finish(root, file_identifier=IDENTIFIER)
        return bytes(self._builder.Output())

    def _table(self, fields: Sequence[tuple[str, int, Any]]) -> int:
        """Write a table of (type, slot, value); values that are defaults are left out."""
        builder = self._builder
        builder.StartObject(1 + max((slot for _, slot, _ in fields), default=-1))
        for kind, slot, value in fields:
            if kind == "UOffset":
                builder.PrependUOffsetTRelativeSlot(slot, value, 0)
            else:
                getattr(builder, f"Prepend{kind}Slot")(slot, value, 0)
        return int(builder.EndObject())

    def _offsets(self, tables: Sequence[int]) -> int:
        self._builder.StartVector(4, len(tables), 4)
        for table in reversed(tables):
            self._builder.PrependUOffsetTRelative(table)
        return int(self._builder.EndVector())

    def _numbers_vector(self, values: Any, dtype: Any) -> int:
        return self._bytes(np.asarray(values, np.dtype(dtype).newbyteorder("<")), np.dtype(dtype).itemsize)

    def _bytes(self, values: Any, itemsize: int, alignment: int = 0) -> int:
        builder, data = self._builder, values.tobytes()
        builder.StartVector(itemsize, len(data) // itemsize, alignment or itemsize)
        builder.head -= len(data)
        builder.Bytes[builder.head : builder.head + len(data)] = data
        return int(builder.EndVector())

    def _buffer(self, data: Any) -> int:
        return self._table([("UOffset", 0, self._bytes(data.astype(data.dtype.newbyteorder("<")), 1, _ALIGNMENT))])

    def _tensors(self) -> list[int]:
        made, buffer = [], 0
        for tensor in self._model.tensors.values():
            buffer += tensor.data is not None
            shape = self._numbers_vector(tensor.shape, np.int32)
            fields = [("UOffset", 0, shape), ("Int8", 1, TYPES[tensor.dtype])]
            fields.append(("Uint32", 2, buffer if tensor.data is not None else 0))
            fields.append(("UOffset", 3, self._builder.CreateString(tensor.name)))
            if tensor.quantization is not None:
                fields.append(("UOffset", 4, self._quantization(tensor.quantization)))
            if tensor.first_is_batch:
                fields.append(("UOffset", 7, self._numbers_vector((-1, *tensor.shape[1:]), np.int32)))
            made.append(self._table(fields))
        return made

    def _quantization(self, quantization: Any) -> int:
        scales = self._numbers_vector(quantization.scales, np.float32)
        zero_points = self._numbers_vector(quantization.zero_points, np.int64)
        return self._table([("UOffset", 2, scales), ("UOffset", 3, zero_points), ("Int32", 6, quantization.axis)])

    def _operator(self, operator: Operator, codes: list[tuple[str, int]]) -> int:
        inputs = self._numbers_vector([self._numbers[name] for name in operator.inputs], np.int32)
        outputs = self._numbers_vector([self._numbers[operator.output]], np.int32)
        code = codes.index((operator.kind, self._model.version(operator)))
        fields = [("Uint32", 0, code), ("UOffset", 1, inputs), ("UOffset", 2, outputs)]
        kind = KINDS[operator.kind]
        if kind.options:
            given = [
                (type_, slot, operator.options[name])
                for slot, (name, type_) in enumerate(kind.fields)
                if name in operator.options
            ]
            fields += [("Uint8", 3, kind.options), ("UOffset", 4, self._table(given))]
        return self._table(fields)

    def _code(self, name: str, version: int) -> int:
        code = KINDS[name].code
        # The first field is a byte, which readers of before there were more than 127 operators look at.
        return self._table([("Int8", 0, min(code, 127)), ("Int32", 2, version), ("Int32", 3, code)])
