"""Every instruction path that this machine can execute, in processes that are told to compile for a lesser CPU.

What the machine is at its best, all other tests try; NEON on other machines is tests/aarch64's.
"""

import json
import re

import pytest

from nbdense._compile import processor
from tests.support.python_process import run_python, run_tests

# The tests marked "kernels", those of quant, what holds intrinsics against their plain twins, and other shapes through
# the program that these compile anyway: the one for float32. None of them is in a file without the second pattern.
TESTS = "(kernels or equals_its_twin or tiling_changes_no_bit or (float32 and (drawn_shapes or padding))) and not jit"
FILES = r"mark\.kernels|^quant/kernels|equals_its_twin|tiling_changes_no_bit|drawn_shapes|padding"
MARKS = "not double and not gpu"

EXPECTED = {"generic": (16, False, 16), "haswell": (32, True, 16)}
ON_ARM64 = (16, True, 32)

CODE = """
import warnings
warnings.simplefilter("error")
import dataclasses, json
import numpy as np
from nbdense._compile import processor, policy
from nbdense.engine.kernels.product import tiled
from nbdense.engine.kernels.microkernel import VECTOR_BYTES, memory
from nbdense.engine.elementwise.optimizer import update
from nbdense.engine.kernels.transpose import transpose

tiles = policy.kernel(tiled.twin)

@policy.entry
def whole(m, n, depth, a, b, c, code, params, state, hyper):
    right, none, low = (c, 0, n), (memory(c), -1, 0), a[0]
    tiles((m, n, depth, 0, VECTOR_BYTES // 4), (a, 0, depth, 1), (b, 0, n), right, right, none, low, low, none, none)
    update(code, 0, params, state, 0, n, 0, 0.1, 1, hyper)
    transpose((a, 0, depth), (b, 0, m), m, depth)

flat, state = np.zeros(4096, np.float32), np.zeros((3, 16), np.float32)
whole(4, 16, 3, flat, flat.copy(), flat.copy(), 0, flat[:16].copy(), state, np.zeros(12))
print(json.dumps([dataclasses.asdict(processor.target()), "\\n".join(whole.inspect_asm().values())]))
"""


def environment(cpu):
    return {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""}


@pytest.mark.parametrize("cpu", processor.lesser_cpus())
def test_kernels(cpu):
    """Compiled once: later runs find this CPU's kernels in the cache, beside the host's."""
    one_thread = {"OMP_NUM_THREADS": "1"}  # the parallel variants call the same kernels
    assert run_tests(FILES, "-k", TESTS, "-m", MARKS, **environment(cpu), **one_thread) > 500


@pytest.mark.parametrize("cpu", processor.lesser_cpus())
def test_code_is_of_the_instruction_set(cpu, tmp_path):
    """Vectors as wide as the CPU's and no wider; multiply-adds fused where it has them, and never a call of fmaf."""
    # What comes from a cache has no assembly to show.
    output, _ = run_python(CODE, NBDENSE_CACHE_DIR=str(tmp_path), **environment(cpu))
    target, assembly = json.loads(output)
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
