"""C: the layers of integer networks, and the ends where numbers are real."""

from __future__ import annotations

from nbdense.export.c.kernels.kernel import Kernel, filled

_ROWS = """\
static NOINLINE void @NAME(const dense_layer *layer, const $value *x, $value *y)
{
    const int8_t *w = layer->weights;
    const int32_t n_in = layer->n_in;
    int32_t column;

    for (column = 0; column < layer->n_out; ++column) {
        @SUM
        y[column] = requantised(layer, column, sum);
    }
}
"""

_SUM = """\
int32_t sum = layer->bias[column];
        int32_t i;

        for (i = 0; i < n_in; ++i) {
            sum += (int32_t)x[i] * w[i];
        }
        w += n_in;"""

# A byte's upper nibble, with zeros below, is 16 times a weight; so is the lower one, shifted up.
_SUM_OF_NIBBLES = """\
int32_t sum = 0;
        int32_t i;

        for (i = 0; i < n_in; i += 2) {
            const uint8_t pair = (uint8_t)*w++;

            sum += (int32_t)x[i] * (int8_t)(uint8_t)(pair << 4);
            if (i + 1 < n_in) {
                sum += (int32_t)x[i + 1] * (int8_t)(pair & 0xF0u);
            }
        }
        sum = layer->bias[column] + (sum >> 4);"""

_SUMS = """\
/* Sum the products of n inputs with weights that lie by input, four outputs beside each other. */
static const int8_t *four_sums(const $value *x, const int8_t *w, int32_t n, int32_t *sums)
{
    const $value *const end = x + n;
    int32_t a = 0, b = 0, c = 0, d = 0;

@BLOCKS    for (; x != end; ++x, w += 4) {
        a += (int32_t)*x * w[0];
        b += (int32_t)*x * w[1];
        c += (int32_t)*x * w[2];
        d += (int32_t)*x * w[3];
    }
    sums[0] = a;
    sums[1] = b;
    sums[2] = c;
    sums[3] = d;
    return w;
}
"""


# 42 instructions for 32 products, of which 32 widen weights and multiply. A block's bytes are four weights of each of
# four outputs, in the order of the inputs; both sides come apart as bytes 1 and 3, and 0 and 2.
def _four_inputs() -> str:
    lines = ["ldr %[even], [%[x]], #4", "${widen} %[odd], %[even], ror #8", "${widen} %[even], %[even]"]
    for pair in ("ab", "cd"):
        lines.append("ldrd %[u], %[v], [%[w]], #8")
        for word, total in zip("uv", pair, strict=True):
            lines += [
                f"sxtb16 %[t], %[{word}], ror #8",
                f"sxtb16 %[{word}], %[{word}]",
                f"smlad %[{total}], %[t], %[odd], %[{total}]",
                f"smlad %[{total}], %[{word}], %[even], %[{total}]",
            ]
    return "".join(f'            "{line}\\n\\t"\n' for line in lines)


_BLOCKS = """\
    /* Eight inputs at a time, in blocks of four: four weights of each output. */
    const $value *const whole = x + (n & ~(int32_t)7);

#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__) && defined(__GNUC__)
    if (x != whole) {
        int32_t even, odd, u, v, t;

        __asm__ volatile(
            "1:\\n\\t"
@FOUR_INPUTS            "cmp %[x], %[whole]\\n\\t"
            "bne 1b"
            : [x] "+r"(x), [w] "+r"(w), [a] "+r"(a), [b] "+r"(b), [c] "+r"(c), [d] "+r"(d),
              [even] "=&r"(even), [odd] "=&r"(odd), [u] "=&r"(u), [v] "=&r"(v), [t] "=&r"(t)
            : [whole] "r"(whole)
            : "cc", "memory");
    }
#else
    for (; x != whole; x += 4, w += 16) {
        int32_t i;

        for (i = 0; i < 4; ++i) {
            a += (int32_t)x[i] * w[i];
            b += (int32_t)x[i] * w[i + 4];
            c += (int32_t)x[i] * w[i + 8];
            d += (int32_t)x[i] * w[i + 12];
        }
    }
#endif
""".replace("@FOUR_INPUTS", 2 * _four_inputs())


