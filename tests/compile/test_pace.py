"""The number of threads beside other processes: by the time that work takes, which the tests make up."""

import itertools
import math

import numpy as np
import pytest

from nbdense._compile import pace, thread_pool
from nbdense._compile.pace import LONGEST_REST, Pace


class Machine:
    """A clock, and CPUs of which other processes keep some busy; a region on more threads than are free is slow."""

    def __init__(self, monkeypatch, cpus, busy=0):
        self.cpus, self.busy, self.now, self.cpu_seconds = cpus, busy, 100.0, 0.0
        monkeypatch.setattr(pace.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(pace.time, "process_time", lambda: self.cpu_seconds)
        monkeypatch.setattr(thread_pool, "worthwhile", lambda flops: cpus if flops >= 1e6 else 1)
        monkeypatch.setattr(thread_pool, "region", Region)

    def work(self, threads, seconds):
        """Do what takes one thread so many seconds."""
        waits = threads > self.cpus - self.busy  # where a thread is not run, the others wait for it
        took = seconds / threads * (3 * threads if waits else 1)
        self.now += took
        self.cpu_seconds += took * (threads - self.busy / 2 if waits else threads)


class Region:
    def __init__(self, threads):
        self.threads = threads

    def __enter__(self):
        return self.threads

    def __exit__(self, *_):
        pass


def threads_of(machine, kept, count, seconds=0.02, flops=1e8):
    """Do pieces of work; return how many threads each had."""
    used = []
    for _ in range(count):
        with kept.region(flops, seconds) as threads:
            machine.work(threads, seconds)
        used.append(threads)
    return used


@pytest.mark.parametrize("cpus", [1, 2, 8])
def test_an_idle_machine_gives_all_threads(monkeypatch, cpus):
    machine, kept = Machine(monkeypatch, cpus), Pace()
    assert set(threads_of(machine, kept, 100)) == {cpus}
    assert kept.fewest == 0


@pytest.mark.parametrize(("cpus", "busy", "fewer"), [(2, 1, 1), (8, 1, 7), (8, 4, 4)])
def test_threads_that_are_not_run_are_left_out(monkeypatch, cpus, busy, fewer):
    machine, kept = Machine(monkeypatch, cpus, busy), Pace()
    used = threads_of(machine, kept, 200)
    assert used[0] == cpus
    assert used[2] == fewer
    assert used.count(fewer) > 180
    assert kept.fewest == fewer


def test_all_are_tried_again_and_less_often_each_time(monkeypatch):
    machine, kept = Machine(monkeypatch, 2, busy=1), Pace()
    tried = [machine.now for _ in range(1000) if threads_of(machine, kept, 1) == [2]]
    rests = [b - a for a, b in itertools.pairwise(tried)]
    assert rests == sorted(rests)
    assert len(rests) > 5
    assert rests[0] < LONGEST_REST <= rests[-1] < LONGEST_REST + 0.2
    machine.busy = 0
    later = threads_of(machine, kept, 400)
    assert later[-200:] == [2] * 200


def test_threads_that_are_worth_while_though_they_rest_are_kept(monkeypatch):
    """As on a threading layer whose threads sleep while they wait: fewer of them are not faster, and that is seen."""
    machine, kept = Machine(monkeypatch, 2), Pace()

    def work(threads, seconds):
        machine.now += seconds / threads
        machine.cpu_seconds += seconds / threads * (1.5 if threads == 2 else 1.0)

    machine.work = work
    used = threads_of(machine, kept, 2000, seconds=0.03)
    tried = used.index(1)
    assert used[tried : tried + 2] == [1, 2]
    assert used.count(2) > 1950


def test_small_pieces_are_judged_together(monkeypatch):
    machine, kept = Machine(monkeypatch, 2, busy=1), Pace()
    used = threads_of(machine, kept, 200, seconds=0.0002)
    assert used.index(1) == math.ceil(pace.WINDOW / 0.0006)


@pytest.mark.parametrize(("cpus", "seconds"), [(2, 0.004), (2, 0.03), (2, 0.3), (16, 0.03)])
def test_what_the_system_counts_late_is_not_missing(monkeypatch, cpus, seconds):
    """Count what a running thread has done at its CPU's next tick, every 4 ms, as Linux does."""
    machine, kept = Machine(monkeypatch, cpus), Pace()
    ticks = np.random.default_rng(1).uniform(0, 0.004, cpus - 1)
    monkeypatch.setattr(pace.time, "process_time", lambda: machine.cpu_seconds - ((machine.now + ticks) % 0.004).sum())
    assert set(threads_of(machine, kept, 400, seconds)) == {cpus}
    assert kept.fewest == 0


@pytest.mark.parametrize("cpus", [2, 8])
def test_cpu_times_are_looked_at_only_while_work_is_slower_than_it_was(monkeypatch, cpus):
    machine, kept = Machine(monkeypatch, cpus), Pace()
    asked = []
    monkeypatch.setattr(pace.time, "process_time", lambda: asked.append(machine.now) or machine.cpu_seconds)
    threads_of(machine, kept, 10 * cpus)
    first = len(asked)
    assert 0 < first <= 2 * (cpus + 1)  # a window
    assert set(threads_of(machine, kept, 100)) == {cpus}
    assert len(asked) == first
    machine.busy = 1
    used = threads_of(machine, kept, 100)
    assert used[:3] == [cpus, cpus, cpus - 1]  # that it is slower; that not all are run
    machine.busy = 0
    threads_of(machine, kept, 200)
    first = len(asked)
    assert set(threads_of(machine, kept, 100)) == {cpus}
    assert len(asked) == first


def test_what_is_counted_behind_bursts_is_not_missing(monkeypatch):
    """Bursts of 7 pieces, behind which the system counts the last 4 ms of the second thread, while nobody works."""
    machine, kept = Machine(monkeypatch, 2), Pace()
    used, counted = [], [0.0]
    monkeypatch.setattr(pace.time, "process_time", lambda: max(counted[0], machine.cpu_seconds - 0.004))
    for _ in range(100):
        counted[0] = machine.cpu_seconds
        machine.now += 0.1
        used += threads_of(machine, kept, 7, seconds=0.002)
    assert used.count(1) <= 1 + math.ceil(pace.WINDOW / 0.002), "more than show that one thread is slower"


def test_work_for_one_thread_is_not_measured(monkeypatch):
    machine, kept = Machine(monkeypatch, 2, busy=1), Pace()
    monkeypatch.setattr(pace.time, "perf_counter", lambda: 1 / 0)
    assert set(threads_of(machine, kept, 10, flops=1.0)) == {1}


def test_a_piece_that_is_broken_off_gives_its_threads_back_and_counts_for_nothing(monkeypatch):
    machine, kept = Machine(monkeypatch, 2, busy=1), Pace()
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt), kept.region(1e8, 1.0):
            machine.work(2, 0.1)
            raise KeyboardInterrupt
    assert kept.fewest == 0
    assert threads_of(machine, kept, 2) == [2, 1]
