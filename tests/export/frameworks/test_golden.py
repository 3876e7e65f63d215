"""Models of torch, Keras and Stable-Baselines3, by stand-ins of their classes' names and attributes.

tests/golden/make_frameworks.py wrote down what they are and compute; test_installed.py takes the real ones.
"""

import json

import numpy as np
import pytest

import nbdense as nb
from nbdense.quant import quantize
from tests.export.frameworks.standins import arrays_of, standin
from tests.support.source_tree import ROOT

GOLDEN = np.load(ROOT / "tests" / "golden" / "frameworks.npz")
PLAIN = json.loads(str(GOLDEN["plain"]))
TAKEN = [name for name in PLAIN if "refused" not in name]
REFUSED = [name for name in PLAIN if "refused" in name]


def converted(name, monkeypatch):
    case = PLAIN[name]
    thing = standin(case["objects"], arrays_of(GOLDEN, name), monkeypatch)
    return getattr(nb, case["function"])(thing, **case["options"])


@pytest.mark.parametrize("name", TAKEN)
def test_outputs_agree(name, monkeypatch):
    model = converted(name, monkeypatch)
    wanted = GOLDEN[f"{name}/y"]
    outputs = model.predict(GOLDEN[f"{name}/x"])
    assert outputs.shape == wanted.shape
    np.testing.assert_allclose(outputs, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(name, monkeypatch):
    with pytest.raises(ValueError, match=f"{PLAIN[name]['function']}: .*{PLAIN[name]['words'].split(': ', 1)[-1]}"):
        converted(name, monkeypatch)


def test_golden_models_are_many():
    counts = {library: sum(name.startswith(library) for name in PLAIN) for library in ("torch", "keras", "sb3")}
    assert counts["torch"] > 50 and counts["keras"] > 35 and counts["sb3"] >= 11


# -- what comes along --


def test_names_and_rates_come_along(monkeypatch):
    model = converted("torch functional", monkeypatch)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["Dense", "BatchNormalization", "LeakyReLU" if "LeakyReLU" in kinds else "Activation", *kinds[3:]]
    assert model.layers[0].name == "fc1" and model.get_layer("fc2").activation.name == "softmax"
    assert [layer.rate for layer in model.layers if isinstance(layer, nb.Dropout)] == [pytest.approx(0.2)]
    norm = next(layer for layer in model.layers if isinstance(layer, nb.BatchNormalization))
    assert norm.momentum == pytest.approx(0.9) and norm.epsilon == pytest.approx(1e-5) and norm.trainable
    keras = converted("keras residual", monkeypatch)
    assert keras.layers[0].name == "first" and keras.layers[-1].name == "last"
    assert any(isinstance(layer, nb.Residual) for layer in keras.layers)


def test_what_came_is_trained_quantized_and_exported(monkeypatch):
    model = converted("torch residual", monkeypatch)
    x = GOLDEN["torch residual/x"]
    y = np.tanh(x[:, :2])
    model.compile("adam", "mse")
    losses = model.fit(x, y, 10, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert nb.verify_onnx(nb.to_onnx(model, verify=False), model, x).agrees
    assert np.isfinite(quantize(model, x).predict(x)).all()


def test_double(monkeypatch):
    case = PLAIN["torch nested"]
    thing = standin(case["objects"], arrays_of(GOLDEN, "torch nested"), monkeypatch)
    model = nb.from_torch(thing, dtype="float64")
    assert model.dtype == np.float64
    np.testing.assert_array_equal(model.get_weights()[0], thing._modules["0"]._modules["0"].weight.T)


@pytest.mark.parametrize("function", ["from_torch", "from_keras", "from_sklearn", "from_sb3"])
def test_other_things_are_refused(function):
    for thing in (3, "model.bin", object()):
        with pytest.raises(TypeError, match=f"{function}: expected .*, got {type(thing).__name__}"):
            getattr(nb, function)(thing)


def test_a_part_that_there_is_not():
    with pytest.raises(ValueError, match="part must be 'actor' or 'critic', got 'value'"):
        nb.from_sb3(object(), "value")


def test_residual_blocks_that_are_none():
    from nbdense.export.frameworks.chain import Chain
    from nbdense.export.frameworks.graph import Node, write_nodes

    start = Node()

    def dense(n_in, n_out):
        return lambda chain: chain.dense(np.ones((n_in, n_out), np.float32), None, "", "a layer")

    twice = Node((start, start), place="twice")
    chain = Chain("f", (3,))
    write_nodes(chain, twice)
    np.testing.assert_array_equal(chain.model("float32").predict(np.eye(3)), 2 * np.eye(3))
    one, other = Node((start,), dense(3, 3)), Node((start,), dense(3, 3))
    with pytest.raises(ValueError, match="f: both: what it adds is no residual block"):
        write_nodes(Chain("f", (3,)), Node((one, other), place="both"))
    flat = Node((start,), lambda chain: chain.flatten("flat"))
    with pytest.raises(ValueError, match="no residual block|keep the axes of a row"):
        write_nodes(Chain("f", (1, 3)), Node((start, flat), place="both"))
    deep = start
    for _ in range(40):
        deep = Node((start, Node((deep,), dense(3, 3))), place="deep")
    with pytest.raises(ValueError, match="nested more than 32 deep"):
        write_nodes(Chain("f", (3,)), deep)
