"""Layers of every kind: forward values, gradients and what training does to them, against tests/naive.py."""

import numpy as np
import pytest

import naive
import nbdense as nb
from nbdense import layers as k
from nbdense._compile import thread_pool
from nbdense.layers.fake_quantization import FakeQuantize, FakeQuantizedDense, FakeQuantizedResidual


def made(layers, shape, dtype="float64", seed=3):
    model = nb.Sequential([k.Input(shape), *layers], dtype=dtype)
    model.seed = seed
    return model


def randomise(model, seed=5):
    """Parameters away from their initial ones, so that no factor of 1 or 0 hides a fault."""
    rng = np.random.default_rng(seed)
    for name, view in model.parameters.items():
        positive = any(word in name for word in ("variance", "scale", "factor"))
        view[...] = rng.uniform(0.5, 1.5, view.shape) if positive else rng.normal(size=view.shape) * 0.7
    return model


STACKS = {
    "dense": (lambda: [k.Dense(4, "tanh"), k.Dense(3)], (5,)),
    "activation in the dense row": (lambda: [k.Dense(4), k.Activation("tanh"), k.Dense(3), k.ReLU()], (5,)),
    "activation on the input": (lambda: [k.Activation("sigmoid"), k.Dense(3)], (5,)),
    "two activations": (lambda: [k.Dense(4, "tanh"), k.ReLU(), k.Activation("sigmoid"), k.Dense(3)], (5,)),
    "softmax amid": (lambda: [k.Dense(4), k.Softmax(), k.Dense(3)], (5,)),
    "layer norm": (lambda: [k.Dense(7, "relu"), k.LayerNormalization(), k.Dense(3)], (5,)),
    "layer norm first and last": (lambda: [k.LayerNormalization(), k.Dense(3), k.LayerNormalization()], (5,)),
    "layer norm bare": (lambda: [k.Dense(18), k.LayerNormalization(center=False, scale=False), k.Dense(2)], (5,)),
    "batch norm": (lambda: [k.Dense(7), k.BatchNormalization(), k.ReLU(), k.Dense(3)], (5,)),
    "batch norm first and last": (lambda: [k.BatchNormalization(), k.Dense(3), k.BatchNormalization()], (5,)),
    "batch norms in a row": (lambda: [k.Dense(4), k.BatchNormalization(scale=False), k.BatchNormalization()], (5,)),
    "frozen batch norm": (lambda: [k.Dense(7), k.BatchNormalization(trainable=False), k.Dense(3)], (5,)),
    "residual": (lambda: [k.Residual([k.Dense(5, "relu"), k.Dense(5)]), k.Dense(2)], (5,)),
    "residual with projection": (lambda: [k.Residual([k.Dense(6, "tanh")]), k.ReLU(), k.Dense(2)], (5,)),
    "residual of the input": (lambda: [k.Residual([k.Activation("tanh")]), k.Dense(2)], (5,)),
    "residuals in residuals": (
        lambda: [k.Residual([k.Dense(4, "relu"), k.Residual([k.BatchNormalization(), k.Dense(4)])]), k.ReLU()],
        (4,),
    ),
    "relu before a fork": (lambda: [k.Dense(6, "relu"), k.Residual([k.Dense(6)]), k.Dense(2)], (5,)),
    "relu before a fork that begins with an activation": (
        lambda: [k.Dense(6, "relu"), k.Residual([k.Activation("tanh"), k.Dense(6)]), k.Dense(2)],
        (5,),
    ),
    "linear before a fork that begins with an activation": (
        lambda: [k.Dense(6), k.Residual([k.ReLU(), k.Dense(6)]), k.Dense(2)],
        (5,),
    ),
    "positions": (lambda: [k.Dense(4, "relu"), k.LayerNormalization(), k.Dense(3)], (3, 5)),
    "many axes": (lambda: [k.Dense(4, "tanh"), k.BatchNormalization(), k.Dense(3)], (2, 3, 5)),
    "flatten": (lambda: [k.Flatten(), k.Dense(3)], (2, 3, 5)),
    "flatten amid": (lambda: [k.Dense(4, "relu"), k.Flatten(), k.Dense(3)], (3, 5)),
    "flatten behind a norm": (lambda: [k.Dense(19), k.BatchNormalization(), k.Flatten()], (3, 5)),
    "transformer's block": (
        lambda: [k.Residual([k.LayerNormalization(), k.Dense(8, "relu"), k.Dense(5)]), k.LayerNormalization()],
        (4, 5),
    ),
    "nothing": (lambda: [k.Flatten()], (5,)),
    "dropout": (lambda: [k.Dropout(0.3), k.Dense(9, "relu"), k.Dropout(0.5), k.Dense(3)], (5,)),
    "dropout between sigmoid and norm": (
        lambda: [k.Dense(17, "sigmoid"), k.Dropout(0.5), k.BatchNormalization(), k.Dense(3), k.Dropout(0.2)],
        (2, 5),
    ),
    "everything": (
        lambda: [
            k.Dense(9),
            k.BatchNormalization(),
            k.ReLU(),
            k.Dropout(0.25),
            k.Residual([k.LayerNormalization(), k.Dense(12, "tanh"), k.Dropout(0.5), k.Dense(9)]),
            k.BatchNormalization(),
            k.Flatten(),
            k.Dense(3),
        ],
        (2, 5),
    ),
    "dropout of none": (lambda: [k.Dropout(0.0), k.Dense(3)], (5,)),
}


