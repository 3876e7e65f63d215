"""Threads on a machine that is busy: as many as the system runs, found out by how long the work takes.

A parallel region ends with its last thread. Where another process keeps a CPU busy, a thread waits for milliseconds to
be run, and the others for it: two threads then take three times as long as one. Results do not depend on the number of
threads, so it is free to change.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from nbdense._compile import thread_pool

WINDOW = 0.02  # seconds of work before it is judged
MISSING = 0.2  # of a CPU, that threads get less than all of theirs on an idle machine, waiting for each other included
# Seconds. What other threads have run is counted at the system's ticks, of 4 ms on most Linux kernels: a window's end
# may be counted in the next one.
TICK = 0.005
GAIN = 0.95  # of the time that work takes, below which fewer threads are worth while
FIRST_REST, LONGEST_REST = 0.25, 2.0  # seconds until all threads are tried again, or fewer; doubled each time


@dataclass
class _Window:
    """Work that has been done on so many threads since the last judgement."""

    threads: int = 0
    work: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class Pace:
    """The number of threads for pieces of work that are alike, as it has turned out to be good.

    All threads that there may be, until the system is seen not to run them: by the CPU time of the process, which
    grows in those that wait for others too. Then fewer, as many as were run, if that is faster; and all again a while
    later.

    Attributes
    ----------
    fewest : int
        The least that it has come to; 0 as long as all threads were run.
    """

    def __init__(self) -> None:
        self.fewest = 0
        self._few = 0  # that are used until then; 0: all
        self._until = 0.0
        self._rest = FIRST_REST
        self._cost = 0.0  # seconds of a unit of work, on all threads
        self._window = _Window()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Pace], tuple[()]]:
        return type(self), ()  # a copy begins anew

    def is_trying(self) -> bool:
        """Tell whether all threads are to be tried again now."""
        return bool(self._few) and time.perf_counter() >= self._until

    @contextmanager
    def region(self, flops: float, work: float) -> Iterator[int]:
        """Borrow threads for a piece of work, and learn from the time that it takes.

        Parameters
        ----------
        flops : float
            Floating-point operations between two parallel regions' beginnings, by which threads are worth while.
        work : float
            Of the whole piece, in any unit.
        """
        most = thread_pool.worthwhile(flops)
        if most < 2:
            yield 1
            return
        wanted = most if self._few == 0 or self.is_trying() else min(self._few, most)
        with thread_pool.region(wanted) as granted:
            started, cpu = time.perf_counter(), time.process_time()
            yield granted
            now = time.perf_counter()
            if granted == wanted:  # else another thread of Python's has them
                with self._lock:
                    self.learn(granted, most, work, now - started, time.process_time() - cpu, now)

    def learn(self, threads: int, most: int, work: float, seconds: float, cpu_seconds: float, now: float) -> None:
        """Judge a piece of work that is done, together with those before it.

        Parameters
        ----------
        threads, most : int
            How many it has had, and might have had.
        work : float
            Its units.
        seconds, cpu_seconds : float
            Time that it took, and that all threads of the process were run.
        now : float
            The time at its end.
        """
        window = self._window
        if window.threads != threads:
            window = self._window = _Window(threads)
        window.work, window.seconds = window.work + work, window.seconds + seconds
        window.cpu_seconds += cpu_seconds
        if window.seconds < WINDOW:
            return
        cost, running = window.seconds / window.work, window.cpu_seconds / window.seconds
        late = TICK * math.sqrt(threads - 1) / window.seconds
        are_run = running >= threads - MISSING
        if not are_run and running + late >= threads - MISSING:
            return  # more work will tell
        self._window = _Window()
        fewer = max(1, min(threads - 1, round(running - 0.25)))
        if threads == most and are_run:
            self._few, self._rest = 0, FIRST_REST
        elif threads == most:
            if self._few or now >= self._until:
                self._cost = cost
                self._use(fewer, most)
                self._put_off(now)
        elif threads > 1 and not are_run:
            self._use(fewer, most)
        elif cost > GAIN * self._cost:  # all of them are no slower, though they are not run all the time
            self._few = 0
            self._put_off(now)

    def _use(self, few: int, most: int) -> None:
        self._few, self.fewest = few, min(self.fewest or most, few)

    def _put_off(self, now: float) -> None:
        self._until = now + self._rest
        self._rest = min(2.0 * self._rest, LONGEST_REST)
