"""Batches from iterables, parts of epochs, validation now and then, weighted metrics, arguments of Keras's trainer."""

import numpy as np
import pytest

from nbdense.callbacks import LambdaCallback
from nbdense.layers import BatchNormalization, Dense, Input
from nbdense.models import Sequential, load_model

RNG = np.random.default_rng(1)
X = RNG.normal(size=(40, 4)).astype("float32")
Y = RNG.normal(size=(40, 2)).astype("float32")
LABELS = RNG.integers(0, 3, 40)
WEIGHTS = RNG.uniform(0.5, 2.0, 40)


def made(loss="mse", units=2, activation=None, **options):
    model = Sequential([Input((4,)), Dense(5, "tanh"), BatchNormalization(), Dense(units, activation)])
    model.seed = 7
    model.compile("adam", loss, **options)
    return model


def batches(size=8, weights=None, x=X, y=Y):
    for first in range(0, len(x), size):
        rows = slice(first, first + size)
        yield (x[rows], y[rows]) if weights is None else (x[rows], y[rows], weights[rows])


class Loader:
    """Iterated over anew each epoch, with a length, like torch's DataLoader."""

    def __init__(self, **options):
        self.options = options

    def __iter__(self):
        return batches(**self.options)

    def __len__(self):
        return sum(1 for _ in self)


class Indexed:
    """Batches by number, like Keras's PyDataset."""

    ended = 0

    def __len__(self):
        return 5

    def __getitem__(self, number):
        return X[number * 8 : number * 8 + 8], Y[number * 8 : number * 8 + 8]

    def on_epoch_end(self):
        self.ended += 1


def assert_same(model, other):
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("source", [Loader, Indexed, lambda: batches], ids=["loader", "indexed", "function"])
def test_iterables_are_as_their_rows(source):
    model, other = made(metrics=["mae"]), made(metrics=["mae"])
    history = model.fit(source(), epochs=3, verbose=0, validation_data=source())
    expected = other.fit(X, Y, batch_size=8, shuffle=False, epochs=3, verbose=0, validation_data=(X, Y))
    assert_same(model, other)
    for name, values in expected.history.items():
        np.testing.assert_allclose(history.history[name], values, rtol=1e-6)
    np.testing.assert_allclose(model.evaluate(source()), other.evaluate(X, Y), rtol=1e-6)
    np.testing.assert_array_equal(model.predict(source()), other.predict(X))


def test_a_dataset_is_told_of_the_end_of_an_epoch():
    data = Indexed()
    made().fit(data, epochs=3, verbose=0)
    assert data.ended == 2  # before each epoch that begins anew


@pytest.mark.parametrize("size", [7, 16, 40])
def test_batches_of_different_sizes(size):
    model, other = made(), made()
    model.fit(Loader(size=size), epochs=2, verbose=0)
    other.fit(X, Y, batch_size=size, shuffle=False, epochs=2, verbose=0)
    assert_same(model, other)


def test_batches_that_grow():
    model, other = made(), made()
    model.fit(lambda: iter([(X[:3], Y[:3]), (X[3:20], Y[3:20])]), verbose=0)
    for rows in (slice(3), slice(3, 20)):
        other.train_on_batch(X[rows], Y[rows])
    assert_same(model, other)


def test_batches_with_weights_and_classes():
    model, other = (made("sparse_categorical_crossentropy", 3, "softmax") for _ in range(2))
    factors = {0: 2.0, 2: 0.5}
    model.fit(batches(weights=WEIGHTS, y=LABELS), class_weight=factors, verbose=0)
    other.fit(X, LABELS, 8, shuffle=False, class_weight=factors, sample_weight=WEIGHTS, verbose=0)
    assert_same(model, other)


def test_a_generator_goes_on():
    def endless():
        while True:
            yield from batches()

    model, other = made(), made()
    history = model.fit(
        endless(), steps_per_epoch=5, epochs=2, verbose=0, validation_data=endless(), validation_steps=5
    )
    other.fit(X, Y, 8, shuffle=False, epochs=2, verbose=0)
    assert_same(model, other)
    np.testing.assert_allclose(history.history["val_loss"][1], model.evaluate(X, Y), rtol=1e-6)
    assert model.predict(endless(), steps=2).shape == (16, 2)
    np.testing.assert_allclose(model.evaluate(endless(), steps=2), model.evaluate(X[:16], Y[:16]), rtol=1e-6)


