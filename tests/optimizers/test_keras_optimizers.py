"""Optimizers, schedules, RMSNormalization as users of Keras call them: names, arguments and values by Keras itself."""

import copy
import inspect
import json
import pickle

import numpy as np
import pytest

import nbdense as nb
from nbdense import optimizers
from nbdense.optimizers import OPTIMIZERS, SGD, Adam, schedules
from nbdense.optimizers.schedules import ExponentialDecay
from nbdense.training import loop
from tests.optimizers.test_optimizers import GOLDEN as STEPS
from tests.optimizers.test_optimizers import KERAS, SPLIT, fresh
from tests.optimizers.test_scheduled_steps import Sawtooth
from tests.support.builders import make_model
from tests.support.source_tree import ROOT

GOLDEN = json.loads((ROOT / "tests" / "golden" / "keras_optimizers.json").read_text(encoding="utf-8"))
SCHEDULES = GOLDEN["schedules"]


def test_all_optimizers_are_compared():
    assert set(GOLDEN["optimizers"]) == {kind.__name__ for kind in OPTIMIZERS.values()}


@pytest.mark.parametrize("name", GOLDEN["optimizers"])
def test_arguments_and_defaults(name):
    kind, golden = getattr(optimizers, name), GOLDEN["optimizers"][name]
    own, common = inspect.signature(kind).parameters, inspect.signature(optimizers.Optimizer).parameters
    for argument, default in golden["arguments"].items():
        assert (own if argument in own else common)[argument].default == default, argument
    config = kind().get_config()
    assert config.items() <= golden["config"].items()
    # What is not in it has the default that it has for every optimizer.
    assert {key: common[key].default for key in golden["config"].keys() - config.keys()}.items() <= golden[
        "config"
    ].items()


@pytest.mark.parametrize("name", GOLDEN["optimizers"])
def test_variables_have_the_order_and_shapes(name):
    """But for the product of Nadam's momenta, which is computed anew."""
    optimizer = getattr(optimizers, name)()
    assert [value.shape for value in optimizer.variables] == [(), ()] and not optimizer.built
    model = make_model([3, 5], ["linear"], optimizer=optimizer)
    model.fit(np.ones((8, 3)), np.ones((8, 5)), verbose=0)
    expected = [tuple(shape) for shape in GOLDEN["optimizers"][name]["variables"]]
    assert [value.shape for value in optimizer.variables] == (expected[:-1] if name == "Nadam" else expected)
    assert optimizer.built and all(view.any() for view in optimizer.variables[2:])


@pytest.mark.parametrize("case", SCHEDULES, ids=lambda case: "-".join([case["name"], *map(str, case["arguments"])]))
def test_schedules(case):
    kind = getattr(schedules, case["name"])
    parameters = inspect.signature(kind).parameters
    defaults = {name: None if each.default is each.empty else each.default for name, each in parameters.items()}
    if "staircase" in parameters:
        defaults["name"] = case["name"]  # ours is None, which makes the same of it
    assert defaults == case["signature"]
    schedule = kind(**case["arguments"])
    assert schedule.get_config() == case["config"]
    for other in (schedule, kind.from_config(case["config"]), schedules.deserialize(schedules.serialize(schedule))):
        # Keras takes cosines in float32, whatever the floatx.
        tolerance = {"rtol": 0, "atol": 1e-8} if "Cosine" in case["name"] else {"rtol": 1e-10}
        np.testing.assert_allclose([other(step) for step in range(25)], case["rates"], **tolerance)
    assert schedule(np.float32(3.0)) == schedule(np.array(3)) == schedule(3)
    assert np.isfinite(schedule(2.5)) and isinstance(schedule(2.5), float)
    optimizer = SGD(schedule)
    assert optimizer.learning_rate == schedule(0)
    optimizer.iterations = 7
    assert optimizer.learning_rate == schedule(7) and len(optimizer.variables) == 1


class Steps(schedules.LearningRateSchedule):
    def __init__(self, size):
        self.size = size

    def __call__(self, step):
        return self.size / (1 + step // 2)

    def get_config(self):
        return {"size": self.size}


def test_a_schedule_of_a_users_own():
    model = make_model([3, 2], ["linear"], optimizer=SGD(Steps(0.25)))
    x, y = np.ones((6, 3)), np.zeros((6, 2))
    model.set_weights([np.ones((3, 2)), np.zeros(2)])
    expected = model.get_weights()[0]
    for step in range(3):
        out = model.predict(x[:2])
        expected = expected - Steps(0.25)(step) * x[:2].T @ (2 * out / out.size)
        model.train_on_batch(x[:2], y[:2])
        np.testing.assert_allclose(model.get_weights()[0], expected, atol=1e-12)
    config = optimizers.serialize(model.optimizer)
    assert config["class_name"] == "SGD" and config["config"]["learning_rate"]["class_name"] == "Steps"
    for other in (
        optimizers.deserialize(json.loads(json.dumps(config)), {"Steps": Steps}),
        SGD.from_config(config["config"], {"Steps": Steps}),
    ):
        assert other.schedule.size == 0.25


def test_the_learning_rate_is_a_number_that_can_be_told():
    optimizer = Adam(0.5)
    rate = optimizer.learning_rate
    assert isinstance(rate, float) and rate == 0.5 and rate.numpy() == rate.value == 0.5 and rate.numpy().shape == ()
    rate.assign(0.25)
    assert optimizer.learning_rate == 0.25 and rate == 0.5
    optimizer.learning_rate.assign(optimizer.learning_rate * 0.5)
    assert optimizer.get_config()["learning_rate"] == optimizer.variables[1] == 0.125
    for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer)), copy.copy(optimizer)):
        assert other.learning_rate == 0.125 and other.get_config() == optimizer.get_config()
    assert type(pickle.loads(pickle.dumps(rate))) is type(copy.deepcopy(rate)) is float
    assert json.dumps({"rate": rate}) == '{"rate": 0.5}'
    with pytest.raises(TypeError, match="follows a schedule and cannot be set"):
        SGD(ExponentialDecay(0.1, 5, 0.5)).learning_rate.assign(0.1)