def fake_quantized(residual=False):
    """Layers that round, whose values are stairs: tests/test_quant_aware.py holds their gradients to other slopes."""
    projection = {"low": -2.0, "high": 3.0}
    inner = [FakeQuantizedDense(9, 4, activation="relu"), FakeQuantize(0.0, 5.0, name="inner")]
    return [
        FakeQuantize(-2.0, 2.0, learned=False, name="given"),
        FakeQuantizedDense(6, 4, activation="relu"),
        FakeQuantize(0.0, 4.0, "uint8"),
        k.Dropout(0.2),
        *([FakeQuantizedResidual(inner, projection, 4), FakeQuantize(-4.0, 9.0, name="sum")] if residual else []),
        FakeQuantizedDense(3),
        FakeQuantize(-3.0, 3.0, name="last"),
    ]


STAIRS = {
    "fake quantization": (fake_quantized, (5,)),
    "fake quantization of positions": (fake_quantized, (3, 5)),
    "fake quantization with a residual": (lambda: fake_quantized(True), (5,)),
}
ALL = STACKS | STAIRS


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("name", STACKS)
def test_gradients_are_slopes(name, training):
    """Of every parameter and every input, by central differences of the same forward."""
    layers, shape = STACKS[name]
    model = randomise(made(layers(), shape))
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6, *shape))
    pull = rng.normal(size=(6, *model.output_shape[1:]))
    model.forward(x, training=training)
    slope = model.backward(pull)
    gradients = {name: view.copy() for name, view in model.gradients.items()}

    def value():
        return float((model.forward(x, training=training) * pull).sum())

    frozen = {
        p.name for p, s in zip(model.network.parameters, model.network.segments, strict=True) if not s["trainable"]
    }
    for name, view in {**model.parameters, "the input": x}.items():
        found = slope if name == "the input" else gradients[name]
        if name in frozen:
            continue
        for at in {tuple(rng.integers(0, view.shape)) for _ in range(7)}:
            before = view[at]
            view[at] = before + 1e-6
            high = value()
            view[at] = before - 1e-6
            low = value()
            view[at] = before
            np.testing.assert_allclose(found[at], (high - low) / 2e-6, atol=2e-7, rtol=2e-6, err_msg=f"{name} {at}")


