"""Bitwise the same weights: with any number of threads, stopped and resumed, in this process or the next."""

import json
import threading

import numpy as np
import pytest

from nbdense._compile import thread_pool
from nbdense.models import load_model
from tests.support.builders import make_model
from tests.support.python_process import run_python

# Each digest is of the weights after the same training; "parallel" counts calls of the parallel entries.
THREADS = """
import hashlib, json, sys
import numpy as np
import nbdense as nb
from tests.support.builders import make_model
from nbdense._compile import thread_pool
from nbdense.engine import program

calls = {"serial": 0, "parallel": 0}
def spied(entry, threads_of):
    def call(*arguments):
        calls["parallel" if threads_of(arguments) > 1 else "serial"] += 1
        return entry(*arguments)
    return call

program.run_steps = spied(program.run_steps, lambda arguments: arguments[4]["threads"][0])
program.predict = spied(program.predict, lambda arguments: arguments[-1])
rng = np.random.default_rng(0)
x, y = rng.normal(size=(1000, 70)).astype(np.float32), rng.integers(0, 7, 1000)
found = []
for threads in (1, 2, 3):
    nb.set_num_threads(threads)
    assert thread_pool.available() == threads
    calls.update(serial=0, parallel=0)
    model = make_model([70, 130, 50, 7], ["tanh", "relu", "softmax"], "sparse_categorical_crossentropy", "adam",
                       metrics=["accuracy"], dtype="float32")
    history = model.fit(x, y, 250, epochs=3, validation_data=(x[:333], y[:333]), verbose=0).history
    outputs = np.concatenate([model.predict(x), model.predict(x[:1])])
    digest = hashlib.sha256(model.network.params.tobytes() + model.state.tobytes() + outputs.tobytes())
    found.append([threads, digest.hexdigest() + json.dumps(history), dict(calls)])
print(json.dumps(found))
"""


def run(script, **environment):
    return run_python(script, **environment)[0]


PACE = """
import itertools, json
import numpy as np
import nbdense as nb
from nbdense import schedules
from tests.support.builders import make_model
from nbdense._compile import pace, thread_pool

rng = np.random.default_rng(0)
x, y = rng.normal(size=(3000, 70)).astype(np.float32), rng.integers(0, 7, 3000)
used, found = [], []

def train():
    model = make_model([70, 300, 50, 7], ["tanh", "relu", "softmax"], "sparse_categorical_crossentropy",
                       nb.Adam(schedules.CosineDecay(0.01, 60), use_ema=True), metrics=["accuracy"], dtype="float32")
    history = model.fit(x, y, 300, epochs=6, validation_data=(x[:999], y[:999]), verbose=0).history
    found.append([history, model.get_weights(), model.state.copy(), model.predict(x), model.evaluate(x, y)])

nb.set_num_threads(1)
train()
nb.set_num_threads(3)
few, tries = itertools.cycle([0, 2, 1, 0, 1]), itertools.cycle([True, False, False])

def learn(self, threads, *_):
    used.append(threads)
    self._few = next(few)

pace.Pace.learn, pace.Pace.is_trying = learn, lambda self: next(tries)
train()
np.testing.assert_equal(found[1], found[0])
print(json.dumps(sorted(set(used))))
"""


def test_a_run_that_goes_on_with_other_threads_changes_no_bit():
    """Cut where all are tried again, too: with schedules and averages, which count steps."""
    assert json.loads(run(PACE, NUMBA_NUM_THREADS="3", OMP_NUM_THREADS="3")) == [1, 2, 3]


def test_threads_change_no_bit():
    """One, two and three threads (more than there may be cores), where the work is really split."""
    found = json.loads(run(THREADS, NUMBA_NUM_THREADS="3", OMP_NUM_THREADS="3"))
    assert len({digest for _, digest, _ in found}) == 1
    for threads, _, calls in found:
        if threads == 1:
            assert calls["parallel"] == 0
        else:
            assert calls["parallel"] >= 2, "the parallel program did not run"


