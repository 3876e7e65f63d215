"""Training beside other processes: a whole fit with threads as they come, and with OMP_NUM_THREADS=1, in turns."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.cases import CASES, make_rows, make_weights
from benchmarks.peers.ours import make_model
from benchmarks.pool import WorkerError, environment

BUSY = 1  # other processes, each of which keeps a CPU


@contextmanager
def busy_processes(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Keep so many processes busy for as long as the block lasts."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(names: tuple[str, ...], seconds: float, rounds: int) -> list[dict[str, Any]]:
    """Time fits that take one thread about so many seconds; return a row for each case and number of other processes.

    Every fit is a process of its own, and takes turns with those of the other setting. ``default_s`` and ``one_s`` are
    medians.
    """
    rows = []
    for name in names:
        epochs = max(1, round(seconds / _fit(name, 1, one=True)))
        for others in (0, BUSY):
            turns: dict[str, list[float]] = {"default_s": [], "one_s": []}
            with busy_processes(others):
                for _ in range(rounds):
                    for setting, took in turns.items():
                        took.append(_fit(name, epochs, one=setting == "one_s"))
            medians = {setting: statistics.median(took) for setting, took in turns.items()}
            rows.append({"case": name, "busy": others, **medians, "turns_s": turns})
    return rows


def _fit(name: str, epochs: int, one: bool) -> float:
    """Return the seconds of a fit in a process of its own."""
    variables = {key: value for key, value in environment(1).items() if not key.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.busy", name, str(epochs)],
        env=variables | ({"OMP_NUM_THREADS": "1"} if one else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise WorkerError(done.stderr[-4000:])
    return float(json.loads(done.stdout))


def main() -> None:
    """Fit a case for so many epochs, and print the seconds."""
    case, epochs = CASES[sys.argv[1]], int(sys.argv[2])
    x, y = make_rows(case.widths, case.rows)
    model = make_model(make_weights(case.widths))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, case.batch, verbose=0)  # compiles
    started = time.perf_counter()
    model.fit(x, y, case.batch, epochs=epochs, verbose=0)
    print(json.dumps(time.perf_counter() - started))


if __name__ == "__main__":
    main()
