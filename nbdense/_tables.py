"""Tables of what models and results are, as text and as HTML: what `print` shows, and what a notebook does."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """Cells under a head, with a title above and notes below.

    Attributes
    ----------
    head : sequence of str
        Names of the columns.
    rows : sequence of sequences of str
        Cells.
    title : str
        The line above; empty: there is none.
    notes : sequence of str
        Lines below.
    left : int
        Columns that are aligned to the left; those of numbers, behind them, are to the right.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    notes: Sequence[str] = ()
    left: int = 1

    def text(self) -> str:
        """Return the table as lines of text.

        Examples
        --------
        >>> print(Table(("layer", "bytes"), [("dense", "1,024"), ("dense_1", "8")], notes=["1,032 bytes"]).text())
        layer    bytes
        dense    1,024
        dense_1      8
        1,032 bytes
        """
        cells = [self.head, *self.rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.head))]
        lines = [
            "  ".join(
                cell.ljust(width) if i < self.left else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        return "\n".join([*([self.title] if self.title else []), *lines, *self.notes])

    def html(self) -> str:
        """Return the table as HTML, every cell escaped.

        Examples
        --------
        >>> "<td>1 &lt; 2</td>" in Table(("layer", "x"), [("a", "1 < 2")]).html()
        True
        """
        parts = [_paragraph(self.title, strong=True)] if self.title else []
        parts += ["<table>", "<thead>", self._row("th", self.head), "</thead>", "<tbody>"]
        parts += [*(self._row("td", row) for row in self.rows), "</tbody>", "</table>"]
        return "\n".join(["<div>", *parts, *map(_paragraph, self.notes), "</div>"])

    def _row(self, tag: str, cells: Iterable[str]) -> str:
        aligned = (' style="text-align: left"' if i < self.left else "" for i, _ in enumerate(self.head))
        inner = "".join(
            f"<{tag}{style}>{html.escape(cell)}</{tag}>" for style, cell in zip(aligned, cells, strict=True)
        )
        return f"<tr>{inner}</tr>"


def _paragraph(line: str, strong: bool = False) -> str:
    inner = html.escape(line)
    return f"<p>{f'<strong>{inner}</strong>' if strong else inner}</p>"


class Tabular:
    """A thing that a notebook shows as a table."""

    def to_table(self) -> Table:
        """Return the table that shows it."""
        raise NotImplementedError(f"{type(self).__name__} must define to_table")

    def _repr_html_(self) -> str:
        return self.to_table().html()


class Described(Tabular):
    """A thing of settings: at a prompt the call that makes it, in a notebook a table of them."""

    def get_config(self) -> dict[str, Any]:
        """Return the settings."""
        raise NotImplementedError(f"{type(self).__name__} must define get_config")

    def to_table(self) -> Table:
        rows = [(name, _written(value)) for name, value in self.get_config().items()]
        return Table(("setting", "value"), rows, type(self).__name__, left=2)

    def __repr__(self) -> str:
        return _written({"class_name": type(self).__name__, "config": self.get_config()})


def _written(value: Any) -> str:
    """Write a setting; a description of an object as the call that makes it."""
    if isinstance(value, Mapping) and set(value) == {"class_name", "config"}:
        arguments = ", ".join(f"{name}={_written(part)}" for name, part in value["config"].items())
        return f"{value['class_name']}({arguments})"
    return repr(value)


class Shown(Tabular):
    """A thing that is a table wherever it is shown: printed, at a prompt, and in a notebook."""

    def __str__(self) -> str:
        return self.to_table().text()

    def __repr__(self) -> str:
        return str(self)
