"""The folder that `train` writes: read whole and checked, and written all or nothing."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbdense.commands.errors import CommandError, writing
from nbdense.commands.tables.json_text import json_text
from nbdense.commands.tables.schema import Schema
from nbdense.commands.trained.names import METRICS, NETWORK, PIPELINE, SCHEMA
from nbdense.commands.trained.pipelines import load_pipeline, pipeline_bytes


@dataclass(frozen=True)
class TrainedFolder:
    """The content of a folder that `train`, `quantize` or `prune` wrote.

    Attributes
    ----------
    path : Path
        The folder.
    schema : Schema
        What the pipeline reads and predicts.
    pipeline : Pipeline
        Fitted; its last step holds the network as ``model_``.
    metrics : dict
        What metrics.json says.
    """

    path: Path
    schema: Schema
    pipeline: Any
    metrics: dict[str, Any]

    @property
    def network(self) -> Any:
        """The network, a Sequential or a QuantizedModel."""
        return self.pipeline.steps[-1][1].model_

    @classmethod
    def open(cls, path: Path) -> TrainedFolder:
        """Read a folder.

        Parameters
        ----------
        path : Path
            The folder, or the pipeline's file in it.

        Raises
        ------
        CommandError
            If it is not there, no such folder, or damaged.
        """
        folder = path.parent if path.name == PIPELINE else path
        if not is_trained(folder):
            raise CommandError(
                f"no model at {path}: expected a folder that `nbdense train` wrote"
                + (f", but it lacks {SCHEMA}" if folder.is_dir() else "")
            )
        try:
            schema = Schema.from_config(_read_json(folder / SCHEMA))
        except ValueError as error:
            raise CommandError(f"{folder / SCHEMA} is damaged: {error}") from error
        return cls(folder, schema, load_pipeline(folder / PIPELINE), _read_json(folder / METRICS))


def is_trained(path: Path) -> bool:
    """Tell whether a path is a folder that `train` wrote, or such a folder's pipeline.

    Parameters
    ----------
    path : Path
        The path.
    """
    return ((path.parent if path.name == PIPELINE else path) / SCHEMA).is_file()


def write_trained(
    path: Path,
    schema: Schema,
    pipeline: Any,
    metrics: Mapping[str, Any],
    extra: Mapping[str, bytes],
    overwrite: bool,
) -> None:
    """Write a folder in one step.

    Parameters
    ----------
    path : Path
        The folder.
    schema, pipeline, metrics : Schema, Pipeline, mapping
        As in `TrainedFolder`.
    extra : mapping of str to bytes
        The other files, by their paths inside of the folder.
    overwrite : bool
        Whether to replace a folder of that name that was written so too.

    Raises
    ------
    CommandError
        If the folder is there and may not be replaced, or cannot be written; what was there before is untouched.
    """
    check_free(path, overwrite)
    files = {
        SCHEMA: json_text(schema.to_config()).encode(),
        METRICS: json_text(metrics).encode(),
        PIPELINE: pipeline_bytes(pipeline),
        **extra,
    }
    staged = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    try:
        with writing(path):
            staged.mkdir(parents=True)
            for name, content in files.items():
                _write(staged / name, content)
            pipeline.steps[-1][1].model_.save(staged / NETWORK)
            _publish(staged, path)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse a folder that is there already, before the work.

    Parameters
    ----------
    path : Path
        The folder.
    overwrite : bool
        Whether to replace what `train` wrote; nothing else is replaced.

    Raises
    ------
    CommandError
        If it may not be written.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not is_trained(path):
        raise CommandError(f"{path} is there already, and not of nbdense's making: choose another --out")
    if not overwrite:
        raise CommandError(f"the folder {path} is there already: choose another --out, or --overwrite")


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _publish(staged: Path, path: Path) -> None:
    """Give a folder its name, in the place of the one that has it: no system renames over a folder with files in it."""
    if not path.exists():
        staged.rename(path)
        return
    old = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    path.rename(old)
    try:
        staged.rename(path)
    except BaseException:
        old.rename(path)
        raise
    with suppress(OSError):
        shutil.rmtree(old)


def _read_json(path: Path) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CommandError(f"{path.parent} lacks {path.name}: expected a folder that `nbdense train` wrote") from None
    except ValueError as error:
        raise CommandError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise CommandError(f"{path} is damaged: it is no JSON object")
    return content
