"""What a user's own names stand for at the moment: a file names a custom function, and never brings its code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_given: ContextVar[Mapping[str, Any] | None] = ContextVar("nbdense custom objects", default=None)


@contextmanager
def custom_objects(objects: Mapping[str, Any] | None) -> Iterator[None]:
    """Within the ``with`` block, names stand for these objects; what an outer block gave still counts.

    Other threads see nothing of it.

    Parameters
    ----------
    objects : mapping of str to object, or None
        Custom activations and losses by name; None for none.

    Raises
    ------
    ValueError
        If it is no mapping from names.
    """
    if objects is not None and not (isinstance(objects, Mapping) and all(isinstance(name, str) for name in objects)):
        raise ValueError(f"custom_objects must be a dict of objects by name, got {objects!r}")
    token = _given.set({**(_given.get() or {}), **(objects or {})})
    try:
        yield
    finally:
        _given.reset(token)


def given() -> Mapping[str, Any]:
    """What names stand for at the moment."""
    return _given.get() or {}


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a user's function as an identifier: "lambda" of a lambda, as in Keras."""
    return re.sub(r"\W", "", getattr(function, "__name__", type(function).__name__))


def made_of(what: str, name: str, kind: Callable[..., Any], config: Mapping[str, Any]) -> Any:
    """An object of the class that a name stands for.

    Raises
    ------
    ValueError
        If the class does not take these arguments.
    """
    try:
        return kind(**config)
    except TypeError as error:
        raise ValueError(f"{what} {name!r} doesn't take these arguments: {error}") from error


def find_custom(what: str, name: Any, kind: type) -> Any:
    """The custom object of that name.

    Parameters
    ----------
    what : str
        Such as "activation", for the error.
    name : str
        The name.
    kind : type
        What the object must be an instance of.

    Raises
    ------
    ValueError
        If the name stands for nothing, or for something else.
    """
    found = given().get(name)
    if found is None:
        raise ValueError(f"{what} {name!r} is a custom one: give it, as in custom_objects={{{name!r}: ...}}")
    if not isinstance(found, kind):
        raise ValueError(f"custom_objects: {name!r} must be a custom {what}, got {found!r}")
    return found
