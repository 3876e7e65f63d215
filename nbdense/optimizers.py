"""Optimizers under Keras's names, with its formulas and defaults; the steps themselves are in engine.optimizer."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nbdense._validate import positive_int
from nbdense.engine import optimizer as steps


class Optimizer:
    """What an optimizer is made of: a compiled step's code, its number of slots, and its hyperparameters.

    A slot is a vector beside the parameters (momentum, a running mean of squares). Subclasses set ``code``,
    ``slots`` and ``fields``, and list the hyperparameters in the order in which the compiled step reads them.

    Parameters
    ----------
    learning_rate : float
        Step size; at least 0.
    weight_decay : float, optional
        Decoupled: each step first takes this share, times the learning rate, off the weights (Loshchilov and Hutter
        2019).
    clipnorm : float, optional
        Each parameter tensor's gradient is scaled down to at most this norm.
    clipvalue : float, optional
        Each element of the gradient is cut to at most this size.
    global_clipnorm : float, optional
        All gradients together are scaled down to at most this norm.
    use_ema : bool
        Whether an exponential moving average of the weights takes their place at the end of a fit.
    ema_momentum : float
        Of that average, in [0, 1].
    ema_overwrite_frequency : int, optional
        The average takes the weights' place every so many steps too.

    Attributes
    ----------
    iterations : int
        Steps taken.
    """

    name: ClassVar[str]
    code: ClassVar[int]
    slots: int
    fields: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        learning_rate: float = 0.001,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
    ) -> None:
        if not learning_rate >= 0.0 or not np.isfinite(learning_rate):
            raise ValueError(f"{self.name}: learning_rate must be a finite number of at least 0, got {learning_rate!r}")
        self.learning_rate = float(learning_rate)
        self.iterations = 0
        self.weight_decay = self._positive("weight_decay", weight_decay, zero=True)
        self.clipnorm = self._positive("clipnorm", clipnorm)
        self.clipvalue = self._positive("clipvalue", clipvalue)
        self.global_clipnorm = self._positive("global_clipnorm", global_clipnorm)
        if sum(value is not None for value in (self.clipnorm, self.clipvalue, self.global_clipnorm)) > 1:
            raise ValueError(f"{self.name}: give only one of clipnorm, clipvalue and global_clipnorm")
        self.use_ema = bool(use_ema)
        if not 0.0 <= ema_momentum <= 1.0:
            raise ValueError(f"{self.name}: ema_momentum must be in [0, 1], got {ema_momentum!r}")
        self.ema_momentum = float(ema_momentum)
        if ema_overwrite_frequency is not None:
            ema_overwrite_frequency = positive_int(self.name, "ema_overwrite_frequency", ema_overwrite_frequency)
        self.ema_overwrite_frequency = ema_overwrite_frequency

    def _positive(self, field: str, value: float | None, zero: bool = False) -> float | None:
        if value is None:
            return None
        if not np.isfinite(value) or value < 0.0 or (value == 0.0 and not zero):
            raise ValueError(f"{self.name}: {field} must be a positive number, got {value!r}")
        return float(value)

    @property
    def state_rows(self) -> int:
        """Vectors beside the parameters: the gradients, the slots, and the moving average."""
        return 1 + self.slots + self.use_ema

    @property
    def clips_by_norm(self) -> bool:
        """Whether all gradients are needed before the first step is taken."""
        return self.clipnorm is not None or self.global_clipnorm is not None

    def hyper(self) -> npt.NDArray[np.float64]:
        """The hyperparameters as the compiled step reads them, float64."""
        values = np.zeros(steps.HYPER)
        values[: len(self.fields)] = [float(getattr(self, field)) for field in self.fields]
        return values

    def rates(self, count: int) -> npt.NDArray[np.float64]:
        """Learning rates of the next ``count`` steps."""
        return np.full(count, self.learning_rate)

    def run_fields(self) -> dict[str, Any]:
        """What a run of the compiled program has to know of it."""
        clips = [(1, self.clipvalue), (2, self.clipnorm), (3, self.global_clipnorm)]
        clip, clip_at = next(((code, value) for code, value in clips if value is not None), (0, 0.0))
        return {
            "optimizer": self.code,
            "iteration": self.iterations,
            "clip": clip,
            "clip_at": clip_at,
            "decay": self.weight_decay or 0.0,
            "average": self.ema_momentum if self.use_ema else -1.0,
        }

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this optimizer."""
        config: dict[str, Any] = {"learning_rate": self.learning_rate}
        for field in self.fields:
            value = getattr(self, field)
            config[field] = bool(value) if isinstance(value, bool) else float(value)
        for field in ("weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "ema_overwrite_frequency"):
            if getattr(self, field) is not None:
                config[field] = getattr(self, field)
        if self.use_ema:
            config |= {"use_ema": True, "ema_momentum": self.ema_momentum}
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
    **common
        Arguments of `Optimizer`.
    """

    name, code, slots, fields = "SGD", steps.SGD, 1, ("momentum", "nesterov")

    def __init__(
        self, learning_rate: float = 0.01, momentum: float = 0.0, nesterov: bool = False, **common: Any
    ) -> None:
        super().__init__(learning_rate, **common)
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
    **common
        Arguments of `Optimizer`.
    """

    name, code, slots, fields = "Adam", steps.ADAM, 2, ("beta_1", "beta_2", "epsilon")

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **common: Any,
    ) -> None:
        super().__init__(learning_rate, **common)
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
