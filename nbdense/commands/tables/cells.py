"""Cells as the pipeline takes them: numbers, days and truth as float64, text as str."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense._checks import plain
from nbdense.commands.errors import CommandError
from nbdense.commands.tables.schema import CLASSIFICATION, Column, Schema

Floats = npt.NDArray[np.float64]
TRUTH = {"true": 1.0, "false": 0.0}


def features_of(table: Any, schema: Schema, source: str) -> Any:
    """Return the columns that a model reads, ready for its pipeline.

    Parameters
    ----------
    table : DataFrame
        Data; the target and what was left out may be there too.
    schema : Schema
        What the model reads.
    source : str
        What the data is called in messages.

    Returns
    -------
    DataFrame
        float64, NaN for missing cells; of text, objects that are str, "" for missing cells.

    Raises
    ------
    CommandError
        If a column is missing or unknown, or a cell is of another kind.
    """
    import pandas as pd

    names = schema.names()
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise CommandError(f"{source} lacks the column {missing[0]!r}, which the model reads")
    known = {*names, *schema.left_out, schema.target}
    strangers = [name for name in table.columns if name not in known]
    if strangers:
        raise CommandError(f"{source} has a column {strangers[0]!r} that the model does not know; --drop leaves it out")
    return pd.DataFrame(
        {column.name: _cells(table[column.name], column, source) for column in schema.columns}, copy=False
    )


def target_of(table: Any, schema: Schema, source: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return the target's cells, and which rows have one.

    Parameters
    ----------
    table : DataFrame
        Data.
    schema : Schema
        What is predicted.
    source : str
        What the data is called in messages.

    Returns
    -------
    values : ndarray
        Of the rows that have one: labels that are str or int64, or float64.
    there : ndarray of bool, (rows,)

    Raises
    ------
    CommandError
        If the column is missing or holds something else.
    """
    if schema.target not in table.columns:
        raise CommandError(f"{source} lacks the target {schema.target!r}")
    column = table[schema.target]
    there = column.notna().to_numpy()
    if not there.any():
        raise CommandError(f"{source}: the target {schema.target!r} is empty in every row")
    values = _cells(column, Column(schema.target, schema.labels), source)[there]
    if schema.labels == "boolean":
        return np.where(values == 1.0, "True", "False"), there
    if schema.labels == "text":
        return values.astype(str), there
    if schema.task != CLASSIFICATION:
        return values, there
    if not np.array_equal(values, np.round(values)):
        raise CommandError(
            f"{source}: the target {schema.target!r} has fractions: classes are text or whole numbers; "
            f"--task regression predicts numbers, --as {schema.target}=text takes each as a class"
        )
    return values.astype(np.int64), there


def as_numbers(column: Any) -> Floats:
    """Return cells as numbers, NaN for those that are none.

    Parameters
    ----------
    column : Series
        The cells.
    """
    import pandas as pd

    return np.asarray(pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan))


def days_of(column: Any, date_format: str | None) -> Floats:
    """Return dates as whole days since 1970-01-01, NaN for those that are none.

    Parameters
    ----------
    column : Series
        Dates, or text.
    date_format : str or None
        How they are written; None: as 2026-11-27, with a time of day or without.
    """
    import pandas as pd

    dates = pd.to_datetime(column, format=date_format or "ISO8601", errors="coerce", utc=True)
    days = dates.to_numpy("datetime64[D]").astype(np.float64)
    days[dates.isna().to_numpy()] = np.nan
    return np.asarray(days)


def object_cells(cells: Any) -> bool:
    """Tell whether cells are Python's objects other than text."""
    return all(not isinstance(cell, str) for cell in cells)


def _cells(column: Any, wanted: Column, source: str) -> Any:
    """Return one column's cells; what is of another kind is an error that names the first."""
    values: Any = _CONVERSIONS[wanted.kind](column, wanted)
    if wanted.kind == "text":
        return values
    wrong = np.isnan(values) & column.notna().to_numpy()
    if wrong.any():
        row = int(np.argmax(wrong))
        form = f" (expected as {wanted.date_format or '2026-11-27'})" if wanted.kind == "date" else ""
        raise CommandError(
            f"{source}: column {wanted.name!r} is of {wanted.kind}s, but row {row + 1} holds "
            f"{plain(column.iloc[row])!r}{form}"
        )
    if np.isinf(values).any():
        row = int(np.argmax(np.isinf(values)))
        raise CommandError(f"{source}: column {wanted.name!r} holds infinity in row {row + 1}")
    return values


def _numbers(column: Any, wanted: Column) -> Floats:
    from pandas.api import types

    if types.is_bool_dtype(column.dtype) or types.is_datetime64_any_dtype(column.dtype):
        return np.full(len(column), np.nan)
    return as_numbers(column)


def _truth(column: Any, wanted: Column) -> Floats:
    from pandas.api import types

    if types.is_numeric_dtype(column.dtype):
        values = as_numbers(column)
        values[~np.isin(values, (0.0, 1.0))] = np.nan
        return values
    cells = column.map(lambda cell: TRUTH.get(str(cell).lower(), np.nan), na_action="ignore")
    return as_numbers(cells)


def _dates(column: Any, wanted: Column) -> Floats:
    from pandas.api import types

    if types.is_numeric_dtype(column.dtype) and wanted.date_format is None:
        return np.full(len(column), np.nan)  # as dates they would be nanoseconds
    if types.is_numeric_dtype(column.dtype):
        column = column.astype("Int64").astype("string")  # 20261127, for instance
    return days_of(column, wanted.date_format)


def _text(column: Any, wanted: Column) -> npt.NDArray[Any]:
    there = column.notna().to_numpy()
    cells = np.full(len(column), "", object)
    cells[there] = column[there].astype(str).to_numpy(object)
    return cells


_CONVERSIONS = {"number": _numbers, "boolean": _truth, "date": _dates, "text": _text}
