"""C: from sums to integers, in integers alone, as each of nbdense's roundings has it."""

from __future__ import annotations

from nbdense.export.c.kernels.kernel import Kernel, filled

_NEAREST = """\
/* value / 2**shift, rounded half to even. */
static COLD uint64_t nearest(uint64_t value, int shift)
{
    const uint64_t mask = ((uint64_t)1 << shift) - 1u;

    return (value + (mask >> 1) + (value >> shift & mask & 1u)) >> shift;
}
"""

_EXCESS = """\
/* How many bits a value has beyond the 24 of a float32. */
static COLD int excess(uint64_t value)
{
    int bits = 0;

    for (value >>= 24; value != 0; value >>= 1) {
        ++bits;
    }
    return bits;
}
"""

_SIGNIFICANT = """\
/* The value as a float32 has it, rounded half to even. */
static COLD uint64_t significant(uint64_t value)
{
    const int bits = excess(value);

    return nearest(value, bits) << bits;
}
"""

# Rounded in place, not by `significant`: on the deepest stack.
_EXACT = """\
/* sum * multiplier / 2**shift, rounded as a float32, a product of float32 and a whole number: three times. */
static COLD int32_t exact(int32_t sum, int32_t multiplier, int shift)
{
    const uint32_t size = sum < 0 ? 0u - (uint32_t)sum : (uint32_t)sum;
    int bits = excess(size);
    uint64_t value = (nearest(size, bits) << bits) * (uint32_t)multiplier;

    bits = excess(value);
    value = nearest(nearest(value, bits) << bits, shift);
    value = value > 65535u ? 65535u : value;
    return sum < 0 ? -(int32_t)value : (int32_t)value;
}
"""

_LINE_BY_LINE = """\
/* x * multiplier / 2**(31 + shift), rounded twice: MultiplyByQuantizedMultiplier of @WHOSE. */
static int32_t scaled_line_by_line(int32_t x, int32_t multiplier, int shift)
{
    const int right = shift > 0 ? shift : 0;
    const int64_t mask = ((int64_t)1 << right) - 1;
    int64_t value = (int64_t)x * ((int64_t)1 << (right - shift));

    value = value < INT32_MIN ? INT32_MIN : value > INT32_MAX ? INT32_MAX : value;
    value = (value * multiplier + ((int64_t)1 << 30)) >> 31;
    return (int32_t)(@ROUNDED);
}
"""

_ONCE_LINE_BY_LINE = """\
/* x * multiplier / 2**(31 + shift), rounded once, half up: MultiplyByQuantizedMultiplier of LiteRT's reference. */
static int32_t scaled_line_by_line(int32_t x, int32_t multiplier, int shift)
{
    const int64_t value = ((int64_t)x * multiplier + ((int64_t)1 << (30 + shift))) >> (31 + shift);

    return value < INT32_MIN ? INT32_MIN : value > INT32_MAX ? INT32_MAX : (int32_t)value;
}
"""

# Without a product of 64 bits a function of the compiler's would be called, three times as long.
_UPPER_HALF = """\
/* a * b / 2**32, rounded down, of b that is not negative. */
static int32_t upper_half(int32_t a, int32_t b)
{
#if defined(__ARM_ARCH_6M__)
    const int32_t above = a >> 16, other = b >> 16, low = a & 0xFFFF, rest = b & 0xFFFF;
    const int32_t sum = above * rest + (int32_t)((uint32_t)low * (uint32_t)rest >> 16);

    return above * other + (sum >> 16) + (int32_t)(((uint32_t)low * (uint32_t)other + ((uint32_t)sum & 0xFFFFu)) >> 16);
#else
    return (int32_t)(((int64_t)a * b) >> 32);
#endif
}
"""

_DENSE_LAYER = """\
typedef struct {
    const int8_t *weights;
    const int32_t *bias;
    const int32_t *multipliers;
${pointers}    int32_t n_in, n_out;
${numbers}} dense_layer;
"""

