"""The seam for backends: whatever runs a network runs it on the backend that `nbdense.backends` chooses."""

from collections import Counter

import numpy as np
import pytest

from nbdense import backends
from nbdense.backends.cpu.backend import CpuBackend
from nbdense.engine import program
from nbdense.export.networks import with_predict
from nbdense.inspection.attribution import importance
from nbdense.layers import BatchNormalization, Dense, Dropout, Input
from nbdense.models import Sequential
from nbdense.quant import quantize, quantize_aware, sparsify
from nbdense.quant.kernels import dynamic, integer, sparse

ENTRIES = [
    (program, "run_steps"),
    (program, "predict"),
    (program, "predict_by_columns"),
    (program, "round_kernels"),
    (integer, "predict"),
    (sparse, "predict"),
    (dynamic, "predict_dynamic"),
]


class Distant:
    """The CPU's backend as if on another device: what it has is to be had as copies alone. It counts its calls."""

    def __init__(self):
        self.calls, self.cpu, self.depth = Counter(), CpuBackend(), 0

    def call(self, name, function, *arguments, **options):
        self.calls[name] += 1
        self.depth += 1
        try:
            return function(*arguments, **options)
        finally:
            self.depth -= 1

    def workspace(self, *arguments):
        return DistantWorkspace(self, self.call("workspace", self.cpu.workspace, *arguments))

    def predict(self, network, x):
        return self.call("predict", self.cpu.predict, network, x)

    def predictor(self, network):
        return DistantPredictor(self, self.call("predictor", self.cpu.predictor, network), "predict")

    def load(self, packed):
        return DistantPredictor(self, self.call("load", self.cpu.load, packed), "predict_integers")


class DistantWorkspace:
    def __init__(self, backend, near):
        self._backend, self._near = backend, near
        self.network, self.batch, self.state, self.steps_at_once = near.network, near.batch, near.state, 3
        self.nbytes = near.nbytes

    def plan(self, *arguments, **options):
        return DistantPlan(self._backend, self._near.plan(*arguments, **options))

    def run(self, *arguments, **options):
        return self._backend.call("run", self._near.run, *arguments, **options)

    def tensor(self, *arguments, **options):
        return copied(self._near.tensor(*arguments, **options))

    def weights(self, rows):
        return copied(self._near.weights(rows))

    def targets(self, rows):
        return copied(self._near.targets(rows))

    def set_deltas(self, row, deltas):
        self._near.set_deltas(row, deltas)


class DistantPlan:
    def __init__(self, backend, near):
        self._backend, self._near = backend, near

    def run(self, *arguments, **options):
        return self._backend.call("run", self._near.run, *arguments, **options)

    def again(self, *arguments):
        return self._backend.call("run", self._near.again, *arguments)


class DistantPredictor:
    def __init__(self, backend, near, name):
        self._backend, self._near, self._name = backend, near, name

    def predict(self, *arguments):
        return self._backend.call(self._name, self._near.predict, *arguments)


def copied(view):
    copy = view.copy()
    copy.flags.writeable = False
    return copy


@pytest.fixture
def distant(monkeypatch):
    """Another backend in the CPU's place; compiled programs refuse whoever does not come through it."""
    backend = Distant()

    def guarded(entry):
        def call(*arguments):
            assert backend.depth, "not through the backend"
            return entry(*arguments)

        return call

    for module, name in ENTRIES:
        entry = getattr(module, name)
        monkeypatch.setattr(module, name, guarded(entry))
    monkeypatch.setattr(backends, "_current", backend)
    return backend


def make_model():
    model = Sequential([Input((5,)), Dense(9, "tanh"), BatchNormalization(), Dropout(0.2), Dense(3, "softmax")])
    model.seed = 3
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy", "auc"])
    return model


def data(rows=40):
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 5)).astype(np.float32), rng.integers(0, 3, rows)


def many(act, x, y):
    return [act(x[first:], y[first:]) for first in (0, 0, 8, 8, 0)]


def own_steps(model, x, y):
    parts = []
    for _ in range(3):
        outputs = model.forward(x, training=True)
        parts += [outputs, model.backward(outputs - 0.5)]
        model.apply_gradients()
    return [*parts, model.gradients, model.get_weights()]


def quantized(model, x, scheme):
    made = quantize(model, x, scheme=scheme)
    return [made.predict(x), *([made.predict_integers(x)] if scheme == "static" else [])]


USES = {  # by name: what a user does, and the backend's methods that it needs
    "fit": (
        lambda m, x, y: [m.fit(x, y, 8, epochs=2, validation_split=0.2, verbose=0).history, m.get_weights()],
        {"workspace", "run"},
    ),
    "train_on_batch": (lambda m, x, y: [many(m.train_on_batch, x, y), m.get_weights()], {"workspace", "run"}),
    "test_on_batch": (lambda m, x, y: many(m.test_on_batch, x, y), {"workspace", "run"}),
    "evaluate": (lambda m, x, y: m.evaluate(x, y, batch_size=7), {"workspace", "run"}),
    "predict": (lambda m, x, y: [m.predict(x), m.predict(x[3:]), m.predict(x.tolist())], {"predictor", "predict"}),
    "own steps": (own_steps, {"workspace", "run"}),
    "diagnose": (lambda m, x, y: m.diagnose(x, y).to_dict(), {"workspace", "run"}),
    "saliency": (lambda m, x, y: [m.saliency(x), m.saliency(x, 1)], {"workspace", "run"}),
    "importance": (lambda m, x, y: importance(m, x, y, repeats=1).importances, {"workspace", "run"}),
    "summary": (lambda m, x, y: m.summary(), {"workspace"}),
    "static": (lambda m, x, y: quantized(m, x, "static"), {"workspace", "run", "load", "predict_integers"}),
    "weight only": (lambda m, x, y: quantized(m, x, "weight_only"), {"load", "predict_integers"}),
    "dynamic": (lambda m, x, y: quantized(m, x, "dynamic"), {"load", "predict_integers"}),
    "sparse": (
        lambda m, x, y: [sparsify(m, choice="1x1").predict(x[:n]) for n in (2, 40)],
        {"load", "predict_integers"},
    ),
    "quantize_aware": (lambda m, x, y: quantize_aware(m, x).predict(x), {"workspace", "run", "predict"}),
    "export": (lambda m, x, y: with_predict(m.network).predict(x), {"predict"}),
}


@pytest.mark.parametrize("use", USES)
def test_everything_runs_on_the_backend(use, request):
    act, methods = USES[use]
    expected = act(make_model(), *data())
    distant = request.getfixturevalue("distant")
    np.testing.assert_equal(act(make_model(), *data()), expected)
    assert methods <= set(distant.calls)
