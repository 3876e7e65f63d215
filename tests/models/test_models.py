"""Sequential: its parts, what fit, evaluate and predict take and give, and what happens between epochs."""

import numpy as np
import pytest

import nbdense as nb
from nbdense._compile import thread_pool
from nbdense._compile.cpus import Cpus
from nbdense.backends.cpu import plan
from nbdense.backends.cpu.plan import CHUNK
from nbdense.callbacks import Callback
from nbdense.layers import Dense, Input
from nbdense.losses import BinaryCrossentropy, CategoricalCrossentropy, MeanSquaredError, SparseCategoricalCrossentropy
from nbdense.models import Sequential
from tests.reference import naive
from tests.support.builders import OBJECTIVES, draw_targets, make_model, naive_layers, objective_name


def blobs(rows=60, seed=1):
    """Three classes in four dimensions."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, rows)
    return rng.normal(size=(rows, 4)) + np.eye(3, 4)[y] * 3, y


def classifier(optimizer="adam", metrics=("accuracy",), dtype="float32"):
    return make_model(
        [4, 7, 3], ["tanh", "softmax"], "sparse_categorical_crossentropy", optimizer, metrics=metrics, dtype=dtype
    )


# -- structure ------------------------------------------------------------------------------------------------------


def test_parts():
    model = Sequential([Input((4,)), Dense(5, "relu"), Dense(3, use_bias=False), Dense(2, name="last")])
    assert [layer.name for layer in model.layers] == ["dense", "dense_1", "last"]
    assert model.get_layer("last") is model.layers[2] is model.get_layer(index=2)
    assert model.count_params() == 4 * 5 + 5 + 5 * 3 + 3 * 2 + 2
    shapes = [value.shape for value in model.get_weights()]
    assert shapes == [(4, 5), (5,), (5, 3), (3, 2), (2,)]


def test_weights_are_copies():
    model = classifier()
    weights = model.get_weights()
    weights[0][...] = 7
    assert not (model.get_weights()[0] == 7).any()
    model.set_weights(weights)
    weights[0][...] = 8
    assert (model.get_weights()[0] == 7).all()


@pytest.mark.parametrize("first", [[Input((4,)), Dense(3)], [Dense(3, input_shape=(4,))], [Dense(3, input_dim=4)]])
def test_ways_to_say_the_input_width(first):
    model = Sequential(first)
    assert model.predict(np.zeros((2, 4))).shape == (2, 3)
    assert [layer.name for layer in model.layers] == ["dense"]


def test_width_from_the_first_fit():
    model = Sequential([Dense(3)])
    assert not model.built
    model.compile("sgd", "mse")
    model.fit(np.zeros((5, 6)), np.zeros((5, 3)), verbose=0)
    assert model.network.n_in == 6


def test_initial_weights():
    """Glorot's limits, He's variance, zeros; none of them twice."""
    model = Sequential(
        [Input((300,)), Dense(200), Dense(100, kernel_initializer="he_normal"), Dense(9, kernel_initializer="zeros")]
    )
    glorot, bias, he, _, zeros, _ = model.get_weights()
    limit = np.sqrt(6 / 500)
    assert 0.99 * limit < np.abs(glorot).max() <= limit
    assert abs(glorot.mean()) < 0.01 * limit and abs(glorot.std() / (limit / np.sqrt(3)) - 1) < 0.02
    assert abs(he.std() / np.sqrt(2 / 200) - 1) < 0.02
    assert not zeros.any() and not bias.any()
    assert len(np.unique(glorot)) > 0.99 * glorot.size


def test_summary(capsys):
    classifier().summary()
    printed = capsys.readouterr().out
    assert "dense_1 (Dense)" in printed and "parameters: 59" in printed


# -- predict --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 5])
def test_predict_equals_naive(rows):
    rng = np.random.default_rng(2)
    model = make_model([5, 33, 17, 3], ["relu", "tanh", "softmax"])
    x = rng.normal(size=(rows, 5))
    np.testing.assert_allclose(model.predict(x), naive.mlp_forward(x, naive_layers(model)), atol=1e-12)


@pytest.mark.parametrize(("second_level", "chunk"), [(1 << 18, 48), (1_413_120, 60), (1 << 24, 96)])
def test_chunks_of_wide_rows_fit_in_the_cache(monkeypatch, second_level, chunk):
    """A chunk that is full, one with a row left, with a tile and a row; and cut elsewhere by batches."""
    monkeypatch.setattr(thread_pool, "cpus", lambda: Cpus(8, 8, None, second_level))
    model = make_model([400, 500, 500, 3], ["relu", "relu", "linear"], dtype="float32")
    assert plan.rows_of_chunk(model.network) == chunk
    x = np.random.default_rng(2).normal(size=(2 * chunk + 13, 400)).astype(np.float32)
    for rows in (chunk, chunk + 1, 2 * chunk, len(x)):
        expected = naive.mlp_forward(x[:rows].astype(np.float64), naive_layers(model))
        np.testing.assert_allclose(model.predict(x[:rows]), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(model.predict(x, batch_size=chunk + 5), model.predict(x))


def test_a_row_alone_is_the_row_in_a_batch():
    rng = np.random.default_rng(3)
    model = make_model([20, 64, 64, 3], ["relu", "tanh", "softmax"], dtype="float32")
    x = rng.normal(size=(2 * CHUNK + 1, 20)).astype(np.float32)
    whole = model.predict(x)
    np.testing.assert_array_equal(np.vstack([model.predict(row[None]) for row in x]), whole)
    np.testing.assert_array_equal(model.predict(x, batch_size=7), whole)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_a_number_stays_in_its_row(value):
    rng = np.random.default_rng(4)
    for activation in ("linear", "relu", "sigmoid", "tanh", "softmax"):
        model = make_model([3, 4, 2], [activation, activation], dtype="float32")
        x = rng.normal(size=(30, 3)).astype(np.float32)
        clean = model.predict(x)
        x[11, 1] = value
        got = model.predict(x)
        np.testing.assert_array_equal(np.delete(got, 11, 0), np.delete(clean, 11, 0))
        if np.isnan(value):
            assert np.isnan(got[11]).all(), activation


def test_predict_of_no_rows():
    assert classifier().predict(np.zeros((0, 4), np.float32)).shape == (0, 3)
    assert classifier().predict(np.zeros((0, 4), np.int8)).shape == (0, 3)


INPUTS = {
    "float64": lambda x: x.astype(np.float64),
    "int": lambda x: x.astype(np.int64),
    "Fortran": np.asfortranarray,
    "reversed": lambda x: x[::-1, ::-1],
    "strided": lambda x: np.repeat(x, 2, 1)[:, ::2],
    "list": lambda x: x.tolist(),
    "big-endian": lambda x: x.astype(">f4"),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_any_input_predicts_and_fits_alike(kind):
    x = np.random.default_rng(5).integers(-5, 5, (40, 4)).astype(np.float32)
    _, y = blobs(40)
    other = INPUTS[kind](x)
    plain = np.ascontiguousarray(np.asarray(other), np.float32)
    if isinstance(other, np.ndarray):
        other.flags.writeable = False
    np.testing.assert_array_equal(classifier().predict(other), classifier().predict(plain))
    fitted = []
    for inputs in (other, plain):
        model = classifier()
        model.fit(inputs, y, 16, verbose=0)
        fitted.append((*model.network.params.tolist(), *model.evaluate(inputs, y)))
    assert fitted[0] == fitted[1]


def test_predict_leaves_its_input():
    x = np.random.default_rng(6).normal(size=(9, 4)).astype(np.float32)
    before = x.copy()
    classifier().predict(x)
    np.testing.assert_array_equal(x, before)


# -- evaluate -------------------------------------------------------------------------------------------------------


def test_forms_of_evaluate():
    x, y = blobs()
    alone = classifier(metrics=None).evaluate(x, y)
    assert isinstance(alone, float)
    assert classifier().evaluate(x, y) == [alone, pytest.approx(np.mean(classifier().predict(x).argmax(1) == y))]
    assert list(classifier().evaluate(x, y, return_dict=True)) == ["loss", "accuracy"]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=objective_name)
def test_losses_and_metrics_equal_naive(objective):
    """Metrics read the model's outputs, whether or not the loss is computed from its logits."""
    loss, activation = objective
    rng = np.random.default_rng(7)
    n_out = 3
    metrics = ["accuracy"] if loss.sparse else ["accuracy", "binary_accuracy", "categorical_accuracy", "mse", "mae"]
    model = make_model([4, 5, n_out], ["tanh", activation], loss, metrics=metrics)
    x, y = rng.normal(size=(50, 4)), draw_targets(rng, loss, 50, n_out)
    outputs = naive.mlp_forward(x, naive_layers(model))
    targets = naive.one_hot(y, n_out) if loss.sparse else y
    same_class = np.mean(outputs.argmax(1) == targets.argmax(1))
    expected = {
        "accuracy": same_class,
        "categorical_accuracy": same_class,
        "binary_accuracy": np.mean((outputs > 0.5) == (targets > 0.5)),
        "mse": np.mean((outputs - targets) ** 2),
        "mae": np.mean(np.abs(outputs - targets)),
    }
    found = model.evaluate(x, y, return_dict=True)
    for name in metrics:
        assert found[name] == pytest.approx(expected[name], rel=1e-12), name
    for batch in (1, 7, 49, 50, 1000):
        assert model.evaluate(x, y, batch, return_dict=True) == pytest.approx(found, rel=1e-12)


