"""Tables read from files: CSV, Parquet and NumPy's .npy. What is wrong with one is said in a line."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.commands.errors import CommandError, need_extra

EXTRA = "table"
_START = 2**16  # bytes that show whether a file is text


def read_table(path: Path, separator: str | None = None, text: Collection[str] = ()) -> Any:
    """Read a table.

    Parameters
    ----------
    path : Path
        The file; its suffix is its format: .parquet, .npy, or else CSV.
    separator : str, optional
        What stands between the cells of a CSV file; by default a comma, or a tab where the suffix is .tsv.
    text : collection of str
        Columns whose cells stay as they are written, digits included.

    Returns
    -------
    DataFrame
        With names of columns that are different strings, and at least one row.

    Raises
    ------
    CommandError
        If there is no such file, it is damaged or empty, or a package is missing.
    """
    with need_extra(EXTRA, "tables of data"):
        import pandas as pd  # noqa: F401
    if not path.is_file():
        raise CommandError(f"no data file at {path}" + (": it is a folder" if path.is_dir() else ""))
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        table = _read_csv(path, separator or ("\t" if path.suffix.lower() == ".tsv" else ","), text)
    else:
        table = reader(path)
    table.columns = [str(name) for name in table.columns]
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise CommandError(f"{path}: two columns are called {twice[0]!r}")
    if not len(table):
        raise CommandError(f"{path} has no rows")
    return table


def _read_csv(path: Path, separator: str, text: Collection[str]) -> Any:
    import pandas as pd

    names = _header(path, separator)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # of rows that are longer than the header
        try:
            return pd.read_csv(
                path,
                sep=separator,
                dtype={name: str for name in names if name in text},
                index_col=False,
                low_memory=False,
            )
        except pd.errors.ParserWarning as error:
            raise CommandError(f"{path}: rows have more cells than the header's {len(names)}") from error
        except pd.errors.ParserError as error:
            raise CommandError(f"{path} is no proper CSV: {_parser_text(str(error))}") from error
        except UnicodeDecodeError as error:
            raise CommandError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from error


def _header(path: Path, separator: str) -> list[str]:
    """Return the names of a CSV file's columns."""
    with path.open("rb") as file:
        start = file.read(_START)
    if b"\0" in start:
        raise CommandError(f"{path} is no text; CSV, .parquet and .npy are read")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file, delimiter=separator), [])
    except UnicodeDecodeError as error:
        raise CommandError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except csv.Error as error:
        raise CommandError(f"{path} is no proper CSV: {error}") from error
    if not any(names):
        raise CommandError(
            f"{path} is empty" if not start.strip() else f"{path}: its first line has no names of columns"
        )
    for name in names:
        if name and names.count(name) > 1:
            raise CommandError(f"{path}: two columns are called {name!r}")
    return names


def _parser_text(message: str) -> str:
    """Return pandas's words on a damaged file, in ours."""
    cells = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", message)
    if cells:
        return f"line {cells[2]} has {cells[3]} cells where {cells[1]} were expected"
    quote = re.search(r"EOF inside string starting at row (\d+)", message)
    if quote:
        return f"a quote that is opened in row {int(quote[1]) + 1} is never closed"
    return message


def _read_parquet(path: Path) -> Any:
    import pandas as pd

    with need_extra("parquet", "Parquet files"):
        import pyarrow  # noqa: ICN001
    try:
        return pd.read_parquet(path, engine="pyarrow")
    except (pyarrow.ArrowException, OSError) as error:
        raise CommandError(f"{path} is no proper Parquet file: {error}") from error


def read_matrix(path: Path, separator: str | None = None) -> npt.NDArray[np.float32]:
    """Read rows of numbers alone, as a network reads them; .npy needs no package.

    Parameters
    ----------
    path : Path
        The file.
    separator : str, optional
        As in `read_table`.

    Raises
    ------
    CommandError
        As in `read_table`, or if a cell is no number.
    """
    if path.suffix.lower() == ".npy" and path.is_file():
        rows = _array_in(path)
    else:
        rows = read_table(path, separator).to_numpy()
    try:
        return np.ascontiguousarray(rows, np.float32)
    except (TypeError, ValueError) as error:
        raise CommandError(f"{path}: a network reads rows of numbers alone: {error}") from error


def _read_npy(path: Path) -> Any:
    import pandas as pd

    array = _array_in(path)
    if array.dtype.names:
        return pd.DataFrame({name: array[name] for name in array.dtype.names})
    if array.ndim != 2:
        raise CommandError(f"{path}: expected an array of rows and columns, got shape {array.shape}")
    return pd.DataFrame(array)


def _array_in(path: Path) -> npt.NDArray[Any]:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise CommandError(f"{path} is no proper .npy file of numbers: {error}") from error
    if not isinstance(array, np.ndarray):
        raise CommandError(f"{path} holds several arrays; one of rows and columns is wanted")
    return array


_READERS: dict[str, Callable[[Path], Any]] = {".npy": _read_npy, ".parquet": _read_parquet, ".pq": _read_parquet}
