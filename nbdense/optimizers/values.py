"""Numbers of an optimizer that are read as in Keras: numbers, that can also be told to take another value."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt


class _Assigned:
    """A number that knows whose it is."""

    def of(self, owner: Any, field: str) -> Self:
        """Let `assign` set this field of that object; returns the number."""
        self._owner, self._field = owner, field
        return self

    @property
    def value(self) -> npt.NDArray[Any]:
        """The number as an array of no axes."""
        return np.asarray(self)

    def numpy(self) -> npt.NDArray[Any]:
        """Return the number as an array of no axes."""
        return np.asarray(self)

    def assign(self, value: Any) -> None:
        """Set it in the object that it was read from; this number stays what it is: read it anew."""
        setattr(self._owner, self._field, value)

    def __reduce__(self) -> Any:
        return type(self).__base__, (type(self).__base__(self),)  # type: ignore[misc]  # a plain number


class LearningRate(_Assigned, float):
    """A learning rate."""

    __slots__ = ("_field", "_owner")


class Count(_Assigned, int):
    """A number of steps."""
