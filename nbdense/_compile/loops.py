"""Loops that are compiled by themselves, on demand; engine.elementwise.custom calls their addresses.

They are over a user's own scalar functions, or over kernels of the library's that are not part of its program. They are
kept in the cache folder, as the program is; of a user's own those whose code says all that they compute (`_text_of`).
"""

from __future__ import annotations

import builtins
import ctypes
import hashlib
import math
import re
import threading
from collections.abc import Callable
from types import FunctionType, NoneType
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba.core import errors, types

from nbdense._compile.policy import JIT, c_function, inlined, kept_c_function, scalar

NUMBERS = "pqr"  # that a loop is given beside its arrays
_EACH = "for i in range(count): "
_BODIES = {
    "forward": _EACH + "a[i] = f(a[i])",
    "backward": _EACH + "c[i] = c[i] * f(a[i])",
    "loss": _EACH + "total += f(a[i], b[i]); c[i] = g(a[i], b[i]) * p",
}
# Of kernels, which get numbers too. A row's are given all of it at once.
_KERNEL_BODIES = {
    "forward": _EACH + "a[i] = f(a[i]{numbers})",
    "backward": _EACH + "c[i] = c[i] * f(a[i], b[i]{numbers})",
    # Loops by themselves, each of which the compiler vectorises: it would not if one of them had a sum in it.
    "loss": f"{_EACH}c[i] = f(a[i], b[i], q)\n    {_EACH}total += c[i]\n    scale = c.dtype.type(p)\n"
    f"    {_EACH}c[i] = g(a[i], b[i], q) * scale",
    "row_forward": "f(a)",
    "row_backward": "f(a, b, c)",
    "row_loss": "total = f(a, b, c, q, r != 0.0, p)",
}
LOOPS: dict[int, Callable[..., Any]] = {}  # by address: what was made, which must live as long as tables name it
_ROW_FUNCTIONS = (
    *("abs", "sign", "sqrt", "exp", "expm1", "log", "log1p", "log2", "log10", "logaddexp", "maximum", "minimum"),
    *("sin", "cos", "tan", "arctan", "sinh", "cosh", "tanh", "isnan", "inf"),
)
_FIRST_ADDRESS = 1 << 16  # where nothing is compiled and addresses are numbers: no code of a table is as large
_PROTOTYPE = ctypes.CFUNCTYPE(
    ctypes.c_double, *[ctypes.c_void_p] * 3, ctypes.c_int64, *[ctypes.c_double] * len(NUMBERS)
)
_UNCHANGING = {id(one) for one in (math, np, *filter(callable, vars(builtins).values()))}
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


def kernel_loop(
    name: str,
    body: str,
    dtype: Any,
    f: Callable[..., Any],
    numbers: int = 0,
    derivative: Callable[..., Any] | None = None,
) -> int:
    """Compile a loop over a kernel of the library's; returns its address. Later processes load it.

    Parameters
    ----------
    name : str
        What it belongs to.
    body : {"forward", "backward", "loss", "row_forward", "row_backward", "row_loss"}
        Kind of loop.
    dtype : dtype
        Type of the elements.
    f : kernel
        Of one number, or of a whole row in the last three.
    numbers : int
        How many it takes beside these.
    derivative : kernel, optional
        Of "loss": of what f gives.
    """
    dtype = np.dtype(dtype)
    return _once((name, body, dtype, f), lambda: _make_of_kernel(name, body, dtype, f, derivative, numbers))


def kernel_step(name: str, dtype: Any, f: Callable[..., Any], slots: int, fields: int) -> int:
    """Compile the step of one of the library's optimizers; returns its address, as `step_loop` does.

    Parameters
    ----------
    name : str
        What it belongs to.
    dtype : dtype
        Type of the parameters.
    f : kernel
        ``f(params, state, low, high, rate, hyper)``, of a range of parameters.
    slots, fields : int
        The most slots that it may have, and numbers in ``hyper``.
    """
    dtype = np.dtype(dtype)

    def make() -> tuple[Any, int]:
        lines = ["f(w, s, 0, w.size, rate, h)"]
        run = _range_loop(lines, slots, fields, {"f": f})
        run.__name__ = run.__qualname__ = f"{name}_step"
        return _addressed(run, types.void, _range_loop_arguments(dtype), kept=True)

    return _once(("kernel step", name, dtype, f), make)


def run_loop(address: int, array: npt.NDArray[Any], numbers: tuple[float, ...] = ()) -> None:
    """Run a forward loop on all elements of a C-ordered array, in place.

    Parameters
    ----------
    address : int
        What `loop` or `kernel_loop` gave for the array's dtype.
    array : ndarray
        The elements.
    numbers : tuple of float
        What the loop takes beside them.
    """
    given = (*numbers, *(0.0,) * (len(NUMBERS) - len(numbers)))
    if not JIT:
        with np.errstate(all="ignore"):
            LOOPS[address](*[array.reshape(-1)] * 3, *given)
        return
    function = _PROTOTYPE(address)
    function(*[array.ctypes.data] * 3, array.size, *given)


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
    space: dict[str, Any] = {"number": dtype.type, "f": _scalar(step, arguments, owner, results=1 + slots)}
    state = "".join(f", s[{k}, i]" for k in range(1, 1 + slots))
    names = [f"field_{k}" for k in range(fields)]
    lines = ["rate = number(rate)", *(f"{name} = number(h[{k}])" for k, name in enumerate(names))]
    lines.append("for i in range(w.size):")
    lines.append(f"    w[i]{state} = f(w[i], s[0, i]{state}, {', '.join(['rate', 'iteration', *names])})")
    run = _range_loop(lines, slots, fields, space)
    kept = _named_after(run, "step", f"{slots} {fields}", step)
    return _addressed(run, types.void, _range_loop_arguments(dtype), kept)


