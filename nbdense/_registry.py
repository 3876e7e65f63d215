"""Registries: what has a name (activations, losses, optimizers, ...), and the user's own objects by `custom_objects`.

A file names a custom object and never brings its code.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Self, TypeVar

T = TypeVar("T")

_custom: ContextVar[Mapping[str, Any] | None] = ContextVar("nbdense custom objects", default=None)


@contextmanager
def custom_objects(objects: Mapping[str, Any] | None) -> Iterator[None]:
    """Let names stand for these objects within the ``with`` block, beside those of outer blocks.

    Other threads see nothing of it.

    Parameters
    ----------
    objects : mapping of str to object, or None
        Custom activations, losses, optimizers, initializers and so on, by name; None for none.

    Raises
    ------
    ValueError
        If it is no mapping from names.
    """
    if objects is not None and not (isinstance(objects, Mapping) and all(isinstance(name, str) for name in objects)):
        raise ValueError(f"custom_objects must be a dict of objects by name, got {objects!r}")
    token = _custom.set({**(_custom.get() or {}), **(objects or {})})
    try:
        yield
    finally:
        _custom.reset(token)


def objects_by_name() -> Mapping[str, Any]:
    """Return the custom objects of the ``with`` blocks around the call."""
    return _custom.get() or {}


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a user's function as an identifier: "lambda" of a lambda, as in Keras."""
    return re.sub(r"\W", "", getattr(function, "__name__", type(function).__name__))


def snake_case(name: str) -> str:
    """Return a class's name as Keras writes it in snake case: TruePositives is true_positives."""
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)).lower()


def find_custom(noun: str, name: Any, kind: type[T]) -> T:
    """Return the custom object of a name.

    Parameters
    ----------
    noun : str
        Such as "activation", for the error.
    name : str
        The name.
    kind : type
        The class that the object must be an instance of.

    Raises
    ------
    ValueError
        If the name stands for nothing, or for something else.
    """
    custom = objects_by_name().get(name)
    if custom is None:
        raise ValueError(f"{noun} {name!r} is a custom one: pass it, as in custom_objects={{{name!r}: ...}}")
    if not isinstance(custom, kind):
        raise ValueError(f"custom_objects: {name!r} must be a custom {noun}, got {custom!r}")
    return custom


def class_and_config(thing: Any) -> dict[str, Any]:
    """Describe an object by its class's name and the arguments that rebuild it."""
    return {"class_name": type(thing).__name__, "config": thing.get_config()}


def call_text(thing: Any, arguments: Mapping[str, Any]) -> str:
    """Write the call that makes an object."""
    return f"{type(thing).__name__}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"


class Configured:
    """An object that its class makes again of what `get_config` returns."""

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that rebuild this object: its attributes of their names."""
        arguments = inspect.signature(type(self)).parameters
        if missing := [argument for argument in arguments if not hasattr(self, argument)]:
            raise NotImplementedError(
                f"{type(self).__name__} must define get_config(self), or have the attribute {missing[0]!r}, to be saved"
            )
        return {argument: getattr(self, argument) for argument in arguments}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make an object of what `get_config` returned.

        Parameters
        ----------
        config : mapping of str
            Arguments of the class.
        """
        return cls(**config)


