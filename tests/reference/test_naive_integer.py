"""The integer reference's own checks: exact rational arithmetic and hand-worked cases."""

import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.reference import naive, naive_integer

F32 = np.float32
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# -- fixed-point arithmetic against exact fractions --


def floor_half_up(x: Fraction) -> int:
    return math.floor(x + Fraction(1, 2))


def half_away(x: Fraction) -> int:
    return floor_half_up(x) if x >= 0 else -floor_half_up(-x)


EXTREMES = [INT32_MIN, INT32_MIN + 1, -(2**30), -3, -2, -1, 0, 1, 2, 3, 2**30 - 1, 2**30, INT32_MAX]


def test_fixed_point_steps_against_fractions() -> None:
    drawn = [int(v) for v in rng(9).integers(INT32_MIN, INT32_MAX, 60)]
    for a in EXTREMES + drawn:
        for b in EXTREMES + drawn[:10]:
            expected = min(floor_half_up(Fraction(a * b, 2**31)), INT32_MAX)
            assert naive_integer.saturating_rounding_doubling_high_multiply(a, b) == expected
        for exponent in (0, 1, 2, 7, 30, 31):
            expected = half_away(Fraction(a, 2**exponent))
            assert naive_integer.rounding_divide_by_power_of_two(a, exponent) == expected


@pytest.mark.parametrize(
    ("real", "expected"),
    [
        (0.0, (0, 0)),
        (1.0, (2**30, 1)),
        (0.5, (2**30, 0)),
        (0.25, (2**30, -1)),
        (0.75, (3 * 2**29, 0)),
        (1 - 2**-53, (2**30, 1)),  # rounds up to the next power of two
        ((2**31 - 1) / 2**31, (2**31 - 1, 0)),
        ((2**31 - 1.5) / 2**31, (2**31 - 1, 0)),  # half up
        (2.0**-32, (2**30, -31)),
        (2.0**-33, (0, 0)),
        (2.0**29, (2**30, 30)),
    ],
)
def test_quantize_multiplier(real: float, expected: tuple[int, int]) -> None:
    assert naive_integer.quantize_multiplier(real) == expected


def test_quantize_multiplier_error() -> None:
    for real in np.exp(rng(10).uniform(-20, 5, 200)):
        multiplier, shift = naive_integer.quantize_multiplier(float(real))
        assert 2**30 <= multiplier < 2**31
        exact = Fraction(float(real)) * Fraction(2) ** (31 - shift)
        assert multiplier == floor_half_up(exact)
    with pytest.raises(OverflowError):
        naive_integer.quantize_multiplier(2.0**30)


def test_tflite_rescale_against_fractions() -> None:
    """Two roundings leave at most one unit between the result and the exactly rounded product."""
    for acc in EXTREMES + [int(v) for v in rng(11).integers(-(10**6), 10**6, 100)]:
        for real in (2.0**-31, 1e-5, 0.001, 0.3, 0.5, 0.999, 1.0, 1.7, 3.9):
            multiplier, shift = naive_integer.quantize_multiplier(real)
            got = naive_integer.multiply_by_quantized_multiplier(acc, multiplier, shift)
            exact = Fraction(acc * multiplier) * Fraction(2) ** (shift - 31)
            if INT32_MIN <= acc << max(shift, 0) <= INT32_MAX:
                assert abs(got - exact) <= 1
                twice = Fraction(floor_half_up(Fraction((acc << max(shift, 0)) * multiplier, 2**31)))
                assert got == half_away(twice / 2 ** max(-shift, 0))
            else:  # saturated on the way: beyond every int8 clamp, on the right side
                assert got * acc > 0 and abs(got) >= 2**29


def test_onnx_rescale_against_fractions() -> None:
    """Each of the two float32 roundings is within half a unit in the last place; then half to even."""
    acc = np.concatenate([EXTREMES, rng(12).integers(-(10**6), 10**6, 200)])
    multipliers = np.array([1e-5, 0.001, 0.25, 0.5, 1.0], F32)
    got = naive_integer.onnx_rescale(acc[:, None], multipliers)
    for i, j in np.ndindex(got.shape):
        product = F32(float(acc[i])) * multipliers[j]  # float(acc) is exact
        assert got[i, j] == round(Fraction(float(product)))  # Python rounds a Fraction half to even
        assert abs(Fraction(float(product)) - int(acc[i]) * Fraction(float(multipliers[j]))) <= abs(
            int(acc[i]) * Fraction(float(multipliers[j])) / 2**23
        )
    halves = naive_integer.onnx_rescale(np.array([1, 3, 5, -1, -3, -5]), np.array([0.5], F32))
    assert_array_equal(halves, [0, 2, 2, 0, -2, -2])


