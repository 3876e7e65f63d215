"""The ways from accumulators to the next layer's integers. Written to be ported to C line by line.

"onnx"    round_half_even(float32(accumulator) * multiplier), multiplier = float32(x_scale * kernel_scale) / y_scale:
          what onnxruntime's QGemm does.
"tflite"  a 31-bit fixed-point multiplier and a shift, each of which rounds: what TFLite's reference kernels do
          (kernels/internal/common.h, MultiplyByQuantizedMultiplier; gemmlowp, fixedpoint.h).

Input quantization is ONNX's QuantizeLinear in both. Everything is clamped before a float becomes an integer: the
conversion of what does not fit is undefined.
"""

from __future__ import annotations

import math

import numpy as np
from numba.core import types

from nbdense._compile import processor
from nbdense._compile.policy import intrinsic, kernel

ONNX, TFLITE = range(2)
CODES = {"onnx": ONNX, "tflite": TFLITE}
SHIFT_OF_SUMS = 20  # TFLite's sums of two tensors have this many bits more than their terms

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
def fixed_point_multiply(x, multiplier, shift):
    """Return int32 x * multiplier * 2**(shift - 31), multiplier at least 0, rounded twice; as int64."""
    left = shift if shift > 0 else 0
    right = -shift if shift < 0 else 0
    # A left shift that leaves int32 is undefined in C; saturating gives the same after the clamp.
    shifted = np.int64(x) << np.int64(left)
    shifted = min(max(shifted, np.int64(-_INT32_MAX - 1)), np.int64(_INT32_MAX))
    # SaturatingRoundingDoublingHighMul: to nearest, and C's division truncates towards zero.
    product = shifted * np.int64(multiplier)
    nudge = np.int64(1 << 30) if product >= 0 else np.int64(1 - (1 << 30))
    nudged = product + nudge
    high = nudged >> np.int64(31) if nudged >= 0 else -((-nudged) >> np.int64(31))
    # RoundingDivideByPOT: half away from zero.
    mask = (np.int64(1) << np.int64(right)) - np.int64(1)
    threshold = (mask >> np.int64(1)) + (np.int64(1) if high < 0 else np.int64(0))
    return (high >> np.int64(right)) + (np.int64(1) if (high & mask) > threshold else np.int64(0))


@kernel
def fixed_point_sum(a, b, multipliers, shifts):
    """Rescale and sum two terms less their zero points (TFLite, kernels/internal/reference/add.h); as int64.

    multipliers, shifts : three of each, of the terms and of the sum
    """
    a = fixed_point_multiply(np.int32(a << SHIFT_OF_SUMS), multipliers[0], shifts[0])
    b = fixed_point_multiply(np.int32(b << SHIFT_OF_SUMS), multipliers[1], shifts[1])
    return fixed_point_multiply(np.int32(a + b), multipliers[2], shifts[2])


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
    """Round half away from zero, as C's round() does."""
    return math.copysign(math.floor(abs(x) + 0.5), x) if math.isfinite(x) else x
