"""Optimizers under Keras's names, with its formulas and defaults; the steps themselves are in engine.optimizer."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from nbdense._checks import plain, positive_int
from nbdense._registry import Registry
from nbdense.engine.elementwise import optimizer as steps
from nbdense.engine.tables import CLIP_GLOBAL_NORM, CLIP_NORM, CLIP_VALUE, NO_CLIP

_SMALLEST = float(np.finfo(np.float32).tiny)  # that is not zero in either dtype


@runtime_checkable
class Schedule(Protocol):
    """What may stand for a learning rate: anything with a rate for each step, as in `nbdense.schedules`."""

    def rates(self, first_step: int, count: int) -> npt.NDArray[np.float64]:
        """The rates of ``count`` steps from ``first_step`` on, the first of all being 0: float64, (count,)."""


Rate: TypeAlias = float | Schedule | Mapping[str, Any]


class Optimizer:
    """What an optimizer is made of: a compiled step's code, its number of slots, and its hyperparameters.

    A slot is a vector beside the parameters (momentum, a running mean of squares) that starts at zero. Subclasses set
    ``code``, ``fields`` (the hyperparameters in the order in which the compiled step reads them), ``base_slots``, and
    ``slot_fields``, each of which takes a slot more if it is not zero or False.

    As in Keras a step clips the gradients, penalties included, then decays the weights, then moves them, and then
    averages them.

    Parameters
    ----------
    learning_rate : float or schedule
        Step size, at least 0; or a schedule of step sizes, asked with ``iterations``, or what `get_config` makes of
        one.
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
        Of that average, in [0, 1]. The average after the first step is the weights.
    ema_overwrite_frequency : int, optional
        The average takes the weights' place every so many steps too.
    weight_decay_excludes : sequence of str
        What `exclude_from_weight_decay` sets; not in Keras, whose saved optimizers forget it.

    Attributes
    ----------
    iterations : int
        Steps taken.
    """

    name: ClassVar[str]
    code: ClassVar[int]
    fields: ClassVar[tuple[str, ...]] = ()
    base_slots: ClassVar[int] = 0
    slot_fields: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        weight_decay_excludes: Sequence[str] = (),
    ) -> None:
        self.learning_rate = learning_rate
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
        self.exclude_from_weight_decay(var_names=weight_decay_excludes)

    def __setattr__(self, field: str, value: Any) -> None:
        # The state is laid out when the model is compiled: steps would read and write beyond it.
        lays_out = field == "use_ema" or field in self.slot_fields
        old = vars(self).get(field, value)
        if lays_out and bool(value) != bool(old):
            raise AttributeError(
                f"{self.name}: {field} decides what is kept beside the weights, and cannot be changed from {old!r} to "
                f"{value!r}; compile the model with a new {self.name}"
            )
        super().__setattr__(field, value)

    def _positive(self, field: str, value: float | None, zero: bool = False) -> float | None:
        if value is None:
            return None
        if not np.isfinite(value) or value < 0.0 or (value == 0.0 and not zero):
            bound = "finite number of at least 0" if zero else "positive number"
            raise ValueError(f"{self.name}: {field} must be a {bound}, got {plain(value)!r}")
        return float(value)

    def _fraction(self, field: str, value: float) -> float:
        if not 0.0 <= value < 1.0:
            raise ValueError(f"{self.name}: {field} must be in [0, 1), got {plain(value)!r}")
        return float(value)

    def _epsilon(self, value: float) -> float:
        """Zero would make NaN of every parameter whose gradients have all been zero: behind a dead unit, say."""
        if not _SMALLEST <= value < np.inf:
            raise ValueError(f"{self.name}: epsilon must be a number above {_SMALLEST:.1e}, got {plain(value)!r}")
        return float(value)

    @property
    def slots(self) -> int:
        """Vectors beside the parameters that the steps keep."""
        return self.base_slots + sum(bool(getattr(self, field)) for field in self.slot_fields)

    @property
    def learning_rate(self) -> Any:
        """The step size or the schedule, as it was set. A number cannot take a schedule's place."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if isinstance(value, Mapping):
            # By name: whoever has no schedule does not load them.
            value = importlib.import_module("nbdense.schedules").get(dict(value))
        if isinstance(value, Schedule):
            self._learning_rate: float | Schedule = value
            return
        if isinstance(getattr(self, "_learning_rate", None), Schedule):
            raise TypeError(
                f"{self.name}: learning_rate follows a schedule and cannot be set to {value!r}; "
                "set another schedule, or make the optimizer with a number"
            )
        number: Any = value
        if isinstance(value, bool) or not isinstance(value, Real | np.ndarray) or np.ndim(number) != 0:
            raise TypeError(f"{self.name}: learning_rate must be a number or a schedule, got {value!r}")
        if not number >= 0.0 or not np.isfinite(number):
            raise ValueError(f"{self.name}: learning_rate must be a finite number of at least 0, got {plain(value)!r}")
        self._learning_rate = float(number)

    @property
    def current_learning_rate(self) -> float:
        """The step size of the next step."""
        return float(self.rates(1)[0])

    def rates(self, count: int) -> npt.NDArray[np.float64]:
        """Learning rates of the next ``count`` steps, float64; a ValueError if a schedule gives not these."""
        if not isinstance(self._learning_rate, Schedule):
            return np.full(count, self._learning_rate)
        rates = np.ascontiguousarray(self._learning_rate.rates(self.iterations, count), np.float64)
        if rates.shape != (count,) or not np.isfinite(rates).all():
            raise ValueError(
                f"{self.name}: rates({self.iterations}, {count}) of the learning rate's "
                f"{type(self._learning_rate).__name__} must be {count} finite numbers, got {rates}"
            )
        return rates

    def exclude_from_weight_decay(self, *, var_names: Iterable[str] | None = None) -> None:
        """Let ``weight_decay`` leave alone what is named; it replaces what was excluded before.

        Parameters
        ----------
        var_names : iterable of str, optional
            Parts of parameters' names such as "dense/bias", or regular expressions that are searched for in them.
        """
        if isinstance(var_names, str):
            raise TypeError(f"{self.name}: var_names must be a list of names, got {var_names!r}")
        patterns = tuple(var_names or ())
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{self.name}: var_names: {pattern!r} is no regular expression: {error}") from None
        self.weight_decay_excludes = patterns

    def decay_factors(self, names: Iterable[str]) -> npt.NDArray[np.float64]:
        """1 for each parameter that is decayed, 0 for what `exclude_from_weight_decay` names: float64, (names,)."""
        excludes = self.weight_decay_excludes
        return np.array([not any(re.search(pattern, name) for pattern in excludes) for name in names], np.float64)

    @property
    def state_rows(self) -> int:
        """Vectors beside the parameters: the gradients, the slots, and the moving average."""
        return 1 + self.slots + self.use_ema

    @property
    def clips_by_norm(self) -> bool:
        """Whether all gradients are needed before the first step is taken."""
        return self.clipnorm is not None or self.global_clipnorm is not None

    def hyper(self) -> npt.NDArray[np.float64]:
        """The hyperparameters as the compiled step reads them, float64; behind them is room for its own numbers."""
        values = np.zeros(steps.HYPER)
        values[: len(self.fields)] = [float(getattr(self, field)) for field in self.fields]
        return values

    def run_fields(self) -> dict[str, Any]:
        """What a run of the compiled program has to know of it."""
        clips = [(CLIP_VALUE, self.clipvalue), (CLIP_NORM, self.clipnorm), (CLIP_GLOBAL_NORM, self.global_clipnorm)]
        clip, clip_at = next(((code, value) for code, value in clips if value is not None), (NO_CLIP, 0.0))
        return {
            "optimizer": self.code,
            "iteration": self.iterations,
            "clip": clip,
            "clip_at": clip_at,
            "decay": self.weight_decay or 0.0,
            "average": self.ema_momentum if self.use_ema else -1.0,
        }

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this optimizer, in what JSON can hold."""
        rate = self._learning_rate
        if isinstance(rate, Schedule):
            rate = importlib.import_module("nbdense.schedules").serialize(rate)
        config: dict[str, Any] = {"learning_rate": rate} | {field: getattr(self, field) for field in self.fields}
        for field in ("weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "ema_overwrite_frequency"):
            if getattr(self, field) is not None:
                config[field] = getattr(self, field)
        if self.use_ema:
            config |= {"use_ema": True, "ema_momentum": self.ema_momentum}
        if self.weight_decay_excludes:
            config["weight_decay_excludes"] = list(self.weight_decay_excludes)
        return config


class SGD(Optimizer):
    """Gradient descent: v = momentum v - lr g, w = w + v; with nesterov w = w + momentum v - lr g.

    Parameters
    ----------
    learning_rate : float or schedule
        Step size.
    momentum : float
        In [0, 1).
    nesterov : bool
        Look ahead along the momentum (Sutskever et al. 2013, section 2).
    **common
        Arguments of `Optimizer`.
    """

    name, code, fields = "SGD", steps.SGD, ("momentum", "nesterov")
    slot_fields = ("momentum",)

    def __init__(
        self, learning_rate: Rate = 0.01, momentum: float = 0.0, nesterov: bool = False, **common: Any
    ) -> None:
        super().__init__(learning_rate, **common)
        self.momentum = self._fraction("momentum", momentum)
        self.nesterov = bool(nesterov)


class RMSprop(Optimizer):
    """The gradient over the root of its running mean square (Hinton 2012, lecture 6e); epsilon is inside the root.

    Parameters
    ----------
    learning_rate : float or schedule
        Step size.
    rho : float
        Decay of the running means, in [0, 1).
    momentum : float
        Of the steps, plain, in [0, 1).
    epsilon : float
        Added to the mean square; above 0.
    centered : bool
        Take the square of the running mean off the mean square, which leaves the gradient's variance.
    **common
        Arguments of `Optimizer`.
    """

    name, code, fields = "RMSprop", steps.RMSPROP, ("rho", "momentum", "epsilon", "centered")
    base_slots, slot_fields = 1, ("momentum", "centered")

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(learning_rate, **common)
        self.rho = self._fraction("rho", rho)
        self.momentum = self._fraction("momentum", momentum)
        self.epsilon = self._epsilon(epsilon)
        self.centered = bool(centered)


class Adagrad(Optimizer):
    """The gradient over the root of the sum of all its squares (Duchi et al. 2011); epsilon is inside the root.

    Parameters
    ----------
    learning_rate : float or schedule
        Step size.
    initial_accumulator_value : float
        What the sum starts from; at least 0.
    epsilon : float
        Added to the sum; above 0.
    **common
        Arguments of `Optimizer`.
    """

    name, code, fields = "Adagrad", steps.ADAGRAD, ("initial_accumulator_value", "epsilon")
    base_slots = 1

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **common: Any,
    ) -> None:
        super().__init__(learning_rate, **common)
        initial = self._positive("initial_accumulator_value", initial_accumulator_value, zero=True)
        self.initial_accumulator_value = 0.1 if initial is None else initial
        self.epsilon = self._epsilon(epsilon)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015), epsilon outside the root and the bias correction in the step size, as in Keras.

    Parameters
    ----------
    learning_rate : float or schedule
        Step size.
    beta_1, beta_2 : float
        Decay of the means of gradients and of their squares, in [0, 1).
    epsilon : float
        Added to the root of the mean square; above 0.
    amsgrad : bool
        Divide by the largest mean square so far (Reddi et al. 2018).
    **common
        Arguments of `Optimizer`.
    """

    name, code, fields = "Adam", steps.ADAM, ("beta_1", "beta_2", "epsilon", "amsgrad")
    base_slots, slot_fields = 2, ("amsgrad",)

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(learning_rate, **common)
        self.beta_1 = self._fraction("beta_1", beta_1)
        self.beta_2 = self._fraction("beta_2", beta_2)
        self.epsilon = self._epsilon(epsilon)
        self.amsgrad = bool(amsgrad)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    Parameters
    ----------
    learning_rate : float or schedule
        Step size.
    weight_decay : float
        Share of the weights, times the learning rate, that each step takes off first.
    beta_1, beta_2 : float
        Decay of the means of gradients and of their squares, in [0, 1).
    epsilon : float
        Added to the root of the mean square; above 0.
    amsgrad : bool
        Divide by the largest mean square so far (Reddi et al. 2018).
    **common
        Arguments of `Optimizer`.
    """

    name = "AdamW"

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **common: Any,
    ) -> None:
        if weight_decay is None:
            raise ValueError("AdamW: weight_decay must be a number, got None; Adam has none")
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay=weight_decay, **common)


class Nadam(Optimizer):
    """Adam with Nesterov's momentum (Dozat 2016), its schedule of momenta included, as in Keras.

    Parameters
    ----------
    learning_rate : float or schedule
        Step size.
    beta_1, beta_2 : float
        Decay of the means of gradients and of their squares, in [0, 1).
    epsilon : float
        Added to the root of the mean square; above 0.
    **common
        Arguments of `Optimizer`.
    """

    name, code, fields = "Nadam", steps.NADAM, ("beta_1", "beta_2", "epsilon")
    base_slots = 2

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


class Lion(Optimizer):
    """The sign of a mix of momentum and gradient (Chen et al. 2023, algorithm 2): every step has the rate's size.

    Parameters
    ----------
    learning_rate : float or schedule
        Step size.
    beta_1 : float
        The momentum's share of the mix, in (0, 1).
    beta_2 : float
        Decay of the momentum, in [0, 1).
    **common
        Arguments of `Optimizer`.
    """

    name, code, fields = "Lion", steps.LION, ("beta_1", "beta_2")
    base_slots = 1

    def __init__(self, learning_rate: Rate = 0.001, beta_1: float = 0.9, beta_2: float = 0.99, **common: Any) -> None:
        super().__init__(learning_rate, **common)
        if not 0.0 < beta_1 < 1.0:
            raise ValueError(f"Lion: beta_1 must be in (0, 1), got {beta_1!r}; at 0 the momentum would not be used")
        self.beta_1 = float(beta_1)
        self.beta_2 = self._fraction("beta_2", beta_2)


OPTIMIZERS: dict[str, type[Optimizer]] = {
    row.name.lower(): row for row in (SGD, RMSprop, Adagrad, Adam, AdamW, Nadam, Lion)
}


REGISTRY: Registry[Optimizer] = Registry(
    "optimizer",
    Optimizer,
    OPTIMIZERS,
    spelling=str.lower,
    hint="; one of your own is passed as an object or a class, or by its name in custom_objects",
    describe=lambda optimizer: {"name": optimizer.name, "config": optimizer.get_config()},
)


def get(optimizer: str | type[Optimizer] | Mapping[str, Any] | Optimizer) -> Optimizer:
    """Return the optimizer that an identifier names, describes or is.

    Parameters
    ----------
    optimizer : str, class, mapping or Optimizer
        A name, in any case, and a class take the defaults; a mapping is what `serialize` makes ("class_name" will do
        for "name"); an optimizer is returned as it is.

    Raises
    ------
    ValueError
        If there is no such optimizer, or it doesn't take these arguments.
    """
    return REGISTRY.get(optimizer)


def serialize(optimizer: Optimizer) -> dict[str, Any]:
    """Describe an optimizer by "name" and "config", of which `get` makes another like it, in what JSON can hold."""
    description: dict[str, Any] = REGISTRY.serialize(optimizer)
    return description
