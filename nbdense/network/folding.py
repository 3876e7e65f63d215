"""Batch normalisation by its running statistics, as x scale + shift of each column, and dense layers that take it over.

A linear dense layer before it takes that into its kernel and bias (Jacob et al. 2018, section 3.2), if nothing else
reads what the layer gives; dense layers behind it, into theirs: (x scale + shift) W + b = x (scale W) + (shift W + b),
if nothing else reads what the norm gives. All is computed in float64.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.activations import ACTIVATIONS
from nbdense.engine.rows import DENSE, FROZEN_NORM
from nbdense.network.network import Row

Float64 = npt.NDArray[np.float64]

# Deviations that a column's mean may lie from zero: up to there x scale + shift loses about two of float32's 24 bits.
FAR_FROM_ZERO = 4.0


def scale_and_shift(gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float) -> tuple[Float64, Float64]:
    """Return what a batch normalisation multiplies each column by and then adds to it.

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
    """Tell whether x scale + shift would lose digits: a mean is many deviations away from zero, as in unscaled data.

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
    """Return kernel and bias of the linear dense layer before a norm, with what the norm does.

    Parameters
    ----------
    kernel : ndarray, (n_in, n)
        The layer's.
    bias : ndarray, (n,), or None
        The layer's.
    scale, shift : ndarray of float64, (n,)
        The norm's.
    """
    old_bias = 0.0 if bias is None else np.asarray(bias, np.float64)
    return np.asarray(kernel, np.float64) * scale, old_bias * scale + shift


def into_layer_behind(kernel: Any, bias: Any, scale: Float64, shift: Float64) -> tuple[Float64, Float64]:
    """Return kernel and bias of a dense layer behind a norm, with what the norm does.

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


# -- at the level of rows: inside Residual blocks too ----------------------------------------------------------------


def fold_rows(rows: list[Row]) -> list[Row]:
    """Return rows of inference without the batch normalisations that dense rows can take over.

    Parameters
    ----------
    rows : list of Row
        Rows, in the order in which they run; not changed. Statistics are finite, variances plus epsilon above zero.
    """
    for norm in [row for row in rows if row.kind is FROZEN_NORM]:
        rows = _without(rows, norm)
    return rows


def reads(row: Row) -> tuple[int, ...]:
    """Return the buffers that a row reads.

    Parameters
    ----------
    row : Row
        The row.
    """
    return (row.input,) if row.second < 0 else (row.input, row.second)


def norm_tensors(row: Row) -> dict[str, npt.NDArray[np.floating]]:
    """Return gamma, beta, mean and variance of a batch normalisation, ones and zeros where it has none.

    Parameters
    ----------
    row : Row
        A row of kind FROZEN_NORM.
    """
    known = {"gamma": np.ones(row.n_out), "beta": np.zeros(row.n_out), **row.tensors}
    return {name: known[name] for name in FROZEN_NORM.tensors}


def into_row_before(dense: Row, norm: Row) -> Row:
    """Return the linear dense row before a norm, with what the norm does.

    Parameters
    ----------
    dense, norm : Row
        Rows of kinds DENSE and FROZEN_NORM.
    """
    factors = scale_and_shift(**norm_tensors(norm), epsilon=norm.settings["epsilon"])
    kernel, bias = into_layer_before(dense.kernel, dense.bias, *factors)
    return dataclasses.replace(dense, tensors={"kernel": kernel, "bias": bias}, output=norm.output)


def into_row_behind(dense: Row, norm: Row) -> Row:
    """Return a dense row behind a norm, with what the norm does.

    Parameters
    ----------
    dense, norm : Row
        Rows of kinds DENSE and FROZEN_NORM.
    """
    factors = scale_and_shift(**norm_tensors(norm), epsilon=norm.settings["epsilon"])
    kernel, bias = into_layer_behind(dense.kernel, dense.bias, *factors)
    return dataclasses.replace(dense, tensors={"kernel": kernel, "bias": bias}, input=norm.input)


def _without(rows: list[Row], norm: Row) -> list[Row]:
    """Return the rows less one norm, or as they are if none can take it over or digits would be lost."""
    changed: dict[int, Row] = {}  # by index
    previous = next((row for row in rows if row.output == norm.input), None)
    behind = [row for row in rows if norm.output in reads(row)]
    if previous is not None and _is_linear(previous) and sum(norm.input in reads(row) for row in rows) == 1:
        changed = {previous.index: into_row_before(previous, norm)}
    elif behind and all(row.kind is DENSE for row in behind) and norm.index != rows[-1].index:
        tensors = norm_tensors(norm)
        if not is_far_from_zero(tensors["mean"], tensors["variance"], norm.settings["epsilon"]):
            changed = {row.index: into_row_behind(row, norm) for row in behind}
    if not changed:
        return rows
    return [changed.get(row.index, row) for row in rows if row.index != norm.index]


def _is_linear(row: Row) -> bool:
    return row.kind is DENSE and row.activation.code == ACTIVATIONS["linear"].code
