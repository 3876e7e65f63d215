"""Learning-rate schedules: formulas written again, values of Keras and torch, edges, files, refusals."""

import json
import math

import numpy as np
import pytest

import nbdense as nb
from nbdense.quant import quantize_aware
from nbdense.schedules import (
    SCHEDULES,
    CosineDecay,
    CosineDecayRestarts,
    ExponentialDecay,
    InverseTimeDecay,
    LearningRateSchedule,
    OneCycle,
    PiecewiseConstantDecay,
    PolynomialDecay,
    StepDecay,
    get,
    serialize,
)

# -- formulas, one step at a time, from Keras's documentation, torch's source and the papers --


def exponential(step, first, decay_steps, rate, staircase=False):
    p = step / decay_steps
    return first * rate ** (math.floor(p) if staircase else p)


def inverse_time(step, first, decay_steps, rate, staircase=False):
    p = step / decay_steps
    return first / (1 + rate * (math.floor(p) if staircase else p))


def piecewise(step, boundaries, values):
    for boundary, value in zip(boundaries, values, strict=False):
        if step <= boundary:
            return value
    return values[-1]


def polynomial(step, first, decay_steps, end=0.0001, power=1.0, cycle=False):
    if cycle:
        decay_steps *= max(1, math.ceil(step / decay_steps))
    else:
        step = min(step, decay_steps)
    return (first - end) * (1 - step / decay_steps) ** power + end


def cosine(step, first, decay_steps, alpha=0.0, target=None, warmup=0):
    if target is not None:
        if step < warmup:
            return first + (target - first) * step / warmup
        first, step = target, step - warmup
    done = min(step, decay_steps) / decay_steps
    return first * (alpha + (1 - alpha) * (1 + math.cos(math.pi * done)) / 2)


def restarts(step, first, decay_steps, t_mul=2, m_mul=1.0, alpha=0.0):
    height = 1.0
    while step >= decay_steps:
        step, decay_steps, height = step - decay_steps, decay_steps * t_mul, height * m_mul
    return first * (alpha + (1 - alpha) * height * (1 + math.cos(math.pi * step / decay_steps)) / 2)


def one_cycle(step, high, total, pct=0.3, anneal="cos", div=25.0, final=1e4, three=False):
    low = high / div
    phases = [(pct * total - 1, low, high), (total - 1, high, low / final)]
    if three:
        phases = [phases[0], (2 * pct * total - 2, high, low), (total - 1, low, low / final)]
    start, step = 0.0, min(step, total - 1)
    for number, (end, a, b) in enumerate(phases):
        if step <= end or number == len(phases) - 1:
            p = (step - start) / (end - start)
            return a + (b - a) * (p if anneal == "linear" else (1 - math.cos(math.pi * p)) / 2)
        start = end
    raise AssertionError


