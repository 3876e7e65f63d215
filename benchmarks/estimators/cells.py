"""Data sets, and what is measured on each: the same parameters and folds for both libraries, in turns."""

from __future__ import annotations

import functools
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

FOLDS = 5
EPOCHS = 50  # of timed fits, all of which are run
LIBRARIES = ("nbdense", "sklearn")
SPEED_UP, LBFGS_SPEED_UP = 3.0, 2.0  # the targets: times faster than scikit-learn


@dataclass(frozen=True)
class DataSet:
    """A data set of scikit-learn's, and the kind of estimator for it."""

    load: str
    kind: str = "MLPClassifier"


DATA_SETS = {
    "digits": DataSet("load_digits"),
    "breast_cancer": DataSet("load_breast_cancer"),
    "wine": DataSet("load_wine"),
    "diabetes": DataSet("load_diabetes", "MLPRegressor"),
}


def estimator(library: str, kind: str, **options: Any) -> Any:
    """Return an estimator of a library's."""
    if library == "nbdense":
        from nbdense import estimators as module
    else:
        from sklearn import neural_network as module
    return getattr(module, kind)(**options)


def rows_of(data_set: DataSet) -> tuple[Any, Any]:
    """Return a data set's standardised columns, and its targets."""
    from sklearn import datasets
    from sklearn.preprocessing import StandardScaler

    X, y = getattr(datasets, data_set.load)(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def scores(library: str, data_set: DataSet) -> list[float]:
    """Return the scores of the folds, of fits with the defaults behind a StandardScaler."""
    from sklearn import datasets
    from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, y = getattr(datasets, data_set.load)(return_X_y=True)
    folds = (StratifiedKFold if data_set.kind == "MLPClassifier" else KFold)(FOLDS, shuffle=True, random_state=0)
    pipeline = make_pipeline(StandardScaler(), estimator(library, data_set.kind, random_state=0))
    return [float(score) for score in cross_val_score(pipeline, X, y, cv=folds)]


# Threads of BLAS spin for some 30 ms after their last call, and would take a CPU from whoever has the next turn.
REST = 0.1


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds of some work, after a rest."""
    time.sleep(REST)
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def seconds(make: Callable[[str], Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each library's work, done in turns, after a turn that compiles."""
    work = {library: make(library) for library in LIBRARIES}
    turns: dict[str, list[float]] = {library: [] for library in LIBRARIES}
    for number in range(rounds + 1):
        for library in LIBRARIES:
            taken = timed(work[library])
            if number:
                turns[library].append(taken)
    return {library: statistics.median(values) for library, values in turns.items()}


def fit_seconds(data_set: DataSet, rounds: int) -> dict[str, float]:
    """Return the seconds of a fit of EPOCHS epochs, by library."""
    X, y = rows_of(data_set)
    options = {"random_state": 0, "max_iter": EPOCHS, "tol": 0.0, "n_iter_no_change": np.inf}

    def make(library: str) -> Callable[[], Any]:
        return lambda: estimator(library, data_set.kind, **options).fit(X, y)

    return seconds(make, rounds)


def lbfgs(data_set: DataSet, seeds: int, rounds: int) -> dict[str, Any]:
    """Return the losses of fits by lbfgs from the same weights, and the median seconds of one, by library."""
    X, y = rows_of(data_set)
    losses: dict[str, list[float]] = {library: [] for library in LIBRARIES}
    turns: dict[str, list[float]] = {library: [] for library in LIBRARIES}
    for seed in range(seeds):
        for number in range(rounds):
            for library, fitted in from_the_same_weights(data_set.kind, X, y, seed).items():
                turns[library].append(timed(functools.partial(fitted.fit, X, y)))
                if number == 0:
                    losses[library].append(float(fitted.loss_))
    return {"losses": losses, "seconds": {library: statistics.median(values) for library, values in turns.items()}}


def from_the_same_weights(kind: str, X: Any, y: Any, seed: int) -> dict[str, Any]:
    """Return an estimator of each library, which begin with scikit-learn's weights after an iteration."""
    options = {"random_state": seed, "solver": "lbfgs", "warm_start": True}
    made = {library: estimator(library, kind, **options, max_iter=1).fit(X, y) for library in LIBRARIES}
    first = made["sklearn"]
    pairs = zip(first.coefs_, first.intercepts_, strict=True)
    made["nbdense"].model_.set_weights([array for pair in pairs for array in pair])
    return {library: fitted.set_params(max_iter=200) for library, fitted in made.items()}


def measured(data_set: DataSet, seeds: int, rounds: int) -> dict[str, Any]:
    """Measure a data set; return what the JSON file holds of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fits that end with their last epoch, as they are meant to
        return {
            "scores": {library: scores(library, data_set) for library in LIBRARIES},
            "fit_seconds": fit_seconds(data_set, rounds),
            "lbfgs": lbfgs(data_set, seeds, max(1, rounds // 2)),
        }
