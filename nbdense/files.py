"""Model files: safetensors with the architecture as JSON in its metadata, written atomically.

Loading reads numbers and JSON only: nothing that a file names is imported or run. Every claim of a file is checked
against its size before memory is allocated for it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FORMAT_VERSION = 1


class FileFormatError(ValueError):
    """A file that is no model file of ours, is damaged, or is of a newer format."""


def atomic_write(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file in one step: after a kill at any moment there is the old file or the new one, whole.

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written; the path is named.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {target}: the folder {target.parent} does not exist")
    if target.is_dir():
        raise IsADirectoryError(f"cannot write {target}: it is a folder")
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {target}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode_of(target))
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def _mode_of(target: Path) -> int:
    """The permissions that the file has, or that a new one gets (mkstemp's are the owner's alone)."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def write_tensors(
    path: str | os.PathLike[str], kind: str, config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Write named arrays and a JSON-able description as one safetensors file.

    Parameters
    ----------
    path : path
        The file; replaced if it exists.
    kind : str
        What the file holds, such as "model"; checked on reading.
    config : mapping
        Description, JSON-able.
    tensors : mapping of str to ndarray
        The arrays.
    """
    from safetensors.numpy import save

    metadata = {
        "format": f"nbdense {kind}",
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(config, sort_keys=True),
    }
    content = save({name: np.ascontiguousarray(value) for name, value in tensors.items()}, metadata)
    atomic_write(path, _with_sorted_header(content))


def _with_sorted_header(content: bytes) -> bytes:
    """The same safetensors file with its header's keys in order: the library's metadata is in another each time."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors stay aligned
    return len(header).to_bytes(8, "little") + header + content[start:]


class TensorFile:
    """A safetensors file, opened: its description and its arrays' shapes are known, its arrays are read on demand.

    Parameters
    ----------
    path : path
        The file.

    Raises
    ------
    FileNotFoundError
        If there is none.
    FileFormatError
        If it is damaged, truncated, no file of ours, or of a newer format.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"no model file at {self.path}")
        try:
            self._file = safe_open(self.path, framework="numpy")
            metadata = self._file.metadata() or {}
            self.shapes = {name: tuple(self._file.get_slice(name).get_shape()) for name in self._file.keys()}
        except (SafetensorError, OSError, ValueError) as error:
            raise FileFormatError(f"{self.path} is damaged or truncated, or no model file: {error}") from error
        if not metadata.get("format", "").startswith("nbdense "):
            raise FileFormatError(f"{self.path} is a safetensors file, but not one that nbdense wrote")
        self.kind = metadata["format"].removeprefix("nbdense ")
        version = metadata.get("format_version", "")
        if not version.isdigit():
            raise FileFormatError(f"{self.path}: format_version is {version!r}, not a number")
        if int(version) > FORMAT_VERSION:
            raise FileFormatError(
                f"{self.path} is of format {version}; this nbdense reads up to {FORMAT_VERSION}: upgrade nbdense"
            )
        try:
            self.config: dict[str, Any] = json.loads(metadata["config"])
            if not isinstance(self.config, dict):
                raise ValueError("its description is not an object")
        except (KeyError, ValueError) as error:
            raise FileFormatError(f"{self.path}: its description cannot be read: {error}") from error

    def read(self, name: str, shape: tuple[int, ...] | None = None) -> npt.NDArray[Any]:
        """One array; with ``shape``, after checking that it has that.

        Raises
        ------
        FileFormatError
            If there is none of that name, its shape differs, or it holds no numbers.
        """
        self.check(name, shape)
        try:
            return self._file.get_tensor(name)
        except Exception as error:  # the reader has no one error class for a type that NumPy lacks
            raise FileFormatError(f"{self.path}: tensor {name!r} cannot be read: {error}") from error

    def check(self, name: str, shape: tuple[int, ...] | None = None) -> None:
        """Raise FileFormatError unless there is an array of that name (and shape); nothing is read."""
        if name not in self.shapes:
            raise FileFormatError(f"{self.path}: tensor {name!r} is missing")
        if shape is not None and self.shapes[name] != tuple(shape):
            raise FileFormatError(
                f"{self.path}: tensor {name!r} has shape {self.shapes[name]}, expected {tuple(shape)}"
            )
