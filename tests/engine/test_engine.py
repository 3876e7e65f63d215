"""The compiled program: losses, gradients, padding, and what it takes to compile nothing new."""

import json

import numpy as np
import pytest

from nbdense._compile.policy import JIT
from nbdense.activations import ACTIVATIONS
from nbdense.engine.elementwise.loss_forms import CUSTOM_FORM, FORMS
from nbdense.losses import LOSSES
from nbdense.network.builder import NetworkBuilder
from nbdense.optimizers import OPTIMIZERS
from nbdense.training import phases
from nbdense.training.evaluation import loss_and_gradient
from tests.reference import naive
from tests.support.builders import (
    OBJECTIVES,
    PAIRS,
    draw_targets,
    make_model,
    naive_layers,
    naive_objective,
    objective_name,
    padding,
    workspace_and_data,
)
from tests.support.python_process import run_python


def loss_and_gradients(model, x, y, weights=None):
    """Loss of the batch, and its gradient for each tensor."""
    workspace, data = workspace_and_data(model, x, y, weights)
    before = model.network.params.copy()
    loss, gradient = loss_and_gradient(workspace, data)
    np.testing.assert_array_equal(model.network.params, before)  # it only looks
    assert np.shares_memory(gradient, model.state)
    return loss, {k: v.copy() for k, v in model.network.tensors(gradient).items()}


def loss_of(model, x, y, weights=None):
    workspace, data = workspace_and_data(model, x, y, weights)
    layers = model.network.inference
    return workspace.run(phases.evaluation(layers), data, layers=layers)[1][0, 0] / len(x)


def assert_like_naive(model, x, y, weights, tolerance):
    loss, gradients = loss_and_gradients(model, x, y, weights)
    name, targets, options = naive_objective(model.loss, y, model.network.n_out)
    layers = [(np.float64(k), None if b is None else np.float64(b), a) for k, b, a in naive_layers(model)]
    expected, pairs, _ = naive.mlp_loss_and_gradients(
        x.astype(np.float64), targets, layers, name, sample_weight=weights, **options
    )
    np.testing.assert_allclose(loss, expected, rtol=tolerance)
    flat = [part for pair in pairs for part in pair if part is not None]
    for (tensor, got), value in zip(gradients.items(), flat, strict=True):
        scale = max(1.0, np.abs(value).max())
        np.testing.assert_allclose(got, value, rtol=0, atol=tolerance * scale, err_msg=tensor)


@pytest.mark.parametrize(("hidden", "objective"), PAIRS, ids=lambda v: v if isinstance(v, str) else objective_name(v))
def test_gradients_are_central_differences(hidden, objective):
    """The first witness: the loss itself. The second, naive.py, is asked about the same network."""
    loss, activation = objective
    rng = np.random.default_rng([len(hidden), *objective_name(objective).encode()])
    model = make_model([3, 5, 4, 2], [hidden, "tanh", activation], loss, bias=False)
    for view in (view for name, view in model.network.tensors().items() if name.endswith("/bias")):
        view[:] += 0.7  # few units are off
    x = rng.normal(size=(9, 3))
    y = draw_targets(rng, loss, 9, 2)
    for weights in (None, rng.uniform(0, 2, 9)):
        _, gradients = loss_and_gradients(model, x, y, weights)
        for name, view in model.network.tensors().items():

            def moved(values, view=view, weights=weights):
                kept = view.copy()
                view[...] = values
                found = loss_of(model, x, y, weights)
                view[...] = kept
                return found

            expected = naive.numerical_gradient(moved, view)
            assert np.abs(expected).max() > 1e-6, f"{name}: nothing to compare"
            np.testing.assert_allclose(gradients[name], expected, rtol=1e-5, atol=1e-8, err_msg=name)
        assert_like_naive(model, x, y, weights, 1e-12)


