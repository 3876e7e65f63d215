"""The compile policy: the one module that calls numba's decorators.

``kernel``      a loop called by other compiled code; compiled into its callers.
``entry``       a function that Python calls; cached on disk.
``entry_pair``  one body compiled twice: serial, and with its ``prange`` in parallel.
``intrinsic``   LLVM IR with a plain-loop twin, which stands in for it where there is no JIT.
``by_dtype``    a scalar function with a float32 and a float64 body.
``scalar``      a user's own scalar function, and ``c_function`` a loop over it: see `nbdense._compile.loops`.

Flags, and why: ``error_model="numpy"`` (a division by zero gives inf, not an exception), ``nogil`` (predict is
called from several threads), no fastmath (``nnan`` deletes NaN checks, ``reassoc`` lets results depend on the
vector width), and of numba's parallel transformations only ``prange``.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import inspect
import os
import pickle
import re
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core import caching, codegen, compiler, config, errors, serialize, sigutils, types
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


_NOT_FOR_KERNELS = {"InlineClosureLikes", "InlineOverloads", "LiteralUnroll", "NopythonRewrites", "WithLift"}


class _KernelLibrary(codegen.JITCodeLibrary):
    """A kernel's LLVM module, kept as it was lowered.

    Numba optimises and assembles the library of every function, callees included, so a kernel five calls below
    its entry would be compiled five times, and once more for Python, which never calls it. Here only entries are.
    """

    def _optimize_final_module(self) -> None:
        pass

    def _optimize_functions(self, ll_module: Any) -> None:
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

    def define_pipelines(self) -> Any:
        """Numba's passes without those that look for what no kernel has: closures, array expressions, overloads."""
        pipelines = super().define_pipelines()
        for manager in pipelines:
            manager.passes = [step for step in manager.passes if step[0].__name__ not in _NOT_FOR_KERNELS]
            manager.finalize()
        return pipelines


class _EntryCompiler(compiler.Compiler):
    """Compiles an entry; what numba compiles on the way (overloads, the bodies of prange) are kernels too."""

    def compile_extra(self, function: Any) -> Any:
        code = self.state.targetctx.codegen()
        self.state.library = code.create_library(function.__qualname__)
        self.state.library.enable_object_caching()
        before = code._library_class
        code._library_class = _KernelLibrary  # under numba's compiler lock: no other thread compiles meanwhile
        variant = "parallel" if self.state.flags.auto_parallel.enabled else "serial"
        # A tenth of the time would go into looking for garbage among what a compilation builds up.
        collected = gc.isenabled()
        gc.disable()
        try:
            with _timed(function.__name__.lstrip("_"), variant):
                return super().compile_extra(function)
        finally:
            if collected:
                gc.enable()
            code._library_class = before


def kernel(function: Callable[..., Any], *, inline: bool = False, allocates: bool = False) -> Any:
    """Compile a loop that other compiled code calls; it is linked into the entries that call it, and cached with them.

    Python cannot call it, except where the JIT is disabled. With ``inline`` it is always inlined: a call passes
    every array as seven numbers. It counts no references (``_nrt``), which would be atomic additions for every array
    that it slices or takes from a tuple: what it is lent lives longer than the call. One that allocates has to count.
    An array that a kernel returned to an entry would be given up there without having been taken: it must not.
    """
    return numba.njit(pipeline_class=_KernelCompiler, forceinline=inline, _nrt=allocates, **_FLAGS)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """A `kernel` that is always inlined."""
    return kernel(function, inline=True)


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
    dispatcher._cache = _Cache(function, "parallel" if parallel else "serial")
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
    """A scalar function compiled from ``float32``'s or ``float64``'s body, by the type of its first argument.

    It is always inlined: a loop with a call in it would not vectorise, and LLVM leaves bodies that it finds long.
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
    stub = functools.wraps(float32)(space["stub"])
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
        raise errors.TypingError(f"it gives {made}, not {wanted}")
    return dispatcher


def c_function(function: Callable[..., Any], result: Any, arguments: tuple[Any, ...]) -> Any:
    """Compile a function with numba's types of a C function; ``address`` of what comes back is where it is."""
    return numba.cfunc(result(*arguments), error_model="numpy")(function)


