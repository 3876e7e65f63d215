"""The CPU that numba compiles for: vector width, registers, multiply-adds.

Numba's target is not always the host's: ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` choose another, and
under a bare name numba's own feature string is empty. So nothing here reads a feature list; a three-line
function is compiled for that target and its assembly is read.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import llvmlite.binding as llvm
from numba.core import codegen, config

_FMA_PROBE = """
define void @probe(ptr %p, ptr %q) {
  %a = load <16 x float>, ptr %p
  %b = load <16 x float>, ptr %q
  %c = call <16 x float> @llvm.fma.v16f32(<16 x float> %a, <16 x float> %b, <16 x float> %b)
  store <16 x float> %c, ptr %p
  ret void
}
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
"""

_HASWELL = "avx2 fma f16c bmi bmi2 lzcnt movbe popcnt"  # features that code for it may use


@dataclass(frozen=True)
class Target:
    """The CPU that is compiled for: LLVM's name, bytes of its widest vector, fused multiply-adds, vector registers."""

    name: str
    vector_bytes: int
    fma: bool
    registers: int = 16


def name_and_features() -> tuple[str, str]:
    """Return LLVM's name and features of the CPU that numba compiles for, read as numba reads them."""
    name = config.CPU_NAME or llvm.get_host_cpu_name()
    features = config.CPU_FEATURES
    return name, codegen.get_host_cpu_features() if features is None else features


def assembly(module: str) -> str:
    """Return the assembly of an LLVM module's text, compiled for `target`'s CPU."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    name, features = name_and_features()
    machine = llvm.Target.from_default_triple().create_target_machine(cpu=name, features=features, opt=2)
    with llvm.parse_assembly(module) as parsed:
        return machine.emit_assembly(parsed)


@functools.cache
def target() -> Target:
    """Return the CPU that numba compiles for (a few milliseconds, once)."""
    text = assembly(_FMA_PROBE)
    width = 64 if "%zmm" in text else 32 if "%ymm" in text else 16
    return Target(name_and_features()[0], width, "fmaf" not in text, 32 if width == 64 or is_arm64() else 16)


def lesser_cpus() -> tuple[str, ...]:
    """Return CPUs for NUMBA_CPU_NAME, with NUMBA_CPU_FEATURES empty, that try other instructions than the host's.

    "generic" is SSE2 or NEON; "haswell", listed where this machine can execute it, is AVX2 with FMA.
    """
    host = llvm.get_host_cpu_features()
    haswell = not is_arm64() and all(host.get(name) for name in _HASWELL.split())
    return ("generic", "haswell") if haswell else ("generic",)


def is_arm64() -> bool:
    """Tell whether this process runs on arm64, under any of its names."""
    return llvm.get_process_triple().startswith(("aarch64", "arm64"))
