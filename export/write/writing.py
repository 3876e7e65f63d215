"""A model's files on the disk: whole or not at all, also after a kill.

Of two files, the data is named first, then the model that refers to it. A data file's name holds its content's digest,
so that the old model keeps its own until the new one takes its place, and old data goes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from nbdense.export.graph.builder import ALIGNMENT
from nbdense.export.graph.checks import serialize
from nbdense.files import StagedFile, path_of_file


def write_model(path: str | os.PathLike[str], model: onnx.ModelProto, outside: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write a model, and beside it the constants that it refers to.

    Parameters
    ----------
    path : path
        The model's file; replaced, in one step, if it exists.
    model : ModelProto
        The model.
    outside : mapping of str to ndarray
        Its constants that lie in a file beside it, in that file's order; empty if there are none.

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written; the path is named, and nothing has changed.
    """
    target = path_of_file(path)
    location = location_of(model)
    with ExitStack() as stack:
        data = None
        if location is not None:
            data = stack.enter_context(StagedFile(target.parent / location, _aligned(outside.values())))
        staged = stack.enter_context(StagedFile(target, [serialize(model)]))
        new = data is not None and not data.path.exists()
        try:
            if data is not None:
                data.publish()
            staged.publish()
        except BaseException:
            if data is not None and new:  # else the model that is there refers to it
                data.path.unlink(missing_ok=True)
            raise
    _remove_old_data(target, location)


def location_of(model: onnx.ModelProto) -> str | None:
    """Return the name of the file that holds a model's constants; None if they are in its own.

    Parameters
    ----------
    model : ModelProto
        The model.
    """
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                return str(entry.value)
    return None


def _aligned(arrays: Iterable[npt.NDArray[Any]]) -> Iterator[Any]:
    padding = b""
    for array in arrays:
        yield padding
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        padding = bytes(-array.nbytes % ALIGNMENT)


def _remove_old_data(path: Path, location: str | None) -> None:
    """Remove the data of models that had this path before."""
    name = re.compile(re.escape(path.name) + r"\.[0-9a-f]{16}\.data")
    for entry in path.parent.iterdir():
        if name.fullmatch(entry.name) and entry.name != location:
            with suppress(OSError):
                entry.unlink()
