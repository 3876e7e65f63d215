"""Training: the steps against naive NumPy, the order of rows, what stops it, and that it learns."""

import signal

import numpy as np
import pytest

from nbdense import losses
from nbdense.backends.cpu import plan
from nbdense.engine import program, tables
from nbdense.engine.kernels.random import key_of, shuffled
from nbdense.layers import Activation, BatchNormalization, Dense, Dropout, Input, LayerNormalization
from nbdense.losses import MeanSquaredError
from nbdense.models import Sequential
from nbdense.optimizers import OPTIMIZERS, SGD, Adam
from nbdense.regularizers import L2
from nbdense.training import loop
from nbdense.training.targets import row_weights
from tests.support.builders import OBJECTIVES, draw_targets, make_model, objective_name
from tests.support.compiled import compiled
from tests.support.naive_training import VARIANTS, assert_weights, naive_fit


@compiled
def epoch_order(seed, epoch, out):
    shuffled(key_of(seed, tables.SHUFFLE_STREAM, epoch), out.size, 0, out.size, out, 0)


@pytest.mark.parametrize(("optimizer", "options"), VARIANTS, ids=lambda v: getattr(v, "name", ""))
def test_ten_steps_equal_naive_ones(optimizer, options):
    """Two epochs of five batches, of which the last is smaller; three layers, one without a bias."""
    rng = np.random.default_rng(1)
    optimizer = type(optimizer)(**optimizer.get_config())
    model = make_model([5, 17, 3, 2], ["tanh", "sigmoid", "linear"], optimizer=optimizer, bias=False)
    x, y = rng.normal(size=(33, 5)), rng.normal(size=(33, 2))
    layers, losses = naive_fit(model, x, y, 8, [np.arange(33)] * 2, options)
    history = model.fit(x, y, 8, epochs=2, shuffle=False, verbose=0)
    assert model.optimizer.iterations == 10
    assert_weights(model, layers)
    np.testing.assert_allclose(history.history["loss"], losses, rtol=1e-10)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=objective_name)
def test_weighted_steps_of_each_loss(objective):
    loss, activation = objective
    rng = np.random.default_rng(2)
    model = make_model([4, 3, 3], ["tanh", activation], loss, "adam")
    x, y = rng.normal(size=(20, 4)), draw_targets(rng, loss, 20, 3)
    weights = rng.uniform(0, 2, 20)
    layers, losses = naive_fit(model, x, y, 7, [np.arange(20)], {}, weights)
    history = model.fit(x, y, 7, shuffle=False, sample_weight=weights, verbose=0)
    assert_weights(model, layers, 1e-8)  # Adam's first step divides g by |g|
    np.testing.assert_allclose(history.history["loss"], losses, rtol=1e-10)


def test_shuffled_epochs_take_every_row_once():
    """Two epochs in the orders that the seed and the epoch's number name."""
    rng = np.random.default_rng(3)
    model = make_model([3, 4, 1], ["tanh", "linear"], seed=11)
    x, y = rng.normal(size=(23, 3)), rng.normal(size=(23, 1))
    orders = np.zeros((2, 23), np.int64)
    for epoch, out in enumerate(orders):
        epoch_order(11, epoch, out)
    assert (orders[0] != orders[1]).any()
    layers, _ = naive_fit(model, x, y, 5, orders, {})
    model.fit(x, y, 5, epochs=2, verbose=0)
    assert_weights(model, layers)


def test_class_weights_are_row_weights():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(30, 4)), rng.integers(0, 3, 30)
    weights, by_class = rng.uniform(0, 2, 30), {0: 0.5, 1: 2.0, 2: 1.0}
    both = []
    for options in (
        {"sample_weight": weights, "class_weight": by_class},
        {"sample_weight": weights * np.array([by_class[c] for c in y])},
    ):
        model = make_model([4, 3], ["softmax"], "sparse_categorical_crossentropy")
        model.fit(x, y, 8, verbose=0, **options)
        both.append(model.network.params.copy())
    np.testing.assert_array_equal(*both)


