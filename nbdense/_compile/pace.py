"""Threads on a machine that is busy: as many as the system runs, found out by how long the work takes.

A parallel region ends with its last thread. Where another process keeps a CPU busy, a thread waits for milliseconds to
be run, and the others for it: two threads then take three times as long as one. Results do not depend on the number of
threads, so it is free to change.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import Any

from nbdense._compile import thread_pool

WINDOW = 0.02  # seconds of work before it is judged
MISSING = 0.2  # of a CPU, that threads get less than all of theirs on an idle machine, waiting for each other included
# Seconds. What other threads have run is counted at the system's ticks, of 4 ms on most Linux kernels: a window's end
# may be counted in the next one.
TICK = 0.005
GAIN = 0.95  # of the time that work takes, below which fewer threads are worth while
SLOWER = 1.25  # times the least that all threads have taken, from which on CPU times are looked at
# Seconds until all threads are tried again, or fewer; doubled each time. The first is short for what passes at once:
# another library's threads spin for some 50 ms after their last work.
FIRST_REST, LONGEST_REST = 0.06, 2.0


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
    later. As long as work takes no longer than it did when all were run, nobody asks for CPU times: that costs
    microseconds, and what is counted after a burst of pieces would seem to be missing.

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
        self._least = math.inf  # the same, where all were run, or fewer no faster
        self._watches = True  # CPU times
        self._window = _Window()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Pace], tuple[()]]:
        return type(self), ()  # a copy begins anew

    def is_trying(self) -> bool:
        """Tell whether all threads are to be tried again now."""
        return bool(self._few) and time.perf_counter() >= self._until

    def region(self, flops: float, work: float) -> _Piece:
        """Borrow threads for a piece of work, and learn from the time that it takes.

        Parameters
        ----------
        flops : float
            Floating-point operations between two parallel regions' beginnings, by which threads are worth while.
        work : float
            Of the whole piece, in any unit.
        """
        return _Piece(self, flops, work)

    def wanted(self, most: int) -> int:
        """Return how many threads to use of those that there may be."""
        return most if self._few == 0 or self.is_trying() else min(self._few, most)

    def watches(self) -> bool:
        """Tell whether CPU times are wanted."""
        return self._watches

    def note(self, *piece: Any) -> None:
        """Learn from a piece of work, one thread of Python's at a time; the arguments are those of `learn`."""
        with self._lock:
            self.learn(*piece)

    def learn(
        self, threads: int, most: int, work: float, seconds: float, cpu_seconds: float | None, now: float
    ) -> None:
        """Judge a piece of work that is done, together with those before it.

        Parameters
        ----------
        threads, most : int
            How many it has had, and might have had.
        work : float
            Its units.
        seconds : float
            Time that it took.
        cpu_seconds : float or None
            Time that all threads of the process were run, where that was watched when it began.
        now : float
            The time at its end.
        """
        if (cpu_seconds is not None) != self._watches:
            return  # another thread's, begun before
        window = self._window
        if window.threads != threads:
            window = self._window = _Window(threads)
        window.work, window.seconds = window.work + work, window.seconds + seconds
        window.cpu_seconds += cpu_seconds or 0.0
        if window.seconds < WINDOW:
            return
        cost = window.seconds / window.work
        if not self._watches:
            self._window = _Window()
            self._watches = cost > SLOWER * self._least
            self._least = min(self._least, cost)
            return
        running = window.cpu_seconds / window.seconds
        late = TICK * math.sqrt(threads - 1) / window.seconds
        are_run = running >= threads - MISSING
        if not are_run and running + late >= threads - MISSING:
            return  # more work will tell
        self._window = _Window()
        fewer = max(1, min(threads - 1, round(running - 0.25)))
        if threads == most and are_run:
            self._few, self._rest = 0, FIRST_REST
            self._trust(cost)
        elif threads == most:
            if self._few or now >= self._until:
                self._cost = cost
                self._use(fewer, most)
        elif threads > 1 and not are_run:
            self._use(fewer, most)
        elif cost > GAIN * self._cost:  # all of them are no slower, though they are not run all the time
            self._few = 0
            self._put_off(now)
            self._trust(self._cost)
        elif self._until == math.inf:
            self._put_off(now)

    def _trust(self, cost: float) -> None:
        """Look at CPU times no more until work costs more than it does with all threads now, or has done before."""
        self._least = min(self._least, cost)
        self._watches = cost > SLOWER * self._least

    def _use(self, few: int, most: int) -> None:
        self._few, self.fewest = few, min(self.fewest or most, few)
        self._until = math.inf  # until they have been judged, however long nobody works

    def _put_off(self, now: float) -> None:
        self._until = now + self._rest
        self._rest = min(2.0 * self._rest, LONGEST_REST)


class _Piece:
    """A piece of work on borrowed threads, entered with how many there are.

    No generator, which would cost a microsecond more: the smallest pieces take twenty.
    """

    __slots__ = ("_borrowed", "_cpu", "_flops", "_granted", "_most", "_pace", "_started", "_wanted", "_work")

    def __init__(self, pace: Pace, flops: float, work: float) -> None:
        self._pace, self._flops, self._work = pace, flops, work

    def __enter__(self) -> int:
        self._most = most = thread_pool.worthwhile(self._flops)
        if most < 2:
            return 1
        self._wanted = self._pace.wanted(most)
        self._borrowed = thread_pool.region(self._wanted)
        self._granted = self._borrowed.__enter__()
        try:
            self._cpu = time.process_time() if self._pace.watches() else None
            self._started = time.perf_counter()
        except BaseException:  # Ctrl-C
            self._borrowed.__exit__()
            raise
        return self._granted

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._most < 2:
            return
        try:
            if kind is None and self._granted == self._wanted:  # else another thread of Python's has them
                now = time.perf_counter()
                cpu_seconds = None if self._cpu is None else time.process_time() - self._cpu
                self._pace.note(self._granted, self._most, self._work, now - self._started, cpu_seconds, now)
        finally:
            self._borrowed.__exit__()
