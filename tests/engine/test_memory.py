"""Memory of vectors: boundaries, sizes about a huge page's, and what happens where there are no huge pages."""

import mmap
import os

import numpy as np
import pytest

from nbdense._compile import policy
from nbdense.engine import memory
from nbdense.engine.kernels.scratch import LINE, allocate, release
from nbdense.engine.memory import HUGE_PAGE, aligned_zeros


@pytest.mark.parametrize("size", [0, 1, 63, 4096, HUGE_PAGE // 4 - 1, HUGE_PAGE // 4, HUGE_PAGE // 4 + 1, HUGE_PAGE])
def test_vectors_are_zero_and_aligned(size):
    vector = aligned_zeros(size, np.float32)
    assert vector.shape == (size,) and vector.dtype == np.float32
    assert vector.flags.writeable and vector.flags.c_contiguous
    assert not size or vector.ctypes.data % 64 == 0
    assert not vector.any()
    vector += 1
    assert vector.sum(dtype=np.float64) == size


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="Linux has huge pages on advice")
def test_large_vectors_start_on_a_huge_page():
    assert aligned_zeros((3, HUGE_PAGE), np.float64).ctypes.data % HUGE_PAGE == 0


def test_a_kernel_without_huge_pages(monkeypatch):
    class Refuses(mmap.mmap):
        def madvise(self, *advice):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(memory.mmap, "MADV_HUGEPAGE", 14, raising=False)
    monkeypatch.setattr(memory.mmap, "mmap", Refuses)
    vector = aligned_zeros(HUGE_PAGE, np.float32)
    assert vector.ctypes.data % 64 == 0 and not vector.any()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_childs_writes_are_its_own():
    vector = aligned_zeros(HUGE_PAGE, np.float32)
    child = os.fork()
    if child == 0:
        vector[:] = 1
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert not vector.any()


def _add_up(count, like, found):
    work = allocate(count, like)
    for i in range(count):
        work[i] = i
    for i in range(count):
        found[0] += work[i]
    found[1] = work.ctypes.data % LINE
    release(work)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("count", [0, 1, 15, 200])
def test_memory_for_the_length_of_a_call(dtype, count):
    """It starts on a cache line; without the JIT it is NumPy's, which may not."""
    found = np.zeros(2)
    policy.entry(_add_up)(count, np.zeros(1, dtype), found)
    assert found[0] == sum(range(count))
    assert found[1] == 0 or not policy.JIT
