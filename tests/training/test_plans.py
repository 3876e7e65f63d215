"""Plans: what has been prepared for batches of a form serves later ones, and nothing that has changed is missed."""

import copy
import pickle
import threading

import numpy as np
import pytest

import nbdense as nb
from nbdense import backends, callbacks, losses, metrics, schedules
from nbdense import layers as k
from nbdense.backends.cpu.backend import CpuBackend
from nbdense.quant import prune
from tests.support.python_process import HANGS_AFTER
from tests.support.stacks import made, randomise

ROWS, BATCH = 96, 8


def data(dtype="float32", seed=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(ROWS, 5)).astype(dtype), rng.normal(size=(ROWS, 2)).astype(dtype)


def stack(optimizer, seed=4, loss="mse", reported=None):
    regularized = k.Dense(9, "tanh", kernel_regularizer="l2")
    model = randomise(made([regularized, k.BatchNormalization(), k.Dropout(0.3), k.Dense(2)], (5,)))
    model.seed = seed
    model.compile(optimizer, loss, reported)
    return model


OPTIMIZERS = {
    "adam": lambda: nb.Adam(0.01),
    "clipped and decayed": lambda: nb.Adam(0.01, clipnorm=0.1, weight_decay=0.05),
    "averaged": lambda: nb.SGD(0.01, 0.9, use_ema=True, ema_overwrite_frequency=7),
    "scheduled": lambda: nb.Adam(schedules.CosineDecay(0.02, 700), global_clipnorm=0.5),
    "accumulated": lambda: nb.Adam(0.01, gradient_accumulation_steps=3, clipnorm=0.1),
}


def slices():
    return [slice(first, first + BATCH) for first in range(0, ROWS, BATCH)]


