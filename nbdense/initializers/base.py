"""The base of all initializers, and a user's functions."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nbdense._registry import Configured, call_text, name_of
from nbdense.utils import next_seed

Values = npt.NDArray[np.float64]

_SEEDED = 2**62  # the number of a seeded initializer's stream: no model has so many tensors


def generator(seed: int, number: int) -> np.random.Generator:
    """Return the counter-based generator (Philox) of a model's ``number``-th initial tensor."""
    return np.random.Generator(np.random.Philox(key=[seed & 0xFFFFFFFFFFFFFFFF, number]))


class Initializer(Configured):
    """Maker of initial values: called as ``initializer(shape, dtype=None)``, as in Keras.

    Each argument of a subclass is an attribute of its objects. ``seed`` is one of those that draw. One of a user's own
    defines ``__call__`` with ``shape`` and what it wants of ``dtype``, ``random`` (a numpy.random.Generator, which
    makes a model's seed decide) and ``fan_in`` (the inputs of the layer that a bias belongs to).
    """

    name: ClassVar[str] = ""
    draws: ClassVar[bool] = False
    seed: int | None = None
    _own_seed: int | None = None

    def __call__(self, shape: Any, dtype: Any = None) -> npt.NDArray[Any]:
        """Return values of ``shape``.

        Parameters
        ----------
        shape : tuple of int
            (n_in, n_out) for a kernel, (n,) for a bias.
        dtype : dtype, optional
            float32 by default, as in Keras.

        Raises
        ------
        ValueError
            If the initializer has no values for this shape.
        """
        if self.draws and self.seed is None and self._own_seed is None:
            self._own_seed = next_seed()  # the same values in each call, and others in another object's, as in Keras
        random = generator(self._own_seed or 0, 0)
        with np.errstate(over="ignore"):
            return self.draw(shape, random).astype(dtype or np.float32, copy=False)

    def draw(
        self, shape: tuple[int, ...], random: np.random.Generator | None = None, fan_in: int | None = None
    ) -> Values:
        """Return values of a model's tensor, float64.

        Parameters
        ----------
        shape : tuple of int
            (n_in, n_out) for a kernel, (n,) for a bias.
        random : numpy.random.Generator, optional
            Where random values come from; needed unless the initializer has a seed or draws nothing.
        fan_in : int, optional
            Inputs of the layer that a bias belongs to, for initializers that ask (`TorchLinear`).

        Raises
        ------
        ValueError
            If the initializer has no values for this shape, or ``random`` is needed and not there.
        """
        if random is None and self.seed is None and self.draws:
            raise ValueError(f"{type(self).__name__}: pass a numpy.random.Generator, or set seed")
        if random is None or self.seed is not None:
            random = generator(self.seed or 0, _SEEDED)
        return self._values(checked_shape(type(self).__name__, shape), random, fan_in)

    def _values(self, shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None) -> Values:
        if type(self).__call__ is Initializer.__call__:
            raise NotImplementedError(f"{type(self).__name__} must define __call__(self, shape, dtype=None)")
        return called(type(self).__name__, self, shape, random, fan_in)

    def clone(self) -> Initializer:
        """Return another of the same arguments; without a seed it draws other values."""
        return self.from_config(self.get_config())

    def __repr__(self) -> str:
        return call_text(self, {key: value for key, value in self.get_config().items() if value is not None})


def checked_shape(owner: str, shape: Any) -> tuple[int, ...]:
    """Return a shape as a tuple of positive ints, or raise."""
    try:
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError:
        sizes = (0,)
    if min(sizes, default=1) < 1:
        raise ValueError(
            f"{owner}: shape must be (n_in, n_out), (n,) or another tuple of positive whole numbers, got {shape!r}"
        )
    return sizes


def called(
    owner: str, function: Callable[..., Any], shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None
) -> Values:
    """Return the values that a user's callable gives for a shape and what else it names among its parameters.

    One that takes two arguments without naming ``dtype`` gets the generator second.
    """
    parameters = inspect.signature(function).parameters
    if "dtype" in parameters or len(parameters) == 1:
        arguments = {"dtype": np.float64, "random": random, "fan_in": fan_in}
        made = function(shape, **{name: value for name, value in arguments.items() if name in parameters})
    elif "fan_in" in parameters:
        made = function(shape, random, fan_in)
    else:
        made = function(shape, random)
    values = np.asarray(made, np.float64)
    if values.shape != shape or not np.isfinite(values).all():
        result = f"shape {values.shape}" if values.shape != shape else "NaN or infinity"
        raise ValueError(f"initializer {owner!r}: asked for finite values of shape {shape}, got {result}")
    return values


class FunctionInitializer(Initializer):
    """A user's function of (shape, random) or, as Keras's, of (shape, dtype=None).

    Parameters
    ----------
    function : callable
        Returns an array of the shape.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.label = name_of(function)

    def _values(self, shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None) -> Values:
        return called(self.label, self.function, shape, random, fan_in)