def test_names():
    """As Keras's of a first optimizer of its class: there is no count of all that were made."""
    assert [Adam().name, optimizers.AdamW().name, Adam(name="mine").name] == ["adam", "adam_w", "mine"]
    assert optimizers.deserialize(optimizers.serialize(Adam(name="mine"))).name == "mine"


def test_iterations_and_weights_can_be_set():
    x, y = np.random.default_rng(0).normal(size=(32, 3)), np.ones((32, 2))
    model = make_model([3, 2], ["linear"], optimizer=Adam(0.1))
    with pytest.raises(ValueError, match="Adam: set_weights needs a model whose slots it sets"):
        Adam().set_weights(model.optimizer.variables)
    model.fit(x, y, 8, epochs=2, verbose=0)
    assert model.optimizer.iterations.numpy() == 8 and int(model.optimizer.iterations) == 8
    kept, weights = [value.copy() for value in model.optimizer.variables], model.get_weights()
    model.train_on_batch(x, y)
    after = model.get_weights()
    other = make_model([3, 2], ["linear"], optimizer=Adam(0.3))
    _ = other.state
    other.set_weights(weights)
    other.optimizer.set_weights(kept)
    other.train_on_batch(x, y)
    for one, two in zip(other.get_weights(), after, strict=True):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(ValueError, match="Adam: set_weights takes arrays of shapes"):
        other.optimizer.set_weights(kept[:-1])


@pytest.mark.parametrize("batch_norm", [False, True])
def test_accumulation_in_fit_is_a_larger_batch(batch_norm):
    """Three batches' mean gradient is that of their rows together; only statistics of batches make a difference."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(36, 4)), rng.normal(size=(36, 2))
    models = []
    for batch, options in ((12, {}), (4, {"gradient_accumulation_steps": 3})):
        layers = [nb.Input((4,)), nb.Dense(6, "tanh"), *([nb.BatchNormalization()] if batch_norm else []), nb.Dense(2)]
        model = nb.Sequential(layers, dtype="float64")
        model.seed = 4
        model.compile(Adam(0.05, clipnorm=0.1, weight_decay=0.1, **options), "mse", ["mae"])
        history = model.fit(x, y, batch, epochs=2, shuffle=False, verbose=0).history
        assert model.optimizer.iterations == 6 and len(history["loss"]) == len(history["mae"]) == 2
        models.append(model)
    whole, parts = models
    same = [np.allclose(a, b, atol=1e-12) for a, b in zip(whole.get_weights(), parts.get_weights(), strict=True)]
    assert all(same) != batch_norm
    if batch_norm:  # they follow every batch, whether a step is taken or not
        moved = parts.parameters["batch_normalization/moving_variance"].copy()
        parts.train_on_batch(x[:4], y[:4])
        assert (parts.parameters["batch_normalization/moving_variance"] != moved).all()
        assert parts.optimizer.iterations == 6 and parts.optimizer.batches == 19


def test_accumulation_goes_on_over_epochs_and_files(tmp_path):
    """Ten batches of an epoch, four of which make a step: two are left, and count in the next epoch."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=(20, 2))
    found = []
    for cut in (False, True):
        model = make_model([3, 2], ["linear"], optimizer=SGD(0.1, momentum=0.5, gradient_accumulation_steps=4))
        model.fit(x, y, 2, epochs=1, verbose=0)
        assert model.optimizer.iterations == 2 and model.optimizer.batches == 10
        if cut:
            model.save(tmp_path / "m")
            model = nb.load_model(tmp_path / "m")
        model.fit(x, y, 2, epochs=3, initial_epoch=1, verbose=0)
        assert model.optimizer.iterations == 7
        found.append(model.network.params.copy())
    np.testing.assert_array_equal(*found)


