"""A file's metadata: what the user wants it to say of itself, and the names of its classes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

CLASS_NAMES = "class_names"  # the key of a JSON list


def metadata_of(flavour: str, metadata: Mapping[str, Any] | None, class_names: list[str] | None) -> dict[str, str]:
    """Return a file's metadata as strings, in the order of their keys: equal ones give equal files.

    Parameters
    ----------
    flavour : str
        The file's.
    metadata : mapping of str to str, number, list or dict, or None
        The user's.
    class_names : list of str, or None
        As `listed_class_names` gives them.

    Raises
    ------
    TypeError
        If the metadata is no mapping.
    ValueError
        If a key is taken, or a value neither a string nor JSON.
    """
    entries = {"nbdense_flavour": flavour, **_users(metadata)}
    if class_names is not None:
        entries[CLASS_NAMES] = json.dumps(class_names, ensure_ascii=False)
    return entries


def listed_class_names(names: Sequence[str], n_out: int) -> list[str]:
    """Return class names as a list: as many as there are outputs, or two for one output.

    Parameters
    ----------
    names : sequence of str
        The user's.
    n_out : int
        How many outputs there are.

    Raises
    ------
    ValueError
        If they are not as many different strings.
    """
    listed = list(names) if isinstance(names, Iterable) and not isinstance(names, str) else []
    wanted = n_out if n_out > 1 else 2
    if len(listed) != wanted or len(set(listed)) != wanted or not all(isinstance(name, str) for name in listed):
        raise ValueError(f"to_onnx: class_names must be {wanted} different strings for {n_out} outputs, got {names!r}")
    return listed


def as_json(value: Any) -> str:
    """Return a value as JSON, NumPy's numbers and arrays as Python's.

    Parameters
    ----------
    value : number, list, dict or ndarray
        The value.

    Raises
    ------
    TypeError, ValueError
        If JSON has no such value.
    """
    return json.dumps(value, sort_keys=True, default=_plain)


def _users(metadata: Mapping[str, Any] | None) -> dict[str, str]:
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TypeError(f"to_onnx: metadata must be a mapping of names to values, got {type(metadata).__name__}")
    entries = {}
    for key, value in sorted((metadata or {}).items(), key=lambda item: str(item[0])):
        if not isinstance(key, str) or not key or key == CLASS_NAMES or key.startswith("nbdense_"):
            raise ValueError(f"to_onnx: metadata needs keys of its own, not {key!r} (class_names is an argument)")
        try:
            entries[key] = value if isinstance(value, str) else as_json(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"to_onnx: metadata {key!r} is neither a string nor JSON: {error}") from error
    return entries


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"got {type(value).__name__}")