BALANCED = np.array([0, 0, 0, 0, 0, 2, 2, 1])  # class numbers
COUNTS = np.array([3.0, 0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 0.0])  # of the rows; class 1 has none


@pytest.mark.parametrize("form", ["numbers", "one-hot"])
def test_balance_counts_rows_as_often_as_they_weigh(form):
    """A row of weight k weighs what k rows would, and one of weight 0 is none."""
    y = BALANCED.reshape(-1, 1) if form == "numbers" else np.eye(3)[BALANCED]
    loss = losses.for_training("sparse_categorical_crossentropy" if form == "numbers" else "categorical_crossentropy")
    weighted = row_weights(COUNTS, "balanced", y, loss)[:, 0]
    rows = np.repeat(np.arange(8), COUNTS.astype(int))
    repeated = row_weights(None, "balanced", y[rows], loss)[:, 0]
    np.testing.assert_array_equal(np.bincount(rows, repeated, 8), weighted)
    np.testing.assert_array_equal(repeated, np.where(BALANCED[rows] == 0, 9 / (2 * 6), 9 / (2 * 3)))
    np.testing.assert_array_equal(row_weights(np.ones(8), "balanced", y, loss), row_weights(None, "balanced", y, loss))
    assert not row_weights(np.zeros(8), "balanced", y, loss).any()


def test_rows_without_weight_might_as_well_be_left_out():
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(40, 4)), rng.integers(0, 3, 40)
    weights = np.where((y == 1) & (np.arange(40) % 4 > 0), 0.0, rng.integers(1, 4, 40))
    kept = weights > 0
    models = []
    for rows, rate in ((kept, 0.1), (slice(None), 0.1 * 40 / kept.sum())):  # a batch's loss is divided by its rows
        model = make_model([4, 5, 3], ["tanh", "softmax"], "sparse_categorical_crossentropy")
        model.optimizer.learning_rate = rate
        options = {"sample_weight": weights[rows], "class_weight": "balanced", "shuffle": False}
        model.fit(x[rows], y[rows], 40, epochs=30, verbose=0, **options)
        models.append(model)
    np.testing.assert_allclose(models[1].predict(x), models[0].predict(x), rtol=1e-9)
    assert not np.allclose(models[0].predict(x), make_model([4, 5, 3], ["tanh", "softmax"]).predict(x), atol=0.05)


@pytest.mark.kernels
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_tiny_steps_in_float32(optimizer):
    """Runs without the JIT too."""
    rng = np.random.default_rng(5)
    model = make_model([3, 2, 2], ["relu", "linear"], optimizer=optimizer, dtype="float32")
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(7, 2))
    wide = make_model([3, 2, 2], ["relu", "linear"], optimizer=optimizer)
    wide.set_weights(model.get_weights())
    layers, _ = naive_fit(wide, x, y, 3, [np.arange(7)] * 2, {})
    model.fit(x, y, 3, epochs=2, shuffle=False, verbose=0)
    assert_weights(model, layers, 1e-4)
    model.predict(x)
    model.evaluate(x, y)


# -- what stops it --------------------------------------------------------------------------------------------------


