"""Estimators that learn as data come in: single batches, and row by row."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from nbdense.estimators import MLPClassifier, MLPRegressor

RNG = np.random.default_rng(5)
X = RNG.normal(size=(120, 4))
CLASSES = X[:, :3].argmax(axis=1)
VALUES = X[:, 0] - X[:, 1] ** 2


@pytest.mark.parametrize("estimator", [MLPClassifier, MLPRegressor])
def test_partial_fit_of_one_batch_is_a_step(estimator):
    """It is what fit makes of the same rows, but for roundings: they are not shuffled within the batch."""
    y = CLASSES if estimator is MLPClassifier else VALUES
    weights = np.linspace(0.5, 2.0, len(X))
    options = {"hidden_layer_sizes": (9,), "alpha": 0.1, "random_state": 0, "dtype": "float64"}
    first = {"classes": np.unique(CLASSES)} if estimator is MLPClassifier else {}
    stepped = estimator(**options).partial_fit(X, y, weights, **first)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted_once = estimator(**options, max_iter=1).fit(X, y, weights)
    assert stepped.loss_ == pytest.approx(fitted_once.loss_, rel=1e-12)
    for a, b in zip(stepped.coefs_, fitted_once.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    assert stepped.model_.optimizer.iterations == 1


@pytest.mark.parametrize("case", ["classes", "two classes", "labels", "values", "several values"])
def test_rows_one_by_one_are_partial_fits_of_one_row(case):
    if case in ("values", "several values"):
        y = VALUES if case == "values" else np.stack([VALUES, -VALUES], axis=1)
        mlps = [MLPRegressor(hidden_layer_sizes=(7,), random_state=0, alpha=0.3).partial_fit(X, y) for _ in range(2)]
    else:
        y = {"classes": np.array(["a", "c", "d"])[CLASSES], "two classes": CLASSES > 0}.get(
            case, np.stack([CLASSES > 0, CLASSES > 1], axis=1).astype(int)
        )
        known = np.arange(2) if case == "labels" else np.unique(y)
        mlps = [MLPClassifier((7,), random_state=0).partial_fit(X, y, classes=known) for _ in range(2)]
    one, rows = mlps
    for i in range(10):
        assert one.learn_one(X[i], y[i]) is one
        rows.partial_fit(X[i : i + 1], y[i : i + 1])
        assert one.loss_ == rows.loss_ and one.t_ == rows.t_
        np.testing.assert_array_equal(one.predict_one(X[i]), rows.predict(X[i : i + 1])[0])
    for a, b in zip(one.coefs_, rows.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(one.loss_curve_) == 1


def test_one_row_of_an_unknown_class():
    with pytest.raises(NotFittedError):
        MLPClassifier().learn_one(X[0], 1)
    mlp = MLPClassifier((7,), random_state=0).partial_fit(X, CLASSES, classes=[0, 1, 2])
    for wrong in (3, -1):
        with pytest.raises(ValueError, match=rf"y: {wrong} is none of the classes, which are \[0 1 2\]"):
            mlp.learn_one(X[0], wrong)
