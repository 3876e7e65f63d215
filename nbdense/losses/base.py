"""The base of all losses, and losses of a user's own functions; `nbdense.losses` has them all."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nbdense._checks import array_of
from nbdense._compile.loops import loop, row_loop
from nbdense._registry import Configured, call_text, name_of, snake_case
from nbdense._warn import warn
from nbdense.activations import ACTIVATIONS
from nbdense.engine.elementwise.loss_forms import CUSTOM_FORM, FORMS, LossForm
from nbdense.losses.reductions import (
    reduce_weighted_values,
    squeeze_or_expand_to_same_rank,
    standardize_reduction,
)
from nbdense.losses.tracing import record, write_loop

Chosen = tuple[LossForm, bool, float]  # a compiled loss, whether it fuses with the activation before it, its parameter
THRESHOLD = 0.5  # of probabilities
NOT_NEGATIVE = tuple(name for name, row in ACTIVATIONS.items() if row.not_negative)  # no output is below 0


class Loss(Configured):
    """A loss: called, it is a number of targets and outputs; compiled, a model learns by it.

    One's own is a class with ``call``, written with NumPy: `Sequential.compile` records what that does to a row.

    Parameters
    ----------
    name : str, optional
        What it is called; by default its class, in lower case.
    reduction : str or None
        What a call makes of the numbers of rows: "sum_over_batch_size" or "mean", their mean; "sum";
        "mean_with_sample_weight", their sum over that of the weights; "none" or None leaves them. A model trains with
        the mean.
    dtype : {"float32", "float64"}, optional
        Of a call's computation, float32 by default as in Keras. A model trains in its own.

    Attributes
    ----------
    kind : str
        Keras's name of it as a function.
    sparse : bool
        Whether targets are class numbers instead of rows of numbers.
    """

    kind: ClassVar[str] = ""
    sparse: ClassVar[bool] = False
    suited: ClassVar[tuple[str, ...]] = ()  # activations of the last layer; of none, any
    advice: ClassVar[str] = ""  # to who has another

    def __init__(
        self, name: str | None = None, reduction: str | None = "sum_over_batch_size", dtype: Any = None
    ) -> None:
        self.name = name or self.kind or snake_case(type(self).__name__)
        self.reduction = standardize_reduction(reduction)
        self._dtype = _checked_dtype(self.name, dtype)
        self._body: str | None = None

    @property
    def dtype(self) -> str:
        """The dtype of a call's computation."""
        return str(self._dtype)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the loss of targets and outputs, reduced as ``reduction`` says."""
        y_pred = np.asarray(array_of("y_pred", y_pred), self._dtype)
        y_true = np.asarray(array_of("y_true", y_true), self._dtype)
        values = np.asarray(self.call(y_true, y_pred), self._dtype)
        return reduce_weighted_values(values, sample_weight, self.mask(y_true, y_pred), self.reduction)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each row.

        Parameters
        ----------
        y_true, y_pred : ndarray
            Targets and outputs; in `Sequential.compile` what records NumPy's operations on them.
        """
        raise NotImplementedError(f"{type(self).__name__} must define call(self, y_true, y_pred)")

    def mask(self, y_true: Any, y_pred: Any) -> npt.NDArray[np.bool_] | None:
        """Return which rows count in a mean; None where all do.

        Parameters
        ----------
        y_true, y_pred : ndarray
            Targets and outputs.
        """
        return None

    def form(self, activation: str) -> Chosen:
        """Return the compiled loss to use after ``activation``, whether it fuses with it, and its parameter."""
        return CUSTOM_FORM, False, 0.0

    def loop(self, dtype: Any) -> int:
        """Return the address of the compiled loop of a loss that the library has no form for; else 0."""
        return row_loop(dtype, self.body, owner=f"loss {self.name!r}")

    @property
    def body(self) -> str:
        """The body of that loop, from what `call` does."""
        if self._body is None:
            self._body = write_loop(record(self.name, self.call, sparse=self.sparse))
        return self._body

    def check_trainable(self) -> None:
        """Refuse what a call can do and training cannot.

        Raises
        ------
        ValueError
            Names it, and what to do.
        """
        advice = {
            "sum": "train with the mean; for its steps, multiply the learning rate of a plain SGD by the batch size",
            "mean_with_sample_weight": "train with the mean, and divide sample_weight by its own",
        }
        if self.reduction not in ("sum_over_batch_size", "mean"):
            how = advice.get(self.reduction or "", "train with the mean; a step needs one number")
            raise ValueError(f"compile: {self.name} has reduction={self.reduction!r}, which is for calls; {how}")
        if self.is_traced:
            _ = self.body

    @property
    def is_traced(self) -> bool:
        """Tell whether training computes what `call` does, since the compiled program has no form for it."""
        return self.form("linear")[0] is CUSTOM_FORM

    def advice_after(self, activation: str) -> str:
        """Return advice where such a layer's outputs are hardly what the loss takes them for; else an empty string."""
        return self.advice if self.suited and activation in ACTIVATIONS and activation not in self.suited else ""

    @property
    def decision_threshold(self) -> float:
        """The value that a single output is above where it stands for class 1: 0.5, of probabilities."""
        return THRESHOLD

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that rebuild it."""
        config: dict[str, Any] = {"name": self.name, "reduction": self.reduction}
        return config if self.dtype == "float32" else {**config, "dtype": self.dtype}


def _checked_dtype(name: str, dtype: Any) -> np.dtype[Any]:
    with suppress(TypeError):
        checked: np.dtype[Any] = np.dtype(np.float32 if dtype is None else dtype)
        if checked in (np.float32, np.float64):
            return checked
    raise ValueError(f"{name}: dtype must be None, 'float32' or 'float64', got {dtype!r}")


class NamedLoss(Loss):
    """A loss that has a function in `nbdense.losses.functions` of its name.

    Parameters
    ----------
    reduction : str or None
        See `Loss`.
    name : str, optional
        What it is called; by default Keras's name for it.
    dtype : {"float32", "float64"}, optional
        See `Loss`.

    Attributes
    ----------
    function : callable
        The function.
    fields : tuple of str
        Attributes that are its arguments, and their class's.
    """

    function: ClassVar[Callable[..., Any]]
    fields: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str | None = None, dtype: Any = None
    ) -> None:
        super().__init__(name, reduction, dtype)

    @property
    def arguments(self) -> dict[str, Any]:
        """The function's arguments beside targets and outputs."""
        return {field: getattr(self, field) for field in self.fields}

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true, y_pred = self._matched(y_true, y_pred)
        return type(self).function(y_true, y_pred, **self.arguments)

    def _matched(self, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        return squeeze_or_expand_to_same_rank(y_true, y_pred)

    def form(self, activation: str) -> Chosen:
        if type(self).call is not NamedLoss.call:  # a user's subclass, which does something else
            return super().form(activation)
        return self.compiled_form(activation)

    def compiled_form(self, activation: str) -> Chosen:
        """Return what `form` does for the loss as it is in the library."""
        return FORMS.get(self.kind, CUSTOM_FORM), False, 0.0

    def loop(self, dtype: Any) -> int:
        return super().loop(dtype) if self.is_traced else 0

    def check_trainable(self) -> None:
        axis = getattr(self, "axis", -1)
        if axis not in (-1, (-1,)):
            raise ValueError(
                f"compile: {self.name} has axis={axis!r}; a model trains over the last axis, axis=-1: let the last "
                "layer put the columns there"
            )
        super().check_trainable()

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.arguments}

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Loss) and other.get_config() == self.get_config()

    def __hash__(self) -> int:
        return hash((type(self), repr(self.get_config())))

    def __repr__(self) -> str:
        return call_text(self, self.arguments)


