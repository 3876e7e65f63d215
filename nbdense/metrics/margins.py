"""Hinge losses as metrics."""

from __future__ import annotations

from typing import Any

from nbdense import losses
from nbdense.metrics.reduction import MeanOverRows


class Hinge(MeanOverRows):
    """Mean of max(1 - target output, 0) over rows and columns; targets are -1 and 1, or 0 and 1.

    Parameters
    ----------
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    """

    direction = "min"
    targets = "rows"

    def __init__(self, name: str = "hinge", dtype: Any = None) -> None:
        super().__init__(losses.hinge, name, dtype)


class SquaredHinge(MeanOverRows):
    """Mean of max(1 - target output, 0)^2 over rows and columns; targets are -1 and 1, or 0 and 1.

    Parameters
    ----------
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    """

    direction = "min"
    targets = "rows"

    def __init__(self, name: str = "squared_hinge", dtype: Any = None) -> None:
        super().__init__(losses.squared_hinge, name, dtype)


class CategoricalHinge(MeanOverRows):
    """Mean over rows of max(largest output of a wrong class - output of the right one + 1, 0).

    Parameters
    ----------
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    """

    direction = "min"
    targets = "rows"

    def __init__(self, name: str = "categorical_hinge", dtype: Any = None) -> None:
        super().__init__(losses.categorical_hinge, name, dtype)
