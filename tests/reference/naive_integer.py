"""Quantized arithmetic, slow and exact: the reference for the integer kernels (see naive.py).

A real value r is scale * (q - zero_point). Scales are float32. Weights are symmetric (zero point 0),
activations "int8" or "uint8" with one scale a tensor, biases int32 with scale x_scale * kernel_scale[j].
`rounding` is "onnx" (onnxruntime's float32 multiplier, half to even), or one with a fixed-point multiplier and shift:
"tflite" (LiteRT's reference kernels, one rounding), "gemmlowp" (two, as gemmlowp's fixedpoint.h) or "ruy" (two, the
shift's ties up).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

Array = np.ndarray
F32 = np.float32
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
LIMITS = {"int8": (-128, 127), "uint8": (0, 255)}
# TFLite's int8 specification: what these activations give has one fixed scale and (int8, uint8) zero point.
FIXED_OUTPUTS = {
    "sigmoid": (F32(1 / 256), {"int8": -128, "uint8": 0}),
    "softmax": (F32(1 / 256), {"int8": -128, "uint8": 0}),
    "tanh": (F32(1 / 128), {"int8": 0, "uint8": 128}),
}


# -- parameters --


def weight_scales(kernel: Array, *, limit: int = 127, per_channel: bool = True) -> Array:
    """float32 (n_out,): each output column's (or the kernel's) largest |w| / limit; 1 where that is 0."""
    largest = np.abs(kernel).max(axis=0) if per_channel else np.full(kernel.shape[1], np.abs(kernel).max())
    scales = largest.astype(F32) / F32(limit)
    return np.where(scales == 0, F32(1), scales)


def quantize_weights(kernel: Array, scales: Array, *, limit: int = 127) -> Array:
    """int8 in [-limit, limit], zero point 0."""
    return np.clip(np.rint(kernel.astype(F32) / scales), -limit, limit).astype(np.int8)


def activation_parameters(
    low: float, high: float, dtype: str = "int8", *, symmetric: bool = False
) -> tuple[np.float32, int]:
    """(scale, zero_point) for values in [low, high], a range that is first widened to contain 0.

    Computed in float64 from the bounds as float32, the scale rounded to float32; an empty range has scale 1.
    The zero point is rounded half to even from the rounded scale. Symmetric: the middle value stands for 0.
    """
    qmin, qmax = LIMITS[dtype]
    lo, hi = min(float(F32(low)), 0.0), max(float(F32(high)), 0.0)
    if symmetric:
        return F32(max(-lo, hi) / 127) or F32(1), qmax - 127
    scale = F32((hi - lo) / 255) or F32(1)
    return scale, int(np.clip(np.rint(qmin - lo / float(scale)), qmin, qmax))


def dynamic_parameters(x: Array) -> tuple[np.float32, int]:
    """uint8 (scale, zero_point) of a whole call, in float32 as ONNX's DynamicQuantizeLinear has it."""
    lo, hi = F32(min(F32(x.min()), F32(0))), F32(max(F32(x.max()), F32(0)))
    scale = (hi - lo) / F32(255) or F32(1)
    return scale, int(np.rint(np.clip(F32(0) - lo / scale, F32(0), F32(255))))


def bias_scales(x_scale: np.float32, kernel_scales: Array) -> Array:
    return F32(x_scale) * kernel_scales.astype(F32)


def quantize_bias(bias: Array, x_scale: np.float32, kernel_scales: Array) -> Array:
    """int32: the float64 quotient by the float32 product of scales, half to even; refused where too large."""
    scales = bias_scales(x_scale, kernel_scales).astype(np.float64)
    if (scales == 0).any():
        raise OverflowError("the scale of a bias underflows float32")
    q = np.rint(bias.astype(np.float64) / scales)
    if ((q < INT32_MIN) | (q > INT32_MAX)).any():
        raise OverflowError("a bias does not fit int32")
    return q.astype(np.int32)


# -- float <-> integer --


