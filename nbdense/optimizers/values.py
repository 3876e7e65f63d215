"""Numbers of an optimizer: learning rates and schedules of them, and numbers that can be told to take another value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt


@runtime_checkable
class Schedule(Protocol):
    """A learning rate for each step, as those in `nbdense.schedules` give it."""

    def rates(self, first_step: int, count: int) -> npt.NDArray[np.float64]:
        """Return the rates of ``count`` steps from ``first_step`` on, the first of all being 0: float64, (count,)."""


Rate: TypeAlias = float | Schedule | Mapping[str, Any]


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
