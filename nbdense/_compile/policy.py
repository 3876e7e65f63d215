"""The compile policy: the one module that calls numba's decorators.

``kernel``      a loop called by other compiled code; compiled into its callers.
``entry``       a function that Python calls; cached on disk.
``entry_pair``  one body compiled twice: serial, and with its ``prange`` in parallel.
``intrinsic``   LLVM IR with a plain-loop twin, which stands in for it where there is no JIT.
``by_dtype``    a scalar function with a float32 and a float64 body.
``scalar``      a user's own scalar function, and ``c_function`` a loop over it: see `nbdense._compile.loops`.
``kept_c_function``  a loop over a kernel, compiled on demand; cached on disk.

Flags, and why: ``error_model="numpy"`` (a division by zero gives inf, not an exception), ``nogil`` (predict is
called from several threads), no fastmath (``nnan`` deletes NaN checks, ``reassoc`` lets results depend on the
vector width), and of numba's parallel transformations only ``prange``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.core import config, errors, types
from numba.core.ccallback import CFunc
from numba.extending import intrinsic as _numba_intrinsic
from numba.extending import overload as _numba_overload

from nbdense._compile.numba_internals import Cache, EntryCompiler, KernelCompiler

JIT = not config.DISABLE_JIT
_FLAGS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
_PRANGE_ONLY = {
    "prange": True,
    "comprehension": False,
    "reduction": False,
    "inplace_binop": False,
    "setitem": False,
    "numpy": False,
    "stencil": False,
    "fusion": False,
}


def kernel(function: Callable[..., Any], *, inline: bool = False, allocates: bool = False) -> Any:
    """Compile a loop that other compiled code calls; it is linked into the entries that call it, and cached with them.

    Python cannot call it, except where the JIT is disabled. With ``inline`` it is always inlined: a call passes
    every array as seven numbers. It counts no references (``_nrt``), which would be atomic additions for every array
    that it slices or takes from a tuple: what it is lent lives longer than the call. One that allocates has to count.
    An array that a kernel returned to an entry would be given up there without having been taken: it must not.
    """
    return numba.njit(pipeline_class=KernelCompiler, forceinline=inline, _nrt=allocates, **_FLAGS)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a `kernel` that is always inlined."""
    return kernel(function, inline=True)


