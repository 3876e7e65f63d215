"""Integers for a kernel: the best scales for rounding to nearest, and GPTQ, which lets weights make up for each other.

Method: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers" (2022,
arXiv:2210.17323), section 3. Inputs are gone through one by one; a row of weights is rounded, and what that does to the
layer's outputs is made up for by the rows that are still to come, as well as the second moments of the inputs allow.

The paper takes its factors from the inverse of the moments H. Here H = L L^T is factored with the inputs in reverse
order, and no inverse is taken: with D the weights less their rounded values, of the rows that are done, row i is
rounded from w_i + sum over k of L_ki / L_ii D_k, which is the same number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.engine.memory import aligned_zeros
from nbdense.engine.rows import DENSE
from nbdense.engine.tables import leading_dimension
from nbdense.network import Network
from nbdense.quant.calibration.calibration import walk
from nbdense.quant.kernels import solvers

Float64 = npt.NDArray[np.float64]
Scales = npt.NDArray[np.floating] | Callable[[int, Float64], npt.NDArray[np.floating]]

DAMPING = 0.01
_ROWS = 32  # rounded between two products, where no blocks of scales say otherwise
_SHRUNK = 64  # scales that are tried below the one that clips nothing,
_LEAST = 0.4  # down to this share of it
_TINY = float(np.finfo(np.float32).tiny)


class Moments:
    """Second moments of a layer's inputs, 2 / rows X^T X, over batches.

    Every sum goes through the rows in order: neither batches nor threads change a bit.

    Parameters
    ----------
    n_in : int
        Width of the inputs.

    Attributes
    ----------
    rows : int
        How many have been added.
    """

    def __init__(self, n_in: int) -> None:
        self.n_in, self.rows = n_in, 0
        self._ld = leading_dimension(n_in)
        self._sums = aligned_zeros(n_in * self._ld, np.float64)

    def update(self, x: npt.NDArray[Any]) -> None:
        """Add a batch.

        Parameters
        ----------
        x : ndarray of float, (rows, n_in)
            Inputs.
        """
        padded = aligned_zeros((x.shape[0], self._ld), np.float64)
        padded[:, : self.n_in] = x
        solvers.add_moments(padded.reshape(-1), x.shape[0], self.n_in, self._ld, self._sums)
        self.rows += x.shape[0]

    def matrix(self) -> Float64:
        """Return the moments, symmetric, float64 (n_in, n_in).

        Raises
        ------
        ValueError
            If nothing was added.
        """
        if self.rows == 0:
            raise ValueError("moments of no rows: add a batch first")
        upper = np.triu(self._sums.reshape(self.n_in, self._ld)[:, : self.n_in])
        return (upper + np.triu(upper, 1).T) * (2 / self.rows)


def input_moments(network: Network, data: Any) -> dict[int, Float64]:
    """Return second moments of every dense row's inputs, from one pass over calibration data.

    Parameters
    ----------
    network : Network
        The float network; or one with dequantized kernels, for the inputs that quantized layers will give.
    data : array-like, (rows, ...), or batches
        As for `nbdense.quant.calibration.calibration.batches`.

    Returns
    -------
    dict of int to ndarray of float64, (n_in, n_in)
        By the row's index in ``network.rows()``. Rows that read the same tensor share an array.

    Raises
    ------
    TypeError, ValueError
        For unfit data.
    """
    readers = {row.index: row.input for row in network.rows() if row.kind is DENSE}
    first = {buffer: index for index, buffer in reversed(readers.items())}
    moments: dict[int, Moments] = {}
    for _, values in walk(network, data):
        for buffer, index in first.items():
            x = values[index].input
            if buffer not in moments:
                moments[buffer] = Moments(x.shape[1])
            moments[buffer].update(x)
    matrices = {buffer: moment.matrix() for buffer, moment in moments.items()}
    return {index: matrices[buffer] for index, buffer in readers.items()}


def best_scales(
    kernel: npt.NDArray[np.floating],
    limit: int,
    block_size: int | None = None,
    weights: npt.NDArray[np.floating] | None = None,
) -> npt.NDArray[np.float32]:
    """Find the scale of each column, or block of its inputs, with which rounding to nearest loses least.

    Scales are tried that put the largest weight at a whole level, from half the limit up (one of them represents the
    column exactly, if any does), and smaller ones, which clip it, down to 0.4 of the one that just does not. Of what
    each rounds the weights to, the scale that fits it best is taken.

    Parameters
    ----------
    kernel : ndarray of float, (n_in, n_out)
        The weights.
    limit : int
        Largest integer: they lie in [-limit, limit].
    block_size : int, optional
        Inputs that share a scale; the last block may have fewer. By default all of a column.
    weights : ndarray of float, (n_in,), optional
        What each input's squared errors count: the diagonal of its moments, for instance. By default all alike.

    Returns
    -------
    ndarray of float32, (n_out,); with ``block_size`` (n_blocks, n_out)
        Above zero; 1 where all weights are zero.

    Raises
    ------
    ValueError
        If something is not finite, of the wrong shape, or out of range.

    Examples
    --------
    >>> best_scales(np.array([[0.5, 7.0], [-1.5, 0.0]]), limit=7)
    array([0.25, 1.  ], dtype=float32)
    """
    kernel = _checked_kernel(kernel)
    limit = _checked_limit(limit)
    importance = np.ones(kernel.shape[0]) if weights is None else np.array(weights, np.float64)
    if importance.shape != kernel.shape[:1] or not (np.isfinite(importance) & (importance >= 0)).all():
        raise ValueError(f"weights must be {kernel.shape[0]} finite numbers of at least 0, one for each input")
    levels = np.concatenate([np.arange(limit, limit // 2, -1), limit / np.linspace(1, _LEAST, _SHRUNK + 1)[1:]])
    chosen = []
    for block in blocks(kernel.shape[0], block_size):
        # Where no weight counts, all do.
        counts = importance[block] if importance[block].any() else np.ones(importance[block].size)
        scales = np.empty(kernel.shape[1], np.float32)
        scratch = np.zeros((4, kernel.shape[1]))
        rows = kernel[block], counts, levels, float(limit), _TINY
        solvers.search_scales(*rows, scratch[:3], scratch[3], scales)
        chosen.append(scales)
    return np.stack(chosen) if block_size is not None else chosen[0]


def nearest(
    kernel: npt.NDArray[np.floating], scales: npt.NDArray[np.floating], limit: int, block_size: int | None = None
) -> npt.NDArray[np.int8]:
    """Round a kernel to nearest, half to even.

    Parameters
    ----------
    kernel : ndarray of float, (n_in, n_out)
        The weights.
    scales : ndarray of float, (n_out,) or (n_blocks, n_out)
        As `best_scales` gives them.
    limit : int
        Largest integer: they lie in [-limit, limit].
    block_size : int, optional
        Inputs that share a scale.

    Returns
    -------
    ndarray of int8, (n_in, n_out)

    Raises
    ------
    ValueError
        If something is not finite, of the wrong shape, or out of range.
    """
    kernel, limit = _checked_kernel(kernel), _checked_limit(limit)
    return np.clip(np.rint(kernel / _of_inputs(kernel, scales, block_size)), -limit, limit).astype(np.int8)


def dequantize(
    integers: npt.NDArray[np.int8], scales: npt.NDArray[np.floating], block_size: int | None = None
) -> Float64:
    """Return the weights that integers stand for.

    Parameters
    ----------
    integers : ndarray of int8, (n_in, n_out)
        The kernel.
    scales : ndarray of float, (n_out,) or (n_blocks, n_out)
        Theirs.
    block_size : int, optional
        Inputs that share a scale.

    Returns
    -------
    ndarray of float64, (n_in, n_out)
    """
    return integers * _of_inputs(integers, scales, block_size)


def solve(
    kernel: npt.NDArray[np.floating],
    moments: Float64,
    scales: Scales,
    limit: int,
    *,
    block_size: int | None = None,
    damping: float = DAMPING,
    order: bool = True,
) -> npt.NDArray[np.int8]:
    """Round a kernel by GPTQ: for the least error in the layer's outputs, rather than in its weights.

    Parameters
    ----------
    kernel : ndarray of float, (n_in, n_out)
        The weights.
    moments : ndarray of float64, (n_in, n_in)
        Second moments of the layer's inputs: see `Moments`. Their size does not matter.
    scales : ndarray of float, or callable
        (n_out,); with ``block_size`` (n_blocks, n_out), or ``scales(block, weights)``, which is called as each block
        is reached with its number and its weights as they are then, (block_size, n_out), and returns its (n_out,)
        scales. `best_scales` gives good ones.
    limit : int
        Largest integer: they lie in [-limit, limit].
    block_size : int, optional
        Inputs that share a scale; the last block may have fewer.
    damping : float
        This share of the mean of the moments' diagonal is added to it.
    order : bool
        Take the inputs with the largest moments first ("act-order"), while many others are left to make up for them;
        where ``scales`` is called, the blocks with the largest, and inside them the inputs. Else as they come.

    Returns
    -------
    ndarray of int8, (n_in, n_out)
        An input that was always zero tells nothing of its weights: they are rounded to nearest.

    Raises
    ------
    ValueError
        If something is not finite, of the wrong shape, or out of range; if the moments are not positive definite even
        with the damping.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, kernel = rng.normal(size=(100, 8)) + rng.normal(size=(100, 1)), rng.normal(size=(8, 3))
    >>> moments = Moments(8)
    >>> moments.update(x)
    >>> scales = best_scales(kernel, 7)
    >>> def error(integers):
    ...     return float(np.square(x @ (dequantize(integers, scales) - kernel)).sum())
    >>> error(solve(kernel, moments.matrix(), scales, 7)) < error(nearest(kernel, scales, 7))
    True
    """
    kernel, limit = _checked_kernel(kernel), _checked_limit(limit)
    n_in, n_out = kernel.shape
    if not 0 <= damping < np.inf:
        raise ValueError(f"damping must be a finite number of at least 0, got {damping!r}")
    if callable(scales) and block_size is None:
        raise ValueError("scales can be a function only where block_size says which inputs share one")
    count = len(blocks(n_in, block_size))
    diagonal = _checked_diagonal(moments, n_in)
    runs = _runs(diagonal, block_size, callable(scales), order)
    # The first to be rounded comes last: see above.
    turned = np.concatenate(runs)[::-1]
    ld, ld_out = leading_dimension(n_in), leading_dimension(n_out)
    shares = _shares(moments, diagonal, turned, damping, ld)
    weights, errors = aligned_zeros((n_in, ld_out), np.float64), aligned_zeros((n_in, ld_out), np.float64)
    weights[:, :n_out] = kernel[turned]
    integers = np.zeros((n_in, n_out), np.int8)
    flat = (shares.reshape(-1), ld, weights.reshape(-1), errors.reshape(-1), ld_out, n_out)
    places = turned // (n_in if block_size is None else block_size) * n_out
    fixed = None if callable(scales) else _checked_scales(scales, count, n_out, block_size)
    last = n_in
    for run in runs:
        first = last - run.size
        solvers.update_rows(*flat, first, last, n_in)
        if callable(scales) and block_size is not None:
            block = int(run[0]) // block_size
            now = errors[first:last, :n_out][np.argsort(turned[first:last])]
            table = _checked_scales(scales(block, now), 1, n_out, None)
            at = np.zeros(n_in, np.int64)
        else:
            assert fixed is not None
            table, at = fixed, places
        solvers.round_rows(*flat, first, last, table.reshape(-1), at, float(limit), integers.reshape(-1))
        last = first
    result = np.empty_like(integers)
    result[turned] = integers
    return result


def blocks(n_in: int, block_size: int | None) -> list[slice]:
    """Return the inputs of each block; all, where there are none.

    Parameters
    ----------
    n_in : int
        How many inputs there are.
    block_size : int or None
        Inputs of a block; the last may have fewer.

    Raises
    ------
    ValueError
        If ``block_size`` is not a whole number of at least 1.
    """
    if block_size is None:
        return [slice(0, n_in)]
    if isinstance(block_size, bool) or not isinstance(block_size, (int, np.integer)) or block_size < 1:
        raise ValueError(f"block_size must be a whole number of at least 1, got {block_size!r}")
    return [slice(i, min(i + block_size, n_in)) for i in range(0, n_in, block_size)]


def _runs(diagonal: Float64, block_size: int | None, whole: bool, order: bool) -> list[npt.NDArray[np.int64]]:
    """Order inputs as they are rounded, and cut them into runs; ``whole`` blocks stay together."""
    inputs = np.arange(diagonal.size)
    if not whole:
        if order:
            inputs = np.argsort(-diagonal, kind="stable")
        return [inputs[i : i + _ROWS] for i in range(0, inputs.size, _ROWS)]
    runs = [inputs[block] for block in blocks(diagonal.size, block_size)]
    if order:
        runs = [run[np.argsort(-diagonal[run], kind="stable")] for run in runs]
        runs = [runs[i] for i in np.argsort([-diagonal[run].sum() for run in runs], kind="stable")]
    return runs


def _shares(moments: Float64, diagonal: Float64, turned: npt.NDArray[np.int64], damping: float, ld: int) -> Float64:
    """Factor the damped moments by Cholesky; the factor's columns are divided by its diagonal."""
    n = diagonal.size
    matrix, negated = aligned_zeros((n, ld), np.float64), aligned_zeros((n, ld), np.float64)
    # Scaled to a mean of 1, so that no product leaves float64.
    mean = float(diagonal[diagonal > 0].mean()) if diagonal.any() else 1.0
    matrix[:, :n] = moments[np.ix_(turned, turned)] / mean
    matrix[np.arange(n), np.arange(n)] = np.where(diagonal[turned] > 0, diagonal[turned] / mean, 1.0) + damping
    row = solvers.factor(matrix.reshape(-1), n, ld, negated.reshape(-1))
    if row >= 0:
        raise ValueError("the moments are not positive definite, even damped: give more rows or a larger damping")
    matrix[:, :n] /= matrix[np.arange(n), np.arange(n)]
    return matrix


