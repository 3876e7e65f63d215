"""Optimizers by name, their arguments, configs and numbers of slots."""

import json
import sys
import types

import numpy as np
import pytest

from nbdense.models import load_model
from nbdense.optimizers import (
    OPTIMIZERS,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Ftrl,
    Lion,
    Nadam,
    Optimizer,
    RMSprop,
    get,
    serialize,
)
from tests.optimizers.test_optimizers import EVERYTHING, KERAS, VARIANTS, fresh
from tests.optimizers.test_scheduled_steps import Sawtooth
from tests.support.builders import make_model

CONFIGURED = [
    *KERAS.values(),
    *EVERYTHING,
    *(get({"name": name, "config": options}) for name, options in VARIANTS),
    Adam(clipvalue=0.5, weight_decay=0.1, weight_decay_excludes=["bias", "dense_1/"]),
]


@pytest.mark.parametrize("optimizer", CONFIGURED, ids=lambda optimizer: optimizer.name)
def test_configs_come_back(optimizer):
    config = optimizer.get_config()
    for other in (
        type(optimizer)(**config),
        type(optimizer)(**json.loads(json.dumps(config))),
        get(json.loads(json.dumps(serialize(optimizer)))),
        get({"class_name": type(optimizer).name.upper(), "config": config}),
    ):
        assert type(other) is type(optimizer) and other.get_config() == config
        assert vars(other) == vars(optimizer)
        assert other.run_fields() == optimizer.run_fields() and other.state_rows == optimizer.state_rows
        np.testing.assert_array_equal(other.hyper(), optimizer.hyper())


def test_configs_with_schedules_come_back(monkeypatch):
    """By the module of schedules, whichever there is."""
    module = types.ModuleType("nbdense.schedules")
    module.serialize = lambda schedule: {"class_name": "Sawtooth", "config": {"size": schedule.size}}
    module.get = lambda config: Sawtooth(**config["config"])
    monkeypatch.setitem(sys.modules, "nbdense.schedules", module)
    for kind in OPTIMIZERS.values():
        config = json.loads(json.dumps(kind(Sawtooth(0.3)).get_config()))
        other = kind(**config)
        assert isinstance(other.schedule, Sawtooth) and other.schedule.size == 0.3
        assert other.get_config() == config


def test_what_names_an_optimizer():
    for name in ("RMSprop", "rmsprop", "RMSPROP"):
        assert type(get(name)) is RMSprop
    assert type(get(Lion)) is Lion
    optimizer = Adagrad()
    assert get(optimizer) is optimizer
    assert get({"name": "sgd"}).get_config() == SGD().get_config()
    assert get(None) is None
    for wrong in ("sgdd", 3, {}, {"name": 3}, int):
        with pytest.raises(
            ValueError, match="unknown optimizer .*; there are: adadelta, adagrad, adam, adamax, adamw, "
        ):
            get(wrong)
    for name, advice in (("Adafactor", "Adam is as good"), ("lamb", "AdamW is as good"), ("Muon", "use AdamW")):
        with pytest.raises(ValueError, match=f"optimizer '{name}' is not among nbdense's: .*{advice}"):
            get(name)


