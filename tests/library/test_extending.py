"""Things from outside: each is one object, and trains, is saved, loaded, quantized and exported as the library's do."""

import math
from dataclasses import dataclass

import numpy as np
import onnxruntime
import pytest

import nbdense as nb
from nbdense import activations, losses, optimizers
from nbdense._compile.policy import JIT
from nbdense.initializers import Initializer
from nbdense.metrics import COLLECTED, Metric


def write_bump(graph, source, target):
    one = graph.constant(f"{target}_one", 1.0, np.float32)
    square = graph.node("Mul", [source, source], f"{target}_square")
    graph.node("Div", [source, graph.node("Add", [square, one], f"{target}_below")], target)


BUMP = activations.custom("bump", lambda z: z / (1 + z * z), lambda z: (1 - z * z) / (1 + z * z) ** 2, onnx=write_bump)
QUARTIC = losses.custom("quartic", lambda y, t: (y - t) ** 4, lambda y, t: 4 * (y - t) ** 3)


class Signum(optimizers.Optimizer):
    """Bernstein et al. 2018: the sign of a running mean of the gradients."""

    name, fields, base_slots = "Signum", ("momentum",), 1

    def __init__(self, learning_rate=0.01, momentum=0.9, **common):
        super().__init__(learning_rate, **common)
        self.momentum = momentum

    @staticmethod
    def step(weight, gradient, mean, rate, iteration, momentum):
        mean = momentum * mean + (1 - momentum) * gradient
        return weight - rate * (1.0 if mean > 0 else -1.0 if mean < 0 else 0.0), mean


class Decaying(optimizers.Optimizer):
    """Gradient descent whose rate falls with the root of the iteration: no slots, no fields."""

    name = "Decaying"

    @staticmethod
    def step(weight, gradient, rate, iteration):
        return weight - rate * gradient / math.sqrt(iteration)


class Checkered(Initializer):
    def __init__(self, size=0.1):
        self.size = size

    def __call__(self, shape, random=None, fan_in=None):
        return self.size * np.where(np.indices(shape).sum(0) % 2, 1.0, -1.0)


@dataclass(frozen=True)
class Within(Metric):
    name: str = "within"
    code: int = COLLECTED
    limit: float = 0.5
    collects = True
    direction = "max"

    def compute(self, targets, outputs):
        return float(np.mean(np.abs(targets - outputs) < self.limit))


OBJECTS = {"bump": BUMP, "quartic": QUARTIC, "Signum": Signum, "Checkered": Checkered, "Within": Within}


def data(rows=40):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(rows, 6))
    return x, np.stack([x[:, 0] - x[:, 1], np.abs(x[:, 2])], 1)


def outsiders(dtype="float64", optimizer=None):
    rows = [nb.Input((6,)), nb.Dense(8, BUMP, kernel_initializer=Checkered(0.3)), nb.Dense(2)]
    model = nb.Sequential(rows, dtype=dtype)
    model.seed = 5
    model.compile(optimizer or Signum(0.01), QUARTIC, metrics=[Within(limit=0.7)])
    return model


def test_all_of_them_train():
    x, y = data()
    model = outsiders()
    kernel = model.get_weights()[0]
    np.testing.assert_array_equal(np.abs(kernel), np.full((6, 8), 0.3))
    assert set(np.sign(kernel[0, :2])) == {-1.0, 1.0}
    first = model.evaluate(x, y, verbose=0, return_dict=True)
    z = x @ kernel
    outputs = z / (1 + z * z) @ model.get_weights()[2]
    np.testing.assert_allclose(first["loss"], np.mean((outputs - y) ** 4), rtol=1e-10)
    assert first["within"] == np.mean(np.abs(outputs - y) < 0.7)
    history = model.fit(x, y, 8, epochs=20, verbose=0).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.double)])
