"""Loops over a user's own scalar functions, compiled by themselves; engine.elementwise.custom calls their addresses."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.core import errors, types

from nbdense._compile.policy import JIT, c_function, scalar

_BODIES = {
    "forward": "a[i] = f(a[i])",
    "backward": "c[i] = c[i] * f(a[i])",
    "loss": "total += f(a[i], b[i]); c[i] = g(a[i], b[i]) * scale",
}
LOOPS: dict[int, Callable[..., Any]] = {}  # by address: what was made, which must live as long as tables name it
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
        What is done with them.
    dtype : dtype
        Of the elements.
    f, g : callable
        Scalar functions; numba must be able to compile them.
    owner : str
        What they belong to, for the error.

    Raises
    ------
    ValueError
        If numba cannot compile one, with its reason.
    """
    key = (body, np.dtype(dtype), f, g)
    with _lock:
        if key not in _at:
            made, address = _make(body, np.dtype(dtype), f, g, owner)
            LOOPS[address] = made
            _at[key] = address
        return _at[key]


def _make(body: str, dtype: np.dtype[Any], f: Any, g: Any, owner: str) -> tuple[Any, int]:
    space: dict[str, Any] = {"carray": numba.carray}
    for name, function in zip("fg", (f, g), strict=True):
        if function is not None:
            space[name] = _scalar(function, (dtype,) * (2 if body == "loss" else 1), owner)
    # NumPy's slices know their lengths; C's pointers do not.
    arguments, count = ("a, b, c, count, scale", "count") if JIT else ("a, b, c, scale", "a.size")
    views = "    a, b, c = carray(a, count), carray(b, count), carray(c, count)\n" if JIT else ""
    exec(
        f"def run({arguments}):\n{views}"
        f"    total = 0.0\n    for i in range({count}):\n        {_BODIES[body]}\n    return total\n",
        space,
    )
    if not JIT:
        return space["run"], 1 + len(LOOPS)
    pointer = types.CPointer(numba.from_dtype(dtype))  # type: ignore[attr-defined]
    made = c_function(space["run"], types.float64, (pointer, pointer, pointer, types.int64, types.float64))
    return made, int(made.address)


def _scalar(function: Callable[..., Any], arguments: tuple[Any, ...], owner: str) -> Any:
    try:
        return scalar(function, arguments)
    except errors.NumbaError as error:
        name = getattr(function, "__name__", repr(function))
        raise ValueError(f"{owner}: numba cannot compile its function {name!r}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What is wrong, out of numba's message: its first lines, without colours and source code."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines()]
    said: list[str] = []
    for line in lines:
        if said and line.startswith(("File ", "During:", "There are", "Note:")):
            break
        if line and not line.startswith("Failed in"):
            said.append(line)
    return " ".join(said[:3]) or type(error).__name__
