"""Results of `benchmarks.estimators` as text: the pages' table, with the targets."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.estimators.cells import DATA_SETS, EPOCHS, FOLDS, LBFGS_SPEED_UP, SPEED_UP

_COLUMNS = [
    "data set", "score", "scikit-learn's", "fit, ms", "times faster", "lbfgs: loss", "scikit-learn's", "fit, ms",
    "times faster", "targets",
]  # fmt: skip

Results = dict[str, Any]


def verdicts(found: Results) -> dict[str, bool]:
    """Return whether each target is met on a data set."""
    ours, theirs = found["scores"]["nbdense"], found["scores"]["sklearn"]
    losses = found["lbfgs"]["losses"]
    return {
        "score": statistics.fmean(ours) >= statistics.fmean(theirs) - statistics.pstdev(theirs),
        "time": times_faster(found["fit_seconds"]) >= SPEED_UP,
        "lbfgs loss": float(_loss(losses["nbdense"])) <= float(_loss(losses["sklearn"])),
        "lbfgs time": times_faster(found["lbfgs"]["seconds"]) >= LBFGS_SPEED_UP,
    }


def times_faster(seconds: dict[str, float]) -> float:
    """Return how many times as long scikit-learn takes."""
    return seconds["sklearn"] / seconds["nbdense"]


def _score(values: list[float]) -> str:
    return f"{statistics.fmean(values):.3f} ± {statistics.pstdev(values):.3f}"


def _loss(values: list[float]) -> str:
    return f"{statistics.fmean(values):.4g}"


def _line(name: str, found: Results) -> list[str]:
    fit, lbfgs = found["fit_seconds"], found["lbfgs"]
    missed = [target for target, met in verdicts(found).items() if not met]
    return [
        name,
        _score(found["scores"]["nbdense"]),
        _score(found["scores"]["sklearn"]),
        f"{1e3 * fit['nbdense']:.0f}",
        f"{times_faster(fit):.1f}x",
        _loss(lbfgs["losses"]["nbdense"]),
        _loss(lbfgs["losses"]["sklearn"]),
        f"{1e3 * lbfgs['seconds']['nbdense']:.0f}",
        f"{times_faster(lbfgs['seconds']):.1f}x",
        "met" if not missed else f"NOT MET: {', '.join(missed)}",
    ]


def render(results: Results) -> str:
    """Return the pages' block."""
    machine = results["machine"]
    lines = [_COLUMNS, ["---"] * len(_COLUMNS)]
    lines += [_line(name, results["data_sets"][name]) for name in DATA_SETS if name in results["data_sets"]]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return (
        "`MLPClassifier` and `MLPRegressor` beside scikit-learn's, with the defaults of both: accuracy or R squared "
        f"over {FOLDS} folds behind a StandardScaler, mean and standard deviation; then a fit of {EPOCHS} epochs in "
        "the same batches, and one by lbfgs with the loss that it ends with, from the same weights, mean over "
        f"{results['seeds']} seeds:\n\n{table}\n\n"
        "Targets: a score that is at most a standard deviation below, fits "
        f"{SPEED_UP:.0f} times as fast; by lbfgs no higher a loss, {LBFGS_SPEED_UP:.0f} times as fast.\n\n"
        f"Measured {machine['date']} by `make bench` on {machine['cores']} cores of {machine['cpu']}; nbdense "
        f"{machine['versions']['nbdense']}, scikit-learn {machine['versions']['scikit-learn']}."
    )
