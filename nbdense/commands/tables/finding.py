"""The kinds of a table's columns and the task, found in the data."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from typing import Any

import numpy as np

from nbdense.commands.errors import CommandError
from nbdense.commands.tables.cells import TRUTH, as_numbers, days_of, object_cells
from nbdense.commands.tables.schema import CLASSIFICATION, REGRESSION, Column, Schema, Wishes

MOST_WORDS = 50  # of a text column, as columns of its own
MOST_CLASSES = 20  # whole numbers of so few different values are classes
_ISO_DATE = r"\d{4}-\d{2}-\d{2}([T ].*)?"


def find_schema(table: Any, target: str, wishes: Wishes) -> Schema:
    """Find what each column is, and the task.

    Parameters
    ----------
    table : DataFrame
        The data.
    target : str
        The column that is to be predicted.
    wishes : Wishes
        The user's.

    Raises
    ------
    CommandError
        If a column that is named is not there, none is left, or the target will not do.
    """
    names = list(table.columns)
    if target not in names:
        raise CommandError(f"there is no column {target!r} (--target); there are: {listed(names)}")
    for name in (*wishes.drop, *wishes.kinds):
        if name not in names:
            raise CommandError(f"there is no column {name!r}; there are: {listed(names)}")
    columns, left_out = [], {}
    for name in names:
        if name == target:
            continue
        if name in wishes.drop:
            left_out[name] = "dropped"
        elif name in wishes.kinds:
            columns.append(wishes.kinds[name])
        elif reason := _reason_to_leave_out(name, table[name]):
            left_out[name] = reason
        else:
            columns.append(Column(name, kind_of(table[name])))
    if not columns:
        raise CommandError(f"there is no column to learn from: {listed([f'{n} ({w})' for n, w in left_out.items()])}")
    kind = wishes.kinds[target].kind if target in wishes.kinds else kind_of(table[target])
    task = wishes.task or _task_of(table[target], kind)
    if task == REGRESSION and kind != "number":
        raise CommandError(f"the target {target!r} is {kind}: regression predicts numbers")
    return Schema(tuple(columns), left_out, target, task, "text" if kind == "date" else kind)


def listed(names: Collection[str], most: int = 12) -> str:
    """Return names for a message, the first of them where there are many.

    Parameters
    ----------
    names : collection of str
        The names.
    most : int
        How many are written.
    """
    text = ", ".join(list(names)[:most])
    return f"{text} and {len(names) - most} more" if len(names) > most else text


def kind_of(column: Any) -> str:
    """Return the kind of a column, by its cells.

    Parameters
    ----------
    column : Series
        The column.
    """
    from pandas.api import types

    if types.is_bool_dtype(column.dtype):
        return "boolean"
    if types.is_numeric_dtype(column.dtype):
        return "number"
    if types.is_datetime64_any_dtype(column.dtype):
        return "date"
    there = column.dropna()
    words = there.unique() if len(there) else there
    if len(words) and all(isinstance(word, bool | np.bool_) or str(word).lower() in TRUTH for word in words):
        return "boolean"
    if len(words) and all(isinstance(word, dt.date) for word in words):
        return "date"
    if len(words) and object_cells(words) and not np.isnan(as_numbers(there)).any():
        return "number"
    texts = there.astype(str)
    if len(texts) and texts.str.fullmatch(_ISO_DATE).all() and not np.isnan(days_of(texts, None)).any():
        return "date"
    return "text"


def _reason_to_leave_out(name: str, column: Any) -> str:
    """Return why nothing can be learnt from a column; "" if something can."""
    if not name or name.startswith("Unnamed: "):
        return "has no name"
    there = column.dropna()
    if not len(there):
        return "empty"
    different = there.nunique()
    if different == 1 and len(there) == len(column):
        return "the same in every row"
    if kind_of(column) == "text" and different > max(MOST_WORDS, len(there) // 2):
        return f"text that hardly repeats, {different:,} different in {len(there):,} rows"
    return ""


def _task_of(column: Any, kind: str) -> str:
    """Return the task that a target's cells suggest."""
    if kind == "date":
        raise CommandError(f"the target {column.name!r} holds dates; give it as numbers, or --as {column.name}=text")
    if kind != "number":
        return CLASSIFICATION
    values = as_numbers(column.dropna())
    whole = bool(np.all(values == np.round(values)))
    return CLASSIFICATION if whole and len(np.unique(values)) <= MOST_CLASSES else REGRESSION
