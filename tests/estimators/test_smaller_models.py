"""Quantized and pruned estimators and Pipelines, and their ONNX files."""

import pickle
import warnings

import numpy as np
import onnxruntime as ort
import pytest
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import nbdense as nb
from nbdense.estimators import MLPClassifier, MLPRegressor
from nbdense.quant import QuantizedModel

RNG = np.random.default_rng(4)
X = RNG.normal(size=(300, 6)) * [1, 2, 3, 4, 5, 6] + 7
CLASSES = np.array(["a", "b", "c"])[((X - 7) / [1, 2, 3, 4, 5, 6])[:, :3].argmax(axis=1)]
VALUES = X[:, 0] - X[:, 1]


def fitted(estimator=MLPClassifier, y=CLASSES, **options):
    options = {"hidden_layer_sizes": (16, 12), "learning_rate_init": 0.01, "max_iter": 40, "random_state": 0} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make_pipeline(StandardScaler(), estimator(**options)).fit(X, y)


@pytest.fixture(scope="module")
def pipeline():
    return fitted()


@pytest.fixture(scope="module")
def quantized(pipeline):
    return nb.quantize(pipeline, X)


def test_quantized_pipelines_predict_as_pipelines_do(pipeline, quantized):
    assert type(quantized) is type(pipeline) and quantized is not pipeline
    mlp = quantized[-1]
    assert isinstance(mlp, MLPClassifier) and isinstance(mlp.model_, QuantizedModel)
    assert quantized[:-1].steps == pipeline[:-1].steps and isinstance(pipeline[-1].model_, nb.Sequential)
    assert quantized.score(X, CLASSES) > pipeline.score(X, CLASSES) - 0.03
    np.testing.assert_allclose(quantized.predict_proba(X), pipeline.predict_proba(X), atol=0.1)
    np.testing.assert_array_equal(
        mlp.model_.predict(pipeline[:-1].transform(X)),
        nb.quantize(pipeline[-1].model_, pipeline[:-1].transform(X)).predict(pipeline[:-1].transform(X)),
    )
    assert (mlp.n_layers_, mlp.n_outputs_, mlp.out_activation_) == (4, 3, "softmax")
    labels = mlp.classes_[mlp.decision_function(quantized[:-1].transform(X)).argmax(axis=1)]
    np.testing.assert_array_equal(labels, quantized.predict(X))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(quantized)).predict_proba(X), quantized.predict_proba(X))


def test_quantized_estimators_do_not_learn(quantized):
    mlp = quantized[-1]
    for learn in (
        lambda: mlp.partial_fit(X, CLASSES),
        lambda: mlp.learn_one(X[0], "a"),
        lambda: mlp.calibrate(X, CLASSES),
    ):
        with pytest.raises(TypeError, match="its model is a QuantizedModel, which does not learn"):
            learn()
    assert not hasattr(mlp, "coefs_")


