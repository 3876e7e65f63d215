"""Record compilations of this process, and announce them while they run."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from nbdense._compile import kernel_cache

ANNOUNCE_SECONDS = 1.0  # of compiling, all in all, before the line is printed
_announced = False


@dataclass(frozen=True)
class Compilation:
    """An entry that this process compiled: its name, "serial" or "parallel", and the seconds that it took."""

    entry: str
    variant: str
    seconds: float


compilations: list[Compilation] = []


@contextmanager
def timed(name: str, variant: str) -> Iterator[None]:
    """Record a compilation; say that it goes on once this process has compiled for ANNOUNCE_SECONDS.

    A clock says it, because no estimate of a compile's time holds for all machines.
    """
    left = ANNOUNCE_SECONDS - sum(done.seconds for done in compilations)
    timer = threading.Timer(left, _announce)
    timer.daemon = True
    if left <= 0:
        _announce()
    elif not _announced:
        try:
            timer.start()
        except RuntimeError:  # no thread can be had
            _announce()
    started = time.perf_counter()
    try:
        yield
    finally:
        timer.cancel()
    compilations.append(Compilation(name, variant, time.perf_counter() - started))


def _announce() -> None:
    global _announced
    if _announced:
        return
    _announced = True
    folder = kernel_cache.cache_folder()
    if folder is not None and kernel_cache.writable(folder):
        text = "once: later processes load them (`nbdense warmup` compiles ahead of time)"
    else:
        text = "and again in every process: set NBDENSE_CACHE_DIR to a folder that can be written"
    if sys.stderr is not None:  # as under pythonw
        print(f"nbdense: compiling kernels for this CPU, {text}", file=sys.stderr)


def announce_nothing() -> None:
    """Suppress the announcement, where what this process does is known to compile."""
    global _announced
    _announced = True
