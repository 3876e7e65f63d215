"""Losses from functions of NumPy: what is recorded of them, its derivative, files, and what is refused."""

import math

import numpy as np
import pytest

import nbdense as nb
from nbdense import losses
from nbdense.losses import LOSSES, FunctionLoss, Loss
from nbdense.losses.tracing import record
from nbdense.training import phases
from tests.reference import naive
from tests.support.builders import draw_targets, make_loss, make_model, variants, workspace_and_data


def loss_and_gradient(loss, z, y, dtype="float64"):
    """A model's loss of outputs z, and its derivative by them."""
    z = np.asarray(z, dtype)
    model = make_model([z.shape[1]] * 2, ["linear"], loss, dtype=dtype)
    model.set_weights([np.eye(z.shape[1]), np.zeros(z.shape[1])])
    workspace, data = workspace_and_data(model, z, y)
    layers = model.network.layers
    _, totals = workspace.run(phases.training(layers, updates=False), data)
    return totals[0, 0] / len(z), workspace.tensor(layers[-1], "output", len(z), deltas=True)[:, 0].copy()


COMPILED = [loss for kind in dict.fromkeys(LOSSES.values()) for loss in variants(kind) if not loss.is_traced]


@pytest.mark.kernels
@pytest.mark.double
@pytest.mark.filterwarnings("ignore:.* after 'linear'")
@pytest.mark.parametrize("loss", [loss for loss in COMPILED if not loss.sparse], ids=repr)
def test_the_compiled_forms_are_what_is_recorded_of_the_functions(loss):
    """One truth: a loss that the training program has ready, and the function of its name."""
    rng = np.random.default_rng(5)
    y = draw_targets(rng, loss, 7, 5)
    z = rng.uniform(0.03, 0.97, (7, 5)) if not getattr(loss, "from_logits", False) else rng.normal(0, 3, (7, 5))
    recorded = FunctionLoss(lambda y_true, y_pred: type(loss).function(y_true, y_pred, **loss.arguments), loss.kind)
    expected, found = loss_and_gradient(loss, z, y), loss_and_gradient(recorded, z, y)
    assert found[0] == pytest.approx(expected[0], rel=1e-12)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-9, atol=1e-13)


# -- functions as users write them ----------------------------------------------------------------------------------


def asymmetric(y_true, y_pred):
    error = y_true - y_pred
    return np.mean(np.where(error > 0, 3.0 * error**2, np.abs(error)), axis=-1)


def weighted(y_true, y_pred):
    weights = 1 + 4 * (y_true > 0.5) + (y_true < -0.5) * ~(y_pred > 0)
    return np.sum(weights * np.square(y_pred - y_true), axis=-1) / np.sum(weights, axis=1)


def root(y_true, y_pred):
    return np.sqrt(np.mean((y_true - y_pred) ** 2, axis=-1) + 1e-6)


def smooth_l1(y_true, y_pred):
    difference = abs(y_true - y_pred)
    return np.where(difference < 1, 0.5 * difference**2, difference - 0.5).mean(axis=-1)


def of_everything(y_true, y_pred):
    return 0.5 * np.mean(np.square(y_true - y_pred)) + 0.1 * np.mean(np.abs(y_pred)) - 1


def of_each_number(y_true, y_pred):
    return np.log(np.cosh(y_pred - y_true))


def correlated(y_true, y_pred):
    a, b = (y - np.mean(y, axis=-1, keepdims=True) for y in (y_true, y_pred))
    return 1 - np.sum(a * b, axis=-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def softmaxed(y_true, y_pred):
    z = y_pred - np.max(y_pred, axis=-1, keepdims=True)
    p = np.exp(z) / np.sum(np.exp(z), axis=-1, keepdims=True)
    return -np.sum(y_true * np.log(np.clip(p, 1e-7, 1.0)), axis=-1)


def of_many_functions(y_true, y_pred):
    e = y_pred - y_true
    f = np.tanh(e) + np.sin(e) * np.cos(e) + np.arctan(e) + np.sinh(e) / np.cosh(e) + np.expm1(-np.square(e))
    g = np.log1p(e**2) + np.log2(e * e + 2) + np.log10(2 + e**2) + np.sqrt(1 + e**2) + np.logaddexp(e, -e)
    h = np.maximum(e, 0.3) + np.minimum(e, -0.2) + np.power(2 + np.tan(e / 9), 1.7) + np.reciprocal(2.5 + np.tanh(e))
    return np.mean(f + g + h + 2.0 ** np.tanh(e) + (+e) / np.exp(-e / 5), axis=-1)


def of_extremes(y_true, y_pred):
    e = np.abs(y_pred - y_true)
    count = y_pred.shape[-1]
    return np.max(e, axis=-1) + np.min(e, axis=-1) / count + e.sum(axis=-1) / e.shape[1] + np.linalg.norm(e, 1, axis=-1)


def of_shapes(y_true, y_pred):
    middle = np.expand_dims(np.mean(y_true, axis=-1), -1)
    e = np.squeeze(np.mean(np.square(y_pred - middle), axis=-1, keepdims=True), axis=-1)
    return e + np.mean(np.zeros_like(y_pred) + 3 * np.ones_like(y_pred), axis=-1) + np.full_like(e, 2.0)


FUNCTIONS = [asymmetric, weighted, root, smooth_l1, of_everything, of_each_number, correlated, softmaxed]
FUNCTIONS += [of_many_functions, of_extremes, of_shapes]


@pytest.mark.kernels
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [pytest.param("float64", 1e-11, marks=pytest.mark.double), ("float32", 3e-5)]
)
def test_functions_and_their_derivatives(function, dtype, tolerance):
    """The value is the function's own; the derivative central differences'."""
    rng = np.random.default_rng(len(function.__name__))
    z, y = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))
    value, gradient = loss_and_gradient(function, z, y, dtype)
    assert value == pytest.approx(float(np.mean(function(y, z))), rel=tolerance)
    expected = naive.numerical_gradient(lambda moved: float(np.mean(function(y, moved))), z)
    np.testing.assert_allclose(gradient, expected, rtol=max(tolerance, 1e-6), atol=max(tolerance, 1e-9))


