"""Every instruction path that this machine can execute, in processes that are told to compile for a lesser CPU.

What the machine is at its best, all other tests try; NEON on other machines is tests/aarch64's.
"""

import json
import os
import re
import subprocess
import sys

import pytest

from nbdense._compile import processor
from tests.support.source_tree import ROOT

# The tests marked "kernels", those of quant, what holds intrinsics against their plain twins, and other shapes through
# the program that these compile anyway.
TESTS = "(kernels or equals_its_twin or tiling_changes_no_bit or (float32 and (drawn_shapes or padding))) and not jit"
# They start processes themselves.
OTHERS = ["--ignore=tests/compile/test_no_jit.py", "--ignore=tests/compile/test_instruction_sets.py"]

EXPECTED = {"generic": (16, False, 16), "haswell": (32, True, 16)}
ON_ARM64 = (16, True, 32)

CODE = """
import dataclasses, json
import numpy as np
from nbdense._compile import processor, policy
from nbdense.engine.kernels.product import tiled
from nbdense.engine.kernels.microkernel import VECTOR_BYTES
from nbdense.engine.elementwise.optimizer import update
from nbdense.engine.kernels.transpose import transpose

tiles = policy.kernel(tiled.twin)

@policy.entry
def whole(m, n, depth, a, b, c, code, params, state, hyper):
    tiles((m, n, depth, VECTOR_BYTES // 4), (a, 0, depth, 1), (b, 0, n), (c, 0, n), (c, 0, n), (c, -1, 0), a[0], a[0])
    update(code, 0, params, state, 0, n, 0.1, 1, hyper)
    transpose((a, 0, depth), (b, 0, m), m, depth)

flat, state = np.zeros(4096, np.float32), np.zeros((3, 16), np.float32)
whole(4, 16, 3, flat, flat.copy(), flat.copy(), 0, flat[:16].copy(), state, np.zeros(12))
print(json.dumps([dataclasses.asdict(processor.target()), "\\n".join(whole.inspect_asm().values())]))
"""


def environment(cpu, **others):
    return {**os.environ, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": "", **others}


@pytest.mark.parametrize("cpu", processor.lesser_cpus())
def test_kernels(cpu):
    """Compiled once: later runs find this CPU's kernels in the cache, beside the host's."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", TESTS, "-p", "no:cacheprovider", *OTHERS, "tests"],
        cwd=ROOT,
        env=environment(cpu, OMP_NUM_THREADS="1"),  # the parallel variants call the same kernels
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert int(re.search(r"(\d+) passed", run.stdout)[1]) > 500 and " skipped" not in run.stdout


@pytest.mark.parametrize("cpu", processor.lesser_cpus())
def test_code_is_of_the_instruction_set(cpu, tmp_path):
    """Vectors as wide as the CPU's and no wider; multiply-adds fused where it has them, and never a call of fmaf."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", CODE],
        env=environment(cpu, NBDENSE_CACHE_DIR=str(tmp_path)),  # what comes from a cache has no assembly to show
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    target, assembly = json.loads(run.stdout)
    vector_bytes, fma, registers = ON_ARM64 if processor.is_arm64() else EXPECTED[cpu]
    assert target == {"name": cpu, "vector_bytes": vector_bytes, "fma": fma, "registers": registers}
    called = set(re.findall(r"\b_?fmaf?\b", assembly))
    assert not called
    if processor.is_arm64():
        assert "fmla" in assembly
    else:
        widths = {width for letter, width in (("x", 16), ("y", 32), ("z", 64)) if f"%{letter}mm" in assembly}
        assert max(widths) == vector_bytes
        assert ("vfmadd" in assembly) == fma