@pytest.mark.parametrize("way", ["train_on_batch", "train_step"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_thousand_single_steps_are_those_of_fit(optimizer, way):
    """Bit for bit: the weights, and gradients, slots and averages beside them."""
    x, y = data()
    weights = np.linspace(0.5, 1.5, ROWS)
    single, fitted = stack(OPTIMIZERS[optimizer]()), stack(OPTIMIZERS[optimizer]())
    epochs = -(-1000 * BATCH // ROWS)
    step = single.train_step(BATCH) if way == "train_step" else single.train_on_batch
    losses = [step(x[rows], y[rows], weights[rows]) for _ in range(epochs) for rows in slices()]
    history = fitted.fit(
        x, y, BATCH, epochs=epochs, shuffle=False, sample_weight=weights, verbose=0, callbacks=[Unaveraged()]
    )
    assert len(losses) >= 1000
    np.testing.assert_array_equal(single.network.params, fitted.network.params)
    np.testing.assert_array_equal(single.state, fitted.state)
    assert single.optimizer.iterations == fitted.optimizer.iterations
    np.testing.assert_allclose(np.mean(losses[-len(slices()) :]), history.history["loss"][-1], rtol=1e-6)


class Unaveraged(callbacks.Callback):
    """Takes the weights as they are before the averages replace them at a fit's end, and puts them back behind it."""

    def on_epoch_end(self, epoch, logs=None):
        self.params = self.model.network.params.copy()

    def on_train_end(self, logs=None):
        self.model.network.params[:] = self.params


def test_fit_after_single_steps_goes_on_where_they_ended():
    x, y = data()
    models = [stack(nb.Adam(0.01)) for _ in range(2)]
    for rows in slices()[:6]:
        models[0].train_on_batch(x[rows], y[rows])
    models[0].fit(x[48:], y[48:], BATCH, shuffle=False, verbose=0)
    models[1].fit(x, y, BATCH, shuffle=False, verbose=0)
    np.testing.assert_array_equal(models[0].network.params, models[1].network.params)


CHANGES = {
    "a learning rate": lambda m: setattr(m.optimizer, "learning_rate", 0.2),
    "a schedule": lambda m: setattr(m.optimizer, "learning_rate", schedules.ExponentialDecay(0.2, 2, 0.5)),
    "a hyperparameter": lambda m: setattr(m.optimizer, "beta_1", 0.5),
    "clipping": lambda m: setattr(m.optimizer, "clipnorm", 1e-3),
    "decay": lambda m: setattr(m.optimizer, "weight_decay", 0.5),
    "weights": lambda m: m.set_weights([0.5 * w for w in m.get_weights()]),
    "a view of the weights": lambda m: m.parameters["dense/kernel"].__imul__(0.5),
    "a mask": lambda m: prune(m, 0.5),
    "the penalty": lambda m: m.network.segments["l2"].__imul__(50.0),
    "freezing": lambda m: (setattr(m.layers[0], "trainable", False), recompile(m)),
    "compile": lambda m: recompile(m),
    "another loss": lambda m: setattr(m, "loss", losses.MeanAbsoluteError()),
    "another optimizer": lambda m: setattr(m, "optimizer", nb.Adam(0.2)),
    "the seed": lambda m: setattr(m, "seed", 77),
    "a constraint": lambda m: m.network.projections.__setitem__("dense/kernel", lambda w: np.clip(w, -0.1, 0.1)),
    "building": lambda m: m.build((None, 5)),
}


def recompile(model):
    model.compile("rmsprop", "mae")


def learn(model, x, y):
    model.train_on_batch(x, y)


def own_step(model, x, y):
    model.backward(model.forward(x, training=True) - y)
    model.apply_gradients()


@pytest.mark.parametrize("act", [learn, own_step])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_between_two_steps_is_not_missed(change, act):
    """The step behind it is that of a model that has prepared nothing: one that was given the other's state."""
    x, y = data()
    used = stack(nb.Adam(0.01))
    for _ in range(3):
        act(used, x[:BATCH], y[:BATCH])
    fresh = stack(nb.Adam(0.01))
    fresh.network.params[:], fresh.state[:] = used.network.params, used.state
    fresh.optimizer.iterations = used.optimizer.iterations
    before = used.network.params.copy()
    for model in (used, fresh):
        CHANGES[change](model)
        act(model, x[:BATCH], y[:BATCH])
    np.testing.assert_array_equal(used.network.params, fresh.network.params)
    assert (used.network.params != before).any()


@pytest.mark.parametrize("name", ["train_on_batch", "test_on_batch", "train_step", "forward"])
def test_forms_of_data_alternate(name):
    """Rows, dtypes, layouts and writability come and go: each batch gives what it gives to a new model."""
    x, y = data("float64")
    weights = np.linspace(0.5, 1.5, ROWS)
    read_only = x.astype("float32")
    read_only.flags.writeable = False
    batches = [
        (x[:8], y[:8]),
        (x[:5].astype("float32"), y[:5]),
        (np.asfortranarray(x[:8]), y[:8]),
        (x[:8], y[:8], weights[:8]),
        (x[:8], y[:8], weights[:8].astype("float32")),
        (x[:16:2], y[:8]),
        (read_only[:8], y[:8].astype("float16")),
        (x[:8].tolist(), y[:8].tolist()),
        ((9 * x[:8]).astype("int16"), np.asfortranarray(y[:8])),
        (np.frombuffer(b"\0" + x[:8].tobytes(), offset=1).reshape(8, 5), y[:8]),
        (x[:20], y[:20]),
    ]

    def act(model, batch):
        if name == "forward":
            return model.forward(batch[0], training=True)
        return (model.train_step(8) if name == "train_step" else getattr(model, name))(*batch)

    used = stack(nb.SGD(0.0), reported=["mae", metrics.R2Score()])
    for _ in range(3):
        for batch in batches:
            fresh = stack(nb.SGD(0.0), reported=["mae", metrics.R2Score()])
            fresh.network.params[:] = used.network.params
            fresh.optimizer.iterations = used.optimizer.iterations
            np.testing.assert_array_equal(act(used, batch), act(fresh, batch))


def nan(array):
    array[3, 1] = np.nan


def infinite(array):
    array[2, 0] = -np.inf


@pytest.mark.parametrize("spoil", [nan, infinite])
@pytest.mark.parametrize("which", ["x", "y"])
@pytest.mark.parametrize("name", ["train_on_batch", "test_on_batch", "train_step"])
def test_bad_numbers_are_refused_in_every_step(name, which, spoil):
    """By the message of the first step, and nothing has changed."""
    x, y = data()
    model = stack(nb.Adam(0.01))
    act = model.train_step(BATCH) if name == "train_step" else getattr(model, name)
    expected = act(x[:BATCH], y[:BATCH])
    batch = {"x": x[:BATCH].copy(), "y": y[:BATCH].copy()}
    spoil(batch[which])
    for _ in range(2):
        before, iterations = model.network.params.copy(), model.optimizer.iterations
        with pytest.raises(ValueError, match=rf"{which}: NaN or infinity \(in float64\) in row \d, column \d"):
            act(**batch)
        np.testing.assert_array_equal(model.network.params, before)
        assert model.optimizer.iterations == iterations
        expected = act(x[:BATCH], y[:BATCH])
    assert np.isfinite(expected)


def test_a_bad_weight_is_refused_in_every_step():
    x, y = data()
    model, weights = stack(nb.Adam(0.01)), np.ones(BATCH)
    model.train_on_batch(x[:BATCH], y[:BATCH], weights)
    weights[5] = np.inf
    with pytest.raises(ValueError, match="sample_weight: NaN or infinity in row 5"):
        model.train_on_batch(x[:BATCH], y[:BATCH], weights)


TARGETS = {  # by loss: targets that it takes, others that it refuses, and the message
    "sparse_categorical_crossentropy": ([0, 1, 2], [0, 3, 1], "label 3 in row 1 is not a whole number in 0..2"),
    "sparse_categorical_crossentropy, far": ([0, 1, 2], [2, 1, -(2**40)], "in row 2 is not a whole number in 0..2"),
    "sparse_categorical_crossentropy, float": ([0.0, 1.0, 2.0], [0.5, 1.0, 2.0], "label 0.5 in row 0 is not a whole"),
    "binary_crossentropy": (np.zeros((3, 3)), np.full((3, 3), 1.5), r"takes targets in \[0, 1\], got 1.5 to 1.5"),
    "poisson": (np.ones((3, 3)), -np.ones((3, 3)), "takes counts, which are never negative; got -1.0"),
    "hinge": (np.ones((3, 3)), np.full((3, 3), 2.0), "takes labels -1 and 1, or 0 and 1; got 2.0 to 2.0"),
}


@pytest.mark.parametrize("case", TARGETS)
def test_targets_out_of_range_are_refused_in_every_step(case):
    good, bad, message = TARGETS[case]
    activation = "sigmoid" if case == "binary_crossentropy" else "softmax"
    model = made([k.Dense(3, activation)], (4,))
    model.compile("sgd", case.split(",")[0])
    x = np.linspace(-1, 1, 12).reshape(3, 4)
    for _ in range(2):
        model.train_on_batch(x, np.array(good))
        before = model.network.params.copy()
        with pytest.raises(ValueError, match=message):
            model.train_on_batch(x, np.array(bad))
        np.testing.assert_array_equal(model.network.params, before)


def test_hinge_takes_labels_as_each_batch_has_them():
    """0 and 1 stand for -1 and 1 where a batch has no others, whatever the batch before had."""
    x, signs = np.linspace(-1, 1, 12).reshape(3, 4), np.array([[-1.0], [1.0], [1.0]])
    models = [made([k.Dense(1)], (4,)) for _ in range(2)]
    losses = []
    for model, labels in zip(models, [[signs, signs], [signs, (signs + 1) / 2]], strict=True):
        model.compile("sgd", "hinge")
        losses.append([model.train_on_batch(x, y) for y in labels])
    assert losses[0] == losses[1]


def test_class_probabilities_that_do_not_sum_to_one_are_remarked_in_every_step():
    model = made([k.Dense(2, "softmax")], (4,))
    model.compile("sgd", "categorical_crossentropy")
    x, y = np.linspace(-1, 1, 12).reshape(3, 4), np.array([[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]])
    model.train_on_batch(x, y)
    y[1, 1] = 1.0
    before = model.optimizer.iterations
    for _ in range(2):
        with pytest.warns(UserWarning, match="those of row 1 sum to 2"):
            model.train_on_batch(x, y)
    assert model.optimizer.iterations == before + 2


def test_a_loss_that_is_not_finite_is_no_step_whatever_has_been_seen():
    model = made([k.Dense(2)], (3,))
    model.compile("sgd", "mse")
    x, y = np.ones((4, 3)), np.ones((4, 2))
    for _ in range(2):
        model.train_on_batch(x, y)
        before = model.network.params.copy()
        with pytest.raises(FloatingPointError, match="the loss of this batch is inf; no weight was changed"):
            model.train_on_batch(x, 1e200 * y)
        np.testing.assert_array_equal(model.network.params, before)
        assert model.test_on_batch(x, 1e200 * y) == np.inf


def test_what_has_been_seen_asks_for_no_other_memory(monkeypatch):
    x, y = data()
    model = stack(nb.Adam(0.01), reported=["mae"])
    step, acts = model.train_step(BATCH), [learn, own_step]

    def everything():
        step(x[:BATCH], y[:BATCH])
        for act in acts:
            act(model, x[:BATCH], y[:BATCH])
        model.test_on_batch(x[:BATCH], y[:BATCH])
        model.predict(x[:BATCH])

    everything()

    def refuse(*arguments):
        raise AssertionError("asked for another workspace or predictor")

    monkeypatch.setattr(CpuBackend, "workspace", refuse)
    monkeypatch.setattr(CpuBackend, "predictor", refuse)
    everything()


def test_predictions_follow_the_device(monkeypatch):
    x, _ = data()
    model = stack(nb.Adam(0.01))
    expected = model.predict(x)

    class Elsewhere(CpuBackend):
        def predictor(self, network):
            other = copy.deepcopy(network)
            other.params[:] = 0
            return super().predictor(other)

    with monkeypatch.context() as device:
        device.setattr(backends, "_current", Elsewhere())
        assert not np.array_equal(model.predict(x), expected)
    np.testing.assert_array_equal(model.predict(x), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_take_steps_of_their_own(copied):
    x, y = data()
    model = stack(nb.Adam(0.01))
    for act in (learn, own_step):
        act(model, x[:BATCH], y[:BATCH])
    model.predict(x)
    other = copied(model)
    before = model.network.params.copy()
    for act in (learn, own_step):
        act(other, x[:BATCH], y[:BATCH])
    np.testing.assert_array_equal(model.network.params, before)
    assert (other.predict(x) != model.predict(x)).any()
    for act in (learn, own_step):
        act(model, x[:BATCH], y[:BATCH])
    np.testing.assert_array_equal(model.network.params, other.network.params)
    np.testing.assert_array_equal(model.predict(x), other.predict(x))


def test_a_step_of_a_model_that_has_changed():
    x, y = data()
    model = stack(nb.Adam(0.01))
    step = model.train_step(BATCH)
    step(x[:BATCH], y[:BATCH])
    model.compile("sgd", "mae")
    assert step(x[:BATCH], y[:BATCH]) > 0.0
    assert model.optimizer.iterations == 1
    model.add(k.Dense(2, name="one more"))
    with pytest.raises(RuntimeError, match="the model's layers have changed since; call train_step again"):
        step(x[:BATCH], y[:BATCH])
    assert model.train_step(BATCH)(x[:BATCH], y[:BATCH]) > 0.0


def test_train_step_refuses():
    model = nb.Sequential([k.Dense(2)])
    with pytest.raises(RuntimeError, match="train_step: the model is not compiled"):
        model.train_step(8)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="train_step: batch_size must be a whole number of at least 1, got 0"):
        model.train_step(0)
    with pytest.raises(ValueError, match="its input's width is not known"):
        model.train_step(8)


@pytest.mark.parametrize("as_given", [np.asarray, list])
def test_learning_one_by_one_is_training_on_batches_of_one(as_given):
    x, y = data()
    one, batches = stack(nb.Adam(0.01)), stack(nb.Adam(0.01))
    for i in range(12):
        weight = None if i % 3 else 0.5
        loss = one.learn_one(as_given(x[i]), as_given(y[i]), weight)
        assert loss == batches.train_on_batch(
            x[i : i + 1], y[i : i + 1], None if weight is None else np.array([weight])
        )
        outputs = one.predict_one(as_given(x[i]))
        np.testing.assert_array_equal(outputs, batches.predict(x[i : i + 1])[0])
        assert outputs.shape == (2,)
    np.testing.assert_array_equal(one.network.params, batches.network.params)


def test_one_class_number_at_a_time():
    model = nb.Sequential([k.Dense(3, "softmax")])  # built by its first row
    model.compile("sgd", "sparse_categorical_crossentropy")
    for label in (0, 2, 1):
        assert model.learn_one([0.5, -1.0], label) > 0.0
    with pytest.raises(ValueError, match="label 3 in row 0 is not a whole number"):
        model.learn_one([0.5, -1.0], 3)
    with pytest.raises(ValueError, match=r"expects shape \(rows, 2\), got \(1, 3\)"):
        model.predict_one([1.0, 2.0, 3.0])
    assert model.predict_one([0.5, -1.0]).shape == (3,)


# -- threads ----------------------------------------------------------------------------------------------------------


def in_threads(*acts):
    """Run functions at once, one a thread; raise what any of them raised."""
    errors, start = [], threading.Barrier(len(acts))

    def guarded(act):
        try:
            start.wait(HANGS_AFTER)
            act()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=[act], daemon=True) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANGS_AFTER)
        assert not thread.is_alive(), "hangs"
    if errors:
        raise errors[0]


def test_steps_of_two_threads_are_taken_one_after_the_other():
    """On the same batch their order does not show: what comes out is what one thread makes of as many steps."""
    x, y = data()
    shared, alone = stack(nb.Adam(0.01)), stack(nb.Adam(0.01))
    step = shared.train_step(BATCH)

    def many(act):
        return lambda: [act(x[:BATCH], y[:BATCH]) for _ in range(200)]

    in_threads(many(shared.train_on_batch), many(shared.train_on_batch), many(step), many(shared.test_on_batch))
    for _ in range(600):
        alone.train_on_batch(x[:BATCH], y[:BATCH])
    assert shared.optimizer.iterations == 600
    np.testing.assert_array_equal(shared.network.params, alone.network.params)
    np.testing.assert_array_equal(shared.state, alone.state)


def test_a_step_waits_for_the_end_of_a_fit():
    x, y = data()
    shared, alone = stack(nb.Adam(0.01)), stack(nb.Adam(0.01))
    fitting = threading.Event()
    told = callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: fitting.set())

    def step():
        assert fitting.wait(HANGS_AFTER)
        shared.train_on_batch(x[:BATCH], y[:BATCH])

    in_threads(lambda: shared.fit(x, y, BATCH, epochs=20, verbose=0, callbacks=[told]), step)
    alone.fit(x, y, BATCH, epochs=20, verbose=0)
    alone.train_on_batch(x[:BATCH], y[:BATCH])
    np.testing.assert_array_equal(shared.network.params, alone.network.params)


def test_a_callback_may_take_steps_of_the_model_that_is_fitted():
    x, y = data()
    model = stack(nb.Adam(0.01))
    more = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: model.train_on_batch(x[:BATCH], y[:BATCH]))
    model.fit(x, y, BATCH, epochs=3, verbose=0, callbacks=[more])
    assert model.optimizer.iterations == 3 * ROWS // BATCH + 3


def test_eight_threads_predict_beside_one_that_trains_another_model():
    x, y = data()
    served, trained, alone = (stack(nb.Adam(0.01)) for _ in range(3))
    parts = [x[: 1 + 3 * i] for i in range(8)]
    expected = [served.predict(part) for part in parts]

    def serve(part, outputs):
        def act():
            for _ in range(300):
                np.testing.assert_array_equal(served.predict(part), outputs)

        return act

    def train(model):
        for _ in range(300):
            model.train_on_batch(x, y)

    in_threads(*map(serve, parts, expected), lambda: train(trained))
    train(alone)
    np.testing.assert_array_equal(trained.network.params, alone.network.params)
