"""Errors and scores of numbers: regression."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nbdense import losses
from nbdense._checks import array_of, whole_number
from nbdense._warn import warn
from nbdense.engine.elementwise import loss as rows
from nbdense.losses.reductions import squeeze_or_expand_to_same_rank
from nbdense.metrics.base import Array, Metric, as_columns, plain_number
from nbdense.metrics.reduction import Mean, MeanOverRows

_EPSILON = 1e-7


class MeanSquaredError(MeanOverRows):
    """Mean of (output - target)^2 over rows and columns.

    Parameters
    ----------
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    """

    code = rows.SQUARED_ERROR
    direction = "min"
    targets = "rows"

    def __init__(self, name: str = "mean_squared_error", dtype: Any = None) -> None:
        super().__init__(losses.mean_squared_error, name, dtype)


class RootMeanSquaredError(Mean):
    """The root of the mean of (output - target)^2 over rows and columns.

    With several outputs it is one root of one mean, as in Keras; scikit-learn averages a root for each column.

    Parameters
    ----------
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    """

    code = rows.SQUARED_ERROR
    by_batch = False
    direction = "min"
    targets = "rows"

    def __init__(self, name: str = "root_mean_squared_error", dtype: Any = None) -> None:
        super().__init__(name, dtype)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Count in targets and outputs of a batch.

        Parameters
        ----------
        y_true : array-like
            Targets.
        y_pred : array-like
            Outputs.
        sample_weight : array-like, optional
            A weight for each row, or for each output.
        """
        y_true, y_pred = squeeze_or_expand_to_same_rank(array_of("y_true", y_true), array_of("y_pred", y_pred))
        super().update_state((np.asarray(y_pred, np.float64) - y_true) ** 2, sample_weight)

    def finish(self, mean: float) -> float:
        return math.sqrt(mean)


class MeanAbsoluteError(MeanOverRows):
    """Mean of |output - target| over rows and columns.

    Parameters
    ----------
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    """

    code = rows.ABSOLUTE_ERROR
    direction = "min"
    targets = "rows"

    def __init__(self, name: str = "mean_absolute_error", dtype: Any = None) -> None:
        super().__init__(losses.mean_absolute_error, name, dtype)


class MeanAbsolutePercentageError(MeanOverRows):
    """Mean of 100 |output - target| / max(|target|, 1e-7) over rows and columns.

    Parameters
    ----------
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    """

    direction = "min"
    targets = "rows"

    def __init__(self, name: str = "mean_absolute_percentage_error", dtype: Any = None) -> None:
        super().__init__(losses.mean_absolute_percentage_error, name, dtype)


class MeanSquaredLogarithmicError(MeanOverRows):
    """Mean of (log(output + 1) - log(target + 1))^2 over rows and columns; both are at least 0.

    Parameters
    ----------
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    """

    direction = "min"
    targets = "rows"

    def __init__(self, name: str = "mean_squared_logarithmic_error", dtype: Any = None) -> None:
        super().__init__(losses.mean_squared_logarithmic_error, name, dtype)


class LogCoshError(MeanOverRows):
    """Mean of log(cosh(output - target)) over rows and columns.

    Parameters
    ----------
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    """

    direction = "min"
    targets = "rows"

    def __init__(self, name: str = "logcosh", dtype: Any = None) -> None:
        super().__init__(losses.log_cosh, name, dtype)


def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Array:
    """Return the cosine of the angle between targets and outputs; 1 says that they point the same way.

    The loss of that name has the other sign.

    Parameters
    ----------
    y_true : array-like
        Targets.
    y_pred : array-like
        Outputs, of the same shape.
    axis : int
        The axis along which a vector lies.

    Returns
    -------
    ndarray
        Without that axis; 0 for a vector of zeros.
    """
    return -losses.cosine_similarity(y_true, y_pred, axis)


class CosineSimilarity(MeanOverRows):
    """Mean over rows of the cosine of the angle between targets and outputs.

    Parameters
    ----------
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    axis : int
        The axis along which a vector lies.
    """

    direction = "max"
    targets = "rows"

    def __init__(self, name: str = "cosine_similarity", dtype: Any = None, axis: int = -1) -> None:
        super().__init__(cosine_similarity, name, dtype, axis=axis)
        self.axis = axis


