"""`from_tflite`: models of TFLite files."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from nbdense.export.importer import from_onnx
from nbdense.export.tflite.file import DamagedFileError, parse
from nbdense.export.tflite.translation import to_onnx_model
from nbdense.files import FileFormatError
from nbdense.quant.model.model import QuantizedModel
from nbdense.runtime.rounding import ROUNDINGS


def from_tflite(source: str | os.PathLike[str] | bytes, *, rounding: str = "tflite", quantized: str = "auto") -> Any:
    """Make a model of a TFLite file: one that `to_tflite` wrote, or another of dense layers.

    Float files become a Sequential that can be trained, pruned and quantized. Files of int8 (or uint8) integers become
    a QuantizedModel of the same integers. What layers are known by is what `nbdense.export.from_onnx` says: files go
    through the same rules.

    Parameters
    ----------
    source : path or bytes
        The file, or its content.
    rounding : str
        How accumulators of integers are requantised, which files do not say: "tflite" as LiteRT's reference kernels,
        "onnx" as its default ones, "ruy" as its optimised built-in ones, or "gemmlowp"; see `nbdense.quant.quantize`.
    quantized : {"auto", "float"}
        As for `nbdense.export.from_onnx`; "float" knows no tables of activations.

    Returns
    -------
    Sequential or QuantizedModel

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    nbdense.files.FileFormatError
        If it is damaged or truncated, or no TFLite file.
    ValueError
        For what no dense network does: an operator that is not taken, or not in this use; it is named.

    Examples
    --------
    >>> from nbdense.export import from_tflite, to_tflite
    >>> from nbdense.layers import Dense, Input
    >>> from nbdense.models import Sequential
    >>> content = to_tflite(Sequential([Input((4,)), Dense(8, "relu"), Dense(3, "softmax")]))
    >>> [(layer.units, layer.activation.name) for layer in from_tflite(content).layers]
    [(8, 'relu'), (3, 'softmax')]
    """
    if rounding not in ROUNDINGS:
        raise ValueError(f"from_tflite: rounding must be one of {', '.join(map(repr, ROUNDINGS))}, got {rounding!r}")
    if quantized not in ("auto", "float"):
        raise ValueError(f"from_tflite: quantized must be 'auto' or 'float', got {quantized!r}")
    content, name = (source, "the file") if isinstance(source, bytes) else (_read(source), str(source))
    try:
        model = from_onnx(to_onnx_model(parse(content)), quantized=quantized)
    except DamagedFileError as error:
        raise FileFormatError(f"{name} is damaged or truncated, or no TFLite file: {error}") from error
    except ValueError as error:
        said = str(error).replace("from_onnx: ", "").replace("the ONNX model", "the graph")
        raise ValueError(f"from_tflite: {name}: {said}") from error
    if isinstance(model, QuantizedModel):
        model = QuantizedModel(dataclasses.replace(model.network, rounding=rounding))
    return model


def _read(path: str | os.PathLike[str]) -> bytes:
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no TFLite file at {file}")
    return file.read_bytes()
