"""The bytes of a finished graph, and onnx's own checks of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx


def serialize(model: onnx.ModelProto) -> bytes:
    """Return the bytes of the file: equal for equal models.

    Parameters
    ----------
    model : ModelProto
        The model.
    """
    return bytes(model.SerializeToString(deterministic=True))


def check(model: onnx.ModelProto, name: str, outside: Mapping[str, npt.NDArray[Any]] | None = None) -> None:
    """Run onnx's full checker, and shape inference, strict and with data propagation.

    Parameters
    ----------
    model : ModelProto
        The model.
    name : str
        Its name for the error.
    outside : mapping of str to ndarray, optional
        Its tensors that lie in a file beside it, which need not be there yet.

    Raises
    ------
    ValueError
        If it is no valid model, with the checker's reason.
    """
    with _refused(name):
        if outside:
            _check_with_a_file_beside(model)
        else:
            onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


def check_file(path: str | os.PathLike[str]) -> None:
    """Run `check` on a file, and on the file beside it.

    Parameters
    ----------
    path : path
        The file.

    Raises
    ------
    ValueError
        If it is no valid model, with the checker's reason.
    """
    with _refused(str(path)):
        onnx.checker.check_model(str(path), full_check=True)
        model = onnx.load_model(str(path), load_external_data=False)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


@contextmanager
def _refused(name: str) -> Iterator[None]:
    try:
        yield
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, TypeError, ValueError) as error:
        raise ValueError(f"{name} is not a valid ONNX model: {error}") from error


def _check_with_a_file_beside(model: onnx.ModelProto) -> None:
    """Run the checker in a folder of its own, beside a file that has the right size and holds nothing."""
    sizes: dict[str, int] = {}
    for tensor in model.graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if entries:
            end = int(entries["offset"]) + int(entries["length"])
            sizes[entries["location"]] = max(end, sizes.get(entries["location"], 0))
    with tempfile.TemporaryDirectory() as folder:
        for location, size in sizes.items():
            (Path(folder) / location).touch()
            os.truncate(Path(folder) / location, size)
        path = Path(folder) / "model.onnx"
        path.write_bytes(serialize(model))
        onnx.checker.check_model(str(path), full_check=True)
