"""scikit-learn's own MLPs, alone and behind scalers."""

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, PolynomialFeatures, StandardScaler

import nbdense as nb

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
X = np.random.default_rng(2).normal(size=(120, 5)) * [1, 10, 0.1, 3, 1] + [0, 5, 0, 100, -1]


def fitted(kind, y, *scalers, **options):
    mlp = kind(hidden_layer_sizes=(8, 6), max_iter=20, random_state=0, **options)
    return (make_pipeline(*scalers, mlp) if scalers else mlp).fit(X if scalers else X / 100, y)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_classifiers(activation):
    y = np.array(["a", "b", "c"])[np.arange(120) % 3]
    theirs = fitted(MLPClassifier, y, activation=activation)
    model = nb.from_sklearn(theirs)
    np.testing.assert_allclose(model.predict(X / 100), theirs.predict_proba(X / 100), atol=1e-5)
    assert model.class_names == ["a", "b", "c"]


def test_two_classes_and_several_labels():
    theirs = fitted(MLPClassifier, X[:, 0] > 0, StandardScaler())
    model = nb.from_sklearn(theirs)
    np.testing.assert_allclose(model.predict(X)[:, 0], theirs.predict_proba(X)[:, 1], atol=1e-5)
    assert model.output_shape == (None, 1) and model.class_names == ["False", "True"]
    labels = np.stack([X[:, 0] > 0, X[:, 4] > -1], 1).astype(int)
    theirs = fitted(MLPClassifier, labels)
    np.testing.assert_allclose(nb.from_sklearn(theirs).predict(X / 100), theirs.predict_proba(X / 100), atol=1e-5)


@pytest.mark.parametrize(
    "scaler",
    [
        StandardScaler(),
        StandardScaler(with_mean=False),
        StandardScaler(with_std=False),
        MinMaxScaler((-1, 2)),
        MaxAbsScaler(),
    ],
    ids=repr,
)
def test_scalers_go_into_the_model(scaler):
    """A column has a mean of 33 deviations: in float32 weights its digits would be lost."""
    theirs = fitted(MLPRegressor, X[:, :2] / 10, scaler)
    expected = theirs.predict(X)
    model = nb.from_sklearn(theirs)
    np.testing.assert_allclose(model.predict(X), expected, atol=1e-5 * max(1, np.abs(expected).max()))
    assert model.class_names is None
    exact = nb.from_sklearn(theirs, dtype="float64").predict(X)
    np.testing.assert_allclose(exact, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_refusals():
    y = X[:, 0]
    with pytest.raises(ValueError, match=r"PolynomialFeatures 'polynomialfeatures': a model has a layer for Standard"):
        nb.from_sklearn(fitted(MLPRegressor, y, PolynomialFeatures()))
    with pytest.raises(ValueError, match="MLPRegressor '' is not fitted; call fit first"):
        nb.from_sklearn(MLPRegressor())
    with pytest.raises(TypeError, match="that ends in one, got StandardScaler"):
        nb.from_sklearn(make_pipeline(StandardScaler()).fit(X))
    passed = make_pipeline("passthrough", StandardScaler(), MLPRegressor(hidden_layer_sizes=(4,), max_iter=5)).fit(X, y)
    assert nb.from_sklearn(passed).predict(X).shape == (120, 1)


def test_an_estimator_of_nbdenses_is_here_already():
    with pytest.raises(TypeError, match="MLPRegressor is nbdense's own, whose network is here already: its `model_`"):
        nb.from_sklearn(nb.MLPRegressor())
