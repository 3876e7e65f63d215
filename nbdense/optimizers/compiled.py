"""Optimizers whose steps are functions of numbers, compiled where they are used: the training program has none of them.

A class of a user's own looks like these.
"""

from __future__ import annotations

import math
from typing import Any

from nbdense._checks import finite_number
from nbdense.optimizers.base import Optimizer
from nbdense.optimizers.values import Rate


class Adamax(Optimizer):
    """Adamax: Adam by the largest gradient so far, which fades, not the mean square (Kingma and Ba 2015, section 7).

    Parameters
    ----------
    learning_rate : float or schedule
        Step size.
    beta_1, beta_2 : float
        Decay of the mean of gradients and of the largest, in [0, 1).
    epsilon : float
        Added to the largest; above 0.
    **common
        Arguments of `Optimizer`.
    """

    name, fields, base_slots = "Adamax", ("beta_1", "beta_2", "epsilon"), 2

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **common: Any,
    ) -> None:
        super().__init__(learning_rate, **common)
        self.beta_1 = self._fraction("beta_1", beta_1)
        self.beta_2 = self._fraction("beta_2", beta_2)
        self.epsilon = self._epsilon(epsilon)

    @staticmethod
    def step(
        weight: Any,
        gradient: Any,
        mean: Any,
        largest: Any,
        rate: Any,
        iteration: Any,
        beta_1: Any,
        beta_2: Any,
        epsilon: Any,
    ) -> tuple[Any, ...]:
        """Return the new weight, mean and largest gradient."""
        mean = mean + (gradient - mean) * (1 - beta_1)
        largest = max(beta_2 * largest, abs(gradient))
        return weight - rate * mean / ((1 - beta_1**iteration) * (largest + epsilon)), mean, largest


class Adadelta(Optimizer):
    """Adadelta: steps as large as the last ones were, by running mean squares of both (Zeiler 2012, algorithm 1).

    Parameters
    ----------
    learning_rate : float or schedule
        Factor on the steps; the paper's is 1.
    rho : float
        Decay of the running means, in [0, 1).
    epsilon : float
        Added to the mean squares; above 0.
    **common
        Arguments of `Optimizer`.
    """

    name, fields, base_slots = "Adadelta", ("rho", "epsilon"), 2

    def __init__(self, learning_rate: Rate = 0.001, rho: float = 0.95, epsilon: float = 1e-7, **common: Any) -> None:
        super().__init__(learning_rate, **common)
        self.rho = self._fraction("rho", rho)
        self.epsilon = self._epsilon(epsilon)

    @staticmethod
    def step(
        weight: Any, gradient: Any, square: Any, moved: Any, rate: Any, iteration: Any, rho: Any, epsilon: Any
    ) -> tuple[Any, ...]:
        """Return the new weight, and the mean squares of gradients and of steps."""
        square = rho * square + (1 - rho) * gradient * gradient
        change = -math.sqrt(moved + epsilon) * gradient / math.sqrt(square + epsilon)
        return weight + rate * change, square, rho * moved + (1 - rho) * change * change


class Ftrl(Optimizer):
    """Follow the regularised leader (McMahan et al. 2013, algorithm 1, with online L2 shrinkage), as in Keras.

    Parameters
    ----------
    learning_rate : float or schedule
        Step size.
    learning_rate_power : float
        Power of the accumulator by which rates fall, at most 0.
    initial_accumulator_value : float
        What the sum of squares starts from; at least 0.
    l1_regularization_strength, l2_regularization_strength, l2_shrinkage_regularization_strength : float
        Penalties; at least 0. The last is on the size of weights, without counting into the accumulator.
    beta : float
        The paper's, at least 0.
    **common
        Arguments of `Optimizer`.
    """

    name, base_slots = "Ftrl", 2
    fields = (
        "learning_rate_power",
        "initial_accumulator_value",
        "l1_regularization_strength",
        "l2_regularization_strength",
        "l2_shrinkage_regularization_strength",
        "beta",
    )

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        learning_rate_power: float = -0.5,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        l2_shrinkage_regularization_strength: float = 0.0,
        beta: float = 0.0,
        **common: Any,
    ) -> None:
        super().__init__(learning_rate, **common)
        self.learning_rate_power = finite_number("Ftrl", "learning_rate_power", learning_rate_power, -math.inf, 0.0)
        self.initial_accumulator_value = finite_number(
            "Ftrl", "initial_accumulator_value", initial_accumulator_value, 0.0
        )
        self.l1_regularization_strength = finite_number(
            "Ftrl", "l1_regularization_strength", l1_regularization_strength, 0.0
        )
        self.l2_regularization_strength = finite_number(
            "Ftrl", "l2_regularization_strength", l2_regularization_strength, 0.0
        )
        self.l2_shrinkage_regularization_strength = finite_number(
            "Ftrl", "l2_shrinkage_regularization_strength", l2_shrinkage_regularization_strength, 0.0
        )
        self.beta = finite_number("Ftrl", "beta", beta, 0.0)

    @staticmethod
    def step(
        weight: Any,
        gradient: Any,
        total: Any,
        linear: Any,
        rate: Any,
        iteration: Any,
        power: Any,
        initial: Any,
        l1: Any,
        l2: Any,
        shrinkage: Any,
        beta: Any,
    ) -> tuple[Any, ...]:
        """Return the new weight, the sum of squares less its initial value, and the linear term.

        Where nothing is known of a weight yet, or the rate is 0, it stays: the quotient would be 0 / 0.
        """
        after = total + gradient * gradient
        grown = (after + initial) ** -power
        if rate == 0 or (grown == 0 and l2 == 0 and beta == 0):
            return weight, total, linear
        linear = linear + gradient + 2 * shrinkage * weight - (grown - (total + initial) ** -power) / rate * weight
        below = grown / rate + 2 * (l2 + beta / (2 * rate))
        return (min(max(linear, -l1), l1) - linear) / below, after, linear


class _Resting(Optimizer):
    """An optimizer that moves nothing: behind it only statistics of batches have moved."""

    name = "resting"

    def call(self, dtype: Any) -> int:
        return 0


RESTING = _Resting(0.0)
