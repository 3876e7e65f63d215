"""The compile policy: the one module that calls numba's decorators.

``kernel``      a loop called by other compiled code; compiled into its callers.
``entry``       a function that Python calls; cached on disk.
``unit``        a kernel that several entries call; compiled once for all of them, by itself; cached on disk.
``region``      a parallel region: a kernel that each of several threads calls with its number; and ``region_of``.
``intrinsic``   LLVM IR with a plain-loop twin, which stands in for it where there is no JIT.
``by_dtype``    a scalar function with a float32 and a float64 body.
``scalar``      a user's own scalar function, and ``c_function`` a loop over it: see `nbdense._compile.loops`.
``kept_c_function``  a loop over a kernel, compiled on demand; cached on disk.

Flags, and why: ``error_model="numpy"`` (a division by zero gives inf, not an exception), ``nogil`` (predict is
called from several threads), no fastmath (``nnan`` deletes NaN checks, ``reassoc`` lets results depend on the vector
width), and none of numba's parallel transformations: a region is the same machine code on one thread and on many.
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

from nbdense._compile.compilations import Purpose
from nbdense._compile.numba_internals import (
    Cache,
    EntryCompiler,
    KernelCompiler,
    Unit,
    UnitCompiler,
    emit_call,
    emit_lending,
    emit_region,
    without_constants,
)

JIT = not config.DISABLE_JIT
_FLAGS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


def kernel(function: Callable[..., Any], *, inline: bool = False, allocates: bool = False) -> Any:
    """Compile a loop that other compiled code calls; it is linked into the entries that call it, and cached with them.

    Python cannot call it, except where the JIT is disabled, when it is the function. With ``inline`` it is always
    inlined: a call passes every array as seven numbers. It counts no references (``_nrt``), which would be atomic
    additions for every array that it slices or takes from a tuple: what it is lent lives longer than the call. One that
    allocates has to count. An array that a kernel returned to an entry would be given up there without having been
    taken: it must not.
    """
    return Kernel(function, forceinline=inline, _nrt=allocates) if JIT else function


class Kernel:
    """A kernel, whose dispatcher is made when numba first meets it: that takes 0.1 ms, and most processes compile none.

    Parameters
    ----------
    function : callable
        What is compiled.
    **options
        Numba's, beside those of all kernels.
    """

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        functools.update_wrapper(self, function)  # type: ignore[arg-type]
        self.py_func, self._options = function, options

    @functools.cached_property
    def _dispatcher(self) -> Any:
        return numba.njit(pipeline_class=KernelCompiler, **self._options, **_FLAGS)(self.py_func)

    @property
    def _numba_type_(self) -> Any:
        """The type that numba sees in it."""
        return self._dispatcher._numba_type_

    def compiled(self, arguments: tuple[Any, ...]) -> Any:
        """Return numba's compilation of it for arguments of these types."""
        self._dispatcher.compile(arguments)
        return self._dispatcher.overloads[arguments]

    def __reduce__(self) -> str:
        return self.py_func.__qualname__  # copies of what has one have the same


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a `kernel` that is always inlined."""
    return kernel(function, inline=True)


def unit(function: Callable[..., Any]) -> Any:
    """Compile a `kernel` by itself, for all that call it; its machine code is kept in the cache folder, as an entry's.

    A call is one through a symbol, and passes every array as seven numbers: units are few, and large.
    """
    if not JIT:
        return function
    compiled = _unit_of(function)
    return _intrinsic_of(function, "", compiled.called_with)


@functools.cache
def _unit_of(function: Callable[..., Any]) -> Unit:
    dispatcher = numba.njit(pipeline_class=UnitCompiler, _nrt=False, **_FLAGS)(function)
    dispatcher._cache = Cache(function)
    return Unit(dispatcher)


def address(function: Any, arguments: tuple[Any, ...]) -> int:
    """Return the address of a kernel that is compiled by itself, as a `unit`, for arguments of these numba types."""
    return _unit_of(function.py_func).address(arguments)


def by_address(function: Callable[..., Any], typed: Callable[[tuple[Any, ...]], tuple[Any, tuple[Any, ...]]]) -> Any:
    """Make ``call(at, ...)``: a call of the kernel at an `address`.

    Parameters
    ----------
    function : callable
        Has the parameters' names.
    typed : callable
        Returns the type of the result, and those that the kernel's arguments must have, from types of arguments.
    """

    def typed_call(arguments: tuple[Any, ...]) -> Any:
        result, passed = typed(arguments[1:])

        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return emit_call(context, builder, values[0], result, passed, values[1:])

        return result(types.int64, *passed), codegen

    return _intrinsic_of(function, "at", typed_call)


def region(body: Any) -> Any:
    """Make ``run(launcher, threads, ...)``: ``body(..., thread)`` for each thread, at the same time or in turn.

    ``launcher`` is `thread_pool.launcher`'s, or 0: then the caller's thread does it all.
    """
    if not JIT:
        return lambda launcher, threads, *rest: _in_turn(body, threads, rest)

    def typed(arguments: tuple[Any, ...]) -> Any:
        return _typed_region(body, (), arguments)

    return _intrinsic_of(body.py_func, "at_once, in_all", typed, slice(None, -1))


def region_of(body: Any, count: int) -> tuple[Any, Any]:
    """Make ``lend(...)`` and ``run(launcher, threads, lent, ...)``: a `region` of many calls.

    ``lend`` gets the first ``count`` arguments, which are the same in all calls: what they are is written to memory
    once, and not for each region anew.
    """
    if not JIT:
        run = lambda launcher, threads, lent, *rest: _in_turn(body, threads, (*lent, *rest))  # noqa: E731
        return (lambda *lent: lent), run

    def lend(arguments: tuple[Any, ...]) -> Any:
        passed = without_constants(arguments)
        return types.CPointer(types.Tuple(passed))(*passed), emit_lending  # type: ignore[attr-defined]

    def typed(arguments: tuple[Any, ...]) -> Any:
        return _typed_region(body, tuple(arguments[2].dtype), arguments)

    return (
        _intrinsic_of(body.py_func, "", lend, slice(None, count)),
        _intrinsic_of(body.py_func, "at_once, in_all, lent", typed, slice(count, -1)),
    )


def _in_turn(body: Any, threads: int, arguments: tuple[Any, ...]) -> None:
    for thread in range(threads):
        body(*arguments, thread)


def _typed_region(body: Any, lent: tuple[Any, ...], arguments: tuple[Any, ...]) -> Any:
    passed = without_constants(arguments[2:])
    kinds = (*lent, *passed[bool(lent) :], types.int64)
    compiled = body.compiled(kinds)

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit_region(context, builder, compiled, values[0], values[1], values[2:], len(lent))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, *passed), codegen


def _intrinsic_of(
    function: Callable[..., Any], before: str, typed: Callable[[tuple[Any, ...]], Any], which: slice = slice(None)
) -> Any:
    """Make an intrinsic with some of a function's parameters, behind others; ``typed`` gets their types."""
    names = ", ".join([*filter(None, [before]), *list(inspect.signature(function).parameters)[which]])
    space: dict[str, Any] = {"typed": typed}
    exec(f"def {function.__name__}(typing_context, {names}):\n    return typed(({names},))\n", space)
    made = _numba_intrinsic(space[function.__name__])
    made.twin = function
    return made


