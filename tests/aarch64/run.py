"""Kernel tests on aarch64 code, NEON included, under qemu: ``make test-aarch64``, or this file with pytest's options.

First all of them, on code for any arm64 CPU; then those of integers, on code for CPUs with dot-product instructions.

Every entry of nbdense, and every one that the tests compile, runs as an aarch64 program; the tests themselves run here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = "qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross"  # in Debian and Ubuntu
# The tests marked "kernels", those of quant, what holds intrinsics against their plain twins, and other shapes.
TESTS = "(kernels or equals_its_twin or tiling_changes_no_bit or drawn_shapes or padding or neon) and not jit"
# They start processes themselves, or compile what is no entry.
OTHERS = [
    f"--ignore=tests/{other}" for other in ("benchmarks", "compile/test_no_jit.py", "compile/test_instruction_sets.py")
]
INTEGER_TESTS = "tests/quant/kernels tests/quant/sparse tests/aarch64"  # folders
FEATURES = "NBDENSE_AARCH64_FEATURES"  # in the environment: those of the CPU that code is made for


def main(options: list[str]) -> int:
    missing = [tool for tool in ("qemu-aarch64", "aarch64-linux-gnu-gcc") if shutil.which(tool) is None]
    if missing:
        print(f"not found: {', '.join(missing)}; Debian has them in: {PACKAGES}", file=sys.stderr)
        return 2
    if FEATURES not in os.environ:
        runs = []
        for features in ("", "+dotprod", "+dotprod,+i8mm"):
            print(f"aarch64{features}:", flush=True)
            runs.append(subprocess.call([sys.executable, __file__, *options], env={**os.environ, FEATURES: features}))
        return max(runs)
    # Before numba is imported: what it knows of this machine is not to reach the code. No threads in the programs.
    os.environ.update(NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="", OMP_NUM_THREADS="1")
    root = Path(__file__).resolve().parents[2]
    sys.path.insert(0, str(root))
    os.chdir(root)

    import pytest

    from nbdense._compile import policy, processor
    from tests.aarch64 import emulated

    # Before the kernels are imported: they choose their vectors and tiles for this target.
    processor.target = lambda: processor.Target("generic", 16, True, 32)
    processor.is_arm64 = lambda: True
    processor.name_and_features = lambda: ("generic", emulated.FEATURES)
    processor.assembly = emulated.assembly
    policy.entry = lambda function, purpose="", seconds=0.0: emulated.Entry(function)
    policy.unit, policy.address = policy.kernel, emulated.address
    policy.c_function = policy.kept_c_function = emulated.Loop

    from nbdense._compile import loops

    loops.run_loop = emulated.run_loop
    settings = ["python_files=test_*.py neon.py", f"testpaths={INTEGER_TESTS if emulated.FEATURES else 'tests'}"]
    settings = [option for setting in settings for option in ("-o", setting)]
    return pytest.main(["-q", "-p", "no:cacheprovider", *settings, "-k", TESTS, *OTHERS, *options])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
