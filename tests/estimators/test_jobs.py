"""Estimators in joblib's processes and threads: the same scores, no more threads than there are cores, and an end."""

from tests.support.python_process import run_python

SCRIPT = """
import os, warnings
import numpy as np
from joblib import parallel_config
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import cross_val_score, cross_validate
from nbdense.estimators import MLPClassifier


def threads(mlp, X, y):
    from nbdense._compile import thread_pool
    return thread_pool.limit()


warnings.simplefilter("ignore", ConvergenceWarning)
rng = np.random.default_rng(0)
X = rng.normal(size=(400, 64))
y = X[:, :5].argmax(axis=1)
mlp = MLPClassifier((128,), max_iter=10, random_state=0)
alone = cross_val_score(mlp, X, y, cv=2)
for backend in ("loky", "threading"):
    with parallel_config(backend, n_jobs=2):
        found = cross_validate(mlp, X, y, cv=2, scoring={"accuracy": "accuracy", "threads": threads})
    np.testing.assert_array_equal(found["test_accuracy"], alone)
    assert backend == "threading" or 2 * found["test_threads"].max() <= max(2, os.cpu_count()), found
print("done")
"""


def test_jobs(monkeypatch):
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):  # joblib leaves alone what is set
        monkeypatch.delenv(name, raising=False)
    out, _ = run_python(SCRIPT)
    assert out == "done\n"