def entry(function: Callable[..., Any], purpose: str = "", seconds: float = 0.0) -> Any:
    """Compile a function that Python calls, and keep its machine code in the cache folder.

    ``purpose`` says what is compiled, where that is worth a line to the user, ``seconds`` how long about it takes.
    """
    if not JIT:
        # Integers wrap and divisions by zero give inf in compiled code: NumPy's scalars would warn of both.
        @functools.wraps(function)
        def plain(*args: Any) -> Any:
            with np.errstate(all="ignore"):
                return function(*args)

        return plain
    if purpose:
        function.purpose = Purpose(purpose, seconds)  # type: ignore[attr-defined]
    dispatcher = numba.njit(pipeline_class=EntryCompiler, no_cfunc_wrapper=True, **_FLAGS)(function)
    dispatcher._cache = Cache(function)
    return dispatcher


def bound(entry: Callable[..., Any], arguments: tuple[Any, ...]) -> Callable[..., Any]:
    """Return an entry's compiled function for arguments of the types of these; it does not look at types again.

    Looking costs a microsecond, as much as a small network's layer. Whoever calls it answers for the types: only
    whether an array may be written to does not matter.
    """
    if not hasattr(entry, "compile"):  # plain Python, where there is no JIT
        return entry
    function: Callable[..., Any] = entry.compile(tuple(numba.typeof(argument) for argument in arguments))
    return function


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
    made._cache = Cache(function)
    made.compile()
    return made
