"""Numba's compiler and cache, with other libraries and files behind them: the one module that reaches into numba."""

from __future__ import annotations

import gc
import hashlib
import pickle
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba.core import caching, codegen, compiler, serialize, sigutils

from nbdense._compile import kernel_cache
from nbdense._compile.compilations import timed

_NOT_FOR_KERNELS = {"InlineClosureLikes", "InlineOverloads", "LiteralUnroll", "NopythonRewrites", "WithLift"}


class KernelLibrary(codegen.JITCodeLibrary):
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
        """Do nothing: a nopython kernel's environment is never read."""


class KernelCompiler(compiler.Compiler):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.state.flags.no_cpython_wrapper = True
        self.state.flags.no_cfunc_wrapper = True
        self.state.library = KernelLibrary(self.state.targetctx.codegen(), "nbdense kernel")

    def define_pipelines(self) -> Any:
        """Return numba's passes without those for what no kernel has: closures, array expressions, overloads."""
        pipelines = super().define_pipelines()
        for manager in pipelines:
            manager.passes = [step for step in manager.passes if step[0].__name__ not in _NOT_FOR_KERNELS]
            manager.finalize()
        return pipelines


class EntryCompiler(compiler.Compiler):
    """Compiler of entries; what numba compiles on the way (overloads, the bodies of prange) are kernels too."""

    def compile_extra(self, function: Any) -> Any:
        code = self.state.targetctx.codegen()
        self.state.library = code.create_library(function.__qualname__)
        self.state.library.enable_object_caching()
        before = code._library_class
        code._library_class = KernelLibrary  # under numba's compiler lock: no other thread compiles meanwhile
        variant = "parallel" if self.state.flags.auto_parallel.enabled else "serial"
        # A tenth of the time would go into looking for garbage among what a compilation builds up.
        collected = gc.isenabled()
        gc.disable()
        try:
            with timed(function.__name__.lstrip("_"), variant):
                return super().compile_extra(function)
        finally:
            if collected:
                gc.enable()
            code._library_class = before


class Cache(caching._Cache):
    """Cache of an entry's machine code, in `cache_folder`: a file for each signature and CPU.

    Numba's own cache has an index beside its files, which two processes that compile at once can leave pointing at
    each other's code, and it trusts what it reads. Here a file is named after all that it depends on, appears whole
    or not at all, and begins with a digest: one that is damaged counts as missing, and is replaced. Nothing that
    goes wrong here is an error; it costs a compilation. A folder that can only be read is read.
    """

    def __init__(self, function: Callable[..., Any], variant: str) -> None:
        self._function, self._variant = function, variant
        # Now, and not when it is first needed: sources that are edited meanwhile are not what was imported.
        self._folder = kernel_cache.cache_folder()

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
        return folder / f"{function.__name__.lstrip('_')}-{self._variant}-{digest[:24]}{kernel_cache.SUFFIX}"

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
            parts = pickle.loads(data)  # noqa: S301 (written by save_overload, into the user's own folder)
            return compiler.CompileResult._rebuild(target_context, *parts)
        except Exception:  # whatever it is that this numba does not take: compiling helps
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        if self._folder is None or data.library.has_dynamic_globals:
            return
        content = serialize.dumps(data._reduce())
        content = hashlib.sha256(content).digest() + content
        file = self._file(self._folder, sig, data.codegen)
        unfinished = file.with_name(f"{uuid.uuid4().hex}{kernel_cache.UNFINISHED}")
        try:
            if not self._folder.exists():
                self._folder.mkdir(parents=True, exist_ok=True)
                for other in kernel_cache.other_folders()[kernel_cache.FOLDERS_KEPT :]:
                    kernel_cache.remove_folder(other)
            try:
                unfinished.write_bytes(content)
                unfinished.replace(file)
            finally:
                unfinished.unlink(missing_ok=True)
        except OSError as error:  # disk full, not writable, or (Windows) another process reads the file that is there
            kernel_cache.save_error = error

    def enable(self) -> None:
        """Do nothing: the cache is always enabled."""

    def disable(self) -> None:
        """Do nothing: the cache is always enabled."""

    def flush(self) -> None:
        """Do nothing: files whose names no longer fit are never read."""
