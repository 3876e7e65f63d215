"""Numba's compiler and cache, with other libraries and files behind them: the one module that reaches into numba."""

from __future__ import annotations

import copy
import hashlib
import pickle
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import caching, cgutils, codegen, compiler, postproc, serialize, sigutils, transforms, types
from numba.core.runtime import rtsys
from numba.core.types.containers import BaseTuple

from nbdense._compile import kernel_cache
from nbdense._compile.compilations import timed
from nbdense._compile.garbage import uncollected
from nbdense._compile.libraries import EntryLibrary, KernelLibrary

# Numba's passes for what no kernel has: closures, array expressions, overloads to inline, with blocks, raised errors.
_NOT_FOR_KERNELS = {
    *("InlineClosureLikes", "InlineInlinables", "InlineOverloads", "MakeFunctionToJitFunction", "NopythonRewrites"),
    *("LiteralUnroll", "LiteralPropagationSubPipelinePass", "FindLiterallyCalls", "RewriteDynamicRaises"),
    *("WithLifting", "NoPythonSupportedFeatureValidation", "DumpParforDiagnostics"),
}


class Flags(compiler.Flags):
    """Flags that are compared fast: numba compares them whenever it looks for an overload, a hundred times a kernel.

    Those that differ in what was set, and not in what is, count as different.
    """

    __slots__ = ()

    def __hash__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return self._values == other._values if isinstance(other, Flags) else super().__eq__(other)


class _Pipeline(compiler.Compiler):
    """Numba's passes without those that find nothing in what is written here."""

    def define_pipelines(self) -> Any:
        return [_passes(self.state)]


def _passes(state: Any) -> Any:
    """Return the passes, a manager anew for each function; which passes wait for which is looked at once."""
    if not _kept:
        manager = compiler.DefaultPassBuilder.define_nopython_pipeline(state)
        manager.passes = [step for step in manager.passes if step[0].__name__ not in _NOT_FOR_KERNELS]
        manager.finalize()
        _kept.append(manager)
    made = copy.copy(_kept[0])
    made.exec_times = {}
    return made


_kept: list[Any] = []


class KernelCompiler(_Pipeline):
    """Compiler of kernels, while an entry is compiled, which has had numba look for new declarations."""

    def __init__(self, typing: Any, target: Any, *args: Any, **kwargs: Any) -> None:
        with _replaced(typing, "refresh", _nothing), _replaced(target, "refresh", _nothing):
            super().__init__(typing, target, *args, **kwargs)
        vars(self.state.targetctx).pop("refresh", None)  # a copy, which needs it where numba finds no definition
        self.state.flags = Flags(self.state.flags)
        self.state.flags.no_cpython_wrapper = True
        self.state.flags.no_cfunc_wrapper = True
        self.state.library = KernelLibrary(self.state.targetctx.codegen(), "nbdense kernel")


def _nothing() -> None:
    pass


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an object another attribute: under numba's compiler lock, so that no other thread compiles meanwhile."""
    own = name in getattr(owner, "__dict__", ())
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own or not hasattr(type(owner), name):
            setattr(owner, name, before)
        else:
            delattr(owner, name)


def _making(code: Any, library_class: type) -> AbstractContextManager[None]:
    """Let numba make libraries of that class."""
    return _replaced(code, "_library_class", library_class)


def _resolving_once(context: Any) -> AbstractContextManager[None]:
    """Let numba's typing context keep what it finds: inference asks for every call again in each of its rounds."""
    resolve, found = context.resolve_function_type, dict[Any, Any]()

    def resolved(function: Any, arguments: Any, keywords: Any) -> Any:
        key = function, tuple(arguments), tuple(sorted(keywords.items())) if keywords else ()
        try:
            signature = found.get(key)
        except TypeError:  # a slice is no key
            return resolve(function, arguments, keywords)
        if signature is None:
            signature = found[key] = resolve(function, arguments, keywords)
        return signature

    return _replaced(context, "resolve_function_type", resolved)


def _lifetimes_alone() -> AbstractContextManager[None]:
    """Let numba find which variables live on entry to a block for generators alone: nothing else asks, and it is slow.

    It would after each of its passes.
    """
    run = postproc.PostProcessor.run

    def run_shortly(self: Any, emit_dels: bool = False, extend_lifetimes: bool = False) -> None:
        if emit_dels or self.func_ir.is_generator:
            run(self, emit_dels, extend_lifetimes)
            return
        self.func_ir.blocks = transforms.canonicalize_cfg(self.func_ir.blocks)
        self.func_ir.variable_lifetime = postproc.VariableLifetime(self.func_ir.blocks)
        self.func_ir.generator_info = None

    return _replaced(postproc.PostProcessor, "run", run_shortly)


def _untimed() -> AbstractContextManager[None]:
    """Let calls of LLVM go without numba's events: each function that is being compiled has a clock for them."""
    return _replaced(llvm.ffi.lib._lock, "_cblist", [])