def test_a_bad_batch_is_taken_back_where_gradients_are_added_up():
    x, y = np.ones((8, 1)), np.ones((8, 1))
    x[6] = 1e300
    model = make_model([1, 1], ["linear"], optimizer=SGD(0.1, gradient_accumulation_steps=2))
    with pytest.raises(loop.LossNotFiniteError, match="step 7"):
        model.fit(x, y, 1, shuffle=False, verbose=0)
    assert np.isfinite(model.network.params).all() and np.isfinite(model.state[1:]).all()


@pytest.mark.parametrize("case", GOLDEN["rms_normalization"]["cases"], ids=lambda case: str(case["arguments"]))
def test_rms_normalization(case):
    """Keras computes it in float32; test_layers compares digits."""
    golden = {key: np.array(value) for key, value in GOLDEN["rms_normalization"].items() if key != "cases"}
    model = nb.Sequential([nb.Input((2, 5)), nb.RMSNormalization(**case["arguments"])], dtype="float64")
    model.set_weights([golden["scale"]])
    np.testing.assert_allclose(model.forward(golden["x"]), case["outputs"], rtol=0, atol=2e-6)
    by_x, by_scale = case["gradients"]
    np.testing.assert_allclose(model.backward(golden["weights"]), by_x, rtol=0, atol=2e-6)
    np.testing.assert_allclose(model.gradients["rms_normalization/scale"], by_scale, rtol=0, atol=2e-6)


def test_setting_the_learning_rate():
    optimizer, schedule = Adam(0.5), Sawtooth()
    assert optimizer.learning_rate == 0.5
    optimizer.learning_rate = np.float32(0.25)
    assert optimizer.learning_rate == optimizer.current_learning_rate == 0.25
    for wrong in ("0.1", None, True, [0.1], np.ones(2), lambda: 0.1):
        with pytest.raises(TypeError, match="Adam: learning_rate must be a number or a schedule, got"):
            optimizer.learning_rate = wrong
    with pytest.raises(ValueError, match="Adam: learning_rate must be a finite number of at least 0, got -1"):
        optimizer.learning_rate = -1
    assert optimizer.learning_rate == 0.25
    optimizer.learning_rate = schedule
    assert optimizer.schedule is schedule and optimizer.learning_rate == schedule.rates(0, 1)[0]
    with pytest.raises(TypeError, match=r"Adam: learning_rate follows a schedule and cannot be set to 0\.1"):
        optimizer.learning_rate = 0.1
    optimizer.learning_rate = other = Sawtooth(0.2)
    assert optimizer.schedule is other


@pytest.mark.parametrize("variant", KERAS)
def test_steps_on_arrays_of_ones_own(variant):
    optimizer = fresh(KERAS[variant])
    kernel, bias = STEPS["start"][:SPLIT].reshape(3, 5).copy(), STEPS["start"][SPLIT:].copy()
    if variant == "excluded":
        optimizer.exclude_from_weight_decay(var_list=[bias])
    for number, gradient in enumerate(STEPS["gradients"]):
        parts = gradient[:SPLIT].reshape(3, 5), gradient[SPLIT:]
        if number % 2:
            optimizer.apply(parts)
        else:
            optimizer.apply_gradients(zip(parts, (kernel, bias), strict=True))
        found = np.concatenate([kernel.ravel(), bias])
        np.testing.assert_allclose(found, STEPS[f"keras/{variant}"][number], rtol=1e-10, atol=1e-10)
    optimizer.finalize_variable_values([kernel, bias])
    expected = STEPS[f"average/{variant}"] if optimizer.use_ema else STEPS[f"keras/{variant}"][-1]
    np.testing.assert_allclose(np.concatenate([kernel.ravel(), bias]), expected, rtol=1e-10, atol=1e-10)
    assert optimizer.batches == 10 and optimizer.built


class Held:
    """A variable as other libraries have it."""

    def __init__(self, value):
        self.value, self.constraint, self.name = np.asarray(value, np.float32), lambda v: np.maximum(v, 0), "held"

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.value, dtype)

    def assign(self, value):
        self.value = value


def test_variables_that_are_no_arrays():
    held, other, optimizer = Held([1.0, 0.1]), Held(3.0), SGD(0.5, weight_decay=0.5)
    with pytest.raises(ValueError, match="SGD: apply needs the variables in its first call"):
        optimizer.apply([np.ones(2)])
    with pytest.warns(UserWarning, match="1 of 2 variables have no gradient"):
        optimizer.apply([np.ones(2), None], [held, other])
    np.testing.assert_allclose(held.value, [0.25, 0.0], atol=1e-6)
    assert other.value == 3.0 and held.value.dtype == np.float32 and optimizer.iterations == 1
    for wrong in (lambda: optimizer.apply([None, None]), lambda: optimizer.apply([1.0], [Held(1.0)])):
        with pytest.raises(ValueError, match="SGD: apply"):
            wrong()
    with pytest.raises(TypeError, match="variables must be arrays of float32 or float64"):
        SGD().build([np.arange(3)])
    model = make_model([3, 2], ["linear"], optimizer=optimizer)
    assert model.optimizer.iterations == 0 and len(optimizer.variables) == 2
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