@pytest.mark.kernels
@pytest.mark.double
@pytest.mark.parametrize(
    ("function", "z", "slope"),
    [
        (lambda t, y: np.abs(y - t), 0.0, 0.0),
        (lambda t, y: np.maximum(1 - y, 0.0), 1.0, 0.0),
        (lambda t, y: np.maximum(y, -y), 0.0, 0.0),
        (lambda t, y: np.clip(y, 0.0, 1.0), 1.0, 1.0),  # an end is inside
        (lambda t, y: np.clip(y, 0.0, 1.0), 1.5, 0.0),
        (lambda t, y: np.clip(y, None, 1.0), -2.0, 1.0),
        (lambda t, y: np.where(y > 2, y, 0.5 * y), 2.0, 0.5),
        (lambda t, y: y**3, 0.0, 0.0),
        (lambda t, y: y**0.5, 4.0, 0.25),
        (lambda t, y: 2 / y**-1, 3.0, 2.0),
        (lambda t, y: np.sign(y) * y, -3.0, -1.0),
        (lambda t, y: np.where(np.isnan(t) | (t != t), 0.0, y), 3.0, 1.0),
        (lambda t, y: np.maximum(y - 1, 0) * np.logical_not(y >= 9), 3.0, 1.0),
    ],
)
def test_kinks(function, z, slope):
    assert loss_and_gradient(function, [[z]], np.zeros((1, 1)))[1] == slope


@pytest.mark.kernels
@pytest.mark.double
def test_extremes_that_are_equal_share_a_slope():
    """As in Keras: evenly."""
    gradient = loss_and_gradient(lambda t, y: np.max(y - t, axis=-1), [[1.0, 3.0, 3.0]], np.zeros((1, 3)))[1]
    np.testing.assert_allclose(gradient, [[0, 0.5, 0.5]])


def test_a_function_trains_as_the_loss_that_it_is():
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(12, 4)), rng.normal(size=(12, 2))
    found = []
    for loss in (lambda y_true, y_pred: np.mean(np.square(y_true - y_pred), axis=-1), losses.mean_squared_error, "mse"):
        model = make_model([4, 3, 2], ["tanh", "sigmoid"], loss, "adam", metrics=["mae"])
        history = model.fit(x, y, 5, epochs=2, validation_split=0.25, sample_weight=np.arange(12.0), verbose=0).history
        found.append([*model.network.params, *history["loss"], *history["val_loss"]])
    np.testing.assert_allclose(found[0], found[2], rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(found[1], found[2])


def test_positions_are_rows():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(6, 3, 4)), rng.normal(size=(6, 3, 5))
    model = nb.Sequential([nb.Input((3, 4)), nb.Dense(5)], dtype="float64")
    model.compile("sgd", correlated)
    assert model.evaluate(x, y) == pytest.approx(np.mean(correlated(y, model.predict(x))), rel=1e-12)


class Scaled(Loss):
    """A class as users of Keras write it."""

    def __init__(self, factor=1.0, **options):
        super().__init__(**options)
        self.factor = factor

    def call(self, y_true, y_pred):
        return self.factor * np.mean(np.square(y_true - y_pred), axis=-1)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


class Doubled(losses.MeanSquaredError):
    def call(self, y_true, y_pred):
        return 2 * super().call(y_true, y_pred)


def test_a_users_class():
    rng = np.random.default_rng(4)
    z, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    expected, gradient = loss_and_gradient("mse", z, y)
    assert Scaled(3.0).name == "scaled" and Scaled(3.0, dtype="float64")(y, z) == pytest.approx(3 * expected)
    for loss, factor in ((Scaled(3.0), 3), (Doubled(), 2)):
        value, slope = loss_and_gradient(loss, z, y)
        assert value == pytest.approx(factor * expected) and loss.is_traced
        np.testing.assert_allclose(slope, factor * gradient)


