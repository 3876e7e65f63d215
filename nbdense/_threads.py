"""How many threads a piece of work gets. Threads are borrowed: the caller's setting is put back after each call."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numba

_chosen: int | None = None
_home_pid = os.getpid()
# The workqueue layer ends the process when two Python threads enter parallel regions at once.
_region = threading.Lock()


def set_num_threads(n: int) -> None:
    """Set how many threads nbdense may use at most; numba's own setting is left alone.

    Parameters
    ----------
    n : int
        At least 1. More than numba started with (``NUMBA_NUM_THREADS``, or the CPU count) is clamped to that.

    Raises
    ------
    ValueError
        If ``n`` is not a whole number of at least 1.
    """
    global _chosen
    if isinstance(n, bool) or int(n) != n or n < 1:
        raise ValueError(f"set_num_threads: n must be a whole number of at least 1, got {n!r}")
    _chosen = int(n)


def available() -> int:
    """Threads that work may be split over now: 1 in a forked child, where numba's pool did not survive the fork."""
    if os.getpid() != _home_pid:
        return 1
    limit = numba.config.NUMBA_NUM_THREADS
    omp = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if omp.isdigit() and int(omp) > 0:
        limit = min(limit, int(omp))
    return min(limit, numba.get_num_threads() if _chosen is None else _chosen)


@contextmanager
def region(threads: int) -> Iterator[int]:
    """Let a parallel entry run in the block, on as many threads as are yielded.

    That is ``threads``, or 1 (call the serial entry) while another Python thread is in a parallel entry.
    """
    if threads < 2 or not _region.acquire(blocking=False):
        yield 1
        return
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        yield threads
    finally:
        numba.set_num_threads(before)
        _region.release()
