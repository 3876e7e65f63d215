"""Arrays that are assigned to, with Keras's methods: state of metrics, weights of layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class Variable(np.lib.mixins.NDArrayOperatorsMixin):
    """A NumPy array that keeps its shape and dtype while its values are assigned; NumPy's functions take it.

    Parameters
    ----------
    value : array-like
        First values; copied.
    dtype : dtype-like
        Of the values.
    name : str, optional
        Name of the variable.

    Examples
    --------
    >>> from nbdense.metrics import Variable
    >>> total = Variable(0.0)
    >>> total.assign_add(2.5)
    >>> float(total), float(total + 1)
    (2.5, 3.5)
    """

    def __init__(self, value: npt.ArrayLike, dtype: npt.DTypeLike = "float64", name: str | None = None) -> None:
        self._array = np.array(value, dtype)
        self.name = name or "variable"

    def assign(self, value: Any) -> None:
        """Replace the values.

        Parameters
        ----------
        value : array-like
            Of the variable's shape.

        Raises
        ------
        ValueError
            If it has another shape.
        """
        new = np.array(value, self._value.dtype)
        if new.shape != self.shape:
            raise ValueError(f"{self.name}: shape {self.shape} was expected, got {new.shape}")
        self._value[...] = new

    def assign_add(self, value: Any) -> None:
        """Add to the values.

        Parameters
        ----------
        value : array-like
            Of the variable's shape, or a number.
        """
        self.assign(self._value + np.asarray(value))

    def assign_sub(self, value: Any) -> None:
        """Subtract from the values.

        Parameters
        ----------
        value : array-like
            Of the variable's shape, or a number.
        """
        self.assign(self._value - np.asarray(value))

    @property
    def _value(self) -> npt.NDArray[Any]:
        """The array that is assigned to."""
        return self._array

    @property
    def value(self) -> npt.NDArray[Any]:
        """A copy of the values."""
        return self._value.copy()

    def numpy(self) -> npt.NDArray[Any]:
        """Return a copy of the values."""
        return self.value

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values."""
        return self._value.shape

    @property
    def dtype(self) -> str:
        """Name of the values' dtype."""
        return self._value.dtype.name

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self._value, dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        arrays = [each._value if isinstance(each, Variable) else each for each in inputs]
        return getattr(ufunc, method)(*arrays, **options)

    def __getitem__(self, index: Any) -> Any:
        return self._value[index]

    def __len__(self) -> int:
        return len(self._value)

    def __float__(self) -> float:
        return float(self._value)

    def __int__(self) -> int:
        return int(self._value)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return f"Variable({self._value.tolist()}, dtype={self.dtype!r}, name={self.name!r})"
