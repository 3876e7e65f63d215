"""Models that torch, TensorFlow and scikit-learn wrote predict as they did there."""

import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from nbdense.export import from_onnx
from tests.support.source_tree import ROOT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # skl2onnx's own imports
    from skl2onnx import to_onnx as skl_to_onnx

GOLDEN = sorted((ROOT / "tests" / "golden" / "onnx").glob("*.onnx"))
# What torch's and Keras's networks come back as, at most; what is folded differs from exporter to exporter.
EXPECTED = {
    "mlp": {"Dense"},
    "norms": {"Flatten", "Dense", "BatchNormalization", "LayerNormalization", "Activation"},
    "activations": {"Dense"},
    "residual": {"Flatten", "Dense", "Residual", "Activation"},
    "positions": {"Dense", "LayerNormalization", "Activation"},
    "standardised": {"BatchNormalization", "Dense"},
}


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_files(path):
    held = np.load(path.with_suffix(".npz"))
    model = from_onnx(path)
    found = model.predict(held["x"])
    assert found.shape == held["y"].shape and found.dtype == held["x"].dtype
    size = max(1.0, float(np.abs(held["y"]).max()))
    np.testing.assert_allclose(found, held["y"], rtol=1e-5, atol=(1e-12 if found.dtype == np.float64 else 1e-6) * size)
    name = path.stem.split("_")[-1]
    assert set(kinds(model)) <= EXPECTED[name], kinds(model)


def test_there_are_golden_files_of_all_exporters():
    names = {path.stem for path in GOLDEN}
    assert names == {f"{who}_{name}" for who in ("torch_script", "torch_dynamo", "keras") for name in EXPECTED}


def fitted(estimator, y, x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(x, y)


def classifier(**options):
    return MLPClassifier((7,), max_iter=15, random_state=0, **options)


def regressor(**options):
    return MLPRegressor(hidden_layer_sizes=(7, 3), max_iter=15, random_state=0, **options)


RNG = np.random.default_rng(0)
X = (RNG.normal(size=(150, 5)) * 3 + 2).astype(np.float32)
TWO, THREE = (X[:, 0] > 2).astype(int), RNG.integers(0, 3, 150)
WORDS = np.array(["no", "yes", "maybe"])[THREE]
ESTIMATORS = {
    "three classes": (classifier(), THREE, X, ["0", "1", "2"], ["Dense", "Dense"]),
    "three words": (classifier(activation="tanh"), WORDS, X, ["maybe", "no", "yes"], ["Dense", "Dense"]),
    "two classes": (classifier(activation="logistic"), TWO, X, ["0", "1"], ["Dense", "Dense"]),
    "several labels": (classifier(), np.stack([TWO, 1 - TWO, THREE > 0], 1), X, None, ["Dense", "Dense"]),
    "linear inside": (classifier(activation="identity"), THREE, X, ["0", "1", "2"], ["Dense", "Dense"]),
    "standardised": (make_pipeline(StandardScaler(), classifier()), TWO, X, ["0", "1"], ["Dense", "Dense"]),
    "values": (regressor(), X[:, 0], X, None, ["Dense"] * 3),
    "scaled": (make_pipeline(MinMaxScaler(), regressor()), X[:, 1], X, None, ["Dense"] * 3),
    "in float64": (make_pipeline(StandardScaler(), regressor()), X[:, 1], X.astype("f8"), None, ["Dense"] * 3),
    "far from zero": (
        make_pipeline(StandardScaler(), regressor()),
        X[:, 1],
        X + 2000,
        None,
        ["BatchNormalization", *["Dense"] * 3],
    ),
}


@pytest.mark.parametrize("zip_map", [True, False])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_scikit_learn_through_skl2onnx(name, zip_map):
    estimator, y, x, class_names, expected = ESTIMATORS[name]
    fitted(estimator, y, x)
    classifies = hasattr(estimator, "predict_proba")
    if not (classifies or zip_map):
        zip_map = True  # there is none to leave out: once more
    proto = skl_to_onnx(estimator, x[:1], options={"zipmap": zip_map} if classifies else None)
    model = from_onnx(proto.SerializeToString())
    found = model.predict(x)
    assert found.dtype == x.dtype and kinds(model) == expected
    wanted = estimator.predict_proba(x) if classifies else estimator.predict(x).reshape(-1, 1)
    tolerance = 1e-12 if x.dtype == np.float64 else 2e-6
    if name != "far from zero":  # there float32 itself costs more
        np.testing.assert_allclose(found, wanted, rtol=10 * tolerance, atol=tolerance * max(1, np.abs(wanted).max()))
    assert class_names is None or model.class_names == class_names
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    said = session.run(None, {session.get_inputs()[0].name: x})[-1]
    if isinstance(said, list):
        said = np.array([list(row.values()) for row in said])
    np.testing.assert_allclose(found, said, rtol=10 * tolerance, atol=tolerance * max(1, np.abs(said).max()))


def test_several_values_of_skl2onnx_are_named():
    """Its converter lays all outputs of all rows end to end; the error says what to take instead."""
    estimator = fitted(regressor(), X[:, :2], X)
    proto = skl_to_onnx(estimator, X[:1])
    with pytest.raises(ValueError, match="apart.*output='") as found:
        from_onnx(proto)
    tensor = str(found.value).split("output='")[1].split("'")[0]
    np.testing.assert_allclose(from_onnx(proto, output=tensor).predict(X), estimator.predict(X), rtol=1e-4, atol=1e-5)


def test_imported_models_learn_on():
    estimator = fitted(classifier(), THREE, X)
    model = from_onnx(skl_to_onnx(estimator, X[:1]))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    before = model.evaluate(X, THREE)[0]
    model.fit(X, THREE, epochs=20, verbose=0)
    assert model.evaluate(X, THREE)[0] < before - 0.01
    assert onnx.checker.check_model(skl_to_onnx(estimator, X[:1])) is None
