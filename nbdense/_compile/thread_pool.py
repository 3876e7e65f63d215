"""Threads for a piece of work. They are borrowed: the caller's setting is put back after each call.

Nothing here starts a thread before a piece of work is large enough for two: numba starts all of its own at the
first question after them.

What is guarded: parallel entries of this library never run at the same time (the second runs serial), and
never in a forked child. What is not: code of the user's own, compiled by numba with ``parallel=True``, that runs in
another Python thread meanwhile. On the omp and tbb layers it may; workqueue ends the process. There, either leave
such code to one thread, or call ``set_num_threads(1)``.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.metadata
import operator
import os
import threading
from pathlib import Path

import llvmlite.binding as llvm
import numba
from numba.np.ufunc import parallel as numba_parallel

from nbdense._compile.cpus import Cpus, find_cpus

# Below this many floating-point operations a call does not gain by its one or two parallel regions, which cost about
# 2 microseconds each on the omp and tbb layers, and about 120 on workqueue (`nbdense doctor` measures it).
PARALLEL_FLOPS = {"omp": 4e6, "tbb": 4e6, "workqueue": 1e8}
LEAST_PARALLEL_FLOPS = min(PARALLEL_FLOPS.values())

_chosen: int | None = None
# The workqueue layer ends the process when two Python threads enter parallel regions at once.
_region = threading.Lock()


def _pool_was_lost() -> bool:
    """Tell whether numba's threads were started before this import, by a process that then forked this one."""
    if not numba_parallel._is_initialized:
        return False
    try:
        return len(list(Path("/proc/self/task").iterdir())) < numba.config.NUMBA_NUM_THREADS
    except OSError:  # not Linux: GNU's OpenMP, the layer that does not survive a fork, is Linux's
        return False


_home_pid = -1 if _pool_was_lost() else os.getpid()


def set_num_threads(n: int) -> None:
    """Set how many threads nbdense may use at most; numba's own setting is left alone.

    Parameters
    ----------
    n : int
        At least 1. More than numba started with (``NUMBA_NUM_THREADS``, or the CPU count) or than OMP_NUM_THREADS
        is clamped to that.

    Raises
    ------
    ValueError
        If ``n`` is not a whole number of at least 1.
    """
    global _chosen
    try:
        number = operator.index(n)
    except TypeError:
        number = 0
    if isinstance(n, bool) or number < 1:
        raise ValueError(f"set_num_threads: n must be a whole number of at least 1, got {n!r}")
    _chosen = number


def forked() -> bool:
    """Tell whether this process was forked from one that had imported this module: numba's threads stayed behind."""
    return os.getpid() != _home_pid


@functools.cache
def layer() -> str | None:
    """Return numba's threading layer, "omp", "tbb" or "workqueue", or None without one. Starts its threads.

    Which one it is depends on NUMBA_THREADING_LAYER and on the libraries that are found, and numba says it only
    after its threads have been started.
    """
    _load_tbb()
    try:
        numba.get_num_threads()
        return str(numba.threading_layer())
    except ValueError:  # NUMBA_THREADING_LAYER asks for one that is not there
        return None


def launcher(threads: int) -> int:
    """Return the address of what starts so many threads on a parallel region; 0 for one, which needs nothing."""
    return _parallel_for() if threads > 1 else 0


@functools.cache
def _parallel_for() -> int:
    layer()
    return int(llvm.address_of_symbol("numba_parallel_for"))


def _load_tbb() -> None:
    """Load the tbb library that pip installed, where numba would do without it for workqueue or nothing.

    Numba asks the system's loader for it by name, and that does not look into a virtual environment. A library that
    is loaded already is found.
    """
    asked = str(numba.config.THREADING_LAYER).lower()
    if asked in ("omp", "workqueue", "forksafe"):
        return
    if asked in ("default", "threadsafe"):
        try:
            importlib.import_module("numba.np.ufunc.omppool")
            return
        except ImportError:
            pass
    try:
        package = importlib.metadata.distribution("tbb")
        for file in package.files or []:
            if file.name in ("libtbb.so.12", "libtbb.12.dylib", "tbb12.dll"):
                ctypes.CDLL(str(Path(str(package.locate_file(file))).resolve()), mode=ctypes.RTLD_GLOBAL)
    except (importlib.metadata.PackageNotFoundError, OSError):
        pass  # numba goes on without


def limit() -> int:
    """Return the most threads that settings allow: of NUMBA_NUM_THREADS, OMP_NUM_THREADS and `set_num_threads`.

    Where none of them says anything, as many as CPUs may be used.
    """
    most = _limit_of_process()
    if _chosen is not None:
        return min(most, _chosen)
    return most if _is_set() else min(most, cpus().usable)


@functools.cache
def cpus() -> Cpus:
    """Return the CPUs that the process might use when this was first asked."""
    return find_cpus()


@functools.cache
def _is_set() -> bool:
    """Tell whether the environment has a number of threads."""
    return bool(os.environ.get("NUMBA_NUM_THREADS", "").strip() or os.environ.get("OMP_NUM_THREADS", "").strip())


@functools.cache
def _limit_of_process() -> int:
    """Return the environment's limit, read once as by OpenMP's own libraries: asking takes a microsecond."""
    most = int(numba.config.NUMBA_NUM_THREADS)
    omp = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(most, int(omp)) if omp.isdecimal() and int(omp) > 0 else most


def available() -> int:
    """Return the threads that work may be split over now: 1 in a forked child, where numba's pool did not survive."""
    most = limit()
    if most < 2 or forked() or layer() is None:
        return 1
    return most if _chosen is not None else min(most, _setting())


def _setting() -> int:
    """Return numba's own number of threads, once they have been started.

    `numba.get_num_threads` takes a lock between processes before it asks the same: 2 microseconds of every call.
    """
    return int(numba_parallel._get_num_threads())


def worthwhile(flops: float) -> int:
    """Return the threads for a piece of work: 1 where parallel regions would cost more than they save."""
    if flops < LEAST_PARALLEL_FLOPS:
        return 1
    threads = available()
    return threads if threads > 1 and flops >= PARALLEL_FLOPS[layer() or "workqueue"] else 1


class region:  # noqa: N801 (used as a function)
    """A block in which a parallel entry may run, on as many threads as it is entered with.

    That is ``threads``, or 1 (call the serial entry) while another Python thread is in a parallel entry.

    Parameters
    ----------
    threads : int
        How many are wanted.
    """

    __slots__ = ("_before", "_threads")

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._before = 0

    def __enter__(self) -> int:
        if self._threads < 2 or not _region.acquire(blocking=False):
            self._threads = 1
            return 1
        try:
            self._before = _setting()
            if self._before != self._threads:
                numba.set_num_threads(self._threads)
        except BaseException:
            _region.release()
            raise
        return self._threads

    def __exit__(self, *_: object) -> None:
        if self._threads < 2:
            return
        try:
            if self._before != self._threads:
                numba.set_num_threads(self._before)
        finally:
            _region.release()