def _steps(model, x, y, count, batch, epochs=1):
    """The model after ``count`` steps and no more."""
    per_epoch = -(-len(x) // batch)
    whole, rest = divmod(count, per_epoch)
    if whole:
        model.fit(x, y, batch, epochs=whole, shuffle=False, verbose=0)
    if rest:
        model.fit(x[: rest * batch], y[: rest * batch], batch, shuffle=False, verbose=0)
    return model


@pytest.mark.parametrize("rate", [1e38, 1e20, 1e10, 1e6, 1e4, 300.0, 40.0, 9.0])
@pytest.mark.parametrize(("rows", "seconds"), [(12, 1e9), (200, 1e9), (12, 0.0), (200, 0.0)])
def test_infinite_loss_keeps_the_last_good_weights(rate, rows, seconds, monkeypatch):
    """Whatever step it comes at: the first, the first of a slice, as each is of slices of one step, or a later one."""
    monkeypatch.setattr(loop, "SLICE_SECONDS", seconds)
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(rows, 3)), rng.normal(size=(rows, 1))

    def fresh():
        return make_model([3, 4, 1], ["linear", "linear"], MeanSquaredError(), SGD(rate), dtype="float32")

    model = fresh()
    with pytest.raises(FloatingPointError, match=r"loss is (inf|nan) in epoch \d+, step \d+") as caught:
        model.fit(x, y, 4, epochs=1000, shuffle=False, verbose=0)
    words = str(caught.value).replace(",", "").replace(";", "").split()
    epoch, step = int(words[words.index("epoch") + 1]), int(words[words.index("step") + 1])
    failed = (epoch - 1) * (rows // 4) + step  # counted from 1; the update before it went wrong
    assert failed >= 2
    assert np.isfinite(model.network.params).all()
    assert model.optimizer.iterations == failed - 2
    np.testing.assert_array_equal(model.network.params, _steps(fresh(), x, y, failed - 2, 4).network.params)
    assert np.isfinite(model.evaluate(x[:4], y[:4])) or failed == 2


def test_keyboard_interrupt_leaves_a_model_of_whole_steps(monkeypatch):
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(400, 3)), rng.normal(size=(400, 1))
    taken = []

    def interrupted(self, batches, logs):
        taken.append(batches)
        if len(taken) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.ProgressBar, "update", interrupted)
    model = make_model([3, 4, 1], ["tanh", "linear"], optimizer="adam")
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, 4, shuffle=False, verbose=0)
    assert 1 < sum(taken) < 100
    assert model.optimizer.iterations == sum(taken)
    monkeypatch.undo()
    expected = make_model([3, 4, 1], ["tanh", "linear"], optimizer="adam")
    _steps(expected, x, y, sum(taken), 4)
    np.testing.assert_array_equal(model.network.params, expected.network.params)
    before = model.evaluate(x, y)
    model.fit(x, y, 4, epochs=3, verbose=0)
    assert model.evaluate(x, y) < before


# -- steps that are so long that Ctrl-C comes in between --------------------------------------------------------------


def long_step_model(kind):
    layers = [Dense(70, "tanh", kernel_regularizer=L2(1e-3)), Dense(3, "softmax")]
    if kind == "norms":
        layers[1:1] = [BatchNormalization(), Dropout(0.3), Dense(50, "relu"), LayerNormalization()]
    options = {"clipped": {"global_clipnorm": 0.1}, "averaged": {"use_ema": True}}.get(kind, {})
    model = Sequential([Input((60,)), *layers])
    model.seed = 3
    model.compile(Adam(0.01, **options), "sparse_categorical_crossentropy", ["accuracy"])
    return model


def long_step_data():
    rng = np.random.default_rng(8)
    return rng.normal(size=(601, 60)), rng.integers(0, 3, 601)


@pytest.fixture
def short_calls(monkeypatch):
    """Calls of a few rows or slabs each; returns the list of their names."""
    calls = []

    def spied(name, entry):
        return lambda *arguments: calls.append(name) or entry(*arguments)

    monkeypatch.setattr(plan, "SIGNAL_WORK", 4e5)
    for name in ("run_steps", "predict"):
        monkeypatch.setattr(program, name, spied(name, getattr(program, name)))
    return calls