def quantize(x: Array, scale: np.float32, zero_point: int, dtype: str = "int8") -> Array:
    """ONNX's QuantizeLinear: saturate(round_half_even(float32(x / scale)) + zero_point)."""
    with np.errstate(over="ignore"):
        q = np.rint(np.asarray(x, F32) / F32(scale)).astype(np.float64) + zero_point
    return np.clip(q, *LIMITS[dtype]).astype(dtype)


def dequantize(q: Array, scale: np.float32, zero_point: int) -> Array:
    """ONNX's DequantizeLinear, in float32."""
    return (q.astype(np.int32) - np.int32(zero_point)).astype(F32) * F32(scale)


# -- multiply and accumulate --


def integer_dense(x: Array, x_zero_point: int, kernel: Array, bias: Array | None) -> Array:
    """The int32 accumulator (as int64) of (x - x_zero_point) @ kernel + bias; refused if it leaves int32."""
    acc = (x.astype(np.int64) - int(x_zero_point)) @ kernel.astype(np.int64)
    if bias is not None:
        acc = acc + bias.astype(np.int64)
    if ((acc < INT32_MIN) | (acc > INT32_MAX)).any():
        raise OverflowError("an accumulator leaves int32")
    return acc


# -- requantise --


def round_half_away(x: float) -> int:
    """C's round()."""
    return int(math.copysign(math.floor(abs(x) + 0.5), x))


def clamp_limits(
    activation: str, scale: np.float32, zero_point: int, dtype: str = "int8", rounding: str = "onnx"
) -> tuple[int, int]:
    """The output integers that linear, relu or relu6 leaves possible."""
    qmin, qmax = LIMITS[dtype]
    if activation == "linear":
        return qmin, qmax
    if activation == "relu":
        return zero_point, qmax
    if activation == "relu6":
        six = F32(6) / F32(scale)
        steps = int(np.rint(six)) if rounding == "onnx" else round_half_away(float(six))
        return zero_point, min(zero_point + steps, qmax)
    raise ValueError(f"{activation} is not a clamp")


def onnx_multipliers(x_scale: np.float32, kernel_scales: Array, y_scale: np.float32) -> Array:
    """onnxruntime's QGemm: the product, then the quotient, each rounded to float32."""
    return bias_scales(x_scale, kernel_scales) / F32(y_scale)


def onnx_rescale(acc: Array, multipliers: Array) -> Array:
    """round_half_even(float32(acc) * multiplier), the product rounded to float32; integral float64."""
    with np.errstate(over="ignore"):
        return np.rint(acc.astype(F32) * multipliers).astype(np.float64)


def quantize_multiplier(real: float) -> tuple[int, int]:
    """(multiplier, shift) with real ~ multiplier * 2**(shift - 31), multiplier in [2**30, 2**31) or 0.

    TFLite, kernels/internal/quantization_util.cc, QuantizeMultiplier; what is below 2**-32 becomes 0.
    """
    if real == 0:
        return 0, 0
    fraction, shift = math.frexp(real)
    multiplier = (int(fraction * 2**53) + 2**21) >> 22
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift + 1
    if shift < -31:
        return 0, 0
    if shift > 30:
        raise OverflowError(f"multiplier {real} is 2**30 or more")
    return multiplier, shift


def saturating_rounding_doubling_high_multiply(a: int, b: int) -> int:
    """gemmlowp, fixedpoint.h: a * b / 2**31 rounded to nearest; only INT32_MIN squared saturates."""
    if a == b == INT32_MIN:
        return INT32_MAX
    nudged = a * b + (2**30 if a * b >= 0 else 1 - 2**30)
    return nudged // 2**31 if nudged >= 0 else -(-nudged // 2**31)  # C's division truncates


def rounding_divide_by_power_of_two(x: int, exponent: int) -> int:
    """gemmlowp, fixedpoint.h: x / 2**exponent, half away from zero."""
    mask = (1 << exponent) - 1
    threshold = (mask >> 1) + (1 if x < 0 else 0)
    return (x >> exponent) + (1 if (x & mask) > threshold else 0)