def entry(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls, serial, and keep its machine code in the cache folder."""
    return _entry(function, parallel=False)


def entry_pair(function: Callable[..., Any]) -> tuple[Any, Any]:
    """Compile one body twice, as ``(serial, parallel)``: only in the second is ``prange`` parallel."""
    return _entry(function, parallel=False), _entry(function, parallel=True)


def bound(entry: Callable[..., Any], arguments: tuple[Any, ...]) -> Callable[..., Any]:
    """Return an entry's compiled function for arguments of the types of these; it does not look at types again.

    Looking costs a microsecond, as much as a small network's layer. Whoever calls it answers for the types: only
    whether an array may be written to does not matter.
    """
    if not hasattr(entry, "compile"):  # plain Python, where there is no JIT
        return entry
    function: Callable[..., Any] = entry.compile(tuple(numba.typeof(argument) for argument in arguments))
    return function


def _entry(function: Callable[..., Any], parallel: bool) -> Any:
    if not JIT:
        # Integers wrap and divisions by zero give inf in compiled code: NumPy's scalars would warn of both.
        @functools.wraps(function)
        def plain(*args: Any) -> Any:
            with np.errstate(all="ignore"):
                return function(*args)

        return plain
    options = {
        "parallel": _PRANGE_ONLY if parallel else False,
        "pipeline_class": EntryCompiler,
        "no_cfunc_wrapper": True,
    }
    dispatcher = numba.njit(**options, **_FLAGS)(function)
    dispatcher._cache = Cache(function, "parallel" if parallel else "serial")
    return dispatcher


def intrinsic(twin: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Make a numba intrinsic of the decorated typing function; ``twin`` is the same in plain loops.

    Where the JIT is disabled the twin takes the intrinsic's place. The intrinsic keeps it as ``.twin``.
    """

    def decorate(typing_function: Callable[..., Any]) -> Any:
        if not JIT:
            return twin
        made = _numba_intrinsic(typing_function)
        made.twin = twin
        return made

    return decorate


def by_dtype(float32: Callable[..., Any], float64: Callable[..., Any]) -> Any:
    """Compile a scalar function from ``float32``'s or ``float64``'s body, by the type of its first argument.

    It is always inlined: a loop with a call in it would not vectorise, and LLVM leaves bodies that it finds long. The
    result keeps both as ``.bodies``.
    """

    def plain(x: Any, *rest: Any) -> Any:
        return (float32 if isinstance(x, np.float32) else float64)(x, *rest)

    parameters = ", ".join(inspect.signature(float32).parameters)
    # overload() compares parameter names, so the stub and the chooser carry those of the bodies.
    space: dict[str, Any] = {"plain": plain, "f32": float32, "f64": float64, "types": types}
    exec(
        f"def stub({parameters}):\n    return plain({parameters})\n"
        f"def choose({parameters}):\n"
        f"    return f32 if {parameters.split(',')[0]} == types.float32 else f64\n",
        space,
    )
    stub: Any = functools.wraps(float32)(space["stub"])
    stub.bodies = (float32, float64)  # for a device whose compiler is another
    if JIT:
        del stub.__wrapped__
        _numba_overload(stub, jit_options={**_FLAGS, "forceinline": True})(space["choose"])
    return stub


def switch(
    name: str,
    functions: dict[int, str],
    arguments: str,
    body: str,
    space: dict[str, Any],
    otherwise: str = "",
    inline: bool = False,
) -> Any:
    """Compile ``def name(code, arguments)``: an if-chain that runs ``body`` for the function of that code.

    A table's rows thus reach compiled code by being in the table. ``functions`` maps codes to names in ``space``,
    the calling module's ``globals()``: functions that compiled code reaches through a closure would miss the
    disk cache in every process. ``body`` is source in which ``{f}`` stands for the function's name; ``otherwise`` is
    the statement for all other codes. Codes of the same function share a branch: what it runs is compiled in once.
    """
    lines = [f"def {name}(code, {arguments}):"]
    codes: dict[str, list[str]] = {}
    for code, function in functions.items():
        codes.setdefault(function, []).append(f"code == {code}")
    word = "if"
    for function, tests in codes.items():
        lines.append(f"    {word} {' or '.join(tests)}:")
        lines.extend("        " + line for line in body.format(f=function).strip("\n").split("\n"))
        word = "elif"
    if otherwise:
        lines.append(f"    {otherwise}")
    local: dict[str, Any] = {}
    exec(compile("\n".join(lines), f"<nbdense {name}>", "exec"), space, local)
    return kernel(local[name], inline=inline)


def scalar(function: Callable[..., Any], arguments: tuple[Any, ...], results: int = 1) -> Any:
    """Compile a user's scalar function for arguments of these dtypes; callers of the result get it compiled in.

    Raises
    ------
    numba.core.errors.NumbaError
        If numba cannot compile it, or it does not give as many real numbers as ``results`` says.
    """
    if not JIT:
        return function
    function = getattr(function, "py_func", function)
    dispatcher = numba.njit(function, error_model="numpy")
    numbers = tuple(numba.from_dtype(np.dtype(dtype)) for dtype in arguments)
    dispatcher.compile(numbers)
    made = dispatcher.overloads[numbers].signature.return_type
    parts = getattr(made, "types", (made,))  # of a tuple
    if len(parts) != results or not all(
        isinstance(part, types.Integer | types.Float | types.Boolean) for part in parts
    ):
        wanted = "a real number" if results == 1 else f"{results} real numbers"
        raise errors.TypingError(f"it must return {wanted}, but returns {made}")
    return dispatcher


def c_function(function: Callable[..., Any], result: Any, arguments: tuple[Any, ...]) -> Any:
    """Compile a function as a C function of numba's types; the result's ``address`` is where it lies."""
    return numba.cfunc(result(*arguments), error_model="numpy")(function)


def kept_c_function(function: Callable[..., Any], result: Any, arguments: tuple[Any, ...]) -> Any:
    """Compile a loop over kernels as a C function, as an `entry` is, and keep its machine code in the cache folder."""
    made: Any = CFunc(function, (arguments, result), {}, {"error_model": "numpy"}, EntryCompiler)
    made._cache = Cache(function, "serial")
    made.compile()
    return made
