"""Magnitude pruning: masks against the naive reference, and held in training."""

import itertools

import numpy as np
import pytest

import nbdense as nb
from nbdense import activations
from nbdense.layers import Dense, Input
from nbdense.models import Sequential
from nbdense.network.builder import NetworkBuilder
from nbdense.quant import prune
from nbdense.quant.pruning import sparsity_of
from tests.reference import naive


def make_network(rng, widths, values=None):
    builder = NetworkBuilder(widths[0])
    for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        kernel = rng.normal(size=(n_in, n_out)) if values is None else rng.choice(values, (n_in, n_out))
        at = builder.parameter(f"d{i}/kernel", kernel)
        bias = builder.parameter(f"d{i}/bias", rng.normal(size=n_out))
        builder.dense(f"d{i}", n_out, activations.get("relu"), at, bias)
    return builder.finish()


def kernels_of(network):
    return [row.kernel for row in network.rows()]


def padding_of(network, vector):
    covered = np.zeros(vector.size, bool)
    for view in network.tensors(covered).values():
        view[...] = True
    return vector[~covered]


@pytest.fixture
def rng():
    return np.random.default_rng(21)


@pytest.mark.parametrize("values", [None, [-0.5, 0.5, 0.25, -0.0]], ids=["distinct", "ties"])
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("sparsity", [0, 0.1, 0.5, 0.8, 0.99, np.float32(0.3)])
def test_masks_are_the_naive_references(rng, sparsity, scope, values):
    for widths in ([1, 1], [15, 17, 16], [13, 5, 37, 2]):
        network = make_network(rng, widths, values)
        before = network.params.copy()
        pruned = prune(network, sparsity, scope=scope)
        expected = naive.magnitude_masks(kernels_of(network), float(sparsity), scope)
        np.testing.assert_array_equal(network.params, before)
        assert network.mask is None
        masks = pruned.tensors(pruned.mask)
        for i, (kernel, mask) in enumerate(zip(kernels_of(network), expected, strict=True)):
            np.testing.assert_array_equal(masks[f"d{i}/kernel"], mask)
            np.testing.assert_array_equal(kernels_of(pruned)[i], np.where(mask, kernel, 0))
            assert not np.signbit(kernels_of(pruned)[i][~mask]).any()
            assert masks[f"d{i}/bias"].all()
            np.testing.assert_array_equal(pruned.tensors()[f"d{i}/bias"], network.tensors()[f"d{i}/bias"])
        assert not padding_of(pruned, pruned.params).any()


def test_sparsity_of(rng):
    network = make_network(rng, [10, 20, 5])
    assert sparsity_of(network) == 0
    assert sparsity_of(prune(network, 0.8)) == pytest.approx(0.8)
    assert sparsity_of(prune(prune(network, 0.5), 0.8)) == pytest.approx(0.8)