def test_evaluate_changes_nothing():
    x, y = blobs()
    model = classifier()
    model.fit(x, y, verbose=0)
    before = model.network.params.copy(), model.state[1:].copy(), model.optimizer.iterations
    model.evaluate(x, y)
    np.testing.assert_array_equal(model.network.params, before[0])
    np.testing.assert_array_equal(model.state[1:], before[1])
    assert model.optimizer.iterations == before[2]


def test_infinite_loss_is_reported_by_evaluate():
    model = make_model([2, 1], ["linear"], dtype="float32")
    model.set_weights([np.full((2, 1), 1e30), np.zeros(1)])
    assert model.evaluate(np.ones((600, 2)), np.zeros(600)) == np.inf


@pytest.mark.parametrize("loss", [MeanSquaredError(), BinaryCrossentropy()])
def test_one_output_takes_flat_targets(loss):
    x, y = blobs()
    y = (y == 1).astype(int)
    results = []
    for targets in (y, y[:, None], y.astype(bool), y.astype(np.float64)):
        model = make_model([4, 1], ["sigmoid"], loss)
        model.fit(x, targets, verbose=0)
        results.append([*model.network.params, model.evaluate(x, targets)])
    assert results[0] == results[1] == results[2] == results[3]


def test_sparse_and_one_hot_losses_agree():
    x, y = blobs()
    for options in ({}, {"label_smoothing": 0.1}, {"from_logits": True}):
        activation = "linear" if "from_logits" in options else "softmax"
        sparse = make_model([4, 3], [activation], SparseCategoricalCrossentropy(**options))
        dense = make_model([4, 3], [activation], CategoricalCrossentropy(**options))
        sparse.fit(x, y, epochs=3, verbose=0)
        dense.fit(x, nb.to_categorical(y), epochs=3, verbose=0)
        np.testing.assert_allclose(sparse.get_weights()[0], dense.get_weights()[0], rtol=1e-6)


