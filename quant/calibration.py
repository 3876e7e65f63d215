"""Ranges of a float network's tensors over calibration data, taken batch by batch by the engine's own kernels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import _validate
from nbdense.network import DENSE, Network, aligned_zeros
from nbdense.quant.kernels import observe

BATCH = 512  # rows at a time

Range = tuple[float, float]


@dataclass(frozen=True)
class Ranges:
    """Least and greatest values seen.

    Attributes
    ----------
    input : (float, float)
        Of the network's input.
    pre : list of (float, float)
        Of each layer's values after its clamp, if it has one, but before any other activation.
    output : list of (float, float)
        Of each layer's output.
    """

    input: Range
    pre: list[Range]
    output: list[Range]


def batches(data: Any, network: Network) -> Iterator[npt.NDArray[Any]]:
    """Calibration data as matrices of the network's dtype, checked as a whole first.

    Parameters
    ----------
    data : array-like, (rows, n_in)
        Real numbers.
    network : Network
        What is to take them.

    Raises
    ------
    TypeError, ValueError
        If it is empty, no matrix of numbers, of another width, or holds NaN or infinity (naming row and column).
    """
    array = _validate.matrix("calibration", data, network.n_in, f"layer {network.names[0]!r}")
    if array.shape[0] == 0:
        raise ValueError("calibration: the data is empty: it has no rows")
    with np.errstate(over="ignore"):
        _validate.refuse_not_finite("calibration", _validate.source(array), np.dtype(np.float32))
    for first in range(0, array.shape[0], BATCH):
        yield np.ascontiguousarray(array[first : first + BATCH], network.dtype)


def calibrate(network: Network, data: Any) -> Ranges:
    """Least and greatest values of every tensor of a chain of dense layers.

    Parameters
    ----------
    network : Network
        The float network.
    data : array-like, (rows, n_in)
        Calibration data.

    Raises
    ------
    TypeError, ValueError
        For unfit data (see `batches`), or if a layer's outputs are not finite.
    """
    bare = np.array([is_bare(row.activation) for row in network.dense_rows("quantize")], np.int64)
    bounds = np.zeros((len(bare), 2, 2), network.dtype)
    bounds[..., 0], bounds[..., 1] = np.inf, -np.inf
    low, high = np.inf, -np.inf
    work = aligned_zeros(0, network.dtype)
    for batch in batches(data, network):
        size = network.width * batch.shape[0] + 16
        work = work[:size] if work.size >= size else aligned_zeros(size, network.dtype)
        work[:] = 0
        observe(network.inference, network.params, batch, work, bare, bounds)
        low, high = min(low, float(batch.min())), max(high, float(batch.max()))
    with np.errstate(over="ignore"):
        fits = np.isfinite(bounds.astype(np.float32))
    for name, finite in zip(network.names, fits, strict=True):
        if not finite.all():
            raise ValueError(f"layer {name!r}: its outputs for the calibration data are not finite")
    pairs = [[(float(b[0]), float(b[1])) for b in bounds[:, which]] for which in (0, 1)]
    return Ranges((low, high), *pairs)


def is_bare(activation: Any) -> bool:
    """Whether an activation is more than a clamp, and so is observed before and after.

    Parameters
    ----------
    activation : Activation
        A row of the table.
    """
    return activation.forward is not None or activation.name == "softmax"


def check_chain(network: Network) -> None:
    """Refuse a network that is not a chain of dense layers with at most a softmax at its end.

    Parameters
    ----------
    network : Network
        The float network.

    Raises
    ------
    ValueError
        Naming the layer.
    """
    rows = list(network.dense_rows("quantize"))
    source = 0
    for row in rows:
        if row.kind != DENSE or row.input != source:
            raise ValueError(f"layer {row.name!r}: only chains of dense layers can be quantized so far")
        if row.activation.name == "softmax" and row is not rows[-1]:
            raise ValueError(f"layer {row.name!r}: softmax can be quantized only as the last activation")
        if not np.isfinite(row.kernel).all() or (row.bias is not None and not np.isfinite(row.bias).all()):
            raise ValueError(f"layer {row.name!r}: its weights are not all finite")
        source = row.output
