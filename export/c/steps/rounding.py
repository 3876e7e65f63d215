"""From a sum to the next layer's integer: the numbers of each of nbdense's roundings, for C that has integers alone.

"onnx" rounds three times: the sum to a float32 of 24 significant bits, its product with a float32 multiplier again, and
that to a whole number, half to even. C has no need of floats for it, and must not use them: a compiler may contract a
product and a sum, which rounds once less, and double has other ties. The multiplier is a whole number of 24 bits,
shifted, so a product of 64 bits is exact. Its upper half has the whole number and some bits of the fraction; unless
these are all 0 or all 1, the number lies farther from a tie than all three roundings can move it (`_fraction_bits`),
and rounding once is the same. Else, of one number in some hundreds, the three roundings are made one by one.

"tflite" rounds a product of 64 bits once. Where it is shifted by 33 bits or more, its lower half decides nothing: a
half is added to the upper one. "gemmlowp" and "ruy" round twice, in fewer steps than gemmlowp's fixedpoint.h: a shift
of the product that rounds half up is what its "doubling high multiply" comes to, and taking 1 off what is negative
before the second shift rounds that half away from zero, which is "gemmlowp".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.quant.layers.integer_layers import QuantizedAdd, QuantizedDense

Int64 = npt.NDArray[np.int64]
_LARGEST_SHIFT = 52  # which leaves room for a zero point in front of the fraction
_LARGEST = 257.0  # a value farther from 0 saturates, whatever its zero point


@dataclass(frozen=True, eq=False)
class Scales:
    """The numbers with which a layer's sums are requantised.

    Attributes
    ----------
    multipliers : ndarray of int64
        One for each channel; of a sum of two tensors one for each, and where the rounding has it, one for the total.
    shifts : ndarray of int64
        Likewise; of a sum of two tensors as its C structure has them.
    short : bool
        Whether the rounding's short C functions fit all channels.
    """

    multipliers: Int64
    shifts: Int64
    short: bool = True

    @property
    def shared(self) -> bool:
        """Tell whether all channels have one shift, of a layer's structure."""
        return bool((self.shifts == self.shifts[0]).all()) and int(self.shifts[0]) <= _LARGEST_SHIFT


@dataclass(frozen=True)
class Rounding:
    """A way to requantise.

    Attributes
    ----------
    dense : callable
        ``(layer, bounds)``: the scales of a dense layer whose channels' sums are within plus and minus ``bounds``.
    add : callable
        ``(layer)``: the scales of a sum of two tensors.
    numbers : callable
        ``(scales, zero_point)``: members of a layer's structure, where its channels share a shift.
    kernel, kernel_each, kernel_long, kernel_sum : str
        C functions, of `nbdense.export.c.kernels`: of layers whose channels share a shift, and whose channels do not;
        of layers that these do not fit; and of sums of two tensors.
    cmsis_nn : bool or None
        Whether CMSIS-NN has to be built with CMSIS_NN_USE_SINGLE_ROUNDING to round so; None: it does not.
    """

    dense: Callable[[QuantizedDense, Int64], Scales]
    add: Callable[[QuantizedAdd], Scales]
    numbers: Callable[[Scales, int], dict[str, tuple[str, int]]]
    kernel: str
    kernel_each: str
    kernel_long: str
    kernel_sum: str
    cmsis_nn: bool | None = None


# -- onnx ------------------------------------------------------------------------------------------------------------


def _binary(numbers: npt.NDArray[np.float32]) -> tuple[Int64, Int64]:
    """Return whole numbers of 24 bits and shifts, with numbers = whole * 2**-shift."""
    fraction, exponent = np.frexp(numbers.astype(np.float64))
    return (fraction * 2.0**24).astype(np.int64), 24 - exponent.astype(np.int64)


def _fraction_bits(values: npt.NDArray[Any]) -> Int64:
    """Return how many bits of the fraction tell that rounding once is enough, of values within plus and minus these.

    Two roundings to 24 bits move a value by 2**-23 of itself at most, and a little. What is not within 2**-bits of a
    tie stays on its side if that is less.
    """
    most = np.minimum(np.maximum(values, 2.0**-100), _LARGEST)
    return np.floor(23 - np.log2(most * 1.0001)).astype(np.int64)


