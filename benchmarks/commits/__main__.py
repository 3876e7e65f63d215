"""Two commits side by side: the bits that they compute, and the time that they take.

    python -m benchmarks.commits OLD NEW [--pairs 20]

Each commit is installed into a folder of its own. Ten drawn models are trained for three epochs, quantized by every
scheme and exported, and what comes of it is compared by digest. Then the two do the same work in turns, and of each
kind of work the ratio of times, new over old, is reported with its 95% interval.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
RESAMPLES = 10_000


class Commit:
    """One commit, installed, and a process that runs it."""

    def __init__(self, revision: str, folder: Path, threads: int) -> None:
        archive = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=True).stdout
        source, site = folder / "source", folder / "site"
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(source, filter="data")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
        subprocess.run([*pip, "--target", str(site), str(source)], check=True)
        self._process = subprocess.Popen(
            # Run as a file from elsewhere, with the installed commit first on the path: the clone is on none.
            [sys.executable, "-c", RUN, str(site), str(Path(__file__).with_name("worker.py"))],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "NBDENSE_CACHE_DIR": str(folder / "kernels"),
                "OMP_NUM_THREADS": str(threads),
                "NUMBA_NUM_THREADS": str(threads),
            },
        )

    def ask(self, operation: str) -> Any:
        """Send a request, and wait for its answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(operation + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process ended with {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


# An editable install is a finder at the end of sys.meta_path: a folder on the path goes before it.
RUN = """
import runpy, sys
site, worker = sys.argv[1:]
sys.path[0] = site
import nbdense
assert nbdense.__file__.startswith(site), nbdense.__file__
runpy.run_path(worker, run_name="__main__")
"""


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Return the median of the ratios, and the ends of its 95% interval by the bootstrap (Efron 1979)."""
    values = np.array(ratios)
    drawn = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(np.median(values[drawn], axis=1), [0.025, 0.975])
    return float(np.median(values)), float(low), float(high)


def compare(old: Commit, new: Commit) -> list[str]:
    """Return lines that say what the two commits make differently."""
    before, after = old.ask("outcomes"), new.ask("outcomes")
    lines = [f"{name}: {before.get(name)} / {after.get(name)}" for name in sorted({*before, *after})]
    different = [line for line in lines if len(set(line.rsplit(": ", 1)[1].split(" / "))) > 1]
    return [*different, f"{len(lines) - len(different)} of {len(lines)} outcomes are the same"]


def race(old: Commit, new: Commit, pairs: int) -> list[str]:
    """Return a line a piece of work: the ratio of times, new over old, of interleaved runs."""
    works = old.ask("works")
    new.ask("works")
    lines = []
    for name in works:
        for side in (old, new):  # the first run after another kind of work is slower
            side.ask(name)
        ratios = []
        for pair in range(pairs):
            first, second = (old, new) if pair % 2 else (new, old)
            seconds = {first: first.ask(name), second: second.ask(name)}
            ratios.append(seconds[new] / seconds[old])
        middle, low, high = interval(ratios)
        lines.append(f"{name:18} {middle:.3f} [{low:.3f}, {high:.3f}]")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Compare two commits, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commits", description=__doc__.splitlines()[0])
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--pairs", type=int, default=20, help="timed runs of each kind of work; 0: none")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="nbdense-commits-") as folder:
        commits = []
        for side in ("old", "new"):
            (Path(folder) / side).mkdir()
            commits.append(Commit(getattr(options, side), Path(folder) / side, options.threads))
        old, new = commits
        found = compare(old, new)
        print("\n".join(found), flush=True)
        if options.pairs:
            print(f"time of {options.new} over that of {options.old}, median of {options.pairs} pairs [95% interval]")
            print("\n".join(race(old, new, options.pairs)))
        for commit in commits:
            commit.close()
    return int(len(found) > 1)


if __name__ == "__main__":
    sys.exit(main())