# -- parameters, conversion, layers --


def test_weight_scales_and_weights() -> None:
    kernel = np.array([[1.27, 0.0, -0.5], [-0.635, 0.0, 0.25]])
    scales = naive_integer.weight_scales(kernel)
    assert scales.dtype == F32
    assert_array_equal(scales, np.array([F32(1.27) / F32(127), 1, F32(0.5) / F32(127)]))
    q = naive_integer.quantize_weights(kernel, scales)
    assert q.dtype == np.int8
    assert_array_equal(q, [[127, 0, -127], [-64, 0, 64]])  # -63.5 and 63.5 go to even
    assert_array_equal(naive_integer.weight_scales(kernel, per_channel=False), [F32(1.27) / F32(127)] * 3)
    four_bits = naive_integer.quantize_weights(kernel, naive_integer.weight_scales(kernel, limit=7), limit=7)
    assert np.abs(four_bits).max() == 7


@pytest.mark.parametrize(
    ("low", "high", "dtype", "expected"),
    [
        (0.0, 255.0, "uint8", (1.0, 0)),
        (0.0, 255.0, "int8", (1.0, -128)),
        (-128.0, 127.0, "int8", (1.0, 0)),
        (-128.0, 127.0, "uint8", (1.0, 128)),
        (51.0, 255.0, "uint8", (1.0, 0)),  # widened to 0
        (-255.0, -51.0, "int8", (1.0, 127)),
        (0.0, 0.0, "uint8", (1.0, 0)),
        (-0.5, 254.5, "uint8", (1.0, 0)),  # half to even
        (-1.5, 253.5, "uint8", (1.0, 2)),
    ],
)
def test_activation_parameters(low: float, high: float, dtype: str, expected: tuple[float, int]) -> None:
    scale, zero_point = naive_integer.activation_parameters(low, high, dtype)
    assert scale.dtype == F32
    assert (float(scale), zero_point) == expected
    zero = np.zeros(1)
    q = naive_integer.quantize(zero, scale, zero_point, dtype)
    assert_array_equal(naive_integer.dequantize(q, scale, zero_point), zero)  # 0 is exact


def test_symmetric_and_dynamic_parameters() -> None:
    assert naive_integer.activation_parameters(-254.0, 10.0, symmetric=True) == (2.0, 0)
    assert naive_integer.activation_parameters(-1.0, 254.0, "uint8", symmetric=True) == (2.0, 128)
    # ONNX's own example for DynamicQuantizeLinear
    x = np.array([0, 2, -3, -2.5, 1.34, 0.5], F32)
    scale, zero_point = naive_integer.dynamic_parameters(x)
    assert (scale, zero_point) == (F32(5.0) / F32(255), 153)
    assert_array_equal(naive_integer.quantize(x, scale, zero_point, "uint8"), [153, 255, 0, 26, 221, 179])


def test_quantize_rounds_half_to_even_and_saturates() -> None:
    x = np.array([-np.inf, -1e30, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 126.5, 1e30, np.inf])
    q = naive_integer.quantize(x, F32(1), 0)
    assert_array_equal(q, [-128, -128, -2, -2, 0, 0, 2, 2, 126, 127, 127])
    assert q.dtype == np.int8
    assert_array_equal(naive_integer.quantize(x[2:9], F32(1), 3, "uint8"), [1, 1, 3, 3, 5, 5, 129])
    assert_array_equal(naive_integer.quantize(np.array([1e38]), F32(1e-38), 0), [127])
    back = naive_integer.dequantize(np.array([0, 255], np.uint8), F32(0.5), 128)
    assert_array_equal(back, [-64.0, 63.5])


def test_bias_and_accumulator_must_fit() -> None:
    assert_array_equal(naive_integer.quantize_bias(np.array([1.25, -3.0]), F32(0.5), np.ones(2)), [2, -6])
    with pytest.raises(OverflowError):
        naive_integer.quantize_bias(np.array([1.0]), F32(1e-5), np.array([1e-5]))
    with pytest.raises(OverflowError):
        naive_integer.quantize_bias(np.array([0.0]), F32(1e-30), np.array([1e-30]))
    x, kernel = np.full((1, 66312), 255, np.uint8), np.full((66312, 1), 127, np.int8)
    assert naive_integer.integer_dense(x[:, 1:], 0, kernel[1:], None) == 66311 * 255 * 127
    with pytest.raises(OverflowError):
        naive_integer.integer_dense(x, 0, kernel, None)


