"""Record compilations of this process, and announce them while they run."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

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
_spinner: _Spinner | None = None


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
    started = time.perf_counter()
    _within.append(0.0)
    try:
        if purpose is not None and expected >= ANNOUNCE_SECONDS:
            _announce(f"{purpose.text} for this CPU, which takes about {max(1, round(expected))} s", again=True)
        elif left <= 0:
            _announce()
        elif not _announced:
            try:
                timer.start()
            except RuntimeError:  # no thread can be had
                _announce()
        yield
    finally:
        timer.cancel()
        if timer.is_alive():
            timer.join()  # it may be printing
        seconds, inner = time.perf_counter() - started, _within.pop()
        if _within:
            _within[-1] += seconds
        else:
            _stop_spinner()
    if purpose is not None:
        kernel_cache.note_seconds(name, seconds)
    compilations.append(Compilation(name, seconds - inner))


class _Spinner:
    """A character that turns behind a line on a terminal, until `stop` ends the line.

    Parameters
    ----------
    line : str
        The line.
    stream : text stream
        The terminal.
    """

    def __init__(self, line: str, stream: TextIO) -> None:
        self._stream, self._stopped = stream, threading.Event()
        columns = shutil.get_terminal_size().columns
        at_edge = (len(line) + 2) % columns == 0  # where stepping back leads to another place
        print(line, end="  " if at_edge else " ", file=stream, flush=True)
        self._thread = threading.Thread(target=self._turn, daemon=True)
        self._thread.start()

    def _turn(self) -> None:
        for character in itertools.cycle("|/-\\"):
            print(f"{character}\b", end="", file=self._stream, flush=True)
            if self._stopped.wait(0.1):
                return

    def stop(self) -> None:
        """End the line."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        print(" ", file=self._stream)


def _stop_spinner() -> None:
    global _spinner
    if _spinner is not None:
        _spinner.stop()
        _spinner = None


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
    _say(f"nbdense: compiling {what}, {text}")


def _say(line: str) -> None:
    """Print a line on stderr; on a terminal something turns behind it while compiling goes on."""
    global _spinner
    if sys.stderr is None:  # as under pythonw
        return
    if getattr(sys.stderr, "isatty", bool)() and os.environ.get("TERM") != "dumb":
        _stop_spinner()
        try:
            _spinner = _Spinner(line, sys.stderr)
        except RuntimeError:  # no thread can be had
            print(file=sys.stderr)
    else:
        print(line, file=sys.stderr)


def announce_nothing() -> None:
    """Suppress the announcement, where what this process does is known to compile."""
    global _silent
    _silent = True