def multiply_by_quantized_multiplier(x: int, multiplier: int, shift: int, rounding: str = "gemmlowp") -> int:
    """TFLite, kernels/internal/common.h and common.cc, in one of its forms.

    A left shift that overflows int32 is undefined in C; here it saturates, which clamps to the right output.
    """
    if rounding == "tflite":
        return math.floor(Fraction(x * multiplier, 2 ** (31 - shift)) + Fraction(1, 2))
    shifted = min(max(x << max(shift, 0), INT32_MIN), INT32_MAX)
    high = saturating_rounding_doubling_high_multiply(shifted, multiplier)
    if rounding == "ruy":
        return math.floor(Fraction(high, 2 ** max(-shift, 0)) + Fraction(1, 2))
    return rounding_divide_by_power_of_two(high, max(-shift, 0))


def tflite_multipliers(x_scale: np.float32, kernel_scales: Array, y_scale: np.float32) -> list[tuple[int, int]]:
    """(multiplier, shift) a channel, from float64 arithmetic on the float32 scales."""
    return [quantize_multiplier(float(F32(x_scale)) * float(F32(s)) / float(F32(y_scale))) for s in kernel_scales]


def tflite_rescale(acc: Array, multipliers: list[tuple[int, int]], rounding: str = "gemmlowp") -> Array:
    out = np.empty(acc.shape, np.int64)
    for *row, channel in np.ndindex(acc.shape):
        i = (*row, channel)
        out[i] = multiply_by_quantized_multiplier(int(acc[i]), *multipliers[channel], rounding)
    return out


def requantize(
    acc: Array,
    x_scale: np.float32,
    kernel_scales: Array,
    y_scale: np.float32,
    y_zero_point: int,
    dtype: str = "int8",
    *,
    rounding: str = "onnx",
    activation: str = "linear",
) -> Array:
    """Accumulators (.., n_out) of scale x_scale * kernel_scales[j] to dtype; relu and relu6 are clamps."""
    if rounding == "onnx":
        scaled = onnx_rescale(acc, onnx_multipliers(x_scale, kernel_scales, y_scale))
    elif rounding in ("tflite", "gemmlowp", "ruy"):
        scaled = tflite_rescale(acc, tflite_multipliers(x_scale, kernel_scales, y_scale), rounding)
    else:
        raise ValueError(f"rounding {rounding}")
    limits = clamp_limits(activation, y_scale, y_zero_point, dtype, rounding)
    return np.clip(scaled + y_zero_point, *limits).astype(dtype)


# -- other activations: one table entry for each of the 256 inputs --


def activation_table(
    f: Callable[[Array], Array],
    z_scale: np.float32,
    z_zero_point: int,
    y_scale: np.float32,
    y_zero_point: int,
    dtype: str = "int8",
) -> Array:
    """(256,) of dtype: entry q - qmin is f, in float64, of the dequantized q, as float32, quantized."""
    qmin, qmax = LIMITS[dtype]
    z = dequantize(np.arange(qmin, qmax + 1), z_scale, z_zero_point).astype(np.float64)
    return quantize(f(z), y_scale, y_zero_point, dtype)


def look_up(table: Array, q: Array) -> Array:
    return table[q.astype(np.int64) - LIMITS[str(table.dtype)][0]]


# -- networks --