def _onnx_dense(layer: QuantizedDense, bounds: Int64) -> Scales:
    multipliers = layer.bias_scales() / np.float32(layer.pre_scale)
    whole, shifts = _binary(multipliers)
    values = bounds * multipliers.astype(np.float64)
    zero = values < 0.4999  # nothing is left of them: any shift will do
    if zero.all():
        return Scales(np.zeros_like(whole), np.full_like(shifts, 40))
    # As far as the multiplier still has 31 bits, and not farther than the bits of the fraction that are looked at.
    most = np.minimum(shifts + 7, 32 + _fraction_bits(values))
    most = np.maximum(np.minimum(most, _LARGEST_SHIFT), shifts)
    one = most[~zero].min()
    far_apart = one < shifts[~zero].max()  # too far for one shift
    chosen = np.where(zero, 40, most) if far_apart else np.full_like(most, one)
    if (chosen < 1).any():
        raise ValueError(
            f"layer {layer.name!r}: a multiplier of {multipliers.max():g} has no exact form in C: quantize the model "
            "anew, with data for calibration that is like what it will see"
        )
    made = np.where(zero, 0, whole << np.maximum(chosen - shifts, 0))
    return Scales(made, chosen)


def _onnx_numbers(scales: Scales, zero_point: int) -> dict[str, tuple[str, int]]:
    bits = int(scales.shifts[0]) - 32
    offset = mask = 0  # with so few bits, all are rounded three times
    if bits > 1:
        # A half, the zero point, and 1 in the last bit: what is not 0 nor 1 in the fraction then is no tie before.
        offset, mask = (zero_point << bits) + (1 << (bits - 1)) + 1, (1 << bits) - 2
    return {
        "offset": ("int32_t", offset),
        "mask": ("int32_t", mask),
        "zero_point": ("int16_t", zero_point),
        "bits": ("int8_t", bits),
    }


def _onnx_add(layer: QuantizedAdd) -> Scales:
    ratios = np.array(layer.input_scales, np.float32) / np.float32(layer.output_scale)
    whole, shifts = _binary(ratios)
    shift = int(shifts.max())
    if shift > 60 or shift < 1 or int(shift - shifts.min()) > 28:
        raise ValueError(
            f"layer {layer.name!r}: its terms are {ratios[0]:g} and {ratios[1]:g} times its output's scale, too far "
            "apart for an exact sum in C: quantize the model with rounding='tflite'"
        )
    moved = 2.0**-23 * (255.0 * float(ratios.sum()) + _LARGEST)  # by rounding both terms and the sum
    bits = max(0, min(shift, int(np.floor(-np.log2(moved)))))
    return Scales(whole << (shift - shifts), np.array([shift, bits]))


# -- in fixed point --------------------------------------------------------------------------------------------------


def _once_dense(layer: QuantizedDense, bounds: Int64) -> Scales:
    multipliers, left = np.array(layer.fixed_point_multipliers(), np.int64).T
    right = np.where(multipliers == 0, 2, -left)
    upper = ((bounds * multipliers) >> 32) + 2
    # With the zero point on top the quotient's numerator still has 32 bits.
    short = (right >= 2) & (right <= 31) & (upper + (np.int64(256) << np.clip(right - 1, 0, 32)) < 2**31)
    return Scales(multipliers, right, bool(short.all()))


def _once_numbers(scales: Scales, zero_point: int) -> dict[str, tuple[str, int]]:
    shift = int(scales.shifts[0]) - 1
    return {"offset": ("int32_t", (zero_point << shift) + (1 << (shift - 1))), "shift": ("int8_t", shift)}


def _twice_dense(layer: QuantizedDense, bounds: Int64) -> Scales:
    multipliers, left = np.array(layer.fixed_point_multipliers(), np.int64).T
    right = np.where(multipliers == 0, 1, -left)
    high = ((bounds * multipliers) >> 31) + 2
    # With the zero point on top the quotient's numerator still has 32 bits.
    short = (right >= 1) & (right <= 30) & (high + (np.int64(256) << np.clip(right, 0, 32)) < 2**31)
    return Scales(multipliers, right, bool(short.all()))


def _twice_numbers(scales: Scales, zero_point: int) -> dict[str, tuple[str, int]]:
    shift = int(scales.shifts[0])
    return {"offset": ("int32_t", (zero_point << shift) + (1 << (shift - 1))), "shift": ("int8_t", shift)}


def _fixed_add(layer: QuantizedAdd) -> Scales:
    multipliers, left = np.array(layer.fixed_point_multipliers(), np.int64).T
    return Scales(multipliers, -left)


def _fixed(name: str, dense: Any, numbers: Any, cmsis_nn: bool | None) -> Rounding:
    """Return the row of a rounding in fixed point."""
    return Rounding(dense, _fixed_add, numbers, name, f"{name}_each", f"{name}_long", f"{name}_sum", cmsis_nn)


ROUNDINGS = {
    "onnx": Rounding(_onnx_dense, _onnx_add, _onnx_numbers, "onnx", "onnx_each", "onnx_each", "exact_sum"),
    "tflite": _fixed("tflite", _once_dense, _once_numbers, cmsis_nn=True),
    "gemmlowp": _fixed("gemmlowp", _twice_dense, _twice_numbers, cmsis_nn=False),
    "ruy": _fixed("ruy", _twice_dense, _twice_numbers, cmsis_nn=None),
}
