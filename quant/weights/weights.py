"""From float kernels to integers: scales and rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.quant.schemes.options import Options
from nbdense.quant.weights import gptq

_SMALLEST = float(np.finfo(np.float32).tiny)  # the least scale that has all its digits
_FINE = 2.0**24  # steps of a bias where nothing else asks for a scale
_ROOM = 2.0**30  # steps of a bias at most: half of int32 is left to the products


def kernel_integers(
    kernel: npt.NDArray[Any],
    bias: npt.NDArray[Any] | None,
    input_scale: float | None,
    options: Options,
    moments: npt.NDArray[np.float64] | None = None,
    scales: npt.NDArray[np.float32] | None = None,
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return the integers and scales of a kernel.

    Parameters
    ----------
    kernel : ndarray of float, (n_in, n_out)
        The weights.
    bias : ndarray of float, (n_out,), or None
        Counts where it becomes integers too.
    input_scale : float, optional
        Scale of the layer's input; None: the bias stays float.
    options : Options
        Options of `quantize`.
    moments : ndarray of float64, (n_in, n_in), optional
        Second moments of the layer's inputs: with it, GPTQ rounds the weights.
    scales : ndarray of float32, (n_out,), optional
        Scales that training has settled, if it has.

    Returns
    -------
    kernel : ndarray of int8, (n_in, n_out)
    scales : ndarray of float32, (n_out,), or (blocks, n_out) of blocks
    """
    weights = kernel.astype(np.float32)
    if scales is not None:
        return gptq.nearest(weights, scales, options.limit), scales
    if options.bits == 8 and options.blocks is not None:
        scales = _largest_of_blocks(weights, options.blocks) / np.float32(options.limit)
    elif options.bits == 8:
        biases = np.zeros(kernel.shape[1]) if bias is None or input_scale is None else bias.astype(np.float64)
        scales = weight_scales(kernel, biases, input_scale or 1.0, options.granularity)
    else:
        scales = _searched_scales(weights, options)
        if input_scale is not None and bias is not None:
            scales = np.maximum(scales, _least_scales(bias.astype(np.float64), input_scale, options.granularity))
    if not ((scales > 0) & (scales < np.inf)).all():
        raise ValueError("the scales of its input and weights are too far apart for float32")
    if moments is not None:
        return gptq.solve(weights, moments, scales, options.limit, block_size=options.blocks), scales
    return gptq.nearest(weights, scales, options.limit, options.blocks), scales


def _largest_of_blocks(weights: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    """Return the largest magnitude in each column of each block; 1 where all are zero."""
    largest = np.maximum.reduceat(np.abs(weights), np.arange(0, len(weights), size), axis=0)
    return np.where(largest < _SMALLEST * 127, np.float32(1.0), largest)


def _searched_scales(weights: npt.NDArray[np.float32], options: Options) -> npt.NDArray[np.float32]:
    if options.granularity == "per_tensor":
        whole = gptq.best_scales(weights.reshape(-1, 1), options.limit)
        return np.full(weights.shape[1], whole[0], np.float32)
    return gptq.best_scales(weights, options.limit, options.blocks)


def weight_scales(
    kernel: npt.NDArray[Any], bias: npt.NDArray[Any], input_scale: float, granularity: str
) -> npt.NDArray[np.float32]:
    """Choose a scale for each output column: its largest weight at 127, or coarser where the bias would not fit int32.

    Parameters
    ----------
    kernel : ndarray, (n_in, n_out)
        Float weights.
    bias : ndarray, (n_out,)
        Float biases, which get the scale ``input_scale * scale``.
    input_scale : float
        Scale of the layer's input.
    granularity : str
        "per_channel" or "per_tensor".

    Returns
    -------
    ndarray of float32, (n_out,)
        Where all weights are 0 the bias alone sets the scale, so that it keeps its digits.
    """
    largest = np.abs(kernel).max(axis=0).astype(np.float32) / np.float32(127)
    alone = np.where(bias == 0, 1.0, np.abs(bias) / input_scale / _FINE).astype(np.float32)
    if granularity == "per_tensor":
        largest, alone = np.full_like(largest, largest.max()), np.full_like(alone, alone.max())
    return np.maximum(np.where(largest == 0, alone, largest), _least_scales(bias, input_scale, granularity))


def _least_scales(bias: npt.NDArray[Any], input_scale: float, granularity: str) -> npt.NDArray[np.float32]:
    """Return the finest scales with which biases fit int32."""
    least = np.maximum(np.abs(bias) / input_scale / _ROOM, max(_SMALLEST / input_scale, _SMALLEST)).astype(np.float32)
    if granularity == "per_tensor":
        least = np.full_like(least, least.max())
    return np.nextafter(least, np.float32(np.inf))