def test_pruning_again_keeps_what_was_pruned(rng):
    network = make_network(rng, [10, 20, 5])
    once = prune(network, 0.5)
    np.testing.assert_array_equal(prune(once, 0.8).params, prune(network, 0.8).params)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_holds_the_mask(rng, optimizer):
    x = rng.normal(size=(200, 9)).astype(np.float32)
    y = (x[:, 0] > x[:, 1]).astype(np.int64)
    model = Sequential([Input((9,)), Dense(17, activation="relu"), Dense(2, activation="softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=2, verbose=0)
    pruned = prune(model, 0.7)
    zeros = [kernel == 0 for kernel in kernels_of(pruned.network)]
    before = pruned.network.params.copy()
    pruned.fit(x, y, epochs=3, verbose=0)
    assert (pruned.network.params != before).any()
    for kernel, zero in zip(kernels_of(pruned.network), zeros, strict=True):
        assert not kernel[zero].any()
        assert kernel[~zero].all()
    assert sparsity_of(pruned.network) == pytest.approx(0.7, abs=0.01)
    assert not padding_of(pruned.network, pruned.network.params).any()
    assert sparsity_of(model.network) == 0


@pytest.mark.parametrize("sparsity", [1, 1.5, -0.1, np.nan, "0.5", True, None])
def test_sparsity_out_of_range(rng, sparsity):
    with pytest.raises(ValueError, match="prune: sparsity must lie in"):
        prune(make_network(rng, [3, 2]), sparsity)


def test_unfit_models(rng):
    with pytest.raises(ValueError, match="expected a built model"):
        prune(np.zeros(3), 0.5)
    with pytest.raises(ValueError, match="the model is not built"):
        prune(Sequential([Dense(2)]), 0.5)
    network = make_network(rng, [3, 2])
    kernels_of(network)[0][0, 0] = np.nan
    with pytest.raises(ValueError, match="layer 'd0'.*finite"):
        prune(network, 0.5)


def pruned_model(optimizer="adam", norms=1):
    """A pruned model with data for it: 48 kernel weights, of which 24 are zero."""
    rng = np.random.default_rng(5)
    model = Sequential([Input((4,)), Dense(8, "tanh"), *(nb.BatchNormalization() for _ in range(norms)), Dense(2)])
    model.seed = 3
    model.compile(optimizer, "mse")
    x, y = rng.normal(size=(40, 4)), rng.normal(size=(40, 2))
    model.fit(x, y, verbose=0)
    return prune(model, 0.5), x, y


def zeros_of(model):
    return sum(int((kernel == 0).sum()) for kernel in kernels_of(model.network))


def test_only_kernels_of_dense_layers_are_pruned():
    layers = [
        nb.Dense(8),
        nb.BatchNormalization(),
        nb.ReLU(),
        nb.Residual([nb.LayerNormalization(), nb.Dense(8)]),
        nb.Dense(2),
    ]
    model = nb.Sequential([nb.Input((6,)), *layers])
    model.compile("adam", "mse")
    pruned = nb.prune(model, 0.5)
    rng = np.random.default_rng(0)
    pruned.fit(rng.normal(size=(40, 6)), rng.normal(size=(40, 2)), epochs=2, verbose=0)
    zeros = {name: int((view == 0).sum()) for name, view in pruned.parameters.items() if name.endswith("kernel")}
    assert sum(zeros.values()) == round(0.5 * (6 * 8 + 8 * 8 + 8 * 2))
    for name, view in pruned.parameters.items():
        if name.endswith("gamma"):
            assert (view != 0).all()
    with pytest.raises(ValueError, match="prune: the model has no Dense layer"):
        nb.prune(nb.Sequential([nb.Input((3,)), nb.LayerNormalization()]), 0.5)


def test_set_weights_leaves_pruned_weights_at_zero():
    model, x, y = pruned_model()
    held = [mask.copy() for mask in model.network.tensors(model.network.mask).values()]
    model.set_weights(model.get_weights())  # says nothing: it has the zeros itself
    dense = [np.full(view.shape, 0.5) for view in held]
    dense[0][0, 0] = np.nan
    with pytest.warns(
        UserWarning, match=r"^set_weights: 24 weights that are pruned stay zero, .*\.mask = None"
    ) as caught:
        model.set_weights(dense)
    assert caught[0].filename == __file__
    for view, given, mask in zip(model.get_weights(), dense, held, strict=True):
        np.testing.assert_array_equal(view, np.where(mask != 0, given, 0).astype(np.float32))
    model.set_weights([np.nan_to_num(weights) for weights in model.get_weights()])
    model.fit(x, y, epochs=2, verbose=0)
    assert zeros_of(model) == 24
    first = int((held[0] == 0).sum())
    model.parameters["dense_1/kernel"][...] = 1.0  # through a view: nobody's business
    with pytest.warns(UserWarning, match=f"^set_weights of layer 'dense': {first} weights that are pruned stay zero"):
        model.layers[0].set_weights([np.ones((4, 8)), np.ones(8)])
    assert zeros_of(model) == first


def test_a_mask_can_be_dropped():
    """Between any two steps."""
    model, x, y = pruned_model(norms=0)

    def own_step(model):
        model.backward(model.forward(x, training=True) - y)
        model.apply_gradients()

    for step in (own_step, lambda model: model.train_on_batch(x, y), lambda model: model.fit(x, y, verbose=0)):
        free = prune(model, 0.5)
        step(free)
        assert zeros_of(free) == 24
        free.network.mask = None
        free.set_weights(free.get_weights())
        for _ in range(2):  # what leads to a unit that leads nowhere has a gradient in the second step only
            step(free)
        assert zeros_of(free) == 0


def test_zeros_come_through_all_that_writes_weights(tmp_path):
    """Averages from before the mask, a layer that is frozen, parts and foldings, and files."""
    model, x, y = pruned_model(nb.Adam(0.01, use_ema=True, ema_overwrite_frequency=3))
    model.network.mask = None
    model.fit(x, y, 8, epochs=2, verbose=0)
    assert zeros_of(model) == 0
    other = prune(model, 0.5)
    model.network.mask = other.network.mask
    model.network.hold_masked()
    model.fit(x, y, 8, epochs=2, verbose=0)
    assert zeros_of(model) == 24
    model.layers[0].trainable = False
    model.compile("adam", "mse")
    for derived in (model, model.upto("dense_1"), model.fold_batch_normalization()):
        derived.compile("adam", "mse")
        derived.fit(x, y, epochs=2, verbose=0)
        assert zeros_of(derived) == 24
    model.parameters["dense/kernel"][...] = 1.0
    model.save(tmp_path / "m")
    with pytest.warns(UserWarning, match=r"m: \d+ weights that are pruned stay zero") as caught:
        loaded = nb.load_model(tmp_path / "m")
    assert caught[0].filename == __file__ and zeros_of(loaded) == 24
