"""Bare code for small processors: compiled and linked by the ziglang wheel, run in unicorn, its instructions counted.

No startup code: a function is called with two pointers, and returns to a page of its own. unicorn tells of each block
of instructions that it enters; their lengths say how many they are. What the stack has touched is what no longer holds
the pattern that it was filled with.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from elftools.elf.elffile import ELFFile

from nbdense.export.c.targets import TARGETS

BARE = ("-ffreestanding", "-fno-sanitize=undefined", "-g0", "-ffunction-sections", "-fdata-sections")
FLOATING = ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4+vfp4d16sp")  # of "cortex-m4f"
_INPUT, _OUTPUT, _RETURN, _STACK = 0x20000000, 0x21000000, 0x30000000, 0x28000000
_PAGE, _ROOM, _DEPTH = 0x1000, 0x100000, 0x40000
_PATTERN = 0xA5


def link(source: Path, function: str, target: str, output: Path, options: Sequence[str] = ("-O2",)) -> Path:
    """Compile and link a source, of which one function and what it needs is kept."""
    wasm = target == "wasm32"
    ends = ["-Wl,--no-entry", "-Wl,--export-memory", "-Wl,--export=__heap_base", f"-Wl,--export={function}"]
    flags = TARGETS[target].flags if target in TARGETS else FLOATING
    command = [sys.executable, "-m", "ziglang", "cc", *flags, "-std=c99", *BARE, *options, str(source)]
    command += ["-Wl,--gc-sections", *(ends if wasm else [f"-Wl,-e,{function}"]), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-4000:]}")
    return output


class Sizes(NamedTuple):
    """Bytes of an ELF file's parts."""

    text: int
    constants: int
    data: int


def sizes(path: Path) -> Sizes:
    """Return what an ELF file, linked or not, takes of flash and RAM."""
    sums = dict.fromkeys(Sizes._fields, 0)
    with path.open("rb") as stream:
        for section in ELFFile(stream).iter_sections():
            allocated, writable, code = section["sh_flags"] & 2, section["sh_flags"] & 1, section["sh_flags"] & 4
            if allocated and not section.name.startswith((".ARM", ".eh_frame")):
                kind = "data" if writable else "text" if code else "constants"
                sums[kind] += section["sh_size"]
    return Sizes(**sums)


class Run(NamedTuple):
    """A call's outputs, and its cost."""

    output: np.ndarray
    instructions: int
    stack: int