@pytest.mark.parametrize("name", ALL)
def test_predict_is_inference(name):
    """Whatever the number of rows, which is worked through in chunks; forward without training says the same."""
    layers, shape = ALL[name]
    model = randomise(made(layers(), shape))
    x = np.random.default_rng(2).normal(size=(230, *shape))
    expected = model.forward(x)
    assert expected.shape == (230, *model.output_shape[1:])
    np.testing.assert_array_equal(model.predict(x), expected)
    np.testing.assert_array_equal(model.predict(x[:1]), expected[:1])
    np.testing.assert_array_equal(model.predict(x[::2]), expected[::2])


@pytest.mark.parametrize("name", ALL)
def test_shapes_and_counts_are_foretold(name):
    layers, shape = ALL[name]
    model = made(layers(), shape)
    counted, now = 0, shape
    for layer in model.layers:
        counted += layer.count_params(now)
        now = layer.output_shape(now)
    assert (counted, now) == (model.count_params(), model.network.output_shape)
    work, now = 0, shape
    for layer in model.layers:
        work += layer.multiply_adds(now)
        now = layer.output_shape(now)
    assert work == model.network.multiply_adds


@pytest.mark.parametrize("name", ALL)
def test_training_is_the_same_on_two_threads_and_when_resumed(name, tmp_path):
    layers, shape = ALL[name]
    rng = np.random.default_rng(4)
    x = rng.normal(size=(50, *shape))
    results = []
    for threads, stop in ((1, False), (2, False), (2, True)):
        model = randomise(made(layers(), shape))
        model.compile(nb.Adam(0.01, clipnorm=1.0, weight_decay=0.01), "mse")
        y = np.random.default_rng(9).normal(size=(50, *model.output_shape[1:]))
        nb.set_num_threads(threads)
        with_threads(model, threads)
        if stop:
            model.fit(x, y, 16, epochs=1, verbose=0)
            model.save(tmp_path / "m")
            model = nb.load_model(tmp_path / "m")
            model.fit(x, y, 16, epochs=3, initial_epoch=1, verbose=0)
        else:
            model.fit(x, y, 16, epochs=3, verbose=0)
        results.append(model.network.params.copy())
        assert np.isfinite(results[-1]).all()
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_normalisations_equal_naive_ones():
    rng = np.random.default_rng(6)
    x = rng.normal(2.0, 3.0, (40, 6))
    for layer in (k.BatchNormalization(momentum=0.7), k.LayerNormalization(epsilon=0.1)):
        model = randomise(made([layer], (6,)))
        tensors = {name.split("/")[1]: view.copy() for name, view in model.parameters.items()}
        gamma, beta = tensors["gamma"], tensors["beta"]
        found = model.forward(x, training=True)
        if layer.kind == "layer_normalization":
            np.testing.assert_allclose(found, naive.layer_norm(x, gamma, beta, 0.1), atol=1e-12)
            continue
        expected, mean, variance = naive.batch_norm(x, gamma, beta)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        before = naive.batch_norm_inference(x, gamma, beta, tensors["moving_mean"], tensors["moving_variance"])
        np.testing.assert_allclose(model.predict(x), before, atol=1e-12)
        model.compile("sgd", "mse")
        model.train_on_batch(x, np.zeros_like(x))
        for what, value in (("mean", mean), ("variance", variance)):
            moved = naive.moving_average(tensors[f"moving_{what}"], value, 0.7)
            np.testing.assert_allclose(model.parameters[f"batch_normalization/moving_{what}"], moved, atol=1e-12)