def test_every_loss_form_is_reached():
    assert {loss.form(activation)[0].name for loss, activation in OBJECTIVES} == {*FORMS, CUSTOM_FORM.name}
    assert {type(loss) for loss, _ in OBJECTIVES} == set(LOSSES.values())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_drawn_shapes(dtype):
    rng = np.random.default_rng(7)
    names = list(ACTIVATIONS)
    for i, (rows, *sizes) in enumerate(naive.draw_shapes(rng, 24, 5)):
        loss, activation = OBJECTIVES[int(rng.integers(len(OBJECTIVES)))]
        hidden = [names[int(k)] for k in rng.integers(0, len(names), 2)]
        # softmax wants two units
        widths = [w + (name == "softmax") for w, name in zip(sizes, ["", *hidden, "softmax"], strict=True)]
        model = make_model(widths, [*hidden, activation], loss, dtype=dtype, seed=i, bias=bool(i % 2))
        x = rng.normal(size=(rows, widths[0])).astype(dtype)
        assert_like_naive(
            model, x, draw_targets(rng, loss, rows, widths[-1]), None, 2e-5 if dtype == "float32" else 1e-11
        )


@pytest.mark.kernels
@pytest.mark.parametrize("objective", OBJECTIVES[:: 1 if JIT else 2], ids=objective_name)
def test_tiny_gradients_in_float32(objective):
    """Runs without the JIT too: the twins and the loops around them in plain Python."""
    loss, activation = objective
    rng = np.random.default_rng(8)
    model = make_model([3, 2, 2], ["relu", activation], loss, dtype="float32")
    x = rng.normal(size=(4, 3)).astype(np.float32)
    assert_like_naive(model, x, draw_targets(rng, loss, 4, 2), rng.uniform(0, 2, 4), 2e-5)


@pytest.mark.kernels
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_of_each_activation(activation):
    rng = np.random.default_rng(9)
    model = make_model([3, 4, 2], [activation, activation], dtype="float32")
    x = (3 * rng.normal(size=(5, 3))).astype(np.float32)
    with np.errstate(over="ignore"):  # an exponential of exponentials
        expected = naive.mlp_forward(x.astype(float), naive_layers(model)).astype(np.float32)
    np.testing.assert_allclose(model.predict(x), expected, rtol=2e-5, atol=1e-6)