PAIRS = [
    (ExponentialDecay(0.1, 100, 0.96), lambda s: exponential(s, 0.1, 100, 0.96)),
    (ExponentialDecay(0.1, 70, 0.5, staircase=True), lambda s: exponential(s, 0.1, 70, 0.5, True)),
    (ExponentialDecay(0.1, 12.5, 1.01), lambda s: exponential(s, 0.1, 12.5, 1.01)),
    (StepDecay(0.1, 30), lambda s: 0.1 * 0.1 ** (s // 30)),
    (StepDecay(0.2, 1, 0.99), lambda s: 0.2 * 0.99**s),
    (InverseTimeDecay(0.1, 100, 0.5), lambda s: inverse_time(s, 0.1, 100, 0.5)),
    (InverseTimeDecay(0.1, 70, 0.5, True), lambda s: inverse_time(s, 0.1, 70, 0.5, True)),
    (PiecewiseConstantDecay([100, 200], [1.0, 0.5, 0.1]), lambda s: piecewise(s, [100, 200], [1.0, 0.5, 0.1])),
    (PiecewiseConstantDecay([], [0.3]), lambda s: 0.3),
    (PiecewiseConstantDecay([0, 99.5], [3, 2, 1]), lambda s: piecewise(s, [0, 99.5], [3, 2, 1])),
    (PolynomialDecay(0.1, 100), lambda s: polynomial(s, 0.1, 100)),
    (PolynomialDecay(0.1, 100, 0.01, 0.5), lambda s: polynomial(s, 0.1, 100, 0.01, 0.5)),
    (PolynomialDecay(0.1, 70, 0.01, 2.0, True), lambda s: polynomial(s, 0.1, 70, 0.01, 2.0, True)),
    (CosineDecay(0.1, 100), lambda s: cosine(s, 0.1, 100)),
    (CosineDecay(0.1, 100, alpha=0.1), lambda s: cosine(s, 0.1, 100, 0.1)),
    (
        CosineDecay(0.01, 100, 0.1, warmup_target=0.1, warmup_steps=10),
        lambda s: cosine(s, 0.01, 100, 0.1, 0.1, 10),
    ),
    (CosineDecay(0.01, 100, warmup_target=0.1), lambda s: cosine(s, 0.01, 100, 0.0, 0.1, 0)),
    (CosineDecay(0.01, 100, warmup_steps=10), lambda s: cosine(s, 0.01, 100)),  # no target: no warm-up, as in Keras
    (CosineDecayRestarts(0.1, 10), lambda s: restarts(s, 0.1, 10)),
    (CosineDecayRestarts(0.1, 10, 1.0, 0.9, 0.05), lambda s: restarts(s, 0.1, 10, 1, 0.9, 0.05)),
    (CosineDecayRestarts(0.1, 8, 1.5, 0.9, 0.01), lambda s: restarts(s, 0.1, 8, 1.5, 0.9, 0.01)),
    (CosineDecayRestarts(0.1, 1, 3.0, 0.5), lambda s: restarts(s, 0.1, 1, 3, 0.5)),
    (OneCycle(0.1, 300), lambda s: one_cycle(s, 0.1, 300)),
    (OneCycle(0.1, 50, 0.25, "linear", 10.0, 100.0), lambda s: one_cycle(s, 0.1, 50, 0.25, "linear", 10.0, 100.0)),
    (OneCycle(0.1, 40, three_phase=True), lambda s: one_cycle(s, 0.1, 40, three=True)),
    (OneCycle(0.1, 201, 0.5, three_phase=True), lambda s: one_cycle(s, 0.1, 201, 0.5, three=True)),
    (OneCycle(0.1, 10, pct_start=0.0), lambda s: one_cycle(s, 0.1, 10, 0.0)),
    (OneCycle(0.1, 10, pct_start=1.0), lambda s: one_cycle(s, 0.1, 10, 1.0)),
    (OneCycle(0.1, 1), lambda s: one_cycle(s, 0.1, 1)),
]
IDS = [f"{type(schedule).__name__}-{number}" for number, (schedule, _) in enumerate(PAIRS)]
STEPS = 400


def test_every_schedule_is_tested():
    assert {type(schedule).__name__ for schedule, _ in PAIRS} == set(SCHEDULES)
    assert all(kind.__name__ == name for name, kind in SCHEDULES.items())


@pytest.mark.parametrize(("schedule", "formula"), PAIRS, ids=IDS)
def test_formula(schedule, formula):
    rates = schedule.rates(0, STEPS)
    assert rates.shape == (STEPS,) and rates.dtype == np.float64
    assert np.allclose(rates, [formula(step) for step in range(STEPS)], rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize(("schedule", "formula"), PAIRS, ids=IDS)
def test_a_step_has_one_rate(schedule, formula):
    """To the bit, whichever steps are asked for together: training that is resumed depends on it."""
    rates = schedule.rates(0, STEPS)
    one_by_one = [schedule(step) for step in range(STEPS)]
    assert all(type(rate) is float for rate in one_by_one) and rates.tolist() == one_by_one
    for first, count in [(1, 7), (63, 2), (64, 64), (65, 130), (399, 1), (5, 0), (64, 0)]:
        assert schedule.rates(first, count).tolist() == one_by_one[first : first + count]
    assert schedule(np.int64(17)) == one_by_one[17]
    assert schedule(50_000) == schedule.rates(49_997, 5)[3]


# -- values of Keras 3.15 (JAX, float32) and torch 2.13, computed once --

KERAS = [
    (
        ExponentialDecay(0.1, 1000, 0.96),
        {0: 0.1, 1: 0.09999592, 500: 0.09797959, 2500: 0.09029799, 100000: 0.001687028},
    ),
    (ExponentialDecay(0.1, 1000, 0.5, staircase=True), {0: 0.1, 999: 0.1, 1000: 0.05, 2500: 0.025}),
    (InverseTimeDecay(0.1, 1000, 0.5), {0: 0.1, 1: 0.09995003, 500: 0.08, 1000: 0.06666667, 2500: 0.044444446}),
    (InverseTimeDecay(0.1, 1000, 0.5, staircase=True), {999: 0.1, 1000: 0.06666667, 2500: 0.05}),
    (
        PiecewiseConstantDecay([100, 200], [1.0, 0.5, 0.1]),
        {0: 1.0, 100: 1.0, 101: 0.5, 200: 0.5, 201: 0.1, 9999: 0.1},
    ),
    (PolynomialDecay(0.1, 100, 0.01, power=0.5), {0: 0.1, 1: 0.09954887, 50: 0.07363961, 99: 0.018999996, 1000: 0.01}),
    (
        PolynomialDecay(0.1, 100, 0.01, power=2.0, cycle=True),
        {0: 0.1, 1: 0.098209, 100: 0.01, 101: 0.03205225, 150: 0.015625, 200: 0.01, 201: 0.019800998, 350: 0.01140625},
    ),
    (CosineDecay(0.1, 100, alpha=0.1), {0: 0.1, 1: 0.09997779, 50: 0.055, 99: 0.010022206, 100: 0.01, 500: 0.01}),
    (
        CosineDecay(0.01, 100, alpha=0.1, warmup_target=0.1, warmup_steps=10),
        {0: 0.01, 1: 0.019, 9: 0.091, 10: 0.1, 11: 0.09997779, 60: 0.055, 110: 0.01, 500: 0.01},
    ),
    (CosineDecay(0.01, 100, warmup_target=0.1), {0: 0.1, 1: 0.099975325, 50: 0.05, 100: 0.0, 101: 0.0}),
    (CosineDecay(0.01, 100, warmup_steps=10), {0: 0.01, 5: 0.009938441, 10: 0.009755282, 50: 0.005}),
    (
        CosineDecayRestarts(0.1, 10, t_mul=2.0, m_mul=0.5, alpha=0.1),
        {
            0: 0.1,
            5: 0.055,
            9: 0.012202458,
            10: 0.055,
            20: 0.0325,
            29: 0.010277012,
            30: 0.0325,
            70: 0.02125,
            100: 0.017777596,
        },
    ),
    (CosineDecayRestarts(0.1, 10, t_mul=1.0, m_mul=0.9), {0: 0.1, 5: 0.05, 9: 0.002447176, 10: 0.09, 35: 0.036449995}),
    (
        CosineDecayRestarts(0.1, 10, t_mul=1.5, m_mul=0.9, alpha=0.01),
        {
            9: 0.0034227043,
            10: 0.0901,
            24: 0.0019735207,
            25: 0.0811899975,
            47: 0.0010976684,
            48: 0.07313191,
            100: 0.046340406,
        },
    ),
    (
        CosineDecayRestarts(0.1, 1, t_mul=3.0, m_mul=0.9, alpha=0.01),
        {
            3: 0.023274997,
            4: 0.0811899975,
            39: 0.001243996,
            40: 0.065953895,
            120: 0.0010244236,
            121: 0.0594585,
            364: 0.05361265,
        },
    ),
]
TORCH = [
    (StepDecay(0.1, 30), {0: 0.1, 29: 0.1, 30: 0.01, 59: 0.01, 60: 0.001, 95: 0.0001}),
    (
        OneCycle(0.1, 100),
        {0: 0.004, 1: 0.004281378056590748, 15: 0.05459866761210004, 28: 0.09971862194340926, 29: 0.1}
        | {30: 0.09994965352845243, 50: 0.0793893450575732, 98: 5.07464715475788e-05, 99: 4e-07},
    ),
    (
        OneCycle(0.1, 50, pct_start=0.25, anneal_strategy="linear", div_factor=10.0, final_div_factor=100.0),
        {0: 0.01, 1: 0.01782608695652174, 5: 0.0491304347826087, 11: 0.09608695652173914, 12: 0.098668}
        | {30: 0.050716000000000004, 49: 0.00010000000000000286},
    ),
    (
        OneCycle(0.1, 40, three_phase=True),
        {0: 0.004, 5: 0.04516888776288231, 11: 0.1, 12: 0.09805566273349589, 20: 0.011619830424103297}
        | {22: 0.004, 23: 0.003965949604747867, 30: 0.002184718265254711, 39: 4e-07},
    ),
    (
        OneCycle(0.1, 10, pct_start=0.0),
        {0: 0.09755283560345443, 1: 0.0904508879153485, 5: 0.03454941208465151, 9: 4e-07},
    ),
]


@pytest.mark.parametrize(("schedule", "expected"), KERAS, ids=[type(schedule).__name__ for schedule, _ in KERAS])
def test_keras_values(schedule, expected):
    for step, rate in expected.items():
        assert schedule(step) == pytest.approx(rate, rel=3e-6, abs=2e-8), step


@pytest.mark.parametrize(("schedule", "expected"), TORCH, ids=[type(schedule).__name__ for schedule, _ in TORCH])
def test_torch_values(schedule, expected):
    for step, rate in expected.items():
        assert schedule(step) == pytest.approx(rate, rel=1e-12, abs=1e-17), step


# -- edges --


@pytest.mark.parametrize(("first", "t_mul"), [(10, 1.1), (7, 3), (1, 5), (5, 1.2), (1, 2), (1000, 1.000001)])
def test_a_restart_is_at_the_top(first, t_mul):
    """However its step rounds: floor(log()) of Keras's formula lands a cycle early at some powers."""
    schedule = CosineDecayRestarts(1.0, first, t_mul=t_mul)
    start, length, found = 0.0, float(first), 0
    for _ in range(12):
        start, length = start + length, length * t_mul
        if abs(start - round(start)) < 1e-9 * start:
            found += 1
            assert schedule(round(start)) == pytest.approx(1.0, abs=1e-12)
            assert schedule(round(start) + 1) <= 1.0
    assert found


def test_beyond_the_end():
    for schedule, end in [
        (PolynomialDecay(0.1, 100, 0.02), 0.02),
        (CosineDecay(0.1, 100, alpha=0.2), 0.02),
        (OneCycle(0.1, 100), 4e-7),
        (PiecewiseConstantDecay([5], [1, 0.25]), 0.25),
    ]:
        for step in (100, 101, 10**6, 2**40):
            assert schedule(step) == pytest.approx(end, rel=1e-12)


def test_phases_without_a_length():
    """torch divides by zero here."""
    assert OneCycle(0.1, 10, pct_start=0.1)(0) == pytest.approx(0.1)
    assert OneCycle(0.1, 2, pct_start=0.5, three_phase=True).rates(0, 2).tolist() == pytest.approx([0.1, 4e-7])


def test_what_is_not_asked_for_may_overflow():
    schedule = ExponentialDecay(1.0, 1, 1e10)
    assert schedule(30) == pytest.approx(1e300)
    assert schedule.rates(0, 31).shape == (31,)
    with pytest.raises(ValueError, match="ExponentialDecay: rates must be finite, got inf in step 31"):
        schedule.rates(29, 5)
    assert ExponentialDecay(1.0, 10, 0.0).rates(0, 3).tolist() == [1.0, 0.0, 0.0]
    assert ExponentialDecay(0.1, 1, 0.5)(10**6) == 0.0


# -- files and classes of the user's --


@pytest.mark.parametrize(("schedule", "formula"), PAIRS, ids=IDS)
def test_round_trip(schedule, formula):
    written = json.loads(json.dumps(serialize(schedule)))
    assert written["class_name"] == type(schedule).__name__
    again = get(written)
    assert type(again) is type(schedule) and again.get_config() == schedule.get_config()
    assert np.array_equal(again.rates(3, 200), schedule.rates(3, 200))
    assert get(schedule) is schedule
    assert type(schedule).__name__ + "(" in repr(schedule)


def test_config_has_keras_names():
    config = CosineDecay(np.float32(0.5), np.int64(7)).get_config()
    assert config == {
        "initial_learning_rate": 0.5,
        "decay_steps": 7,
        "alpha": 0.0,
        "name": "CosineDecay",
        "warmup_target": None,
        "warmup_steps": 0,
    }
    assert type(config["decay_steps"]) is int and type(config["initial_learning_rate"]) is float
    keras_form = {"module": "keras.optimizers.schedules", "class_name": "CosineDecay", "config": config}
    assert get(keras_form).get_config() == config
    assert ExponentialDecay(0.1, 5, 0.5).name == "ExponentialDecay" and CosineDecayRestarts(0.1, 5).name == "SGDRDecay"


class Warm(LearningRateSchedule):
    def __init__(self, base):
        self.base = base

    def __call__(self, step):
        return self.base / (step + 1)


def test_a_users_class():
    schedule = Warm(0.5)
    assert schedule.rates(1, 3).tolist() == [0.25, 0.5 / 3, 0.125]
    again = get(serialize(schedule), {"Warm": Warm})
    assert again(3) == 0.125
    with pytest.raises(ValueError, match="unknown schedule .*there are: CosineDecay, .*StepDecay"):
        get(serialize(schedule))
    with pytest.raises(ValueError, match="Warm: rates must be finite, got nan in step 2"):
        Warm(math.nan).rates(2, 3)
    with pytest.raises(ValueError, match="Warm: count must be a whole number"):
        schedule.rates(0, -1)
    with pytest.raises(NotImplementedError, match="must define __call__"):
        LearningRateSchedule()(0)


class Hidden(Warm):
    """A schedule that files cannot keep: its argument is no attribute of the same name."""

    def __init__(self, first):
        super().__init__(first)


def test_a_users_class_says_its_arguments():
    assert Warm(0.5).get_config() == {"base": 0.5}
    with pytest.raises(NotImplementedError, match=r"define get_config\(self\), or have the attribute 'first'"):
        Hidden(0.5).get_config()


def test_models_made_of_one_share_its_schedule():
    """Pruned, rounded and estimators' models learn at the rates of a user's own schedule, which no name stands for."""
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    model = nb.Sequential([nb.Input((3,)), nb.Dense(2)])
    model.compile(nb.SGD(Hidden(0.5), momentum=0.9), "mse")
    model.fit(x, x[:, :2], verbose=0)
    regressor = nb.MLPRegressor(hidden_layer_sizes=2, solver=model.optimizer)
    regressor.partial_fit(x, x[:, :2])
    for made, taken in ((nb.prune(model, 0.5), 0), (quantize_aware(model, x), 0), (regressor.model_, 1)):
        own = made.optimizer
        assert own is not model.optimizer and own.schedule is model.optimizer.schedule and own.momentum == 0.9
        assert own.iterations == taken and model.optimizer.iterations == 1
        made.fit(x, x[:, :2], verbose=0)
        assert own.iterations == taken + 1 and model.optimizer.iterations == 1


@pytest.mark.parametrize("identifier", ["CosineDecay", CosineDecay])
def test_a_name_alone_is_no_schedule(identifier):
    with pytest.raises(ValueError, match="there are: .*a schedule needs its arguments: pass an object"):
        get(identifier)


@pytest.mark.parametrize("identifier", [None, 0.1, {}, {"class_name": "Cosine"}, {"class_name": []}, lambda step: 0.1])
def test_unknown(identifier):
    with pytest.raises(ValueError, match="unknown schedule .*there are: CosineDecay, "):
        get(identifier)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExponentialDecay(-0.1, 10, 0.5), "ExponentialDecay: initial_learning_rate must be a finite number of"),
        (lambda: ExponentialDecay(math.nan, 10, 0.5), "initial_learning_rate must be .*got nan"),
        (lambda: ExponentialDecay("0.1", 10, 0.5), "initial_learning_rate must be .*got '0.1'"),
        (lambda: ExponentialDecay(0.1, 0, 0.5), "decay_steps must be a finite number above 0, got 0"),
        (lambda: InverseTimeDecay(0.1, -5, 0.5), "InverseTimeDecay: decay_steps must be"),
        (lambda: InverseTimeDecay(0.1, 5, -0.5), "InverseTimeDecay: decay_rate must be"),
        (lambda: StepDecay(0.1, 0), "StepDecay: decay_steps must be a whole number of at least 1, got 0"),
        (lambda: StepDecay(0.1, 2.5), "StepDecay: decay_steps must be a whole number"),
        (lambda: PiecewiseConstantDecay([1, 2], [0.1, 0.2]), "one more of values than of boundaries, got 2 and 2"),
        (lambda: PiecewiseConstantDecay([2, 2], [0.1, 0.2, 0.3]), r"boundaries must rise, got \[2, 2\]"),
        (lambda: PiecewiseConstantDecay([2], [0.1, -0.2]), "each of values must be a finite number of at least 0"),
        (lambda: PiecewiseConstantDecay([-1], [0.1, 0.2]), "each of boundaries must be"),
        (lambda: PolynomialDecay(0.1, 10, end_learning_rate=-1), "PolynomialDecay: end_learning_rate must be"),
        (lambda: PolynomialDecay(0.1, 10, power=-1), "PolynomialDecay: power must be"),
        (lambda: PolynomialDecay(0.1, math.inf), "PolynomialDecay: decay_steps must be"),
        (lambda: CosineDecay(0.1, 0), "CosineDecay: decay_steps must be"),
        (lambda: CosineDecay(0.1, 10, alpha=-0.1), "CosineDecay: alpha must be"),
        (lambda: CosineDecay(0.1, 10, warmup_target=-1.0), "CosineDecay: warmup_target must be"),
        (lambda: CosineDecay(0.1, 10, warmup_target=1.0, warmup_steps=-1), "CosineDecay: warmup_steps must be"),
        (lambda: CosineDecayRestarts(0.1, 0), "CosineDecayRestarts: first_decay_steps must be"),
        (lambda: CosineDecayRestarts(0.1, 10, t_mul=0.5), "t_mul must be at least 1 .*got 0.5"),
        (lambda: CosineDecayRestarts(0.1, 10, m_mul=-1), "CosineDecayRestarts: m_mul must be"),
        (lambda: OneCycle(0.1, 0), "OneCycle: total_steps must be a whole number of at least 1"),
        (lambda: OneCycle(0.1, 10.5), "OneCycle: total_steps must be a whole number"),
        (lambda: OneCycle(-0.1, 10), "OneCycle: max_learning_rate must be"),
        (lambda: OneCycle(0.1, 10, pct_start=1.5), r"pct_start must be in \[0, 1\], got 1.5"),
        (lambda: OneCycle(0.1, 10, pct_start=0.6, three_phase=True), r"\[0, 0.5\] with three_phase, got 0.6"),
        (lambda: OneCycle(0.1, 10, anneal_strategy="exp"), "anneal_strategy must be 'cos' or 'linear', got 'exp'"),
        (lambda: OneCycle(0.1, 10, div_factor=0), "OneCycle: div_factor must be a finite number above 0"),
        (lambda: OneCycle(0.1, 10, final_div_factor=0), "OneCycle: final_div_factor must be"),
        (lambda: CosineDecay(0.1, 10)(np.nan), "CosineDecay: step must be a finite number, got nan"),
        (lambda: CosineDecay(0.1, 10)("one"), "CosineDecay: step must be a finite number, got 'one'"),
        (lambda: CosineDecay(0.1, 10).rates(-1, 2), "CosineDecay: first_step must be"),
        (lambda: CosineDecay(0.1, 10).rates(0, 2.0), "CosineDecay: count must be"),
        (lambda: get({"class_name": "StepDecay", "config": {}}), "schedule 'StepDecay' doesn't take these arguments"),
        (lambda: get({"class_name": "StepDecay"}), "schedule 'StepDecay' doesn't take these arguments"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
