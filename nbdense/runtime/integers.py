"""Steps that compute in integers, exactly as `nbdense.quant.kernels.integer` does.

Between steps an integer is held less its zero point, as a float32 that is whole: then products need no correction, and
are NumPy's own, of floats. Sums that float32 holds exactly (below 2**24 in all their parts) are computed in it, others
in float64, which holds all that the networks' checks let pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.runtime.activations import Function
from nbdense.runtime.floats import Step
from nbdense.runtime.rounding import SHIFT_OF_SUMS, FixedPoint

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
    scale, (low, high) = F32(form[0]), (F32(limit - form[1]) for limit in limits)
    return lambda x: _steps(x / scale, low, high)


def _steps(x: Array, low: np.float32, high: np.float32) -> Array:
    """Round and clamp in place; NaN becomes zero."""
    np.rint(x, out=x)
    np.maximum(x, low, out=x)
    np.minimum(x, high, out=x)
    total = np.add.reduce(x, axis=None)
    if total != total:  # a NaN is among them
        x[np.isnan(x)] = 0
    return x


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
    """

    def __init__(self, reals: Array, rounding: str, clamp: Limits, table: Step | None) -> None:
        self._reals = reals
        self._fixed = None if rounding == "onnx" else FixedPoint(reals.tolist(), rounding)
        self._low, self._high = (F32(end) for end in clamp)
        self._table = table

    def __call__(self, sums: Array) -> Array:
        """Requantise sums, which are overwritten.

        Parameters
        ----------
        sums : ndarray of float32 or float64, (rows, columns)
            Whole numbers.
        """
        if self._fixed is not None:
            x = self._fixed(sums.astype(np.int64)).astype(F32)
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
    number: Any = F32 if int(largest.max()) <= _EXACT else np.float64
    kernel, added = weights.astype(number), None if bias is None or not bias.any() else bias.astype(number)

    def step(x: Array) -> Array:
        sums = x.astype(number, copy=False) @ kernel
        if added is not None:
            sums += added
        return sums

    return step


def dense(multiply: Step, requantise: Requantise) -> Step:
    """Return the step of a dense layer in integers.

    Parameters
    ----------
    multiply : callable
        Its `product`.
    requantise : Requantise
        What makes its outputs of the sums.
    """
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
    entries = (table.astype(np.int64) - entry_zero).astype(F32)
    return lambda x: entries[(x + F32(index_zero)).astype(np.intp)]


def add(scales: tuple[float, float], output_scale: float, rounding: str, clamp: Limits) -> Step:
    """Return the step of a sum of two tensors, rescaled to one format and clamped.

    Parameters
    ----------
    scales : (float, float)
        Scales of the two.
    output_scale : float
        Scale of the sum.
    rounding : str
        The network's.
    clamp : (float, float)
        Ends of what comes out, less the zero point.
    """
    if rounding == "onnx":
        one, two = (F32(scale) / F32(output_scale) for scale in scales)
        ones = Requantise(np.ones(1, F32), rounding, clamp, None)
        return lambda first, second: ones(first * one + second * two)
    twice = 2 * max(scales)
    rescale = [FixedPoint([scale / twice], rounding) for scale in scales]
    requantise = Requantise(np.array([twice / (2**SHIFT_OF_SUMS * output_scale)]), rounding, clamp, None)

    def step(first: Array, second: Array) -> Array:
        one, two = (
            fixed(x.astype(np.int64) << SHIFT_OF_SUMS) for fixed, x in zip(rescale, (first, second), strict=True)
        )
        return requantise(one + two)

    return step


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
    multiply = product(weights, None, (-255.0, 255.0))

    def step(x: Array) -> Array:
        finite = x[np.isfinite(x)]
        low, high = finite.min(initial=F32(0)), finite.max(initial=F32(0))
        scale = (high - low) / F32(255)
        scale = scale if scale > 0 else F32(1)
        zero_point = min(max(np.rint(-low / scale), F32(0)), F32(255))
        z = multiply(_steps(x / scale, -zero_point, F32(255) - zero_point)).astype(F32, copy=False)
        z *= scale * scales
        if bias is not None:
            z += bias
        return z if function is None else function(z)

    return step
