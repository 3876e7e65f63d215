"""Learning rates that follow the steps, under Keras's names, with its formulas and defaults, in float64.

A schedule is a function of the step (from 0, as the optimizer counts them). The rate of a step never depends on
which other steps were asked for with it: training that is taken up again gets the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense._checks import array_of, finite_number, positive_int, whole_number
from nbdense._registry import Configured, Registry, call_text

_Rates = npt.NDArray[np.float64]
# NumPy's vector code may round cos and power unlike its scalar code for what is left over. So rates are computed for
# whole blocks of steps that begin at a multiple of this, where a step always has the same place in a vector.
_BLOCK = 64


class LearningRateSchedule(Configured):
    """A learning rate as a function of the step. Subclasses define ``__call__``.

    Those that are saved keep their arguments as attributes of the same names, or define ``get_config``.

    Examples
    --------
    >>> class Halving(LearningRateSchedule):
    ...     def __call__(self, step):
    ...         return 0.1 * 0.5**step
    >>> Halving().rates(1, 3)
    array([0.05  , 0.025 , 0.0125])
    """

    def __call__(self, step: int) -> float:
        """Return the rate of this step, the first being 0."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__(self, step)")

    def rates(self, first_step: int, count: int) -> _Rates:
        """Return the rates of ``count`` steps from ``first_step`` on, float64 of shape (count,).

        Raises
        ------
        ValueError
            If a rate is not finite, or an argument is not a whole number of at least 0.
        """
        first_step, count = (
            whole_number(type(self).__name__, "first_step", first_step),
            whole_number(type(self).__name__, "count", count),
        )
        rates = [float(self(step)) for step in range(first_step, first_step + count)]
        return _finite_rates(self, first_step, np.array(rates, np.float64))


def _finite_rates(owner: LearningRateSchedule, first_step: int, rates: _Rates) -> _Rates:
    bad = np.flatnonzero(~np.isfinite(rates))
    if bad.size:
        raise ValueError(
            f"{type(owner).__name__}: rates must be finite, got {rates[bad[0]]} in step {first_step + int(bad[0])}"
        )
    return rates


def _number(owner: object, argument: str, value: Any, least: float = 0.0, ends: str = "[]", expected: str = "") -> Any:
    """Return ``value``, finite and at least ``least``, as an int or a float, whichever it is: configs keep it."""
    number = finite_number(type(owner).__name__, argument, value, least, ends=ends, expected=expected)
    return int(value) if isinstance(value, Integral) else number


class _Formula(LearningRateSchedule):
    """A schedule that NumPy computes, many steps at a time: by `_rates`, of step numbers in float64."""

    def __call__(self, step: Any) -> float:
        number = finite_number(type(self).__name__, "step", array_of("step", step).item(), -math.inf)
        if number >= 0 and number == int(number):
            return float(self.rates(int(number), 1)[0])
        return float(self._rates(np.array([number]))[0])  # between two steps, or before the first

    def rates(self, first_step: int, count: int) -> _Rates:
        first_step, count = (
            whole_number(type(self).__name__, "first_step", first_step),
            whole_number(type(self).__name__, "count", count),
        )
        start = first_step - first_step % _BLOCK
        stop = -(-(first_step + count) // _BLOCK) * _BLOCK
        with np.errstate(over="ignore", invalid="ignore"):  # what is asked for is looked at; the rest may be anything
            rates = self._rates(np.arange(start, stop, dtype=np.float64))
        return _finite_rates(self, first_step, rates[first_step - start : first_step - start + count].copy())

    def _rates(self, steps: _Rates) -> _Rates:
        raise NotImplementedError(f"{type(self).__name__} must define _rates(self, steps)")

    def __repr__(self) -> str:
        return call_text(self, self.get_config())


class _Decay(_Formula):
    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str | None = None,
    ) -> None:
        self.initial_learning_rate = _number(self, "initial_learning_rate", initial_learning_rate)
        self.decay_steps = _number(self, "decay_steps", decay_steps, ends="()")
        self.decay_rate = _number(self, "decay_rate", decay_rate)
        self.staircase = bool(staircase)
        self.name = name or type(self).__name__

    def _passed(self, steps: _Rates) -> _Rates:
        return np.floor(steps / self.decay_steps) if self.staircase else steps / self.decay_steps


