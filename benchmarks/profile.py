"""Profile of a training step, part by part: ``python -m benchmarks.profile [--cases wide] [--threads 2]``.

A step is a table of phases, so it can be cut short after any of its parts: a part's time is that of a run which goes
so far, less that of a run which stops before it, both the compiled program itself, on the case's data, taking turns.
Beside each part stands its floor: a product's multiply-adds at the limit, other parts' bytes at the speed at which as
many bytes are copied. What a part takes beyond half of its time on one thread is what the second core costs: waiting
at the end of the region, and cache lines that come from the other core.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numba
import numpy as np
from numba import njit, prange

import nbdense as nb
from benchmarks import cases, machine
from benchmarks.cases import CASES, Case
from benchmarks.limit import Limit
from benchmarks.peers.ours import make_model
from nbdense.backends.cpu.plan import CpuPlan
from nbdense.backends.cpu.workspace import CpuWorkspace
from nbdense.engine.tables import CLIP, GATHER, GRADIENT, LOSS, NO_DELTA, PHASE, ROWS, SLABS, UPDATE
from nbdense.network import Network

FLOAT = 4
Phase = tuple[int, int, int, int, int, int]


@dataclass(frozen=True)
class Part:
    """A part of a step: the phases of a step that ends with it, and the work that it has to do at the least."""

    name: str
    phases: list[Phase]
    operations: float = 0.0
    bytes: float = 0.0


def parts_of(network: Network, batch: int) -> list[Part]:
    """Return the parts of a plain network's step, in order; each one's phases are those before it and its own."""
    layers = network.layers
    count = len(layers)
    rows: Phase = (ROWS, GATHER, 0, 0, 0, 0)
    first, last = layers[0], layers[-1]
    parts = [
        Part("an empty region", [(ROWS, 0, 0, 0, 0, 0)]),
        Part("gather", [rows], bytes=FLOAT * 2 * batch * float(first["n_in"])),
    ]

    def product(row: Any) -> float:
        return 2.0 * batch * float(row["n_in"]) * float(row["n_out"])

    for i, row in enumerate(layers):
        parts.append(Part(f"forward {row['n_in']}-{row['n_out']}", [(ROWS, GATHER, 0, i + 1, 0, 0)], product(row)))
    outputs = batch * float(last["n_out"])
    parts.append(Part("loss", [(ROWS, GATHER | LOSS, 0, count, 0, 0)], bytes=FLOAT * 3 * outputs))
    for i in reversed(range(count)):
        if not layers[i]["flags"] & NO_DELTA:
            phases = [(ROWS, GATHER | LOSS, 0, count, i, count)]
            parts.append(Part(f"backward {layers[i]['n_in']}-{layers[i]['n_out']}", phases, product(layers[i])))
    whole: Phase = (ROWS, GATHER | LOSS, 0, count, 0, count)
    gradients = sum(map(product, layers))
    parts.append(Part("gradients", [whole, (SLABS, GRADIENT, 0, 0, 0, 0)], gradients))
    # Adam reads weight, gradient and two moments, and writes all but the gradient; a transpose is written besides.
    moved = FLOAT * 8.0 * network.params.size
    parts.append(Part("update", [whole, (SLABS, GRADIENT | CLIP | UPDATE, 0, 0, 0, 0)], bytes=moved))
    return parts


class Step:
    """The run of phases that ``fit`` makes of a case, to be made again with others."""

    def __init__(self, case: Case) -> None:
        x, y = cases.make_rows(case.widths, case.rows)
        self._model = make_model(cases.make_weights(case.widths))
        self._model.compile(nb.Adam(cases.LEARNING_RATE), "sparse_categorical_crossentropy")
        plans: list[Any] = []
        runs: list[Any] = []
        plan, run = CpuWorkspace.plan, CpuPlan.run

        def planned(workspace: CpuWorkspace, phases: Any, **options: Any) -> CpuPlan:
            plans.append((workspace, options))
            return plan(workspace, phases, **options)

        def recorded(made: CpuPlan, data: Any, **options: Any) -> Any:
            runs.append((data, options))
            return run(made, data, **options)

        with mock.patch.object(CpuWorkspace, "plan", planned), mock.patch.object(CpuPlan, "run", recorded):
            self._model.fit(x, y, case.batch, verbose=0)
        (self._workspace, self._planned), (self._data, self._options) = plans[0], runs[0]
        self._options |= {"first_step": 0}
        self.network, self._steps = self._workspace.network, case.steps

    def seconds(self, phases: list[Phase], count: int) -> float:
        """Return the seconds of ``count`` steps of these phases."""
        plan, left = self._workspace.plan(np.array(phases, PHASE), **self._planned), count
        started = time.perf_counter()
        while left > 0:
            now = min(left, self._steps)
            plan.run(self._data, **{**self._options, "count": now})
            left -= now
        return time.perf_counter() - started


@njit(parallel=True)
def _copy(threads, times, source, target):  # type: ignore[no-untyped-def]
    share = source.size // threads
    for thread in prange(threads):
        for _ in range(times):
            target[thread * share : (thread + 1) * share] = source[thread * share : (thread + 1) * share]


def copy_rate(size: float, threads: int) -> float:
    """Return the bytes a second, read and written together, at which as much is copied as ``size`` bytes make."""
    count = max(1024, int(size / 2 / FLOAT))
    source, target = np.ones(count, np.float32), np.zeros(count, np.float32)
    times = max(1, int(2e7 / (2 * FLOAT * count)))
    best = float("inf")
    for _ in range(6):
        started = time.perf_counter()
        _copy(threads, times, source, target)
        best = min(best, time.perf_counter() - started)
    return 2 * FLOAT * count * times / best


def measure(case: Case, threads: int, rounds: int, seconds: float = 0.03) -> list[tuple[str, float, float]]:
    """Return name, microseconds and floor of each part of a case's step."""
    nb.set_num_threads(threads)
    numba.set_num_threads(threads)
    step, limit = Step(case), Limit(threads)
    limit.run(1)
    parts = parts_of(step.network, case.batch)
    counts = []
    for part in parts:
        step.seconds(part.phases, 10)
        counts.append(max(10, int(seconds / (step.seconds(part.phases, 10) / 10))))
    turns: list[list[float]] = [[] for _ in parts]
    rates = []
    for _ in range(rounds):
        for i, part in enumerate(parts):
            turns[i].append(step.seconds(part.phases, counts[i]) / counts[i])
        started = time.perf_counter()
        limit.run(10)
        rates.append(10 * limit.operations / (time.perf_counter() - started))
    # The time so far of each turn, so that a part is the median of differences within a round.
    lines, before = [], [0.0] * rounds
    for part, ends in zip(parts, turns, strict=True):
        took = statistics.median(end - start for end, start in zip(ends, before, strict=True))
        floor = part.operations / max(rates)
        if part.bytes:
            floor += part.bytes / copy_rate(part.bytes, threads)
        lines.append((part.name, took * 1e6, floor * 1e6))
        before = ends
    return [*lines, ("the step", statistics.median(before) * 1e6, sum(floor for *_, floor in lines))]


def main(arguments: list[str] | None = None) -> int:
    """Print a table for each case."""
    parser = argparse.ArgumentParser("python -m benchmarks.profile", description="Where a training step's time goes.")
    parser.add_argument("--cases", default=",".join(CASES), help="default: all")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="default: 1 2")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args(arguments)
    print(f"{machine.cpu_model()}; microseconds of a step, and its floor")
    for name in options.cases.split(","):
        case = CASES[name]
        print(f"\n{name}: {case.shape}, batch {case.batch}")
        columns = [measure(case, threads, options.rounds) for threads in options.threads]
        print(" " * 20 + "".join(f"{f'{threads} threads':>14}{'floor':>9}{'share':>7}" for threads in options.threads))
        for rows in zip(*columns, strict=True):
            cells = (f"{took:14.1f}{floor:9.1f}{floor / took if took > 0 else 1:7.0%}" for _, took, floor in rows)
            print(f"{rows[0][0]:20}" + "".join(cells))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
