"""nbdense's entries as aarch64 programs under an emulator, called from Python on another machine.

Numba's types, lowering and linking are the real ones, up to the LLVM module of a whole entry; LLVM then optimises and
assembles that for aarch64, and it is linked with harness.c and started under qemu. A call sends the memory of its
arguments there and brings it back.

Loops that are called by their addresses are images, linked for addresses of their own; each program gets them before
it can call them.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from numba.core import types
from numba.core.registry import cpu_target

from nbdense._compile import numba_internals, policy

TRIPLE, CPU = "aarch64-linux-gnu", "generic"  # NEON and fused multiply-add are in every aarch64
FEATURES = os.environ.get("NBDENSE_AARCH64_FEATURES", "")  # what code may use beside them
COMPILER, COPIER, EMULATOR = "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-objcopy", "qemu-aarch64"
MASK = 2**64 - 1
FIRST_LOOP, LOOP_SPACE = 1 << 36, 1 << 24  # where loops lie in a program's memory: nothing else does
FUNCTIONS_AT = FIRST_LOOP - LOOP_SPACE  # where a program has the addresses of C's functions that loops call
_MATHEMATICAL = (
    *("exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "pow"),
    *("sin", "cos", "tan", "sinh", "cosh", "tanh", "atan"),
)
FUNCTIONS = ["memcpy", "memset", *(name + of_float for name in _MATHEMATICAL for of_float in ("", "f"))]

_images: list[tuple[int, bytes]] = []  # of all loops so far: address, and what lies there

llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
# As entries of the library: what numba compiles on the way is not to be optimised, for this machine, by itself.
cpu_target.target_context.codegen()._library_class = numba_internals.KernelLibrary


class Entry:
    """Stands in for the dispatcher of an entry: compiles for each signature, and runs under the emulator."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self._kernel = policy.kernel(function, allocates=True)
        self._programs: dict[Any, Program] = {}

    @property
    def signatures(self) -> list[Any]:
        return list(self._programs)

    def __call__(self, *arguments: Any) -> Any:
        signature = tuple(numba.typeof(argument) for argument in arguments)
        if signature not in self._programs:
            self._programs[signature] = Program(self._kernel, signature)
        return self._programs[signature](arguments)


def target_machine() -> llvm.TargetMachine:
    target = llvm.Target.from_triple(TRIPLE)
    return target.create_target_machine(cpu=CPU, features=FEATURES, opt=3, reloc="static", codemodel="small")


def assembly(module: str) -> str:
    """Return an LLVM module's assembly for aarch64; it stands in for `processor.assembly`."""
    with llvm.parse_assembly(module) as parsed:
        return target_machine().emit_assembly(parsed)


def assembled(kernel: Any, signature: tuple[Any, ...]) -> tuple[str, bytes, Any]:
    """A kernel and all that it calls, as nbdense_entry, in assembly and as an object file; and the type it returns."""
    for context in (cpu_target.typing_context, cpu_target.target_context):
        context.refresh()  # as an entry does: kernels rely on that numba knows all intrinsics by then
    compiled = kernel.compiled(signature)
    machine = target_machine()
    with llvm.parse_assembly(compiled.library.get_llvm_str()) as module:
        module.triple, module.data_layout = TRIPLE, str(machine.target_data)
        for function in module.functions:
            if function.name == compiled.fndesc.llvm_func_name:
                function.name, function.linkage = "nbdense_entry", "external"
            elif not function.is_declaration:
                function.linkage = "internal"
        tuning = llvm.create_pipeline_tuning_options(speed_level=3)
        tuning.loop_vectorization = True
        passes = llvm.create_pass_builder(machine, tuning)
        passes.getModulePassManager().run(module, passes)
        module.verify()
        return machine.emit_assembly(module), machine.emit_object(module), compiled.signature.return_type


class Loop:
    """Stands in for a C function: it lies at its ``address`` in the programs under the emulator."""

    def __init__(self, function: Callable[..., Any], result: Any, arguments: tuple[Any, ...]) -> None:
        kernel = policy.kernel(function, allocates=True)
        self.address = _image(kernel, arguments, functools.partial(_adapter, result, arguments))


@functools.cache
def address(kernel: Any, arguments: tuple[Any, ...]) -> int:
    """Return where a kernel lies in the programs under the emulator; it stands in for `policy.address`."""
    jump = '__asm__(".section .text.startup; .global loop; loop: b nbdense_entry; .text");'
    return _image(kernel, arguments, lambda returns: jump)


