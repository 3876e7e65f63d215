"""Steps that compute in integers, exactly as `nbdense.quant.kernels.integer` does.

Between steps an integer is held less its zero point, as a float32 that is whole: then products need no correction, and
are NumPy's own, of floats. Sums that float32 holds exactly (below 2**24 in all their parts) are computed in it, others
in float64, which holds all that the networks' checks let pass.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.runtime.activations import Function
from nbdense.runtime.floats import Step
from nbdense.runtime.rounding import SHIFT_OF_SUMS, FixedPoint, row

Array = npt.NDArray[Any]
Format = tuple[float, int] | None  # scale and zero point; None: float
Limits = tuple[float, float]  # the least and the greatest integer, less a zero point

F32 = np.float32
_EXACT = 2**24  # whole numbers up to here are float32's


def quantize(form: Any, limits: tuple[int, int]) -> Step:
    """Return the step from floats to integers: ONNX's QuantizeLinear; a NaN is taken as zero.

    Parameters
    ----------
    form : (float, int)
        Scale and zero point.
    limits : (int, int)
        The least and the greatest integer.
    """
    scale, low, high = number(form[0]), number(limits[0] - form[1]), number(limits[1] - form[1])

    def step(x: Array) -> Array:
        steps = _steps(x, scale, low, high)
        if has_nan(steps):
            steps[np.isnan(steps)] = 0
        return steps

    return step


def _steps(x: Array, scale: Any, low: Any, high: Any) -> Array:
    """Return how many steps of a scale numbers are, clamped; NaN stays."""
    steps = x / scale
    np.rint(steps, out=steps)
    np.maximum(steps, low, out=steps)
    np.minimum(steps, high, out=steps)
    return steps


def has_nan(x: Array) -> bool:
    """Tell whether a NaN is among numbers: a sum of squares has no other way to become one.

    Parameters
    ----------
    x : ndarray
        Numbers.
    """
    square = np.vdot(x, x)
    return bool(square != square)


def number(value: float) -> Array:
    """Return a float32 number as an array, which NumPy's functions take in less time than a scalar.

    Parameters
    ----------
    value : float
        The number.
    """
    return np.array(value, F32)


def dequantize(form: Any) -> Step:
    """Return the step from integers to floats.

    Parameters
    ----------
    form : (float, int)
        Scale and zero point.
    """
    scale = F32(form[0])
    return lambda x: x * scale


class Requantise:
    """The way from sums to the next tensor's integers: rescaled, clamped, and looked up where there is a table.

    Parameters
    ----------
    reals : ndarray
        Multipliers, of columns: float32 where the rounding is "onnx", else float64.
    rounding : str
        The network's.
    clamp : (float, float)
        Ends of what comes out, less the zero point.
    table : callable or None
        What the integers are looked up in.
    bias : ndarray of int32, (columns,), optional
        What is added to the sums first, where the rounding is in fixed point.
    """

    def __init__(
        self, reals: Array, rounding: str, clamp: Limits, table: Step | None, bias: Array | None = None
    ) -> None:
        self._reals = row(reals)
        self._fixed = None if rounding == "onnx" else FixedPoint(reals.tolist(), rounding, bias)
        self._low, self._high = map(number, clamp)
        self._table = table

    def __call__(self, sums: Array) -> Array:
        """Requantise sums, which are overwritten.

        Parameters
        ----------
        sums : ndarray of float32, float64 or int64, (rows, columns)
            Whole numbers.
        """
        if self._fixed is not None:
            x = self._fixed(sums.astype(np.int64, copy=False)).astype(F32)
        else:
            x = sums.astype(F32, copy=False)
            x *= self._reals
            np.rint(x, out=x)
        np.maximum(x, self._low, out=x)
        np.minimum(x, self._high, out=x)
        return x if self._table is None else self._table(x)


def product(weights: Array, bias: Array | None, limits: Limits) -> Step:
    """Return the step of an exact product of integers with weights, and a bias added.

    Parameters
    ----------
    weights : ndarray of int8 or int16, (n_in, n_out)
        Weights less their zero points.
    bias : ndarray of int32, (n_out,), or None
        Added.
    limits : (float, float)
        Ends of the integers, less their zero point.
    """
    largest = np.abs(weights.astype(np.int64)).sum(axis=0) * int(max(abs(limits[0]), abs(limits[1])))
    if bias is not None:
        largest += np.abs(bias.astype(np.int64))
    dtype: Any = F32 if int(largest.max()) <= _EXACT else np.float64
    kernel = weights.astype(dtype)  # `dot` takes half the time of `@` on one row
    if bias is None or not bias.any():
        return lambda x: x.astype(dtype, copy=False).dot(kernel)
    added = row(bias.astype(dtype))

    def step(x: Array) -> Array:
        sums = x.astype(dtype, copy=False).dot(kernel)
        sums += added
        return sums

    return step


def dense(
    weights: Array, bias: Array, limits: Limits, reals: Array, rounding: str, clamp: Limits, table: Step | None
) -> Step:
    """Return the step of a dense layer in integers.

    Parameters
    ----------
    weights : ndarray of int8 or int16, (n_in, n_out)
        Weights less their zero points.
    bias : ndarray of int32, (n_out,)
        Added to the sums.
    limits : (float, float)
        Ends of the integers that it reads, less their zero point.
    reals, rounding, clamp, table
        As `Requantise` has them.
    """
    in_floats = rounding == "onnx"
    multiply = product(weights, bias if in_floats else None, limits)
    requantise = Requantise(reals, rounding, clamp, table, None if in_floats else bias)
    return lambda x: requantise(multiply(x))


def lookup(table: Array, index_zero: int, entry_zero: int) -> Step:
    """Return the step through a table of 256 entries.

    Parameters
    ----------
    table : ndarray of integers, (256,)
        Entry ``q - minimum`` is that of q.
    index_zero : int
        Zero point of what is looked up, less the minimum.
    entry_zero : int
        Zero point of the entries.
    """
    return _entries((table.astype(np.int64) - entry_zero).astype(F32), index_zero)


def _entries(table: Array, zero: int) -> Step:
    """Return the step to entries of a table of 256, of which ``zero`` is that of 0; less counts from the end."""
    entries = np.roll(table, -zero)
    return lambda x: entries.take(x.astype(np.intp))


def add(
    scales: tuple[float, float], limits: tuple[Limits, Limits], output_scale: float, rounding: str, clamp: Limits
) -> Step:
    """Return the step of a sum of two tensors, rescaled to one format and clamped.

    Parameters
    ----------
    scales : (float, float)
        Scales of the two.
    limits : ((float, float), (float, float))
        Ends of the integers of each, less their zero point.
    output_scale : float
        Scale of the sum.
    rounding : str
        The network's.
    clamp : (float, float)
        Ends of what comes out, less the zero point.
    """
    if rounding == "onnx":
        one, two = (number(scale) / number(output_scale) for scale in scales)
        ones = Requantise(np.ones(1, F32), rounding, clamp, None)
        return lambda first, second: ones(first * one + second * two)
    twice = 2 * max(scales)
    a, b = (_terms(scale / twice, ends, rounding) for scale, ends in zip(scales, limits, strict=True))
    requantise = Requantise(np.array([twice / (2**SHIFT_OF_SUMS * output_scale)]), rounding, clamp, None)
    return lambda first, second: requantise(a(first) + b(second))


def _terms(real: float, limits: Limits, rounding: str) -> Step:
    """Return the step from integers to terms of a sum, with more bits, by a table."""
    steps = np.arange(int(limits[0]), int(limits[1]) + 1)
    return _entries(FixedPoint([real], rounding)(steps << SHIFT_OF_SUMS), -int(limits[0]))


def softmax(exponentials: Array) -> Step:
    """Return the step of a softmax in integers: see `nbdense.quant.layers.integer_layers.QuantizedSoftmax`.

    Parameters
    ----------
    exponentials : ndarray of int32, (256,)
        Of the distances from the largest integer of a row.
    """
    wide = exponentials.astype(np.int64)

    def step(x: Array) -> Array:
        parts = wide[(x.max(axis=-1, keepdims=True) - x).astype(np.intp)]
        total = parts.sum(axis=-1, keepdims=True)
        return np.minimum((512 * parts + total) // (2 * total), 255).astype(F32)

    return step


def dynamic(weights: Array, scales: Array, bias: Array | None, function: Function | None) -> Step:
    """Return the step of a dense layer in integers whose input's scale is that of the whole call, back to floats.

    Parameters
    ----------
    weights : ndarray of int8 or int16, (n_in, n_out)
        Weights less their zero points.
    scales : ndarray of float32, (n_out,)
        Scales of the columns.
    bias : ndarray of float32, (n_out,), or None
        Added at the end.
    function : callable or None
        The activation; None: linear.
    """
    multiply, scales = product(weights, None, (-255.0, 255.0)), row(scales)
    added = None if bias is None else row(bias)

    def step(x: Array) -> Array:
        x, low, high = _within_range(x)
        scale = F32(high - low) / F32(255)
        scale = scale if scale > 0 else F32(1)
        zero_point = F32(min(max(round(float(F32(-low) / scale)), 0), 255))
        z = multiply(_steps(x, scale, -zero_point, F32(255) - zero_point)).astype(F32, copy=False)
        z *= scale * scales
        if added is not None:
            z += added
        return z if function is None else function(z)

    return step


def _within_range(x: Array) -> tuple[Array, float, float]:
    """Return numbers, NaN as zero, and the least and the greatest of them that is finite, or 0."""
    if x.size == 0:
        return x, 0.0, 0.0
    low, high = x.item(x.argmin()), x.item(x.argmax())
    if math.isfinite(low) and math.isfinite(high):
        return x, min(low, 0.0), max(high, 0.0)
    return np.where(np.isnan(x), F32(0), x), *_within_range(x[np.isfinite(x)])[1:]
