"""Losses as functions on arrays, under Keras's names: a number for each row.

These are the formulas in NumPy. A model trains with compiled forms: the commonest losses with those of
`nbdense.engine.elementwise.loss_forms`, to which tests hold these; all others with what `nbdense.losses.tracing` makes
of the functions here, so that there is nothing else to write. Calls from Python are for single numbers and for tests
of one's own code: NumPy answers at once, in float32 and float64, where a compiled program would be loaded first.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from nbdense._checks import array_of
from nbdense.losses.reductions import squeeze_or_expand_to_same_rank
from nbdense.losses.tracing import Traced

Array = npt.NDArray[Any]
EPSILON = 1e-7  # Keras's guard of logarithms and quotients


def _outputs(y_pred: Any) -> Any:
    """Return outputs in floating point: float32 where they are none, as in Keras."""
    if isinstance(y_pred, Traced):
        return y_pred
    array = array_of("y_pred", y_pred)
    return array if array.dtype.kind == "f" else array.astype(np.float32)


def _pair(y_true: Any, y_pred: Any, *, matched: bool = True) -> tuple[Any, Any]:
    """Return targets and outputs as arrays of one dtype, ``matched`` in rank."""
    y_pred = _outputs(y_pred)
    if isinstance(y_pred, Traced):
        return y_true, y_pred
    y_true = array_of("y_true", y_true).astype(y_pred.dtype)
    return squeeze_or_expand_to_same_rank(y_true, y_pred) if matched else (y_true, y_pred)


def _alike(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Return targets and outputs of one shape, or raise."""
    y_true, y_pred = _pair(y_true, y_pred, matched=False)
    if not isinstance(y_pred, Traced) and y_true.shape != y_pred.shape:
        raise ValueError(f"y_true and y_pred must have the same shape, got {y_true.shape} and {y_pred.shape}")
    return y_true, y_pred


def _signed(y_true: Any) -> Any:
    """Return labels of -1 and 1; labels that are all 0 or 1 become these. A model's targets are so already."""
    if isinstance(y_true, Traced) or not ((y_true == 0) | (y_true == 1)).all():
        return y_true
    return 2.0 * y_true - 1.0


def _classes(y_true: Any, y_pred: Any, axis: int) -> Any:
    """Return class numbers, without an axis of size 1 where the classes are."""
    labels = array_of("y_true", y_true)
    if labels.ndim == y_pred.ndim and labels.shape[axis] == 1:
        labels = labels.squeeze(axis)
    if labels.shape != y_pred.shape[:-1]:
        raise ValueError(
            "y_true and y_pred must have the same shape up until the last dimension: "
            f"target.shape={labels.shape}, output.shape={y_pred.shape}"
        )
    return labels.astype(np.int64)


def _one_hot(labels: Any, y_pred: Any) -> Any:
    """Return 1 in each row's class, 0 elsewhere; a class that there is not has none, as in Keras."""
    if isinstance(labels, Traced):
        return labels
    return (labels[..., np.newaxis] == np.arange(y_pred.shape[-1])).astype(y_pred.dtype)


def _smoothed(y_true: Any, label_smoothing: float, share: Any) -> Any:
    return y_true * (1.0 - label_smoothing) + label_smoothing * share if label_smoothing else y_true


def _check_axis(name: str, axis: Any) -> None:
    if isinstance(axis, bool):
        raise ValueError(f"{name}: `axis` must be of type `int`, got {axis!r}")


def mean_squared_error(y_true: Any, y_pred: Any) -> Array:
    """Return the mean over the columns of (y_pred - y_true)^2.

    Parameters
    ----------
    y_true, y_pred : array-like
        Targets and outputs, (..., columns).
    """
    y_true, y_pred = _pair(y_true, y_pred)
    return np.mean(np.square(y_true - y_pred), axis=-1)


def mean_absolute_error(y_true: Any, y_pred: Any) -> Array:
    """Return the mean over the columns of |y_pred - y_true|.

    Parameters
    ----------
    y_true, y_pred : array-like
        Targets and outputs, (..., columns).
    """
    y_true, y_pred = _pair(y_true, y_pred)
    return np.mean(np.abs(y_true - y_pred), axis=-1)


def mean_absolute_percentage_error(y_true: Any, y_pred: Any) -> Array:
    """Return the mean over the columns of 100 |y_pred - y_true| / |y_true|, whose divisor is at least 1e-7.

    Parameters
    ----------
    y_true, y_pred : array-like
        Targets and outputs, (..., columns).
    """
    y_true, y_pred = _pair(y_true, y_pred)
    return 100.0 * np.mean(np.abs((y_true - y_pred) / np.maximum(np.abs(y_true), EPSILON)), axis=-1)