def test_running_statistics_stay_outside_training():
    model = randomise(made([k.BatchNormalization(), k.Dense(2)], (3,)))
    x = np.random.default_rng(0).normal(size=(30, 3))
    model.compile("sgd", "mse")
    before = model.network.params.copy()
    model.evaluate(x, np.zeros((30, 2)))
    model.predict(x)
    model.forward(x, training=True)
    np.testing.assert_array_equal(model.network.params, before)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropout(dtype):
    """The share, the scale, and that steps, layers and elements are dropped independently of one another."""
    rate, rows, n = 0.3, 400, 150
    model = made([k.Dropout(rate), k.Dropout(rate)], (n,), dtype)
    model.compile("sgd", "mse")
    x = np.ones((rows, n), dtype)
    once = made([k.Dropout(rate)], (n,), dtype)
    once.compile("sgd", "mse")
    masks = []
    for step in range(3):
        once.optimizer.iterations = step
        out = once.forward(x, training=True)
        assert set(np.unique(out)) == {0.0, np.dtype(dtype).type(1 / (1 - rate))}
        masks.append(out == 0)
    deviation = np.sqrt(rate * (1 - rate) / (rows * n))
    for mask in masks:
        assert abs(mask.mean() - rate) < 5 * deviation
        assert abs(mask.mean(axis=0) - rate).max() < 6 * np.sqrt(rate * (1 - rate) / rows)
        assert abs(mask.mean(axis=1) - rate).max() < 6 * np.sqrt(rate * (1 - rate) / n)
    both = rate * rate
    pairs = [
        (masks[0], masks[1]),
        (masks[1], masks[2]),
        (masks[0][1:], masks[0][:-1]),
        (masks[0][:, 1:], masks[0][:, :-1]),
    ]
    out = model.forward(x, training=True)
    first = masks[0]
    model.optimizer.iterations = 0
    out = model.forward(x, training=True)
    pairs.append((first, ~first & (out == 0)))  # of what the first leaves, the second drops its share
    for a, b in pairs[:-1]:
        assert abs((a & b).mean() - both) < 6 * np.sqrt(both * (1 - both) / (rows * n))
    left = (~first).sum()
    assert abs(pairs[-1][1].sum() / left - rate) < 6 * np.sqrt(rate * (1 - rate) / left)
    np.testing.assert_array_equal(once.predict(x), x)
    other = made([k.Dropout(rate)], (n,), dtype, seed=4)
    assert abs(((other.forward(x, training=True) == 0) & first).mean() - both) < 0.01


def test_frozen_layers_cost_no_gradient_work():
    """Below the last trainable layer nothing is walked, and what is frozen stays, until the next compile."""
    from nbdense.engine.tables import IDLE

    x, y = np.random.default_rng(0).normal(size=(20, 4)), np.zeros((20, 1))
    model = made([k.Dense(5, "relu", trainable=False), k.Dense(6, "relu", name="b"), k.Dense(1)], (4,))
    model.compile("adam", "mse")
    before = {name: view.copy() for name, view in model.parameters.items()}
    model.fit(x, y, verbose=0)
    assert [bool(row["flags"] & IDLE) for row in model.network.layers] == [True, False, False]
    same = [name for name, view in model.parameters.items() if (view == before[name]).all()]
    assert same == ["dense/kernel", "dense/bias"]
    model.get_layer("b").trainable = False
    model.get_layer("dense").trainable = True
    weights = model.get_weights()
    model.compile("adam", "mse")
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    model.fit(x, y, verbose=0)
    np.testing.assert_array_equal(model.get_layer("b").get_weights()[0], weights[2])
    assert (model.get_layer("dense").get_weights()[0] != weights[0]).any()


def test_upto_is_a_model_of_its_own():
    model = randomise(made([k.Dense(4, "relu"), k.Dense(2, name="code"), k.Dense(4, "relu"), k.Dense(5)], (5,)))
    encoder = model.upto("code")
    x = np.random.default_rng(0).normal(size=(3, 5))
    kernel, bias, inner, shift = model.get_weights()[:4]
    np.testing.assert_allclose(encoder.predict(x), np.maximum(x @ kernel + bias, 0) @ inner + shift, atol=1e-12)
    encoder.set_weights([np.zeros_like(w) for w in encoder.get_weights()])
    np.testing.assert_array_equal(model.get_weights()[0], kernel)
    with pytest.raises(ValueError, match="no layer named 'nothing'"):
        model.upto("nothing")