class FunctionLoss(Loss):
    """A loss of a user's function of targets and outputs, written with NumPy.

    Parameters
    ----------
    function : callable
        ``function(y_true, y_pred)``: a number for each row of arrays (rows, columns).
    name : str, optional
        What it is called; by default the function's name. Files keep that alone.
    reduction : str or None
        See `Loss`.
    dtype : {"float32", "float64"}, optional
        See `Loss`.
    """

    def __init__(
        self,
        function: Callable[[Any, Any], Any],
        name: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        super().__init__(name or name_of(function), reduction, dtype)
        self.function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.function(*squeeze_or_expand_to_same_rank(y_true, y_pred))


class CustomLoss(Loss):
    """A loss of a user's own scalar functions; `custom` makes it.

    Parameters
    ----------
    name : str
        What it is called.
    value, derivative : callable
        Of an output and its target.
    """

    def __init__(self, name: str, value: Callable[[Any, Any], Any], derivative: Callable[[Any, Any], Any]) -> None:
        super().__init__(name)
        self.value, self.derivative = value, derivative

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true, y_pred = squeeze_or_expand_to_same_rank(y_true, y_pred)
        plain = np.vectorize(getattr(self.value, "py_func", self.value), otypes=[np.float64])
        return plain(y_pred, y_true).mean(axis=-1)

    def loop(self, dtype: Any) -> int:
        return loop("loss", dtype, self.value, self.derivative, owner=f"loss {self.name!r}")

    @property
    def is_traced(self) -> bool:
        return False


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
