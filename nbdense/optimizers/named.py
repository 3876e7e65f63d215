"""Optimizers under Keras's names, with its formulas and defaults; the steps themselves are in engine.optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbdense._checks import finite_number
from nbdense._registry import Registry
from nbdense._registry import custom_objects as known_objects
from nbdense.engine.elementwise import optimizer as steps
from nbdense.optimizers.base import Optimizer
from nbdense.optimizers.compiled import Adadelta, Adamax, Ftrl
from nbdense.optimizers.values import Rate


class SGD(Optimizer):
    """Gradient descent: v = momentum v - lr g, w = w + v; with nesterov w = w + momentum v - lr g.

    Parameters
    ----------
    learning_rate : float or schedule
        Step size.
    momentum : float
        Momentum, in [0, 1]; with 1 no step is ever forgotten.
    nesterov : bool
        Look ahead along the momentum (Sutskever et al. 2013, section 2).
    **common
        Arguments of `Optimizer`.
    """

    name, code, fields = "SGD", steps.CALLED, ("momentum", "nesterov")
    slot_fields = ("momentum",)

    def __init__(
        self, learning_rate: Rate = 0.01, momentum: float = 0.0, nesterov: bool = False, **common: Any
    ) -> None:
        super().__init__(learning_rate, **common)
        self.momentum = finite_number("SGD", "momentum", momentum, 0.0, 1.0)
        self.nesterov = bool(nesterov)

    def range_step(self) -> Any:
        return steps.sgd


class RMSprop(Optimizer):
    """RMSprop: the gradient over the root of its running mean square, epsilon in the root (Hinton 2012, lecture 6e).

    Parameters
    ----------
    learning_rate : float or schedule
        Step size.
    rho : float
        Decay of the running means, in [0, 1).
    momentum : float
        Momentum of the steps, plain, in [0, 1).
    epsilon : float
        Added to the mean square; above 0.
    centered : bool
        Take the square of the running mean off the mean square, which leaves the gradient's variance.
    **common
        Arguments of `Optimizer`.
    """

    name, code, fields = "RMSprop", steps.CALLED, ("rho", "momentum", "epsilon", "centered")
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

    def range_step(self) -> Any:
        return steps.rmsprop


class Adagrad(Optimizer):
    """Adagrad: the gradient over the root of the sum of all its squares, epsilon in the root (Duchi et al. 2011).

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

    name, code, fields = "Adagrad", steps.CALLED, ("initial_accumulator_value", "epsilon")
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

    def range_step(self) -> Any:
        return steps.adagrad


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

    def range_step(self) -> Any:
        return steps.amsgrad if self.amsgrad else None


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

    def range_step(self) -> Any:
        return steps.nadam


class Lion(Optimizer):
    """Lion: the sign of a mix of momentum and gradient (Chen et al. 2023, algorithm 2): steps of the rate's size.

    Parameters
    ----------
    learning_rate : float or schedule
        Step size.
    beta_1 : float
        The momentum's share of the mix, in (0, 1): at 0 the momentum would not be used.
    beta_2 : float
        Decay of the momentum, in [0, 1).
    **common
        Arguments of `Optimizer`.
    """

    name, code, fields = "Lion", steps.CALLED, ("beta_1", "beta_2")
    base_slots = 1

    def __init__(self, learning_rate: Rate = 0.001, beta_1: float = 0.9, beta_2: float = 0.99, **common: Any) -> None:
        super().__init__(learning_rate, **common)
        self.beta_1 = finite_number("Lion", "beta_1", beta_1, 0.0, 1.0, ends="()")
        self.beta_2 = self._fraction("beta_2", beta_2)

    def range_step(self) -> Any:
        return steps.lion


OPTIMIZERS: dict[str, type[Optimizer]] = {
    row.name.lower(): row for row in (SGD, RMSprop, Adagrad, Adadelta, Adam, AdamW, Adamax, Nadam, Lion, Ftrl)
}


REGISTRY: Registry[Optimizer] = Registry(
    "optimizer",
    Optimizer,
    OPTIMIZERS,
    spelling=str.lower,
    hint="; one of your own is passed as an object or a class, or by its name in custom_objects",
    describe=lambda optimizer: {"class_name": type(optimizer).name, "config": optimizer.get_config()},
)


# Keras's that are none of these, and what to do instead.
_OTHERS = {
    "adafactor": "its steps depend on whole tensors; Adam is as good where memory is not scarce",
    "lamb": "its steps depend on whole tensors; AdamW is as good for batches of common sizes",
    "muon": "its steps depend on whole tensors; use AdamW",
    "lossscaleoptimizer": "it is for float16, in which nbdense does not compute; use the optimizer inside it",
    "multioptimizer": "a model has one optimizer; freeze layers with trainable=False, or fit several times",
    "schedulefreeadamw": "use AdamW with use_ema=True, or a schedule",
}


def get(optimizer: str | type[Optimizer] | Mapping[str, Any] | Optimizer | None) -> Optimizer | None:
    """Return the optimizer that an identifier names, describes or is; None of None.

    Parameters
    ----------
    optimizer : str, class, mapping, Optimizer or None
        A name, in any case, and a class take the defaults; a mapping is what `serialize` makes ("name" will do for
        "class_name"); an optimizer is returned as it is.

    Raises
    ------
    ValueError
        If there is no such optimizer, or it doesn't take these arguments.
    """
    return None if optimizer is None else for_training(optimizer)


def for_training(optimizer: str | type[Optimizer] | Mapping[str, Any] | Optimizer) -> Optimizer:
    """Return the optimizer of what `get` takes, for a model to train with: None is refused.

    Parameters
    ----------
    optimizer : str, class, mapping or Optimizer
        As for `get`.

    Raises
    ------
    ValueError
        As from `get`.
    """
    name = optimizer.get("class_name", optimizer.get("name")) if isinstance(optimizer, Mapping) else optimizer
    if isinstance(name, str) and name.lower() in _OTHERS and REGISTRY.find(name) is None:
        raise ValueError(f"optimizer {name!r} is not among nbdense's: {_OTHERS[name.lower()]}")
    return REGISTRY.get(optimizer)


def serialize(optimizer: Optimizer) -> dict[str, Any]:
    """Describe an optimizer by "class_name" and "config", of which `get` makes another like it: JSON-able."""
    description: dict[str, Any] = REGISTRY.serialize(optimizer)
    return description


def deserialize(config: Mapping[str, Any] | None, custom_objects: Mapping[str, Any] | None = None) -> Optimizer | None:
    """Return the optimizer that `serialize` described.

    Parameters
    ----------
    config : mapping or None
        The description.
    custom_objects : mapping of str, optional
        Classes of the user's by name.
    """
    with known_objects(custom_objects):
        return get(config)