def test_extreme_logits_lose_no_digits():
    """Cross-entropy from logits is the true value: no clip at 16.1, no overflow, gradient still there."""
    model = make_model([1, 2], ["softmax"], "sparse_categorical_crossentropy")
    model.set_weights([np.array([[1.0, -1.0]]), np.zeros(2)])
    loss, gradients = loss_and_gradients(model, np.array([[400.0]]), np.array([1]))
    assert loss == 800.0
    np.testing.assert_array_equal(gradients["dense/kernel"], [[400.0, -400.0]])
    model = make_model([1, 1], ["sigmoid"], "binary_crossentropy")
    model.set_weights([np.array([[1.0]]), np.zeros(1)])
    loss, gradients = loss_and_gradients(model, np.array([[1000.0]]), np.array([0]))
    assert (loss, gradients["dense/kernel"][0, 0]) == (1000.0, 1000.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_padding_is_zero_after_steps(optimizer, dtype):
    """In parameters, gradients and slots, for odd widths, every activation and every loss."""
    rng = np.random.default_rng(10)
    names = list(ACTIVATIONS)
    for i, (loss, activation) in enumerate(OBJECTIVES):
        hidden = names[i % len(names)]
        widths = [int(w) for w in rng.choice([2, 3, 5, 15, 17, 31, 33, 130], 4)]
        model = make_model(widths, [hidden, hidden, activation], loss, optimizer, dtype=dtype, bias=bool(i % 2))
        outside = padding(model.network)
        assert outside.any()
        before = model.network.params.copy()
        model.fit(rng.normal(size=(21, widths[0])), draw_targets(rng, loss, 21, widths[-1]), 8, verbose=0)
        assert (model.network.params != before).any()
        assert not model.network.params[outside].any()
        assert not model.state[:, outside].any()


@pytest.mark.parametrize(
    ("objective", "dtype"),
    [(objective, ("float32", "float64")[i % 2]) for i, objective in enumerate(OBJECTIVES)],
    ids=lambda value: value if isinstance(value, str) else objective_name(value),
)
def test_padding_of_outputs_and_deltas_is_zero(objective, dtype):
    """For every row of the layer table, in the workspace of a run."""
    loss, activation = objective
    rng = np.random.default_rng(11)
    rows, names = 9, list(ACTIVATIONS)
    widths = [5, *([7, 33, 17] * len(names))[: len(names)], 3]
    model = make_model(widths, [*names, activation], loss, dtype=dtype)
    workspace, data = workspace_and_data(model, rng.normal(size=(rows, 5)), draw_targets(rng, loss, rows, 3))
    workspace.run(phases.training(model.network.layers, updates=False), data)
    for layer in model.network.layers:
        for base in (0, int(workspace.memory.record["deltas"][0])):
            start = base + int(layer["output"]) * rows
            block = workspace.memory.work[start : start + rows * int(layer["ld_out"])].reshape(rows, -1)
            assert block[:, : layer["n_out"]].any()
            assert not block[:, layer["n_out"] :].any(), f"{'deltas' if base else 'outputs'} of row {layer}"


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_buffer_with_two_readers_gets_both_deltas(activation):
    """Rows name their buffers: here the first layer's output is read by a second row that nobody reads, then again."""
    rng = np.random.default_rng(13)
    model = make_model([3, 4, 2], [activation, "linear"])
    builder, outputs = NetworkBuilder(3, np.float64), {}
    for name, n_in, n_out, kind in (("a", 3, 4, activation), ("dead", 4, 5, "tanh"), ("b", 4, 2, "linear")):
        if name == "b":
            builder.output, builder.shape = outputs["a"], (4,)
        kernel = builder.parameter(f"{name}/kernel", rng.normal(size=(n_in, n_out)))
        bias = builder.parameter(f"{name}/bias", rng.normal(size=n_out))
        builder.dense(name, n_out, ACTIVATIONS[kind], kernel, bias)
        outputs[name] = builder.output
    model._take_network(builder.finish())
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(7, 2))
    _, gradients = loss_and_gradients(model, x, y)
    tensors = model.network.tensors()
    layers = [
        (tensors[f"{name}/kernel"], tensors[f"{name}/bias"], kind)
        for name, kind in (("a", activation), ("b", "linear"))
    ]
    _, expected, _ = naive.mlp_loss_and_gradients(x, y, layers, "mean_squared_error")
    for name, pair in zip("ab", expected, strict=True):
        np.testing.assert_allclose(gradients[f"{name}/kernel"], pair[0], atol=1e-12)
        np.testing.assert_allclose(gradients[f"{name}/bias"], pair[1], atol=1e-12)
    assert not gradients["dead/kernel"].any()


def test_frozen_and_masked_parameters_stay():
    rng = np.random.default_rng(12)
    x, y = rng.normal(size=(30, 5)), rng.normal(size=(30, 2))
    model = make_model([5, 17, 2], ["tanh", "linear"], optimizer="adam")
    network = model.network
    network.segments["trainable"][0] = 0
    mask = np.zeros_like(network.params)
    for view in network.tensors(mask).values():
        view[...] = rng.random(view.shape) < 0.5
    network.params *= mask
    network.mask = mask
    before = network.params.copy()
    model.fit(x, y, 8, epochs=2, verbose=0)
    first, rest = network.parameters[0], network.parameters[1:]
    np.testing.assert_array_equal(network.tensor(first), network.tensor(first, before))
    assert not network.params[mask == 0].any()
    for parameter in rest:
        kept = network.tensor(parameter, mask) != 0
        assert (network.tensor(parameter)[kept] != network.tensor(parameter, before)[kept]).any()