class ExponentialDecay(_Decay):
    """Exponential decay: initial_learning_rate decay_rate^(step / decay_steps).

    Parameters
    ----------
    initial_learning_rate, decay_steps, decay_rate : float
        The rate of step 0, the steps in which it is multiplied by decay_rate (above 0), and that factor.
    staircase : bool
        Whether step / decay_steps is rounded down, so that the rate falls in stairs.
    name : str, optional
        Name of the schedule.
    """

    def _rates(self, steps: _Rates) -> _Rates:
        return self.initial_learning_rate * np.power(float(self.decay_rate), self._passed(steps))


class StepDecay(ExponentialDecay):
    """Decay by steps: initial_learning_rate decay_rate^floor(step / decay_steps), PyTorch's StepLR, Keras's staircase.

    Parameters
    ----------
    initial_learning_rate, decay_steps, decay_rate : float
        The rate of step 0, the steps on one stair (a whole number), and the factor from stair to stair.
    name : str, optional
        Name of the schedule.
    """

    def __init__(
        self, initial_learning_rate: float, decay_steps: int, decay_rate: float = 0.1, name: str | None = None
    ) -> None:
        decay_steps = positive_int("StepDecay", "decay_steps", decay_steps)
        super().__init__(initial_learning_rate, decay_steps, decay_rate, True, name)


class InverseTimeDecay(_Decay):
    """Decay with the inverse of time: initial_learning_rate / (1 + decay_rate step / decay_steps).

    Parameters
    ----------
    initial_learning_rate, decay_steps, decay_rate : float
        The rate of step 0, the steps in which the denominator grows by decay_rate (above 0), and that rate.
    staircase : bool
        Whether step / decay_steps is rounded down, so that the rate falls in stairs.
    name : str, optional
        Name of the schedule.
    """

    def _rates(self, steps: _Rates) -> _Rates:
        return self.initial_learning_rate / (1.0 + self.decay_rate * self._passed(steps))


class PiecewiseConstantDecay(_Formula):
    """Constant pieces: values[0] up to and including step boundaries[0], values[1] up to boundaries[1], and so on.

    Parameters
    ----------
    boundaries : sequence of float
        Step numbers, rising.
    values : sequence of float
        Rates; one more than boundaries.
    name : str, optional
        Name of the schedule.
    """

    def __init__(
        self, boundaries: Sequence[float], values: Sequence[float], name: str | None = "PiecewiseConstant"
    ) -> None:
        self.boundaries = [_number(self, "each of boundaries", boundary) for boundary in boundaries]
        self.values = [_number(self, "each of values", value) for value in values]
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(
                "PiecewiseConstantDecay: there must be one more of values than of boundaries, "
                f"got {len(self.values)} and {len(self.boundaries)}"
            )
        if any(b <= a for a, b in zip(self.boundaries, self.boundaries[1:], strict=False)):
            raise ValueError(f"PiecewiseConstantDecay: boundaries must rise, got {self.boundaries}")
        self.name = name

    def _rates(self, steps: _Rates) -> _Rates:
        return np.array(self.values, np.float64)[np.searchsorted(np.array(self.boundaries, np.float64), steps)]


