"""Callbacks with a model that only records, as the loop calls them; and through fit."""

import csv
import math
import types
import warnings

import numpy as np
import pytest

from nbdense.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    History,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from nbdense.losses import MeanSquaredError
from nbdense.metrics import AUC, FunctionMetric, get_all
from nbdense.models import load_model
from nbdense.optimizers import SGD
from nbdense.schedules import CosineDecay
from tests.support.builders import make_model


class FakeModel:
    """A model as callbacks see it; its weights are the number of the epoch."""

    def __init__(self, learning_rate=1.0, metrics=()):
        self.stop_training = False
        self.optimizer = SGD(learning_rate)
        reported = get_all(metrics, MeanSquaredError(), 1)
        self.train_state = types.SimpleNamespace(objective=lambda: (None, reported))
        self.weights = -1
        self.saved = []

    def get_weights(self):
        return [np.array(self.weights)]

    def set_weights(self, weights):
        self.weights = int(weights[0])

    def save(self, path):
        self.saved.append((path, self.weights))


def run(callbacks, values, name="val_loss", model=None, first=0):
    """A fit in which each epoch reports one of ``values``; returns the model and the history."""
    model, history = model or FakeModel(), History()
    everyone = [*callbacks, history]
    for callback in everyone:
        callback.set_model(model)
        callback.set_params({"epochs": first + len(values), "steps": 1, "verbose": 0})
    model.stop_training = False
    for callback in everyone:
        callback.on_train_begin()
    logs = {}
    for epoch, value in enumerate(values, first):
        for callback in everyone:
            callback.on_epoch_begin(epoch)
        model.weights = epoch
        logs = {"loss": 0.5, name: value}
        for callback in everyone:
            callback.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    for callback in everyone:
        callback.on_train_end(logs)
    return model, history


# -- the base -------------------------------------------------------------------------------------------------------


def test_who_wants_batches():
    class Ends(Callback):
        def on_train_batch_end(self, batch, logs=None):
            pass

    class Begins(Callback):
        def on_batch_begin(self, batch, logs=None):
            pass

    class Heir(Ends):
        pass

    silent = [
        Callback(),
        History(),
        EarlyStopping(),
        ModelCheckpoint("a"),
        ReduceLROnPlateau(),
        TerminateOnNaN(),
        CSVLogger("a"),
        LearningRateScheduler(abs),
        LambdaCallback(on_epoch_end=print),
    ]
    assert not [callback for callback in silent if callback.wants_batches()]
    eager = [Ends(), Begins(), Heir(), ModelCheckpoint("a", save_freq=3), LambdaCallback(on_train_batch_end=print)]
    assert all(callback.wants_batches() for callback in [*eager, LambdaCallback(on_batch_begin=print)])


def test_short_names_of_batch_methods():
    seen = []

    class Old(Callback):
        def on_batch_begin(self, batch, logs=None):
            seen.append(("begin", batch, logs))

        def on_batch_end(self, batch, logs=None):
            seen.append(("end", batch, logs))

    old = Old()
    old.on_train_batch_begin(3)
    old.on_train_batch_end(3, {"loss": 1.0})
    assert seen == [("begin", 3, None), ("end", 3, {"loss": 1.0})]


def test_lambda_callback():
    seen = []
    hooks = [name for name in vars(Callback) if name.startswith("on_")]
    assert "on_test_end" in hooks
    callback = LambdaCallback(**{name: lambda *given, name=name: seen.append((name, *given)) for name in hooks})
    expected = []
    for name in hooks:
        if "epoch" in name or "batch" in name:
            logs = {}
            getattr(callback, name)(7, logs=logs)
            getattr(callback, name)(8)
            assert seen[-2][2] is logs
            expected += [(name, 7, {}), (name, 8, {})]
        else:
            getattr(callback, name)({"loss": 1.0})
            expected.append((name, {"loss": 1.0}))
    assert seen == expected
    LambdaCallback().on_epoch_end(0, {})


