"""F scores: means of precision and recall, for each class."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbdense._checks import array_of
from nbdense.metrics.base import Array, Metric, one_hot_targets, plain_number

_EPSILON = 1e-7


class FBetaScore(Metric):
    """(1 + beta^2) precision recall / (beta^2 precision + recall), for each class or averaged.

    As in Keras, a class that neither occurs nor is predicted counts as 0, and one output without a threshold is
    always a hit: give binary problems ``threshold=0.5``. `ClassF1` has scikit-learn's averages.

    Parameters
    ----------
    average : {None, "micro", "macro", "weighted"}
        None gives an array, a number for each class. "micro" counts all classes together, "macro" is the mean over
        classes, "weighted" that by their targets.
    beta : float
        Above 0: how much recall counts beside precision.
    threshold : float, optional
        In (0, 1]: larger outputs are predictions. None takes a row's largest output for its class.
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.

    Examples
    --------
    >>> from nbdense.metrics import FBetaScore
    >>> targets = [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    >>> FBetaScore(beta=2.0, threshold=0.5)(targets, [[0.2, 0.6, 0.7], [0.2, 0.6, 0.6], [0.6, 0.8, 0]]).round(6)
    array([0.384615, 0.909091, 0.833333])
    """

    by_batch = False
    direction = "max"
    _kinds = ("true_positives", "false_positives", "false_negatives", "intermediate_weights")

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str = "fbeta_score",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        owner = type(self).__name__
        if average not in (None, "micro", "macro", "weighted"):
            raise ValueError(f"{owner}: average must be None, 'micro', 'macro' or 'weighted', got {average!r}")
        if not isinstance(beta, float) or not beta > 0.0:
            raise ValueError(f"{owner}: beta must be a float above 0, got {beta!r}")
        if threshold is not None and not (isinstance(threshold, float) and 0.0 < threshold <= 1.0):
            raise ValueError(f"{owner}: threshold must be None or a float in (0, 1], got {threshold!r}")
        self.average, self.beta, self.threshold = average, beta, threshold

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        outputs = np.asarray(array_of("y_pred", y_pred), self.dtype)
        targets = one_hot_targets(array_of("y_true", y_true), outputs)
        targets = np.maximum(np.asarray(targets, np.float64), 0.0)  # a hinge loss has targets of -1
        if outputs.ndim != 2 or targets.shape != outputs.shape:
            raise ValueError(
                f"{type(self).__name__}: targets and outputs are expected in the shape (rows, columns), got "
                f"{targets.shape} and {outputs.shape}"
            )
        if not self.variables:
            shape = () if self.average == "micro" else (outputs.shape[1],)
            for kind in self._kinds:
                setattr(self, kind, self.add_variable(shape, name=kind))
        if self.threshold is None:
            predicted = (outputs >= outputs.max(axis=1, keepdims=True)) & (np.abs(outputs) > 1e-9)
        else:
            predicted = outputs > self.threshold
        weights = 1.0 if sample_weight is None else np.asarray(sample_weight, np.float64).reshape(-1, 1)
        parts = (predicted * targets, predicted * (1.0 - targets), ~predicted * targets, targets)
        axis = None if self.average == "micro" else 0
        for kind, part in zip(self._kinds, parts, strict=True):
            getattr(self, kind).assign_add((part * weights).sum(axis=axis))

    def result(self) -> Any:
        if not self.variables:
            return 0.0
        hits, false_positives, false_negatives, actual = (getattr(self, kind).value for kind in self._kinds)
        precision = hits / (hits + false_positives + _EPSILON)
        recall = hits / (hits + false_negatives + _EPSILON)
        scores: Array = precision * recall / (self.beta**2 * precision + recall + _EPSILON) * (1.0 + self.beta**2)
        if self.average == "weighted":
            return float((scores * (actual / (actual.sum() + _EPSILON))).sum())
        return plain_number(scores if self.average is None else scores.mean())


class F1Score(FBetaScore):
    """The harmonic mean of precision and recall, for each class or averaged: `FBetaScore` with beta 1.

    Parameters
    ----------
    average : {None, "micro", "macro", "weighted"}
        As for `FBetaScore`.
    threshold : float, optional
        As for `FBetaScore`: give binary problems 0.5.
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    """

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str = "f1_score",
        dtype: Any = None,
    ) -> None:
        super().__init__(average=average, beta=1.0, threshold=threshold, name=name, dtype=dtype)
