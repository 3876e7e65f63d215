"""What the tiles become on aarch64; collected by run.py."""

import re

import emulated
import numba
import numpy as np
import pytest

from nbdense import _jit
from nbdense.engine.microkernel import SHAPES, product


def inner_loops(assembly):
    """The lines of each block that ends in a branch to its own beginning."""
    label, lines = None, []
    for line in assembly.splitlines():
        if found := re.match(r"(\.L\w+):", line):
            label, lines = found[1], []
            continue
        lines.append(line.strip())
        if label and re.search(rf"\bb\.\w+\s+{re.escape(label)}$", line):
            yield lines


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_neon_tiles_stay_in_registers(dtype):
    """A fused multiply-add for each vector of the tile in each step over the depth, and no access to the stack."""

    def multiply(m, n, depth, a, b, c, bound):
        product(m, n, depth, a, b, c, c, bound, bound)

    array = np.zeros(1, dtype)
    matrix = (array, 0, 1)
    signature = tuple(map(numba.typeof, (1, 1, 1, (*matrix, 1), matrix, matrix, dtype(0))))
    assembly, _, _ = emulated.assembled(_jit.kernel(multiply), signature)
    found = []
    for lines in inner_loops(assembly):
        if any(line.startswith("fmla") for line in lines):
            assert not [line for line in lines if "[sp" in line or line.startswith(("fmul", "fadd", "bl"))]
            found.append(sum(line.startswith("fmla") for line in lines))
    assert sorted(found) == sorted(rows * vectors for rows, vectors in SHAPES)
