"""Sphinx directives that find what is public, so that no list of names has to be kept.

    .. public-names:: nbdense.layers
       :below: Layer

describes the classes of a module that are below one of its own, itself first. With ``functions`` it describes those of
another module, with ``names`` what is named, and without an option the module's ``__all__``.

    .. registered-names:: nbdense.losses.LOSSES

lists the keys of a table: the strings that stand for its things.

    .. top-level-names::

is a table of all that `import nbdense` offers, with where it is described. A build says which public names nothing
describes.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from plain_docstrings import escaped
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import nbdense
import nbdense.export
import nbdense.quant

WHOLE = (nbdense.quant, nbdense.export)  # each name of their __all__ is described under theirs
SETTINGS = {"set_device", "set_num_threads"}  # users know no module that they live in


def described_as(name: str) -> str:
    """Return the full name under which a name of `nbdense` is described: that of the class, where it has two."""
    thing = getattr(nbdense, name)
    own = thing.__name__ if inspect.isclass(thing) else name
    return f"nbdense.{name}" if name in SETTINGS else f"{nbdense._HOME[name]}.{own}"


def _below(module: ModuleType, base: type) -> list[str]:
    """Return the names of a module's classes below one, but for further names of the same class."""
    names = [
        name
        for name, thing in sorted(vars(module).items())
        if inspect.isclass(thing) and issubclass(thing, base) and thing.__name__ == name and thing is not base
    ]
    return [base.__name__, *names]


def _functions(module: ModuleType, source: str) -> list[str]:
    """Return the names of a module's functions that are defined in another, but for further names of the same one."""
    things = sorted(vars(module).items())
    return [n for n, f in things if inspect.isfunction(f) and f.__module__ == source and f.__name__ == n]


def _members(thing: type, described: set[type]) -> Iterator[str]:
    """Return the attributes of a class that have docstrings, but for those that a described parent has or inherits."""
    seen: set[str] = set()
    parents = [other for other in described if other is not thing and issubclass(thing, other)]
    for parent in thing.__mro__:
        if not parent.__module__.startswith("nbdense") or any(issubclass(other, parent) for other in parents):
            continue
        for name, member in vars(parent).items():
            if not name.startswith("_") and name not in seen and inspect.getdoc(member) and _is_code(member):
                seen.add(name)
                yield name


def _is_code(member: Any) -> bool:
    member = getattr(member, "__func__", member)
    return bool(inspect.isfunction(member) or (isinstance(member, property) and member.__doc__))


class PublicNames(SphinxDirective):
    """Describe names of a module by autodoc."""

    required_arguments = 1
    option_spec: ClassVar = dict.fromkeys(("below", "functions", "names"), directives.unchanged)

    def run(self) -> list[nodes.Node]:
        """Return what autodoc makes of each name."""
        module = import_module(self.arguments[0])
        if base := self.options.get("below"):
            names = _below(module, getattr(module, base))
        elif source := self.options.get("functions"):
            names = _functions(module, source)
        else:
            names = self.options.get("names", " ".join(getattr(module, "__all__", ()))).split()
        things = {name: getattr(module, name) for name in names}
        everywhere = [getattr(nbdense, name) for name in nbdense.__all__]
        described = {thing for thing in (*things.values(), *everywhere) if inspect.isclass(thing)}
        lines = [f".. currentmodule:: {module.__name__}", ""]
        for name, thing in things.items():
            if inspect.isclass(thing):
                lines.append(f".. autoclass:: {name}")
                if thing.__bases__ != (object,):
                    lines.append("   :show-inheritance:")
                if members := sorted(_members(thing, described)):
                    lines.append(f"   :members: {', '.join(members)}")
            else:
                lines.append(f".. autofunction:: {name}" if callable(thing) else f".. autodata:: {name}")
            lines.append("")
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=False)


class RegisteredNames(SphinxDirective):
    """List the keys of a table."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return a paragraph of them."""
        module, _, table = self.arguments[0].rpartition(".")
        keys = getattr(import_module(module), table)
        return self.parse_text_to_nodes("By name: " + ", ".join(f"``{key}``" for key in keys) + ".")


class TopLevelNames(SphinxDirective):
    """List what `import nbdense` offers."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        lines = [".. list-table::", "   :widths: auto", ""]
        for name in nbdense.__all__:
            summary = (inspect.getdoc(getattr(nbdense, name)) or "").partition("\n\n")[0]
            lines += [f"   * - :py:obj:`{name} <{described_as(name)}>`", f"     - {escaped(' '.join(summary.split()))}"]
        return self.parse_text_to_nodes("\n".join(lines))


def say_what_is_missing(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of each public name that no page describes."""
    described = env.get_domain("py").objects  # type: ignore[attr-defined]
    public = {described_as(name) for name in nbdense.__all__}
    public |= {f"{module.__name__}.{name}" for module in WHOLE for name in module.__all__}
    for name in sorted(public - set(described)):
        logging.getLogger(__name__).warning("no page of docs/api describes %s", name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directives, and the check."""
    app.add_directive("public-names", PublicNames)
    app.add_directive("registered-names", RegisteredNames)
    app.add_directive("top-level-names", TopLevelNames)
    app.connect("env-check-consistency", say_what_is_missing)
    return {"parallel_read_safe": True}
