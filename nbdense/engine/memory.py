"""Memory of the compiled program's vectors: on a boundary of cache lines, large ones on huge pages."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

LINE = 64
HUGE_PAGE = 1 << 21


def aligned_zeros(shape: int | tuple[int, int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return zeros that start on a 64-byte boundary; large ones on huge pages, where the system has them to give.

    Some MB lie on more small pages than a TLB's first level has entries for, and products walk along their rows, which
    are up to a page apart.
    """
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    raw, boundary = _zeroed_bytes(size)
    start = -raw.ctypes.data % boundary
    return raw[start : start + size].view(dtype).reshape(shape)


def _zeroed_bytes(size: int) -> tuple[npt.NDArray[np.uint8], int]:
    """Return zeros with ``size`` bytes to spare behind a boundary, and it; what is never touched takes no memory."""
    advice = getattr(mmap, "MADV_HUGEPAGE", None)  # Linux
    if advice is not None and size >= HUGE_PAGE:
        try:
            # Private, as malloc's is: a forked child gets a copy of its own.
            mapping = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            mapping.madvise(advice)
            return np.frombuffer(mapping, np.uint8), HUGE_PAGE
        except OSError:
            pass  # no room for it, or a kernel without huge pages: malloc has its own ways
    return np.zeros(size + LINE, np.uint8), LINE
