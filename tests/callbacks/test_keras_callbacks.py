"""Callbacks as users of Keras write them: hooks in every call, arguments, and going on after an interruption."""

import inspect
import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from nbdense import callbacks
from nbdense.callbacks import BackupAndRestore, Callback, EarlyStopping, LambdaCallback, ModelCheckpoint, SwapEMAWeights
from nbdense.files import FileFormatError
from nbdense.models import load_model
from nbdense.optimizers import SGD, Adam
from tests.support.builders import make_model
from tests.support.python_process import run_python
from tests.support.source_tree import ROOT

GOLDEN = json.loads((ROOT / "tests" / "golden" / "keras_optimizers.json").read_text(encoding="utf-8"))
NOT_THERE = {"CallbackList"}  # fit, evaluate and predict make one of a list
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 3)), RNG.normal(size=(20, 2))


def model_of(optimizer=None, seed=3):
    return make_model([3, 4, 2], ["tanh", "linear"], optimizer=optimizer or Adam(0.05), seed=seed)


@pytest.mark.parametrize("name", sorted(GOLDEN["callbacks"].keys() - NOT_THERE))
def test_arguments_and_defaults(name):
    parameters = inspect.signature(getattr(callbacks, name)).parameters
    for argument, default in GOLDEN["callbacks"][name].items():
        own = parameters[argument].default
        assert (None if own is inspect.Parameter.empty else own) == default, argument


class Recorder(Callback):
    """A callback with all hooks that Keras has: what was called, with which logs."""

    def __init__(self):
        super().__init__()
        self.seen = []


def record(hook):
    def method(self, *arguments, logs=None):
        place = arguments[0] if len(arguments) > 1 else None
        logs = arguments[-1] if arguments and isinstance(arguments[-1], dict) else logs
        assert isinstance(logs, dict)
        self.seen.append((hook, place, sorted(logs)))

    return method


for _hook in GOLDEN["hooks"]:
    assert hasattr(Callback, _hook)
    if _hook.startswith("on_") and _hook not in ("on_batch_begin", "on_batch_end"):
        setattr(Recorder, _hook, record(_hook))


def test_hooks_of_evaluate_and_predict():
    model, seen = model_of(), Recorder()
    results = model.evaluate(X, Y, batch_size=8, callbacks=[seen], return_dict=True)
    batches = [
        (f"on_test_batch_{end}", k, ["loss"] if end == "end" else []) for k in range(3) for end in ("begin", "end")
    ]
    assert seen.seen == [("on_test_begin", None, []), *batches, ("on_test_end", None, ["loss"])]
    assert results == model.evaluate(X, Y, batch_size=8, return_dict=True)
    assert seen.model is model and seen.params["steps"] == 3
    seen.seen.clear()
    outputs = model.predict(X, batch_size=8, callbacks=[seen])
    batches = [
        (f"on_predict_batch_{end}", k, ["outputs"] if end == "end" else [])
        for k in range(3)
        for end in ("begin", "end")
    ]
    assert seen.seen == [("on_predict_begin", None, []), *batches, ("on_predict_end", None, [])]
    np.testing.assert_allclose(outputs, model.predict(X), atol=1e-12)
    for call in (lambda: model.evaluate(X, Y, callbacks=Callback()), lambda: model.predict(X, callbacks=[3])):
        with pytest.raises(TypeError, match="callbacks must be a list of Callback objects"):
            call()


def test_hooks_of_fit():
    model, seen = model_of(), Recorder()
    model.fit(X, Y, 10, epochs=2, validation_data=(X, Y), callbacks=[seen], verbose=0)
    train = [hook for k in range(2) for hook in ("on_train_batch_begin", "on_train_batch_end")]
    test = ["on_test_begin", "on_test_batch_begin", "on_test_batch_end", "on_test_end"]
    epoch = ["on_epoch_begin", *train, *test, "on_epoch_end"]
    assert [hook for hook, _, _ in seen.seen] == ["on_train_begin", *epoch, *epoch, "on_train_end"]


