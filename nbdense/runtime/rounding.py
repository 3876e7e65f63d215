"""The ways from accumulators to the next layer's integers, on arrays: see `nbdense.quant.kernels.rounding`.

The numbers that both need, a multiplier's fixed-point form and a rounding, are defined here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

ROUNDINGS = ("onnx", "tflite", "gemmlowp", "ruy")
_SIGN = np.array(63)
SHIFT_OF_SUMS = 20  # TFLite's sums of two tensors have this many bits more than their terms


def fixed_point_multiplier(real: float) -> tuple[int, int]:
    """Return a real multiplier's fixed-point form (TFLite, kernels/internal/quantization_util.cc, QuantizeMultiplier).

    Parameters
    ----------
    real : float
        At least 0; below 2**-32 it counts as 0.

    Returns
    -------
    (int, int)
        multiplier and shift, with real ~ multiplier * 2**(shift - 31), multiplier in [2**30, 2**31) or 0.

    Raises
    ------
    ValueError
        If ``real`` is 2**30 or more.
    """
    if real == 0:
        return 0, 0
    fraction, shift = math.frexp(real)
    multiplier = math.floor(fraction * 2.0**31 + 0.5)
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift + 1
    if shift < -31:
        return 0, 0
    if shift > 30:
        raise ValueError(f"multiplier {real} is too large for a fixed-point form")
    return multiplier, shift


def round_half_away(x: float) -> float:
    """Round half away from zero, as C's round() does.

    Parameters
    ----------
    x : float
        Any number; what is not finite stays as it is.
    """
    return math.copysign(math.floor(abs(x) + 0.5), x) if math.isfinite(x) else x


def clamp_of(bounds: tuple[float, float], scale: float, rounding: str) -> tuple[float, float]:
    """Return a clamp's bounds in steps from the zero point.

    Parameters
    ----------
    bounds : (float, float)
        The least and the greatest real number; infinite where there is no bound.
    scale : float
        Scale of the integers.
    rounding : str
        Rounding of bounds that are not whole: "onnx" half to even, the others half away from zero.
    """
    with np.errstate(over="ignore"):
        steps = np.array(bounds, np.float32) / np.float32(scale)
    if rounding == "onnx":
        return float(np.rint(steps[0])), float(np.rint(steps[1]))
    return round_half_away(float(steps[0])), round_half_away(float(steps[1]))


def row(values: Array) -> Array:
    """Return numbers of columns as a row, and a single one without a shape.

    With these NumPy's functions take half the time on one row of data that those of other shapes cost.

    Parameters
    ----------
    values : ndarray, (columns,) or (1,)
        The numbers.
    """
    return values.reshape((1, -1) if values.size > 1 else ())


class FixedPoint:
    """Multiplication of integers by real numbers in fixed point, rounded in one of the ways but "onnx".

    All of them are a product, a sum and one shift. Rounding the product by itself first adds half of its last bit to
    the half of the shift's; ties away from zero take one of these bits off what is negative then. A number that is
    shifted to the left has no product to be rounded: it is shifted less to the right.

    Parameters
    ----------
    reals : sequence of float
        The numbers, one a column, or one for all.
    rounding : str
        "tflite": once, ties up; "gemmlowp": the product and the shift each, ties away from zero; "ruy": each, the
        shift's ties up.
    added : ndarray of integers, (columns,), optional
        What is added to the integers first; with it they must be of int32.
    """

    def __init__(self, reals: Sequence[float], rounding: str, added: Array | None = None) -> None:
        multipliers, shifts = np.array([fixed_point_multiplier(real) for real in reals], np.int64).T
        half, borrow = np.left_shift(1, 31 - shifts) >> 1, None
        first = np.zeros_like(half) if added is None else added * multipliers
        if rounding != "tflite":
            twice = shifts < 0
            first = first + np.where(twice, 1 << 30, 0)
            if rounding == "gemmlowp" and twice.any():
                borrow = np.where(twice, -(1 << 31), 0)
        self._multipliers, self._shifts, self._half = row(multipliers), row(31 - shifts), row(half)
        self._first = row(first + half if borrow is None else first)
        self._borrow = None if borrow is None else row(borrow)

    def __call__(self, x: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Multiply integers, which are overwritten.

        Parameters
        ----------
        x : ndarray of int64, (rows, columns)
            Integers that int32 holds.
        """
        x *= self._multipliers
        x += self._first
        if self._borrow is not None:
            x += (x >> _SIGN) & self._borrow
            x += self._half
        x >>= self._shifts
        return x
