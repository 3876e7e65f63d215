"""Sparse rows: the same fit as of dense ones, without ever making all of them dense."""

import warnings

import numpy as np
import pytest
from scipy.sparse import coo_array, csr_array, csr_matrix, random_array
from sklearn.exceptions import ConvergenceWarning

from nbdense.estimators import MLPClassifier, MLPRegressor
from nbdense.training import sparse_rows

RNG = np.random.default_rng(2)
ROWS = random_array((230, 30), density=0.1, rng=RNG, format="csr")
DENSE = ROWS.toarray()
CLASSES = (DENSE[:, :10].sum(axis=1) > DENSE[:, 10:20].sum(axis=1)).astype(int)
WEIGHTS = RNG.uniform(0.5, 2.0, 230)


def fitted(X, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return MLPClassifier((8,), random_state=0, max_iter=4, **options).fit(X, CLASSES, WEIGHTS)


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 32}, {"batch_size": 32, "shuffle": False}, {"early_stopping": True}, {"dropout": 0.3}],
    ids=lambda options: " ".join(options),
)
def test_fits_are_those_of_dense_rows(monkeypatch, options):
    expected = fitted(DENSE, **options)
    monkeypatch.setattr(sparse_rows, "ELEMENTS", 3 * 32 * 30)  # three batches at a time
    for rows in (ROWS, coo_array(DENSE)):
        mlp = fitted(rows, **options)
        assert mlp.loss_curve_ == expected.loss_curve_
        np.testing.assert_array_equal(mlp.coefs_[0], expected.coefs_[0])
        np.testing.assert_array_equal(mlp.predict_proba(ROWS), expected.predict_proba(DENSE))
        mlp.partial_fit(rows, CLASSES, eval_set=(rows, CLASSES))
    expected.partial_fit(DENSE, CLASSES, eval_set=(DENSE, CLASSES))
    np.testing.assert_array_equal(mlp.coefs_[0], expected.coefs_[0])


def test_lbfgs_and_values():
    options = {"hidden_layer_sizes": (5,), "random_state": 0, "solver": "lbfgs", "max_iter": 300}
    mlps = [MLPRegressor(**options).fit(rows, DENSE.sum(axis=1)) for rows in (DENSE, ROWS)]
    np.testing.assert_allclose(mlps[1].predict(ROWS), mlps[0].predict(DENSE), rtol=1e-4, atol=1e-4)


class Watched(csr_matrix):
    """A matrix that remembers the most elements that were made dense at once."""

    most = 0

    def toarray(self, *arguments, **options):
        Watched.most = max(Watched.most, self.shape[0] * self.shape[1])
        return super().toarray(*arguments, **options)


def test_never_is_all_of_it_dense(monkeypatch):
    monkeypatch.setattr(sparse_rows, "ELEMENTS", 64 * 30)
    Watched.most = 0
    mlp = fitted(Watched(ROWS), batch_size=32, early_stopping=True)
    mlp.decision_function(Watched(ROWS))
    assert 32 * 30 <= Watched.most <= 64 * 30


def test_numbers_that_are_not_finite():
    bad = csr_array(np.where(DENSE > 0, 1e300, 0.0))
    with pytest.raises(ValueError, match=r"x: NaN or infinity \(in float32\) among the stored numbers"):
        fitted(bad)
