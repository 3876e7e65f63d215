"""Check, then time: every case, at every number of threads, with every library."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks import busy, cases, machine, reference, start
from benchmarks.calls import ALLOCATING, EMPTY
from benchmarks.cases import (
    CASES,
    INT8_TOLERANCE,
    LOOPS,
    PATTERNS,
    SPARSE_BATCHES,
    SPARSE_CASES,
    TOLERANCE,
    Case,
)
from benchmarks.peers import PEERS
from benchmarks.pool import Worker, take_turns, workers
from benchmarks.publishing.command import say

FORMAT = 1
PARTS = (
    "training",
    "inference",
    "int8",
    "sparse",
    "loops",
    "accuracy",
    "busy",
    "start",
)  # of the results; each can be measured by itself
LIMIT = "limit"
PRODUCT = 768  # rows, columns and depth of the product that peers are to show their fastest with


@dataclass(frozen=True)
class Settings:
    """The extent of a measurement; ``data`` is MNIST's folder, or None."""

    cases: tuple[str, ...]
    libraries: tuple[str, ...]
    threads: tuple[int, ...] = (2, 1)
    rounds: int = 7
    seconds: float = 0.3  # a turn
    rest: float = 0.25  # after it
    parts: tuple[str, ...] = PARTS
    data: str | None = None


class CheckError(AssertionError):
    """An error: a library does not compute what the reference computes, and is not timed."""


def _compare(what: str, found: Any, expected: Any, tolerance: float = TOLERANCE) -> float:
    difference = float(np.max(np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64))))
    if not difference <= tolerance:
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


def check_inference(
    worker: Worker, case: Case, batch: int, tolerance: float = TOLERANCE, pattern: str | None = None
) -> tuple[float, float]:
    """Have a worker make the prediction of ``batch`` rows its job; compare what it predicts."""
    x, _ = cases.make_rows(case.widths, batch)
    weights = cases.make_weights(case.widths)
    expected = reference.predict(x, PATTERNS[pattern].masked(weights) if pattern else weights)
    answer = worker.ask("inference", case=case.name, batch=batch, **({"pattern": pattern} if pattern else {}))
    difference = _compare(f"{worker.library}, {case.name}, batch {batch}", answer["predictions"], expected, tolerance)
    return difference, answer["first_s"]


