"""The base of all losses, and losses of a user's own functions; `nbdense.losses` has them all."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from nbdense._compile.loops import loop
from nbdense._warn import warn
from nbdense.activations import ACTIVATIONS
from nbdense.engine.elementwise.loss_forms import CUSTOM_FORM, FORMS, LossForm

Chosen = tuple[LossForm, bool, float]  # a compiled loss, whether it fuses with the activation before it, its parameter


@dataclass(frozen=True)
class Loss:
    """A loss as users name it.

    Attributes
    ----------
    reduction : str
        "sum_over_batch_size", the only one.
    name : str
        Name of the loss; by default Keras's name, ``kind``.
    kind : str
        Keras's name for it.
    sparse : bool
        Whether targets are class numbers instead of rows of numbers.
    """

    kind: ClassVar[str] = ""
    sparse: ClassVar[bool] = False
    suited: ClassVar[tuple[str, ...]] = ()  # activations of the last layer; of none, any
    advice: ClassVar[str] = ""  # to who has another

    reduction: str = field(default="sum_over_batch_size", kw_only=True, repr=False)
    name: str = field(default="", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.kind)
        if self.reduction != "sum_over_batch_size":
            raise ValueError(
                f"{self.name}: reduction must be 'sum_over_batch_size', got {self.reduction!r}; "
                "sample_weight weighs rows"
            )

    def form(self, activation: str) -> Chosen:
        """Return the compiled loss to use after ``activation``, whether it fuses with it, and its parameter."""
        return FORMS[self.kind], False, 0.0

    def advice_after(self, activation: str) -> str:
        """Return advice where such a layer's outputs are hardly what the loss takes them for; else an empty string."""
        return self.advice if self.suited and activation in ACTIVATIONS and activation not in self.suited else ""

    def call(self, dtype: Any) -> int:
        """Return the address of a custom loss's compiled loop; 0 for the others."""
        return 0

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that rebuild it."""
        config = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if not f.kw_only}
        return config if self.name == self.kind else {**config, "name": self.name}


@dataclass(frozen=True)
class CustomLoss(Loss):
    """A loss of a user's own scalar functions; `custom` makes it."""

    value: Callable[[Any, Any], Any] = field(kw_only=True, repr=False)
    derivative: Callable[[Any, Any], Any] = field(kw_only=True, repr=False)

    def form(self, activation: str) -> Chosen:
        return CUSTOM_FORM, False, 0.0

    def call(self, dtype: Any) -> int:
        return loop("loss", dtype, self.value, self.derivative, owner=f"loss {self.name!r}")

    def get_config(self) -> dict[str, Any]:
        return {}


# Where a derivative is tried: outputs and targets that no loss is likely to have a kink at.
_TRIED = [(y, t) for t in (0.0, 1.0, 0.4142, -1.0) for y in (0.3127, 0.8713, -0.7431, 2.6181)]


def check_derivative(name: str, value: Callable[[Any, Any], Any], derivative: Callable[[Any, Any], Any]) -> None:
    """Try a custom loss's functions, and warn where the derivative is not the value's slope.

    Parameters
    ----------
    name : str
        The loss's, for messages.
    value, derivative : callable
        Functions of (output, target).

    Raises
    ------
    TypeError
        If one does not return a number.
    """
    plain_value, plain_derivative = (getattr(f, "py_func", f) for f in (value, derivative))
    step = 1e-5
    for y, t in _TRIED:
        try:
            with np.errstate(all="ignore"):
                above, below = (plain_value(np.float64(y + side), np.float64(t)) for side in (step, -step))
                slope = plain_derivative(np.float64(y), np.float64(t))
        except (ArithmeticError, ValueError):
            continue  # outside of its domain: math.log of a negative number
        except TypeError as error:
            raise TypeError(f"loss {name!r}: value and derivative are called with (output, target): {error}") from error
        for function, result in (("value", above), ("derivative", slope)):
            if np.ndim(result) or not isinstance(result, int | float | np.number | np.bool_):
                raise TypeError(f"loss {name!r}: {function} must return a number, got {type(result).__name__}")
        expected = (float(above) - float(below)) / (2 * step)
        if math.isfinite(expected) and not abs(float(slope) - expected) <= 1e-3 * (1.0 + abs(expected)):
            warn(
                f"loss {name!r}: derivative({y}, {t}) is {float(slope):.6g}, but value's slope there is "
                f"{expected:.6g}; it must be the derivative by the output"
            )
            return
