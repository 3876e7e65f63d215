"""A model's files on the disk: whole or not at all, also after a kill.

A new file is written without a name, where the system has such files (Linux), and gets its name when all of it is on
the disk: a process that is killed leaves nothing behind. Elsewhere it is written under a hidden name, which a kill may
leave, and renamed.

Of two files, the data is named first, then the model that refers to it. A data file's name holds its content's digest,
so that the old model keeps its own until the new one takes its place, and old data goes.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import onnx

from nbdense.export.graph import ALIGNMENT, serialize

_NO_NAME = getattr(os, "O_TMPFILE", 0)
_PIECE = 2**26  # bytes written at a time


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
        If the folder does not exist or cannot be written; the path is named.
    """

    def __init__(self, path: Path, content: Iterable[Any]) -> None:
        if not path.parent.is_dir():
            raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist")
        if path.is_dir():
            raise IsADirectoryError(f"cannot write {path}: it is a folder")
        self.path = path
        self._hidden: str | None = None
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
                if os.path.exists(f"/proc/self/fd/{handle}"):  # by which it gets its name
                    return handle
                os.close(handle)
        handle, self._hidden = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=folder)
        return handle

    def publish(self) -> None:
        """Give it its name, in the place of what has it now, whose permissions it takes.

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
                raise FileExistsError(f"cannot write {self.path}: there is a file {hidden}")
            self._hidden = str(hidden)
        os.close(self._handle)
        self._handle = -1
        os.chmod(self._hidden, _mode_of_new_files() if mode is None else mode)
        os.replace(self._hidden, self.path)
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
        """Let go of what has not been published."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        if self._hidden is not None:
            with suppress(OSError):
                os.unlink(self._hidden)
            self._hidden = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.discard()


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
    target = Path(path)
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
    """The name of the file that holds a model's constants; None if they are in its own.

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


def _mode_of_new_files() -> int:
    """mkstemp's are the owner's alone."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
