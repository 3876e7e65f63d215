"""Fitting of a pipeline: the rows that are held out, the estimator's options, the scale of a regression's target."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.commands.errors import CommandError
from nbdense.commands.tables.schema import CLASSIFICATION
from nbdense.commands.trained.progress import epochs_shown

VALIDATION = 0.1  # of the rows that are learnt from, to stop by
LEAST_ROWS = 100  # of which so few are enough to stop by

Values = npt.NDArray[Any]


def split_rows(
    targets: Values, share: float, seed: int, task: str
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the numbers of the rows to learn from, and of those held out for the test; classes keep their shares.

    Parameters
    ----------
    targets : ndarray, (rows,)
        What is predicted.
    share : float
        Of the rows that are held out.
    seed : int
        Seed of the choice.
    task : str
        "classification" or "regression".

    Raises
    ------
    CommandError
        If there are too few rows.
    """
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(targets))
    if not share:
        return rows, rows[:0]
    held_out = math.ceil(share * len(rows))
    if len(rows) < 4 or held_out >= len(rows):
        raise CommandError(f"{len(rows)} rows are too few to hold {share:.0%} out (--test) and learn from the rest")
    stratify = targets if task == CLASSIFICATION and stratifies(targets, held_out) else None
    learnt, test = train_test_split(rows, test_size=share, random_state=seed % 2**32, stratify=stratify)
    return np.sort(learnt), np.sort(test)


def stratifies(labels: Values, held_out: int) -> bool:
    """Tell whether each class can be in both parts of a split.

    Parameters
    ----------
    labels : ndarray, (rows,)
        Classes.
    held_out : int
        Rows of the smaller part.
    """
    _, counts = np.unique(labels, return_counts=True)
    return bool(counts.min() > 1 and min(held_out, len(labels) - held_out) >= len(counts))


def stops_early(targets: Values, task: str) -> bool:
    """Tell whether there are rows enough to hold some out, and stop by them.

    Parameters
    ----------
    targets : ndarray, (rows,)
        Of the rows to learn from.
    task : str
        "classification" or "regression".
    """
    enough = len(targets) >= LEAST_ROWS
    return enough and (task != CLASSIFICATION or stratifies(targets, math.ceil(VALIDATION * len(targets))))


def fit_network(pipeline: Any, features: Any, targets: Values, title: str) -> list[str]:
    """Fit a pipeline's transformers, then its estimator on float32 rows: half of the memory of a plain fit.

    Parameters
    ----------
    pipeline : Pipeline
        As `new_pipeline` makes it.
    features : DataFrame
        The rows to learn from.
    targets : ndarray, (rows,)
        What is predicted.
    title : str
        What the progress bar is called.

    Returns
    -------
    list of str
        What the estimator warned of.

    Raises
    ------
    KeyboardInterrupt
        If Ctrl-C came meanwhile; the estimator by itself would take it for its end.
    """
    (_, columns), (_, mlp) = pipeline.steps
    rows = np.ascontiguousarray(columns.fit_transform(features), np.float32)
    with warnings.catch_warnings(record=True) as given, epochs_shown(title, mlp.max_iter) as verbose:
        warnings.simplefilter("always")
        mlp.set_params(verbose=verbose)
        mlp.fit(rows, targets)
    mlp.set_params(verbose=False)
    messages = [str(warning.message) for warning in given]
    if any("interrupted" in message for message in messages):
        raise KeyboardInterrupt
    return [message for message in messages if "Maximum iterations" not in message]


def scale_output(model: Any, mean: float, deviation: float) -> None:
    """Multiply a network's output and add to it, within its last layer.

    Parameters
    ----------
    model : Sequential
        A network whose last layer is linear and of one unit.
    mean, deviation : float
        What is added, and multiplied by before.
    """
    weights = model.get_weights()
    weights[-2] = weights[-2] * deviation
    weights[-1] = weights[-1] * deviation + mean
    model.set_weights(weights)


def with_unit_output(model: Any, scale: tuple[float, float] | None, change: Callable[[Any], Any]) -> Any:
    """Change a network while its output has the deviation 1, as it had when it was trained.

    Parameters
    ----------
    model : Sequential
        The network; it is left as it was.
    scale : (float, float) or None
        Mean and deviation of a regression's target; None of a classification's.
    change : callable
        Returns another network.
    """
    if scale is None:
        return change(model)
    mean, deviation = scale
    scale_output(model, -mean / deviation, 1.0 / deviation)
    try:
        changed = change(model)
    finally:
        scale_output(model, mean, deviation)
    scale_output(changed, mean, deviation)
    return changed
