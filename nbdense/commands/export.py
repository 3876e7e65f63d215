"""`nbdense export`: a model file as ONNX, C, an object file or a package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class ExportError(Exception):
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
    """

    write: Callable[[Any, Path, dict[str, Any]], None]
    suffix: str
    title: str


def _onnx(model: Any, path: Path, options: dict[str, Any]) -> None:
    from nbdense.export import to_onnx

    to_onnx(model, path)


def _c(function: str) -> Callable[[Any, Path, dict[str, Any]], None]:
    def write(model: Any, path: Path, options: dict[str, Any]) -> None:
        from nbdense import export

        getattr(export, function)(model, path, **options)

    return write


FORMS = {
    "onnx": Form(_onnx, ".onnx", "an ONNX file"),
    "c": Form(_c("to_c"), ".c", "C99 and its header"),
    "object": Form(_c("to_object"), ".o", "an object file, or a WebAssembly module"),
    "arduino": Form(_c("to_arduino"), "", "an Arduino library"),
    "zephyr": Form(_c("to_zephyr"), "", "a Zephyr module"),
    "cmake": Form(_c("to_cmake"), "", "a CMake target"),
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
    from nbdense.models import load_model

    row = FORMS[form]
    suffix = ".wasm" if form == "object" and target == "wasm32" else row.suffix
    path = out if out is not None else Path(model.stem + suffix)
    given = {key: value for key, value in (("name", name), ("target", target)) if value is not None}
    if form == "onnx" and given:
        raise ExportError(f"an ONNX file has no --{next(iter(given))}")
    if form == "object" and target is None:
        raise ExportError("an object file needs its processor: --target cortex-m4, for instance")
    try:
        row.write(load_model(model), path, given)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise ExportError(str(error)) from error
    return path