@pytest.mark.parametrize("rounding", ["onnx", "tflite", "gemmlowp", "ruy"])
def test_requantize_by_hand(rounding: str) -> None:
    acc = np.array([[-(10**6), 0], [6, 6], [300, -300], [10**6, 100]])
    scales = np.array([0.5, 0.25], F32)

    def run(dtype: str, zero_point: int, activation: str) -> np.ndarray:
        return naive_integer.requantize(
            acc, F32(0.5), scales, F32(0.5), zero_point, dtype, rounding=rounding, activation=activation
        )

    # multipliers 1/2 and 1/4; 6 / 4 = 1.5 rounds to 2 either way
    assert_array_equal(run("int8", 10, "linear"), [[-128, 10], [13, 12], [127, -65], [127, 35]])
    assert_array_equal(run("int8", 10, "relu"), [[10, 10], [13, 12], [127, 10], [127, 35]])
    assert_array_equal(run("uint8", 0, "relu6"), [[0, 0], [3, 2], [12, 0], [12, 12]])


def test_roundings_differ_at_a_half() -> None:
    acc = np.array([[1], [-1], [5], [-5]])
    arguments = (F32(1), np.array([0.5], F32), F32(1), 0)
    assert naive_integer.requantize(acc, *arguments).ravel().tolist() == [0, 0, 2, -2]
    quarter = (F32(1), np.array([0.25], F32), F32(1), 0)
    for rounding in ("tflite", "gemmlowp", "ruy"):
        # at shift 0 only the high multiply rounds: half towards plus infinity
        assert naive_integer.requantize(acc, *arguments, rounding=rounding).ravel().tolist() == [1, 0, 3, -2]
        got = naive_integer.requantize(2 * acc, *quarter, rounding=rounding).ravel().tolist()
        assert got == ([1, -1, 3, -3] if rounding == "gemmlowp" else [1, 0, 3, -2])  # the shift rounds
    # a half less 2**-32: the multiplication makes it a half, and the shift 1
    assert naive_integer.multiply_by_quantized_multiplier(1, 2**31 - 1, -1, "tflite") == 0
    assert naive_integer.multiply_by_quantized_multiplier(1, 2**31 - 1, -1, "ruy") == 1


def test_activation_table() -> None:
    scale, zero_points = naive_integer.FIXED_OUTPUTS["sigmoid"]
    table = naive_integer.activation_table(naive.sigmoid, F32(0.1), 3, scale, zero_points["int8"])
    q = np.arange(-128, 128).astype(np.int8)
    expected = np.rint(256 / (1 + np.exp(-0.1 * (q.astype(float) - 3)))) - 128
    assert table.shape == (256,) and table.dtype == np.int8
    assert np.abs(naive_integer.look_up(table, q) - np.clip(expected, -128, 127)).max() == 0
    unsigned = naive_integer.activation_table(naive.sigmoid, F32(0.1), 131, scale, 0, "uint8")
    assert_array_equal(unsigned.astype(int), table.astype(int) + 128)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("rounding", ["onnx", "tflite", "gemmlowp", "ruy"])
@pytest.mark.parametrize("activation", ["relu", "relu6", "tanh"])
def test_integer_mlp_follows_the_float_one(dtype: str, rounding: str, activation: str) -> None:
    layers = naive.draw_layers(rng(13), (7, 17, 5), [activation, "linear"])
    x = rng(14).normal(size=(33, 7))
    hidden, z = naive.mlp_forward(x, layers[:1]), naive.dense(x, *layers[0][:2])
    outputs = naive.mlp_forward(x, layers)

    def parameters(values: np.ndarray) -> tuple[np.float32, int]:
        return naive_integer.activation_parameters(values.min(), values.max(), dtype)

    if activation == "tanh":
        fixed, zero_points = naive_integer.FIXED_OUTPUTS["tanh"]
        middle = (fixed, zero_points[dtype])
        table = naive_integer.activation_table(np.tanh, *parameters(z), *middle, dtype)
        first = naive_integer.quantize_dense(*layers[0][:2], parameters(x), parameters(z), table=table)
    else:
        middle = parameters(hidden)
        first = naive_integer.quantize_dense(*layers[0][:2], parameters(x), middle, activation=activation)
    last = parameters(outputs)
    second = naive_integer.quantize_dense(*layers[1][:2], middle, last)
    q = naive_integer.integer_mlp_forward(x, [first, second], dtype, rounding)
    assert q.dtype == dtype
    error = naive_integer.dequantize(q, *last) - outputs
    assert np.abs(error).max() < 4 * last[0]