def test_vgg_heads_parameters():
    head = [k.Input((7, 7, 512)), k.Flatten(), k.Dense(4096, "relu"), k.Dense(4096, "relu"), k.Dense(1000, "softmax")]
    shape, counts = head[0].shape, []
    for layer in head[1:]:
        counts.append(layer.count_params(shape))
        shape = layer.output_shape(shape)
    assert counts == [0, 102_764_544, 16_781_312, 4_097_000]


MISUSES = {
    "Dense: units must be a whole number": lambda: k.Dense(-3),
    r"Dropout: rate must be in \[0, 1\)": lambda: k.Dropout(1),
    "softmax over 1 unit is always 1": lambda: k.Dense(1, "softmax"),
    "softmax over 1 column is always 1": lambda: made([k.Dense(1), k.Softmax()], (3,)).network,
    "Softmax: axis must be -1": lambda: k.Softmax(axis=1),
    "BatchNormalization: momentum": lambda: k.BatchNormalization(momentum=2),
    "LayerNormalization: epsilon": lambda: k.LayerNormalization(epsilon=0),
    "BatchNormalization: axis must be -1": lambda: k.BatchNormalization(axis=1),
    "ReLU: give max_value or negative_slope": lambda: k.ReLU(6, 0.1),
    "ReLU: max_value must be": lambda: k.ReLU(-1),
    "Residual: give it at least one layer": lambda: k.Residual([]),
    "Residual: its layers must keep the rows' shape, which Flatten does not": lambda: k.Residual([k.Flatten()]),
    "there is a layer named 'a' already": lambda: k.Residual([k.Dense(2, name="a"), k.Dense(2, name="a")]),
    "Input: shape must": lambda: k.Input(()),
    "name must be a non-empty string": lambda: k.Dense(3, name="a/b"),
    "unknown kind of layer 'conv'": lambda: k.layer_from_config("conv", {}),
}


@pytest.mark.parametrize("words", MISUSES)
def test_misuse(words):
    with pytest.raises(ValueError, match=words):
        MISUSES[words]()


def test_own_loop_errors():
    model = made([k.Dense(2)], (3,))
    with pytest.raises(RuntimeError, match="backward: call forward first"):
        model.backward(np.zeros((1, 2)))
    with pytest.raises(RuntimeError, match="apply_gradients: the model is not compiled"):
        model.apply_gradients()
    with pytest.raises(ValueError, match="expects shape"):
        model.forward(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="forward: x has no rows"):
        model.forward(np.zeros((0, 3)))
    model.forward(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"outputs' shape \(2, 2\), got \(2, 3\)"):
        model.backward(np.zeros((2, 3)))
    model.backward(np.zeros((2, 2)))
    with pytest.raises(RuntimeError, match="a forward serves one backward"):
        model.backward(np.zeros((2, 2)))


X, Y = np.linspace(-1, 1, 24).reshape(8, 3), np.linspace(0, 1, 16).reshape(8, 2)
CHANGES = {
    "fit": lambda model: model.fit(X, Y, verbose=0),
    "train_on_batch": lambda model: model.train_on_batch(X, Y),
    "apply_gradients": lambda model: model.apply_gradients(),
    "set_weights": lambda model: model.set_weights(model.get_weights()),
    "a layer's set_weights": lambda model: model.layers[0].set_weights(model.layers[0].get_weights()),
}


def fail_to_train(model):
    with pytest.raises(FloatingPointError):
        model.train_on_batch(X, 1e200 * Y)


