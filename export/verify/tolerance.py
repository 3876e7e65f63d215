"""Distances between outputs, and how far rounding to float32 may move those of a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.export.networks import BareNetwork, Floats
from nbdense.network import Network, in_dtype

TOLERANCE = 1e-5
FLOAT32_FACTOR = 4.0  # times what float32 costs the network, where that is more
BIT_FACTOR = 16.0  # times what the last bit of the input changes


def largest_differences(pairs: list[tuple[Floats, Floats]]) -> tuple[float, float]:
    """Return the largest absolute difference, and the largest as a share of the row's largest expected output.

    Parameters
    ----------
    pairs : list of (ndarray, ndarray)
        Expected outputs and those that are compared with them, rows on all axes but the last.
    """
    absolute = relative = 0.0
    for expected, computed in pairs:
        difference = distances(expected, computed)
        size = np.where(np.isfinite(expected), np.abs(expected), 0.0).max(axis=-1, keepdims=True)
        absolute = max(absolute, float(difference.max()))
        relative = max(relative, float((difference / np.maximum(size, np.finfo(np.float32).tiny)).max()))
    return absolute, relative


def distances(expected: Floats, computed: Floats) -> npt.NDArray[np.float64]:
    """Return how far apart outputs are: a NaN or infinity is equal to the same, infinitely far from anything else.

    Parameters
    ----------
    expected, computed : ndarray of float
        Arrays of the same shape.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(computed.astype(np.float64) - expected)
    difference[(computed == expected) | (np.isnan(computed) & np.isnan(expected))] = 0.0
    difference[np.isnan(difference)] = np.inf
    return difference


def cost_of_float32(network: Network, rows: npt.NDArray[np.float32]) -> float:
    """Return how far float32 may move a network's outputs: some times their distance from those in float64.

    Parameters
    ----------
    network : Network
        A float network; not changed.
    rows : ndarray of float32, (rows, ..., n_in)
        Data.
    """
    exact, single = (BareNetwork(in_dtype(network, dtype)).predict(rows) for dtype in (np.float64, np.float32))
    return FLOAT32_FACTOR * min(largest_differences([(exact, single)]))


def cost_of_a_bit(reference: Any, rows: npt.NDArray[np.float32]) -> float:
    """Return how far float32 may move a quantized network's outputs, from what its input's last bit changes.

    Parameters
    ----------
    reference : QuantizedModel
        The model.
    rows : ndarray of float32, (rows, ..., n_in)
        Data.
    """
    changed = reference.predict(np.nextafter(rows, np.float32(np.inf)))
    return BIT_FACTOR * min(largest_differences([(reference.predict(rows), changed)]))
