"""The checks at the door. Each names the thing, what was expected and what came."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Iterable, Mapping
from contextlib import suppress
from numbers import Real
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from nbdense.engine.kernels.gather import DTYPES, FORM

_PIECE = 2**16  # elements that are looked at at a time: they stay in the cache


def positive_int(owner: str, name: str, value: Any) -> int:
    """Return ``value`` as an int of at least 1, or raise."""
    return whole_number(owner, name, value, 1)


def whole_number(owner: str, name: str, value: Any, least: int = 0) -> int:
    """Return ``value`` as an int of at least ``least``, or raise."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ValueError(f"{owner}: {name} must be a whole number of at least {least}, got {plain(value)!r}")
    return number


def finite_number(
    owner: str,
    name: str,
    value: Any,
    least: float = -math.inf,
    most: float = math.inf,
    *,
    ends: str = "[]",
    expected: str = "",
) -> float:
    """Return ``value`` as a finite float between two ends, or raise; a truth value is no number.

    ``ends`` are the interval's brackets, round where the end itself is refused. ``expected`` says in other words what
    is taken.
    """
    number = math.nan
    if not isinstance(value, bool) and isinstance(value, Real | np.ndarray) and np.ndim(cast(Any, value)) == 0:
        with suppress(OverflowError, TypeError, ValueError):
            number = float(value)
    above = number > least if ends[0] == "(" else number >= least
    below = number < most if ends[1] == ")" else number <= most
    if not (above and below and math.isfinite(number)):
        expected = expected or _interval(least, most, ends)
        raise ValueError(f"{owner}: {name} must be {expected}, got {plain(value)!r}")
    return number


def _interval(least: float, most: float, ends: str) -> str:
    if most < math.inf:
        return f"in {ends[0]}{least:g}, {most:g}{ends[1]}"
    bound = "" if least == -math.inf else f" above {least:g}" if ends[0] == "(" else f" of at least {least:g}"
    return f"a finite number{bound}"


def plain(value: Any) -> Any:
    """Return ``value`` as Python's own number where it is one of NumPy's, for a message."""
    return value.item() if isinstance(value, np.generic) else value


def array_of(name: str, value: Any, first_row: int = 0) -> npt.NDArray[Any]:
    """Return ``value`` as an array, without a copy where it is one; raise for the first masked element.

    NumPy would let go of a mask without a word, and what lies behind it would be taken for data. Rows are numbered from
    ``first_row`` on.
    """
    if type(value) is np.ndarray:
        return value
    refuse_masked(name, value, first_row)
    if isinstance(value, np.ma.MaskedArray):
        return np.ma.getdata(value, subok=False)
    if isinstance(value, np.ndarray):
        return value
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: its rows must be of one length to make an array: {error}") from error


