"""Initializers that draw nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbdense._checks import finite_number, numbers_of
from nbdense.initializers.base import Initializer, Values


class Zeros(Initializer):
    """All zero."""

    name = "zeros"

    def _values(self, shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None) -> Values:
        return np.zeros(shape)


class Ones(Initializer):
    """All one."""

    name = "ones"

    def _values(self, shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None) -> Values:
        return np.ones(shape)


class Constant(Initializer):
    """All the same number, or the numbers of an array.

    Parameters
    ----------
    value : float or array-like
        The number, or an array that can be broadcast to the shape; finite.
    """

    name = "constant"

    def __init__(self, value: Any = 0.0) -> None:
        if np.ndim(value) == 0:
            self.value: Any = finite_number(type(self).__name__, "value", value)
        else:
            array = numbers_of("Constant: value", value).astype(np.float64)
            if not np.isfinite(array).all():
                raise ValueError("Constant: value must be finite numbers, got NaN or infinity among them")
            self.value = array.tolist()  # as files have it

    def _values(self, shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None) -> Values:
        value = np.asarray(self.value)
        try:
            return np.broadcast_to(value, shape).copy()
        except ValueError:
            raise ValueError(f"Constant: Expected `shape` to be {value.shape}, as the value has, got {shape}") from None


class Identity(Initializer):
    """``gain`` times the identity matrix, with rows or columns of zeros where it is not square.

    Parameters
    ----------
    gain : float
        Factor on the matrix.
    """

    name = "identity"

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = finite_number(type(self).__name__, "gain", gain)

    def _values(self, shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None) -> Values:
        if len(shape) != 2:
            raise ValueError(f"Identity: shape must have two axes, got {shape}; biases take another initializer")
        return self.gain * np.eye(*shape)