@pytest.mark.parametrize("kind", [kind for kind in dict.fromkeys(LOSSES.values()) if make_loss(kind).is_traced])
def test_losses_that_are_compiled_on_demand_come_back(kind, tmp_path):
    """Trained, saved and loaded, a model goes on bit for bit."""
    rng = np.random.default_rng(8)
    loss = make_loss(kind)
    x, y = rng.normal(size=(20, 3)), draw_targets(rng, loss, 20, 4)
    model = make_model([3, 4], ["softmax"], loss, "adam")
    history = model.fit(x, y, 5, epochs=8, verbose=0).history["loss"]
    assert history[-1] < history[0]
    model.save(tmp_path / "m.nbd")
    again = nb.load_model(tmp_path / "m.nbd")
    assert again.loss == loss
    for one in (model, again):
        one.fit(x, y, 5, epochs=2, verbose=0)
    np.testing.assert_array_equal(model.network.params, again.network.params)


@pytest.mark.parametrize(("loss", "named"), [(asymmetric, "asymmetric"), (Scaled(2.0), "Scaled")])
def test_files_name_ones_own(loss, named, tmp_path):
    x, y = np.random.default_rng(1).normal(size=(2, 10, 2))
    model = make_model([2, 2], ["linear"], loss)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "m.nbd")
    for given in (loss, losses.for_training(loss)) if callable(loss) and not isinstance(loss, Loss) else (Scaled,):
        again = nb.load_model(tmp_path / "m.nbd", custom_objects={named: given})
        assert again.evaluate(x, y) == model.evaluate(x, y)
    with pytest.raises(ValueError, match=rf"{named}.*custom_objects"):
        nb.load_model(tmp_path / "m.nbd")


def chosen(y_true, y_pred):
    return y_pred if y_pred > 0 else -y_pred


def looped(y_true, y_pred):
    return sum(np.abs(a - b) for a, b in zip(y_true, y_pred, strict=True))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (chosen, r"loss 'chosen' cannot be traced: a decision by its values \(if, .*np.where.*losses.custom\(name"),
        (looped, "'looped' cannot be traced: a loop over it"),
        (lambda t, y: np.median(y - t, axis=-1), "loss 'lambda' cannot be traced: np.median"),
        (lambda t, y: np.add.reduce(y - t, axis=-1), "np.add.reduce"),
        (lambda t, y: np.add(y, t, dtype="float32"), r"np.add\(dtype=\)"),
        (lambda t, y: np.mean(y - t, axis=0), r"np.mean\(axis=0\) of shape \(rows, columns\) .*axis=-1"),
        (lambda t, y: np.sum(np.square(y - t)), r"np.sum\(axis=None\)"),
        (lambda t, y: np.sqrt(np.mean(np.square(y - t))), "np.sqrt of a mean over all rows.*with axis=-1"),
        (lambda t, y: np.mean(t) * np.mean(y), "np.multiply of a mean over all rows"),
        (lambda t, y: y - np.mean(y), "np.subtract of a mean over all rows"),
        (lambda t, y: y - np.mean(y, axis=-1), r"np.subtract of shapes \(rows, columns\) and \(rows,\).*keepdims=True"),
        (lambda t, y: np.array([1.0, 2.0]) * (y - t), r"an array of shape \(2,\) beside y_true and y_pred"),
        (lambda t, y: y * "2", "a str beside|np.multiply"),
        (lambda t, y: y[:, 0] - t[:, 0], r"a selection by \[...\]"),
        (lambda t, y: math.log(y), "float.., or a function of Python's math module"),
        (lambda t, y: np.mean(np.square(y - t), where=t > 0), "np.mean: .*where"),
        (lambda t, y: (y - t) / y.shape[0], "the number of rows"),
        (lambda t, y: (y - t).dot(t), r"\.dot cannot be compiled"),
        (lambda t, y: np.linalg.norm(y - t, 3, axis=-1), r"np.linalg.norm\(ord=3\)"),
        (lambda t, y: np.asarray(y) - t, "a conversion to an array"),
        (lambda t, y: np.expand_dims(y, 0), r"np.expand_dims\(axis=0\)"),
        (lambda t, y: np.square(t), "does not depend on y_pred"),
        (lambda t, y: y > t, "does not depend on y_pred, or has no slope"),
        (lambda t, y: 1.0, "it returns float"),
        (lambda t, y: len(y), r"len\(\)"),
        (lambda t, y: int(y), r"int\(\)"),
    ],
)
def test_what_cannot_be_recorded(function, words):
    with pytest.raises(ValueError, match=words):
        make_model([2, 2], ["linear"], function)


def test_errors_of_the_function_are_its_own():
    with pytest.raises(ZeroDivisionError):
        record("broken", lambda y_true, y_pred: 1 / 0)
    with pytest.raises(NotImplementedError, match=r"Loss must define call\(self, y_true, y_pred\)"):
        make_model([2, 2], ["linear"], Loss())
