"""Losses of probabilities as metrics: cross-entropies, divergence, Poisson."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbdense import losses
from nbdense.metrics.reduction import MeanOverRows


class KLDivergence(MeanOverRows):
    """Mean over rows of the sum of target log(target / output), both clipped to [1e-7, 1].

    Parameters
    ----------
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    """

    direction = "min"
    targets = "rows"

    def __init__(self, name: str = "kl_divergence", dtype: Any = None) -> None:
        super().__init__(losses.kl_divergence, name, dtype)


class Poisson(MeanOverRows):
    """Mean of output - target log(output + 1e-7) over rows and columns.

    Parameters
    ----------
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    """

    direction = "min"
    targets = "rows"

    def __init__(self, name: str = "poisson", dtype: Any = None) -> None:
        super().__init__(losses.poisson, name, dtype)


class BinaryCrossentropy(MeanOverRows):
    """Mean of -(t log p + (1 - t) log(1 - p)) over rows and columns; probabilities are clipped as in Keras.

    Parameters
    ----------
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    from_logits : bool
        Whether outputs are logits instead of probabilities.
    label_smoothing : float
        In [0, 1]: this share of each target is moved to 0.5.
    """

    direction = "min"
    targets = "rows"

    def __init__(
        self,
        name: str = "binary_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        options: dict[str, Any] = {"from_logits": from_logits, "label_smoothing": label_smoothing}
        super().__init__(losses.binary_crossentropy, name, dtype, **options)
        self.from_logits, self.label_smoothing = from_logits, label_smoothing


class CategoricalCrossentropy(MeanOverRows):
    """Mean over rows of -sum t log p; targets are rows of class probabilities (one-hot).

    Parameters
    ----------
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    from_logits : bool
        Whether outputs are logits instead of probabilities.
    label_smoothing : float
        In [0, 1]: this share of each target is spread evenly over the classes.
    axis : int
        The axis of the classes.
    """

    direction = "min"
    targets = "rows"

    def __init__(
        self,
        name: str = "categorical_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
    ) -> None:
        options: dict[str, Any] = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        super().__init__(losses.categorical_crossentropy, name, dtype, **options)
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis


class SparseCategoricalCrossentropy(MeanOverRows):
    """`CategoricalCrossentropy` with class numbers for targets.

    Parameters
    ----------
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    from_logits : bool
        Whether outputs are logits instead of probabilities.
    ignore_class : int, optional
        A class whose rows count as 0.
    axis : int
        The axis of the classes.
    """

    direction = "min"
    targets = "classes"

    def __init__(
        self,
        name: str = "sparse_categorical_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
    ) -> None:
        options: dict[str, Any] = {"from_logits": from_logits, "ignore_class": ignore_class, "axis": axis}
        super().__init__(losses.sparse_categorical_crossentropy, name, dtype, **options)
        self.from_logits, self.ignore_class, self.axis = from_logits, ignore_class, axis

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Count in class numbers and outputs of a batch.

        Parameters
        ----------
        y_true : array-like
            Class numbers.
        y_pred : array-like
            Outputs.
        sample_weight : array-like, optional
            A weight for each row; those of ``ignore_class`` weigh nothing then, and count as rows without.
        """
        if self.ignore_class is not None and sample_weight is not None:
            weights = np.asarray(sample_weight, np.float64)
            sample_weight = weights * (np.reshape(y_true, weights.shape) != self.ignore_class)
        super().update_state(y_true, y_pred, sample_weight)