def test_a_generator_ends():
    model = made()
    with pytest.warns(UserWarning, match="the data ended before the 4 steps of an epoch were taken"):
        model.fit(batches(size=20), steps_per_epoch=4, verbose=0)
    assert model.optimizer.iterations == 2
    model = made()
    with pytest.warns(UserWarning, match="the iterable has no batches left; give steps"):
        history = model.fit(batches(), epochs=3, verbose=0)
    assert (history.epoch, model.optimizer.iterations) == ([0], 5)
    with pytest.warns(UserWarning, match="the iterable has no batches left; give steps"):
        history = model.fit(X, Y, epochs=2, validation_data=batches(), verbose=0)
    assert (len(history.history["loss"]), len(history.history["val_loss"])) == (2, 1)
    with pytest.raises(ValueError, match="the iterable yields no batch"):
        made().fit(iter([]), verbose=0)


def test_parts_of_arrays_go_on():
    """Two halves of the rows are one pass over them in one order."""
    model, other = made(), made()
    model.fit(X, Y, 8, steps_per_epoch=5, epochs=1, verbose=0)
    other.fit(X, Y, 8, verbose=0)
    assert_same(model, other)
    seen = []
    model = made()
    count = LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    with pytest.warns(UserWarning, match="the data ended before the 3 steps"):
        model.fit(X, Y, 8, steps_per_epoch=3, epochs=3, verbose=0, callbacks=[count])
    assert seen == [0, 1, 2, 0, 1, 0, 1, 2]


def test_validation_now_and_then():
    model = made()
    history = model.fit(X, Y, epochs=5, validation_data=(X, Y), validation_freq=2, verbose=0).history
    assert (len(history["loss"]), len(history["val_loss"])) == (5, 2)
    history = model.fit(X, Y, epochs=5, validation_split=0.5, validation_freq=[1, 5], verbose=0).history
    assert len(history["val_loss"]) == 2
    np.testing.assert_allclose(history["val_loss"][1], model.evaluate(X[20:], Y[20:]), rtol=1e-6)
    part = model.fit(X, Y, validation_data=(X, Y), validation_batch_size=10, validation_steps=2, verbose=0).history
    np.testing.assert_allclose(part["val_loss"], [model.evaluate(X[:20], Y[:20])], rtol=1e-6)
    np.testing.assert_allclose(model.evaluate(X, Y, steps=1), model.evaluate(X[:32], Y[:32]), rtol=1e-6)
    assert model.predict(X, steps=1).shape == (32, 2)


def test_weighted_metrics(tmp_path):
    loss = "sparse_categorical_crossentropy"
    model = made(loss, 3, "softmax", metrics=["accuracy"], weighted_metrics=["accuracy"])
    right = (model.predict(X).argmax(axis=1) == LABELS) * 1.0
    results = model.evaluate(X, LABELS, batch_size=7, sample_weight=WEIGHTS, return_dict=True)
    assert list(results) == ["loss", "accuracy", "weighted_accuracy"]
    np.testing.assert_allclose(results["accuracy"], right.mean(), rtol=1e-6)
    np.testing.assert_allclose(results["weighted_accuracy"], (right * WEIGHTS).sum() / WEIGHTS.sum(), rtol=1e-6)
    unweighted = model.evaluate(X, LABELS, return_dict=True)
    np.testing.assert_allclose(unweighted["weighted_accuracy"], right.mean(), rtol=1e-6)
    history = model.fit(X, LABELS, class_weight={1: 3.0}, validation_data=(X, LABELS, WEIGHTS), verbose=0).history
    assert set(history) == {f"{way}{name}" for way in ("", "val_") for name in results}
    model.save(tmp_path / "model.nbd")
    assert load_model(tmp_path / "model.nbd").evaluate(X, LABELS, return_dict=True).keys() == results.keys()


def test_class_weights_weigh_metrics():
    model = made(weighted_metrics=["mse", "mae"])
    error = model.predict(X).astype("float64") - Y
    results = model.train_on_batch(X, Y, sample_weight=WEIGHTS, return_dict=True)
    assert set(results) == {"loss", "mse", "mae"}
    named = model.test_on_batch(X, Y, sample_weight=WEIGHTS, return_dict=True)
    error = model.predict(X).astype("float64") - Y
    for name, of_rows in (("mse", (error**2).mean(axis=1)), ("mae", np.abs(error).mean(axis=1))):
        np.testing.assert_allclose(named[name], (of_rows * WEIGHTS).sum() / WEIGHTS.sum(), rtol=1e-5)


