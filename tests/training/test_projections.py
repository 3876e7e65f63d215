"""Constraints in training: each step of the optimizer is followed by a projection, as in Keras."""

import numpy as np
import pytest

import nbdense
from nbdense import constraints
from nbdense.callbacks import LambdaCallback
from nbdense.layers import BatchNormalization, Dense, Input, LayerNormalization, Residual
from nbdense.models import Sequential, load_model
from nbdense.optimizers import SGD

RNG = np.random.default_rng(2)
X = RNG.normal(size=(24, 3))
Y = RNG.normal(size=(24, 2))
RATE = 0.1


def max_norm(w):
    norms = np.sqrt((w**2).sum(axis=0, keepdims=True))
    return w * (np.clip(norms, 0, 0.5) / (1e-7 + norms))


NAIVE = {
    "max_norm": (constraints.MaxNorm(0.5), max_norm),
    "non_neg": ("non_neg", lambda w: np.maximum(w, 0)),
    "unit_norm": ("UnitNorm", lambda w: w / (1e-7 + np.sqrt((w**2).sum(axis=0, keepdims=True)))),
}


def made(constraint=None, bias_constraint=None, **options):
    layer = Dense(2, kernel_constraint=constraint, bias_constraint=bias_constraint)
    model = Sequential([Input((3,)), layer], dtype="float64")
    model.seed = 4
    model.compile(nbdense.SGD(RATE), "mse")
    return model


def naive_fit(kernel, bias, project, batch, epochs):
    """Gradient descent on the squared error, written out; the kernel is projected behind each step."""
    for _ in range(epochs):
        for first in range(0, len(X), batch):
            x, y = X[first : first + batch], Y[first : first + batch]
            slope = 2 * (x @ kernel + bias - y) / y.size
            kernel, bias = project(kernel - RATE * x.T @ slope), bias - RATE * slope.sum(axis=0)
    return kernel, bias


@pytest.mark.parametrize("name", NAIVE)
def test_fit_equals_naive(name):
    constraint, project = NAIVE[name]
    model = made(constraint)
    start = model.get_weights()
    model.fit(X, Y, batch_size=7, epochs=3, shuffle=False, verbose=0)
    for ours, theirs in zip(model.get_weights(), naive_fit(*start, project, 7, 3), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)
    assert not np.allclose(start[0], project(start[0]))  # it had something to do
    assert model.optimizer.iterations == 12


def test_all_ways_to_take_a_step():
    fitted, stepped, own = (made("non_neg", constraints.MaxNorm(0.01)) for _ in range(3))
    fitted.fit(X, Y, batch_size=24, epochs=4, shuffle=False, verbose=0)
    for _ in range(4):
        stepped.train_on_batch(X, Y)
        outputs = own.forward(X, training=True)
        own.backward(2 * (outputs - Y) / Y.size)
        own.apply_gradients()
    for other in (stepped, own):
        for ours, theirs in zip(fitted.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)
    kernel, bias = fitted.get_weights()
    assert (kernel >= 0).all() and (kernel == 0).any()
    assert np.linalg.norm(bias) <= 0.01 * (1 + 1e-12)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_optimizers_count_their_steps(optimizer):
    """A projection that does nothing changes nothing, though steps are taken one by one then."""
    models = [
        Sequential([Input((3,)), Dense(4, "tanh", kernel_constraint=constraint), Dense(2)])
        for constraint in (None, constraints.MaxNorm(1e9))
    ]
    schedule = nbdense.ExponentialDecay(0.01, 3, 0.9)
    for model in models:
        model.seed = 1
        made_of = {"adam": nbdense.Adam, "rmsprop": nbdense.RMSprop}[optimizer]
        model.compile(made_of(schedule), "mse")
        model.fit(X, Y, batch_size=5, epochs=3, verbose=0)
    for ours, theirs in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)  # its factor misses 1 by 1e-7
    assert models[0].optimizer.iterations == models[1].optimizer.iterations == 15


def test_frozen_layers_are_not_projected():
    model = made("non_neg")
    model.layers[0].trainable = False
    model.compile("sgd", "mse")
    before = model.get_weights()
    assert (before[0] < 0).any()
    model.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


