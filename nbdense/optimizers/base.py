"""The base class of optimizers: learning rates, clipping, decay and averages; `nbdense.optimizers` has them all."""

from __future__ import annotations

import copy
import importlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from nbdense._checks import array_of, finite_number, positive_int, unknown_argument, whole_number
from nbdense._compile.loops import kernel_step, step_loop
from nbdense._registry import custom_objects as known_objects
from nbdense._registry import snake_case
from nbdense._tables import Described
from nbdense.engine.elementwise import optimizer as steps
from nbdense.engine.tables import CLIP_GLOBAL_NORM, CLIP_NORM, CLIP_VALUE, NO_CLIP
from nbdense.optimizers.values import Count, LearningRate, Rate, Schedule

# Arguments that are None by default, and are in no description then.
_OPTIONS = (
    *("weight_decay", "clipnorm", "clipvalue", "global_clipnorm"),
    *("ema_overwrite_frequency", "gradient_accumulation_steps"),
)
_FORMER_NAMES = {"lr": "learning_rate", "decay": "weight_decay", "betas": "beta_1", "eps": "epsilon"}  # and torch's
_SMALLEST = float(np.finfo(np.float32).tiny)  # that is not zero in either dtype


class Optimizer(Described):
    """An optimizer: its step, the number of its slots, and its hyperparameters.

    A slot is a vector beside the parameters (momentum, a running mean of squares) that starts at zero. Subclasses set
    ``fields`` (the hyperparameters in the order in which the step reads them), ``base_slots``, and ``slot_fields``,
    each of which takes a slot more if it is not zero or False. The step is compiled with the package, and ``code`` is
    its number there; or, for an optimizer of one's own, it is a static method ``step(weight, gradient, *slots, rate,
    iteration, *fields)``, of numbers, which numba can compile. That returns the new weight, or a tuple of it and the
    new slots; iterations count from 1. Files hold such an optimizer's ``name``: its class is given as
    ``custom_objects={name: class}`` to load one.

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
        Momentum of that average, in [0, 1]. The average after the first step is the weights.
    ema_overwrite_frequency : int, optional
        The average takes the weights' place every so many steps too.
    weight_decay_excludes : sequence of str
        Patterns that `exclude_from_weight_decay` sets; not in Keras, whose saved optimizers forget it.
    gradient_accumulation_steps : int, optional
        A step is taken with the mean of the gradients of so many batches, at least 2, instead of each one's. Schedules
        go by batches then, as in Keras; not together with ``use_ema``.
    loss_scale_factor : None
        Refused: it is for float16, in which nbdense does not compute.
    name : str, optional
        The optimizer's name; by default that of its class, as in "adam_w".
    **unknown
        Refused.

    Attributes
    ----------
    batches : int
        Batches whose gradients have been taken: ``iterations``, or more where several make a step.
    edition : int
        Number of the settings: it changes whenever one of them, or anything else but ``batches``, is set.

    Examples
    --------
    >>> from nbdense.optimizers import Optimizer
    >>> class Momentum(Optimizer):
    ...     name, fields, base_slots = "Momentum", ("decay",), 1
    ...
    ...     def __init__(self, learning_rate=0.01, decay=0.9, **common):
    ...         super().__init__(learning_rate, **common)
    ...         self.decay = decay
    ...
    ...     @staticmethod
    ...     def step(weight, gradient, velocity, rate, iteration, decay):
    ...         velocity = decay * velocity - rate * gradient
    ...         return weight + velocity, velocity
    >>> Momentum(0.1).get_config()
    {'learning_rate': 0.1, 'decay': 0.9}
    """

    name: str  # the class's is what files call it
    code: int = steps.NONE
    step: Callable[..., Any] | None = None
    fields: tuple[str, ...] = ()
    base_slots: int = 0
    slot_fields: tuple[str, ...] = ()
    edition: int = 0

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
        gradient_accumulation_steps: int | None = None,
        loss_scale_factor: None = None,
        name: str | None = None,
        **unknown: Any,
    ) -> None:
        title = type(self).name
        for argument in unknown:
            raise unknown_argument(type(self), argument, _FORMER_NAMES)
        if loss_scale_factor is not None:
            raise ValueError(
                f"{title}: loss_scale_factor keeps float16 gradients from vanishing; nbdense computes in float32 or "
                "float64, so leave it out"
            )
        if name is not None and (not isinstance(name, str) or not name):
            raise ValueError(f"{title}: name must be a non-empty string, got {name!r}")
        self.name = name or snake_case(title)
        self._slots: Sequence[npt.NDArray[Any]] | None = None
        self._own: Any = None  # variables outside a model, from the first `apply` on
        self._spared: frozenset[int] = frozenset()
        self.batches = 0
        if gradient_accumulation_steps is not None:
            gradient_accumulation_steps = whole_number(
                title, "gradient_accumulation_steps", gradient_accumulation_steps, 2
            )
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.learning_rate = learning_rate
        self.weight_decay = self._positive("weight_decay", weight_decay, zero=True)
        self.clipnorm = self._positive("clipnorm", clipnorm)
        self.clipvalue = self._positive("clipvalue", clipvalue)
        self.global_clipnorm = self._positive("global_clipnorm", global_clipnorm)
        if sum(value is not None for value in (self.clipnorm, self.clipvalue, self.global_clipnorm)) > 1:
            raise ValueError(f"{type(self).name}: give only one of clipnorm, clipvalue and global_clipnorm")
        self.use_ema = bool(use_ema)
        if self.use_ema and self.gradient_accumulation_steps:
            raise ValueError(
                f"{title}: give use_ema or gradient_accumulation_steps, not both: the average is of weights behind "
                "steps, and most batches take none"
            )
        self.ema_momentum = finite_number(type(self).name, "ema_momentum", ema_momentum, 0.0, 1.0)
        if ema_overwrite_frequency is not None:
            ema_overwrite_frequency = positive_int(type(self).name, "ema_overwrite_frequency", ema_overwrite_frequency)
        self.ema_overwrite_frequency = ema_overwrite_frequency
        self.exclude_from_weight_decay(var_names=weight_decay_excludes)

    def __setattr__(self, field: str, value: Any) -> None:
        if field == "batches":  # counts, and sets nothing; each step does it
            vars(self)[field] = value
            return
        # The state is laid out when the model is compiled: steps would read and write beyond it.
        lays_out = field in ("use_ema", "gradient_accumulation_steps", *self.slot_fields)
        if lays_out and bool(value) != bool(old := vars(self).get(field, value)):
            raise AttributeError(
                f"{type(self).name}: {field} decides what is kept beside the weights, and cannot be changed from "
                f"{old!r} to {value!r}; compile the model with a new {type(self).name}"
            )
        super().__setattr__(field, value)
        vars(self)["edition"] = self.edition + 1

    def _positive(self, field: str, value: float | None, zero: bool = False) -> float | None:
        if value is None:
            return None
        if zero:
            return finite_number(type(self).name, field, value, 0.0)
        return finite_number(type(self).name, field, value, 0.0, ends="()", expected="a positive number")

    def _fraction(self, field: str, value: float) -> float:
        return finite_number(type(self).name, field, value, 0.0, 1.0, ends="[)")

    def _epsilon(self, value: float) -> float:
        """Refuse an epsilon of zero: parameters whose gradients were all zero (behind a dead unit) would become NaN."""
        return finite_number(type(self).name, "epsilon", value, _SMALLEST, expected=f"a number above {_SMALLEST:.1e}")

    @property
    def slots(self) -> int:
        """Vectors beside the parameters that the steps keep."""
        return self.base_slots + sum(bool(getattr(self, field)) for field in self.slot_fields)

    @property
    def iterations(self) -> Any:
        """Steps taken: a whole number, with Keras's ``numpy()``, ``value`` and ``assign``."""
        return Count(self.batches // (self.gradient_accumulation_steps or 1)).of(self, "iterations")

    @iterations.setter
    def iterations(self, value: int) -> None:
        self.batches = int(value) * (self.gradient_accumulation_steps or 1)

    @property
    def schedule(self) -> Schedule | None:
        """Schedule that the learning rate follows; None where it is a number that can be set."""
        return None if isinstance(self._learning_rate, float) else self._learning_rate

    @property
    def learning_rate(self) -> Any:
        """Step size of the next step: a number, with Keras's ``numpy()``, ``value`` and ``assign``.

        It can be set: to a number or a schedule, where it is a number, and to another schedule where it follows one.
        """
        return LearningRate(self.rates(1)[0]).of(self, "learning_rate")

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
                f"{type(self).name}: learning_rate follows a schedule and cannot be set to {value!r}; "
                "set another schedule, or make the optimizer with a number"
            )
        number: Any = value
        if isinstance(value, bool) or not isinstance(value, Real | np.ndarray) or np.ndim(number) != 0:
            raise TypeError(f"{type(self).name}: learning_rate must be a number or a schedule, got {value!r}")
        self._learning_rate = finite_number(type(self).name, "learning_rate", number, 0.0)

    @property
    def current_learning_rate(self) -> float:
        """Step size of the next step, as a plain number."""
        return float(self.rates(1)[0])

    @property
    def built(self) -> bool:
        """State of the slots: True once the optimizer belongs to a model that has its parameters."""
        return self._slots is not None

    @property
    def variables(self) -> list[npt.NDArray[Any]]:
        """Everything that changes from step to step, in Keras's order.

        That is the number of batches, the learning rate where it is a number, the moving average and the sum of
        gradients of each trainable parameter, where there are such, and then the slots, parameter by parameter. The
        first two are copies, the others views of what training works with.
        """
        known = [np.array(self.batches)]
        if self.schedule is None:
            known.append(np.array(self._learning_rate))
        return [*known, *(self._slots or ())]

    def take_slots(self, slots: Sequence[npt.NDArray[Any]]) -> None:
        """Show these views as `variables`: the model's training calls it when it has made them."""
        self._slots = slots

    def leave_variables(self) -> None:
        """Let go of arrays that were given to `apply`: a model is compiled with the optimizer."""
        self._own = self._slots = None

    def set_weights(self, weights: Sequence[npt.ArrayLike]) -> None:
        """Set the optimizer's state.

        Parameters
        ----------
        weights : sequence of array-like
            Arrays in the order and shapes of `variables`.

        Raises
        ------
        ValueError
            If the optimizer belongs to no built model yet, or the number or shape of the arrays is another.
        """
        title = type(self).name
        if not self.built:
            raise ValueError(
                f"{title}: set_weights needs a model whose slots it sets: compile the model with this optimizer, build "
                "it, and ask for optimizer.variables"
            )
        known = self.variables
        arrays = [array_of(f"{title}: set_weights", value) for value in weights]
        if [array.shape for array in arrays] != [value.shape for value in known]:
            raise ValueError(
                f"{title}: set_weights takes arrays of shapes {[value.shape for value in known]}, got "
                f"{[array.shape for array in arrays]}"
            )
        first = 1
        self.batches = int(arrays[0])
        if self.schedule is None:
            first, self.learning_rate = 2, float(arrays[1])
        for view, array in zip(known[first:], arrays[first:], strict=True):
            view[...] = array

    def __getstate__(self) -> dict[str, Any]:
        # Views of a model's memory, and of variables: a copy belongs to none yet.
        return {**vars(self), "_slots": None, "_own": None, "_spared": frozenset()}

    def fresh(self) -> Self:
        """Return another of the same settings, which has taken no step; a schedule is shared."""
        other = copy.copy(self)
        other.batches = 0
        return other

    def apply(self, grads: Iterable[Any], trainable_variables: Iterable[Any] | None = None) -> None:
        """Take a step on arrays of your own, in their place; a model's are moved by `Sequential.apply_gradients`.

        Parameters
        ----------
        grads : iterable of array-like
            A gradient for each variable; None leaves it as it is.
        trainable_variables : iterable of ndarray, optional
            The variables: those of the first call, or of `build`, ever after. Objects with ``__array__`` and ``assign``
            will do.

        Examples
        --------
        >>> import numpy as np
        >>> from nbdense.optimizers import SGD
        >>> weights = np.array([1.0, 2.0])
        >>> SGD(0.5).apply([np.array([1.0, -1.0])], [weights])
        >>> weights
        array([0.5, 2.5])
        """
        grads = list(grads)
        if trainable_variables is not None and self._own is None:
            trainable_variables = list(trainable_variables)
            self.build(trainable_variables)
        if self._own is None:
            raise ValueError(f"{type(self).name}: apply needs the variables in its first call, or build(variables)")
        self._own.step(grads, list(trainable_variables) if trainable_variables is not None else None)

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Any]]) -> None:
        """Take a step on arrays of your own: `apply` of pairs.

        Parameters
        ----------
        grads_and_vars : iterable of (gradient, variable)
            What ``zip`` makes of both.
        """
        pairs = list(grads_and_vars)
        self.apply([gradient for gradient, _ in pairs], [variable for _, variable in pairs])

    def build(self, variables: Iterable[Any]) -> None:
        """Make slots for arrays of your own; the first `apply` does it too.

        Parameters
        ----------
        variables : iterable of ndarray
            The variables.
        """
        self._own = importlib.import_module("nbdense.training.variables").Variables(self, list(variables), self._spared)

    def finalize_variable_values(self, var_list: Iterable[Any]) -> None:
        """Put the moving averages in the place of arrays of your own, where there are averages; `fit` does it itself.

        Parameters
        ----------
        var_list : iterable of ndarray
            Accepted for Keras's sake: it is all variables.
        """
        if self.use_ema and self._own is not None:
            self._own.take_averages()

    def rates(self, count: int) -> npt.NDArray[np.float64]:
        """Return the learning rates of the next ``count`` steps, float64; raise if a schedule gives others."""
        if isinstance(self._learning_rate, float):  # first: a look at a protocol costs ten microseconds
            return np.full(count, self._learning_rate)
        rates = np.ascontiguousarray(self._learning_rate.rates(self.batches, count), np.float64)
        if rates.shape != (count,) or not np.isfinite(rates).all():
            raise ValueError(
                f"{type(self).name}: rates({self.batches}, {count}) of the learning rate's "
                f"{type(self._learning_rate).__name__} must be {count} finite numbers, got {rates}"
            )
        return rates

    def exclude_from_weight_decay(
        self, var_list: Iterable[Any] | None = None, var_names: Iterable[str] | None = None
    ) -> None:
        """Let ``weight_decay`` leave alone what is named; it replaces what was excluded before.

        Parameters
        ----------
        var_list : iterable of ndarray, optional
            Variables of your own, for `apply`. Of a model's parameters give the names.
        var_names : iterable of str, optional
            Parts of parameters' names such as "dense/bias", or regular expressions that are searched for in them.
        """
        self._spared = frozenset(map(id, var_list or ()))
        if isinstance(var_names, str):
            raise TypeError(f"{type(self).name}: var_names must be a list of names, got {var_names!r}")
        patterns = tuple(var_names or ())
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(
                    f"{type(self).name}: var_names: {pattern!r} is no regular expression: {error}"
                ) from None
        self.weight_decay_excludes = patterns

    def decay_factors(self, names: Iterable[str]) -> npt.NDArray[np.float64]:
        """Return 1 for each parameter that is decayed, 0 for those that are excluded from it: float64, (names,)."""
        excludes = self.weight_decay_excludes
        return np.array([not any(re.search(pattern, name) for pattern in excludes) for name in names], np.float64)

    @property
    def state_rows(self) -> int:
        """Vectors beside the parameters: the gradients, the slots, and the gradients' sum or the moving average."""
        return 1 + self.slots + bool(self.gradient_accumulation_steps) + self.use_ema

    @property
    def clips_by_norm(self) -> bool:
        """True where clipping needs all gradients before the first step is taken."""
        return self.clipnorm is not None or self.global_clipnorm is not None

    def hyper(self) -> npt.NDArray[np.float64]:
        """Return the hyperparameters as the compiled step reads them, float64; behind them is room for its own."""
        values = np.zeros(steps.HYPER)
        values[: len(self.fields)] = [float(getattr(self, field)) for field in self.fields]
        return values

    def call(self, dtype: Any) -> int:
        """Return the address of the loop that takes its steps; 0 where the compiled program takes them.

        Raises
        ------
        ValueError
            If numba cannot compile a custom step.
        NotImplementedError
            If there is neither.
        """
        if self.step is not None:
            owner = f"optimizer {type(self).name!r}"
            return step_loop(dtype, self.step, self.slots, len(self.fields), owner=owner)
        if self.code == steps.NONE:
            raise NotImplementedError(f"{type(self).__name__} must define step(weight, gradient, ...)")
        kernel = self.range_step()
        if kernel is None:
            return 0
        return kernel_step(kernel.__name__, dtype, kernel, steps.MOST_SLOTS, steps.HYPER)

    def range_step(self) -> Any:
        """Return the kernel of its steps that is compiled on demand; None where the program has it, or `step` is it."""
        return None

    def run_fields(self, dtype: Any = np.float64) -> dict[str, Any]:
        """Return the fields of a run of the compiled program that an optimizer fills; parameters are of ``dtype``."""
        clips = [(CLIP_VALUE, self.clipvalue), (CLIP_NORM, self.clipnorm), (CLIP_GLOBAL_NORM, self.global_clipnorm)]
        clip, clip_at = next(((code, value) for code, value in clips if value is not None), (NO_CLIP, 0.0))
        return {
            "optimizer": self.code if self.step is None else steps.CALLED,
            "optimizer_call": self.call(dtype),
            "iteration": int(self.iterations),
            "clip": clip,
            "clip_at": clip_at,
            "decay": self.weight_decay or 0.0,
            "average": self.ema_momentum if self.use_ema else -1.0,
        }

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that rebuild this optimizer, in what JSON can hold."""
        rate = self._learning_rate
        if not isinstance(rate, float):
            rate = importlib.import_module("nbdense.schedules").serialize(rate)
        config: dict[str, Any] = {"learning_rate": rate} | {field: getattr(self, field) for field in self.fields}
        if self.name != snake_case(type(self).name):
            config["name"] = self.name
        for field in _OPTIONS:
            if getattr(self, field) is not None:
                config[field] = getattr(self, field)
        if self.use_ema:
            config |= {"use_ema": True, "ema_momentum": self.ema_momentum}
        if self.weight_decay_excludes:
            config["weight_decay_excludes"] = list(self.weight_decay_excludes)
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        """Make an optimizer of what `get_config` returned.

        Parameters
        ----------
        config : mapping of str
            Arguments.
        custom_objects : mapping of str, optional
            A schedule of one's own by its class's name.
        """
        with known_objects(custom_objects):
            return cls(**config)
