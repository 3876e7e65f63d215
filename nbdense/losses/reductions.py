"""One number from those of rows, by Keras's rules: ranks that are made to match, sample weights, and a reduction."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense._checks import array_of

REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none", None)


def standardize_reduction(reduction: Any) -> str | None:
    """Return a reduction as it is.

    Parameters
    ----------
    reduction : str or None
        "sum_over_batch_size", "mean" (the same), "sum", "mean_with_sample_weight", "none" or None.

    Raises
    ------
    ValueError
        If it is none of them.
    """
    if not (reduction is None or isinstance(reduction, str)) or reduction not in REDUCTIONS:
        listed = ", ".join(map(repr, REDUCTIONS))
        raise ValueError(
            f"Invalid value for argument `reduction`: reduction must be one of {listed}, got {reduction!r}"
        )
    return reduction


def squeeze_or_expand_to_same_rank(x1: Any, x2: Any, expand_rank_1: bool = True) -> tuple[Any, Any]:
    """Return two arrays of one rank, if theirs differ by a last axis of size 1: added to (rows,), else taken away.

    Parameters
    ----------
    x1, x2 : array
        Ranks that differ otherwise stay as they are.
    expand_rank_1 : bool
        Whether one of shape (rows,) gets an axis; else the other loses its.
    """
    if x1.ndim == x2.ndim + 1 and x1.shape[-1] == 1:
        expanded = x2.ndim == 1 and expand_rank_1
        return (x1, x2[..., np.newaxis]) if expanded else (x1[..., 0], x2)
    if x2.ndim == x1.ndim + 1 and x2.shape[-1] == 1:
        expanded = x1.ndim == 1 and expand_rank_1
        return (x1[..., np.newaxis], x2) if expanded else (x1, x2[..., 0])
    return x1, x2


def reduce_weighted_values(
    values: npt.NDArray[Any],
    sample_weight: Any = None,
    mask: npt.NDArray[Any] | None = None,
    reduction: str | None = "sum_over_batch_size",
) -> Any:
    """Return what a reduction makes of the numbers of rows.

    Parameters
    ----------
    values : ndarray
        A number for each row, or for each element.
    sample_weight : array-like, optional
        Factors on them: one for all, or of a shape that can be broadcast to theirs.
    mask : ndarray of bool, optional
        Which of them count; a mean is over these alone.
    reduction : str or None
        See `standardize_reduction`.
    """
    dtype = values.dtype
    weights = None if sample_weight is None else np.asarray(array_of("sample_weight", sample_weight), dtype)
    if mask is not None:
        valid = mask.astype(dtype)
        if reduction in ("mean", "sum_over_batch_size") and valid.any():
            valid *= valid.size / valid.sum()
        if weights is not None:
            valid, weights = squeeze_or_expand_to_same_rank(valid, weights)
        weights = valid if weights is None else weights * valid
    if weights is not None:
        values, weights = squeeze_or_expand_to_same_rank(values, weights)
        values = values * weights
    if reduction in (None, "none") or values.shape in ((), (0,)):
        return values
    total = values.sum(dtype=dtype)
    if reduction == "sum":
        return total
    weighted = reduction == "mean_with_sample_weight" and weights is not None
    divisor = weights.sum(dtype=dtype) if weighted and weights is not None else dtype.type(values.size)
    return total / divisor if divisor else dtype.type(0.0)
