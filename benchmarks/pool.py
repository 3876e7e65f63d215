"""Worker processes, and turns: one works while the others sleep, A B C A B C, so that drift reaches all alike."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def environment(threads: int) -> dict[str, str]:
    """Return this process's environment, with every library's threads set alike."""
    variables = ("OMP", "MKL", "OPENBLAS", "NUMBA", "VECLIB", "BLIS")
    return {
        **os.environ,
        **{f"{name}_NUM_THREADS": str(threads) for name in variables},
        "VECLIB_MAXIMUM_THREADS": str(threads),
        "NPROC": str(threads),  # JAX has no other setting for its CPU threads
        "JAX_PLATFORMS": "cpu",
        "KERAS_BACKEND": "jax",
        "PYTHONDONTWRITEBYTECODE": "",  # pip has written the peers' bytecode; this tree's is written now
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }


class WorkerError(RuntimeError):
    """An error: a worker could not do what it was asked; the message has its traceback."""


class Worker:
    """One library in a process of its own."""

    def __init__(self, library: str, threads: int) -> None:
        self.library = library
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (closed in close)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", library, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment(threads),
        )

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Send a request, and wait for its answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._errors.seek(0)
            raise WorkerError(f"{self.library} ended with {self._process.wait()}:\n{self._errors.read()[-4000:]}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.library}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()


@contextmanager
def workers(libraries: list[str], threads: int) -> Iterator[dict[str, Worker]]:
    """Start a worker for each library, one after the other, and end them behind the block."""
    pool: dict[str, Worker] = {}
    try:
        for library in libraries:
            pool[library] = Worker(library, threads)
            pool[library].ask("hello")
        yield pool
    finally:
        for worker in pool.values():
            worker.close()


def take_turns(pool: dict[str, Worker], rounds: int, seconds: float, rest: float) -> dict[str, dict[str, Any]]:
    """Time every worker's job in ``rounds`` rounds of turns of about ``seconds`` each.

    Between turns is a ``rest``: OpenMP runtimes keep their threads spinning after a parallel region, up to 0.2 s.

    Returns, for each library: ``each_s`` (the median time of one job), ``turns_s`` (one job's time in each round),
    ``busy`` (CPU seconds a second of wall: threads in use) and ``idle_cpu_s`` (the most that it took while others had
    their turn).
    """
    counts = {}
    for library, worker in pool.items():
        counts[library] = worker.ask("warm", seconds=seconds)["count"]
        time.sleep(rest)
    turns: dict[str, list[dict[str, Any]]] = {library: [] for library in pool}
    for _ in range(rounds):
        for library, worker in pool.items():
            turns[library].append(worker.ask("turn", count=counts[library]))
            time.sleep(rest)
    result = {}
    for library, answers in turns.items():
        each = [answer["seconds"] / counts[library] for answer in answers]
        result[library] = {
            "each_s": statistics.median(each),
            "turns_s": each,
            "busy": statistics.median(answer["cpu_s"] / answer["seconds"] for answer in answers),
            "idle_cpu_s": max((answer["idle_cpu_s"] for answer in answers[1:]), default=0.0),
        }
    return result
