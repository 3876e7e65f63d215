"""Batch normalisation by its running statistics, as x scale + shift of each column, and dense layers that take it over.

All is computed in float64 (Jacob et al. 2018, section 3.2).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

# Deviations that a column's mean may lie from zero: up to there x scale + shift loses about two of float32's 24 bits.
FAR_FROM_ZERO = 4.0


def scale_and_shift(gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float) -> tuple[Float64, Float64]:
    """What a batch normalisation multiplies each column by and then adds to it.

    Parameters
    ----------
    gamma, beta : ndarray, (n,), or None
        None for ones, or zeros.
    mean, variance : ndarray, (n,)
        The running statistics.
    epsilon : float
        Added to the variance.
    """
    scale = 1.0 / np.sqrt(np.asarray(variance, np.float64) + epsilon)
    if gamma is not None:
        scale = scale * np.asarray(gamma, np.float64)
    shift = -np.asarray(mean, np.float64) * scale
    return scale, shift if beta is None else shift + np.asarray(beta, np.float64)


def is_far_from_zero(mean: Any, variance: Any, epsilon: float) -> bool:
    """Whether x scale + shift would lose digits: a mean is many deviations away from zero, as in unscaled data.

    Parameters
    ----------
    mean, variance : ndarray, (n,)
        The running statistics.
    epsilon : float
        Added to the variance.
    """
    deviation = np.sqrt(np.asarray(variance, np.float64) + epsilon)
    return bool((np.abs(np.asarray(mean, np.float64)) > FAR_FROM_ZERO * deviation).any())


def into_layer_before(kernel: Any, bias: Any, scale: Float64, shift: Float64) -> tuple[Float64, Float64]:
    """Kernel and bias of the linear dense layer before a norm, with what the norm does.

    Parameters
    ----------
    kernel : ndarray, (n_in, n)
        The layer's.
    bias : ndarray, (n,), or None
        The layer's.
    scale, shift : ndarray of float64, (n,)
        The norm's.
    """
    before = 0.0 if bias is None else np.asarray(bias, np.float64)
    return np.asarray(kernel, np.float64) * scale, before * scale + shift


def into_layer_behind(kernel: Any, bias: Any, scale: Float64, shift: Float64) -> tuple[Float64, Float64]:
    """Kernel and bias of a dense layer behind a norm, with what the norm does.

    Parameters
    ----------
    kernel : ndarray, (n, n_out)
        The layer's.
    bias : ndarray, (n_out,), or None
        The layer's.
    scale, shift : ndarray of float64, (n,)
        The norm's.
    """
    weights = np.asarray(kernel, np.float64)
    moved = (shift[:, np.newaxis] * weights).sum(axis=0)  # no BLAS: its sums differ with its threads
    return scale[:, np.newaxis] * weights, moved if bias is None else moved + np.asarray(bias, np.float64)
