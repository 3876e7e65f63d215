"""Model files: safetensors with the architecture as JSON in its metadata, written atomically.

A new file is written without a name, where the system has such files (Linux), and gets its name when all of it is on
the disk: a process that is killed leaves nothing behind. Elsewhere it is written under a hidden name, which a kill may
leave, and renamed.

Loading reads numbers and JSON only: nothing that a file names is imported or run. Every claim of a file is checked
against its size before memory is allocated for it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from nbdense._warn import warn

FORMAT_VERSION = 2
_NO_NAME = getattr(os, "O_TMPFILE", 0)
_PIECE = 2**26  # bytes written at a time
# Suffixes of formats that are not what is written
_REFUSED = {
    ".onnx": "nbdense.export.to_onnx(model, path)",
    ".tflite": "nbdense.export.to_tflite(model, path)",
}
_MISLEADING = (".keras", ".h5", ".hdf5")


class FileFormatError(ValueError):
    """A file that is no model file of ours, is damaged, or is of a newer format."""


def atomic_write(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file in one step: after a kill at any moment there is the old file or the new one, whole.

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written; the path is named.
    """
    with StagedFile(path_of_file(path), [content]) as file:
        file.publish()


def path_of_file(path: str | os.PathLike[str]) -> Path:
    """Return the path that a file is to be written to.

    Raises
    ------
    IsADirectoryError
        If it ends as a folder's does: a Path would forget that, and the file would get the folder's name.
    """
    if os.fspath(path).endswith(("/", os.sep)):
        raise IsADirectoryError(f"cannot write {path}: it is a folder's path; add the file's name")
    return Path(path)


class StagedFile:
    """A file's new content, whole on the disk, not yet under its name. A context manager: what was not published goes.

    Parameters
    ----------
    path : Path
        What it shall be called.
    content : iterable of bytes-like
        What it shall hold, one piece after the other.

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written, or a folder, device or pipe has the name; the path is named.
    """

    def __init__(self, path: Path, content: Iterable[Any]) -> None:
        if not path.parent.is_dir():
            raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist")
        if path.is_dir():
            raise IsADirectoryError(f"cannot write {path}: it is a folder")
        if path.exists() and not path.is_file():  # whose place a file would take: for all, where the user may do that
            raise OSError(f"cannot write {path}: it is a device or a pipe; give a file's path")
        self.path = path
        self._hidden: Path | None = None
        try:
            self._handle = self._open()
        except OSError as error:
            raise OSError(error.errno, f"cannot write {path}: {error.strerror}") from error
        try:
            for piece in content:
                view = memoryview(piece).cast("B")
                while len(view):
                    view = view[os.write(self._handle, view[:_PIECE]) :]
            os.fsync(self._handle)
        except BaseException:
            self.discard()
            raise

    def _open(self) -> int:
        folder = self.path.parent
        if _NO_NAME:
            with suppress(OSError):  # this file system has no files without a name
                handle = os.open(folder, _NO_NAME | os.O_WRONLY, 0o666)
                # It gets its name by this. Path.exists raises where /proc may not be read.
                if os.path.exists(f"/proc/self/fd/{handle}"):  # noqa: PTH110
                    return handle
                os.close(handle)
        handle, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=folder)
        self._hidden = Path(name)
        return handle

    def publish(self) -> None:
        """Give the file its name, in the place of the one that has it now, whose permissions it takes.

        Raises
        ------
        OSError
            If that cannot be done.
        """
        mode = self.path.stat().st_mode & 0o777 if self.path.exists() else None
        if self._hidden is None:
            if mode is None and self._link(self.path):
                self.discard()
                return
            hidden = self.path.parent / f".{self.path.name}.{secrets.token_hex(4)}"
            if not self._link(hidden):
                raise FileExistsError(f"cannot write {self.path}: its temporary file {hidden} exists already")
            self._hidden = hidden
        os.close(self._handle)
        self._handle = -1
        self._hidden.chmod(_mode_of_new_files() if mode is None else mode)
        self._hidden.replace(self.path)
        self._hidden = None

    def _link(self, path: Path) -> bool:
        """Name the nameless file; False if something has that name."""
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.link(f"/proc/self/fd/{self._handle}", path.name, dst_dir_fd=folder, follow_symlinks=True)
        except FileExistsError:
            return False
        finally:
            os.close(folder)
        return True

    def discard(self) -> None:
        """Delete the file if it has not been published."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        if self._hidden is not None:
            with suppress(OSError):
                self._hidden.unlink()
            self._hidden = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.discard()


def _mode_of_new_files() -> int:
    """Return the permissions of new files: those of mkstemp's are the owner's alone."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def write_model(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a model file, whose path does not promise another format.

    Parameters
    ----------
    path : path
        The file; replaced if it exists. Suffixes that Keras's snippets have are taken, with a warning.
    content : bytes
        Its content.

    Raises
    ------
    ValueError
        If the path has the suffix of another format, such as ".onnx".
    """
    suffix = Path(path).suffix.lower()
    if suffix in _REFUSED:
        raise ValueError(f"{path}: model files are safetensors; for {suffix} use {_REFUSED[suffix]}")
    if suffix in _MISLEADING:
        warn(f"{path}: model files are safetensors whatever the suffix; Keras cannot read this one")
    atomic_write(path, content)


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

    Raises
    ------
    ValueError
        If the path has the suffix of another format, such as ".onnx".
    """
    write_model(path, tensor_bytes(kind, config, tensors))


