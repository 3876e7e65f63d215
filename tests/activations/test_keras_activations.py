"""Activations under Keras's names and with its arguments have its values: as functions, in layers, and in models.

tests/golden/make_keras_activations.py wrote these.
"""

import json

import numpy as np
import pytest

from nbdense import activations, layers
from nbdense.activations import ACTIVATIONS, ALIASES
from nbdense.losses import SparseCategoricalCrossentropy
from nbdense.models import Sequential, load_model
from tests.support.source_tree import ROOT

GOLDEN = json.loads((ROOT / "tests" / "golden" / "keras_activations.json").read_text())
X = np.array(GOLDEN["x"])
CASES = GOLDEN["cases"]
DIGITS = {"tanh": 1e-6}  # Keras's on jax has float32's; all others have float64's
NOT_KERASS = {"gelu_tanh", "softplus_beta", "thresholded_relu"}  # which Keras's arguments make, or torch's


def described(case):
    return f"{case['name']} {case['arguments'] or ''}".strip()


@pytest.mark.parametrize("case", CASES, ids=described)
def test_values_are_kerass(case):
    y, arguments = np.array(case["y"]), case["arguments"]
    if case["room"] == "layers":
        function = getattr(layers, case["name"])(**arguments)
        np.testing.assert_allclose(function(X), y, rtol=1e-10, atol=1e-10)
        return
    function = getattr(activations, case["name"])
    made = function(X, **arguments)
    assert made.dtype == np.float64 and made.shape == X.shape
    tolerance = DIGITS.get(case["name"], 1e-10)
    np.testing.assert_allclose(made, y, rtol=tolerance, atol=tolerance)
    single = function(X.astype(np.float32), **arguments)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", [case for case in CASES if "axis" not in case["arguments"]], ids=described)
def test_models_compute_the_same(case, tmp_path):
    """In a Dense layer, in float64; and out of a file."""
    arguments = case["arguments"]
    if case["room"] == "layers":
        chosen = getattr(layers, case["name"])(**arguments)
    else:
        chosen = getattr(activations, case["name"])
        chosen = chosen.with_parameters(**arguments)
    model = Sequential([layers.Input((5,)), layers.Dense(5, activation=chosen)], dtype="float64")
    model.set_weights([np.eye(5), np.zeros(5)])
    tolerance = DIGITS.get(case["name"], 1e-10)
    np.testing.assert_allclose(model.predict(X), case["y"], rtol=tolerance, atol=tolerance)
    model.save(tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert loaded.layers[0].activation == model.layers[0].activation


def test_names_are_the_tables():
    for name, row in ACTIVATIONS.items():
        if name not in NOT_KERASS:
            assert getattr(activations, name) is row is activations.get(name)
            assert row.__name__ == name
    for alias, name in ALIASES.items():
        assert getattr(activations, alias) is ACTIVATIONS[name]
    assert activations.get(activations.relu) is activations.relu
    assert layers.Dense(3, activation=activations.softmax).activation == activations.softmax


@pytest.mark.parametrize("name", ["glu", "sparsemax"])
def test_what_there_is_not_is_refused_by_name(name):
    with pytest.raises(AttributeError, match=f"nbdense.activations has no {name}: "):
        getattr(activations, name)


def test_no_prelu():
    with pytest.raises(AttributeError, match="no PReLU.*LeakyReLU"):
        _ = layers.PReLU


def test_arguments_that_cannot_be():
    for call, message in [
        (lambda: activations.tanh(X, 0.5), "'tanh' doesn't take these arguments: it has no parameter"),
        (lambda: activations.relu(X, slope=0.5), "'relu' doesn't take these arguments: .*slope"),
        (lambda: activations.celu(X, 0.5, 0.6), "'celu' doesn't take these arguments"),
        (lambda: activations.softmax(X, axis=2), "'softmax': axis 2 of an array of shape"),
        (lambda: activations.relu(["a"]), "'relu': real numbers are wanted, got an array of"),
        (lambda: activations.get({"name": "hard_shrink", "threshold": -1}), "threshold must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_dtypes():
    assert activations.relu([1, -2.5]).dtype == np.float32  # as in Keras
    assert activations.softmax(np.float16([[1, 2]])).dtype == np.float16
    assert activations.tanh(np.arange(3)).dtype == np.float32
    assert activations.elu(np.array(-1.0)).shape == ()


def test_arguments_come_in_kerass_order():
    np.testing.assert_array_equal(
        activations.relu(X, 0.1, 2.0, 0.7), activations.relu(X, negative_slope=0.1, max_value=2.0, threshold=0.7)
    )
    np.testing.assert_array_equal(activations.leaky_relu(X, 0.1), activations.leaky_relu(X, negative_slope=0.1))
    np.testing.assert_array_equal(activations.gelu(X, True), ACTIVATIONS["gelu_tanh"](X))
    np.testing.assert_array_equal(
        activations.threshold(X, 0.5, -2.0), activations.threshold(X, threshold=0.5, default_value=-2.0)
    )


def test_masks_of_a_softmax():
    softmax, x = layers.Softmax(), np.array([[1.0, 2.0, 5.0], [3.0, 3.0, 3.0]])
    e = np.exp([1.0, 2.0])
    np.testing.assert_allclose(softmax(x, mask=[1, 1, 0]), [[*(e / e.sum()), 0], [0.5, 0.5, 0]], rtol=1e-12)
    np.testing.assert_array_equal(softmax(x, mask=[[True] * 3, [False] * 3])[1], [0, 0, 0])
    with pytest.raises(ValueError, match="broadcastable"):
        softmax(x, mask=[1, 0])
    with pytest.raises(ValueError, match="more dimensions"):
        softmax(x, mask=np.ones((1, 2, 3)))


def test_negative_log_likelihood_behind_log_softmax():
    """nn.LogSoftmax and nn.NLLLoss: the same as softmax and its cross-entropy, loss and weights."""
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(60, 3)), rng.integers(0, 4, 60)
    results = []
    for end, logits in (("log_softmax", True), ("softmax", False)):
        model = Sequential([layers.Input((3,)), layers.Dense(4, end)], dtype="float64")
        model.seed = 2
        model.compile("sgd", SparseCategoricalCrossentropy(from_logits=logits), metrics=["accuracy"])
        history = model.fit(x, y, 8, epochs=3, verbose=0).history
        results.append([history["loss"], history["accuracy"], *model.get_weights()])
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-10)