@dataclass(frozen=True)
class IntegerDense:
    """y = requantize(x @ kernel + bias) clamped by `activation`, then looked up in `table` if there."""

    kernel: Array  # int8 (n_in, n_out)
    kernel_scales: Array  # float32 (n_out,)
    bias: Array  # int32 (n_out,)
    x_scale: np.float32
    x_zero_point: int
    y_scale: np.float32  # of the requantised value, before the table
    y_zero_point: int
    activation: str = "linear"  # or relu, relu6
    table: Array | None = None

    def __call__(self, x: Array, rounding: str = "onnx") -> Array:
        acc = integer_dense(x, self.x_zero_point, self.kernel, self.bias)
        y = requantize(
            acc,
            self.x_scale,
            self.kernel_scales,
            self.y_scale,
            self.y_zero_point,
            str(x.dtype),
            rounding=rounding,
            activation=self.activation,
        )
        return y if self.table is None else look_up(self.table, y)


def quantize_dense(
    kernel: Array,
    bias: Array | None,
    x_parameters: tuple[np.float32, int],
    y_parameters: tuple[np.float32, int],
    *,
    activation: str = "linear",
    table: Array | None = None,
    limit: int = 127,
    per_channel: bool = True,
) -> IntegerDense:
    """One float layer with the (scale, zero_point) of its input and of its requantised output."""
    scales = weight_scales(kernel, limit=limit, per_channel=per_channel)
    q_kernel = quantize_weights(kernel, scales, limit=limit)
    q_bias = quantize_bias(np.zeros(kernel.shape[1]) if bias is None else bias, x_parameters[0], scales)
    return IntegerDense(q_kernel, scales, q_bias, *x_parameters, *y_parameters, activation, table)


def integer_mlp_forward(x: Array, layers: list[IntegerDense], dtype: str = "int8", rounding: str = "onnx") -> Array:
    """Float rows in, the last layer's integers out; a layer's input scale is its predecessor's output's."""
    q = quantize(x, layers[0].x_scale, layers[0].x_zero_point, dtype)
    for layer in layers:
        q = layer(q, rounding)
    return q


# -- sums and softmax --

Format = tuple[float, int]  # scale, zero point


def add(
    a: Array,
    a_format: Format,
    b: Array,
    b_format: Format,
    format: Format,
    dtype: str = "int8",
    *,
    rounding: str = "onnx",
    activation: str = "linear",
) -> Array:
    """The sum of two integer tensors. Fixed point: TFLite, reference/add.h, AddElementwise with left_shift 20."""
    (sa, za), (sb, zb), (s, z) = a_format, b_format, format
    limits = clamp_limits(activation, F32(s), z, dtype, rounding)
    if rounding == "onnx":
        terms = [(q.astype(np.int32) - zero).astype(F32) * (F32(scale) / F32(s)) for q, scale, zero in
                 ((a, sa, za), (b, sb, zb))]  # fmt: skip
        return np.clip(np.rint(terms[0] + terms[1]).astype(np.float64) + z, *limits).astype(dtype)
    twice = 2 * max(sa, sb)
    first, second, last = (quantize_multiplier(real) for real in (sa / twice, sb / twice, twice / (2**20 * s)))
    out = np.empty(a.shape, np.int64)
    for i in np.ndindex(a.shape):
        total = multiply_by_quantized_multiplier((int(a[i]) - za) * 2**20, *first, rounding)
        total += multiply_by_quantized_multiplier((int(b[i]) - zb) * 2**20, *second, rounding)
        out[i] = multiply_by_quantized_multiplier(total, *last, rounding)
    return np.clip(out + z, *limits).astype(dtype)


def exponentials(scale: float) -> Array:
    """round(2**23 exp(-d scale)) for d in 0..255."""
    return np.array([round(2**23 * math.exp(-d * scale)) for d in range(256)], np.int32)


def softmax(q: Array, scale: float, dtype: str = "int8") -> Array:
    """Return softmax of integers, at scale 1/256: exact rational arithmetic on the table, to nearest, halves up."""
    table = exponentials(scale)
    out = np.empty(q.shape, np.int64)
    for i in range(q.shape[0]):
        row = [int(table[int(q[i].max()) - int(value)]) for value in q[i]]
        out[i] = [min((512 * e + sum(row)) // (2 * sum(row)), 255) for e in row]
    return (out + LIMITS[dtype][0]).astype(dtype)