class OfFields(Configured):
    """An object whose arguments are attributes of it.

    Attributes
    ----------
    fields : tuple of str
        Their names.
    """

    fields: ClassVar[tuple[str, ...]] = ()

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that rebuild this object."""
        return {field: getattr(self, field) for field in self.fields}

    def __repr__(self) -> str:
        return call_text(self, self.get_config())


@dataclass(frozen=True, eq=False)
class Registry(Generic[T]):
    """A table of things by name: makes them of names, classes and descriptions, and describes them for files.

    Attributes
    ----------
    noun : str
        Such as "activation", for errors.
    base : type
        The class of all of them.
    rows : mapping of str
        Objects by name, or classes that can be made without arguments.
    aliases : mapping of str to str
        Other names of rows. A class's own name is one too.
    spelling : callable
        Makes of a name that is not in the table the one to try instead.
    listed : sequence of str
        Names for errors; by default those of rows and aliases.
    hint : str
        Said behind these.
    describe : callable
        Describes an object so that `get` makes it again: JSON-able.
    is_custom : callable
        Tells an object that was made of a user's functions, which a file can but name.
    from_function : callable, optional
        Makes an object of a user's function.
    needs_arguments : bool
        Whether a name or a class by itself is not enough.
    by_name : dict
        Rows by names, aliases and classes' names.
    """

    noun: str
    base: type[T]
    rows: Mapping[str, Any]
    aliases: Mapping[str, str] = field(default_factory=dict)
    spelling: Callable[[str], str] = str
    listed: Sequence[str] = ()
    hint: str = ""
    describe: Callable[[T], Any] = class_and_config
    is_custom: Callable[[T], bool] = lambda thing: False
    from_function: Callable[[Any], T] | None = None
    needs_arguments: bool = False
    by_name: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        classes = {row.__name__: row for row in self.rows.values() if isinstance(row, type)}
        others = {alias: self.rows[name] for alias, name in self.aliases.items()}
        object.__setattr__(self, "by_name", {**self.rows, **classes, **others})

    def __contains__(self, name: str) -> bool:
        return self._row(name) is not None

    def _row(self, name: str) -> Any:
        return self.by_name.get(name, self.by_name.get(self.spelling(name)))

    def find(self, name: str, objects: Mapping[str, Any] | None = None) -> Any:
        """Return the object, class or function of a name, a custom one first; None where there is none.

        Parameters
        ----------
        name : str
            A name.
        objects : mapping of str, optional
            Custom objects by name, instead of those of `custom_objects`.
        """
        custom = (objects or objects_by_name()).get(name)
        return custom if self._fits(custom) else self._row(name)

    def _fits(self, thing: Any) -> bool:
        if isinstance(thing, type):
            return issubclass(thing, self.base) and thing is not self.base
        return isinstance(thing, self.base) or (self.from_function is not None and callable(thing))

    def get(self, identifier: Any, objects: Mapping[str, Any] | None = None) -> T:
        """Return the object that an identifier names, describes or is.

        Parameters
        ----------
        identifier : str, mapping, type, callable or object
            A name; what `serialize` gave (or {"class_name": name, "config": arguments}); a class; a function, where
            one will do; an object, which is returned as it is.
        objects : mapping of str, optional
            As in `find`.

        Raises
        ------
        ValueError
            If there is no such thing, or it does not take these arguments.
        """
        thing, config = identifier, None
        if isinstance(identifier, Mapping):
            if "custom" in identifier:
                named = objects_by_name().get(identifier["custom"])
                if not isinstance(named, type) and self._fits(named):  # a function will do, too
                    return self.get(named)
                return find_custom(self.noun, identifier["custom"], self.base)
            thing = identifier.get("class_name", identifier.get("name"))
            config = identifier.get("config") or {}
        if isinstance(thing, str):
            thing = self.find(thing, objects)
        if not self._fits(thing) or (self.needs_arguments and config is None and isinstance(thing, type)):
            raise self.unknown(identifier)
        if isinstance(thing, type):
            return self.make(thing, config or {})
        if isinstance(thing, self.base):
            return thing
        assert self.from_function is not None
        return self.from_function(thing)

    def make(self, kind: Callable[..., T], config: Mapping[str, Any]) -> T:
        """Make an object of a class.

        Parameters
        ----------
        kind : type
            The class.
        config : mapping of str
            Its arguments.

        Raises
        ------
        ValueError
            If the class does not take these arguments.
        """
        try:
            return kind(**config)
        except TypeError as error:
            raise ValueError(f"{self.noun} {kind.__name__!r} doesn't take these arguments: {error}") from error

    def unknown(self, identifier: Any) -> ValueError:
        """Return the error that says which names there are."""
        name = identifier
        if isinstance(identifier, Mapping):
            name = identifier.get("class_name", identifier.get("name"))
            name = name if isinstance(name, str) else identifier
        listed = self.listed or sorted([*self.rows, *self.aliases])
        return ValueError(f"unknown {self.noun} {name!r}; there are: {', '.join(listed)}{self.hint}")

    def serialize(self, identifier: Any) -> Any:
        """Describe what an identifier stands for, so that `get` makes the same again: JSON-able.

        Parameters
        ----------
        identifier : object, or what `get` takes
            A custom object is described by its name, and needs `custom_objects` to be made again.
        """
        thing = self.get(identifier)
        return {"custom": getattr(thing, "name", "")} if self.is_custom(thing) else self.describe(thing)
