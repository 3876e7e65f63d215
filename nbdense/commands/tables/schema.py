"""The columns that a pipeline reads, and what it predicts: what `train` found and `predict` holds data against."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

# Of each kind of column: what a cell of the graph is.
KINDS = {
    "number": "a number; NaN for a missing cell",
    "boolean": "1 for true, 0 for false; NaN for a missing cell",
    "date": "whole days since 1970-01-01; NaN for a missing cell",
    "text": 'text; "" for a missing cell',
}
CLASSIFICATION, REGRESSION = TASKS = ("classification", "regression")
_VERSION = 1


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    name : str
        Its name.
    kind : str
        A key of KINDS.
    date_format : str or None
        Of dates that are not written as 2026-11-27: as `datetime.strptime` takes it.
    """

    name: str
    kind: str
    date_format: str | None = None


@dataclass(frozen=True)
class Schema:
    """The columns of a table and their parts in a model.

    Attributes
    ----------
    columns : tuple of Column
        Columns that the model reads, in their order.
    left_out : dict of str to str
        Names of the others, and why each is left out.
    target : str
        The column that is predicted.
    task : str
        "classification" or "regression".
    labels : str
        The kind of the target's cells: "text", "number" or "boolean".
    """

    columns: tuple[Column, ...]
    left_out: dict[str, str]
    target: str
    task: str
    labels: str

    def names(self, *kinds: str) -> list[str]:
        """Return the names of the columns, or of those of some kinds.

        Parameters
        ----------
        *kinds : str
            Keys of KINDS; all where there are none.
        """
        return [column.name for column in self.columns if not kinds or column.kind in kinds]

    def to_config(self) -> dict[str, Any]:
        """Return a description for JSON."""
        return {"format": "nbdense table", "format_version": _VERSION, **asdict(self)}

    @classmethod
    def from_config(cls, config: Any) -> Schema:
        """Return the schema of a description.

        Parameters
        ----------
        config : dict
            As `to_config` gives it; nothing of it is taken on trust.

        Raises
        ------
        ValueError
            If it is not such a description.
        """
        try:
            if config["format"] != "nbdense table" or config["format_version"] > _VERSION:
                raise ValueError("it is of another format or of a newer nbdense")
            columns = tuple(Column(str(e["name"]), str(e["kind"]), e["date_format"]) for e in config["columns"])
            left_out = {str(name): str(why) for name, why in config["left_out"].items()}
            schema = cls(columns, left_out, str(config["target"]), str(config["task"]), str(config["labels"]))
            if (
                any(column.kind not in KINDS for column in columns)
                or schema.task not in TASKS
                or schema.labels not in KINDS
            ):
                raise ValueError("it names a kind of column or a task that there is not")
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"its entries are not those that train writes ({error!r})") from error
        return schema

    def graph_notes(self) -> Mapping[str, Any]:
        """Return what an ONNX file says of its inputs: the kind of each column, and what a cell of it is."""
        return {
            "columns": {column.name: {"kind": column.kind, "cell": KINDS[column.kind]} for column in self.columns},
            "target": self.target,
            "task": self.task,
        }


@dataclass(frozen=True)
class Wishes:
    """The user's say in what the columns are.

    Attributes
    ----------
    kinds : mapping of str to Column
        Columns whose kind is given.
    drop : collection of str
        Columns that are to be left out.
    task : str or None
        The task; None: by the target.
    """

    kinds: Mapping[str, Column]
    drop: Collection[str] = ()
    task: str | None = None


def column_of(text: str) -> Column:
    """Return what ``NAME=KIND`` says, as --as takes it; of dates, ``NAME=date:FORMAT`` too.

    Parameters
    ----------
    text : str
        The text.

    Raises
    ------
    ValueError
        If it does not say that.

    Examples
    --------
    >>> column_of("born=date:%d.%m.%Y")
    Column(name='born', kind='date', date_format='%d.%m.%Y')
    """
    name, separator, kind = text.rpartition("=")
    kind, _, date_format = kind.partition(":")
    if not (separator and name) or kind not in KINDS or (date_format and kind != "date"):
        raise ValueError(f"expected NAME=KIND with a kind of {', '.join(KINDS)} or date:FORMAT, got {text!r}")
    return Column(name, kind, date_format or None)
