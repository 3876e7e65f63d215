"""Loops over a user's own scalar functions, compiled by themselves; engine.elementwise.custom calls their addresses."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.core import errors, types

from nbdense._compile.policy import JIT, c_function, inlined, scalar

_BODIES = {
    "forward": "a[i] = f(a[i])",
    "backward": "c[i] = c[i] * f(a[i])",
    "loss": "total += f(a[i], b[i]); c[i] = g(a[i], b[i]) * scale",
}
LOOPS: dict[int, Callable[..., Any]] = {}  # by address: what was made, which must live as long as tables name it
_ROW_FUNCTIONS = (
    *("abs", "sign", "sqrt", "exp", "expm1", "log", "log1p", "log2", "log10", "logaddexp", "maximum", "minimum"),
    *("sin", "cos", "tan", "arctan", "sinh", "cosh", "tanh", "isnan", "inf"),
)
_FIRST_ADDRESS = 1 << 16  # where nothing is compiled and addresses are numbers: no code of a table is as large
_at: dict[Any, int] = {}
_lock = threading.Lock()


def loop(
    body: str,
    dtype: Any,
    f: Callable[..., Any],
    g: Callable[..., Any] | None = None,
    *,
    owner: str = "a custom function",
) -> int:
    """Compile a loop over a user's scalar functions; returns its address. It lives with the process.

    Parameters
    ----------
    body : {"forward", "backward", "loss"}
        Kind of loop.
    dtype : dtype
        Type of the elements.
    f, g : callable
        Scalar functions; numba must be able to compile them.
    owner : str
        What they belong to, for the error.

    Raises
    ------
    ValueError
        If numba cannot compile one, with its reason.
    """
    return _once((body, np.dtype(dtype), f, g), lambda: _make(body, np.dtype(dtype), f, g, owner))


def step_loop(
    dtype: Any, step: Callable[..., Any], slots: int, fields: int, *, owner: str = "a custom optimizer"
) -> int:
    """Compile the loop of a user's optimizer over a range of parameters; returns its address, which stays valid.

    Parameters
    ----------
    dtype : dtype
        Type of the parameters.
    step : callable
        ``step(weight, gradient, *slots, rate, iteration, *fields)`` of numbers, which returns the new weight, or a
        tuple of it and the new slots.
    slots, fields : int
        The numbers of both.
    owner : str
        As in `loop`.

    Raises
    ------
    ValueError
        If numba cannot compile it, with its reason.
    """
    dtype = np.dtype(dtype)
    return _once(("step", dtype, step, slots, fields), lambda: _make_step(dtype, step, slots, fields, owner))


def row_loop(dtype: Any, body: str, *, owner: str = "a custom loss") -> int:
    """Compile the loop of a loss that is a number of a whole row; returns its address, as `loop` does for "loss".

    Parameters
    ----------
    dtype : dtype
        Of the elements.
    body : str
        Lines of Python that read ``count`` outputs in ``a`` and targets in ``b``, write ``scale`` times the derivative
        by the outputs to ``c``, and return the row's number. ``number`` is the dtype; functions are NumPy's.
    owner : str
        As in `loop`.

    Raises
    ------
    ValueError
        If numba cannot compile it, with its reason.
    """
    dtype = np.dtype(dtype)
    return _once(("row", dtype, body), lambda: _make_row(dtype, body, owner))


def _once(key: Any, make: Callable[[], tuple[Any, int]]) -> int:
    with _lock:
        if key not in _at:
            made, address = make()
            LOOPS[address] = made
            _at[key] = address
        return _at[key]


def _make_step(dtype: np.dtype[Any], step: Any, slots: int, fields: int, owner: str) -> tuple[Any, int]:
    arguments = (*(dtype,) * (3 + slots), np.dtype(np.int64), *(dtype,) * fields)
    space: dict[str, Any] = {"carray": numba.carray, "number": dtype.type}
    space["f"] = _scalar(step, arguments, owner, results=1 + slots)
    state = "".join(f", s[{k}, i]" for k in range(1, 1 + slots))
    names = [f"field_{k}" for k in range(fields)]
    lines = ["rate = number(rate)", *(f"{name} = number(h[{k}])" for k, name in enumerate(names))]
    head = "def run(w, s, rate, iteration, h):"
    if JIT:  # NumPy's slices know their shapes; C's pointers do not
        head = "def run(w, s, row, count, rate, iteration, h):"
        lines.insert(0, f"w, s, h = carray(w, count), carray(s, ({1 + slots}, row)), carray(h, {max(1, fields)})")
    lines.append("for i in range(w.size):")
    lines.append(f"    w[i]{state} = f(w[i], s[0, i]{state}, {', '.join(['rate', 'iteration', *names])})")
    exec("\n    ".join([head, *lines]), space)
    numbers, hyper = (types.CPointer(numba.from_dtype(np.dtype(kind))) for kind in (dtype, "f8"))  # type: ignore[attr-defined]
    counts = (types.int64, types.int64, types.float64, types.int64)
    return _addressed(space["run"], types.void, (numbers, numbers, *counts, hyper))


def _make_row(dtype: np.dtype[Any], body: str, owner: str) -> tuple[Any, int]:
    space = {name: getattr(np, name) for name in _ROW_FUNCTIONS} | {"number": dtype.type, "carray": numba.carray}
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    exec(f"def row(a, b, c, count, scale):\n{lines}\n", space)
    try:
        space["row"] = inlined(space["row"])
        # callers divide by the columns what is a mean over them: this is none
        return _addressed_views(space, "return row(a, b, c, count, scale * count) * count", dtype)
    except errors.NumbaError as error:
        raise ValueError(f"{owner}: numba cannot compile it: {_reason(error)}") from error


def _make(body: str, dtype: np.dtype[Any], f: Any, g: Any, owner: str) -> tuple[Any, int]:
    space: dict[str, Any] = {"carray": numba.carray}
    for name, function in zip("fg", (f, g), strict=True):
        if function is not None:
            space[name] = _scalar(function, (dtype,) * (2 if body == "loss" else 1), owner)
    lines = f"total = 0.0\n    for i in range(count):\n        {_BODIES[body]}\n    return total"
    return _addressed_views(space, lines, dtype)


def _addressed_views(space: dict[str, Any], lines: str, dtype: np.dtype[Any]) -> tuple[Any, int]:
    """Compile lines that work on ``count`` elements of a, b and c, as `_addressed` does."""
    # NumPy's slices know their lengths; C's pointers do not.
    arguments = "a, b, c, count, scale" if JIT else "a, b, c, scale"
    views = "a, b, c = carray(a, count), carray(b, count), carray(c, count)" if JIT else "count = a.size"
    exec(f"def run({arguments}):\n    {views}\n    {lines}\n", space)
    pointer = types.CPointer(numba.from_dtype(dtype))  # type: ignore[attr-defined]
    return _addressed(space["run"], types.float64, (pointer, pointer, pointer, types.int64, types.float64))


def _addressed(run: Callable[..., Any], result: Any, arguments: tuple[Any, ...]) -> tuple[Any, int]:
    """Compile a loop as a C function; returns it and its address."""
    if not JIT:
        return run, _FIRST_ADDRESS + len(LOOPS)
    made = c_function(run, result, arguments)
    return made, int(made.address)


def _scalar(function: Callable[..., Any], arguments: tuple[Any, ...], owner: str, results: int = 1) -> Any:
    try:
        return scalar(function, arguments, results)
    except errors.NumbaError as error:
        name = getattr(function, "__name__", repr(function))
        raise ValueError(f"{owner}: numba cannot compile its function {name!r}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return the reason out of numba's message: its first lines, without colours and source code."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines()]
    sentences: list[str] = []
    for line in lines:
        if sentences and line.startswith(("File ", "During:", "There are", "Note:")):
            break
        if line and not line.startswith("Failed in"):
            sentences.append(line)
    return " ".join(sentences[:3]) or type(error).__name__