LOOKS = {
    "predict": lambda model: model.predict(X),
    "evaluate": lambda model: model.evaluate(X, Y),
    "train_on_batch that fails": lambda model: fail_to_train(model),
    "diagnose": lambda model: model.diagnose(X, Y),
    "importance": lambda model: model.importance(X, Y),
    "saliency": lambda model: model.saliency(X),
    "summary": lambda model: model.summary(print_fn=lambda line: None),
    "another": lambda model: model.upto("dense"),
}


@pytest.mark.parametrize("use_ema", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_backward_refuses_a_forward_of_other_weights(change, use_ema):
    model = made([k.Dense(2)], (3,))
    model.compile(nb.SGD(0.0, use_ema=use_ema, ema_overwrite_frequency=1), "mse")  # its values stay: it is the writing
    model.backward(model.forward(X))
    out = model.forward(X)
    CHANGES[change](model)
    with pytest.raises(RuntimeError, match="backward: the weights have changed since forward .*; call forward again"):
        model.backward(out - Y)
    model.backward(model.forward(X) - Y)
    model.apply_gradients()


@pytest.mark.parametrize("look", LOOKS)
def test_a_look_between_forward_and_backward_changes_nothing(look):
    model = made([k.Dense(4, "tanh"), k.Dense(2)], (3,))
    model.compile("adam", "mse")
    out = model.forward(X)
    slope = model.backward(out - Y)
    for _ in range(2):  # gradients are taken several times before a step, as to accumulate them
        model.forward(X)
        LOOKS[look](model)
        np.testing.assert_array_equal(model.backward(out - Y), slope)
    model.apply_gradients()


@pytest.mark.parametrize("change", [lambda model: model.compile("sgd", "mse"), lambda model: model.build(3)])
def test_steps_begin_anew_with_a_new_network(change):
    model = made([k.Dense(2)], (3,))
    model.compile("adam", "mse")
    model.train_on_batch(X, Y)
    out = model.forward(X)
    change(model)
    with pytest.raises(RuntimeError, match="backward: call forward first"):
        model.backward(out)
    before = model.get_weights()
    model.train_on_batch(X, Y)
    assert (model.get_weights()[0] != before[0]).any()


def test_own_loop_trains_as_fit_does():
    """Forward, the loss's derivative, backward and apply_gradients are train_on_batch, and that is a step of fit."""
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(32, 4)), rng.normal(size=(32, 2))
    models = []
    for _ in range(3):
        model = randomise(made([k.Dense(9), k.BatchNormalization(), k.ReLU(), k.Dropout(0.3), k.Dense(2)], (4,)))
        model.compile(nb.Adam(0.01, weight_decay=0.1, clipvalue=0.5), "mse")
        models.append(model)
    losses = []
    for _ in range(5):
        out = models[0].forward(x, training=True)
        losses.append(((out - y) ** 2).mean())
        models[0].backward(2 * (out - y) / y.size)
        models[0].apply_gradients()
        assert abs(models[1].train_on_batch(x, y) - losses[-1]) < 1e-12
    history = models[2].fit(x, y, 32, epochs=5, shuffle=False, verbose=0)
    np.testing.assert_allclose(history.history["loss"], losses, rtol=1e-10)
    np.testing.assert_array_equal(models[1].network.params, models[2].network.params)
    np.testing.assert_allclose(models[0].network.params, models[2].network.params, atol=1e-10)