@pytest.mark.parametrize("kind", ["plain", "norms", "clipped", "averaged"])
def test_long_steps_in_parts_change_no_bit(kind, request):
    x, y = long_step_data()

    def everything():
        model = long_step_model(kind)
        logs = model.fit(x, y, len(x), epochs=2, verbose=0).history
        loss = model.train_on_batch(x[:250], y[:250])
        outputs = model.forward(x, training=True)
        deltas = model.backward(outputs - 0.5)
        model.apply_gradients()
        arrays = [*model.get_weights(), model.state, outputs, deltas, model.predict(x)]
        return arrays, [logs, loss, model.evaluate(x, y)]

    whole, said = everything()
    calls = request.getfixturevalue("short_calls")
    parted, said_again = everything()
    for a, b in zip(whole, parted, strict=True):
        np.testing.assert_array_equal(a, b)
    assert said == said_again
    shares = len(x) * plan.work_of_row(long_step_model(kind).network) / plan.SIGNAL_WORK
    assert calls.count("run_steps") > 3 * 3 * shares  # three steps, forward and twice as much backward, are the least
    assert calls.count("predict") >= shares


def test_long_looks_are_parted_too_where_there_is_no_product(short_calls):
    """Activations and norms alone take their time too: Ctrl-C is heard in predict and evaluate, of any batch."""
    x = np.random.default_rng(8).normal(size=(4000, 60))
    model = Sequential([Input((60,)), Activation("tanh"), LayerNormalization(), Activation("gelu")])
    model.compile("sgd", "mse")
    parts = len(x) * plan.work_of_row(model.network) / plan.SIGNAL_WORK
    assert parts > 10
    outputs = model.predict(x.astype("float32"))
    assert short_calls.count("predict") >= parts
    loss = model.evaluate(x, x, batch_size=len(x))
    assert short_calls.count("run_steps") >= parts
    del short_calls[:]
    assert abs(model.evaluate(x, x, batch_size=32) - loss) < 1e-6
    assert short_calls.count("run_steps") >= parts
    np.testing.assert_allclose(np.mean((outputs - x) ** 2), loss, rtol=1e-5)


@pytest.mark.parametrize("when", range(1, 40))
def test_ctrl_c_during_a_long_step_leaves_the_model_as_it_was(when, short_calls, monkeypatch):
    """Whatever part it comes in: of the rows, or of the update, of which the first slabs are then taken back."""
    x, y = long_step_data()
    model = long_step_model("averaged")
    model.train_on_batch(x, y)
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background may ignore it
    steps, before, state = model.optimizer.iterations, model.get_weights(), model.state[1:].copy()
    entry = program.run_steps
    del short_calls[:]

    def interrupted(*arguments):
        done = entry(*arguments)
        if len(short_calls) == when:
            signal.raise_signal(signal.SIGINT)
        return done

    monkeypatch.setattr(program, "run_steps", interrupted)
    try:
        model.fit(x, y, len(x), epochs=1, verbose=0)
        assert len(short_calls) < when, "a Ctrl-C was not heard"
        assert model.optimizer.iterations == steps + 1
    except KeyboardInterrupt:
        assert len(short_calls) == when
        assert model.optimizer.iterations == steps
        for a, b in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(state, model.state[1:])
    finally:
        signal.signal(signal.SIGINT, usual)


# -- that it learns -------------------------------------------------------------------------------------------------


def test_learns_xor():
    model = Sequential([Dense(8, "tanh"), Dense(1, "sigmoid")])
    model.seed = 1
    model.compile(Adam(0.05), "binary_crossentropy", ["accuracy"])
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    y = np.array([0, 1, 1, 0])
    history = model.fit(x, y, 4, epochs=300, verbose=0)
    assert history.history["accuracy"][-1] == 1.0
    assert history.history["loss"][-1] < 0.05 < 0.5 < history.history["loss"][0]
    np.testing.assert_allclose(model.predict(x)[:, 0], y, atol=0.1)


def test_learns_a_smooth_function():
    rng = np.random.default_rng(8)
    x = rng.uniform(-2, 2, (600, 2))
    y = np.sin(x[:, 0]) * x[:, 1]
    model = Sequential([Dense(32, "tanh"), Dense(1)])
    model.seed = 2
    model.compile(Adam(0.01), "mse")
    model.fit(x[:500], y[:500], 32, epochs=80, verbose=0)
    assert model.evaluate(x[500:], y[500:]) < 0.01 < 0.5 < y.var()