def test_lambdas_take_all_hooks():
    seen = []
    hooks = {
        hook: (lambda *arguments, hook=hook: seen.append(hook))
        for hook in ("on_test_begin", "on_predict_begin", "on_predict_batch_end", "on_test_batch_begin")
    }
    model, callback = model_of(), LambdaCallback(**hooks)
    model.evaluate(X, Y, callbacks=[callback])
    model.predict(X, batch_size=10, callbacks=[callback])
    names = ["on_test_begin", "on_test_batch_begin", "on_predict_begin", "on_predict_batch_end", "on_predict_batch_end"]
    assert seen == names


class Interrupt(Callback):
    """An interruption behind an epoch, or behind some batches of all."""

    def __init__(self, epoch=None, batches=None):
        super().__init__()
        self.epoch, self.batches = epoch, batches

    def wants_batches(self):
        return self.batches is not None

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt

    def on_train_batch_end(self, batch, logs=None):
        if self.batches is not None:
            self.batches -= 1
            if self.batches == 0:
                raise KeyboardInterrupt


@pytest.mark.parametrize("make", [lambda: Adam(0.05), lambda: SGD(0.1, momentum=0.9, use_ema=True)])
def test_an_interrupted_fit_goes_on_with_the_same_bits(tmp_path, make):
    folder = tmp_path / "backup"
    whole = model_of(make())
    whole.fit(X, Y, 8, epochs=5, verbose=0)
    model = model_of(make())
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, 8, epochs=5, callbacks=[BackupAndRestore(folder), Interrupt(epoch=2)], verbose=0)
    other = model_of(make(), seed=8)  # of another process: other initial weights, and another order of rows
    history = other.fit(X, Y, 8, epochs=5, callbacks=[BackupAndRestore(folder)], verbose=0)
    assert history.epoch == [3, 4] and not folder.exists()
    np.testing.assert_array_equal(other.network.params, whole.network.params)
    np.testing.assert_array_equal(other.state[1:], whole.state[1:])
    assert other.optimizer.iterations == whole.optimizer.iterations == 15


def test_backups_of_batches(tmp_path):
    """The epoch begins again, with the weights of the last backup."""
    model, backup = model_of(), BackupAndRestore(tmp_path, save_freq=2)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, 4, epochs=3, callbacks=[backup, Interrupt(batches=9)], verbose=0)
    other = model_of()
    history = other.fit(X, Y, 4, epochs=3, callbacks=[BackupAndRestore(tmp_path, delete_checkpoint=False)], verbose=0)
    assert history.epoch == [1, 2] and other.optimizer.iterations == 8 + 10
    again = other.fit(X, Y, 4, epochs=3, callbacks=[BackupAndRestore(tmp_path)], verbose=0)
    assert again.epoch == [] and not tmp_path.exists()


