"""Projections of weights under Keras's names: called with an array, they return the nearest that is allowed.

Those of norms are one formula: a vector's norm n becomes ``rate * clip(n, min_value, max_value) + (1 - rate) * n``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nbdense._checks import array_of, finite_number
from nbdense._registry import OfFields, Registry

EPSILON = 1e-7  # added to norms that are divided by, as in Keras


class Constraint(OfFields):
    """A projection of weights; this one leaves them as they are.

    Attributes
    ----------
    kind : str
        Keras's lower-case name for it.
    """

    kind: ClassVar[str] = ""

    def __call__(self, w: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the projection of weights, an array of any shape."""
        return _numbers(w)


def _numbers(w: npt.ArrayLike) -> npt.NDArray[Any]:
    array = array_of("constraint: w", w)
    return array if array.dtype.kind == "f" else array.astype(np.float32)


class NonNeg(Constraint):
    """No weight below 0: those that are become 0.

    Examples
    --------
    >>> NonNeg()([-1.0, 2.0]).tolist()
    [0.0, 2.0]
    """

    kind = "non_neg"

    def __call__(self, w: npt.ArrayLike) -> npt.NDArray[Any]:
        array = _numbers(w)
        return np.maximum(array, array.dtype.type(0.0))


class NormConstraint(Constraint):
    """A projection of vectors by their norms.

    Attributes
    ----------
    min_value, max_value : float
        Between which a norm shall be.
    rate : float
        How far it goes there: 1 all the way, 0 not at all.
    axis : int or sequence of int
        Along which a vector lies: 0 for the weights into each unit of a dense layer's kernel.
    """

    min_value: float = 0.0
    max_value: float
    rate: float = 1.0
    axis: Any = 0

    def __call__(self, w: npt.ArrayLike) -> npt.NDArray[Any]:
        array = _numbers(w)
        axis = tuple(self.axis) if isinstance(self.axis, list) else self.axis
        norms = np.sqrt(np.sum(np.square(array), axis=axis, keepdims=True))
        allowed = self.rate * np.clip(norms, self.min_value, self.max_value) + (1.0 - self.rate) * norms
        return np.asarray(array * (allowed / (EPSILON + norms)), array.dtype)


class MaxNorm(NormConstraint):
    """Norms of at most ``max_value`` (Srebro and Shraibman 2005; for dropout, Srivastava et al. 2014, section 5.1).

    Parameters
    ----------
    max_value : float
        At least 0.
    axis : int or sequence of int
        Along which a vector lies.

    Examples
    --------
    >>> MaxNorm(2.0)([[3.0, 0.0], [4.0, 1.0]]).round(3).tolist()
    [[1.2, 0.0], [1.6, 1.0]]
    """

    kind = "max_norm"
    fields = ("max_value", "axis")

    def __init__(self, max_value: float = 2, axis: Any = 0) -> None:
        finite_number("MaxNorm", "max_value", max_value, 0.0)
        self.max_value, self.axis = max_value, axis


class UnitNorm(NormConstraint):
    """Norms of 1.

    Parameters
    ----------
    axis : int or sequence of int
        Along which a vector lies.
    """

    kind = "unit_norm"
    fields = ("axis",)
    min_value = max_value = 1.0

    def __init__(self, axis: Any = 0) -> None:
        self.axis = axis


class MinMaxNorm(NormConstraint):
    """Norms between two bounds, or on their way there.

    Parameters
    ----------
    min_value, max_value : float
        The bounds; at least 0.
    rate : float
        How far a norm goes there: 1 all the way.
    axis : int or sequence of int
        Along which a vector lies.
    """

    kind = "min_max_norm"
    fields = ("min_value", "max_value", "rate", "axis")

    def __init__(self, min_value: float = 0.0, max_value: float = 1.0, rate: float = 1.0, axis: Any = 0) -> None:
        finite_number("MinMaxNorm", "min_value", min_value, 0.0)
        finite_number("MinMaxNorm", "max_value", max_value, min_value)
        finite_number("MinMaxNorm", "rate", rate)
        self.min_value, self.max_value, self.rate, self.axis = min_value, max_value, rate, axis


max_norm, non_neg, unit_norm, min_max_norm = MaxNorm, NonNeg, UnitNorm, MinMaxNorm  # as Keras has them

CONSTRAINTS: dict[str, type[Constraint]] = {kind.kind: kind for kind in (MaxNorm, MinMaxNorm, NonNeg, UnitNorm)}
REGISTRY: Registry[Constraint] = Registry("constraint", Constraint, CONSTRAINTS, listed=("None", *CONSTRAINTS))


def get(identifier: Any, custom_objects: Mapping[str, Any] | None = None) -> Constraint | None:
    """Return the constraint that ``identifier`` names or is; None for None.

    Parameters
    ----------
    identifier : None, str, dict, Constraint or type
        A name, such as 'max_norm' or 'MaxNorm', for the defaults; {"class_name": name, "config": arguments}; a
        constraint or its class.
    custom_objects : mapping of str, optional
        Constraints and classes of the user's by name; they go before those that there are.

    Raises
    ------
    ValueError
        If there is no such constraint, or it doesn't take these arguments.

    Examples
    --------
    >>> get("max_norm")
    MaxNorm(max_value=2, axis=0)
    """
    return None if identifier is None else REGISTRY.get(identifier, custom_objects)


def serialize(constraint: Any) -> dict[str, Any] | None:
    """Describe a constraint for JSON, so that `get` makes it again: a dict, or None for None.

    Parameters
    ----------
    constraint : None, Constraint, or what `get` takes
        One of the user's own is written by its class's name, and needs ``custom_objects`` to be rebuilt.
    """
    return None if constraint is None else REGISTRY.serialize(constraint)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Constraint | None:
    """Return the constraint that `serialize` described.

    Parameters
    ----------
    config : dict or None
        The description.
    custom_objects : mapping of str, optional
        As for `get`.
    """
    return get(config, custom_objects)
