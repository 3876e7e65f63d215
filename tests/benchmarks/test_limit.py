"""The loop that the FMA limit is measured with holds its multiply-adds and nothing else."""

import re

import numpy as np
import pytest

from nbdense._compile import processor
from nbdense._compile.policy import JIT

if JIT:
    from benchmarks import limit

pytestmark = pytest.mark.kernels if JIT else pytest.mark.skip(reason="there is no assembly without the JIT")
ADDS = r"fmadd\d+ps|vaddps|\baddps|fmla"


def test_nothing_beside_the_multiply_adds_is_in_the_loop():
    total = limit.one_thread(3, np.float32(0.5))
    # x -> x / 2 + 1 / 2, three times, from 1, 2, ..
    assert total == pytest.approx(sum(1 + k / 8 for k in range(limit.CHAINS)), rel=1e-6)
    (assembly,) = limit.one_thread.inspect_asm().values()
    loop = loop_of(assembly)
    multiply_adds = [line for line in loop if re.search(ADDS, line)]
    others = [line for line in loop if line not in multiply_adds and not re.search(r"\bv?mulps|fmul", line)]
    assert len(multiply_adds) == limit.CHAINS
    assert len(others) <= 3, others  # a counter and a jump
    assert not re.search(r"mm\d|\bv\d|sp\b", " ".join(others)), "sums move about"
    assert processor.target().registers > limit.CHAINS


def loop_of(assembly):
    """Return the instructions of the loop with the most multiply-adds: from a label to the jump back to it."""
    loops, lines = [], [line.strip() for line in assembly.splitlines()]
    labels = {line[:-1]: number for number, line in enumerate(lines) if line.endswith(":")}
    for number, line in enumerate(lines):
        target = line.split()[-1] if line else ""
        if re.match(r"j\w+|b\.\w+|b\b|cbn?z", line) and labels.get(target, number) < number:
            body = lines[labels[target] + 1 : number + 1]
            loops.append([one for one in body if one and not one.startswith((".", "#", "//"))])
    return max(loops, key=lambda loop: sum(bool(re.search(ADDS, one)) for one in loop))