# ---------------------------------------------------------------------------------------------------------------
# What was compiled, and the line that says so

ANNOUNCE_SECONDS = 1.0  # of compiling, all in all, before the line is printed
_announced = False


@dataclass(frozen=True)
class Compilation:
    """An entry that this process compiled: its name, "serial" or "parallel", and the seconds that it took."""

    entry: str
    variant: str
    seconds: float


compilations: list[Compilation] = []


@contextmanager
def _timed(name: str, variant: str) -> Iterator[None]:
    """Record a compilation; say that it goes on once this process has compiled for ANNOUNCE_SECONDS.

    A clock says it, because no estimate of a compile's time holds for all machines.
    """
    left = ANNOUNCE_SECONDS - sum(done.seconds for done in compilations)
    timer = threading.Timer(left, _announce)
    timer.daemon = True
    if left <= 0:
        _announce()
    elif not _announced:
        try:
            timer.start()
        except RuntimeError:  # no thread can be had
            _announce()
    started = time.perf_counter()
    try:
        yield
    finally:
        timer.cancel()
    compilations.append(Compilation(name, variant, time.perf_counter() - started))


def _announce() -> None:
    global _announced
    if _announced:
        return
    _announced = True
    folder = cache_folder()
    if folder is not None and writable(folder):
        text = "once: later processes load them (`nbdense warmup` compiles ahead of time)"
    else:
        text = "and again in every process: set NBDENSE_CACHE_DIR to a folder that can be written"
    if sys.stderr is not None:  # as under pythonw
        print(f"nbdense: compiling kernels for this CPU, {text}", file=sys.stderr)


def announce_nothing() -> None:
    """Leave the line out: what this process does is known to compile."""
    global _announced
    _announced = True


# ---------------------------------------------------------------------------------------------------------------
# The cache folder

FOLDERS_KEPT = 8  # of other versions, when a new version makes its own; a folder takes a few megabytes
_SUFFIX, _UNFINISHED = ".nbk", ".tmp"
save_error: OSError | None = None  # why the last kernel that could not be kept was not


@functools.cache
def cache_root() -> Path | None:
    """The user's cache folder for nbdense, or NBDENSE_CACHE_DIR; None where there is no home folder."""
    chosen = os.environ.get("NBDENSE_CACHE_DIR")
    try:
        if chosen:
            return Path(chosen).expanduser().absolute()
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "nbdense" / "cache"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "nbdense"
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nbdense"
    except RuntimeError:
        return None


@functools.cache
def cache_folder() -> Path | None:
    """Where compiled kernels are kept: a subfolder of `cache_root` for each version.

    The subfolder's name hashes the package's sources and the versions of numba and llvmlite: numba itself
    does not notice a change in an imported function, and users would run stale kernels after an upgrade.
    """
    root = cache_root()
    if root is None:
        return None
    settings = (config.BOUNDSCHECK, config.OPT, config.LOOP_VECTORIZE, config.SLP_VECTORIZE)
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__} {settings}".encode())
    for source in compiled_sources():
        digest.update(source.read_bytes())
    return root / digest.hexdigest()[:16]


def compiled_sources() -> list[Path]:
    """The source files that compiled code is made from: changing one starts a new cache folder."""
    from importlib.util import find_spec

    here = Path(__file__).parent
    files = [*here.glob("*.py"), *(here.parent / "engine").rglob("*.py")]
    quant = find_spec("nbdense.quant")
    if quant is not None and quant.origin is not None:
        files += (Path(quant.origin).parent / "kernels").glob("*.py")
    return sorted(file for file in files if file.exists())