def _image(kernel: Any, arguments: tuple[Any, ...], adapter: Callable[[Any], str]) -> int:
    """Make the image of a kernel; returns its address.

    It begins with ``loop``, whose C the adapter gives for the type that the kernel returns.
    """
    address = FIRST_LOOP + len(_images) * LOOP_SPACE
    _, code, returns = assembled(kernel, arguments)
    made = Path(tempfile.mkdtemp(dir=folder().name, prefix=kernel.py_func.__name__))
    (made / "loop.o").write_bytes(code)
    jumps = "".join(f'__asm__("{line}");' for line in _jumps())
    # Arrays here are never owned.
    (made / "loop.c").write_text(
        f"{jumps}\nvoid NRT_MemInfo_call_dtor(void *block) {{ __builtin_trap(); }}\n{adapter(returns)}"
    )
    # One segment that may be written to, as it will be mapped; the adapter comes first.
    layout = f"-nostdlib -static -no-pie -Wl,-N,--build-id=none,-e,loop,-Ttext={address:#x}".split()
    files = [made / "loop.c", made / "loop.o"]
    subprocess.run([COMPILER, "-O1", *layout, *files, "-o", made / "loop.elf"], check=True)
    subprocess.run([COPIER, "-O", "binary", made / "loop.elf", made / "loop"], check=True)
    _images.append((address, (made / "loop").read_bytes()))
    return address


def _adapter(result: Any, arguments: tuple[Any, ...], returns: Any) -> str:
    """Return a C function of numba's types that calls the compiled one by numba's convention.

    What the compiled one returns may be of another type than the result: C converts it, as numba's C functions do.
    """
    kinds = {types.int64: "long", types.float64: "double", types.float32: "float", types.void: "void"}
    typed = [f"{kinds.get(argument, 'void *')} a{i}" for i, argument in enumerate(arguments)]
    passed = ", ".join(f"a{i}" for i in range(len(arguments)))
    return f"""
        extern int nbdense_entry(void *, void *, {", ".join(typed)});
        __attribute__((section(".text.startup"))) {kinds[result]} loop({", ".join(typed)}) {{
            {"void *" if result == types.void else kinds[returns]} returned = 0;
            void *error = 0;
            nbdense_entry(&returned, &error, {passed});
            return{"" if result == types.void else " returned"};
        }}"""


def _jumps() -> list[str]:
    """Return assembly for C's functions: jumps to those that the program has."""
    jump = "ldr x16, ={at}; ldr x16, [x16]; br x16; .ltorg"
    places = enumerate(FUNCTIONS)
    return [f".global {name}; {name}: " + jump.format(at=FUNCTIONS_AT + 8 * i) for i, name in places]


@functools.cache
def run_by_address() -> Entry:
    """Return the entry that runs a loop on one array."""
    from nbdense.engine.elementwise.custom import call_loop

    def run(address: int, values: Any, p: float, q: float, r: float) -> None:
        call_loop(address, values, 0, 0, 0, values.size, p, q, r)

    return Entry(run)


def run_loop(address: int, array: np.ndarray, numbers: tuple[float, ...] = ()) -> None:
    """Run a forward loop in place, as `nbdense._compile.loops.run_loop` does."""
    run_by_address()(address, array.reshape(-1), *numbers, *(0.0,) * (3 - len(numbers)))


@functools.cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """Return the folder of this process's programs; it goes when the process does."""
    return tempfile.TemporaryDirectory(prefix="nbdense-aarch64-", ignore_cleanup_errors=True)


@functools.cache
def harness() -> str:
    made = Path(folder().name) / "harness.o"
    source = Path(__file__).with_name("harness.c")
    given = [f"-DFUNCTIONS_AT={FUNCTIONS_AT:#x}", f"-DFUNCTIONS={','.join(FUNCTIONS)}"]
    options = ["-std=gnu11", "-O1", "-Wall", "-Werror", *given, "-c", source, "-o", made]
    subprocess.run([COMPILER, *options], check=True)
    return str(made)


