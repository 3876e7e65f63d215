"""Scores of a pipeline on data, as numbers for metrics.json and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense._checks import plain
from nbdense.commands.tables.schema import CLASSIFICATION
from nbdense.commands.tables.summary import figures_of

BINS = 10  # of calibration
POINTS = 500  # of scatter plots
IMPORTANCE_ROWS, IMPORTANCE_REPEATS = 2000, 5
MANY = 64  # columns, of which each is shuffled once

Values = npt.NDArray[Any]


def scores_of(pipeline: Any, features: Any, targets: Values, task: str) -> dict[str, Any]:
    """Return the scores of a pipeline's predictions.

    Parameters
    ----------
    pipeline : Pipeline
        Fitted.
    features : DataFrame
        Columns of data.
    targets : ndarray, (rows,)
        What is right.
    task : str
        "classification" or "regression".
    """
    if task == CLASSIFICATION:
        return _of_classes(pipeline.classes_, pipeline.predict_proba(features), targets)
    return _of_numbers(np.asarray(pipeline.predict(features), np.float64), targets)


def main_score(scores: dict[str, Any]) -> tuple[str, float]:
    """Return the name and the value of the score that a model is judged by first.

    Parameters
    ----------
    scores : dict
        As `scores_of` gives them.
    """
    name = "accuracy" if "accuracy" in scores else "r2"
    return name, float(scores[name])


def score_text(scores: Mapping[str, Any]) -> str:
    """Return the scores that matter most, in a line.

    Parameters
    ----------
    scores : mapping
        As `scores_of` gives them.
    """
    if "accuracy" not in scores:
        return (
            f"R2 {scores['r2']:.4f}, RMSE {scores['rmse']:.4g} (the mean alone {scores['always_the_mean']:.4g}), "
            f"MAE {scores['mae']:.4g}, {scores['rows']:,} rows"
        )
    area = "" if scores["roc_auc"] is None else f", ROC AUC {scores['roc_auc']:.4f}"
    return (
        f"accuracy {scores['accuracy']:.2%} (the commonest class alone {scores['always_the_commonest']:.2%}), "
        f"balanced {scores['balanced_accuracy']:.2%}, log loss {scores['log_loss']:.4f}{area}, {scores['rows']:,} rows"
    )


def importance_of(pipeline: Any, features: Any, targets: Values, seed: int) -> list[dict[str, Any]]:
    """Return how much worse the score gets where a column is shuffled, the most important column first.

    Parameters
    ----------
    pipeline : Pipeline
        Fitted.
    features : DataFrame
        Columns of data, of which some rows are taken.
    targets : ndarray, (rows,)
        What is right.
    seed : int
        Seed of shuffles.
    """
    from sklearn.inspection import permutation_importance

    rows = np.random.default_rng(seed).permutation(len(features))[:IMPORTANCE_ROWS]
    rows.sort()
    scoring = "neg_log_loss" if hasattr(pipeline, "classes_") else "r2"
    if scoring == "neg_log_loss" and len(np.unique(targets[rows])) < len(pipeline.classes_):
        scoring = "accuracy"
    result = permutation_importance(
        pipeline,
        features.iloc[rows],
        targets[rows],
        scoring=scoring,
        n_repeats=IMPORTANCE_REPEATS if features.shape[1] <= MANY else 1,
        random_state=seed % 2**32,
    )
    entries = [
        {"name": str(name), "mean": float(mean), "deviation": float(deviation), "score": scoring.removeprefix("neg_")}
        for name, mean, deviation in zip(features.columns, result.importances_mean, result.importances_std, strict=True)
    ]
    return sorted(entries, key=lambda entry: -entry["mean"])


def _of_classes(classes: Values, probabilities: Values, targets: Values) -> dict[str, Any]:
    from sklearn import metrics

    labels = [plain(label) for label in classes]
    predicted = classes[probabilities.argmax(axis=1)]
    counts = {label: int((targets == label).sum()) for label in labels}
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        targets, predicted, labels=classes, zero_division=0.0
    )
    return {
        "rows": len(targets),
        "accuracy": float(np.mean(predicted == targets)),
        "balanced_accuracy": float(np.mean(recall[support > 0])),
        "f1_macro": float(np.mean(f1[support > 0])),
        "log_loss": _log_loss(classes, probabilities, targets),
        "roc_auc": _area(classes, probabilities, targets),
        "always_the_commonest": max(counts.values()) / len(targets),
        "classes": [
            {"label": label, "rows": int(support[i]), "precision": float(precision[i]), "recall": float(recall[i])}
            for i, label in enumerate(labels)
        ],
        "confusion": metrics.confusion_matrix(targets, predicted, labels=classes).tolist(),
        "calibration": _calibration(classes, probabilities, targets),
    }


def _log_loss(classes: Values, probabilities: Values, targets: Values) -> float:
    known = np.isin(targets, classes)
    own = probabilities[known, np.searchsorted(classes, targets[known])].astype(np.float64)
    return float(-np.log(np.maximum(own, 1e-15)).mean()) if known.any() else float("nan")


def _area(classes: Values, probabilities: Values, targets: Values) -> float | None:
    """Return the area under the ROC curve, of several classes the mean over each against the rest."""
    from sklearn.metrics import roc_auc_score

    areas = [
        roc_auc_score(targets == label, probabilities[:, number])
        for number, label in enumerate(classes)
        if 0 < (targets == label).sum() < len(targets)
    ]
    return float(areas[-1] if len(classes) == 2 else np.mean(areas)) if areas else None


def _calibration(classes: Values, probabilities: Values, targets: Values) -> dict[str, Any]:
    """Return how often predictions of each confidence are right: of two classes, the second's probability."""
    if len(classes) == 2:
        said, right = probabilities[:, 1].astype(np.float64), targets == classes[1]
        of = f"probability of {plain(classes[1])}"
    else:
        said, right = probabilities.max(axis=1).astype(np.float64), classes[probabilities.argmax(axis=1)] == targets
        of = "probability of the predicted class"
    bins = np.minimum((said * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    filled = counts > 0
    mean = np.bincount(bins, said, BINS)[filled] / counts[filled]
    share = np.bincount(bins, right, BINS)[filled] / counts[filled]
    error = float((np.abs(mean - share) * counts[filled]).sum() / len(targets))
    return {
        "of": of,
        "said": mean.tolist(),
        "share": share.tolist(),
        "rows": counts[filled].tolist(),
        "expected_calibration_error": error,
    }


def _of_numbers(predicted: Values, targets: Values) -> dict[str, Any]:
    errors = predicted - targets
    squares = float(np.square(targets - targets.mean()).sum())
    some = np.linspace(0, len(targets) - 1, min(POINTS, len(targets))).astype(np.int64)
    return {
        "rows": len(targets),
        "r2": 1.0 - float(np.square(errors).sum()) / squares if squares else float("nan"),
        "rmse": float(np.sqrt(np.square(errors).mean())),
        "mae": float(np.abs(errors).mean()),
        "median_error": float(np.median(np.abs(errors))),
        "always_the_mean": float(np.sqrt(squares / len(targets))),
        "residuals": {
            "predicted": predicted[some].tolist(),
            "actual": targets[some].tolist(),
            **figures_of(errors),
        },
    }