def test_arguments_that_change_nothing():
    model, other = made(jit_compile=True, steps_per_execution=4, run_eagerly=False, auto_scale_loss=False), made()
    for each in (model, other):
        each.fit(X, Y, verbose=0)
    assert_same(model, other)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: m.compile("sgd", "mse", run_eagerly=True), ValueError, "run_eagerly must be False"),
        (lambda m: m.compile("sgd", "mse", loss_weights=[1]), ValueError, "loss_weights must be None"),
        (lambda m: m.compile("sgd", "mse", steps_per_execution=0), ValueError, "steps_per_execution must be a whole"),
        (lambda m: m.fit(X, Y, workers=4), TypeError, "fit: workers is not taken: batches .* in this thread"),
        (lambda m: m.evaluate(X, Y, use_multiprocessing=True), TypeError, "evaluate: use_multiprocessing is not taken"),
        (lambda m: m.fit(X, Y, max_queue_size=10), TypeError, "max_queue_size is not taken"),
        (lambda m: m.fit(X, Y, nonsense=1), TypeError, r"fit\(\) got an unexpected keyword argument 'nonsense'"),
        (lambda m: m.fit(X, Y, class_weight=[1, 2]), TypeError, "class_weight: expected a mapping .*, got list"),
        (lambda m: m.fit(X), ValueError, "y: there are no targets"),
        (lambda m: m.fit(batches(), Y), ValueError, "y: x is a .* yields batches .* leave y out"),
        (lambda m: m.fit(batches(), sample_weight=WEIGHTS), ValueError, "sample_weight: x is a .* yields batches"),
        (lambda m: m.fit(batches(), class_weight="balanced"), ValueError, "'balanced' needs all targets at once"),
        (lambda m: m.fit(batches(), validation_split=0.2), ValueError, "validation_split needs arrays"),
        (lambda m: m.fit(iter([X])), ValueError, r"its batches must be \(x, y\) or \(x, y, sample_weight\)"),
        (lambda m: m.fit(X, Y, validation_data=7), ValueError, "validation_data must be .* got int"),
        (lambda m: m.fit(X, Y, validation_data=(X,)), ValueError, "validation_data must be .* got 1 parts"),
        (lambda m: m.fit(X, Y, steps_per_epoch=0), ValueError, "steps_per_epoch must be a whole number of at least 1"),
        (lambda m: m.fit(X, Y, validation_data=(X, Y), validation_freq=0), ValueError, "validation_freq must be"),
        (lambda m: m.predict(X, steps=0), ValueError, "steps must be a whole number of at least 1"),
    ],
)
def test_what_is_refused(call, error, words):
    model = made()
    before = model.get_weights()
    with pytest.raises(error, match=words):
        call(model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_hooks_around_batches_of_iterables():
    """evaluate, predict and validation call them with the number of the batch within the iterable."""
    x, y = np.ones((20, 3)), np.ones((20, 1))
    model = Sequential([Input((3,)), Dense(1)])
    model.compile("sgd", "mse")
    seen = []
    see = LambdaCallback(
        on_test_batch_begin=lambda batch, logs: seen.append(batch),
        on_test_batch_end=lambda batch, logs: seen.append((batch, *logs)),
        on_predict_batch_end=lambda batch, logs: seen.append((batch, len(logs["outputs"]))),
    )

    def batches():
        return ((x[first : first + 8], y[first : first + 8]) for first in range(0, 20, 8))

    tested = [0, (0, "loss"), 1, (1, "loss"), 2, (2, "loss")]
    assert model.evaluate(batches, callbacks=[see]) == pytest.approx(model.evaluate(x, y), rel=1e-6)
    assert seen == tested
    seen.clear()
    model.fit(x, y, validation_data=batches, verbose=0, callbacks=[see])
    assert seen == tested
    seen.clear()
    assert model.predict(batches, callbacks=[see]).shape == (20, 1)
    assert model.predict(x, 8, steps=2, callbacks=[see]).shape == (16, 1)
    assert seen == [(0, 8), (1, 8), (2, 4), (0, 8), (1, 8)]
