"""Optimizers under Keras's names, with its formulas and defaults; the steps themselves are in engine.optimizer."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nbdense.engine import optimizer as steps


class Optimizer:
    """What an optimizer is made of: a compiled step's code, its number of slots, and its hyperparameters.

    A slot is a vector beside the parameters (momentum, a running mean of squares). Subclasses set ``code``,
    ``slots`` and ``fields``, and list the hyperparameters in the order in which the compiled step reads them.

    Parameters
    ----------
    learning_rate : float
        Step size; positive.
    """

    name: ClassVar[str]
    code: ClassVar[int]
    slots: ClassVar[int]
    fields: ClassVar[tuple[str, ...]] = ()

    def __init__(self, learning_rate: float = 0.001) -> None:
        if not learning_rate >= 0.0 or not np.isfinite(learning_rate):
            raise ValueError(f"{self.name}: learning_rate must be a finite number of at least 0, got {learning_rate!r}")
        self.learning_rate = float(learning_rate)
        self.iterations = 0

    def hyper(self) -> npt.NDArray[np.float64]:
        """The hyperparameters as the compiled step reads them, float64."""
        values = np.zeros(steps.HYPER)
        values[: len(self.fields)] = [float(getattr(self, field)) for field in self.fields]
        return values

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this optimizer."""
        config: dict[str, Any] = {"learning_rate": self.learning_rate}
        for field in self.fields:
            value = getattr(self, field)
            config[field] = bool(value) if isinstance(value, bool) else float(value)
        return config


def _check_fraction(name: str, field: str, value: float) -> float:
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{name}: {field} must be in [0, 1), got {value!r}")
    return float(value)


class SGD(Optimizer):
    """Gradient descent: v = momentum v - lr g, w = w + v; with nesterov w = w + momentum v - lr g.

    Parameters
    ----------
    learning_rate : float
        Step size.
    momentum : float
        In [0, 1).
    nesterov : bool
        Look ahead along the momentum (Sutskever et al. 2013, section 2).
    """

    name, code, slots, fields = "SGD", steps.SGD, 1, ("momentum", "nesterov")

    def __init__(self, learning_rate: float = 0.01, momentum: float = 0.0, nesterov: bool = False) -> None:
        super().__init__(learning_rate)
        self.momentum = _check_fraction(self.name, "momentum", momentum)
        self.nesterov = bool(nesterov)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015), epsilon outside the root and the bias correction in the step size, as in Keras.

    Parameters
    ----------
    learning_rate : float
        Step size.
    beta_1, beta_2 : float
        Decay of the means of gradients and of their squares, in [0, 1).
    epsilon : float
        Added to the root of the mean square.
    """

    name, code, slots, fields = "Adam", steps.ADAM, 2, ("beta_1", "beta_2", "epsilon")

    def __init__(
        self, learning_rate: float = 0.001, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7
    ) -> None:
        super().__init__(learning_rate)
        self.beta_1 = _check_fraction(self.name, "beta_1", beta_1)
        self.beta_2 = _check_fraction(self.name, "beta_2", beta_2)
        if not epsilon >= 0.0:
            raise ValueError(f"Adam: epsilon must be at least 0, got {epsilon!r}")
        self.epsilon = float(epsilon)


OPTIMIZERS: dict[str, type[Optimizer]] = {row.name.lower(): row for row in (SGD, Adam)}


def get(optimizer: str | Optimizer) -> Optimizer:
    """An optimizer by name (in any case), with its defaults; an optimizer is returned as it is.

    Raises
    ------
    ValueError
        If there is no such optimizer.
    """
    if isinstance(optimizer, Optimizer):
        return optimizer
    if not isinstance(optimizer, str) or optimizer.lower() not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {optimizer!r}; there are: {', '.join(sorted(OPTIMIZERS))}")
    return OPTIMIZERS[optimizer.lower()]()
