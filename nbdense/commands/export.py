"""`nbdense export`: a model file as ONNX, TFLite, C, an object file or a package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbdense.commands.errors import CommandError


class ExportError(CommandError):
    """A mistake that the user can put right."""


@dataclass(frozen=True)
class Form:
    """A form that a model is exported in.

    Attributes
    ----------
    write : callable
        ``(model, path, options)``.
    suffix : str
        Of the file that is written by default, beside the model's.
    title : str
        What it is, for help.
    of_c : bool
        Whether it is of C, which has names of functions and a processor.
    """

    write: Callable[[Any, Path, dict[str, Any]], None]
    suffix: str
    title: str
    of_c: bool = True


def _by(function: str) -> Callable[[Any, Path, dict[str, Any]], None]:
    def write(model: Any, path: Path, options: dict[str, Any]) -> None:
        from nbdense import export

        getattr(export, function)(model, path, **options)

    return write


FORMS = {
    "onnx": Form(_by("to_onnx"), ".onnx", "an ONNX file", of_c=False),
    "tflite": Form(_by("to_tflite"), ".tflite", "a TFLite file", of_c=False),
    "c": Form(_by("to_c"), ".c", "C99 and its header"),
    "object": Form(_by("to_object"), ".o", "an object file, or a WebAssembly module"),
    "arduino": Form(_by("to_arduino"), "", "an Arduino library"),
    "zephyr": Form(_by("to_zephyr"), "", "a Zephyr module"),
    "cmake": Form(_by("to_cmake"), "", "a CMake target"),
}


def run(model: Path, form: str, out: Path | None, name: str | None, target: str | None) -> Path:
    """Export a model file; return what was written.

    Parameters
    ----------
    model : Path
        The model file.
    form : str
        A key of FORMS.
    out : Path, optional
        What to write; by default what is called like the model, in the present folder.
    name : str, optional
        What C functions begin with.
    target : str, optional
        The processor.

    Raises
    ------
    ExportError
        If the model cannot be read or has no such form.
    """
    from nbdense.commands.trained.loading import load_any

    row = FORMS[form]
    suffix = ".wasm" if form == "object" and target == "wasm32" else row.suffix
    path = out if out is not None else Path(model.stem + suffix)
    given = {key: value for key, value in (("name", name), ("target", target)) if value is not None}
    if given and not row.of_c:
        raise ExportError(f"{row.title} has no --{next(iter(given))}")
    if form == "object" and target is None:
        raise ExportError("an object file needs its processor: --target cortex-m4, for instance")
    try:
        row.write(load_any(model), path, given)
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ExportError(str(error)) from error
    return path