NOTHING_NEW = """
import contextlib, json, sys
import numpy as np
import nbdense as nb
from tests.support.builders import make_loss
from nbdense import activations, losses, optimizers
from nbdense.engine import program

entries = [program.run_steps, program.predict]
signatures = lambda: [len(entry.signatures) for entry in entries]

def use(widths, names, loss, optimizer, x, y, **options):
    model = nb.Sequential([nb.Dense(n, name) for n, name in zip(widths, names)])
    model.compile(optimizer, loss, options.pop("metrics", None))
    with contextlib.suppress(FloatingPointError):  # an exponential of exponentials
        model.fit(x, y, verbose=0, **options)
    model.evaluate(x, y)
    model.predict(x)
    model.predict(np.asarray(x, np.float64))

rng = np.random.default_rng(0)
x, y = rng.normal(size=(512, 64)).astype(np.float32), rng.integers(0, 2, 512)
use([200, 2], ["relu", "softmax"], "sparse_categorical_crossentropy", "adam", x, y, batch_size=512)  # in parallel
use([3, 2], ["relu", "softmax"], "sparse_categorical_crossentropy", "adam", x[:20], y[:20])
first = signatures()
tried = 0
names, kinds = list(activations.ACTIVATIONS), sorted(set(losses.LOSSES.values()), key=repr)
combinations = [(turn, kind) for turn in range(max(len(names), len(kinds))) for kind in optimizers.OPTIMIZERS]
for turn, optimizer in combinations:  # every activation and every loss, each with every optimizer
    name, loss = names[turn % len(names)], make_loss(kinds[turn % len(kinds)])
    tried += 1
    dtype = ["float32", "float64", "float16", "int8", "uint16", "int64", "bool", ">f4"][tried % 8]
    z = rng.integers(0, 2, (40, 3 + tried)).astype(dtype)
    z = [z, np.asfortranarray(z), z[::-1, ::2]][tried % 3]
    z.flags.writeable = tried % 2 == 0
    t = rng.integers(0, 2, 40) if loss.sparse else rng.integers(0, 2, (40, 2)).astype(dtype)
    weights = rng.random(40).astype("float32") if tried % 3 else None
    use([4] * (tried % 4) + [2], [name] * (tried % 4) + ["sigmoid"], loss, optimizer, z, t,
        metrics=["accuracy"] if tried % 2 else None, sample_weight=weights, validation_split=0.2)

everything = nb.Sequential([
    nb.Input((3, 5)), nb.Dense(8, kernel_regularizer="l2"), nb.BatchNormalization(), nb.ReLU(6.0), nb.Dropout(0.5),
    nb.Residual([nb.LayerNormalization(), nb.Dense(4, "gelu")]), nb.Flatten(), nb.Dense(2),
])
some = {"clipnorm": 1.0}, {"global_clipnorm": 1.0}, {"clipvalue": 1.0}, {"use_ema": True, "weight_decay": 0.1}
for options in some:
    everything.compile(nb.SGD(0.01, **options), "mse", metrics=["mae", "r2_score", "auc"])
    z, t = rng.normal(size=(20, 3, 5)), rng.integers(0, 2, (20, 2))
    everything.fit(z, t, verbose=0, callbacks=[nb.LambdaCallback(on_train_batch_end=print)])
    everything.evaluate(z, t)
    everything.train_on_batch(z, t)
    everything.backward(everything.forward(z, training=True))
    everything.apply_gradients()
    everything.predict(z)
    everything.diagnose(z, t)
print(json.dumps([first, signatures(), tried]))
"""


def test_another_model_compiles_nothing():
    """After one fit: other depths, widths, activations, losses, optimizers, input dtypes and layouts."""
    out, _ = run_python(NOTHING_NEW, NUMBA_NUM_THREADS="2", OMP_NUM_THREADS="2")
    first, last, tried = json.loads(out.splitlines()[-1])
    assert first == [1] * len(first)
    assert last == first
    assert tried == max(len(ACTIVATIONS), len(set(LOSSES.values()))) * len(OPTIMIZERS)