def tensor_bytes(kind: str, config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Return the content of the file that `write_tensors` writes, whose parameters these are."""
    from safetensors.numpy import save

    metadata = {
        "format": f"nbdense {kind}",
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(config, sort_keys=True),
    }
    content = save({name: np.ascontiguousarray(value) for name, value in tensors.items()}, metadata)
    return _with_sorted_header(content)


def _with_sorted_header(content: bytes) -> bytes:
    """Sort the keys in a safetensors file's header: the library writes its metadata in another order each time."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors stay aligned
    return len(header).to_bytes(8, "little") + header + content[start:]


# How files begin that are taken for model files; what they are, and what to do. Our own begin with a header's length.
_OURS = "nbdense reads its own files, and ONNX by from_onnx"
_OTHERS = (
    (rb"PK\x03\x04", "a zip archive, as Keras, torch and NumPy write", _OURS),
    (rb"\x89HDF", "an HDF5 file, as Keras writes", _OURS),
    (rb"\x80[\x04\x05]\x95|\x80\x02\x8a", "a pickle", "nbdense reads none, for that would run what it says"),
    (rb"\x08[\x01-\x20][\x12\x3a\x42]", "an ONNX model", "read it with nbdense.export.from_onnx"),
    (rb".{4}TFL3", "a TFLite model", "read it with nbdense.export.from_tflite"),
)


def _what_else(path: Path) -> str:
    """Say what a file is that is no model file of ours; "" where that does not show."""
    with suppress(OSError), path.open("rb") as file:
        start = file.read(8)
        for pattern, what, advice in _OTHERS:
            if re.match(pattern, start, re.DOTALL):
                return f"{path} is {what}: {advice}"
    return ""


def _from_format_1(entries: dict[str, Any]) -> dict[str, Any]:
    """Rename what format 1 called otherwise: "tflite" was the rounding that is "gemmlowp" now."""
    return entries | {"rounding": "gemmlowp"} if entries.get("rounding") == "tflite" else entries


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
            names = self._file.keys()
            self.shapes = {name: tuple(self._file.get_slice(name).get_shape()) for name in names}
        except (SafetensorError, OSError, ValueError) as error:
            what = _what_else(self.path) or f"{self.path} is damaged or truncated, or no model file: {error}"
            raise FileFormatError(what) from error
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
        self.upgrade = _from_format_1 if int(version) < 2 else None  # of each object that a description holds
        try:
            self.config: dict[str, Any] = json.loads(metadata["config"], object_hook=self.upgrade)
            if not isinstance(self.config, dict):
                raise ValueError("its description is not an object")
        except (KeyError, ValueError) as error:
            raise FileFormatError(f"{self.path}: its description cannot be read: {error}") from error

    def read(self, name: str, shape: tuple[int, ...] | None = None) -> npt.NDArray[Any]:
        """Read one array; with ``shape``, after checking that it has that.

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


def pack_nibbles(kernel: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Pack weights of four bits, two a byte.

    Those of input 2 i are in the low nibbles, those of input 2 i + 1 in the high ones, in two's complement.

    Parameters
    ----------
    kernel : ndarray of int8, (n_in, n_out)
        Integers in [-8, 7].
    """
    n_in, n_out = kernel.shape
    padded = np.zeros((n_in + n_in % 2, n_out), np.uint8)
    padded[:n_in] = kernel.view(np.uint8) & 15
    return padded[::2] | padded[1::2] << np.uint8(4)


def unpack_nibbles(packed: npt.NDArray[np.uint8], n_in: int) -> npt.NDArray[np.int8]:
    """Unpack what `pack_nibbles` packed.

    Parameters
    ----------
    packed : ndarray of uint8, ((n_in + 1) / 2, n_out)
        Two weights a byte.
    n_in : int
        Inputs.

    Raises
    ------
    ValueError
        If that is not what the array holds.
    """
    if packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[0] != -(-n_in // 2):
        raise ValueError(f"kernel_int4 must be uint8 ({-(-n_in // 2)}, n_out), got {packed.dtype} {packed.shape}")
    kernel = np.empty((2 * packed.shape[0], packed.shape[1]), np.int8)
    kernel[::2], kernel[1::2] = (packed << np.uint8(4)).view(np.int8) >> 4, packed.view(np.int8) >> 4
    return kernel[:n_in]