def _blas_unseen() -> AbstractContextManager[None]:
    """Let numba take SciPy's BLAS as there, if SciPy is: to look imports scipy.linalg, for products no kernel has."""
    if "scipy" in sys.modules and "numba.np.arraymath" not in sys.modules:
        from numba.np import linalg  # some 20 ms, which loading machine code does without

        return _replaced(linalg, "ensure_blas", _nothing)
    return nullcontext()


class EntryCompiler(_Pipeline):
    """Compiler of entries; what numba compiles on the way (overloads) are kernels too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with uncollected(), _blas_unseen():  # all that numba knows is loaded by the first compiler
            super().__init__(*args, **kwargs)
        self.state.flags = Flags(self.state.flags)

    def compile_extra(self, function: Any) -> Any:
        code = self.state.targetctx.codegen()
        self.state.library = EntryLibrary(code, function.__qualname__)
        self.state.library.enable_object_caching()
        with ExitStack() as stack:
            stack.enter_context(uncollected())
            stack.enter_context(timed(function.__name__.lstrip("_"), getattr(function, "purpose", None)))
            stack.enter_context(_making(code, KernelLibrary))
            stack.enter_context(_resolving_once(self.state.typingctx))
            stack.enter_context(_lifetimes_alone())
            stack.enter_context(_untimed())
            return super().compile_extra(function)


class UnitCompiler(EntryCompiler):
    """Compiler of units, which only compiled code calls."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.state.flags.no_cpython_wrapper = True
        self.state.flags.no_cfunc_wrapper = True


class Unit:
    """A kernel that is compiled by itself and called through a symbol, which is the same in every process.

    Parameters
    ----------
    dispatcher : Dispatcher
        Of a `UnitCompiler`.
    """

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher = dispatcher
        self._addresses: dict[tuple[Any, ...], int] = {}
        self._symbols: dict[tuple[Any, ...], str] = {}
        self.name = f"{dispatcher.py_func.__module__}.{dispatcher.py_func.__qualname__}"
        _units[self.name] = self

    def address(self, arguments: tuple[Any, ...]) -> int:
        """Return the address of the unit for arguments of these types; it lives with the process."""
        if arguments not in self._addresses:
            self._dispatcher.compile(arguments)
            compiled = self._dispatcher.overloads[arguments]
            found = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
            self._addresses[arguments] = int(found)
        return self._addresses[arguments]

    def symbol(self, arguments: tuple[Any, ...]) -> str:
        """Return the symbol of the unit for arguments of these types, which is ready to be linked to."""
        if arguments not in self._symbols:
            symbol = f"{self.name}.{_digest([str(argument) for argument in arguments])}"
            llvm.add_symbol(symbol, self.address(arguments))
            _symbols[symbol] = (self.name, arguments)
            self._symbols[arguments] = symbol
        return self._symbols[arguments]

    def called_with(self, arguments: tuple[Any, ...]) -> tuple[Any, Any]:
        """Return what numba wants of an intrinsic that calls it: a signature, and what emits the call."""
        passed = without_constants(arguments)
        compiled_for = tuple(_writable(argument) for argument in passed)
        symbol = self.symbol(compiled_for)
        result = self._dispatcher.overloads[compiled_for].signature.return_type

        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            kind = context.call_conv.get_function_type(result, signature.args)
            callee = cgutils.get_or_insert_function(builder.module, kind, symbol)
            return context.call_conv.call_function(builder, callee, result, signature.args, values)[1]

        return result(*passed), codegen


_units: dict[str, Unit] = {}
_symbols: dict[str, tuple[str, tuple[Any, ...]]] = {}  # of units: their names, and types of arguments


def _writable(kind: Any) -> Any:
    """Return the type of the same memory that may be written to: units are not compiled twice for that."""
    if isinstance(kind, types.Array):
        return kind.copy(readonly=False)
    if isinstance(kind, BaseTuple):
        return BaseTuple.from_types([_writable(part) for part in kind])
    return kind