def test_defaults_are_those_of_keras():
    first = {kind.name: kind().get_config() for kind in OPTIMIZERS.values()}
    betas = {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
    assert first == {
        "SGD": {"learning_rate": 0.01, "momentum": 0.0, "nesterov": False},
        "RMSprop": {"learning_rate": 0.001, "rho": 0.9, "momentum": 0.0, "epsilon": 1e-7, "centered": False},
        "Adagrad": {"learning_rate": 0.001, "initial_accumulator_value": 0.1, "epsilon": 1e-7},
        "Adam": {**betas, "amsgrad": False},
        "AdamW": {**betas, "amsgrad": False, "weight_decay": 0.004},
        "Nadam": betas,
        "Lion": {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.99},
        "Adadelta": {"learning_rate": 0.001, "rho": 0.95, "epsilon": 1e-7},
        "Adamax": betas,
        "Ftrl": {
            "learning_rate": 0.001,
            "learning_rate_power": -0.5,
            "initial_accumulator_value": 0.1,
            "l1_regularization_strength": 0.0,
            "l2_regularization_strength": 0.0,
            "l2_shrinkage_regularization_strength": 0.0,
            "beta": 0.0,
        },
    }


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RMSprop(rho=1.0), r"RMSprop: rho must be in \[0, 1\), got 1\.0"),
        (lambda: RMSprop(momentum=-0.1), r"RMSprop: momentum must be in \[0, 1\), got -0\.1"),
        (lambda: RMSprop(epsilon=0.0), r"RMSprop: epsilon must be a number above 1\.2e-38, got 0\.0"),
        (lambda: Adam(epsilon=float("nan")), "Adam: epsilon must be"),
        (lambda: Adagrad(epsilon=1e-50), "Adagrad: epsilon must be"),
        (
            lambda: Adagrad(initial_accumulator_value=-1),
            "initial_accumulator_value must be a finite number of at least",
        ),
        (lambda: AdamW(weight_decay=None), "AdamW: weight_decay must be a number, got None"),
        (lambda: Nadam(beta_2=1.0), "Nadam: beta_2"),
        (lambda: Lion(beta_1=0.0), r"Lion: beta_1 must be in \(0, 1\), got 0\.0"),
        (lambda: SGD(clipnorm=1.0, clipvalue=1.0), "SGD: give only one of clipnorm, clipvalue and global_clipnorm"),
        (lambda: SGD(clipnorm=0.0), r"SGD: clipnorm must be a positive number, got 0\.0"),
        (lambda: SGD(weight_decay=-1), "SGD: weight_decay must be a finite number of at least 0, got -1"),
        (lambda: SGD(use_ema=True, ema_momentum=1.5), "SGD: ema_momentum must be in"),
        (lambda: SGD(use_ema=True, ema_overwrite_frequency=0), "SGD: ema_overwrite_frequency must be a whole number"),
        (lambda: Ftrl(learning_rate_power=0.5), "Ftrl: learning_rate_power must be"),
        (
            lambda: SGD(gradient_accumulation_steps=1),
            "SGD: gradient_accumulation_steps must be .* of at least 2, got 1",
        ),
        (lambda: SGD(gradient_accumulation_steps=2, use_ema=True), "SGD: give use_ema or gradient_accumulation_steps"),
        (lambda: Adam(loss_scale_factor=1024.0), "Adam: loss_scale_factor keeps float16 .* leave it out"),
        (lambda: Adam(name=""), "Adam: name must be a non-empty string, got ''"),
        (lambda: SGD(weight_decay_excludes=["("]), "SGD: var_names: '\\(' is no regular expression"),
    ],
)
def test_wrong_arguments(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_exclusions_are_parts_of_names():
    names = ["dense/kernel", "dense/bias", "norm/gamma", "norm/beta"]
    optimizer = AdamW()
    assert optimizer.decay_factors(names).tolist() == [1, 1, 1, 1]
    optimizer.exclude_from_weight_decay(var_names=["bias", "^norm/"])
    assert optimizer.decay_factors(names).tolist() == [1, 0, 0, 0]
    optimizer.exclude_from_weight_decay(var_names=["gamma$"])
    assert optimizer.decay_factors(names).tolist() == [1, 1, 0, 1]
    with pytest.raises(TypeError, match="must be a list of names, got 'bias'"):
        optimizer.exclude_from_weight_decay(var_names="bias")


@pytest.mark.parametrize(
    ("optimizer", "field", "value"),
    [
        (SGD(), "momentum", 0.9),
        (SGD(momentum=0.9), "momentum", 0.0),
        (RMSprop(), "centered", True),
        (Adam(), "amsgrad", True),
        (Lion(), "use_ema", True),
    ],
)
def test_what_lays_out_the_state_stays(optimizer, field, value):
    optimizer, before = fresh(optimizer), optimizer.get_config()
    with pytest.raises(
        AttributeError, match=f"{type(optimizer).name}: {field} decides what is kept beside the weights"
    ):
        setattr(optimizer, field, value)
    assert optimizer.get_config() == before
    if isinstance(optimizer, SGD) and optimizer.momentum:
        optimizer.momentum = 0.5  # another number is another number
        assert optimizer.hyper()[0] == 0.5


def test_slots_are_as_many_as_are_used():
    slots = {kind.name: kind().slots for kind in OPTIMIZERS.values()}
    known = {"SGD": 0, "RMSprop": 1, "Adagrad": 1, "Adam": 2, "AdamW": 2, "Nadam": 2, "Lion": 1}
    assert slots == known | {"Adadelta": 2, "Adamax": 2, "Ftrl": 2}
    assert [SGD(momentum=0.1).slots, Adam(amsgrad=True).slots, RMSprop(momentum=0.1, centered=True).slots] == [1, 3, 3]
    assert Adam(amsgrad=True, use_ema=True).state_rows == 5
    assert Adam(gradient_accumulation_steps=2).state_rows == 4
    assert Optimizer.base_slots == 0


@pytest.mark.parametrize("optimizer", EVERYTHING, ids=lambda optimizer: optimizer.name)
def test_a_saved_model_goes_on_where_it_was(optimizer, tmp_path):
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(40, 4)), rng.normal(size=(40, 2))
    model = make_model([4, 17, 2], ["tanh", "linear"], optimizer=fresh(optimizer), dtype="float32")
    model.fit(x, y, 7, epochs=2, verbose=0)
    model.save(tmp_path / "m")
    other = load_model(tmp_path / "m")
    assert type(other.optimizer) is type(model.optimizer)
    assert other.optimizer.batches == model.optimizer.batches == 12
    assert other.optimizer.iterations == 12 // (optimizer.gradient_accumulation_steps or 1)
    np.testing.assert_array_equal(other.state[1:], model.state[1:])
    for each in (model, other):
        each.fit(x, y, 7, epochs=4, initial_epoch=2, verbose=0)
    np.testing.assert_array_equal(other.network.params, model.network.params)
    np.testing.assert_array_equal(other.state[1:], model.state[1:])
