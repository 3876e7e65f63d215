"""Losses of labels without probabilities: margins, and how far sets overlap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from nbdense.losses import functions
from nbdense.losses.base import NamedLoss

_MEMBERSHIPS = ("sigmoid", "softmax", "hard_sigmoid")


class Hinge(NamedLoss):
    """Mean over the columns of max(1 - target y, 0); targets are -1 and 1.

    If all targets are 0 or 1, 0 stands for -1. In training the whole data set decides that, where Keras asks each
    batch. The derivative is 0 where target y = 1.

    Parameters
    ----------
    reduction : str or None
        See `Loss`.
    name : str, optional
        What it is called.
    dtype : {"float32", "float64"}, optional
        See `Loss`.
    """

    kind: ClassVar[str] = "hinge"
    function: ClassVar[Callable[..., Any]] = functions.hinge

    @property
    def decision_threshold(self) -> float:
        return 0.0  # midway between the targets


class SquaredHinge(Hinge):
    """Mean over the columns of max(1 - target y, 0)^2; targets are those of `Hinge`.

    Parameters
    ----------
    reduction : str or None
        See `Loss`.
    name : str, optional
        What it is called.
    dtype : {"float32", "float64"}, optional
        See `Loss`.
    """

    kind: ClassVar[str] = "squared_hinge"
    function: ClassVar[Callable[..., Any]] = functions.squared_hinge


class CategoricalHinge(NamedLoss):
    """max(largest output of a wrong class - output of the right one + 1, 0); targets are one-hot rows.

    Parameters
    ----------
    reduction : str or None
        See `Loss`.
    name : str, optional
        What it is called.
    dtype : {"float32", "float64"}, optional
        See `Loss`.
    """

    kind: ClassVar[str] = "categorical_hinge"
    function: ClassVar[Callable[..., Any]] = functions.categorical_hinge


class Dice(NamedLoss):
    """1 - 2 sum(target y) / (sum(target) + sum(y) + 1e-7): how little two sets overlap; a model trains with axis=-1.

    Parameters
    ----------
    reduction : str or None
        See `Loss`.
    name : str, optional
        What it is called.
    axis : int or tuple of int, optional
        Axes that are summed over; all if none are named.
    dtype : {"float32", "float64"}, optional
        See `Loss`.
    """

    kind: ClassVar[str] = "dice"
    function: ClassVar[Callable[..., Any]] = functions.dice
    fields: ClassVar[tuple[str, ...]] = ("axis",)
    suited: ClassVar[tuple[str, ...]] = _MEMBERSHIPS
    advice: ClassVar[str] = "it takes outputs for memberships in [0, 1]; end with 'sigmoid'"

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        axis: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(reduction, name, dtype)
        self.axis = tuple(axis) if isinstance(axis, list) else axis


class Tversky(Dice):
    """`Dice` that weighs what is missed and what is wrongly claimed; a model trains with axis=-1.

    Salehi et al. 2017, "Tversky loss function for image segmentation using 3D fully convolutional deep networks".

    Parameters
    ----------
    alpha, beta : float
        The weights, as Keras computes them: alpha sum(target (1 - y)), beta sum((1 - target) y).
    reduction : str or None
        See `Loss`.
    name : str, optional
        What it is called.
    axis : int or tuple of int, optional
        Axes that are summed over; all if none are named.
    dtype : {"float32", "float64"}, optional
        See `Loss`.
    """

    kind: ClassVar[str] = "tversky"
    function: ClassVar[Callable[..., Any]] = functions.tversky
    fields: ClassVar[tuple[str, ...]] = ("alpha", "beta", "axis")

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        axis: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(reduction, name, axis, dtype)
        self.alpha, self.beta = alpha, beta