def test_learning_rates_come_back(tmp_path):
    model = model_of(SGD(0.5))

    class Halve(Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.optimizer.learning_rate.assign(self.model.optimizer.learning_rate / 2)

    model.fit(X, Y, epochs=2, callbacks=[Halve(), BackupAndRestore(tmp_path, delete_checkpoint=False)], verbose=0)
    other = model_of(SGD(0.5))
    other.fit(X, Y, epochs=2, callbacks=[BackupAndRestore(tmp_path)], verbose=0)
    assert other.optimizer.learning_rate == 0.125


def test_a_damaged_backup_has_one_before_it(tmp_path):
    options = {"delete_checkpoint": False, "double_checkpoint": True}
    model_of().fit(X, Y, epochs=3, callbacks=[BackupAndRestore(tmp_path, **options)], verbose=0)
    (tmp_path / "latest.safetensors").write_bytes(b"0")
    history = model_of().fit(X, Y, epochs=4, callbacks=[BackupAndRestore(tmp_path, **options)], verbose=0)
    assert history.epoch == [2, 3]
    (tmp_path / "latest.safetensors").unlink()  # as a kill between the two leaves it
    history = model_of().fit(X, Y, epochs=4, callbacks=[BackupAndRestore(tmp_path, **options)], verbose=0)
    assert history.epoch == [3]
    for name in ("latest", "previous"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"0")
    with pytest.raises(FileFormatError, match="damaged"):
        model_of().fit(X, Y, callbacks=[BackupAndRestore(tmp_path)], verbose=0)


def test_backups_are_of_one_model(tmp_path):
    model_of().fit(X, Y, callbacks=[BackupAndRestore(tmp_path, delete_checkpoint=False)], verbose=0)
    for other in (make_model([3, 5, 2], ["tanh", "linear"], optimizer=Adam(0.05)), model_of(SGD(0.1))):
        weights = other.get_weights()
        with pytest.raises(ValueError, match="is no backup of this model with this optimizer"):
            other.fit(X, Y, callbacks=[BackupAndRestore(tmp_path)], verbose=0)
        for one, two in zip(other.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(one, two)
    for wrong in ("batch", 0.15, 0, True):
        with pytest.raises(ValueError, match="BackupAndRestore: save_freq must be"):
            BackupAndRestore(tmp_path, save_freq=wrong)
    for wrong in ("", None):
        with pytest.raises(ValueError, match="BackupAndRestore: backup_dir must be the path of a folder"):
            BackupAndRestore(wrong)


def test_a_killed_fit_leaves_a_whole_backup(tmp_path):
    script = """
import os, sys, signal
import numpy as np
import nbdense as nb
class Kill(nb.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1 and len(sys.argv) > 2:
            os.kill(os.getpid(), signal.SIGKILL)
nb.set_random_seed(0)
model = nb.Sequential([nb.Input((3,)), nb.Dense(2)])
model.compile("adam", "mse")
backup = nb.BackupAndRestore(sys.argv[1])
history = model.fit(np.ones((8, 3)), np.ones((8, 2)), epochs=4, callbacks=[backup, Kill()], verbose=0)
print(history.epoch)
"""
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path), "kill"], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["latest.safetensors"]
    assert run_python(script, str(tmp_path))[0].strip() == "[2, 3]"


def test_averages_take_the_weights_place_for_evaluations(tmp_path):
    plain = model_of(SGD(0.1, use_ema=True, ema_momentum=0.8))
    swapped = model_of(SGD(0.1, use_ema=True, ema_momentum=0.8))
    seen = []

    class Look(Callback):
        def on_test_begin(self, logs=None):
            seen.append(self.model.network.params.copy())

    plain.fit(X, Y, 8, epochs=1, verbose=0)
    expected = plain.network.params.copy()  # fit leaves the averages
    swapped.fit(X, Y, 8, epochs=1, validation_data=(X, Y), callbacks=[SwapEMAWeights(), Look()], verbose=0)
    np.testing.assert_array_equal(seen[0], expected)
    np.testing.assert_array_equal(swapped.network.params, expected)
    third = model_of(SGD(0.1, use_ema=True, ema_momentum=0.8))
    path = str(tmp_path / "m{epoch}")
    third.fit(X, Y, 8, epochs=2, callbacks=[SwapEMAWeights(swap_on_epoch=True), ModelCheckpoint(path)], verbose=0)
    np.testing.assert_array_equal(load_model(tmp_path / "m1").network.params, expected)
    plain = model_of(SGD(0.1, use_ema=True, ema_momentum=0.8))
    plain.fit(X, Y, 8, epochs=2, verbose=0)
    np.testing.assert_array_equal(load_model(tmp_path / "m2").network.params, plain.network.params)
    np.testing.assert_array_equal(third.network.params, plain.network.params)
    with pytest.raises(ValueError, match="SwapEMAWeights: the optimizer keeps no averages"):
        model_of().evaluate(X, Y, callbacks=[SwapEMAWeights()])


def test_what_there_is_not_says_so():
    with pytest.raises(NotImplementedError, match=r"TensorBoard: nbdense writes no event files; CSVLogger"):
        callbacks.TensorBoard(log_dir="logs")
    assert not hasattr(callbacks, "RemoteMonitor")
    model = model_of()
    model.fit(X, Y, epochs=1, callbacks=[callbacks.ProgbarLogger(), EarlyStopping("loss")], verbose=0)
    assert model.history.epoch == [0]
