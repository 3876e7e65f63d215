"""Solver "lbfgs": scikit-learn's as a witness, scipy's limits, and the gradient of all rows."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn import neural_network
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_info, threadpool_limits

from nbdense.estimators import MLPClassifier, MLPRegressor, lbfgs
from nbdense.estimators.rows import Rows

RNG = np.random.default_rng(3)
X = RNG.normal(size=(90, 4))
CLASSES = X[:, :3].argmax(axis=1)
VALUES = X[:, 0] - X[:, 1] ** 2
COUNTS = RNG.poisson(np.exp(0.5 * X[:, 0] + 1.0))
OPTIONS = {"solver": "lbfgs", "hidden_layer_sizes": (6,), "activation": "tanh", "random_state": 0, "tol": 1e-6}
CASES = {
    "classes": ("MLPClassifier", CLASSES, {}),
    "two classes": ("MLPClassifier", CLASSES > 0, {"alpha": 0.1}),
    "labels": ("MLPClassifier", np.stack([X[:, 0] > 0, X[:, 1] > 0], axis=1).astype(int), {}),
    "values": ("MLPRegressor", VALUES, {"alpha": 0.01}),
    "counts": ("MLPRegressor", COUNTS, {"loss": "poisson"}),
}
OURS = {"MLPClassifier": MLPClassifier, "MLPRegressor": MLPRegressor}


def from_the_same_weights(case, weights=None, **options):
    """Return scikit-learn's estimator and ours after a fit from scikit-learn's initial weights."""
    kind, y, own = CASES[case]
    options = OPTIONS | own | options
    theirs = getattr(neural_network, kind)(**options, warm_start=True)
    ours = OURS[kind](**options, warm_start=True, dtype="float64")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for estimator in (theirs, ours):
            estimator.set_params(max_iter=1).fit(X, y, weights)
        ours.model_.set_weights([w for pair in zip(theirs.coefs_, theirs.intercepts_, strict=True) for w in pair])
        for estimator in (theirs, ours):
            estimator.set_params(max_iter=options.get("max_iter", 12)).fit(X, y, weights)
    return theirs, ours


@pytest.mark.parametrize("case", CASES)
def test_takes_scikit_learns_steps(case):
    theirs, ours = from_the_same_weights(case)
    assert ours.n_iter_ == theirs.n_iter_ == 12
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-6)
    for found, expected in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert ours.out_activation_ == theirs.out_activation_
    assert ours.best_loss_ == ours.loss_ == ours.loss_curve_[-1]


def test_rows_weigh_as_in_scikit_learn():
    theirs, ours = from_the_same_weights("values", weights=RNG.uniform(0.2, 2.0, 90))
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-6)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_as_low_a_loss_as_scikit_learns(dtype):
    options = OPTIONS | {"max_iter": 400, "alpha": 0.1}
    ours = MLPClassifier(**options, dtype=dtype).fit(X, CLASSES)
    theirs = neural_network.MLPClassifier(**options).fit(X, CLASSES)
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=0.02)
    assert ours.converged_ and ours.t_ == 0
    assert ours.score(X, CLASSES) > 0.97
    assert np.diff(ours.loss_curve_).max() <= 0.0
    assert ours.validation_scores_ is None


def test_gradient_is_the_slope_of_the_loss(monkeypatch):
    monkeypatch.setattr(lbfgs, "ROWS_AT_ONCE", 32)  # three pieces, the last of 26 rows
    mlp = MLPClassifier((5, 4), activation="tanh", dtype="float64", alpha=0.3, layer_norm=True, random_state=0)
    with pytest.warns(ConvergenceWarning):
        mlp.set_params(max_iter=1).fit(X, CLASSES)
    function = lbfgs.LossOfAllRows(mlp.model_, Rows(X, CLASSES, RNG.uniform(0.5, 2.0, 90)))
    vector = function.vector
    loss, gradient = function(vector)
    assert vector.size == mlp.model_.count_params() == gradient.size
    for place in range(0, vector.size, 5):
        step = np.zeros(vector.size)
        step[place] = 1e-6
        slope = (function(vector + step)[0] - function(vector - step)[0]) / 2e-6
        assert gradient[place] == pytest.approx(slope, rel=1e-5, abs=1e-8)
    whole = lbfgs.LossOfAllRows(mlp.model_, Rows(csr_array(X), CLASSES, None))(vector)
    monkeypatch.setattr(lbfgs, "ROWS_AT_ONCE", 1024)
    together = lbfgs.LossOfAllRows(mlp.model_, Rows(X, CLASSES, None))(vector)
    assert whole[0] == pytest.approx(together[0], rel=1e-12) and whole[0] != loss
    np.testing.assert_allclose(whole[1], together[1], rtol=1e-9, atol=1e-12)


def test_limits(capsys):
    with pytest.warns(ConvergenceWarning, match=r"failed to converge after 3 iteration.*max_iter \(3\)"):
        mlp = MLPRegressor(**OPTIONS, max_iter=3, verbose=True).fit(X, VALUES)
    assert mlp.n_iter_ == len(mlp.loss_curve_) == 3 and not mlp.converged_
    assert f"Iteration 3, loss = {mlp.loss_:.8f}" in capsys.readouterr().out
    with pytest.warns(ConvergenceWarning, match=r"max_fun \(10\)"):
        assert MLPRegressor(**OPTIONS, max_fun=10).fit(X, VALUES).n_iter_ <= 10


def test_what_it_does_not_have():
    assert not hasattr(MLPClassifier(solver="lbfgs"), "partial_fit")
    assert hasattr(MLPRegressor(), "partial_fit")
    for options in ({"dropout": 0.1}, {"batch_norm": True}):
        with pytest.raises(ValueError, match="solver='lbfgs' takes all rows at once"):
            MLPRegressor(solver="lbfgs", **options).fit(X, VALUES)
    with pytest.raises(ValueError, match="eval_set: solver='lbfgs' has no epochs"):
        MLPRegressor(solver="lbfgs").fit(X, VALUES, eval_set=(X, VALUES))
    with pytest.raises(FloatingPointError, match="before any step"):
        MLPRegressor(**OPTIONS).fit(X, VALUES * 1e30)


def test_interrupted_fits_are_of_use(monkeypatch):
    count = iter(range(9))

    def interrupt(*said):
        if next(count) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr("builtins.print", interrupt)
    mlp = MLPRegressor(**OPTIONS, verbose=True)
    with pytest.warns(UserWarning, match="interrupted"):
        mlp.fit(X, VALUES)
    assert mlp.n_iter_ == 5 and mlp.loss_ == mlp.loss_curve_[-1] == min(mlp.loss_curve_)
    errors = 0.5 * np.mean((mlp.predict(X) - VALUES) ** 2)
    assert mlp.loss_ == pytest.approx(errors, rel=1e-2)  # the weights are those of this loss, penalty aside


def test_poisson_is_of_counts():
    with pytest.raises(ValueError, match=r"loss 'poisson' takes counts, .* got -1"):
        MLPRegressor(loss="poisson").fit(X, COUNTS - COUNTS.max() - 1)
    mlp = MLPRegressor(**OPTIONS | {"loss": "poisson", "max_iter": 500, "tol": 1e-3}).fit(X, COUNTS)
    assert mlp.out_activation_ == "exp" and mlp.predict(X).min() > 0
    assert mlp.predict(X).mean() == pytest.approx(COUNTS.mean(), rel=1e-3)  # what a Poisson fit with a bias has


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_blas_has_one_thread_meanwhile(monkeypatch):
    """Afterwards it has as many as before, also where two fits overlap."""

    def threads():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    seen = []
    evaluated = lbfgs.LossOfAllRows.__call__
    monkeypatch.setattr(
        lbfgs.LossOfAllRows, "__call__", lambda self, vector: (seen.append(threads()), evaluated(self, vector))[1]
    )
    with threadpool_limits(2, user_api="blas"):
        before = threads()
        MLPClassifier(**OPTIONS).fit(X, CLASSES)
        assert threads() == before
        assert seen and all(found == {1} for found in seen)
        with ThreadPoolExecutor(2) as pool:
            fits = [pool.submit(MLPClassifier(**OPTIONS).fit, X, CLASSES) for _ in range(4)]
            assert all(fit.result().n_iter_ for fit in fits)
        assert threads() == before
