"""Cold start: what a fresh process takes to import, train a little and predict."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pool import WorkerError, environment

# What a first-time user runs. The data comes from a file: scikit-learn, which ships it, takes a second to import.
_FIRST_USE = """
import sys
import numpy as np
import nbdense as nb
digits = np.load(sys.argv[1])
model = nb.Sequential([nb.Dense(128, "relu"), nb.Dense(64, "relu"), nb.Dense(10, "softmax")])
model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
model.fit(digits["x"], digits["y"], epochs=2, verbose=0)
model.predict(digits["x"])
"""


def _seconds(code: str, *arguments: str, **variables: str) -> float:
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**environment(2), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise WorkerError(done.stderr[-4000:])
    return seconds


def measure(rounds: int) -> dict[str, Any]:
    """Measure wall times of whole processes, in seconds, taken in turns; return their medians."""
    with tempfile.TemporaryDirectory(prefix="nbdense-start-") as folder:
        rng = np.random.default_rng(0)
        data = str(Path(folder, "digits.npz"))
        try:
            from sklearn.datasets import load_digits

            x, y = load_digits(return_X_y=True)
        except ImportError:  # rows of the same shape and type
            x, y = rng.uniform(0, 16, (1797, 64)), rng.integers(0, 10, 1797)
        np.savez(data, x=x, y=y)
        caches = Path(folder, "caches")
        cold = [
            _seconds(_FIRST_USE, data, NBDENSE_CACHE_DIR=os.fspath(caches / str(number)))
            for number in range(min(rounds, 3))
        ]
        warm_cache = os.fspath(caches / "0")
        codes: dict[str, tuple[str, ...]] = {
            "python_s": ("pass",),
            "import_numba_s": ("import numba",),
            "import_nbdense_s": ("import nbdense",),
            "import_models_s": ("import nbdense.models",),
            "warm_s": (_FIRST_USE, data),
        }
        taken: dict[str, list[float]] = {name: [] for name in codes}
        for _ in range(rounds + 1):
            for name, code in codes.items():
                taken[name].append(_seconds(*code, NBDENSE_CACHE_DIR=warm_cache))
    # The first round filled the system's file cache.
    result = {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}
    return {**result, "cold_s": statistics.median(cold), "compile_s": statistics.median(cold) - result["warm_s"]}