def test_norms_and_blocks():
    model = Sequential(
        [
            Input((3,)),
            BatchNormalization(gamma_constraint=constraints.MaxNorm(1.0), beta_constraint="non_neg"),
            LayerNormalization(gamma_constraint="unit_norm", gamma_regularizer="l2"),
            Residual([Dense(3, "relu", kernel_constraint="non_neg", name="inside")]),
            Dense(2),
        ]
    )
    model.compile("adam", "mse")
    model.fit(X, Y, epochs=3, verbose=0)
    weights = model.parameters
    np.testing.assert_allclose(np.linalg.norm(weights["layer_normalization/gamma"]), 1.0, rtol=1e-5)
    assert np.linalg.norm(weights["batch_normalization/gamma"]) <= 1.0 + 1e-5
    assert (weights["batch_normalization/beta"] >= 0).all()
    assert (weights["residual/inside/kernel"] >= 0).all()


def test_weights_know_their_constraints():
    block = Residual([Dense(3, kernel_constraint="non_neg")])
    model = Sequential([Input((3,)), Dense(3, bias_constraint=constraints.UnitNorm()), block, Dense(1)])
    found = [weight.constraint for weight in model.weights]
    assert [type(one).__name__ for one in found] == ["NoneType", "UnitNorm", "NonNeg", *["NoneType"] * 3]
    assert model.layers[0].bias.constraint is model.layers[0].bias_constraint


class Halved(constraints.Constraint):
    """One of a user's own."""

    def __call__(self, w):
        return w / 2


def test_saved_loaded_and_of_ones_own(tmp_path):
    model = made(Halved(), constraints.MinMaxNorm(0.1, 0.2, 0.5))
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.nbd")
    other = load_model(tmp_path / "model.nbd", custom_objects={"Halved": Halved})
    assert other.layers[0].bias_constraint.get_config() == model.layers[0].bias_constraint.get_config()
    for each in (model, other):
        each.fit(X, Y, epochs=2, verbose=0)
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_pruned_quantized_and_exported(tmp_path):
    model = made(constraints.MinMaxNorm(1.0, 2.0))
    model.fit(X, Y, verbose=0)
    pruned = nbdense.prune(model, 0.5)
    zeros = pruned.get_weights()[0] == 0
    assert zeros.sum() == 3
    pruned.compile("sgd", "mse")
    pruned.fit(X, Y, epochs=3, verbose=0)
    np.testing.assert_array_equal(pruned.get_weights()[0] == 0, zeros)
    norms = np.linalg.norm(pruned.get_weights()[0], axis=0)
    assert ((norms >= 1 - 1e-5) & (norms <= 2 + 1e-5)).all()
    nbdense.to_onnx(pruned, tmp_path / "model.onnx")
    single = Sequential([Input((3,)), Dense(2, kernel_constraint="max_norm")])
    single.compile("sgd", "mse")
    single.fit(X, Y, verbose=0)
    assert nbdense.quantize(single, X).predict(X).shape == (24, 2)


@pytest.mark.parametrize("name", ["lora_rank", "quantization_config"])
def test_arguments_of_dense_that_are_refused(name):
    with pytest.raises(ValueError, match=f"Dense: {name} is not supported, got 4; "):
        Dense(3, **{name: 4})


def test_constraints_follow_each_batch_whose_gradient_is_added_up():
    """As in Keras: weights are projected behind every batch, also where several make a step."""
    start = np.array([[0.5], [-0.25], [0.1]])
    model = Sequential([Input((3,)), Dense(1, use_bias=False, kernel_constraint="non_neg")], dtype="float64")
    model.compile(SGD(0.5, gradient_accumulation_steps=2), "mse")
    model.set_weights([start])
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(8, 3)), rng.normal(size=(8, 1))) for _ in range(3)]
    seen = []
    see = LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(model.get_weights()[0]))
    model.fit(lambda: iter(batches), epochs=2, verbose=0, callbacks=[see])
    weights, total, expected = start, 0.0, []
    for number, (x, y) in enumerate(batches * 2, 1):
        total = total + 2 * x.T @ (x @ weights - y) / 8
        if number % 2 == 0:
            weights, total = weights - 0.5 * total / 2, 0.0
        weights = np.maximum(weights, 0.0)
        expected.append(weights)
    np.testing.assert_allclose(seen, expected, atol=1e-12)


def test_an_optimizer_by_itself_knows_a_models_weights_again():
    model = Sequential([Input((3,)), Dense(1)], dtype="float64")
    before, optimizer = model.get_weights(), SGD(0.1)
    for _ in range(3):
        optimizer.apply_gradients(zip([np.ones((3, 1)), np.ones(1)], model.trainable_weights, strict=True))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_allclose(new, old - 0.3, atol=1e-12)
