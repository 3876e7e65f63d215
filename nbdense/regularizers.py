"""Penalties on weights under Keras's names: added to the loss, and their gradient to the gradient.

The engine knows two factors a tensor, l1 and l2: l1 sum |w| + l2 sum w^2. Every regularizer that a layer takes is such
a pair.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nbdense._checks import array_of, finite_number
from nbdense._registry import OfFields, Registry

_BLOCK = 1 << 16  # elements converted to float64 in one go


class Regularizer(OfFields):
    """The penalty l1 sum |w| + l2 sum w^2; a class with a ``__call__`` of its own is for calls alone.

    Attributes
    ----------
    l1, l2 : float
        The factors; at least 0.
    """

    fields: ClassVar[tuple[str, ...]] = ("l1", "l2")
    l1: float = 0.0
    l2: float = 0.0

    def __call__(self, weights: npt.ArrayLike) -> float:
        """Compute the penalty of ``weights`` (an array of any shape and dtype) in float64."""
        array = np.atleast_1d(array_of(f"{type(self).__name__}: weights", weights))
        step = max(1, _BLOCK * len(array) // max(1, array.size))
        penalty = 0.0
        for first in range(0, len(array), step):  # in pieces: a kernel can be large, and a view of padded memory
            block = array[first : first + step].astype(np.float64)
            penalty += self.l1 * float(np.abs(block).sum()) + self.l2 * float(np.square(block).sum())
        return penalty


def _factor(owner: Regularizer, argument: str, value: Any, default: float) -> float:
    """Return a factor as a float; None is its default, as in Keras."""
    return default if value is None else finite_number(type(owner).__name__, argument, value, 0.0)


class L1(Regularizer):
    """The penalty l1 sum |w|, which pulls weights to zero (Tibshirani 1996, the lasso).

    Parameters
    ----------
    l1 : float
        Factor; at least 0.
    l : float, optional
        The name that ``l1`` had in older versions of Keras.

    Examples
    --------
    >>> L1(0.5)([[1.0, -2.0]])
    1.5
    """

    fields = ("l1",)

    def __init__(self, l1: float | None = 0.01, *, l: float | None = None) -> None:  # noqa: E741
        self.l1 = _factor(self, "l1", l1 if l is None else l, 0.01)


class L2(Regularizer):
    """The penalty l2 sum w^2, no factor 1/2: it keeps weights small (Hoerl and Kennard 1970, ridge regression).

    Parameters
    ----------
    l2 : float
        Factor; at least 0.
    l : float, optional
        The name that ``l2`` had in older versions of Keras.

    Examples
    --------
    >>> L2(l=0.5)([[1.0, -2.0]])
    2.5
    """

    fields = ("l2",)

    def __init__(self, l2: float | None = 0.01, *, l: float | None = None) -> None:  # noqa: E741
        self.l2 = _factor(self, "l2", l2 if l is None else l, 0.01)


class L1L2(Regularizer):
    """The penalty l1 sum |w| + l2 sum w^2 (Zou and Hastie 2005, the elastic net).

    Parameters
    ----------
    l1, l2 : float
        Factors; at least 0.

    Examples
    --------
    >>> L1L2(l1=1.0, l2=0.5)([[1.0, -2.0]])
    5.5
    """

    def __init__(self, l1: float | None = 0.0, l2: float | None = 0.0) -> None:
        self.l1 = _factor(self, "l1", l1, 0.0)
        self.l2 = _factor(self, "l2", l2, 0.0)


class OrthogonalRegularizer(Regularizer):
    """``factor`` times the mean of |cosine| over all pairs of rows, or columns: pulls them apart. For calls alone.

    Parameters
    ----------
    factor : float
        At least 0.
    mode : {"rows", "columns"}
        Vectors of which there are pairs.

    Examples
    --------
    >>> round(OrthogonalRegularizer(1.0)([[3.0, 0.0], [2.0, 2.0]]), 6)
    0.707107
    """

    fields = ("factor", "mode")

    def __init__(self, factor: float = 0.01, mode: str = "rows") -> None:
        self.factor = finite_number(type(self).__name__, "factor", factor, 0.0)
        if mode not in ("rows", "columns"):
            raise ValueError(
                f'Invalid value for argument `mode`. Expected one of {{"rows", "columns"}}. Received: mode={mode}'
            )
        self.mode = mode

    def __call__(self, weights: npt.ArrayLike) -> float:
        array = np.asarray(array_of("OrthogonalRegularizer: weights", weights), np.float64)
        if array.ndim != 2:
            raise ValueError(f"Inputs to OrthogonalRegularizer must have rank 2. Received: inputs.shape={array.shape}")
        vectors = array if self.mode == "rows" else array.T
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-7)
        size = len(vectors)
        cosines = np.abs(vectors @ vectors.T)
        return self.factor * float(cosines.sum() - np.trace(cosines)) / (size * (size - 1.0)) if size > 1 else math.nan


l1, l2, l1_l2, orthogonal_regularizer = L1, L2, L1L2, OrthogonalRegularizer  # as Keras has them

REGULARIZERS: dict[str, type[Regularizer]] = {row.__name__: row for row in (L1, L2, L1L2, OrthogonalRegularizer)}
REGISTRY: Registry[Regularizer] = Registry(
    "regularizer",
    Regularizer,
    REGULARIZERS,
    {"l1": "L1", "l2": "L2", "l1l2": "L1L2", "orthogonal_regularizer": "OrthogonalRegularizer"},
    listed=("None", "l1", "l2", "l1_l2", "l1l2", "orthogonal_regularizer"),
    hint=", and objects such as nbdense.regularizers.L2(0.001); functions can't be compiled into the training program",
)


def get(identifier: Any, custom_objects: Mapping[str, Any] | None = None) -> Regularizer | None:
    """Return the regularizer that ``identifier`` names or is; None for None.

    Parameters
    ----------
    identifier : None, str, dict, Regularizer or type
        A name: 'l1', 'l2' or 'l1_l2', with factors of 0.01; another or a class's, with its defaults (those of 'l1l2'
        are 0, as in Keras); {"class_name": name, "config": arguments}; a regularizer or its class.
    custom_objects : mapping of str, optional
        Regularizers and classes of the user's by name; they go before those that there are.

    Raises
    ------
    ValueError
        If there is no such regularizer, or it doesn't take these arguments.

    Examples
    --------
    >>> get("l2")
    L2(l2=0.01)
    >>> get({"class_name": "L1L2", "config": {"l1": 0.1}})
    L1L2(l1=0.1, l2=0.0)
    """
    if identifier is None:
        return None
    if isinstance(identifier, str) and identifier == "l1_l2":  # as Keras documents it, and fails to find
        return L1L2(0.01, 0.01)
    return REGISTRY.get(identifier, custom_objects)


def for_layer(identifier: Any) -> Regularizer | None:
    """Return the regularizer of a layer's tensor; None for None.

    Parameters
    ----------
    identifier : None, or what `get` takes
        The argument of a layer.

    Raises
    ------
    ValueError
        If there is no such regularizer, or the training program has no form for it.
    """
    regularizer = get(identifier)
    if regularizer is not None and type(regularizer).__call__ is not Regularizer.__call__:
        raise ValueError(
            f"regularizer {type(regularizer).__name__} is for calls: a layer takes penalties l1 sum |w| + l2 sum w^2, "
            "such as L1L2(l1, l2); add another's gradient between backward and apply_gradients"
        )
    return regularizer


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Regularizer | None:
    """Return the regularizer that `serialize` described.

    Parameters
    ----------
    config : dict or None
        The description.
    custom_objects : mapping of str, optional
        As for `get`.
    """
    return get(config, custom_objects)


def serialize(regularizer: Any) -> dict[str, Any] | None:
    """Describe a regularizer for JSON, so that `get` makes it again: a dict, or None for None.

    Parameters
    ----------
    regularizer : Regularizer, or what `get` takes
        One of the user's own is written by its class's name, and needs ``custom_objects`` to be rebuilt.

    Examples
    --------
    >>> serialize(L2(0.001))
    {'class_name': 'L2', 'config': {'l2': 0.001}}
    """
    return None if regularizer is None else REGISTRY.serialize(get(regularizer))
