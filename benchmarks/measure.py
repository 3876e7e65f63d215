"""Check, then time: every case, at every number of threads, with every library."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks import cases, machine, reference, start
from benchmarks.cases import CASES, TOLERANCE, Case
from benchmarks.peers import PEERS
from benchmarks.pool import Worker, take_turns, workers

FORMAT = 1
LIMIT = "limit"


@dataclass(frozen=True)
class Settings:
    """How much is measured; ``data`` is MNIST's folder, or None."""

    cases: tuple[str, ...]
    libraries: tuple[str, ...]
    threads: tuple[int, ...] = (2, 1)
    rounds: int = 7
    seconds: float = 0.3  # a turn
    rest: float = 0.25  # after it
    start: bool = True
    data: str | None = None

    def say(self, line: str) -> None:
        """Progress goes to stderr: stdout is the report."""
        print(line, file=sys.stderr, flush=True)


class CheckError(AssertionError):
    """A library does not compute what the reference computes: it is not timed."""


def _compare(what: str, found: Any, expected: Any) -> float:
    difference = float(np.max(np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64))))
    if not difference <= TOLERANCE:
        raise CheckError(f"{what}: differs from the reference by {difference:.2g}")
    return difference


def check_training(worker: Worker, case: Case) -> tuple[float, float]:
    """Have a worker make the case its job; compare its loss and predictions.

    Returns the largest difference, and the first epoch's seconds.
    """
    x, y = cases.make_rows(case.widths, case.rows)
    x, y = x[: case.batch], y[: case.batch]
    weights = cases.make_weights(case.widths)
    loss, stepped = reference.first_step(x, y, weights)
    answer = worker.ask("training", case=case.name)
    name = f"{worker.library}, {case.name}"
    differences = [
        _compare(f"{name}, loss", answer["loss"], loss),
        _compare(f"{name}, predictions", answer["before"], reference.predict(x, weights)),
    ]
    if PEERS[worker.library].same_steps or case.widths[-1] > 2:
        after = reference.predict(x, stepped)
        differences.append(_compare(f"{name}, predictions after a step", answer["after"], after))
    return max(differences), answer["first_s"]


def check_inference(worker: Worker, case: Case, batch: int) -> tuple[float, float]:
    """The same for predictions of ``batch`` rows."""
    x, _ = cases.make_rows(case.widths, batch)
    expected = reference.predict(x, cases.make_weights(case.widths))
    answer = worker.ask("inference", case=case.name, batch=batch)
    difference = _compare(f"{worker.library}, {case.name}, batch {batch}", answer["predictions"], expected)
    return difference, answer["first_s"]


def _time(
    pool: dict[str, Worker],
    check: Callable[[Worker], tuple[float, float]],
    settings: Settings,
    failures: list[str],
    steps: int = 1,
) -> Iterable[dict[str, Any]]:
    """A row of results for each worker that passes its check, with the limit's rate beside it.

    ``each_s`` is a job's seconds divided by ``steps``, ``compile_s`` the first job's excess over those that follow.
    """
    passed, checked = {}, {}
    for library, worker in pool.items():
        if library == LIMIT:
            operations = worker.ask("limit")["operations"]
        else:
            try:
                checked[library] = check(worker)
            except CheckError as error:
                failures.append(str(error))
                continue
        passed[library] = worker
    timed = take_turns(passed, settings.rounds, settings.seconds, settings.rest)
    # The best turn, not the median: what disturbs it would flatter everything that is held against it.
    gflops = operations / min(timed.pop(LIMIT)["turns_s"]) / 1e9
    for library, row in timed.items():
        difference, first = checked[library]
        yield {
            "library": library,
            **row,
            "each_s": row["each_s"] / steps,
            "turns_s": [seconds / steps for seconds in row["turns_s"]],
            "compile_s": max(0.0, first - row["each_s"]),
            "difference": difference,
            "limit_gflops": gflops,
        }


def _accuracy(pool: dict[str, Worker], settings: Settings) -> Iterable[dict[str, Any]]:
    case = CASES[cases.ACCURACY_CASE]
    runs: dict[str, list[dict[str, Any]]] = {library: [] for library in pool}
    for seed in range(min(settings.rounds, 3)):
        for library, worker in pool.items():
            runs[library].append(
                worker.ask(
                    "accuracy",
                    data=settings.data,
                    seed=seed,
                    goal=cases.ACCURACY,
                    limit=cases.ACCURACY_EPOCHS,
                    batch=case.batch,
                    widths=case.widths,
                )
            )
    for library, answers in runs.items():
        yield {
            "library": library,
            "seconds": statistics.median(answer["seconds"] for answer in answers),
            "epochs": statistics.median(answer["epochs"] for answer in answers),
            "accuracy": min(answer["accuracy"] for answer in answers),
            "compile_s": answers[0]["compile_s"],
            "runs": answers,
        }


def _training(pool: dict[str, Worker], settings: Settings, threads: int, results: dict[str, Any]) -> None:
    pool = {name: worker for name, worker in pool.items() if name == LIMIT or PEERS[name].training}
    for case in map(CASES.__getitem__, settings.cases):
        settings.say(f"training {case.name}, {threads} threads")
        check = partial(check_training, case=case)
        for row in _time(pool, check, settings, results["failures"], case.steps):
            results["training"].append({"case": case.name, "threads": threads, **row})
    if settings.data is not None and threads == max(settings.threads):
        settings.say("time to accuracy")
        # Keras cannot be set back without compiling anew.
        racers = {name: worker for name, worker in pool.items() if name not in (LIMIT, "keras")}
        results["accuracy"] += [{"threads": threads, **row} for row in _accuracy(racers, settings)]


def _inference(pool: dict[str, Worker], settings: Settings, threads: int, results: dict[str, Any]) -> None:
    pool = {name: worker for name, worker in pool.items() if name == LIMIT or PEERS[name].inference}
    for case in map(CASES.__getitem__, settings.cases):
        for batch in case.predict:
            settings.say(f"inference {case.name}, batch {batch}, {threads} threads")
            check = partial(check_inference, case=case, batch=batch)
            for row in _time(pool, check, settings, results["failures"]):
                results["inference"].append({"case": case.name, "batch": batch, "threads": threads, **row})


def run(settings: Settings) -> dict[str, Any]:
    """Measure everything; the result is what the JSON file holds, in seconds throughout."""
    results: dict[str, Any] = {
        "format": FORMAT,
        "machine": machine.describe(),
        "settings": {"rounds": settings.rounds, "turn_s": settings.seconds, "threads": list(settings.threads)},
        "training": [],
        "inference": [],
        "accuracy": [],
        "start": {},
        "failures": [],
    }
    for threads in settings.threads:
        with workers([LIMIT, *settings.libraries], threads) as pool:
            _training(pool, settings, threads, results)
            _inference(pool, settings, threads, results)
    if settings.start:
        settings.say("cold start")
        results["start"] = start.measure(settings.rounds)
    return results
