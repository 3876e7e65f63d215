"""Least squares for the weights that are kept when others go, by the second moments of a layer's inputs.

Method: Frantar and Alistarh, "Optimal Brain Compression" (2022, arXiv:2208.11580), section 3 and equation 2, which are
those of Optimal Brain Surgeon (Hassibi and Stork 1993) for one layer's squared output error. Its Hessian, the same for
all outputs, is H = 2 / rows X^T X. Removing weight i costs w_i^2 / (2 [H^-1]_ii) if the others are set to what is best
then; once all that go are known, the best values of an output's kept weights S solve H_SS v = (H w)_S.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.engine.memory import aligned_zeros
from nbdense.engine.tables import leading_dimension
from nbdense.quant.kernels import solvers
from nbdense.quant.weights.gptq import DAMPING

Float64 = npt.NDArray[np.float64]


def inverse_diagonal(moments: Float64, damping: float = DAMPING) -> Float64:
    """Return the diagonal of the inverse of second moments.

    Parameters
    ----------
    moments : ndarray of float64, (n, n)
        See `nbdense.quant.weights.gptq.Moments`.
    damping : float
        This share of the mean of the diagonal is added to it.

    Returns
    -------
    ndarray of float64, (n,)
        Infinite for an input that was always zero: its weights may go at no cost.

    Raises
    ------
    ValueError
        If the moments are not positive definite even with the damping.
    """
    damped, mean = _damped(moments, damping)
    n = len(damped)
    factor, ld = _factor(damped)
    inverse = aligned_zeros((n, ld), np.float64)
    solvers.invert_factor(factor.reshape(-1), n, ld, inverse.reshape(-1))
    diagonal: Float64 = np.square(inverse[:, :n]).sum(axis=0) / mean
    diagonal[np.diagonal(moments) <= 0] = np.inf
    return diagonal


def refit(
    kernel: npt.NDArray[np.floating], kept: npt.NDArray[np.bool_], moments: Float64, damping: float = DAMPING
) -> Float64:
    """Return the kernel whose weights make up, as well as they can, for those that are removed.

    Parameters
    ----------
    kernel : ndarray of float, (n_in, n_out)
        The weights.
    kept : ndarray of bool, (n_in, n_out)
        Those that stay.
    moments : ndarray of float64, (n_in, n_in)
        Second moments of the layer's inputs.
    damping : float
        As for `inverse_diagonal`.

    Returns
    -------
    ndarray of float64, (n_in, n_out)
        Zero where nothing is kept; columns that lose nothing stay as they are.

    Raises
    ------
    ValueError
        If the moments are not positive definite even with the damping.
    """
    damped, _ = _damped(moments, damping)
    made = np.array(kernel, np.float64)
    for column in range(made.shape[1]):
        stays = np.flatnonzero(kept[:, column])
        goes = np.flatnonzero(~kept[:, column] & (made[:, column] != 0))
        if goes.size and stays.size:
            # The removed weights' part of the outputs, seen by the inputs that are left; sums in a fixed order.
            lost = (damped[np.ix_(stays, goes)] * made[goes, column]).sum(axis=1)
            factor, ld = _factor(damped[np.ix_(stays, stays)])
            solvers.solve_factored(factor.reshape(-1), stays.size, ld, lost)
            made[stays, column] += lost
        made[~kept[:, column], column] = 0.0
    return made


def _damped(moments: Float64, damping: float) -> tuple[Float64, float]:
    """Return the moments scaled to a mean diagonal of 1 and damped, and that mean; inputs of zeros have the mean."""
    diagonal = np.diagonal(moments)
    mean = float(diagonal[diagonal > 0].mean()) if diagonal.any() else 1.0
    damped = moments / mean
    damped[np.arange(len(damped)), np.arange(len(damped))] = np.where(diagonal > 0, diagonal / mean, 1.0) + damping
    return damped, mean


def _factor(matrix: Float64) -> tuple[npt.NDArray[Any], int]:
    """Return the Cholesky factor of a matrix, in its lower triangle, and the distance of its rows."""
    n = len(matrix)
    ld = leading_dimension(n)
    factor, negated = aligned_zeros((n, ld), np.float64), aligned_zeros((n, ld), np.float64)
    factor[:, :n] = matrix
    if solvers.factor(factor.reshape(-1), n, ld, negated.reshape(-1)) >= 0:
        raise ValueError("the moments are not positive definite, even damped: give more rows or a larger damping")
    return factor, ld
