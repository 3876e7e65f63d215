"""A Sphinx extension that reads docstrings as what they are: text with `names` and ``code``, and no other markup.

So "|y - target|", "*input_shape" and "classes_" stand in them as a reader of the source wants them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator

from sphinx.application import Sphinx

_CODE = re.compile(r"(``.+?``|`[^`]+`)")
_MARKUP = re.compile(r"[*|]|_(?!\w)")


def escaped(line: str) -> str:
    """Return a line in which nothing but names and code is markup."""
    parts = _CODE.split(line)
    for index, part in enumerate(parts):
        if index % 2 == 0:
            parts[index] = _MARKUP.sub(r"\\\g<0>", part)
        elif parts[index + 1][:1].isalnum():  # `quantize`d
            parts[index] += "\\ "
    return "".join(parts)


def escape(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a docstring, escaped but for its examples."""
    example = False
    for line in lines:
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        yield line if example else escaped(line)


def escape_docstring(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Escape the lines of a docstring in place."""
    lines[:] = escape(lines)


def restore_property(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Take back what napoleon made of a property, where it holds the words before a colon for a type."""
    if what == "property":
        lines[:] = escape((inspect.getdoc(thing) or "").splitlines())


def setup(app: Sphinx) -> dict[str, bool]:
    """Escape docstrings before napoleon reads their sections, at 500, and look after it."""
    app.connect("autodoc-process-docstring", escape_docstring, priority=100)
    app.connect("autodoc-process-docstring", restore_property, priority=900)
    return {"parallel_read_safe": True}
