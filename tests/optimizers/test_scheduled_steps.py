"""Optimizers' steps by schedules: each step gets its rate, across slices, epochs and fits."""

import numpy as np
import pytest

from nbdense.callbacks import Callback
from nbdense.optimizers import SGD, Adam, AdamW, Nadam, RMSprop
from tests.optimizers.test_optimizers import assert_fitted
from tests.support.builders import make_model


class Sawtooth:
    """A schedule by its method alone; remembers what it was asked."""

    def __init__(self, size=0.1):
        self.size, self.asked = size, []

    def rates(self, first_step, count):
        self.asked.append((first_step, count))
        return self.size / (1 + np.arange(first_step, first_step + count) % 7)


class StepSizes(Callback):
    """The only weight after each step, steps being taken one by one."""

    def on_train_begin(self, logs=None):
        self.weights = [float(self.model.network.params[0])]

    def on_train_batch_end(self, batch, logs=None):
        self.weights.append(float(self.model.network.params[0]))


@pytest.mark.parametrize("slices", [True, False])
def test_a_schedule_gives_each_step_its_rate(slices):
    """Across slices, epochs and fits. Of zeros the weights are only decayed: w (1 - rate) in a step."""
    schedule = Sawtooth()
    model = make_model([1, 1], ["linear"], optimizer=SGD(schedule, weight_decay=1.0))
    model.set_weights([np.ones((1, 1)), np.zeros(1)])
    x, y = np.zeros((100, 1)), np.zeros((100, 1))
    steps = StepSizes()
    for _ in range(2):
        model.fit(x, y, 10, epochs=3, verbose=0, callbacks=[] if slices else [steps])
    expected = 0.1 / (1 + np.arange(60) % 7)
    assert model.optimizer.iterations == 60
    np.testing.assert_allclose(model.get_weights()[0], np.prod(1 - expected), rtol=1e-12)
    covered = {step for first, count in schedule.asked for step in range(first, first + count)}
    assert covered == set(range(60))
    if not slices:
        ratios = np.array(steps.weights[1:]) / steps.weights[:-1]
        np.testing.assert_allclose(ratios[-30:], 1 - expected[30:], rtol=1e-12)
    assert model.optimizer.current_learning_rate == 0.1 / (1 + 60 % 7)


@pytest.mark.parametrize("kind", [Adam, AdamW, Nadam, RMSprop])
def test_schedules_move_each_optimizer(kind):
    assert_fitted(kind(Sawtooth(0.05)))


@pytest.mark.parametrize(
    "rates",
    [lambda first, count: [0.1] * (count + 1), lambda first, count: np.full(count, np.nan)],
    ids=["size", "nan"],
)
def test_bad_rates_of_a_schedule_stop_before_a_step(rates):
    schedule = Sawtooth()
    schedule.rates = rates
    model = make_model([1, 1], ["linear"], optimizer=SGD(schedule))
    before = model.network.params.copy()
    with pytest.raises(
        ValueError, match=r"SGD: rates\(0, 1\) of the learning rate's Sawtooth must be 1 finite numbers"
    ):
        model.fit(np.ones((4, 1)), np.ones((4, 1)), verbose=0)
    np.testing.assert_array_equal(model.network.params, before)
