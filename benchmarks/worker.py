"""One library in one process: ``python -m benchmarks.worker LIBRARY THREADS``, driven by lines of JSON.

It reads a request a line from stdin and answers each with a line; between requests it is blocked, and its threads
sleep. A request's ``op`` names a method of `Session`.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.calls import ALLOCATING, EMPTY, Calls
from benchmarks.cases import CASES, LOOPS, PATTERNS, make_rows, make_weights
from benchmarks.peers import PEERS


class Session:
    """The state of a worker: the job at hand, which ``run(count)`` does ``count`` times."""

    def __init__(self, library: str, threads: int) -> None:
        started = time.perf_counter()
        self._run: Callable[[int], Any]
        self._reset: Callable[[], Any]
        if library == "limit":
            from benchmarks.limit import Limit

            self._limit = Limit(threads)
        elif library in (EMPTY, ALLOCATING):
            self._calls = Calls(library)
        else:
            self._peer = PEERS[library].load(threads)
        self.import_s = time.perf_counter() - started
        self._idle_from = time.process_time()

    def hello(self) -> dict[str, Any]:
        """Return the seconds that the library took to import."""
        return {"import_s": self.import_s}

    def limit(self) -> dict[str, Any]:
        """Make the multiply-adds of the FMA limit the job."""
        self._run, self._reset = self._limit.run, lambda: None
        return {"operations": self._limit.operations}

    def product(self, size: int) -> dict[str, Any]:
        """Make a product of square matrices the job."""
        a, b = np.random.default_rng(0).normal(size=(2, size, size)).astype(np.float32)
        multiply = self._peer.product(a, b)

        def run(count: int) -> None:
            for _ in range(count):
                multiply()

        self._run, self._reset = run, lambda: None
        return {"operations": 2 * size**3}

    def calls(self, steps: int) -> dict[str, Any]:
        """Make so many calls into compiled code the job."""
        self._calls.set_steps(steps)
        self._run, self._reset = self._calls.run, lambda: None
        return {"first_s": self._timed(1)}

    def training(self, case: str) -> dict[str, Any]:
        """Make an epoch of this case the job; answer what the checks are about, and the first epoch's seconds."""
        row = (CASES | LOOPS)[case]
        (x, y), weights = make_rows(row.widths, row.rows), make_weights(row.widths)
        self._peer.build(x, y, row.batch, weights)
        self._run, self._reset = self._peer.epochs, lambda: self._peer.reset(weights)
        first_s = self._timed(1)  # compiles
        self._peer.build(x, y, row.batch, weights)
        first = x[: row.batch]
        before = np.array(self._peer.predict(first))
        loss = self._peer.step()
        after = np.array(self._peer.predict(first))
        self._reset()
        return {"first_s": first_s, "loss": loss, "before": before.tolist(), "after": after.tolist()}

    def inference(self, case: str, batch: int, pattern: str | None = None) -> dict[str, Any]:
        """Make a prediction of ``batch`` rows the job; answer what it predicts, and the first one's seconds.

        With a ``pattern`` of zeros in the weights.
        """
        row = CASES[case]
        x, y = make_rows(row.widths, batch)
        weights = make_weights(row.widths)
        self._peer.build(x, y, batch, PATTERNS[pattern].masked(weights) if pattern else weights)
        predict = self._peer.predict

        def run(count: int) -> None:
            for _ in range(count):
                predict(x)

        self._run, self._reset = run, lambda: None
        return {"first_s": self._timed(1), "predictions": np.array(predict(x)).tolist()}

    def warm(self, seconds: float) -> dict[str, Any]:
        """Do the job until everything is compiled and in place; answer how often it is done in ``seconds``."""
        self._timed(1)
        count, took = 1, self._timed(1)
        while took < seconds / 4:
            count *= 2
            took = self._timed(count)
        return {"count": max(1, round(seconds * count / took))}

    def turn(self, count: int) -> dict[str, Any]:
        """Do the job ``count`` times; answer the wall's and the CPU's seconds, and the CPU's since the last turn."""
        idle = time.process_time() - self._idle_from
        self._reset()
        cpu = time.process_time()
        seconds = self._timed(count)
        self._idle_from = time.process_time()
        return {"seconds": seconds, "cpu_s": self._idle_from - cpu, "idle_cpu_s": idle}

    def _timed(self, count: int) -> float:
        started = time.perf_counter()
        self._run(count)
        return time.perf_counter() - started

    def accuracy(self, data: str, seed: int, goal: float, limit: int, batch: int, widths: list[int]) -> dict[str, Any]:
        """Train on MNIST until the test accuracy is ``goal``, at most ``limit`` epochs; only training is timed."""
        from benchmarks.mnist import read

        x, y, x_test, y_test = read(data)
        weights = make_weights(tuple(widths), seed)
        self._peer.build(x, y, batch, weights)
        # All is compiled before the clock starts; the compile is reported apart.
        started = time.perf_counter()
        self._peer.epochs(1)
        first = time.perf_counter() - started
        self._peer.reset(weights)
        seconds, epochs, reached = 0.0, 0, 0.0
        while epochs < limit and reached < goal:
            started = time.perf_counter()
            self._peer.epochs(1)
            seconds += time.perf_counter() - started
            epochs += 1
            reached = float((self._peer.predict(x_test).argmax(axis=1) == y_test).mean())
        return {
            "seconds": seconds,
            "epochs": epochs,
            "accuracy": reached,
            "compile_s": max(0.0, first - seconds / epochs),
        }


def main() -> None:
    """Answer requests until stdin ends."""
    library, threads = sys.argv[1], int(sys.argv[2])
    # Answers go to what stdout was; what libraries print goes to stderr.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    session: Session | None = None
    while line := sys.stdin.readline():
        try:
            session = session or Session(library, threads)
            request = json.loads(line)
            answer = getattr(session, request.pop("op"))(**request)
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
