"""Estimators of scikit-learn's kind in place of models: what is made of their models goes back into their place."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np


class FittedEstimator:
    """An estimator of nbdense's that has been fitted, alone, at the end of a Pipeline, or found by a search.

    Parameters
    ----------
    owner : str
        What was called, for errors.
    given : estimator, Pipeline or search
        What it was called with.

    Attributes
    ----------
    model : Sequential
        Its model.

    Raises
    ------
    TypeError
        If the last step is not one of `nbdense.estimators`.
    ValueError
        If it is not fitted.
    """

    def __init__(self, owner: str, given: Any) -> None:
        self._given = getattr(given, "best_estimator_", given)
        self._steps: list[tuple[str, Any]] = list(getattr(self._given, "steps", [("", self._given)]))
        self._estimator = self._steps[-1][1]
        if not hasattr(self._estimator, "with_model"):
            raise TypeError(
                f"{owner}: expected a model, an MLPClassifier or MLPRegressor of nbdense.estimators, or a Pipeline "
                f"that ends in one, got {type(self._estimator).__name__}"
            )
        if not hasattr(self._estimator, "model_"):
            raise ValueError(f"{owner}: the {type(self._estimator).__name__} is not fitted yet; call fit first")
        self.model = self._estimator.model_

    def inputs(self, data: Any) -> Any:
        """Return data as the model takes it, through the steps before the estimator.

        Parameters
        ----------
        data : array-like or DataFrame, list of these, function that returns an iterator over them, or None
            As `nbdense.quant.quantize` takes calibration data, but for the steps.
        """
        if data is None:
            return None
        if callable(data):
            return lambda: map(self._prepared, data())
        if isinstance(data, list) and data and np.ndim(data[0]) == 2:
            return [self._prepared(part) for part in data]
        return self._prepared(data)

    def inputs_and_targets(self, data: Any) -> Any:
        """Return (X, y), or X alone, as the model's `Sequential.fit` takes it."""
        if not isinstance(data, tuple):
            return self.inputs(data)
        X, y = data
        return self.inputs(X), self._estimator.targets_for_model(y)

    def _prepared(self, rows: Any) -> Any:
        if len(self._steps) > 1:
            rows = self._given[:-1].transform(rows)
        return rows.toarray() if hasattr(rows, "toarray") else np.asarray(rows)

    def evaluation(self, evaluate: Any) -> Any:
        """Return what scores a model by what scores the estimator: a function of it, or (X, y) for its ``score``."""
        if evaluate is None:
            return None
        if callable(evaluate):
            of_estimator: Callable[[Any], Any] = evaluate
            return lambda model: of_estimator(self.with_model(model))
        X, y = evaluate
        return lambda model: self.with_model(model).score(X, y)

    def with_model(self, model: Any) -> Any:
        """Return what was given, with an estimator at its end that predicts by another model."""
        estimator = self._estimator.with_model(model)
        if self._estimator is self._given:
            return estimator
        twin = copy.copy(self._given)
        twin.steps = [*self._steps[:-1], (self._steps[-1][0], estimator)]
        return twin


def is_estimator(model: Any) -> bool:
    """Tell whether something is an estimator, Pipeline or search of scikit-learn's kind."""
    return hasattr(model, "get_params")