def _of_inputs(kernel: npt.NDArray[Any], scales: npt.NDArray[Any], block_size: int | None) -> Float64:
    """Return the scale of every weight, (1 or n_in, n_out)."""
    n_in, n_out = kernel.shape
    table = _checked_scales(scales, len(blocks(n_in, block_size)), n_out, block_size)
    return table if block_size is None else np.repeat(table, block_size, axis=0)[:n_in]


def _checked_kernel(kernel: npt.NDArray[Any]) -> Float64:
    kernel = np.array(kernel, np.float64, order="C")  # a copy: one that cannot be written would compile anew
    if kernel.ndim != 2 or kernel.size == 0:
        raise ValueError(f"kernel must be two-dimensional and not empty, got shape {kernel.shape}")
    with np.errstate(over="ignore"):
        finite = np.isfinite(kernel.astype(np.float32)).all()
    if not finite:
        raise ValueError("kernel: its weights are not all finite")
    return kernel


def _checked_limit(limit: int) -> int:
    if isinstance(limit, bool) or not isinstance(limit, (int, np.integer)) or not 1 <= limit <= 127:
        raise ValueError(f"limit must be a whole number from 1 to 127, got {limit!r}")
    return int(limit)


def _checked_scales(scales: npt.NDArray[Any], count: int, n_out: int, block_size: int | None) -> Float64:
    """Check scales; return them as a table, (blocks, n_out)."""
    table = np.array(scales, np.float64)
    expected = (n_out,) if block_size is None else (count, n_out)
    if table.shape != expected or not (np.isfinite(table) & (table > 0)).all():
        raise ValueError(f"scales must be finite numbers above 0 of shape {expected}, got shape {table.shape}")
    return table.reshape(-1, n_out)


def _checked_diagonal(moments: Float64, n_in: int) -> Float64:
    moments = np.asarray(moments)
    if moments.shape != (n_in, n_in):
        raise ValueError(f"moments must have the shape {(n_in, n_in)}, got {moments.shape}")
    diagonal = np.diagonal(moments).astype(np.float64)
    if not np.isfinite(moments).all() or (diagonal < 0).any():
        raise ValueError("moments must be finite, and their diagonal at least 0")
    return diagonal