class Machine:
    """A processor with an ELF file in its memory."""

    def __init__(self, path: Path, target: str) -> None:
        import unicorn

        self._target = target
        self._registers, self._lengths = _processor(target)
        architecture, mode, cpu = self._registers.pop("machine")
        self._cpu = unicorn.Uc(architecture, mode)
        if cpu is not None:
            self._cpu.ctl_set_cpu_model(cpu)
        with path.open("rb") as stream:
            elf = ELFFile(stream)
            self._entry = elf["e_entry"]
            loads = [(part["p_vaddr"], part["p_memsz"], part.data()) for part in elf.iter_segments("PT_LOAD")]
        low = min(at for at, _, _ in loads) & ~(_PAGE - 1)
        high = max(at + size for at, size, _ in loads)
        self._cpu.mem_map(low, -(-(high - low) // _PAGE) * _PAGE)
        for at, _, content in loads:
            self._cpu.mem_write(at, content)
        for at, size in ((_INPUT, _ROOM), (_OUTPUT, _ROOM), (_RETURN, _PAGE), (_STACK - _DEPTH, _DEPTH)):
            self._cpu.mem_map(at, size)
        self._blocks: dict[tuple[int, int], int] = {}
        self._count = 0
        self._hook: Any = None
        if target == "cortex-m4f":
            from unicorn import arm_const

            enabled = self._cpu.reg_read(arm_const.UC_ARM_REG_C1_C0_2) | 0xF << 20
            self._cpu.reg_write(arm_const.UC_ARM_REG_C1_C0_2, enabled)
            self._cpu.reg_write(arm_const.UC_ARM_REG_FPEXC, 1 << 30)
        if target == "aarch64":
            from unicorn import arm64_const

            self._cpu.reg_write(arm64_const.UC_ARM64_REG_CPACR_EL1, 3 << 20)

    def call(self, row: np.ndarray, n_out: int, dtype: Any, *, counted: bool = False) -> Run:
        """Call the function with a row and room for its outputs."""
        import unicorn

        if counted and self._hook is None:
            self._hook = self._cpu.hook_add(unicorn.UC_HOOK_BLOCK, self._enter)
        size = n_out * np.dtype(dtype).itemsize
        self._count = 0
        self._cpu.mem_write(_INPUT, np.ascontiguousarray(row).tobytes())
        self._cpu.mem_write(_OUTPUT, bytes(size))
        if counted:
            self._cpu.mem_write(_STACK - _DEPTH, bytes([_PATTERN]) * _DEPTH)
        thumb = 1 if self._target.startswith("cortex") else 0
        values = {"input": _INPUT, "output": _OUTPUT, "stack": _STACK, "link": _RETURN | thumb}
        for name, register in self._registers.items():
            self._cpu.reg_write(register, values[name])
        self._cpu.emu_start(self._entry | thumb, _RETURN)
        output = np.frombuffer(bytes(self._cpu.mem_read(_OUTPUT, size)), dtype)
        return Run(output, self._count, self._stack() if counted else 0)

    def _stack(self) -> int:
        touched = np.frombuffer(bytes(self._cpu.mem_read(_STACK - _DEPTH, _DEPTH)), np.uint8) != _PATTERN
        return _DEPTH - int(touched.argmax()) if touched.any() else 0

    def _enter(self, cpu: Any, address: int, size: int, _: Any) -> None:
        key = (address, size)
        if key not in self._blocks:
            self._blocks[key] = self._lengths(bytes(cpu.mem_read(address, size)))
        self._count += self._blocks[key]


def _thumb(code: bytes) -> int:
    """Count instructions: of four bytes where the first half's upper five bits say so."""
    at = count = 0
    while at < len(code):
        at += 4 if code[at + 1] >> 3 in (0b11101, 0b11110, 0b11111) else 2
        count += 1
    return count


def _riscv(code: bytes) -> int:
    at = count = 0
    while at < len(code):
        at += 4 if code[at] & 3 == 3 else 2
        count += 1
    return count


def _processor(target: str) -> tuple[dict[str, Any], Any]:
    """Return registers and mode of a target's processor, and how its instructions are counted."""
    if target == "aarch64":
        from unicorn import UC_ARCH_ARM64, UC_MODE_ARM
        from unicorn import arm64_const as arm64

        return {
            "machine": (UC_ARCH_ARM64, UC_MODE_ARM, None),
            "input": arm64.UC_ARM64_REG_X0,
            "output": arm64.UC_ARM64_REG_X1,
            "stack": arm64.UC_ARM64_REG_SP,
            "link": arm64.UC_ARM64_REG_X30,
        }, lambda code: len(code) // 4
    if target == "riscv32":
        from unicorn import UC_ARCH_RISCV, UC_MODE_RISCV32
        from unicorn import riscv_const as riscv

        return {
            "machine": (UC_ARCH_RISCV, UC_MODE_RISCV32, None),
            "input": riscv.UC_RISCV_REG_A0,
            "output": riscv.UC_RISCV_REG_A1,
            "stack": riscv.UC_RISCV_REG_SP,
            "link": riscv.UC_RISCV_REG_RA,
        }, _riscv
    from unicorn import UC_ARCH_ARM, UC_MODE_THUMB
    from unicorn import arm_const as arm

    # UC_MODE_MCLASS would make every one a Cortex-M33.
    models = {
        "cortex-m0plus": arm.UC_CPU_ARM_CORTEX_M0,
        "cortex-m4": arm.UC_CPU_ARM_CORTEX_M4,
        "cortex-m4f": arm.UC_CPU_ARM_CORTEX_M4,
        "cortex-m7": arm.UC_CPU_ARM_CORTEX_M7,
        "cortex-m33": arm.UC_CPU_ARM_CORTEX_M33,
    }
    return {
        "machine": (UC_ARCH_ARM, UC_MODE_THUMB, models[target]),
        "input": arm.UC_ARM_REG_R0,
        "output": arm.UC_ARM_REG_R1,
        "stack": arm.UC_ARM_REG_SP,
        "link": arm.UC_ARM_REG_LR,
    }, _thumb


class Wasm:
    """A WebAssembly module in wasmtime."""

    def __init__(self, path: Path, function: str) -> None:
        import wasmtime

        self._store = wasmtime.Store(wasmtime.Engine())
        exports = wasmtime.Instance(self._store, wasmtime.Module.from_file(self._store.engine, str(path)), []).exports(
            self._store
        )
        self._memory, self._function = exports["memory"], exports[function]
        self._free = int(exports["__heap_base"].value(self._store))
        self._memory.grow(self._store, 4)

    def call(self, row: np.ndarray, n_out: int, dtype: Any) -> Run:
        """Call the function with a row and room for its outputs."""
        content, size = np.ascontiguousarray(row).tobytes(), n_out * np.dtype(dtype).itemsize
        output = -(-(self._free + len(content)) // 16) * 16
        self._memory.write(self._store, content, self._free)
        self._function(self._store, self._free, output)
        return Run(np.frombuffer(bytes(self._memory.read(self._store, output, output + size)), dtype), 0, 0)