def data():
    rng = np.random.default_rng(5)
    return rng.normal(size=(50, 6)), rng.integers(0, 3, 50)


def trained(epochs, optimizer="adam"):
    model = make_model([6, 9, 3], ["tanh", "softmax"], "sparse_categorical_crossentropy", optimizer, dtype="float32")
    if epochs:
        model.fit(*data(), 8, epochs=epochs, verbose=0)
    return model


RESUME = """
from nbdense.models import load_model
from tests.training.test_determinism import data
model = load_model({path!r})
model.fit(*data(), 8, epochs=2, verbose=0)
model.save({path!r})
"""


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_resumed_in_a_new_process(optimizer, tmp_path):
    """Shuffled: the order of rows goes on with the epochs that the file counted."""
    model = trained(3, optimizer)
    model.save(tmp_path / "m")
    run(RESUME.format(path=str(tmp_path / "m")))
    other, whole = load_model(tmp_path / "m"), trained(5, optimizer)
    assert whole.optimizer.iterations == other.optimizer.iterations == 35
    assert (whole.network.params != model.network.params).any()
    np.testing.assert_array_equal(other.network.params, whole.network.params)
    np.testing.assert_array_equal(other.state[1:], whole.state[1:])


def test_two_fits_are_one():
    model = trained(2)
    model.fit(*data(), 8, epochs=3, verbose=0)
    np.testing.assert_array_equal(model.network.params, trained(5).network.params)


def test_slices_change_no_bit(monkeypatch):
    """The length of a compiled slice depends on the clock; the weights do not."""
    from nbdense.training import loop

    expected = trained(3).network.params
    for seconds in (0.0, 1e9):
        monkeypatch.setattr(loop, "SLICE_SECONDS", seconds)
        np.testing.assert_array_equal(trained(3).network.params, expected)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_many_steps_leave_what_single_ones_do(optimizer, threads, monkeypatch):
    """The last step's gradients too, each where it belongs, and padding of zeros, where other layers have columns."""
    monkeypatch.setattr(thread_pool, "worthwhile", lambda flops: threads)
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(40, 150)), rng.integers(0, 3, 40)

    def fresh():
        layers = [150, 130, 128, 3], ["relu", "tanh", "softmax"]
        return make_model(*layers, "sparse_categorical_crossentropy", optimizer, dtype="float32")

    model, other = fresh(), fresh()
    assert model.network.slabs.size > 9
    model.fit(x, y, 8, epochs=2, shuffle=False, verbose=0)
    for first in [*range(0, 40, 8)] * 2:
        other.train_on_batch(x[first : first + 8], y[first : first + 8])
    np.testing.assert_array_equal(model.network.params, other.network.params)
    np.testing.assert_array_equal(model.state, other.state)
    assert (model.state[0] != 0).any()


def test_seeds_name_weights_and_orders():
    import nbdense as nb

    def fit(seed):
        if seed is not None:
            nb.set_random_seed(seed)
        model = nb.Sequential([nb.Dense(5, "tanh"), nb.Dense(3, "softmax")])
        model.compile("adam", "sparse_categorical_crossentropy")
        x, y = data()
        model.build(6)
        initial = model.network.params.copy()
        model.fit(x, y, 8, verbose=0)
        return initial, model.network.params

    first, again, next_one, other = fit(1), fit(1), fit(None), fit(2)
    np.testing.assert_array_equal(first, again)
    assert (first[0] != next_one[0]).any(), "the sequence of seeds goes on"
    assert (first[0] != other[0]).any()


def test_predict_from_several_threads():
    """It releases the GIL and shares nothing: same bits as alone, small and large."""
    model = trained(1)
    rng = np.random.default_rng(6)
    inputs = [rng.normal(size=(rows, 6)).astype(np.float32) for rows in (1, 3, 500, 40_000)] * 3
    expected = [model.predict(x) for x in inputs]
    found = [None] * len(inputs)

    def work(i):
        found[i] = model.predict(inputs[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for got, value in zip(found, expected, strict=True):
        np.testing.assert_array_equal(got, value)
