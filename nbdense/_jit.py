"""The compile policy: the one module that calls numba's decorators.

``kernel``      a loop called by other compiled code; compiled into its callers.
``entry``       a function that Python calls; cached on disk.
``entry_pair``  one body compiled twice: serial, and with its ``prange`` in parallel.
``intrinsic``   LLVM IR with a plain-loop twin, which stands in for it where there is no JIT.
``by_dtype``    a scalar function with a float32 and a float64 body.

Flags, and why: ``error_model="numpy"`` (a division by zero gives inf, not an exception), ``nogil`` (predict is
called from several threads), no fastmath (``nnan`` deletes NaN checks, ``reassoc`` lets results depend on the
vector width), and of numba's parallel transformations only ``prange``.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core import caching, codegen, compiler, config, types
from numba.extending import intrinsic as _numba_intrinsic
from numba.extending import overload as _numba_overload

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


class _KernelLibrary(codegen.JITCodeLibrary):
    """A kernel's LLVM module, kept as it was lowered.

    Numba optimises and assembles the library of every function, callees included, so a kernel five calls below
    its entry would be compiled five times, and once more for Python, which never calls it. Here only entries are.
    """

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0

    @property
    def codegen(self) -> Any:
        return self

    def set_env(self, name: str, environment: Any) -> None:
        """Nothing: a nopython kernel's environment is never read."""


class _KernelCompiler(compiler.Compiler):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.state.flags.no_cpython_wrapper = True
        self.state.flags.no_cfunc_wrapper = True
        self.state.library = _KernelLibrary(self.state.targetctx.codegen(), "nbdense kernel")


class _EntryCompiler(compiler.Compiler):
    """Compiles an entry; what numba compiles on the way (overloads, the bodies of prange) are kernels too."""

    def compile_extra(self, function: Any) -> Any:
        code = self.state.targetctx.codegen()
        self.state.library = code.create_library(function.__qualname__)
        self.state.library.enable_object_caching()
        before = code._library_class
        code._library_class = _KernelLibrary  # under numba's compiler lock: no other thread compiles meanwhile
        try:
            return super().compile_extra(function)
        finally:
            code._library_class = before


def kernel(function: Callable[..., Any], *, inline: bool = False) -> Any:
    """Compile a loop that other compiled code calls; it is linked into the entries that call it, and cached with them.

    Python cannot call it, except where the JIT is disabled. With ``inline`` it is always inlined: a call passes
    every array as seven numbers.
    """
    return numba.njit(pipeline_class=_KernelCompiler, forceinline=inline, **_FLAGS)(function)


def entry(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls, serial, and keep its machine code in the cache folder."""
    return _entry(function, parallel=False)


def entry_pair(function: Callable[..., Any]) -> tuple[Any, Any]:
    """Compile one body twice, as ``(serial, parallel)``: only in the second is ``prange`` parallel."""
    return _entry(function, parallel=False), _entry(function, parallel=True)


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
        "pipeline_class": _EntryCompiler,
        "no_cfunc_wrapper": True,
    }
    dispatcher = numba.njit(**options, **_FLAGS)(function)
    try:
        dispatcher._cache = _Cache(function, "parallel" if parallel else "serial")
    except (OSError, RuntimeError):
        pass  # no folder can be written: everything works, compiled anew in each process
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
    """A scalar function compiled from ``float32``'s or ``float64``'s body, by the type of its first argument."""

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
    stub = functools.wraps(float32)(space["stub"])
    if JIT:
        del stub.__wrapped__
        _numba_overload(stub, jit_options=dict(_FLAGS))(space["choose"])
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
    the statement for all other codes.
    """
    lines = [f"def {name}(code, {arguments}):"]
    word = "if"
    for code, function in functions.items():
        lines.append(f"    {word} code == {code}:")
        lines.extend("        " + line for line in body.format(f=function).strip("\n").split("\n"))
        word = "elif"
    if otherwise:
        lines.append(f"    {otherwise}")
    local: dict[str, Any] = {}
    exec(compile("\n".join(lines), f"<nbdense {name}>", "exec"), space, local)
    return kernel(local[name], inline=inline)


# ---------------------------------------------------------------------------------------------------------------
# The cache folder


@functools.cache
def cache_folder() -> Path:
    """Where compiled kernels are kept: the user's cache folder (or NBDENSE_CACHE_DIR), one subfolder a version.

    The subfolder's name hashes the package's sources and the versions of numba and llvmlite: numba itself
    does not notice a change in an imported function, and users would run stale kernels after an upgrade.
    """
    base = os.environ.get("NBDENSE_CACHE_DIR")
    if base:
        root = Path(base)
    elif sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA", Path.home())) / "nbdense" / "cache"
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches" / "nbdense"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nbdense"
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__} {config.BOUNDSCHECK}".encode())
    for source in compiled_sources():
        digest.update(source.read_bytes())
    return root / digest.hexdigest()[:16]


def compiled_sources() -> list[Path]:
    """The source files that compiled code is made from: changing one starts a new cache folder."""
    from importlib.util import find_spec

    here = Path(__file__).parent
    files = [*here.glob("_*.py"), here / "activations.py", here / "losses.py", here / "network.py"]
    files += sorted((here / "engine").glob("*.py"))
    quant = find_spec("nbdense.quant")
    if quant is not None and quant.origin is not None:
        files += sorted(Path(quant.origin).parent.glob("*.py"))
    return sorted(file for file in files if file.exists())


class _Locator(caching._CacheLocator):
    """Puts every entry's files into `cache_folder`, whatever folder its source is in."""

    def get_cache_path(self) -> str:
        return str(cache_folder())

    def get_source_stamp(self) -> str:
        return "in the folder's name"

    def get_disambiguator(self) -> str:
        return ""

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> _Locator:
        locator = cls()
        locator.ensure_cache_path()
        return locator


class _Cache(caching.FunctionCache):
    """Numba's function cache in our folder, in which a broken file counts as a missing one."""

    def __init__(self, function: Any, variant: str) -> None:
        class Implementation(caching.CompileResultCacheImpl):
            _locator_classes = [_Locator]

            def get_filename_base(self, fullname: str, abiflags: str) -> str:
                # Serial and parallel share a source line, and numba's key does not tell them apart.
                return f"{super().get_filename_base(fullname, abiflags)}-{variant}"

        self._impl_class = Implementation
        super().__init__(function)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            found = super().load_overload(sig, target_context)
        except Exception:  # truncated or garbled: unpickling may raise anything
            found = None
            try:
                self.flush()
            except OSError:
                pass
        if found is None:
            _announce_compilation()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError:
            pass  # disk full or made read-only meanwhile: the next process compiles again
        except Exception:
            self.flush()


@functools.cache
def _announce_compilation() -> None:
    print("nbdense: compiling kernels for this CPU (once; later processes load them from the cache)", file=sys.stderr)
