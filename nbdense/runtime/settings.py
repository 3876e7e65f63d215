"""Readers of what a file says of a layer or a model, in the types that it must have.

Whatever is missing or of another type is a ValueError, TypeError or KeyError, of which `load_model` makes one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def text(entries: Mapping[str, Any], name: str) -> str:
    """Return a text.

    Parameters
    ----------
    entries : mapping
        What the file says.
    name : str
        The text's name.
    """
    value = entries[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text, got {value!r}")
    return value


def number(entries: Mapping[str, Any], name: str, default: float | None = None) -> float:
    """Return a number.

    Parameters
    ----------
    entries : mapping
        What the file says.
    name : str
        The number's name.
    default : float, optional
        What it is where the file does not say.
    """
    value = entries[name] if default is None else entries.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return float(value)


def whole(entries: Mapping[str, Any], name: str, least: int, default: int | None = None) -> int:
    """Return a whole number.

    Parameters
    ----------
    entries : mapping
        What the file says.
    name : str
        The number's name.
    least : int
        The least that it may be.
    default : int, optional
        What it is where the file does not say.
    """
    value = entries[name] if default is None else entries.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return value


def one_of(entries: Mapping[str, Any], name: str, allowed: Any, default: Any = None) -> Any:
    """Return a value that must be one of several.

    Parameters
    ----------
    entries : mapping
        What the file says.
    name : str
        The value's name.
    allowed : iterable
        What it may be.
    default : object, optional
        What it is where the file does not say.
    """
    value = entries[name] if default is None else entries.get(name, default)
    if not any(type(value) is type(other) and value == other for other in allowed):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def shape(value: Any) -> tuple[int, ...]:
    """Return a shape of one row of data.

    Parameters
    ----------
    value : list of int
        As the file has it.
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f"a shape must be a list of whole numbers, got {value!r}")
    return tuple(whole({"shape": size}, "shape", 1) for size in value)