class Program:
    """One signature of an entry, waiting for calls under the emulator."""

    def __init__(self, kernel: Any, signature: tuple[Any, ...]) -> None:
        _, code, self._returns = assembled(kernel, signature)
        name = Path(tempfile.mkstemp(dir=folder().name, prefix=kernel.py_func.__name__)[1])
        name.with_suffix(".o").write_bytes(code)
        program = name.with_suffix(".elf")
        subprocess.run(
            [COMPILER, "-static", "-no-pie", name.with_suffix(".o"), harness(), "-lm", "-o", program], check=True
        )
        self._loops = 0  # that it has got
        self._process = subprocess.Popen([EMULATOR, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        atexit.register(self._process.communicate)  # its stdin closes, and it ends

    def __call__(self, arguments: tuple[Any, ...]) -> Any:
        arrays = [array for array in _flat(arguments) if isinstance(array, np.ndarray) and array.size]
        regions = _regions(arrays)
        words, floats = _words(arguments, regions)
        message = [struct.pack("<Q", len(_images) - self._loops)]
        for address, image in _images[self._loops :]:
            message += [struct.pack("<QQ", address, len(image)), image]
        self._loops = len(_images)
        message.append(struct.pack("<Q", len(words)))
        message += [struct.pack("<QQ", region & MASK, value & MASK) for region, value in words]
        message.append(b"".join(floats).ljust(64, b"\0"))
        message.append(struct.pack("<Q", len(regions)))
        for low, high in regions:
            message += [struct.pack("<QQ", high - low, low % 64), ctypes.string_at(low, high - low)]
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in is not None and pipe_out is not None
        pipe_in.write(b"".join(message))
        pipe_in.flush()
        head = pipe_out.read(72)
        if len(head) < 72:
            raise RuntimeError(f"the emulated program ended with {self._process.wait()}")
        for low, high in regions:
            content = pipe_out.read(high - low)
            if any(array.flags.writeable and low <= _bounds(array)[0] < high for array in arrays):
                ctypes.memmove(low, content, high - low)
            else:
                assert content == ctypes.string_at(low, high - low), "read-only memory was written to"
        status = struct.unpack("<q", head[:8])[0]
        if status > 0:
            raise RuntimeError(f"the compiled code raised: status {status}")
        return _returned(self._returns, head[8:])


def _flat(arguments: Any) -> list[Any]:
    if not isinstance(arguments, tuple):
        return [arguments]
    return [part for argument in arguments for part in _flat(argument)]


def _bounds(array: np.ndarray) -> tuple[int, int]:
    """First byte of an array's elements, and the one after its last."""
    steps = [(n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True)]
    start = array.__array_interface__["data"][0]
    return start + sum(min(s, 0) for s in steps), start + sum(max(s, 0) for s in steps) + array.itemsize


def _regions(arrays: list[np.ndarray]) -> list[tuple[int, int]]:
    """The memory that the arrays lie in; arrays that share some lie in one region."""
    regions: list[tuple[int, int]] = []
    for low, high in sorted(_bounds(array) for array in arrays):
        if regions and low < regions[-1][1]:
            regions[-1] = regions[-1][0], max(high, regions[-1][1])
        else:
            regions.append((low, high))
    return regions


def _words(arguments: tuple[Any, ...], regions: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], list[bytes]]:
    """Arguments as numba passes them, (region or -1, value) each, and those that are floating point."""
    words: list[tuple[int, int]] = []
    floats: list[bytes] = []
    for value in _flat(arguments):
        if isinstance(value, np.ndarray):
            start = value.__array_interface__["data"][0]
            found = [(i, start - low) for i, (low, high) in enumerate(regions) if value.size and low <= start < high]
            words += [(-1, 0), (-1, 0), (-1, value.size), (-1, value.itemsize), *(found or [(-1, 64)])]
            words += [(-1, n) for n in (*value.shape, *value.strides)]
        elif isinstance(value, np.float32):
            floats.append(struct.pack("<fI", value, 0))
        elif isinstance(value, float):  # NumPy's float64 is one
            floats.append(struct.pack("<d", value))
        elif isinstance(value, int | np.integer | np.bool_):
            words.append((-1, int(value)))
        elif value is None:
            words.append((-1, 0))  # a pointer that is never followed
        else:
            raise TypeError(f"no way to pass a {type(value).__name__}")
    assert len(floats) <= 8
    return words, floats


def _returned(returns: Any, content: bytes) -> Any:
    if isinstance(returns, types.BaseTuple):
        return tuple(_returned(part, content[8 * i :]) for i, part in enumerate(returns))  # all of them 64 bits wide
    formats = {types.int64: "<q", types.float64: "<d", types.float32: "<f"}
    return None if returns == types.none else struct.unpack_from(formats[returns], content)[0]