def numbers_of(name: str, value: Any) -> npt.NDArray[Any]:
    """Return ``value`` as an array of real numbers or truth values, without a copy where it is one, or raise."""
    array = array_of(name, value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected numbers, got {_to_numbers(value, array)}")
    return array


def unknown_argument(made: type, argument: str, other_names: Mapping[str, str]) -> TypeError:
    """Return the error of an argument that a class does not take, with the one that may be meant.

    Parameters
    ----------
    made : type
        The class.
    argument : str
        The argument.
    other_names : mapping of str to str
        What the class's arguments are called elsewhere, and here.
    """
    import difflib

    taken = {name for part in made.__mro__ for name in inspect.signature(part).parameters}
    close = [other_names[argument]] if argument in other_names else difflib.get_close_matches(argument, taken, 1)
    meant = "".join(f"; did you mean {name}?" for name in close if name in taken)
    return TypeError(f"{made.__name__} takes no argument {argument!r}{meant}")


def is_missing(cell: Any) -> bool:
    """Tell whether a table's cell is empty: None, pandas's NA or NaN."""
    return cell is None or type(cell).__name__ == "NAType" or (isinstance(cell, float) and math.isnan(cell))


def _to_numbers(value: Any, array: npt.NDArray[Any]) -> str:
    """Say what came in place of numbers, and what makes numbers of it."""
    if value is None:
        return "None"
    if hasattr(value, "toarray"):
        return f"a sparse {type(value).__name__}; make it dense with .toarray(), all of it or batches of its rows"
    if array.dtype == object and array.ndim == 0 and isinstance(value, Iterable):
        return f"a {type(value).__name__}; make an array of what it yields, for example with np.stack(list(...))"
    what = f"dtype {array.dtype}; "
    if array.dtype.kind in "mM":
        return what + "count days or seconds, for example (dates - dates.min()) / np.timedelta64(1, 'D')"
    columns = array.T if array.ndim == 2 else array.reshape(1, -1)
    labels = list(getattr(value, "columns", range(len(columns))))
    for label, column in zip(labels, columns, strict=True):
        place = f"column {label!r}" if array.ndim == 2 else "it"
        for cell in column.tolist():
            if is_missing(cell) and not isinstance(cell, float):
                return f"{what}{place} has missing cells ({cell!r}); fill them in, as by sklearn's SimpleImputer"
            if isinstance(cell, str):
                return f"{what}{place} holds text ({cell[:20]!r}); encode it, as by sklearn's OneHotEncoder"
    return what + "convert it, for example with .astype('float32')"


def refuse_masked(name: str, value: Any, first_row: int = 0) -> None:
    """Raise for the first element that a masked array, or a list of such rows, masks; names its row and column."""
    if isinstance(value, list | tuple) and any(isinstance(part, np.ma.MaskedArray) for part in value):
        value = np.ma.array(value)
    if not isinstance(value, np.ma.MaskedArray) or not np.ma.is_masked(value):
        return
    mask = np.atleast_1d(np.ma.getmaskarray(value))
    row, column = np.argwhere(mask.reshape(len(mask), -1))[0]
    where = f"row {first_row + row}" + (f", column {column}" if mask.ndim > 1 else "")
    raise ValueError(f"{name}: masked element in {where}; fill it, or leave its row out, first")


def matrix(name: str, value: Any, n: int, owner: str) -> npt.NDArray[Any]:
    """Return ``value`` as a two-dimensional real array of ``n`` columns, without a copy where it is one."""
    return rows(name, value, (n,), owner)


def rows(name: str, value: Any, shape: tuple[int, ...], owner: str) -> npt.NDArray[Any]:
    """Return ``value`` as a real array of rows, each of ``shape`` laid end to end, without a copy where it is one."""
    array = numbers_of(name, value)
    refuse_shape(name, array.shape, shape, owner)
    return array if array.ndim == 2 else array.reshape(array.shape[0], math.prod(shape))


def refuse_shape(name: str, got: tuple[int, ...], shape: tuple[int, ...], owner: str) -> None:
    """Raise unless data of a shape are rows of another."""
    if len(got) != 1 + len(shape) or got[1:] != shape:
        expected = ", ".join(map(str, shape))
        of_row = f"; one row is x.reshape(1, {'-1' if len(shape) == 1 else expected})"
        hint = "; a column is x.reshape(-1, 1)" if shape == (1,) else of_row
        hint = hint if len(got) == len(shape) else ""
        raise ValueError(f"{name}: {owner} expects shape (rows, {expected}), got {got}{hint}")


def source(array: npt.NDArray[Any]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]:
    """Return a matrix as ``(bytes, form)`` for the engine's gather: a view of its memory, whatever its layout.

    Only what the compiled loops cannot read (foreign byte order, long double, misaligned) is copied.
    """
    if array.dtype not in DTYPES or not array.flags.aligned:
        array = np.array(
            array, dtype=array.dtype.newbyteorder("=") if array.dtype.newbyteorder("=") in DTYPES else np.float64
        )
    form = np.zeros(1, FORM)
    if array.size == 0:
        form[0] = (DTYPES[array.dtype], 0, 0, 0, *array.shape)
        return np.zeros(0, np.uint8), form
    low, high = np.lib.array_utils.byte_bounds(array)
    # Through the base address: a read-only array (a memmap) would be another type to the compiled code.
    interface = {"shape": (high - low,), "typestr": "|u1", "data": (low, False), "version": 3}
    memory = np.asarray(_Memory(interface, array))
    form[0] = (DTYPES[array.dtype], array.__array_interface__["data"][0] - low, *array.strides, *array.shape)
    return memory, form


class _Memory:
    """An array's memory, lent through the array interface; the array is kept alive as long as it is lent."""

    def __init__(self, interface: dict[str, Any], owner: npt.NDArray[Any]) -> None:
        self.__array_interface__ = interface
        self.owner = owner


def no_source() -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]:
    """Return the source that stands for no data."""
    return np.zeros(0, np.uint8), np.zeros(1, FORM)


def refuse_not_finite(name: str, data: tuple[npt.NDArray[np.uint8], npt.NDArray[Any]], dtype: np.dtype[Any]) -> None:
    """Raise for the first NaN or infinity (in the engine's ``dtype``), naming its row and column."""
    memory, form = data
    if form[0]["code"] > DTYPES[np.dtype(np.float16)]:
        return  # integers are finite
    rows, columns = int(form[0]["rows"]), int(form[0]["columns"])
    if rows == 0 or columns == 0:
        return
    kind = next(kind for kind, code in DTYPES.items() if code == form[0]["code"])
    strides = int(form[0]["row_stride"]), int(form[0]["column_stride"])
    values = np.ndarray((rows, columns), kind, memory, int(form[0]["offset"]), strides)
    step = max(1, _PIECE // columns)
    for first in range(0, rows, step):
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(values[first : first + step].astype(dtype, copy=False))
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise ValueError(
                f"{name}: NaN or infinity (in {dtype}) in row {first + row}, column {column}; remove or fill it first"
            )


def matrix_of(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Copy to a C-ordered matrix that may be written to; numbers too large for ``dtype`` become infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(array, dtype, order="C")


def finite_float32(array: npt.NDArray[np.floating], layer: str, tensor: str) -> npt.NDArray[np.float32]:
    """Return an array as float32; refuse it where that is not finite.

    Parameters
    ----------
    array : ndarray
        Of floats.
    layer, tensor : str
        Names of the layer and its tensor, for the error.

    Raises
    ------
    ValueError
        If something in it is not finite in float32.
    """
    with np.errstate(over="ignore"):
        converted = array.astype(np.float32)
    if not np.isfinite(converted).all():
        raise ValueError(f"{layer}: its {tensor} holds NaN, infinity, or a number too large for float32")
    return converted