def mean_squared_logarithmic_error(y_true: Any, y_pred: Any) -> Array:
    """Return the mean over the columns of (log(1 + y_pred) - log(1 + y_true))^2, of numbers of at least 1e-7.

    Parameters
    ----------
    y_true, y_pred : array-like
        Targets and outputs, (..., columns).
    """
    y_true, y_pred = _pair(y_true, y_pred)
    logarithms = (np.log(np.maximum(y, EPSILON) + 1.0) for y in (y_pred, y_true))
    first, second = logarithms
    return np.mean(np.square(first - second), axis=-1)


def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Array:
    """Return minus the cosine between targets and outputs: -1 for one direction, 0 where one of them is 0.

    Parameters
    ----------
    y_true, y_pred : array-like
        Targets and outputs.
    axis : int
        That of the vectors.
    """
    y_true, y_pred = _pair(y_true, y_pred)

    def normalized(y: Any) -> Any:
        return y / np.sqrt(np.maximum(np.sum(np.square(y), axis=axis, keepdims=True), EPSILON * EPSILON))

    return -np.sum(normalized(y_true) * normalized(y_pred), axis=axis)


def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> Array:
    """Return the mean over the columns of e^2 / 2 where e = |y_pred - y_true| <= delta, else delta e - delta^2 / 2.

    Parameters
    ----------
    y_true, y_pred : array-like
        Targets and outputs, (..., columns).
    delta : float
        Where the parabola goes over into lines.
    """
    y_true, y_pred = _pair(y_true, y_pred)
    error = np.abs(y_pred - y_true)
    near = np.minimum(error, delta)
    return np.mean(near * (error - 0.5 * near), axis=-1)


def log_cosh(y_true: Any, y_pred: Any) -> Array:
    """Return the mean over the columns of log(cosh(y_pred - y_true)).

    Parameters
    ----------
    y_true, y_pred : array-like
        Targets and outputs, (..., columns).
    """
    y_true, y_pred = _pair(y_true, y_pred)
    error = y_pred - y_true
    return np.mean(error + np.logaddexp(0.0, -2.0 * error) - math.log(2.0), axis=-1)


def quantile(y_true: Any, y_pred: Any, quantile: float = 0.5) -> Array:
    """Return the pinball loss: the mean over the columns of q e for e = y_true - y_pred above 0, (q - 1) e below.

    Parameters
    ----------
    y_true, y_pred : array-like
        Targets and outputs, (..., columns).
    quantile : float
        The share q of targets that shall lie below the outputs.
    """
    y_true, y_pred = _pair(y_true, y_pred)
    error = y_true - y_pred
    return np.mean(np.maximum(quantile * error, (quantile - 1.0) * error), axis=-1)


def poisson(y_true: Any, y_pred: Any) -> Array:
    """Return the mean over the columns of y_pred - y_true log(y_pred + 1e-7).

    Parameters
    ----------
    y_true, y_pred : array-like
        Counts and rates, (..., columns).
    """
    y_true, y_pred = _pair(y_true, y_pred)
    return np.mean(y_pred - y_true * np.log(y_pred + EPSILON), axis=-1)


def kl_divergence(y_true: Any, y_pred: Any) -> Array:
    """Return the sum over the columns of y_true log(y_true / y_pred), both clipped to [1e-7, 1].

    Parameters
    ----------
    y_true, y_pred : array-like
        Class probabilities, (..., classes).
    """
    y_true, y_pred = (np.clip(y, EPSILON, 1.0) for y in _pair(y_true, y_pred))
    return np.sum(y_true * np.log(y_true / y_pred), axis=-1)


def hinge(y_true: Any, y_pred: Any) -> Array:
    """Return the mean over the columns of max(1 - y_true y_pred, 0).

    Parameters
    ----------
    y_true, y_pred : array-like
        Labels -1 and 1, or 0 and 1 for these, and outputs, (..., columns).
    """
    y_true, y_pred = _pair(y_true, y_pred)
    return np.mean(np.maximum(1.0 - _signed(y_true) * y_pred, 0.0), axis=-1)


def squared_hinge(y_true: Any, y_pred: Any) -> Array:
    """Return the mean over the columns of max(1 - y_true y_pred, 0)^2.

    Parameters
    ----------
    y_true, y_pred : array-like
        Labels -1 and 1, or 0 and 1 for these, and outputs, (..., columns).
    """
    y_true, y_pred = _pair(y_true, y_pred)
    return np.mean(np.square(np.maximum(1.0 - _signed(y_true) * y_pred, 0.0)), axis=-1)


