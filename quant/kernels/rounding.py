"""The ways from accumulators to the next layer's integers. Written to be ported to C line by line.

"onnx"      round_half_even(float32(accumulator) * multiplier), multiplier = float32(x_scale * kernel_scale) / y_scale:
            what onnxruntime's QGemm does, and XNNPACK.
The others multiply by 31 bits of fixed point and shift right, and differ in where that rounds:
"tflite"    once, ties up: LiteRT's reference kernels (kernels/internal/common.cc with TFLITE_SINGLE_ROUNDING).
"gemmlowp"  at each of the two, ties away from zero: gemmlowp's fixedpoint.h, TFLite's former kernels, CMSIS-NN.
"ruy"       at each of the two, ties of the shift up: LiteRT's optimised built-in kernels.

Input quantization is ONNX's QuantizeLinear in all. Everything is clamped before a float becomes an integer: the
conversion of what does not fit is undefined.
"""

from __future__ import annotations

import numpy as np
from numba.core import types

from nbdense._compile import processor
from nbdense._compile.policy import intrinsic, kernel
from nbdense.runtime.rounding import ROUNDINGS, SHIFT_OF_SUMS

CODES = {name: code for code, name in enumerate(ROUNDINGS)}
ONNX, TFLITE, GEMMLOWP, RUY = CODES.values()

# 1.5 * 2**23. A float32 within +-2**22 has no room for a fraction once this is added: the sum is rounded half to even,
# and its bits are those of _ROUND plus the whole number. They grow with the value, also where that is larger.
_ROUND = np.float32(12582912.0)
_ROUND_BITS = int(_ROUND.view(np.int32))
_NOT_FINITE = 1 << 26  # a bit that sums of a NaN or an infinity have, and those within +-2**24 have not
_INT32_MAX = 2**31 - 1


@kernel
def rounded_bits(value):
    """Round a float32, not NaN, half to even: to the bits of an int32 that `byte_of` takes."""
    return np.float32(value + _ROUND).view(np.int32)


@kernel
def byte_of(bits, zero_point, low, high):
    """Return clamp(value + zero_point, low, high) of a value's `rounded_bits`, for bounds within 0..255."""
    least, most = np.int32(_ROUND_BITS + low - zero_point), np.uint32(high)
    bits = least if bits < least else bits
    # Unsigned: with 255 for a bound, the clamp and the cast are one instruction of AVX-512.
    value = np.uint32(np.int32(bits - np.int32(_ROUND_BITS - zero_point)))
    return np.uint8(most if value > most else value)


@kernel
def round_to_byte(value, zero_point, low, high):
    """Return clamp(round_half_even(value) + zero_point, low, high) of a float32, not NaN, for bounds within 0..255."""
    return byte_of(rounded_bits(value), zero_point, low, high)


@kernel
def may_be_nan(bits):
    """Tell whether one may not have been finite, of values whose `rounded_bits` were or-ed together."""
    return (bits & np.int32(_NOT_FINITE)) != 0


def _divide(x, divisor, reciprocal):
    return x / divisor


@intrinsic(_divide)
def quotient(typing_context, x, divisor, reciprocal):
    """Return x / divisor of float32 by its reciprocal: with two fused multiply-adds, where there are, and no division.

    The product with the rounded reciprocal is corrected by its remainder (Markstein, "Computation of elementary
    functions on the IBM RISC System/6000 processor", 1990). Rounded to a whole number within +-256 it is the quotient's
    own, as all 2**23 mantissas of a divisor, at the floats around each tie, have shown. That holds for a divisor
    between 1e-29 and 1e37; where x or the quotient is not finite, a NaN may come out.
    """
    number = types.float32

    def codegen(context, builder, signature, arguments):
        x, divisor, reciprocal = arguments
        if not processor.target().fma:
            return builder.fdiv(x, divisor)
        first = builder.fmul(x, reciprocal)
        remainder = builder.fma(builder.fneg(first), divisor, x)
        return builder.fma(remainder, reciprocal, first)

    return number(number, number, number), codegen


@kernel
def fixed_point_multiply(x, multiplier, shift, rounding):
    """Return int32 x * multiplier * 2**(shift - 31), multiplier at least 0, rounded as one of CODES; as int64."""
    if rounding == TFLITE:
        right = np.int64(31) - np.int64(shift)
        return (np.int64(x) * np.int64(multiplier) + (np.int64(1) << (right - np.int64(1)))) >> right
    left = np.int64(shift if shift > 0 else 0)
    right = np.int64(-shift if shift < 0 else 0)
    # A left shift that leaves int32 is undefined in C; saturating gives the same after the clamp.
    shifted = min(max(np.int64(x) << left, np.int64(-_INT32_MAX - 1)), np.int64(_INT32_MAX))
    # SaturatingRoundingDoublingHighMul; its ties go up: below zero it adds one less, and C's division truncates.
    high = (shifted * np.int64(multiplier) + np.int64(1 << 30)) >> np.int64(31)
    # RoundingDivideByPOT; or, to move ties up, the shift that instructions offer (arm64's SRSHL).
    half = (np.int64(1) << right) >> np.int64(1)
    if rounding == GEMMLOWP and high < 0 and half > 0:
        half -= np.int64(1)
    return (high + half) >> right


@kernel
def fixed_point_sum(a, b, multipliers, shifts, rounding):
    """Rescale and sum two terms less their zero points (TFLite, kernels/internal/reference/add.h); as int64.

    multipliers, shifts : three of each, of the terms and of the sum
    """
    a = fixed_point_multiply(np.int32(a << SHIFT_OF_SUMS), multipliers[0], shifts[0], rounding)
    b = fixed_point_multiply(np.int32(b << SHIFT_OF_SUMS), multipliers[1], shifts[1], rounding)
    return fixed_point_multiply(np.int32(a + b), multipliers[2], shifts[2], rounding)
