"""Record compilations of this process, and announce them while they run."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from nbdense._compile import kernel_cache

ANNOUNCE_SECONDS = 1.0  # of compiling, all in all, before a line is printed
_announced = _silent = False


@dataclass(frozen=True)
class Compilation:
    """An entry or a unit that this process compiled: its name, and the seconds that it took, without its units."""

    entry: str
    seconds: float


@dataclass(frozen=True)
class Purpose:
    """The purpose of an entry that is worth a line of its own, and about how many seconds compiling it takes."""

    text: str
    seconds: float


compilations: list[Compilation] = []
_within: list[float] = []  # seconds of what has been compiled within each compilation that goes on


@contextmanager
def timed(name: str, purpose: Purpose | None = None) -> Iterator[None]:
    """Record a compilation, and say that it goes on.

    At once, and for how long, where it has a purpose and will take ANNOUNCE_SECONDS: by what it took on this machine
    before, else by what it takes on a common one. A clock says it of the rest, once this process has compiled for so
    long.
    """
    left = ANNOUNCE_SECONDS - sum(done.seconds for done in compilations)
    timer = threading.Timer(left, _announce)
    timer.daemon = True
    expected = 0.0 if purpose is None else kernel_cache.seconds_taken().get(name, purpose.seconds)
    if purpose is not None and expected >= ANNOUNCE_SECONDS:
        _announce(f"{purpose.text} for this CPU, which takes about {max(1, round(expected))} s", again=True)
    elif left <= 0:
        _announce()
    elif not _announced:
        try:
            timer.start()
        except RuntimeError:  # no thread can be had
            _announce()
    started = time.perf_counter()
    _within.append(0.0)
    try:
        yield
    finally:
        timer.cancel()
        seconds, inner = time.perf_counter() - started, _within.pop()
        if _within:
            _within[-1] += seconds
    if purpose is not None:
        kernel_cache.note_seconds(name, seconds)
    compilations.append(Compilation(name, seconds - inner))


def _announce(what: str = "kernels for this CPU", again: bool = False) -> None:
    """Print a line, the first of this process, or another (``again``) unless there are to be none."""
    global _announced
    if _silent or (_announced and not again):
        return
    _announced = True
    folder = kernel_cache.cache_folder()
    if folder is not None and kernel_cache.writable(folder):
        text = "once: later processes load them (`nbdense warmup` compiles ahead of time)"
    else:
        text = "and again in every process: set NBDENSE_CACHE_DIR to a folder that can be written"
    if sys.stderr is not None:  # as under pythonw
        print(f"nbdense: compiling {what}, {text}", file=sys.stderr)


def announce_nothing() -> None:
    """Suppress the announcement, where what this process does is known to compile."""
    global _silent
    _silent = True