def categorical_hinge(y_true: Any, y_pred: Any) -> Array:
    """Return max(largest output of a wrong class - output of the right one + 1, 0).

    Parameters
    ----------
    y_true, y_pred : array-like
        One-hot targets and outputs, (..., classes).
    """
    y_true, y_pred = _pair(y_true, y_pred)
    right, wrong = np.sum(y_true * y_pred, axis=-1), np.max((1.0 - y_true) * y_pred, axis=-1)
    return cast("Array", np.maximum(wrong - right + 1.0, 0.0))


def _binary(y_true: Any, p: Any) -> Any:
    """Return -(t log p + (1 - t) log(1 - p)) of probabilities, clipped."""
    p = np.clip(p, EPSILON, 1.0 - EPSILON)
    return -(y_true * np.log(p) + (1.0 - y_true) * np.log(1.0 - p))


def binary_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Array:
    """Return the mean over the columns of -(t log p + (1 - t) log(1 - p)), p clipped to [1e-7, 1 - 1e-7].

    Parameters
    ----------
    y_true, y_pred : array-like
        Targets in [0, 1] and outputs, of one shape.
    from_logits : bool
        Whether outputs are logits instead of probabilities: nothing is clipped then.
    label_smoothing : float
        In [0, 1]: this share of each target is moved to 0.5.
    axis : int
        That of the columns.
    """
    y_true, y_pred = _alike(y_true, y_pred)
    y_true = _smoothed(y_true, label_smoothing, 0.5)
    if not from_logits:
        return np.mean(_binary(y_true, y_pred), axis=axis)
    each = np.maximum(y_pred, 0.0) - y_true * y_pred + np.log1p(np.exp(-np.abs(y_pred)))
    return np.mean(each, axis=axis)


def binary_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Array:
    """Return `binary_crossentropy` whose columns weigh (1 - q)^gamma, q the probability of what is true.

    Lin et al. 2017, "Focal loss for dense object detection", section 3.

    Parameters
    ----------
    y_true, y_pred : array-like
        Targets in [0, 1] and outputs, of one shape.
    apply_class_balancing : bool
        Whether columns weigh alpha for a target of 1 and 1 - alpha for one of 0, too.
    alpha : float
        This weight.
    gamma : float
        How much easy rows are discounted; 0 is the plain cross-entropy.
    from_logits : bool
        Whether outputs are logits; they become probabilities first.
    label_smoothing : float
        In [0, 1]: this share of each target is moved to 0.5.
    axis : int
        That of the columns.
    """
    y_true, y_pred = _alike(y_true, y_pred)
    y_true = _smoothed(y_true, label_smoothing, 0.5)
    p = np.exp(-np.logaddexp(0.0, -y_pred)) if from_logits else y_pred
    likely = y_true * p + (1.0 - y_true) * (1.0 - p)
    focal = np.power(1.0 - likely, gamma) * _binary(y_true, p)
    if apply_class_balancing:
        focal = (y_true * alpha + (1.0 - y_true) * (1.0 - alpha)) * focal
    return np.mean(focal, axis=axis)


def _log_softmax(z: Any, axis: int) -> Any:
    z = z - np.max(z, axis=axis, keepdims=True)
    return z - np.log(np.sum(np.exp(z), axis=axis, keepdims=True))


def _normalized(p: Any, axis: int) -> Any:
    """Return probabilities that sum to 1, clipped; a row of zeros, as relu may put out, is clipped like other zeros."""
    total = np.sum(p, axis=axis, keepdims=True)
    return np.clip(p / np.where(total == 0.0, 1.0, total), EPSILON, 1.0 - EPSILON)


def categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Array:
    """Return -sum t log p, where outputs are divided by their sum and clipped to [1e-7, 1 - 1e-7].

    Parameters
    ----------
    y_true, y_pred : array-like
        Class probabilities (one-hot) and outputs, of one shape.
    from_logits : bool
        Whether outputs are logits instead of probabilities: nothing is clipped then.
    label_smoothing : float
        In [0, 1]: this share of each target is spread evenly over the classes.
    axis : int
        That of the classes.
    """
    _check_axis("categorical_crossentropy", axis)
    y_true, y_pred = _alike(y_true, y_pred)
    y_true = _smoothed(y_true, label_smoothing, 1.0 / y_true.shape[-1])
    logarithms = _log_softmax(y_pred, axis) if from_logits else np.log(_normalized(y_pred, axis))
    return -np.sum(y_true * logarithms, axis=axis)