def without_constants(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return types of arguments without the values of constants, which numba counts as parts of their types."""
    return tuple(types.unliteral(argument) for argument in arguments)  # type: ignore[attr-defined]


def _digest(parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def emit_call(context: Any, builder: Any, address: Any, result: Any, kinds: Any, values: Any) -> Any:
    """Emit the call of a unit at an address; returns what it returns."""
    kind = context.call_conv.get_function_type(result, kinds)
    callee = builder.inttoptr(address, kind.as_pointer())
    return context.call_conv.call_function(builder, callee, result, kinds, values)[1]


def emit_lending(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    """Emit a pointer to a tuple of values, which the function that asks for it has on its stack."""
    lent = context.make_tuple(builder, signature.return_type.dtype, values)
    return cgutils.alloca_once_value(builder, lent)


def emit_region(context: Any, builder: Any, body: Any, launcher: Any, threads: Any, values: Any, lent: int = 0) -> None:
    """Emit the calls of a compiled kernel, ``body(*values, thread)``, for each thread: in parallel, or in turn.

    The first of the values points to a tuple of ``lent`` others, if there are any.

    A threading layer's ``parallel_for`` takes a function of NumPy's generalised ufuncs. What threads have in common is
    its ``data``; its one array begins at address 0 in steps of 1, so that a place in it is a thread's number.
    """
    number, byte = ir.IntType(64), ir.IntType(8).as_pointer()
    common = cgutils.alloca_once(builder, ir.LiteralStructType([value.type for value in values]))
    for k, value in enumerate(values):
        builder.store(value, cgutils.gep_inbounds(builder, common, 0, k))
    array = cgutils.alloca_once_value(builder, ir.Constant(byte, None))
    step = cgutils.alloca_once_value(builder, ir.Constant(number, 1))
    count = cgutils.alloca_once(builder, number)
    builder.store(threads, count)
    task = _emit_task(context, builder.module, body, common.type, lent)
    given = [array, count, step, builder.bitcast(common, byte)]
    zero = ir.Constant(number, 0)
    with builder.if_else(builder.icmp_signed("==", launcher, zero), likely=True) as (in_turn, in_parallel):
        with in_turn:
            builder.call(task, given)
        with in_parallel:
            pointers = [builder.bitcast(pointer, byte) for pointer in (task, *given)]
            kind = ir.FunctionType(ir.VoidType(), [byte] * 5 + [number] * 3)
            parallel_for = builder.inttoptr(launcher, kind.as_pointer())
            builder.call(parallel_for, [*pointers, zero, ir.Constant(number, 1), threads])
    context.active_code_library.add_linking_library(body.library)


def _emit_task(context: Any, module: Any, body: Any, common: Any, lent: int) -> Any:
    """Emit the function that a threading layer calls, for one thread's number or several side by side."""
    number, byte = ir.IntType(64), ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte.as_pointer(), number.as_pointer(), number.as_pointer(), byte])
    task = ir.Function(module, kind, module.get_unique_name("region"))
    task.linkage = "internal"
    builder = ir.IRBuilder(task.append_basic_block("entry"))
    arrays, count, _, data = task.args
    first = builder.ptrtoint(builder.load(arrays), number)
    data = builder.bitcast(data, common)
    values = [builder.load(cgutils.gep_inbounds(builder, data, 0, k)) for k in range(len(common.pointee.elements))]
    if lent:
        values[:1] = cgutils.unpack_tuple(builder, builder.load(values[0]), lent)
    callee = context.declare_function(module, body.fndesc)
    with cgutils.for_range(builder, builder.load(count)) as loop:
        thread = builder.add(first, loop.index)
        result, kinds = body.signature.return_type, body.signature.args
        context.call_conv.call_function(builder, callee, result, kinds, [*values, thread])
    builder.ret_void()
    return task


class Cache(caching._Cache):
    """Cache of an entry's machine code, in `cache_folder`: a file for each signature and CPU.

    Numba's own cache has an index beside its files, which two processes that compile at once can leave pointing at
    each other's code, and it trusts what it reads. Here a file is named after all that it depends on, appears whole
    or not at all, and begins with a digest: one that is damaged counts as missing, and is replaced. Nothing that
    goes wrong here is an error; it costs a compilation. A folder that can only be read is read.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
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
        )
        return folder / f"{function.__name__.lstrip('_')}-{_digest(key)}{kernel_cache.SUFFIX}"

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        if self._folder is None:
            return None
        rtsys.initialize(target_context)  # what machine code calls; all else that numba knows is for compiling
        try:
            content = self._file(self._folder, sig, target_context.codegen()).read_bytes()
        except OSError:
            return None
        digest, data = content[:32], content[32:]
        if hashlib.sha256(data).digest() != digest:
            return None
        try:
            units, parts = pickle.loads(data)  # noqa: S301 (written by save_overload, into the user's own folder)
            for name, arguments in units:
                _units[name].symbol(arguments)
            kernel_cache.mark_used(self._folder)
            # A unit may be loaded while what calls it is compiled.
            with _making(target_context.codegen(), codegen.JITCodeLibrary):
                return compiler.CompileResult._rebuild(target_context, *parts)
        except Exception:  # whatever it is that this numba does not take: compiling helps
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        if self._folder is None or data.library.has_dynamic_globals:
            return
        declared = [function.name for function in data.library._final_module.functions if function.is_declaration]
        units = [_symbols[name] for name in declared if name in _symbols]
        content = serialize.dumps((units, data._replace(type_annotation="")._reduce()))
        content = hashlib.sha256(content).digest() + content
        file = self._file(self._folder, sig, data.codegen)
        unfinished = file.with_name(f"{uuid.uuid4().hex}{kernel_cache.UNFINISHED}")
        try:
            if not self._folder.exists():
                self._folder.mkdir(parents=True, exist_ok=True)
                kernel_cache.remove_old_folders()
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
