"""Checks of a quantized layer's parts: what `nbdense.quant.layers.checks` refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def array(value: Array, dtype: Any, shape: tuple[int, ...], what: str) -> Array:
    """Return an array, or raise if it is of another dtype or shape.

    Parameters
    ----------
    value : ndarray
        The array.
    dtype : dtype
        Type that it must have.
    shape : tuple of int
        Shape that it must have.
    what : str
        Its name, for the error.
    """
    if value.dtype != dtype or value.shape != shape:
        raise ValueError(f"{what} must be {np.dtype(dtype)} {shape}, got {value.dtype} {value.shape}")
    return value


def kernel(value: Array, bits: int) -> Array:
    """Return a kernel, or raise if it is no matrix of int8, or has integers that its bits do not hold.

    Parameters
    ----------
    value : ndarray
        The kernel.
    bits : int
        Bits of a weight.
    """
    if value.ndim != 2 or value.size == 0:
        raise ValueError(f"kernel must be two-dimensional and not empty, got shape {value.shape}")
    array(value, np.int8, value.shape, "kernel")
    within_bits(value, bits)
    return value


def within_bits(value: Array, bits: int) -> None:
    """Refuse integers that do not fit in so many bits.

    Parameters
    ----------
    value : ndarray of int8
        Weights or zero points.
    bits : int
        Bits of each.
    """
    if int(value.min()) < -(2 ** (bits - 1)) or int(value.max()) >= 2 ** (bits - 1):
        raise ValueError(f"weights and their zero points must fit in {bits} bits")


def form(scale: float, zero_point: int, limits: tuple[int, int], what: str) -> tuple[float, int]:
    """Return scale and zero point, or raise if they are no positive float32 number and an integer of the type.

    Parameters
    ----------
    scale, zero_point : float, int
        Scale and zero point of a tensor.
    limits : (int, int)
        The least and the greatest integer of its type.
    what : str
        The tensor's part in the layer.
    """
    with np.errstate(over="ignore"):
        exact = float(np.float32(scale)) == scale
    if not (0 < scale < np.inf and exact):
        raise ValueError(f"{what} scale must be a positive float32 number, got {scale!r}")
    if not limits[0] <= zero_point <= limits[1]:
        raise ValueError(f"{what} zero point must lie in {list(limits)}, got {zero_point}")
    return scale, zero_point


def multipliers(scales: Array, output_scale: np.float32) -> Array:
    """Return scales over that of an output, in float32, or raise if one is 0 or infinite.

    Parameters
    ----------
    scales : ndarray of float32
        Scales of what is rescaled.
    output_scale : float32
        Scale of the result.
    """
    with np.errstate(over="ignore", under="ignore"):
        made: Array = scales / output_scale
    if not ((scales > 0) & (made > 0) & (made < np.inf)).all():
        raise ValueError("the scales of its input, weights and output are too far apart for float32")
    return made


def accumulator(weights: Array, bias: Array, limits: tuple[float, float]) -> None:
    """Refuse weights whose sums can leave int32.

    Parameters
    ----------
    weights : ndarray of int8 or int16, (n_in, n_out)
        Weights less their zero points.
    bias : ndarray of int32, (n_out,)
        Added to the sums.
    limits : (float, float)
        Ends of the integers that they multiply, less their zero point.
    """
    low, high = (int(end) for end in limits)
    positive = np.maximum(weights, 0).sum(axis=0, dtype=np.int64)
    negative = np.minimum(weights, 0).sum(axis=0, dtype=np.int64)
    least, most = positive * low + negative * high + bias, positive * high + negative * low + bias
    fits_int32(int(least.min()), int(most.max()))


def fits_int32(least: int, most: int) -> None:
    """Refuse sums that can leave int32.

    Parameters
    ----------
    least, most : int
        Ends of the sums.
    """
    if most >= 2**31 or least < -(2**31):
        raise ValueError("with these weights its accumulator can leave int32")
