"""Neurons that go: narrower layers, and everything that reads them."""

import numpy as np
import pytest

import nbdense as nb
from nbdense.layers import (
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    LayerNormalization,
    ReLU,
    Residual,
    RMSNormalization,
)
from nbdense.quant import prune
from tests.support.stacks import made, randomise


def shapes(model):
    return {name: view.shape for name, view in model.parameters.items()}


def take_out(model, kernels, neurons):
    """Let neurons give nothing and get nothing: their removal then changes no output."""
    for name in kernels:
        layer = name.removesuffix("/kernel")
        model.parameters[name][:, neurons] = 0
        if f"{layer}/bias" in model.parameters:
            model.parameters[f"{layer}/bias"][neurons] = 0


def test_a_chain_by_hand():
    model = randomise(made([Dense(6, "tanh", name="a"), Dense(5, "relu", name="b"), Dense(3, name="c")], (4,)))
    a, a_bias, b, b_bias, c, c_bias = model.get_weights()
    pruned = prune(model, 0.5, structure="neuron", scope="layer")
    keep_a = np.sort(np.argsort(-np.square(a).sum(axis=0), kind="stable")[:3])
    keep_b = np.sort(np.argsort(-np.square(b).sum(axis=0), kind="stable")[:3])  # of 5 half are 2, rounded to even
    expected = [a[:, keep_a], a_bias[keep_a], b[np.ix_(keep_a, keep_b)], b_bias[keep_b], c[keep_b], c_bias]
    for weights, wanted in zip(pruned.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(weights, wanted)
    assert [layer.units for layer in pruned.layers] == [3, 3, 3] and [layer.units for layer in model.layers] == [
        6,
        5,
        3,
    ]
    hidden = np.maximum(np.tanh(X @ expected[0] + expected[1]) @ expected[2] + expected[3], 0)
    np.testing.assert_allclose(pruned.predict(X), hidden @ expected[4] + expected[5], rtol=1e-12)
    assert pruned.network.multiply_adds == 4 * 3 + 3 * 3 + 3 * 3


X = np.random.default_rng(2).normal(size=(20, 4))


STACKS = {
    "batch norm": (
        lambda: [Dense(8, name="a"), BatchNormalization(center=False), ReLU(), Dropout(0.2), Dense(3, name="b")],
        ["a/kernel"],
    ),
    "rms norm": (lambda: [Dense(8, "relu", name="a"), Dense(3, name="b"), RMSNormalization()], ["a/kernel"]),
    "residual": (
        lambda: [
            Dense(8, "relu", name="a"),
            Residual([Dense(8, "tanh", name="inside")], name="block"),
            Dense(3, name="b"),
        ],
        ["a/kernel", "block/inside/kernel"],
    ),
    "residual with a width of its own": (
        lambda: [
            Dense(5, "tanh", name="a"),
            Residual([Dense(8, "relu", name="in"), Dense(5, "tanh", name="out")], name="block"),
            Dense(2, name="b"),
        ],
        ["block/in/kernel"],
    ),
    "projection": (
        lambda: [Dense(4, name="a"), Residual([Dense(8, "tanh", name="in")], name="block"), ReLU(), Dense(3, name="b")],
        ["block/in/kernel", "block/projection/kernel"],
    ),
    "a model in a model": (
        lambda: [nb.Sequential([Dense(8, "relu", name="in")], name="inner", dtype="float64"), Dense(3, name="b")],
        ["inner/in/kernel"],
    ),
}


@pytest.mark.parametrize("name", STACKS)
def test_what_gives_nothing_goes_without_a_trace(name):
    layers, kernels = STACKS[name]
    model = randomise(made(layers(), (4,)))
    for view in (view for key, view in model.parameters.items() if key.endswith("moving_mean")):
        view[...] = 0
    take_out(model, kernels, [1, 3, 6])
    neurons = {"residual with a width of its own": 13, "projection": 12}.get(name, 8)
    pruned = prune(model, 3 / neurons, structure="neuron")
    np.testing.assert_allclose(pruned.predict(X), model.predict(X), rtol=1e-12, atol=1e-12)
    assert all(pruned.parameters[kernel].shape[1] == 5 for kernel in kernels)
    assert pruned.network.params.dtype == np.float64
    pruned.compile("adam", "mse")
    pruned.fit(X, np.zeros((20, pruned.output_shape[1])), verbose=0)


def test_behind_flatten_the_rows_of_all_positions_go():
    model = randomise(made([Dense(6, "relu", name="a"), Flatten(), Dense(3, name="b")], (2, 4)))
    take_out(model, ["a/kernel"], [0, 4])
    pruned = prune(model, 1 / 3, structure="neuron")
    assert shapes(pruned) == {"a/kernel": (4, 4), "a/bias": (4,), "b/kernel": (8, 3), "b/bias": (3,)}
    x = np.random.default_rng(0).normal(size=(10, 2, 4))
    np.testing.assert_allclose(pruned.predict(x), model.predict(x), rtol=1e-12)


def test_norms_get_the_vectors_of_what_is_left():
    model = randomise(made([Dense(6, name="a"), BatchNormalization(name="n"), LayerNormalization(), Dense(2)], (4,)))
    model.parameters["a/kernel"][...] *= np.array([9, 1, 9, 1, 9, 9.0])
    pruned = prune(model, 1 / 3, structure="neuron")
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        kept = model.parameters[f"n/{name}"][[0, 2, 4, 5]]
        np.testing.assert_array_equal(pruned.parameters[f"n/{name}"], kept)
    assert shapes(pruned)["layer_normalization/gamma"] == (4,)


def test_masks_come_along_and_training_goes_on(tmp_path):
    model = made([Dense(8, "relu"), Dense(6, "relu"), Dense(2)], (4,))
    model.compile("adam", "mse")
    pruned = prune(prune(model, 0.5), 0.25, structure="neuron")
    zeros = [view == 0 for view in pruned.get_weights()[::2]]
    assert sum(int(zero.sum()) for zero in zeros) > 0
    pruned.fit(X, X[:, :2], epochs=3, verbose=0)
    for view, zero in zip(pruned.get_weights()[::2], zeros, strict=True):
        np.testing.assert_array_equal(view == 0, zero)
    pruned.save(tmp_path / "m")
    np.testing.assert_array_equal(nb.load_model(tmp_path / "m").predict(X), pruned.predict(X))
    proto = nb.to_onnx(pruned)
    assert {tuple(tensor.dims) for tensor in proto.graph.initializer} >= {tuple(zero.T.shape) for zero in zeros}
    q = nb.quantize(pruned, X)
    assert [layer.kernel.shape for layer in q.network.layers] == [zero.shape for zero in zeros]


def test_a_projection_stays_one():
    """A block whose ends come to the same width would have none."""
    model = made([Dense(4, name="a"), Residual([Dense(6, name="in")], name="block"), Dense(2, name="b")], (4,))
    pruned = prune(model, 1 / 3, structure="neuron", scope="layer", exempt="a")
    assert shapes(pruned)["block/projection/kernel"] == (4, 5)


def test_sums_with_the_input_and_the_output_stay():
    model = made(
        [Residual([Dense(9, "relu", name="in"), Dense(4, name="out")], name="block"), Dense(3, name="b")], (4,)
    )
    pruned = prune(model, 2 / 3, structure="neuron")
    assert shapes(pruned)["block/in/kernel"] == (4, 3) and shapes(pruned)["block/out/kernel"] == (3, 4)
    with pytest.raises(ValueError, match="^prune: there are no neurons to remove"):
        prune(model, 0.5, structure="neuron", exempt="block/in")


def test_layers_do_not_lose_all_their_neurons():
    model = made([Dense(6, name="a"), Dense(6, name="b"), Dense(3, name="c")], (4,))
    model.parameters["b/kernel"][...] *= 1e-3
    with pytest.raises(ValueError, match=r"^prune: Dense layer 'b' would lose all of its 6 neurons; .*scope='layer'"):
        prune(model, 0.5, structure="neuron")
    pruned = prune(model, 0.5, structure="neuron", scope="layer")
    assert [layer.units for layer in pruned.layers] == [3, 3, 3]
    with pytest.raises(ValueError, match="would lose all"):
        prune(model, 0.95, structure="neuron", scope="layer")
    with pytest.raises(ValueError, match="structure 'neuron' needs a Sequential, got Network"):
        prune(model.network, 0.5, structure="neuron")


@pytest.mark.parametrize("criterion", ["movement", "second_order"])
def test_neurons_by_other_criteria(criterion):
    model = made([Dense(6, "relu", name="a"), Dense(2, name="b")], (4,))
    model.compile("sgd", "mse")
    data = (X, X[:, :2])
    options = {"calibration": data if criterion == "movement" else X}
    pruned = prune(model, 0.5, structure="neuron", criterion=criterion, **options)
    assert shapes(pruned)["b/kernel"] == (3, 2)