_FOURS = """\
/* Sum the products of n inputs with weights of four outputs that make a word, 128 more in its lower three bytes. A
   product with a word shifted right is a product with one byte, and 256 times that with the word shifted once more. */
static const int8_t *four_sums(const $value *x, const int8_t *w, int32_t n, uint32_t too_much, int32_t *sums)
{
    uint32_t a = 0, b = 0, c = 0, d = 0;

#if defined(__ARM_ARCH_6M__) && defined(__GNUC__)
    const $value *const end = x + n;
    int32_t i = -n;
    uint32_t input, word, product;

    __asm__ volatile(
        ".syntax unified\\n\\t"
        "1:\\n\\t"
        "${load} %[input], [%[end], %[i]]\\n\\t"
        "ldmia %[w]!, {%[word]}\\n\\t"
        "movs %[product], %[word]\\n\\t"
        "muls %[product], %[input], %[product]\\n\\t"
        "add %[a], %[product]\\n\\t"
        "asrs %[product], %[word], #8\\n\\t"
        "muls %[product], %[input], %[product]\\n\\t"
        "add %[b], %[product]\\n\\t"
        "asrs %[product], %[word], #16\\n\\t"
        "muls %[product], %[input], %[product]\\n\\t"
        "add %[c], %[product]\\n\\t"
        "asrs %[word], %[word], #24\\n\\t"
        "muls %[word], %[input], %[word]\\n\\t"
        "add %[d], %[word]\\n\\t"
        "adds %[i], #1\\n\\t"
        "bne 1b"
        : [w] "+l"(w), [i] "+l"(i), [a] "+h"(a), [b] "+h"(b), [c] "+h"(c), [d] "+h"(d),
          [input] "=&l"(input), [word] "=&l"(word), [product] "=&l"(product)
        : [end] "l"(end)
        : "cc", "memory");
    a -= b << 8;
    b -= c << 8;
    c -= d << 8;
#else
    int32_t i;

    for (i = 0; i < n; ++i, w += 4) {
        a += (uint32_t)((int32_t)x[i] * (uint8_t)w[0]);
        b += (uint32_t)((int32_t)x[i] * (uint8_t)w[1]);
        c += (uint32_t)((int32_t)x[i] * (uint8_t)w[2]);
        d += (uint32_t)((int32_t)x[i] * w[3]);
    }
#endif
    sums[0] = (int32_t)(a - too_much);
    sums[1] = (int32_t)(b - too_much);
    sums[2] = (int32_t)(c - too_much);
    sums[3] = (int32_t)d;
    return w;
}
"""

# Sizes are read where they are needed: kept, they would lie on the stack.
_GROUPS = """\
/* Four outputs at a time@AND_REST. */
static NOINLINE void dense(const dense_layer *layer, const $value *x, $value *y)
{
    const int8_t *w = layer->weights;
    int32_t column = 0, i;
@BEFORE
    while (column < layer->n_out) {
        int32_t sums[4];
        int32_t end = column + 4;

@FOUR        for (i = 0; column < end; ++column, ++i) {
            y[column] = requantised(layer, column, layer->bias[column] + sums[i]);
        }
    }
}
"""

_FOUR = """\
        w = four_sums(x, w, layer->n_in@LESS, sums);
"""

_FOUR_OR_ONE = """\
        if (end <= layer->n_out) {
            w = four_sums(x, w, layer->n_in@LESS, sums);
        } else {
            end = column + 1;
            sums[0] = 0;
            for (i = 0; i < layer->n_in; ++i) {
                sums[0] += (int32_t)x[i] * *w++;
            }
        }
"""

_ADD = """\
static NOINLINE void add(const sum_layer *layer, const $value *a, const $value *b, $value *y)
{
    int32_t i;

    for (i = 0; i < layer->n; ++i) {
        int64_t q = sum_of_terms(layer, a[i] - layer->zero_point_a, b[i] - layer->zero_point_b) + layer->zero_point;

        q = q < layer->low ? layer->low : q > layer->high ? layer->high : q;
        y[i] = ($value)q;
    }
}
"""

_LOOK_UP = """\
static NOINLINE void look_up(const $value *table, const $value *x, $value *y, int32_t n)
{
    int32_t i;

    for (i = 0; i < n; ++i) {
        y[i] = table[x[i]$from_least];
    }
}
"""

