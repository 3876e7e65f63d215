"""Sparse rows: the same fit as of dense ones, without ever making all of them dense."""

import warnings

import numpy as np
import pytest
from scipy.sparse import coo_array, csr_array, csr_matrix, random_array
from sklearn.exceptions import ConvergenceWarning

import nbdense as nb
from nbdense.estimators import MLPClassifier, MLPRegressor
from nbdense.training import sparse_rows
from nbdense.training.sparse_rows import SparseRows, epoch_order

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
    monkeypatch.setattr("nbdense.estimators.rows.ELEMENTS", 64 * 30)
    Watched.most = 0
    mlp = fitted(Watched(ROWS), batch_size=32, early_stopping=True)
    mlp.decision_function(Watched(ROWS))
    assert 32 * 30 <= Watched.most <= 64 * 30


@pytest.mark.parametrize("rows", [1, 2, 7, 64, 1000])
def test_order_is_the_engines(rows):
    """A model that learns nothing, and tells the order in which it is shown row numbers by its batches' losses."""
    numbers = np.arange(rows, dtype=np.float64)[:, np.newaxis]
    model = nb.Sequential([nb.Input((1,)), nb.Dense(1, kernel_initializer="zeros")], dtype="float64")
    model.compile(nb.SGD(0.0), "mae")
    model.seed = 17
    seen = []
    for epoch in range(2):
        order = epoch_order(17, epoch, rows)
        assert sorted(order) == list(range(rows))
        seen.append(order.tolist())

    class Watch(nb.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.sum = 0.0

        def on_train_batch_end(self, batch, logs=None):
            mean = logs["loss"] * (batch + 1)
            assert round(mean - self.sum) == seen[self.model.epochs_trained][batch]
            self.sum = mean

    model.fit(numbers, numbers, batch_size=1, epochs=2, verbose=0, callbacks=[Watch()])


def test_numbers_that_are_not_finite():
    bad = csr_array(np.where(DENSE > 0, 1e300, 0.0))
    with pytest.raises(ValueError, match=r"x: NaN or infinity \(in float32\) among the stored numbers"):
        fitted(bad)
    model = nb.Sequential([nb.Input((30,)), nb.Dense(2, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    assert model.evaluate(SparseRows(ROWS), CLASSES) == pytest.approx(model.evaluate(DENSE, CLASSES), rel=1e-6)
    with pytest.raises(ValueError, match="y: expected a target for each of the 230 rows"):
        model.fit(SparseRows(ROWS), CLASSES[:9], verbose=0)