@pytest.mark.parametrize("clip", [{}, {"clipnorm": 0.01, "weight_decay": 0.1, "use_ema": True}])
def test_an_optimizers_steps(dtype, clip):
    """Its formula, element by element, of the gradients that the model has."""
    x, y = data(12)
    model = outsiders(dtype, Signum(0.05, 0.8, **clip))
    means = [np.zeros_like(weights) for weights in model.get_weights()]
    for _ in range(4):
        weights = model.get_weights()
        model.forward(x, training=True)
        model.backward(y)
        gradients = [np.array(gradient) for gradient in model.gradients.values()]
        model.apply_gradients()
        for k, gradient in enumerate(gradients):
            factor = min(1.0, 0.01 / np.linalg.norm(gradient)) if "clipnorm" in clip else 1.0
            means[k] = 0.8 * means[k] + 0.2 * gradient * factor
            decayed = weights[k] * (1 - 0.05 * clip.get("weight_decay", 0.0))
            expected = decayed - 0.05 * np.sign(means[k])
            np.testing.assert_allclose(model.get_weights()[k], expected, rtol=1e-5, atol=1e-6)


def test_an_optimizer_without_slots_sees_the_iteration():
    x, y = data(12)
    model = outsiders(optimizer=Decaying(0.05))
    for iteration in range(1, 4):
        weights = model.get_weights()
        model.forward(x, training=True)
        model.backward(y)
        gradients = [np.array(gradient) for gradient in model.gradients.values()]
        model.apply_gradients()
        for weight, gradient, moved in zip(weights, gradients, model.get_weights(), strict=True):
            np.testing.assert_allclose(moved, weight - 0.05 * gradient / iteration**0.5, rtol=1e-12, atol=1e-14)


def test_files_name_them_and_custom_objects_bring_them(tmp_path):
    """A loaded model goes on bit for bit, with the optimizer's slots."""
    x, y = data()
    model = outsiders()
    model.fit(x, y, 8, epochs=2, verbose=0)
    model.save(tmp_path / "m.nbd")
    loaded = nb.load_model(tmp_path / "m.nbd", custom_objects=OBJECTS)
    assert type(loaded.optimizer) is Signum and loaded.loss is QUARTIC
    for one in (model, loaded):
        one.fit(x, y, 8, epochs=3, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for name in OBJECTS:
        with pytest.raises(ValueError, match=rf"(?i){name}.*custom_objects"):
            nb.load_model(tmp_path / "m.nbd", custom_objects={key: OBJECTS[key] for key in OBJECTS if key != name})


@pytest.mark.parametrize("options", [{}, {"scheme": "dynamic"}, {"scheme": "weight_only"}], ids=str)
def test_quantize_and_export(options, tmp_path):
    """Integers by a table of the activation, or floats by its own nodes; the rest leaves nothing in these files."""
    x, y = (part.astype(np.float32) for part in data(200))
    model = outsiders("float32")
    model.fit(x, y, 8, epochs=5, verbose=0)
    q = nb.quantize(model, x, **options)
    assert np.abs(q.predict(x) - model.predict(x)).max() < 0.05 * np.ptp(model.predict(x))
    for one, name, tolerance in ((model, "float.onnx", 1e-5), (q, "quantized.onnx", 1e-2)):
        path = str(tmp_path / name)
        nb.to_onnx(one, path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (outputs,) = session.run(None, {session.get_inputs()[0].name: x})
        np.testing.assert_allclose(outputs, one.predict(x), atol=tolerance)


def test_what_is_no_optimizer():
    class Empty(optimizers.Optimizer):
        name = "Empty"

    class One(Signum):
        name = "One"

        @staticmethod
        def step(weight, gradient, mean, rate, iteration, momentum):
            return weight - rate * gradient

    x, y = data(8)
    with pytest.raises(NotImplementedError, match=r"Empty must define step\(weight, gradient, \.\.\.\)"):
        outsiders(optimizer=Empty()).fit(x, y, verbose=0)
    if JIT:
        with pytest.raises(ValueError, match="optimizer 'One': numba cannot compile its function 'step': .*2 real num"):
            outsiders(optimizer=One()).fit(x, y, verbose=0)
    with pytest.raises(ValueError, match="'flat': onnx must be a function of"):
        activations.custom("flat", lambda z: z, lambda z: 1.0, onnx="Identity")
