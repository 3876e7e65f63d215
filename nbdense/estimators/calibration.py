"""Temperature scaling: one number that makes a classifier's probabilities as sure as they are right."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from nbdense.estimators.rows import Floats

COLDEST, HOTTEST = 0.01, 100.0
_HALVINGS = 60  # of the interval of its logarithm: all digits of a float64


def temperature_of(logits: Floats, targets: npt.NDArray[np.integer], weights: Floats | None) -> float:
    """Return the temperature, from COLDEST to HOTTEST, that makes the log loss of rows least.

    Parameters
    ----------
    logits : ndarray, (rows, units)
        What goes into a softmax, or into a sigmoid for each unit where it is one for two classes, or several labels.
    targets : ndarray, (rows,) of class numbers, or (rows, units) of 0 and 1
        What is right.
    weights : ndarray, (rows,), or None
        The rows' weights.

    Notes
    -----
    By the temperature's inverse the loss is convex: its slope is the mean logit by the probabilities, less that of what
    is right, and is halved upon.
    """
    several = targets.ndim == 2 or logits.shape[1] == 1
    right = targets.reshape(len(targets), -1) if several else np.eye(logits.shape[1])[targets]

    def slope(inverse: float) -> float:
        scaled = inverse * logits
        if several:
            probabilities = 0.5 * (1.0 + np.tanh(0.5 * scaled))
        else:
            exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
            probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        of_rows = ((probabilities - right) * logits).sum(axis=1)
        return float(np.average(of_rows, weights=weights))

    low, high = math.log(1.0 / HOTTEST), math.log(1.0 / COLDEST)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if slope(math.exp(middle)) < 0.0:
            low = middle
        else:
            high = middle
    return math.exp(-0.5 * (low + high))