class PolynomialDecay(_Formula):
    """(initial_learning_rate - end_learning_rate) (1 - step / decay_steps)^power + end_learning_rate.

    Parameters
    ----------
    initial_learning_rate, decay_steps, end_learning_rate : float
        The rate of step 0, the step (above 0) from which on it is end_learning_rate, and that.
    power : float
        At least 0.
    cycle : bool
        Whether, instead of staying at the end, decay_steps becomes its next multiple whenever it is passed.
    name : str, optional
        Name of the schedule.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str | None = "PolynomialDecay",
    ) -> None:
        self.initial_learning_rate = _number(self, "initial_learning_rate", initial_learning_rate)
        self.decay_steps = _number(self, "decay_steps", decay_steps, ends="()")
        self.end_learning_rate = _number(self, "end_learning_rate", end_learning_rate)
        self.power = _number(self, "power", power)
        self.cycle = bool(cycle)
        self.name = name

    def _rates(self, steps: _Rates) -> _Rates:
        p = steps / self.decay_steps
        if self.cycle:
            p = p / np.maximum(np.ceil(p), 1.0)
        left = np.power(1.0 - np.minimum(p, 1.0), float(self.power))
        return (self.initial_learning_rate - self.end_learning_rate) * left + self.end_learning_rate


class CosineDecay(_Formula):
    """Half a cosine from the first rate down to ``alpha`` times it, after a linear warm-up if there is a target.

    Loshchilov and Hutter 2017, "SGDR", eq. 5, without restarts.

    Parameters
    ----------
    initial_learning_rate, decay_steps : float
        The rate of step 0, and the steps of the decay, after those of the warm-up (above 0).
    alpha : float
        The last rate as a share of the one where the decay begins.
    name : str, optional
        Name of the schedule.
    warmup_target : float, optional
        The rate that the warm-up ends and the decay begins at; None: no warm-up.
    warmup_steps : float
        Steps of the warm-up.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        alpha: float = 0.0,
        name: str | None = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: float = 0,
    ) -> None:
        self.initial_learning_rate = _number(self, "initial_learning_rate", initial_learning_rate)
        self.decay_steps = _number(self, "decay_steps", decay_steps, ends="()")
        self.alpha = _number(self, "alpha", alpha)
        self.name = name
        self.warmup_target = None if warmup_target is None else _number(self, "warmup_target", warmup_target)
        self.warmup_steps = _number(self, "warmup_steps", warmup_steps)

    def _rates(self, steps: _Rates) -> _Rates:
        if self.warmup_target is None:
            return self.initial_learning_rate * self._decayed(steps)
        warm = self.warmup_target - self.initial_learning_rate
        warm = warm * (steps / (self.warmup_steps or 1.0)) + self.initial_learning_rate
        return np.where(steps < self.warmup_steps, warm, self.warmup_target * self._decayed(steps - self.warmup_steps))

    def _decayed(self, steps: _Rates) -> _Rates:
        fraction = np.minimum(steps, self.decay_steps) / self.decay_steps
        return (1.0 - self.alpha) * (0.5 * (1.0 + np.cos(math.pi * fraction))) + self.alpha


class CosineDecayRestarts(_Formula):
    """Cosine decays one after another (Loshchilov and Hutter 2017, "SGDR", section 3).

    The steps at which cycles begin are added up: Keras takes them from a logarithm, which may round to the step after.

    Parameters
    ----------
    initial_learning_rate, first_decay_steps : float
        The rate of step 0, and the steps of the first cycle (above 0).
    t_mul : float
        Each cycle has this many times the steps of the last; at least 1.
    m_mul : float
        Each cycle begins at this many times the rate of the last; at least 0.
    alpha : float
        The least rate as a share of initial_learning_rate.
    name : str, optional
        Name of the schedule.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: float,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str | None = "SGDRDecay",
    ) -> None:
        self.initial_learning_rate = _number(self, "initial_learning_rate", initial_learning_rate)
        self.first_decay_steps = _number(self, "first_decay_steps", first_decay_steps, ends="()")
        self.t_mul = _number(self, "t_mul", t_mul, 1.0, expected="at least 1 (cycles may not shrink)")
        self.m_mul = _number(self, "m_mul", m_mul)
        self.alpha = _number(self, "alpha", alpha)
        self.name = name

    def _rates(self, steps: _Rates) -> _Rates:
        cycle, fraction = self._cycles(steps / self.first_decay_steps)
        cosine = 0.5 * np.power(float(self.m_mul), cycle) * (1.0 + np.cos(math.pi * fraction))
        return self.initial_learning_rate * ((1.0 - self.alpha) * cosine + self.alpha)

    def _cycles(self, passed: _Rates) -> tuple[_Rates, _Rates]:
        """Return the cycle's number, and its share that is over, after ``passed`` times the steps of the first."""
        if self.t_mul == 1.0:
            cycle = np.floor(passed)
            return cycle, passed - cycle
        grown = self.t_mul - 1.0
        count = int(math.log1p(float(passed.max(initial=0.0)) * grown) / math.log1p(grown)) + 2
        lengths = np.cumprod(np.r_[1.0, np.full(count, float(self.t_mul))])
        starts = np.r_[0.0, np.cumsum(lengths[:-1])]
        # a start that is off by rounding must not send its step to the end of the cycle before
        number = np.searchsorted(starts * (1.0 - 1e-12), passed, side="right") - 1
        return number.astype(np.float64), np.maximum(passed - starts[number], 0.0) / lengths[number]


