"""Equalisation across layers: the ranges of a unit's weights made the same before and behind it, without any data.

Method: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019), section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nbdense.engine.rows import ACTIVATION, DENSE, RESHAPE
from nbdense.network import Network, Row

_PASSED_ON = (DENSE, ACTIVATION, RESHAPE)  # rows that see a unit's factor as a factor; a change of shape is linear
_ROUNDS = 100  # at most
_CONVERGED = 1e-6  # of the factors' logarithms, in a round
_MOST = 2.0**40  # a factor or its inverse: a unit of next to no weights keeps a bias that float32 holds


@dataclass
class _Pair:
    """Two dense rows, one behind the other; ``factors`` divide the first's columns and multiply the second's rows."""

    first: int
    second: int
    factors: npt.NDArray[np.float64]


def equalize(network: Network) -> Network:
    """Rescale the units between dense layers so that their weights before and behind have equal ranges.

    Unit j's weights and bias are divided by s_j = sqrt(r1_j / r2_j), and what the next layer multiplies it with is
    multiplied by s_j, r1_j and r2_j being the largest magnitudes among these weights. Where an activation passes a
    positive factor on (linear, relu, leaky_relu), the network computes what it did before. Layers are gone through
    until nothing changes. Units that more than one row reads (residual branches), or that have no weights on one
    side, are left alone.

    Parameters
    ----------
    network : Network
        The float network; not changed.

    Returns
    -------
    Network
        A copy.

    Raises
    ------
    ValueError
        If a layer's weights are not all finite, naming it.

    Examples
    --------
    >>> import numpy as np
    >>> from nbdense.layers import Dense, Input
    >>> from nbdense.models import Sequential
    >>> model = Sequential([Input((4,)), Dense(8, "relu"), Dense(3)])
    >>> first, second = equalize(model.network).rows()
    >>> bool(np.allclose(np.abs(first.kernel).max(axis=0), np.abs(second.kernel).max(axis=1)))
    True
    """
    equalized = network.copy()
    rows = list(equalized.rows())
    for row in rows:
        if row.kind is DENSE and not (np.isfinite(row.kernel).all() and _is_finite(row.bias)):
            raise ValueError(f"{row.label}: its weights are not all finite")
    pairs = _pairs(rows)
    kernels = {i: rows[i].kernel.astype(np.float64) for pair in pairs for i in (pair.first, pair.second)}
    sizes = {i: np.abs(kernel) for i, kernel in kernels.items()}
    for _ in range(_ROUNDS):
        if max((_equalize(pair, sizes) for pair in pairs), default=0.0) < _CONVERGED:
            break
    # From the original weights, so that each is rounded once.
    for pair in pairs:
        bias = rows[pair.first].bias
        if bias is not None:
            bias[...] = bias / pair.factors
        kernels[pair.first] /= pair.factors
        kernels[pair.second] *= _of_rows(pair.factors, kernels[pair.second])
    for i, kernel in kernels.items():
        rows[i].kernel[...] = kernel
    return equalized


def _is_finite(bias: npt.NDArray[np.floating] | None) -> bool:
    return bias is None or bool(np.isfinite(bias).all())


def _pairs(rows: list[Row]) -> list[_Pair]:
    """Find dense rows with only homogeneous activations and changes of shape up to the next dense row."""
    readers: dict[int, list[Row]] = {}
    for row in rows:
        for source in {row.input, row.second}:
            readers.setdefault(source, []).append(row)
    pairs = []
    for first in rows:
        last = first if first.kind is DENSE else None
        while last is not None and last.activation.homogeneous:
            following = readers.get(last.output, [])
            last = following[0] if len(following) == 1 and following[0].kind in _PASSED_ON else None
            if last is not None and last.kind is DENSE:
                pairs.append(_Pair(first.index, last.index, np.ones(first.n_out)))
                break
    return pairs


def _equalize(pair: _Pair, sizes: dict[int, npt.NDArray[np.float64]]) -> float:
    """Equalize one pair by a step; returns the largest change of a factor, as a logarithm."""
    previous, behind = sizes[pair.first], sizes[pair.second]
    first = previous.max(axis=0)
    second = behind.reshape(-1, pair.factors.size, behind.shape[1]).max(axis=(0, 2))
    alive = (first > 0) & (second > 0)
    change = np.sqrt(np.divide(first, second, out=np.ones_like(first), where=alive))
    wanted = np.clip(pair.factors * change, 1 / _MOST, _MOST)
    change = np.where(alive, wanted / pair.factors, 1.0)
    pair.factors *= change
    previous /= change
    behind *= _of_rows(change, behind)
    return float(np.abs(np.log(change)).max())


def _of_rows(factors: npt.NDArray[np.float64], kernel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Lay factors out as a column, one for each of a kernel's rows: positions laid end to end repeat them."""
    return np.tile(factors, kernel.shape[0] // factors.size)[:, np.newaxis]