# -- EarlyStopping --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "values", "epochs", "weights"),
    [
        ({}, [3, 2, 1, 1, 0], 4, 3),
        ({}, [1, 2, 0], 2, 1),
        ({"patience": 2}, [3, 2, 2, 2, 0], 4, 3),
        ({"patience": 2}, [3, 2, 2.5, 1, 2, 2, 0], 6, 5),
        ({"patience": 2, "restore_best_weights": True}, [3, 2, 2.5, 1, 2, 2, 0], 6, 3),
        ({"patience": 9, "restore_best_weights": True}, [3, 1, 2], 3, 1),
        ({"min_delta": 0.5}, [3, 2.6, 2.2], 2, 1),
        ({"min_delta": -0.5}, [3, 2.6, 2.2], 2, 1),
        ({"min_delta": 0.5, "patience": 2}, [3, 2.6, 2.2, 1.6], 4, 3),
        ({"mode": "max"}, [1, 2, 3, 2, 9], 4, 3),
        ({"mode": "max", "min_delta": 0.5}, [1, 1.4, 9], 2, 1),
        ({"baseline": 1.5, "patience": 2}, [3, 2.9, 2.8, 2.7, 1], 5, 4),
        ({"baseline": 1.5, "patience": 2}, [3, 2.9, 3, 1], 3, 2),
        ({"baseline": 1.5, "patience": 2, "restore_best_weights": True}, [3, 2.9, 3, 1], 3, 1),
        ({"start_from_epoch": 3}, [1, 2, 3, 9, 8, 8], 6, 5),
        ({"start_from_epoch": 3, "restore_best_weights": True}, [1, 2, 3, 9, 8, 8], 6, 4),
        ({"patience": 1}, [math.nan, math.nan, 1], 2, 1),
        ({"patience": 3, "restore_best_weights": True}, [math.nan, 2, math.nan, 3, 3, 1], 5, 1),
    ],
)
def test_early_stopping(options, values, epochs, weights):
    stopping = EarlyStopping(**options)
    for _ in range(2):  # it can be used again
        model, history = run([stopping], values)
        assert (len(history.epoch), model.weights) == (epochs, weights)
        assert model.stop_training == (epochs < len(values) or stopping.stopped_epoch > 0)


def test_early_stopping_says_so(capsys):
    run([EarlyStopping(patience=1, verbose=1, restore_best_weights=True)], [2, 1, 3, 4])
    assert capsys.readouterr().out == "Epoch 3: early stopping\nRestoring the weights of the best epoch: 2\n"


@pytest.mark.parametrize(
    ("name", "metrics", "better"),
    [
        ("val_loss", (), "min"),
        ("val_accuracy", ("accuracy",), "max"),
        ("auc_1", ("auc", AUC(curve="PR")), "max"),
        ("val_rmse", ("rmse",), "min"),
        ("val_MAE", ("MAE",), "min"),
        ("mine", (FunctionMetric(abs, "mine"),), None),
        ("val_mine", (FunctionMetric(abs, "mine", "min"),), "min"),
        ("mae", (FunctionMetric(abs, "mae"),), None),  # a name says nothing
        ("gain", (), None),
    ],
)
def test_mode_auto(name, metrics, better):
    def epochs(mode):
        model = FakeModel(metrics=metrics)
        return len(run([EarlyStopping(name, mode=mode, patience=2)], [1, 2, 3, 4], name, model)[1].epoch)

    assert (epochs("min"), epochs("max")) == (3, 4)
    if better:
        assert epochs("auto") == epochs(better)
    else:
        with pytest.raises(ValueError, match=f"whether '{name}' is better .* pass mode='max' or mode='min'"):
            epochs("auto")


@pytest.mark.parametrize("make", [EarlyStopping, ReduceLROnPlateau, lambda **o: ModelCheckpoint("a", **o)])
def test_missing_name_is_one_warning_a_fit(make):
    options = {"save_best_only": True} if make not in (EarlyStopping, ReduceLROnPlateau) else {}
    callback = make(monitor="val_acc", **options)
    for _ in range(2):
        words = r"there is no 'val_acc' to monitor, .*there are: loss, accuracy.* or give fit validation data"
        with pytest.warns(UserWarning, match=words) as caught:
            model, history = run([callback], [0.1, 0.2, 0.3], "accuracy")
        assert len(caught) == 1
        assert len(history.epoch) == 3
        assert len(model.saved) == (3 if options else 0)


# -- ModelCheckpoint ------------------------------------------------------------------------------------------------


def test_checkpoint_each_epoch_and_best(tmp_path):
    values = [3, 2, 2.5, math.nan, 1]
    model, _ = run([ModelCheckpoint(tmp_path / "deep" / "{epoch:02d}-{val_loss:.2f}.nbd")], values)
    names = ["01-3.00", "02-2.00", "03-2.50", "04-nan", "05-1.00"]
    assert model.saved == [(str(tmp_path / "deep" / f"{name}.nbd"), i) for i, name in enumerate(names)]
    assert (tmp_path / "deep").is_dir()
    model, _ = run([ModelCheckpoint("best", save_best_only=True)], values)
    assert model.saved == [("best", 0), ("best", 1), ("best", 4)]
    model, _ = run([ModelCheckpoint("best", save_best_only=True, mode="max")], values)
    assert model.saved == [("best", 0)]
    model, _ = run([ModelCheckpoint("best", save_best_only=True, initial_value_threshold=1.5)], values)
    assert model.saved == [("best", 4)]
    again = ModelCheckpoint("best", save_best_only=True)
    run([again], [2, 1])
    assert run([again], [3, 1.5, 0.5])[0].saved == [("best", 2)]