_ONNX = """\
/* Rounded once where the fraction, in the upper half of the product, is no tie nor nearly one. */
static $value requantised(const dense_layer *layer, int32_t column, int32_t sum)
{
    const int32_t multiplier = layer->multipliers[column];
    const int32_t upper = upper_half(sum, multiplier) + layer->offset;
    int32_t q;

    if ((upper & layer->mask) != 0) {
        q = upper >> layer->bits;
    } else {
        q = exact(sum, multiplier, layer->bits + 32) + layer->zero_point;
    }
    q = ${clamped};
    return ${looked_up};
}
"""

_ONNX_EACH = """\
/* Rounded once where the fraction, in the upper half of the product, is no tie nor nearly one. */
static $value requantised(const dense_layer *layer, int32_t column, int32_t sum)
{
    const int32_t multiplier = layer->multipliers[column];
    const int shift = layer->shifts[column], bits = shift > 32 ? shift - 32 : 0;
    const int32_t upper = upper_half(sum, multiplier) + (((int32_t)1 << bits) >> 1) + 1;
    int32_t q;

    if ((upper & (((int32_t)1 << bits) - 1) & ~(int32_t)1) != 0) {
        q = upper >> bits;
    } else {
        q = exact(sum, multiplier, shift);
    }
    q += layer->zero_point;
    q = ${clamped};
    return ${looked_up};
}
"""

_ONCE = """\
/* Rounded once, half up: what the product's lower half holds decides nothing but the first bit behind a tie. */
static $value requantised(const dense_layer *layer, int32_t column, int32_t sum)
{
    const int32_t upper = upper_half(sum, layer->multipliers[column]);
    const int shift = @SHIFT;
    int32_t q = @QUOTIENT;

    q = ${clamped};
    return ${looked_up};
}
"""

_TWICE = """\
/* Rounded half up, then half @TIES. */
static $value requantised(const dense_layer *layer, int32_t column, int32_t sum)
{
    const int64_t product = (int64_t)sum * layer->multipliers[column] + ((int64_t)1 << 30);
    const int32_t high = @HIGH;
    const int shift = @SHIFT;
    int32_t q = @QUOTIENT;

    q = ${clamped};
    return ${looked_up};
}
"""

_LONG = """\
static $value requantised(const dense_layer *layer, int32_t column, int32_t sum)
{
    int32_t q = scaled_line_by_line(sum, layer->multipliers[column], layer->shifts[column]);

    /* A sum of 32 bits with the zero point could leave them. */
    q = q < -1024 ? -1024 : q > 1024 ? 1024 : q;
    q += layer->zero_point;
    q = ${clamped};
    return ${looked_up};
}
"""

_SUM_STRUCT = """\
typedef struct {
    @MULTIPLIERS;
    int32_t n;
    int16_t zero_point_a, zero_point_b, zero_point, low, high;
    int8_t @SHIFTS;
} sum_layer;
"""

_ADD_EXACTLY = """\
/* a and b times their multipliers, of 2**-shift, as float32: each product, the sum and the whole number are rounded. */
static int64_t sum_of_terms(const sum_layer *layer, int32_t a, int32_t b)
{
    const int64_t sum = a * layer->multipliers[0] + b * layer->multipliers[1];
    const int64_t upper = (sum + ((int64_t)1 << (layer->shift - 1))) >> (layer->shift - layer->bits);
    int64_t first, second, total;

    if (((upper + 1) & (((int64_t)1 << layer->bits) - 1)) > 1) {
        return upper >> layer->bits;
    }
    first = (int64_t)significant((uint64_t)(a < 0 ? -a : a) * (uint64_t)layer->multipliers[0]);
    second = (int64_t)significant((uint64_t)(b < 0 ? -b : b) * (uint64_t)layer->multipliers[1]);
    total = (a < 0 ? -first : first) + (b < 0 ? -second : second);
    first = (int64_t)nearest(significant((uint64_t)(total < 0 ? -total : total)), layer->shift);
    return total < 0 ? -first : first;
}
"""

