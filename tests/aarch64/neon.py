"""The tiles' machine code on aarch64; collected by run.py."""

import re

import numba
import numpy as np
import pytest

from nbdense._compile import policy
from nbdense.engine.kernels.microkernel import SHAPES
from nbdense.engine.kernels.product import product
from nbdense.quant.kernels import microkernel
from tests.aarch64 import emulated


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
    assembly, _, _ = emulated.assembled(policy.kernel(multiply), signature)
    found = []
    for lines in inner_loops(assembly):
        if any(line.startswith("fmla") for line in lines):
            assert not [line for line in lines if "[sp" in line or line.startswith(("fmul", "fadd", "bl"))]
            found.append(sum(line.startswith("fmla") for line in lines))
    assert sorted(found) == sorted(rows * vectors for rows, vectors in SHAPES)


def test_integer_tiles_stay_in_registers():
    """An instruction for each four products of each lane of the tile, or two, and no access to the stack."""

    def multiply(m, n, depth, x, w, bias, tile, ld):
        microkernel.integer_product(m, n, depth, x, w, bias, tile, ld)

    x, w, sums = np.zeros(1, np.uint8), np.zeros(1, np.int8), np.zeros(1, np.int32)
    signature = tuple(map(numba.typeof, (1, 1, 1, (x, 0, 1), (w, 0, 1), (sums, 0), sums, 1)))
    assembly, _, _ = emulated.assembled(policy.kernel(multiply), signature)
    a_vector = 2 if microkernel.METHOD == "sadalp" else 1
    found = []
    for lines in inner_loops(assembly):
        if count := sum(line.startswith(microkernel.METHOD) for line in lines):
            assert not [line for line in lines if "[sp" in line or line.startswith("bl")]
            found.append(count)
    assert sorted(found) == sorted(a_vector * rows * vectors for rows, vectors in microkernel.SHAPES)