def _time(
    pool: dict[str, Worker],
    check: Callable[[Worker], tuple[float, float]],
    settings: Settings,
    failures: list[str],
    part: str,
    steps: int = 1,
    fastest: float = 0.0,
) -> Iterable[dict[str, Any]]:
    """Return a row of results for each worker that passes its check, with the limit's rate where that is measured.

    The limit is the larger of what multiply-adds on registers reach and ``fastest``, of the products. ``each_s`` is a
    job's seconds divided by ``steps``, ``compile_s`` the first job's excess over those that follow.
    """
    passed, checked = {}, {}
    for library, worker in pool.items():
        if library == LIMIT:
            operations = worker.ask("limit")["operations"]
        else:
            try:
                checked[library] = check(worker)
            except CheckError as error:
                failures.append(f"{part}: {error}")
                continue
        passed[library] = worker
    timed = take_turns(passed, settings.rounds, settings.seconds, settings.rest)
    # The best turn, not the median: what disturbs it would flatter everything that is held against it.
    limit = timed.pop(LIMIT, None)
    rate = {} if limit is None else {"limit_gflops": max(fastest, operations / min(limit["turns_s"]) / 1e9)}
    for library, row in timed.items():
        difference, first = checked[library]
        yield {
            "library": library,
            **row,
            "each_s": row["each_s"] / steps,
            "turns_s": [seconds / steps for seconds in row["turns_s"]],
            "compile_s": max(0.0, first - row["each_s"]),
            "difference": difference,
            **rate,
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


def _products(pool: dict[str, Worker], settings: Settings, threads: int, results: dict[str, Any]) -> None:
    """Measure the fastest product of each library that has one: no limit of ours may lie below it."""
    pool = {name: worker for name, worker in pool.items() if name != LIMIT and PEERS[name].multiplies}
    say(f"products, {threads} threads")
    operations = {name: worker.ask("product", size=PRODUCT)["operations"] for name, worker in pool.items()}
    timed = take_turns(pool, settings.rounds, settings.seconds, settings.rest)
    for library, row in timed.items():
        rate = operations[library] / min(row["turns_s"]) / 1e9
        results["products"].append({"library": library, "threads": threads, "gflops": rate})


def _fastest_product(results: dict[str, Any], threads: int) -> float:
    return max((row["gflops"] for row in results["products"] if row["threads"] == threads), default=0.0)


def _training(pool: dict[str, Worker], settings: Settings, threads: int, results: dict[str, Any]) -> None:
    pool = {name: worker for name, worker in pool.items() if name == LIMIT or PEERS[name].training}
    fastest = _fastest_product(results, threads)
    for case in map(CASES.__getitem__, settings.cases):
        say(f"training {case.name}, {threads} threads")
        check = partial(check_training, case=case)
        for row in _time(pool, check, settings, results["failures"], "training", case.steps, fastest):
            results["training"].append({"case": case.name, "threads": threads, **row})


def _race(pool: dict[str, Worker], settings: Settings, threads: int, results: dict[str, Any]) -> None:
    if settings.data is None or threads != max(settings.threads):
        return
    say("time to accuracy")
    # Keras cannot be set back without compiling anew.
    racers = {name: worker for name, worker in pool.items() if name not in (LIMIT, "keras") and PEERS[name].training}
    results["accuracy"] += [{"threads": threads, **row} for row in _accuracy(racers, settings)]


def _inference(pool: dict[str, Worker], settings: Settings, threads: int, results: dict[str, Any]) -> None:
    pool = {name: worker for name, worker in pool.items() if name == LIMIT or PEERS[name].inference}
    fastest = _fastest_product(results, threads)
    for case in map(CASES.__getitem__, settings.cases):
        for batch in case.predict:
            say(f"inference {case.name}, batch {batch}, {threads} threads")
            check = partial(check_inference, case=case, batch=batch)
            for row in _time(pool, check, settings, results["failures"], "inference", fastest=fastest):
                results["inference"].append({"case": case.name, "batch": batch, "threads": threads, **row})


def _int8(pool: dict[str, Worker], settings: Settings, threads: int, results: dict[str, Any]) -> None:
    pool = {name: worker for name, worker in pool.items() if name != LIMIT and PEERS[name].int8}
    for case in map(CASES.__getitem__, settings.cases):
        for batch in case.predict:
            say(f"int8 inference {case.name}, batch {batch}, {threads} threads")
            check = partial(check_inference, case=case, batch=batch, tolerance=INT8_TOLERANCE)
            for row in _time(pool, check, settings, results["failures"], "int8"):
                results["int8"].append({"case": case.name, "batch": batch, "threads": threads, **row})


def _sparse(pool: dict[str, Worker], settings: Settings, threads: int, results: dict[str, Any]) -> None:
    pool = {name: worker for name, worker in pool.items() if name != LIMIT and PEERS[name].sparse}
    for case in (CASES[name] for name in SPARSE_CASES if name in settings.cases):
        for pattern, batch in itertools.product(PATTERNS, SPARSE_BATCHES):
            say(f"sparse inference {case.name}, {pattern}, batch {batch}, {threads} threads")

            def check(worker: Worker, case: Case = case, pattern: str = pattern, batch: int = batch) -> Any:
                tolerance = INT8_TOLERANCE if "int8" in worker.library else TOLERANCE
                return check_inference(worker, case, batch, tolerance, pattern)

            for row in _time(pool, check, settings, results["failures"], "sparse"):
                where = {"case": case.name, "pattern": pattern, "batch": batch, "threads": threads}
                results["sparse"].append({**where, **row})


def _loops(pool: dict[str, Worker], settings: Settings, threads: int, results: dict[str, Any]) -> None:
    if threads != min(settings.threads):
        return
    loops = {name: worker for name, worker in pool.items() if name in PEERS and PEERS[name].loop}
    with workers([EMPTY, ALLOCATING], threads) as calls:
        for case in LOOPS.values():
            say(f"own loops {case.name}, {threads} threads")
            there = {name: worker for name, worker in loops.items() if case.batch == 1 or not PEERS[name].by_row}
            check = partial(_check_loop, case=case)
            for row in _time({**there, **calls}, check, settings, results["failures"], "loops", case.steps):
                results["loops"].append({"case": case.name, "threads": threads, **row})


def _check_loop(worker: Worker, case: Case) -> tuple[float, float]:
    if worker.library in (EMPTY, ALLOCATING):
        return 0.0, worker.ask("calls", steps=case.steps)["first_s"]
    return check_training(worker, case)


MEASURES = {
    "training": _training,
    "accuracy": _race,
    "inference": _inference,
    "int8": _int8,
    "sparse": _sparse,
    "loops": _loops,
}
OF_SOME = {
    "int8",
    "sparse",
}  # parts for which only some libraries are needed, and no limit: those of which it is a flag


def run(settings: Settings) -> dict[str, Any]:
    """Measure everything; return what the JSON file holds, in seconds throughout."""
    results: dict[str, Any] = {
        "format": FORMAT,
        "machine": machine.describe(),
        "settings": {"rounds": settings.rounds, "turn_s": settings.seconds, "threads": list(settings.threads)},
        **{part: {} if part == "start" else [] for part in ("products", *PARTS)},
        "failures": [],
    }
    measures = [measure for part, measure in MEASURES.items() if part in settings.parts]
    of_some = OF_SOME.intersection(settings.parts)
    few = set(settings.parts) <= {*OF_SOME, "start"}
    needed = [
        name
        for name in (LIMIT, *settings.libraries)
        if not few or (name != LIMIT and any(getattr(PEERS[name], part) for part in of_some))
    ]
    for threads in settings.threads if measures else ():
        with workers(needed, threads) as pool:
            for measure in measures if few else (_products, *measures):
                measure(pool, settings, threads, results)
    if "busy" in settings.parts:
        say("beside other processes")
        results["busy"] = busy.measure(settings.cases, 10 * settings.seconds, min(settings.rounds, 3))
    if "start" in settings.parts:
        say("cold start")
        results["start"] = start.measure(settings.rounds)
    return results


def check_machine(results: dict[str, Any]) -> None:
    """Raise ValueError if what is measured now does not go with these results, being of another machine or format."""
    here, there = machine.describe(), results["machine"]
    for key in ("cpu", "cores", "vector_bytes"):
        if here[key] != there[key]:
            raise ValueError(f"measured on another machine ({key}: {there[key]}, and here {here[key]})")
    if results["format"] != FORMAT:
        raise ValueError(f"of format {results['format']}, and this is {FORMAT}")


def merged(old: dict[str, Any], new: dict[str, Any], parts: tuple[str, ...]) -> dict[str, Any]:
    """Return the old results with the new ones of these parts in place of theirs."""
    kept = [failure for failure in old["failures"] if failure.split(": ")[0] not in parts]
    dates = {**old.get("dates", {}), **dict.fromkeys(parts, machine.date_of(new["machine"]))}
    failures = [*kept, *new["failures"]]
    return {**old, **{part: new[part] for part in parts}, "dates": dates, "failures": failures}