# -- fit ------------------------------------------------------------------------------------------------------------


def test_history():
    x, y = blobs()
    model = classifier()
    history = model.fit(x, y, epochs=3, validation_data=(x, y), verbose=0)
    assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert history.epoch == [0, 1, 2]
    assert model.history is history
    loss, accuracy = model.evaluate(x, y)
    assert (history.history["val_loss"][-1], history.history["val_accuracy"][-1]) == (loss, accuracy)
    assert classifier().fit(x, y, epochs=5, initial_epoch=3, verbose=0).epoch == [3, 4]


def test_validation_split_is_the_tail():
    x, y = blobs(41)
    weights = np.random.default_rng(8).uniform(0, 2, 41)
    cut = int(41 * 0.75)
    first, second = classifier(), classifier()
    split = first.fit(x, y, 8, validation_split=0.25, sample_weight=weights, verbose=0)
    held = second.fit(
        x[:cut],
        y[:cut],
        8,
        validation_data=(x[cut:], y[cut:], weights[cut:]),
        sample_weight=weights[:cut],
        verbose=0,
    )
    assert split.history == held.history
    np.testing.assert_array_equal(first.network.params, second.network.params)


def test_batch_larger_than_the_data():
    x, y = blobs(10)
    first, second = classifier(), classifier()
    first.fit(x, y, 10, epochs=2, verbose=0)
    second.fit(x, y, 1000, epochs=2, verbose=0)
    np.testing.assert_array_equal(first.network.params, second.network.params)


class _Recorder(Callback):
    def __init__(self):
        self.calls = []

    def on_train_begin(self, logs=None):
        self.calls.append("train begins")

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(f"epoch {epoch} begins")

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(f"epoch {epoch} ends: {' '.join(logs)}")
        self.model.stop_training = epoch == 1

    def on_train_end(self, logs=None):
        self.calls.append("train ends")


def test_callbacks_and_stopping():
    x, y = blobs()
    recorder = _Recorder()
    model = classifier()
    history = model.fit(x, y, 16, epochs=9, callbacks=[recorder], verbose=0)
    assert recorder.calls == [
        "train begins",
        "epoch 0 begins",
        "epoch 0 ends: loss accuracy",
        "epoch 1 begins",
        "epoch 1 ends: loss accuracy",
        "train ends",
    ]
    assert recorder.model is model
    assert recorder.params == {"epochs": 9, "steps": 4, "verbose": 0}
    assert history.epoch == [0, 1]
    assert model.fit(x, y, 16, verbose=0).epoch == [0], "stopping once is not for ever"


def test_callback_may_change_the_learning_rate():
    class Halt(Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.optimizer.learning_rate = 0.0 if epoch else 0.01

    x, y = blobs()
    first, second = classifier("sgd"), classifier("sgd")
    first.fit(x, y, epochs=3, callbacks=[Halt()], verbose=0)
    second.fit(x, y, epochs=1, verbose=0)
    np.testing.assert_array_equal(first.network.params, second.network.params)


def test_compile_starts_the_optimizer_anew():
    x, y = blobs()
    model = classifier()
    model.fit(x, y, verbose=0)
    assert model.state[1:].any() and model.optimizer.iterations
    model.compile("adam", "sparse_categorical_crossentropy")
    assert not model.state.any() and not model.optimizer.iterations


def test_what_is_printed(capsys):
    x, y = blobs()
    classifier().fit(x, y, epochs=2, verbose=0)
    assert capsys.readouterr() == ("", "")
    classifier().fit(x, y, epochs=2, verbose=2)
    assert "Epoch 2/2 - loss: " in capsys.readouterr().out
    classifier().fit(x, y, epochs=2, verbose=1, validation_split=0.2)
    bars = capsys.readouterr().out
    assert "Epoch 2/2" in bars and "val_loss" in bars