def test_checkpoint_each_few_batches():
    """The count goes on over the ends of epochs."""
    model, checkpoint = FakeModel(), ModelCheckpoint("{epoch}-{batch}-{loss:.1f}", save_freq=4)
    checkpoint.set_model(model)
    checkpoint.on_train_begin()
    for epoch in range(2):
        checkpoint.on_epoch_begin(epoch)
        for batch in range(6):
            checkpoint.on_train_batch_end(batch, {"loss": batch / 2})
        checkpoint.on_epoch_end(epoch, {"loss": 9.0})
    assert [path for path, _ in model.saved] == ["1-4-1.5", "2-2-0.5", "2-6-2.5"]


def test_checkpoint_says_so(capsys):
    run([ModelCheckpoint("best", verbose=1, save_best_only=True)], [2, 3])
    assert capsys.readouterr().out == "Epoch 1: saved the model to best\nEpoch 2: val_loss did not improve from 2.0\n"


def test_checkpoint_names_what_there_is():
    for path in ("{val_auc:.2f}", "{loss:d}", "{loss.nothing}"):
        with pytest.raises(ValueError, match=r"cannot be filled in .*there are: epoch, loss, val_loss"):
            run([ModelCheckpoint(path)], [1])


def test_checkpoint_is_a_model_that_trains_on(tmp_path):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(64, 3)), rng.normal(size=(64, 2))
    model = make_model([3, 5, 2], ["tanh", "linear"], optimizer="adam")
    model.fit(x, y, epochs=3, verbose=0, callbacks=[ModelCheckpoint(tmp_path / "{epoch}.any", save_weights_only=True)])
    model.fit(x, y, epochs=5, initial_epoch=3, verbose=0)
    resumed = load_model(tmp_path / "3.any")
    resumed.fit(x, y, epochs=5, initial_epoch=3, verbose=0)
    for ours, theirs in zip(resumed.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


# -- learning rates -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "values", "rates"),
    [
        ({"patience": 2}, [1, 1, 1, 1, 1], [1, 1, 1, 0.1, 0.1]),
        ({"patience": 1, "factor": 0.5}, [3, 2, 2, 1, 1], [1, 1, 1, 0.5, 0.5]),
        ({"patience": 1, "factor": 0.5, "min_lr": 0.3}, [1, 1, 1, 1], [1, 1, 0.5, 0.3]),
        ({"patience": 1, "cooldown": 2}, [1, 1, 1, 1, 1], [1, 1, 0.1, 0.1, 0.01]),
        ({"patience": 1, "factor": 0}, [1, 1, 1], [1, 1, 0]),
        ({"patience": 1, "mode": "max"}, [1, 2, 1, 1], [1, 1, 1, 0.1]),
        ({"patience": 1}, [1, 0.99995, 0.9998, 0.9998], [1, 1, 0.1, 0.1]),
        ({"patience": 1, "min_delta": 0}, [1, 0.99995, 0.9998, 0.9998], [1, 1, 1, 1]),
    ],
)
def test_reduce_on_plateau(options, values, rates):
    """The history has the rate that the epoch was trained with."""
    reduce = ReduceLROnPlateau(**options)
    for _ in range(2):
        _, history = run([reduce], values)
        assert history.history["learning_rate"] == pytest.approx(rates)


def test_reduce_says_so(capsys):
    run([ReduceLROnPlateau(patience=1, verbose=1)], [1, 1])
    assert capsys.readouterr().out == "Epoch 2: learning rate reduced to 0.1\n"


def test_scheduler(capsys):
    model, history = run([LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch else rate, verbose=1)], [1, 1, 1])
    assert history.history["learning_rate"] == [1, 0.5, 0.25]
    assert model.optimizer.learning_rate == 0.25
    assert capsys.readouterr().out.splitlines()[-1] == "Epoch 3: learning rate set to 0.25"
    _, history = run([LearningRateScheduler(lambda epoch: np.float32(epoch))], [1, 1])
    assert history.history["learning_rate"] == [0.0, 1.0]