class OneCycle(_Formula):
    """One rise to ``max_learning_rate`` and fall to next to nothing: PyTorch's OneCycleLR, without its momentum.

    Smith and Topin 2018, "Super-convergence". It begins at max_learning_rate / div_factor and ends, at step
    total_steps - 1, at that divided by final_div_factor, where it stays.

    Parameters
    ----------
    max_learning_rate : float
        The highest rate.
    total_steps : int
        Steps of the cycle; at least 1.
    pct_start : float
        Share of the steps on which the rate rises, in [0, 1].
    anneal_strategy : str
        'cos' or 'linear'.
    div_factor, final_div_factor : float
        max_learning_rate over the first rate, and the first rate over the last; above 0.
    three_phase : bool
        Whether the rate first falls to where it began, in as many steps as it rose, and from there to the end (the
        paper's form); then pct_start may be 0.5 at most.
    name : str, optional
        Name of the schedule.
    """

    def __init__(
        self,
        max_learning_rate: float,
        total_steps: int,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        name: str | None = "OneCycle",
    ) -> None:
        self.max_learning_rate = _number(self, "max_learning_rate", max_learning_rate)
        self.total_steps = positive_int("OneCycle", "total_steps", total_steps)
        self.three_phase = bool(three_phase)
        most, expected = (0.5, "in [0, 0.5] with three_phase") if self.three_phase else (1.0, "")
        self.pct_start = finite_number("OneCycle", "pct_start", pct_start, 0.0, most, expected=expected)
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"OneCycle: anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}")
        self.anneal_strategy = anneal_strategy
        self.div_factor = _number(self, "div_factor", div_factor, ends="()")
        self.final_div_factor = _number(self, "final_div_factor", final_div_factor, ends="()")
        self.name = name

    def _phases(self) -> list[tuple[float, float, float]]:
        """Return (last step, rate at the beginning, rate at the end) of each phase."""
        high = float(self.max_learning_rate)
        low = high / self.div_factor
        rise = self.pct_start * self.total_steps
        last, least = self.total_steps - 1.0, low / self.final_div_factor
        if self.three_phase:
            return [(rise - 1.0, low, high), (2.0 * rise - 2.0, high, low), (last, low, least)]
        return [(rise - 1.0, low, high), (last, high, least)]

    def _rates(self, steps: _Rates) -> _Rates:
        steps = np.minimum(steps, self.total_steps - 1.0)
        start, rates, done = 0.0, np.empty_like(steps), np.zeros(len(steps), bool)
        for end, first, last in self._phases():
            # a phase without a length is over: torch would divide by zero
            fraction = (steps - start) / (end - start) if end != start else np.ones_like(steps)
            if self.anneal_strategy == "cos":
                annealed = last + (first - last) / 2.0 * (np.cos(math.pi * fraction) + 1.0)
            else:
                annealed = (last - first) * fraction + first
            rates = np.where(done, rates, annealed)  # the last phase takes all that is left
            done |= steps <= end
            start = end
        return rates


SCHEDULES: dict[str, type[LearningRateSchedule]] = {
    row.__name__: row
    for row in (
        CosineDecay,
        CosineDecayRestarts,
        ExponentialDecay,
        InverseTimeDecay,
        OneCycle,
        PiecewiseConstantDecay,
        PolynomialDecay,
        StepDecay,
    )
}


REGISTRY: Registry[LearningRateSchedule] = Registry(
    "schedule",
    LearningRateSchedule,
    SCHEDULES,
    hint="; a schedule needs its arguments: pass an object; files name one's own, and custom_objects brings its class",
    needs_arguments=True,
)


def get(identifier: Any, custom_objects: Mapping[str, Any] | None = None) -> LearningRateSchedule:
    """Return the schedule that ``identifier`` describes or is.

    Parameters
    ----------
    identifier : LearningRateSchedule or dict
        {"class_name": name, "config": arguments}, or a schedule.
    custom_objects : mapping of str, optional
        Classes of the user's by name; they go before those that there are.

    Raises
    ------
    ValueError
        If there is no such schedule, or it doesn't take these arguments.

    Examples
    --------
    >>> get({"class_name": "StepDecay", "config": {"initial_learning_rate": 1.0, "decay_steps": 30}})(30)
    0.1
    """
    return REGISTRY.get(identifier, custom_objects)


def serialize(schedule: LearningRateSchedule) -> dict[str, Any]:
    """Describe a schedule for JSON, so that `get` makes it again.

    Parameters
    ----------
    schedule : LearningRateSchedule
        One of the user's own is written by its class's name, and needs ``custom_objects`` to be rebuilt.

    Examples
    --------
    >>> serialize(PiecewiseConstantDecay([100], [0.1, 0.01]))
    {'class_name': 'PiecewiseConstantDecay',
     'config': {'boundaries': [100], 'values': [0.1, 0.01], 'name': 'PiecewiseConstant'}}
    """
    description: dict[str, Any] = REGISTRY.serialize(schedule)
    return description


deserialize = get  # as Keras calls it