def categorical_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Array:
    """Return -alpha sum (1 - p)^gamma t log p, where outputs are divided by their sum and clipped.

    Lin et al. 2017, "Focal loss for dense object detection", section 3.

    Parameters
    ----------
    y_true, y_pred : array-like
        Class probabilities (one-hot) and outputs, of one shape.
    alpha : float
        A factor on all; one for each class, as an array, outside of training.
    gamma : float
        How much easy rows are discounted; 0 is alpha times the plain cross-entropy.
    from_logits : bool
        Whether outputs are logits; they become probabilities first.
    label_smoothing : float
        In [0, 1]: this share of each target is spread evenly over the classes.
    axis : int
        That of the classes.
    """
    _check_axis("categorical_focal_crossentropy", axis)
    y_true, y_pred = _alike(y_true, y_pred)
    y_true = _smoothed(y_true, label_smoothing, 1.0 / y_true.shape[-1])
    p = _normalized(np.exp(_log_softmax(y_pred, axis)) if from_logits else y_pred, axis)
    return -np.sum(np.power(1.0 - p, gamma) * alpha * (y_true * np.log(p)), axis=axis)


def sparse_categorical_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
    label_smoothing: float = 0.0,
) -> Array:
    """Return `categorical_crossentropy` of class numbers.

    Parameters
    ----------
    y_true : array-like
        Class numbers from 0, of the outputs' shape without the classes.
    y_pred : array-like
        Outputs.
    from_logits : bool
        Whether outputs are logits instead of probabilities.
    ignore_class : int, optional
        A number that stands for no class: such rows' loss is 0.
    axis : int
        That of the classes; the last.
    label_smoothing : float
        As for `categorical_crossentropy`, for which alone Keras has it.
    """
    y_pred = _outputs(y_pred)
    labels = _classes(y_true, y_pred, axis)
    valid = np.ones(labels.shape, bool) if ignore_class is None else labels != ignore_class
    hot = _one_hot(np.where(valid, labels, 0), y_pred)
    loss = categorical_crossentropy(hot, y_pred, from_logits, label_smoothing, axis)
    return np.where(valid, loss, loss.dtype.type(0.0))


def categorical_generalized_cross_entropy(y_true: Any, y_pred: Any, q: float) -> Array:
    """Return (1 - p^q) / q, p the probability of the right class: robust against wrong labels.

    Zhang and Sabuncu 2018, "Generalized cross entropy loss for training deep neural networks with noisy labels", eq. 6.

    Parameters
    ----------
    y_true : array-like
        Class numbers from 0, of the outputs' shape without the classes.
    y_pred : array-like
        Class probabilities.
    q : float
        Between 0, the cross-entropy, and 1, the mean absolute error.
    """
    y_pred = _outputs(y_pred)
    labels = y_true if isinstance(y_true, Traced) else _classes(y_true, y_pred, -1)
    p = np.sum(y_pred * _one_hot(labels, y_pred), axis=-1)
    return cast("Array", (1.0 - np.power(p, q)) / q)


def dice(y_true: Any, y_pred: Any, axis: Any = None) -> Array:
    """Return 1 - 2 s / (sum(y_true) + sum(y_pred) + 1e-7), s = sum(y_true y_pred).

    Parameters
    ----------
    y_true, y_pred : array-like
        Memberships in [0, 1], of one shape.
    axis : int or tuple of int, optional
        Axes that are summed over; all if none are named. A model trains with -1.
    """
    y_true, y_pred = _pair(y_true, y_pred, matched=False)
    size = np.sum(y_true, axis=axis) + np.sum(y_pred, axis=axis) + EPSILON
    return cast("Array", 1.0 - 2.0 * np.sum(y_true * y_pred, axis=axis) / size)


def tversky(y_true: Any, y_pred: Any, alpha: float = 0.5, beta: float = 0.5, axis: Any = None) -> Array:
    """Return 1 - s / (s + alpha sum(y_true (1 - y_pred)) + beta sum((1 - y_true) y_pred) + 1e-7), s as in `dice`.

    Salehi et al. 2017, "Tversky loss function for image segmentation using 3D fully convolutional deep networks".

    Parameters
    ----------
    y_true, y_pred : array-like
        Memberships in [0, 1], of one shape.
    alpha, beta : float
        Weights of what is missed, and of what is wrongly claimed; as Keras computes them.
    axis : int or tuple of int, optional
        Axes that are summed over; all if none are named. A model trains with -1.
    """
    y_true, y_pred = _pair(y_true, y_pred, matched=False)
    both = np.sum(y_true * y_pred, axis=axis)
    missed, claimed = np.sum((1.0 - y_pred) * y_true, axis=axis), np.sum(y_pred * (1.0 - y_true), axis=axis)
    return cast("Array", 1.0 - both / (both + missed * alpha + claimed * beta + EPSILON))