def test_scheduler_moves_the_training():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(64, 3)), rng.normal(size=(64, 1))
    weights = []
    for callbacks in ([], [LearningRateScheduler(lambda epoch: 0.0)]):
        model = make_model([3, 1], ["linear"])
        before = model.get_weights()
        model.fit(x, y, epochs=2, verbose=0, callbacks=callbacks)
        weights.append(np.array_equal(model.get_weights()[0], before[0]))
    assert weights == [False, True]


@pytest.mark.parametrize("callback", [ReduceLROnPlateau(), LearningRateScheduler(abs)])
def test_schedule_objects_are_refused(callback):
    with pytest.raises(TypeError, match="learning_rate is a CosineDecay, .* leave this callback out"):
        run([callback], [1], model=FakeModel(CosineDecay(0.1, 10)))


@pytest.mark.parametrize("rate", ["fast", None, math.nan, -1.0, True])
def test_schedules_return_rates(rate):
    with pytest.raises(ValueError, match="LearningRateScheduler: schedule's rate must be"):
        run([LearningRateScheduler(lambda epoch, before: rate)], [1])


def test_an_error_in_a_schedule_is_its_own():
    def schedule(epoch, rate):
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        run([LearningRateScheduler(schedule)], [1])


# -- CSVLogger, TerminateOnNaN --------------------------------------------------------------------------------------


def rows_of(path, separator=","):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file, delimiter=separator))


def test_csv_logger(tmp_path):
    path = tmp_path / "log.csv"
    run([CSVLogger(path)], [3, 0.25])
    expected = [["epoch", "loss", "val_loss"], ["0", "0.5", "3"], ["1", "0.5", "0.25"]]
    assert rows_of(path) == expected
    run([CSVLogger(path, append=True)], [7], first=2)
    assert rows_of(path) == [*expected, ["2", "0.5", "7"]]
    run([CSVLogger(path, separator=";")], [7])
    assert rows_of(path, ";") == [["epoch", "loss", "val_loss"], ["0", "0.5", "7"]]
    with pytest.raises(ValueError, match="does not begin with a column 'epoch' before ','"):
        run([CSVLogger(path, append=True)], [7])
    (tmp_path / "empty").touch()
    run([CSVLogger(tmp_path / "empty", append=True)], [7])
    assert rows_of(tmp_path / "empty") == [["epoch", "loss", "val_loss"], ["0", "0.5", "7"]]


def test_csv_rows_are_there_at_once_and_keep_their_columns(tmp_path):
    path = tmp_path / "log.csv"
    logger = CSVLogger(path)
    logger.on_train_begin()
    assert rows_of(path) == []
    logger.on_epoch_end(0, {"mae": 2.0, "loss": 1.5})
    assert rows_of(path) == [["epoch", "loss", "mae", "val_loss", "val_mae"], ["0", "1.5", "2.0", "NA", "NA"]]
    logger.on_epoch_end(1, {"loss": math.nan, "val_loss": 3.0, "new": 1.0})
    assert rows_of(path)[2:] == [["1", "nan", "NA", "3.0", "NA"]]
    again = CSVLogger(path, append=True)
    again.on_train_begin()
    again.on_epoch_end(2, {"new": 1.0, "mae": 4.0})
    assert rows_of(path)[3:] == [["2", "NA", "4.0", "NA", "NA"]]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_terminate_on_nan(loss, capsys):
    assert TerminateOnNaN().takes_not_finite and TerminateOnNaN.takes_not_finite
    assert not Callback().takes_not_finite and not TerminateOnNaN(raise_error=True).takes_not_finite
    model, history = run([TerminateOnNaN()], [1.0, loss, 1.0], "loss")
    assert model.stop_training and len(history.epoch) == 2
    assert capsys.readouterr().out == f"Epoch 2: the loss is {loss}, the fit ends\n"


