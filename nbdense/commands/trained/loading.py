"""Data for a trained pipeline, and models of any kind, read from what a command line names."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from nbdense.commands.errors import CommandError
from nbdense.commands.tables.reading import read_table
from nbdense.commands.tables.schema import Schema


def read_for(schema: Schema, data: Path, drop: Collection[str] = (), separator: str | None = None) -> Any:
    """Read a table as a pipeline's columns want it.

    Parameters
    ----------
    schema : Schema
        The columns.
    data : Path
        The file.
    drop : collection of str
        Columns that are left out.
    separator : str, optional
        What stands between the cells of a CSV file.

    Raises
    ------
    CommandError
        If the file will not do, or a column to be left out is not there or is read.
    """
    text = [*schema.names("text"), *([schema.target] if schema.labels == "text" else [])]
    table = read_table(data, separator, text)
    for name in drop:
        if name not in table.columns:
            raise CommandError(f"{data} has no column {name!r} to drop")
    return table.drop(columns=list(drop))


def load_any(path: Path) -> Any:
    """Return the network of a trained folder, or the model of a file: nbdense's own, ONNX or TFLite.

    Parameters
    ----------
    path : Path
        The folder or the file.

    Raises
    ------
    CommandError
        If there is none.
    FileFormatError, ValueError
        If it is damaged, or does what no network of nbdense's does.
    """
    from nbdense.commands.trained.folder import TrainedFolder, is_trained

    if is_trained(path):
        return TrainedFolder.open(path).network
    if path.is_dir():
        raise CommandError(f"no model at {path}: it is a folder that `nbdense train` did not write")
    if not path.is_file():
        raise CommandError(f"no model file at {path}")
    if path.suffix.lower() == ".onnx":
        from nbdense.export import from_onnx

        return from_onnx(path)
    if path.suffix.lower() == ".tflite":
        from nbdense.export import from_tflite

        return from_tflite(path)
    from nbdense.models import load_model

    return load_model(path)