def test_ways_to_quantize(pipeline):
    batches = nb.quantize(pipeline, lambda: iter(np.array_split(X, 3)))
    np.testing.assert_array_equal(batches.predict_proba(X), nb.quantize(pipeline, X).predict_proba(X))
    listed = nb.quantize(pipeline, np.array_split(X, 3))
    np.testing.assert_array_equal(listed.predict_proba(X), batches.predict_proba(X))
    alone = nb.quantize(pipeline[-1], pipeline[:-1].transform(X))
    assert isinstance(alone, MLPClassifier)
    np.testing.assert_array_equal(alone.predict(pipeline[:-1].transform(X)), batches.predict(X))
    within = nb.quantize(pipeline, X, bits=4, accuracy_budget=0.01, evaluate=(X, CLASSES))
    assert within.score(X, CLASSES) >= pipeline.score(X, CLASSES) - 0.01
    by_function = nb.quantize(pipeline, X, bits=4, accuracy_budget=0.01, evaluate=lambda model: model.score(X, CLASSES))
    np.testing.assert_array_equal(by_function.predict_proba(X), within.predict_proba(X))
    search = GridSearchCV(pipeline, {"mlpclassifier__alpha": [1e-4]}, cv=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        search.fit(X, CLASSES)
    assert nb.quantize(search, X).score(X, CLASSES) > 0.8
    dynamic = nb.quantize(pipeline, scheme="dynamic")
    assert dynamic.score(X, CLASSES) > pipeline.score(X, CLASSES) - 0.03


def test_what_cannot_be_quantized():
    with pytest.raises(TypeError, match="quantize: expected a model, .* got LogisticRegression"):
        nb.quantize(make_pipeline(StandardScaler(), LogisticRegression()), X)
    with pytest.raises(ValueError, match="prune: the MLPRegressor is not fitted yet"):
        nb.prune(MLPRegressor(), 0.5)


@pytest.mark.parametrize("options", [{}, {"criterion": "movement"}, {"structure": "neuron"}], ids=str)
def test_pruned_estimators_learn_on(pipeline, options):
    if "criterion" in options:
        options = options | {"calibration": (X, CLASSES)}
    pruned = nb.prune(pipeline, 0.5, **options)
    mlp = pruned[-1]
    features = pruned[:-1].transform(X)
    before = [coefs == 0 for coefs in mlp.coefs_]
    for _ in range(30):
        mlp.partial_fit(features, CLASSES)
    if "structure" in options:
        assert mlp.coefs_[0].shape[1] < 16 and mlp.hidden_layer_sizes == tuple(c.shape[1] for c in mlp.coefs_[:-1])
    else:
        assert sum(map(np.sum, before)) == round(0.5 * sum(c.size for c in mlp.coefs_))
        assert all((coefs[zero] == 0).all() for coefs, zero in zip(mlp.coefs_, before, strict=True))
    assert pruned.score(X, CLASSES) > 0.7
    assert all((coefs != 0).all() for coefs in pipeline[-1].coefs_)  # the first is as it was


def rows_in(model, data):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": data.astype(np.float32)})


@pytest.mark.parametrize("scheme", ["static", "dynamic", "weight_only"])
def test_quantized_pipelines_as_onnx(tmp_path, pipeline, scheme):
    quantized = nb.quantize(pipeline, X if scheme == "static" else None, scheme=scheme)
    model = nb.pipeline_to_onnx(quantized, tmp_path / "model.onnx", X=X)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["nbdense_flavour"] == {"static": "qdq"}.get(scheme, scheme)
    assert "nbdense_report" in metadata
    labels, probabilities = rows_in(model, X)
    expected = quantized.predict_proba(X)
    assert (np.abs(probabilities - expected).max(axis=1) < 1e-4).mean() > 0.95
    np.testing.assert_array_equal(labels, quantized.predict(X))
    assert (
        nb.to_onnx(quantized, verify=False).SerializeToString()
        == nb.pipeline_to_onnx(quantized, verify=False).SerializeToString()
    )


def test_onnx_of_an_estimator(tmp_path):
    mlp = fitted(MLPRegressor, VALUES)[-1]
    path = tmp_path / "model.onnx"
    model = mlp.to_onnx(path, X=X)
    np.testing.assert_allclose(rows_in(model, X)[0][:, 0], mlp.predict(X), rtol=1e-4, atol=1e-4)
    assert path.read_bytes() == model.SerializeToString()
    of_integers = nb.quantize(mlp, X).to_onnx(X=X)
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in of_integers.graph.node}
    with pytest.raises(NotFittedError):
        MLPRegressor().to_onnx()


def test_quantized_networks_that_round_otherwise(pipeline):
    with pytest.raises(ValueError, match="the network rounds as 'tflite'"):
        nb.pipeline_to_onnx(nb.quantize(pipeline, X, rounding="tflite"), X=X)