def writable(folder: Path) -> bool:
    """Whether files can be made in the folder, or the folder itself, if it is not there. Leaves nothing behind."""
    try:
        while not folder.exists():
            folder = folder.parent
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def kernel_files(folder: Path) -> list[Path]:
    """The files of compiled kernels in a cache folder, those included whose writing was cut short."""
    try:
        return sorted(file for file in folder.iterdir() if file.suffix in (_SUFFIX, _UNFINISHED))
    except OSError:
        return []


def other_folders() -> list[Path]:
    """Other versions' cache folders, the one used last first; nothing that may be anyone else's is among them."""
    folder = cache_folder()
    if folder is None:
        return []
    found = []
    try:
        for other in folder.parent.iterdir():
            ours = re.fullmatch("[0-9a-f]{16}", other.name) and other.is_dir() and not other.is_symlink()
            if ours and other != folder and len(kernel_files(other)) == len(list(other.iterdir())):
                found.append((other.stat().st_mtime, other))
    except OSError:
        pass  # not there, or another process is clearing up too
    return [other for _, other in sorted(found, reverse=True)]


def remove_folder(folder: Path) -> None:
    """Remove a cache folder. A process that uses it goes on, and compiles again when it is next started."""
    try:
        for file in kernel_files(folder):
            file.unlink(missing_ok=True)
        folder.rmdir()
    except OSError:
        pass  # in use (Windows), or no longer there


class _Cache(caching._Cache):
    """Keeps an entry's machine code in `cache_folder`: a file for each signature and CPU.

    Numba's own cache has an index beside its files, which two processes that compile at once can leave pointing at
    each other's code, and it trusts what it reads. Here a file is named after all that it depends on, appears whole
    or not at all, and begins with a digest: one that is damaged counts as missing, and is replaced. Nothing that
    goes wrong here is an error; it costs a compilation. A folder that can only be read is read.
    """

    def __init__(self, function: Callable[..., Any], variant: str) -> None:
        self._function, self._variant = function, variant
        # Now, and not when it is first needed: sources that are edited meanwhile are not what was imported.
        self._folder = cache_folder()

    @property
    def cache_path(self) -> str | None:
        return None if self._folder is None else str(self._folder)

    def _file(self, folder: Path, signature: Any, code: Any) -> Path:
        function = self._function
        arguments, _ = sigutils.normalize_signature(signature)
        key = (
            [str(argument) for argument in arguments],
            code.magic_tuple(),  # the CPU and its features
            sys.implementation.cache_tag,
            function.__module__,
            function.__qualname__,
            function.__code__.co_code,
            self._variant,
        )
        digest = hashlib.sha256(repr(key).encode()).hexdigest()
        return folder / f"{function.__name__.lstrip('_')}-{self._variant}-{digest[:24]}{_SUFFIX}"

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        if self._folder is None:
            return None
        target_context.refresh()
        try:
            content = self._file(self._folder, sig, target_context.codegen()).read_bytes()
        except OSError:
            return None
        digest, data = content[:32], content[32:]
        if hashlib.sha256(data).digest() != digest:
            return None
        try:
            return compiler.CompileResult._rebuild(target_context, *pickle.loads(data))
        except Exception:  # whatever it is that this numba does not take: compiling helps
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        global save_error
        if self._folder is None or data.library.has_dynamic_globals:
            return
        content = serialize.dumps(data._reduce())
        content = hashlib.sha256(content).digest() + content
        file = self._file(self._folder, sig, data.codegen)
        unfinished = file.with_name(f"{uuid.uuid4().hex}{_UNFINISHED}")
        try:
            if not self._folder.exists():
                self._folder.mkdir(parents=True, exist_ok=True)
                for other in other_folders()[FOLDERS_KEPT:]:
                    remove_folder(other)
            try:
                unfinished.write_bytes(content)
                unfinished.replace(file)
            finally:
                unfinished.unlink(missing_ok=True)
        except OSError as error:  # disk full, not writable, or (Windows) another process reads the file that is there
            save_error = error

    def enable(self) -> None:
        """Nothing: it always is."""

    def disable(self) -> None:
        """Nothing, as above."""

    def flush(self) -> None:
        """Nothing: files whose names no longer fit are never read."""
