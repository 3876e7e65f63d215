"""Layers of every kind: forward values, gradients and what training does to them, against tests/reference/naive.py."""

import numpy as np
import pytest

import nbdense as nb
from nbdense import layers as k
from nbdense._compile import thread_pool
from nbdense.engine.rows import FAKE_QUANT, ROW_KINDS, RowKind
from nbdense.engine.rows.kind import register as register_kind
from nbdense.layers.fake_quantization import FakeQuantize
from tests.reference import naive
from tests.support.stacks import STACKS, STAIRS, made, randomise

ALL = STACKS | STAIRS


def activity_penalties(model, x):
    """Return what the loss of a batch has on top for its activities, as in Keras; no layer of such a stack draws."""
    total = 0.0
    if any(getattr(layer, "activity_regularizer", None) for layer in model.layers):
        for layer in model.layers:
            x = layer(x)
            penalty = getattr(layer, "activity_regularizer", None)
            if penalty is not None:
                total += (penalty.l1 * np.abs(x).sum() + penalty.l2 * np.square(x).sum()) / len(x)
    return total


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("name", STACKS)
def test_gradients_are_slopes(name, training):
    """Every parameter's and every input's, by central differences of the same forward."""
    layers, shape = STACKS[name]
    model = randomise(made(layers(), shape))
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6, *shape))
    pull = rng.normal(size=(6, *model.output_shape[1:]))
    model.forward(x, training=training)
    slope = model.backward(pull)
    gradients = {name: view.copy() for name, view in model.gradients.items()}

    def value():
        penalties = activity_penalties(model, x) if training else 0.0
        return float((model.forward(x, training=training) * pull).sum()) + penalties

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
        counted += layer.parameters_for(now)
        now = layer.shape_after(now)
    assert (counted, now) == (model.count_params(), model.network.output_shape)
    work, now = 0, shape
    for layer in model.layers:
        work += layer.multiply_adds(now)
        now = layer.shape_after(now)
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
    for layer in (k.BatchNormalization(momentum=0.7), k.LayerNormalization(epsilon=0.1), k.RMSNormalization()):
        model = randomise(made([layer], (6,)))
        tensors = {name.split("/")[1]: view.copy() for name, view in model.parameters.items()}
        found = model.forward(x, training=True)
        if layer.kind == "rms_normalization":
            np.testing.assert_allclose(found, naive.rms_norm(x, tensors["scale"]), atol=1e-12)
            grad = rng.normal(size=x.shape)
            expected = naive.rms_norm_backward(grad, x, tensors["scale"])
            np.testing.assert_allclose(model.backward(grad), expected[0], atol=1e-12)
            np.testing.assert_allclose(model.gradients["rms_normalization/scale"], expected[1], atol=1e-12)
            continue
        gamma, beta = tensors["gamma"], tensors["beta"]
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
        counts.append(layer.parameters_for(shape))
        shape = layer.shape_after(shape)
    assert counts == [0, 102_764_544, 16_781_312, 4_097_000]


MISUSES = {
    "Dense: units must be a whole number": lambda: k.Dense(-3),
    r"Dropout: rate must be in \[0, 1\)": lambda: k.Dropout(1),
    "softmax over 1 unit is always 1": lambda: k.Dense(1, "softmax"),
    "softmax over 1 column is always 1": lambda: made([k.Dense(1), k.Softmax()], (3,)).network,
    "axis of a softmax must be -1": lambda: made([k.Dense(3), k.Softmax(axis=0)], (3,)).network,
    "log_softmax over 1 unit is always 0": lambda: k.Dense(1, "log_softmax"),
    "BatchNormalization: momentum": lambda: k.BatchNormalization(momentum=2),
    "LayerNormalization: epsilon": lambda: k.LayerNormalization(epsilon=0),
    "RMSNormalization: epsilon": lambda: k.RMSNormalization(epsilon=0),
    "BatchNormalization: axis must be -1 or the number of the last": lambda: k.BatchNormalization(axis=0),
    "ReLU: max_value must be": lambda: k.ReLU(-1),
    "ReLU: negative_slope must be": lambda: k.ReLU(negative_slope=None),
    "ReLU: threshold must be .*, got -2": lambda: k.ReLU(threshold=-2),
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


def test_forms_are_of_kinds_and_have_their_tensors():
    """Storeys above know of a kind what its form says; the two are written in different modules."""
    trained = {kind.inference or kind for kind in ROW_KINDS}
    assert {form.kind for form in k.FORMS.values()} == trained - {FAKE_QUANT}
    for name, form in k.FORMS.items():
        assert form.name == name and k.form_of(form.kind) is form
        assert form.allowed == set(form.kind.tensors)
        assert not form.setting or form.setting in form.kind.settings
    assert k.form_of(FAKE_QUANT) is None
    operators = [operator for form in k.FORMS.values() for operator in form.operators]
    assert len(operators) == len(set(operators))


def test_a_name_of_rows_is_one_kinds():
    before = list(ROW_KINDS)
    assert [kind.code for kind in before] == list(range(len(before)))
    with pytest.raises(ValueError, match="there is a kind of row named 'dense' already"):
        register_kind(RowKind("dense", "Other"))
    with pytest.raises(ValueError, match="there is a form of rows named 'add' already"):
        k.forms.register_form(k.FORMS["add"])
    assert before == ROW_KINDS


def test_rows_name_what_is_in_their_columns():
    """Each kind by its own names: of an epsilon, a momentum and the ends of a range none is called another."""
    model = made(
        [
            k.BatchNormalization(momentum=0.75, epsilon=0.5),
            k.LayerNormalization(epsilon=0.25, center=False),
            k.RMSNormalization(epsilon=0.5),
            k.LeakyReLU(0.125),
            FakeQuantize(-2.0, 3.0, learned=False),
            k.Dense(3, use_bias=False),
        ],
        (4,),
    )
    batch, layer, root, activation, rounding, dense = model.network.rows()
    assert (batch.settings, batch.activation.alpha) == ({"epsilon": 0.5, "momentum": 0.75}, 0.0)
    assert (layer.settings, layer.activation.alpha) == ({"epsilon": 0.25}, 0.0)
    assert (root.settings, root.activation.alpha) == ({"epsilon": 0.5}, 0.0)
    assert (activation.settings, activation.activation.alpha) == ({}, 0.125)
    assert rounding.settings == {"low": -2.0, "high": 3.0, "least": -128, "most": 127}
    assert [sorted(row.tensors) for row in (batch, layer, root, activation, rounding, dense)] == [
        ["beta", "gamma", "mean", "variance"],
        ["gamma"],
        ["scale"],
        [],
        [],
        ["kernel"],
    ]
    assert dense.bias is None and not layer.kernel.size