def _range_loop(lines: list[str], slots: int, fields: int, space: dict[str, Any]) -> Callable[..., Any]:
    """Return a function of a range of parameters and an optimizer's state, in Python."""
    space |= {"carray": numba.carray, "__name__": __name__}
    head = "def run(w, s, rate, iteration, h):"
    if JIT:  # NumPy's slices know their shapes; C's pointers do not
        head = "def run(w, s, row, count, rate, iteration, h):"
        arrays = f"w, s, h = carray(w, count), carray(s, ({1 + slots}, row)), carray(h, {max(1, fields)})"
        lines = [arrays, *lines]
    exec("\n    ".join([head, *lines]), space)
    made: Callable[..., Any] = space["run"]
    return made


def _range_loop_arguments(dtype: np.dtype[Any]) -> tuple[Any, ...]:
    numbers, hyper = (types.CPointer(numba.from_dtype(np.dtype(kind))) for kind in (dtype, "f8"))  # type: ignore[attr-defined]
    return numbers, numbers, types.int64, types.int64, types.float64, types.int64, hyper


def _make_row(dtype: np.dtype[Any], body: str, owner: str) -> tuple[Any, int]:
    space = {name: getattr(np, name) for name in _ROW_FUNCTIONS} | {"number": dtype.type, "__name__": __name__}
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    exec(f"def row(a, b, c, count, scale):\n{lines}\n", space)
    try:
        space["row"] = inlined(space["row"])
        # callers divide by the columns what is a mean over them: this is none
        run = _array_loop("total = row(a, b, c, count, p * count) * count", space)
        return _addressed(run, types.float64, _array_loop_arguments(dtype), _named_after(run, "loss", body))
    except errors.NumbaError as error:
        raise ValueError(f"{owner}: numba cannot compile it: {_reason(error)}") from error


def _make(body: str, dtype: np.dtype[Any], f: Any, g: Any, owner: str) -> tuple[Any, int]:
    space: dict[str, Any] = {"__name__": __name__}
    for name, function in zip("fg", (f, g), strict=True):
        if function is not None:
            space[name] = _scalar(function, (dtype,) * (2 if body == "loss" else 1), owner)
    run = _array_loop(_BODIES[body], space)
    return _addressed(run, types.float64, _array_loop_arguments(dtype), _named_after(run, body, "", f, g))


def _make_of_kernel(name: str, body: str, dtype: np.dtype[Any], f: Any, g: Any, numbers: int) -> tuple[Any, int]:
    source = _KERNEL_BODIES[body].format(numbers="".join(f", {number}" for number in NUMBERS[:numbers]))
    run = _array_loop(source, {"f": f, "g": g, "__name__": __name__})
    run.__name__ = run.__qualname__ = f"{name}_{body}"  # what its file in the cache is named after
    return _addressed(run, types.float64, _array_loop_arguments(dtype), kept=True)


def _named_after(run: Callable[..., Any], kind: str, text: str, *functions: Callable[..., Any] | None) -> bool:
    """Name a loop after all that it computes, as its file in the cache is named; returns False if that is not known."""
    texts = [_text_of(function) for function in functions if function is not None]
    known = [one for one in texts if one is not None]
    digest = hashlib.sha256(repr([text, *known]).encode()).hexdigest()[:24]
    run.__name__ = run.__qualname__ = f"{kind}_{digest}"
    return len(known) == len(texts)


def _text_of(function: Callable[..., Any]) -> str | None:
    """Return what a function computes, as text; None if that depends on more than its code.

    It may read builtins, math and numpy. What else it reads, numba takes in as it is: a global number of the user's may
    be another one in the next process.
    """
    function = getattr(function, "py_func", function)
    if not isinstance(function, FunctionType):
        return None
    code, defaults = function.__code__, function.__defaults__ or ()
    space = {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}
    if code.co_freevars or not all(id(value) in _UNCHANGING for value in space.values()):
        return None
    if not all(isinstance(one, int | float | str | NoneType) for one in (*code.co_consts, *defaults)):
        return None
    modules = sorted((name, value.__name__) for name, value in space.items())
    return repr((code.co_code, code.co_consts, code.co_names, code.co_varnames, modules, defaults))


def _array_loop(body: str, space: dict[str, Any]) -> Callable[..., Any]:
    """Return a function of three arrays and some numbers, in Python."""
    space["carray"] = numba.carray
    # NumPy's slices know their lengths; C's pointers do not.
    numbers = ", ".join(NUMBERS)
    arguments, first = f"a, b, c, count, {numbers}", "a, b, c = carray(a, count), carray(b, count), carray(c, count)"
    if not JIT:
        arguments, first = f"a, b, c, {numbers}", "count = a.size"
    exec(
        f"def run({arguments}):\n    {first}\n    total = 0.0\n    {body}\n    return total\n",
        space,
    )
    made: Callable[..., Any] = space["run"]
    return made


def _array_loop_arguments(dtype: np.dtype[Any]) -> tuple[Any, ...]:
    pointer = types.CPointer(numba.from_dtype(dtype))  # type: ignore[attr-defined]
    return (pointer, pointer, pointer, types.int64, *(types.float64,) * len(NUMBERS))


def _addressed(run: Callable[..., Any], result: Any, arguments: tuple[Any, ...], kept: bool = False) -> tuple[Any, int]:
    """Compile a loop as a C function; returns it and its address."""
    if not JIT:
        return run, _FIRST_ADDRESS + len(LOOPS)
    made = (kept_c_function if kept else c_function)(run, result, arguments)
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