_SOFTMAX = """\
/* exp by a table of what comes after the largest, in 23 bits; one division, to nearest. */
static NOINLINE void softmax(const int32_t *exponentials, const $value *x, $value *y, int32_t n)
{
    uint64_t total = 0;
    $value most = x[0];
    int32_t i;

    for (i = 1; i < n; ++i) {
        most = x[i] > most ? x[i] : most;
    }
    for (i = 0; i < n; ++i) {
        total += (uint64_t)exponentials[most - x[i]];
    }
    for (i = 0; i < n; ++i) {
        const uint64_t q = (512u * (uint64_t)exponentials[most - x[i]] + total) / (2u * total);

        y[i] = ($value)((int32_t)(q > 255u ? 255u : q)$to_least);
    }
}
"""

_QUANTIZED = """\
/* x / scale to the nearest integer, half to even: ONNX's QuantizeLinear. A NaN is taken as zero. */
static $value quantized(float x)
{
    union {
        float number;
        uint32_t bits;
    } ratio;
    uint32_t bits, exponent;
    int32_t q;

    ratio.number = x / ${NAME}_INPUT_SCALE;
    bits = ratio.bits;
    exponent = bits >> 23 & 255u;
    if (exponent == 255u && (bits & 0x7FFFFFu) != 0) {
        q = 0;
    } else if (exponent > 136u) {
        q = 1024; /* or more */
    } else if (exponent < 120u) {
        q = 0;
    } else {
        q = (int32_t)nearest((bits & 0x7FFFFFu) | 0x800000u, (int)(150u - exponent));
    }
    q = (bits >> 31 != 0 ? -q : q) + ${NAME}_INPUT_ZERO_POINT;
    return ($value)(q < $least ? $least : q > $most ? $most : q);
}
"""

_EXPONENTIAL = """\
/* exp of what is not above 0. */
static float exponential(float x)
{
    const int32_t n = x < -87.0f ? 0 : (int32_t)(x * 1.44269504f - 0.5f);
    const float r = (x - (float)n * 0.693359375f) + (float)n * 2.12194440e-4f;
    union {
        uint32_t bits;
        float number;
    } power;

    power.bits = (uint32_t)(n + 127) << 23;
    return x < -87.0f ? 0.0f
                      : power.number * (1.0f + r + r * r * (0.5f + r * (1.66666667e-1f + r * (4.16666667e-2f + r *
                                (8.33333333e-3f + r * (1.38888889e-3f + r * 1.98412698e-4f))))));
}
"""

_PROBABILITIES = """\
static void probabilities(float *y, int32_t n)
{
    float most = y[0], total = 0.0f;
    int32_t i;

    for (i = 1; i < n; ++i) {
        most = y[i] > most ? y[i] : most;
    }
    for (i = 0; i < n; ++i) {
        y[i] = exponential(y[i] - most);
        total += y[i];
    }
    for (i = 0; i < n; ++i) {
        y[i] /= total;
    }
}
"""
# What words of weights have too much: 128 in three of four bytes, times the sum of all inputs.
_BEFORE = """\
    int32_t total = 0;

    for (i = 0; i < layer->n_in; ++i) {
        total += x[i];
    }"""


def _groups(sums: str, *, rest: bool) -> Kernel:
    words = sums == "sums_of_words"
    four = filled(_FOUR_OR_ONE if rest else _FOUR, less=", (uint32_t)total * 128u" if words else "")
    before, title = _BEFORE if words else "", ", then those that are left" if rest else ""
    return Kernel(filled(_GROUPS, and_rest=title, before=before, four=four), (sums,))


INTEGER_KERNELS = {
    "dense_by_rows": Kernel(filled(_ROWS, name="dense_by_rows", sum=_SUM)),
    "dense_of_nibbles": Kernel(filled(_ROWS, name="dense_of_nibbles", sum=_SUM_OF_NIBBLES)),
    "sums_of_words": Kernel(_FOURS),
    "sums_of_blocks": Kernel(filled(_SUMS, blocks=_BLOCKS)),
    "dense_of_words": _groups("sums_of_words", rest=False),
    "dense_of_words_and_rest": _groups("sums_of_words", rest=True),
    "dense_of_blocks": _groups("sums_of_blocks", rest=False),
    "dense_of_blocks_and_rest": _groups("sums_of_blocks", rest=True),
    "add": Kernel(_ADD),
    "look_up": Kernel(_LOOK_UP),
    "softmax": Kernel(_SOFTMAX),
    "quantized": Kernel(_QUANTIZED, ("nearest",)),
    "exponential": Kernel(_EXPONENTIAL),
    "probabilities": Kernel(_PROBABILITIES, ("exponential",)),
}