def pearson_correlation(y_true: Any, y_pred: Any, axis: int = -1) -> Array:
    """Return Pearson's correlation between targets and outputs, along an axis.

    Parameters
    ----------
    y_true : array-like
        Targets.
    y_pred : array-like
        Outputs, of the same shape.
    axis : int
        The axis along which numbers are correlated: 0 takes the rows of a batch.

    Returns
    -------
    ndarray
        Without that axis; NaN where numbers are all the same.
    """
    targets, outputs = _deviations(y_true, y_pred, axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = np.sqrt((targets**2).mean(axis=axis) * (outputs**2).mean(axis=axis))
        return np.asarray((targets * outputs).mean(axis=axis) / deviation)


def concordance_correlation(y_true: Any, y_pred: Any, axis: int = -1) -> Array:
    """Return Lin's concordance between targets and outputs: 1 where they are equal, not only on one line.

    Lin 1989, "A concordance correlation coefficient to evaluate reproducibility".

    Parameters
    ----------
    y_true : array-like
        Targets.
    y_pred : array-like
        Outputs, of the same shape.
    axis : int
        The axis along which numbers are compared: 0 takes the rows of a batch.

    Returns
    -------
    ndarray
        Without that axis.
    """
    targets, outputs = _deviations(y_true, y_pred, axis)
    pair = squeeze_or_expand_to_same_rank(array_of("y_true", y_true), array_of("y_pred", y_pred))
    apart = np.subtract(*(values.mean(axis=axis, dtype=np.float64) for values in pair))
    spread = (targets**2).mean(axis=axis) + (outputs**2).mean(axis=axis) + apart**2
    return np.asarray(2.0 * (targets * outputs).mean(axis=axis) / (spread + _EPSILON))


def _deviations(y_true: Any, y_pred: Any, axis: int) -> tuple[Array, Array]:
    """Return targets and outputs without their means, in float64."""
    pair = squeeze_or_expand_to_same_rank(array_of("y_true", y_true), array_of("y_pred", y_pred))
    targets, outputs = (np.asarray(values, np.float64) for values in pair)
    return targets - targets.mean(axis=axis, keepdims=True), outputs - outputs.mean(axis=axis, keepdims=True)


class PearsonCorrelation(MeanOverRows):
    """Mean of Pearson's correlation between targets and outputs: along the columns of each row by default.

    Parameters
    ----------
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    axis : int
        The axis along which numbers are correlated.
    """

    direction = "max"
    targets = "rows"

    def __init__(self, name: str = "pearson_correlation", dtype: Any = None, axis: int = -1) -> None:
        super().__init__(pearson_correlation, name, dtype, axis=axis)
        self.axis = axis


class ConcordanceCorrelation(MeanOverRows):
    """Mean of Lin's concordance between targets and outputs: along the columns of each row by default.

    Parameters
    ----------
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    axis : int
        The axis along which numbers are compared.
    """

    direction = "max"
    targets = "rows"

    def __init__(self, name: str = "concordance_correlation", dtype: Any = None, axis: int = -1) -> None:
        super().__init__(concordance_correlation, name, dtype, axis=axis)
        self.axis = axis


class R2Score(Metric):
    """1 - sum (target - output)^2 / sum (target - mean target)^2, for each column; a mean of these.

    A column whose targets are all the same counts as 0, and makes NaN where outputs meet them exactly, as in Keras.

    Parameters
    ----------
    class_aggregation : {None, "uniform_average", "variance_weighted_average"}
        How columns are averaged; None gives one number for each.
    num_regressors : int
        Columns of the inputs, for the adjusted R2; 0 for the standard one.
    name : str
        What it is reported as.
    dtype : {None, "float32", "float64"}
        As for `Metric`.
    """

    by_batch = False
    direction = "max"
    targets = "rows"

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: int = 0,
        name: str = "r2_score",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if class_aggregation not in (None, "uniform_average", "variance_weighted_average"):
            raise ValueError(
                "R2Score: class_aggregation must be None, 'uniform_average' or 'variance_weighted_average', "
                f"got {class_aggregation!r}"
            )
        self.class_aggregation = class_aggregation
        self.num_regressors = whole_number("R2Score", "num_regressors", num_regressors)
        self.num_samples = self.add_variable((), name="num_samples")

    def _build(self, columns: int) -> None:
        names = ("mean", "spread", "residual", "count")
        self.mean, self.spread, self.residual, self.count = (self.add_variable((columns,), name=n) for n in names)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        targets, outputs = (np.asarray(each, np.float64) for each in as_columns(y_true, y_pred))
        if len(self.variables) == 1:
            self._build(targets.shape[1])
        weights = np.asarray(1.0 if sample_weight is None else sample_weight, np.float64)
        weights = np.broadcast_to(weights[:, None] if weights.ndim == 1 else weights, targets.shape)
        # Means and squares about them are joined as by Chan, Golub and LeVeque 1983: sums of squares lose digits.
        count = weights.sum(axis=0)
        both = np.where(self.count + count == 0, 1.0, self.count + count)
        mean = (targets * weights).sum(axis=0) / np.where(count == 0, 1.0, count)
        apart = mean - self.mean
        self.spread.assign_add(((targets - mean) ** 2 * weights).sum(axis=0) + apart**2 * self.count * count / both)
        self.mean.assign_add(apart * count / both)
        self.residual.assign_add(((targets - outputs) ** 2 * weights).sum(axis=0))
        self.count.assign_add(count)
        self.num_samples.assign_add(targets.size)

    def result(self) -> Any:
        if len(self.variables) == 1:
            return math.nan
        with np.errstate(all="ignore"):
            scores: Any = 1.0 - self.residual / self.spread
            scores = np.where(np.isinf(scores), 0.0, scores)
            if self.class_aggregation == "uniform_average":
                scores = scores.mean()
            elif self.class_aggregation == "variance_weighted_average":
                scores = (self.spread * scores).sum() / self.spread.value.sum()
            return plain_number(self._adjusted(scores))

    def _adjusted(self, scores: Any) -> Any:
        if not self.num_regressors:
            return scores
        spare = float(self.num_samples) - 1.0 - self.num_regressors
        if spare <= 0:
            warn(
                f"R2Score: num_regressors={self.num_regressors} leaves nothing of {int(self.num_samples)} numbers; "
                "this is the standard R2"
            )
            return scores
        return 1.0 - (1.0 - scores) * (float(self.num_samples) - 1.0) / spare