def test_all_at_once_is_the_same_on_two_threads_and_when_resumed(tmp_path):
    """Dropout, norms, penalties, clipping by the norm of all gradients, decay, weights and a schedule together."""
    rng = np.random.default_rng(7)
    x, y, weights = rng.normal(size=(70, 2, 5)), rng.normal(size=(70, 3)), rng.uniform(0, 2, 70)
    results = []
    for threads, stop in ((1, False), (2, False), (2, True)):
        layers = STACKS["everything"][0]()
        layers[-1] = k.Dense(3, kernel_regularizer="l1_l2", bias_regularizer="l2")
        model = randomise(made(layers, (2, 5)))
        rate = nb.CosineDecay(0.02, 15, warmup_target=0.02, warmup_steps=3)
        model.compile(nb.AdamW(rate, global_clipnorm=0.5, weight_decay=0.02), "huber", metrics=["mae", "r2_score"])
        nb.set_num_threads(threads)
        with_threads(model, threads)
        if stop:
            model.fit(x, y, 16, epochs=1, verbose=0, sample_weight=weights)
            model.save(tmp_path / "m")
            model = nb.load_model(tmp_path / "m")
        history = model.fit(x, y, 16, epochs=3, initial_epoch=int(stop), verbose=0, sample_weight=weights).history
        results.append((model.network.params.copy(), history["loss"][-1], history["r2_score"][-1]))
    for params, loss, r2 in results[1:]:
        np.testing.assert_array_equal(params, results[0][0])
        assert (loss, r2) == results[0][1:]


def test_penalties_are_in_every_loss():
    """In fit's, in evaluate's and in train_on_batch's, as they are before the step."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 2))
    losses = {}
    for name, l1, l2 in (("bare", 0.0, 0.0), ("penalised", 0.03, 0.2)):
        regularizer = nb.L1L2(l1, l2) if l1 else None
        model = randomise(made([k.Dense(5, "tanh", kernel_regularizer=regularizer), k.Dense(2)], (4,)))
        model.compile(nb.SGD(0.0), "mse")
        kernel = model.parameters["dense/kernel"]
        penalty = l1 * np.abs(kernel).sum() + l2 * (kernel**2).sum()
        found = model.fit(x, y, 8, verbose=0).history["loss"][0], model.evaluate(x, y), model.train_on_batch(x, y)
        losses[name] = [value - penalty for value in found]
    np.testing.assert_allclose(losses["penalised"], losses["bare"], rtol=1e-12)


def with_threads(model, threads):
    """Small work runs serial: say that any is worth its threads."""
    thread_pool.LEAST_PARALLEL_FLOPS = 0.0 if threads > 1 else 4e6


@pytest.fixture(autouse=True)
def put_back(monkeypatch):
    monkeypatch.setattr(thread_pool, "LEAST_PARALLEL_FLOPS", thread_pool.LEAST_PARALLEL_FLOPS)
    monkeypatch.setattr(thread_pool, "_chosen", thread_pool._chosen)
    monkeypatch.setattr(thread_pool, "PARALLEL_FLOPS", dict.fromkeys(thread_pool.PARALLEL_FLOPS, 0.0))


def test_folded_batch_normalisation():
    """The same outputs from fewer layers; what no dense layer can take stays, and the model itself too."""
    model = randomise(
        made(
            [
                k.BatchNormalization(),
                k.Dense(7, use_bias=False),
                k.BatchNormalization(center=False),
                k.ReLU(),
                k.Dense(6),
                k.Dropout(0.5),
                k.BatchNormalization(scale=False),
                k.Dense(5, "tanh"),
                k.BatchNormalization(),
            ],
            (4,),
        )
    )
    before = model.get_weights()
    x = np.random.default_rng(1).normal(size=(20, 4))
    kinds = ["dense", "re_lu", "dense", "dropout", "dense", "batch_normalization"]
    for at_input, left in ((True, kinds), (False, ["batch_normalization", *kinds])):
        folded = model.fold_batch_normalization(at_input=at_input)
        assert [layer.kind for layer in folded.layers] == left
        np.testing.assert_allclose(folded.predict(x), model.predict(x), rtol=1e-10, atol=1e-12)
    model.layers[0].set_weights(
        [view + 1e3 if i == 2 else view for i, view in enumerate(model.layers[0].get_weights())]
    )
    assert model.fold_batch_normalization().layers[0].kind == "batch_normalization"  # digits would be lost
    model.layers[0].set_weights(before[:4])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