# -- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: EarlyStopping(monitor=None), "EarlyStopping: monitor must be a name such as 'val_loss', got None"),
        (lambda: EarlyStopping(mode="best"), "mode must be 'auto', 'min' or 'max', got 'best'"),
        (lambda: EarlyStopping(patience=-1), "patience must be a whole number of at least 0, got -1"),
        (lambda: EarlyStopping(patience=1.5), "patience"),
        (lambda: EarlyStopping(min_delta="a"), "min_delta must be a finite number"),
        (lambda: EarlyStopping(baseline=math.nan), "baseline"),
        (lambda: EarlyStopping(start_from_epoch=True), "start_from_epoch"),
        (lambda: ModelCheckpoint(""), "filepath"),
        (lambda: ModelCheckpoint("{}"), "filepath must be a path with named fields"),
        (lambda: ModelCheckpoint("{epoch"), "filepath '{epoch': expected '}'"),
        (lambda: ModelCheckpoint("a", save_freq=0), "save_freq must be a whole number of at least 1, got 0"),
        (lambda: ModelCheckpoint("a", save_freq="batch"), "save_freq"),
        (lambda: ReduceLROnPlateau(factor=1.0), r"factor must be in \[0, 1\), got 1.0"),
        (lambda: ReduceLROnPlateau(factor=-0.1), "factor"),
        (lambda: ReduceLROnPlateau(cooldown=-1), "cooldown"),
        (lambda: ReduceLROnPlateau(min_lr=-1), "min_lr must be at least 0"),
        (lambda: LearningRateScheduler(0.1), "schedule must be a function"),
        (lambda: CSVLogger("a", separator=", "), "separator must be one character"),
        (lambda: LambdaCallback(on_epoch=print), "no method 'on_epoch'; there are: .*on_epoch_end"),
        (lambda: LambdaCallback(on_epoch_end=3), "on_epoch_end must be a function, got 3"),
    ],
)
def test_misuse(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# -- through fit ----------------------------------------------------------------------------------------------------


def test_callbacks_together_in_fit(tmp_path):
    """A fit that has learned all there is to learn slows down, stops, and keeps its best weights."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(96, 2))
    y = x @ np.array([[1.0], [-2.0]])
    model = make_model([2, 1], ["linear"], optimizer="sgd", metrics=["mae"])
    seen = []
    callbacks = [
        ReduceLROnPlateau("val_mae", patience=2, factor=0.5, min_delta=1e-3),
        EarlyStopping("val_mae", patience=5, min_delta=1e-3, restore_best_weights=True),
        ModelCheckpoint(tmp_path / "best.nbdense", monitor="val_mae", save_best_only=True),
        CSVLogger(tmp_path / "log.csv"),
        LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs["val_mae"])),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = model.fit(x, y, 16, epochs=200, validation_split=0.25, callbacks=callbacks, verbose=0)
    epochs = len(history.epoch)
    assert 10 < epochs < 200
    assert history.history["learning_rate"][-1] < history.history["learning_rate"][0] == 0.01
    assert seen == history.history["val_mae"]
    header, *rows = rows_of(tmp_path / "log.csv")
    assert header == ["epoch", "learning_rate", "loss", "mae", "val_loss", "val_mae"]
    assert [float(row[-1]) for row in rows] == seen
    kept = model.evaluate(x[72:], y[72:], return_dict=True)["mae"]
    assert kept == pytest.approx(seen[epochs - 6])
    best = load_model(tmp_path / "best.nbdense")
    assert best.evaluate(x[72:], y[72:], return_dict=True)["mae"] == pytest.approx(min(seen))


def test_a_lambda_callback_has_what_it_is_given():
    """As Keras's: what is no hook becomes an attribute, for functions to keep their state in."""
    callback = LambdaCallback(seen=[], on_epoch_end=lambda epoch, logs: callback.seen.append(epoch))
    model = make_model([3, 2], ["linear"], "mse", "sgd")
    model.fit(np.ones((4, 3)), np.ones((4, 2)), epochs=3, callbacks=[callback], verbose=0)
    assert callback.seen == [0, 1, 2]


def test_batches_between_those_that_a_callback_wants_are_taken_at_once(monkeypatch):
    """Slices that could be as long as they like end where the callback says, or behind each batch."""

    class Some(Callback):
        def __init__(self):
            self.seen = []

        def next_batch(self, batch):
            return next(wanted for wanted in (2, 6, 1000) if wanted >= batch)

        def on_train_batch_end(self, batch, logs=None):
            self.seen.append(batch)

    monkeypatch.setattr("nbdense.training.loop.SLICE_SECONDS", 1e9)
    x, y = np.ones((300, 2)), np.ones((300, 1))
    results = []
    for others in ([], [LambdaCallback(on_train_batch_end=lambda batch, logs: None)]):
        model, some = make_model([2, 1], ["linear"]), Some()
        model.fit(x, y, 3, epochs=2, verbose=0, callbacks=[some, *others])
        results.append((model.network.params.tobytes(), some.seen))
    assert results[0] == (results[1][0], [0, 2, 6, 70, 99, 2, 6, 99])  # an epoch goes on with slices as long
    assert results[1][1] == list(range(100)) * 2