_ADD_LINE_BY_LINE = """\
/* The sum of two tensors: both terms have 20 bits more on their way to one scale. */
static int64_t sum_of_terms(const sum_layer *layer, int32_t a, int32_t b)
{
    a = scaled_line_by_line(a * ((int32_t)1 << 20), layer->multipliers[0], layer->shifts[0]);
    b = scaled_line_by_line(b * ((int32_t)1 << 20), layer->multipliers[1], layer->shifts[1]);
    return scaled_line_by_line(a + b, layer->multipliers[2], layer->shifts[2]);
}
"""

_SHARED_SHIFT, _EACH_SHIFT = "layer->shift", "layer->shifts[column]"
_SHARED_QUOTIENT = "(high + layer->offset) >> shift"
_EACH_QUOTIENT = "((high + ((int32_t)1 << (shift - 1))) >> shift) + layer->zero_point"
# Where ties of the shift go: what rounds it, short and line by line.
_AWAY = ("away from zero", "(int32_t)(product >> 31) - (sum < 0 ? 1 : 0)")
_UP = ("up again", "(int32_t)(product >> 31)")
_AWAY_LONG = "(value >> right) + ((value & mask) > (mask >> 1) + (value < 0 ? 1 : 0) ? 1 : 0)"
_UP_LONG = "(value + ((mask + 1) >> 1)) >> right"
_EXACT_SUMS = filled(_SUM_STRUCT, multipliers="int64_t multipliers[2]", shifts="shift, bits")
_LINE_SUMS = filled(_SUM_STRUCT, multipliers="int32_t multipliers[3]", shifts="shifts[3]")


def _twice(name: str, ties: str, high: str, rounded: str, whose: str) -> dict[str, Kernel]:
    """Return the kernels of a rounding of the product and of the shift each."""
    line = f"{name}_line_by_line"
    both = {"ties": ties, "high": high}
    return {
        name: Kernel(filled(_TWICE, shift=_SHARED_SHIFT, quotient=_SHARED_QUOTIENT, **both), ("dense_layer",)),
        f"{name}_each": Kernel(filled(_TWICE, shift=_EACH_SHIFT, quotient=_EACH_QUOTIENT, **both), ("dense_layer",)),
        **_long(name, Kernel(filled(_LINE_BY_LINE, whose=whose, rounded=rounded)), line),
    }


def _long(name: str, scaled: Kernel, line: str) -> dict[str, Kernel]:
    """Return the kernels that go line by line: of layers that the short ones do not fit, and of sums."""
    return {
        line: scaled,
        f"{name}_long": Kernel(_LONG, (line, "dense_layer")),
        f"{name}_sum": Kernel(_LINE_SUMS + "\n" + _ADD_LINE_BY_LINE, (line,)),
    }


ROUNDING_KERNELS = {
    "nearest": Kernel(_NEAREST),
    "excess": Kernel(_EXCESS),
    "significant": Kernel(_SIGNIFICANT, ("excess", "nearest")),
    "exact": Kernel(_EXACT, ("excess", "nearest")),
    "upper_half": Kernel(_UPPER_HALF),
    "dense_layer": Kernel(_DENSE_LAYER),
    "onnx": Kernel(_ONNX, ("exact", "upper_half", "dense_layer")),
    "onnx_each": Kernel(_ONNX_EACH, ("exact", "upper_half", "dense_layer")),
    "exact_sum": Kernel(_EXACT_SUMS + "\n" + _ADD_EXACTLY, ("significant",)),
    "tflite": Kernel(
        filled(_ONCE, shift=_SHARED_SHIFT, quotient="(upper + layer->offset) >> shift"), ("upper_half", "dense_layer")
    ),
    "tflite_each": Kernel(
        filled(
            _ONCE,
            shift=f"{_EACH_SHIFT} - 1",
            quotient="((upper + (((int32_t)1 << shift) >> 1)) >> shift) + layer->zero_point",
        ),
        ("upper_half", "dense_layer"),
    ),
    **_long("tflite", Kernel(_ONCE_LINE_BY_LINE), "tflite_line_by_line"),
    **_twice("gemmlowp", *_AWAY, _AWAY_LONG, "gemmlowp"),
    **_twice("ruy", *_UP, _UP_LONG, "LiteRT's optimised kernels"),
}
