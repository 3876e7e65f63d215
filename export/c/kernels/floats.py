"""The C functions of float networks: layers, and an expression for each activation."""

from __future__ import annotations

from nbdense.export.c.kernels.kernel import Kernel

_DENSE = """\
typedef struct {
    const float *weights, *bias;
    int32_t n_in, n_out;
} float_dense_layer;

/* Four outputs at a time, whose weights lie beside each other; then those that are left. */
static NOINLINE void float_dense(const float_dense_layer *layer, const float *x, float *y)
{
    const float *w = layer->weights;
    const int32_t n_in = layer->n_in, n_out = layer->n_out;
    int32_t i, column;

    for (column = 0; column + 4 <= n_out; column += 4) {
        float a = layer->bias[column], b = layer->bias[column + 1];
        float c = layer->bias[column + 2], d = layer->bias[column + 3];

        for (i = 0; i < n_in; ++i, w += 4) {
            a += x[i] * w[0];
            b += x[i] * w[1];
            c += x[i] * w[2];
            d += x[i] * w[3];
        }
        y[column] = a;
        y[column + 1] = b;
        y[column + 2] = c;
        y[column + 3] = d;
    }
    for (; column < n_out; ++column) {
        float a = layer->bias[column];

        for (i = 0; i < n_in; ++i) {
            a += x[i] * *w++;
        }
        y[column] = a;
    }
}
"""

_ADD = """\
static void float_add(const float *a, const float *b, float *y, int32_t n)
{
    int32_t i;

    for (i = 0; i < n; ++i) {
        y[i] = a[i] + b[i];
    }
}
"""

_SCALE = """\
/* (x - mean) scale + shift, of each column. */
static void float_scale(const float *mean, const float *scale, const float *shift, const float *x, float *y, int32_t n)
{
    int32_t i;

    for (i = 0; i < n; ++i) {
        y[i] = (x[i] - mean[i]) * scale[i] + shift[i];
    }
}
"""

_NORMALISE = """\
/* Standardise a row, then scale and shift each column; without its mean where that is not taken off. */
static NOINLINE void float_normalise(const float *scale, const float *shift, float epsilon, int32_t centres,
                                     const float *x, float *y, int32_t n)
{
    float mean = 0.0f, square = 0.0f, inverse;
    int32_t i;

    for (i = 0; centres != 0 && i < n; ++i) {
        mean += x[i];
    }
    mean /= (float)n;
    for (i = 0; i < n; ++i) {
        square += (x[i] - mean) * (x[i] - mean);
    }
    inverse = 1.0f / sqrtf(square / (float)n + epsilon);
    for (i = 0; i < n; ++i) {
        y[i] = (x[i] - mean) * inverse * scale[i] + shift[i];
    }
}
"""

_SOFTMAX = """\
static void float_$name(const float *x, float *y, int32_t n)
{
    float most = x[0], total = 0.0f;
    int32_t i;

    for (i = 1; i < n; ++i) {
        most = x[i] > most ? x[i] : most;
    }
    for (i = 0; i < n; ++i) {
        $term
        total += $exp;
    }
    for (i = 0; i < n; ++i) {
        $last
    }
}
"""

# What an activation makes of z, with its parameters as p0, p1 and p2. expf of what is not above 0, so that nothing
# overflows on the way.
EXPRESSIONS = {
    "linear": "z",
    "relu": "z > 0.0f ? z : 0.0f",
    "sigmoid": "(z < 0.0f ? expf(z) : 1.0f) / (1.0f + expf(-fabsf(z)))",
    "tanh": "tanhf(z)",
    "relu6": "z < 0.0f ? 0.0f : z > p0 ? p0 : z",
    "leaky_relu": "z > 0.0f ? z : p0 * z",
    "elu": "z > 0.0f ? z : p0 * expm1f(z)",
    "selu": "z > 0.0f ? 1.05070099f * z : 1.75809934f * expm1f(z)",
    "gelu": "0.5f * z * erfcf(-0.707106781f * z)",
    "gelu_tanh": "z / (1.0f + expf(-1.59576912f * (z + 0.044715f * z * z * z)))",
    "silu": "z / (1.0f + expf(-z))",
    "hard_sigmoid": "z < -3.0f ? 0.0f : z > 3.0f ? 1.0f : (z + 3.0f) * 0.166666667f",
    "hard_swish": "z < -3.0f ? 0.0f : z > 3.0f ? z : z * ((z + 3.0f) * 0.166666667f)",
    "softplus": "(z > 0.0f ? z : 0.0f) + log1pf(expf(-fabsf(z)))",
    "mish": "z * tanhf((z > 0.0f ? z : 0.0f) + log1pf(expf(-fabsf(z))))",
    "softsign": "z / (1.0f + fabsf(z))",
    "exponential": "expf(z)",
    "celu": "z > 0.0f ? z : p0 * expm1f(z / p0)",
    "log_sigmoid": "(z < 0.0f ? z : 0.0f) - log1pf(expf(-fabsf(z)))",
    "hard_tanh": "z < p0 ? p0 : z > p1 ? p1 : z",
    "hard_shrink": "fabsf(z) <= p0 ? 0.0f : z",
    "soft_shrink": "z > p0 ? z - p0 : z < -p0 ? z + p0 : 0.0f",
    "tanh_shrink": "z - tanhf(z)",
    "squareplus": "(z > 0.0f ? z : 0.0f) + 0.5f * p0 / (sqrtf(z * z + p0) + fabsf(z))",
    "softplus_beta": "z * p0 > p1 ? z : ((z * p0 > 0.0f ? z * p0 : 0.0f) + log1pf(expf(-fabsf(z * p0)))) / p0",
    "sparse_plus": "z <= -1.0f ? 0.0f : z >= 1.0f ? z : 0.25f * (z + 1.0f) * (z + 1.0f)",
    "sparse_sigmoid": "z <= -1.0f ? 0.0f : z >= 1.0f ? 1.0f : 0.5f * (z + 1.0f)",
    "threshold": "z <= p0 ? p1 : z",
    "thresholded_relu": "z <= p0 ? p1 * (z - p0) : z > p2 ? p2 : z",
}
ROW_FUNCTIONS = ("softmax", "log_softmax")
_MATHEMATICS = ("expf", "fabsf", "tanhf", "expm1f", "erfcf", "log1pf", "sqrtf")


def _elementwise(name: str, expression: str) -> Kernel:
    parameters = "".join(f", float p{i}" for i in range(3) if f"p{i}" in expression)
    text = (
        f"static void float_{name}(const float *x, float *y, int32_t n{parameters})\n{{\n    int32_t i;\n\n"
        f"    for (i = 0; i < n; ++i) {{\n        const float z = x[i];\n\n        y[i] = {expression};\n    }}\n}}\n"
    )
    return Kernel(text, (), ("math.h",) if any(function in expression for function in _MATHEMATICS) else ())


def _rowwise(name: str, term: str, exp: str, last: str) -> Kernel:
    text = _SOFTMAX
    for place, part in {"$name": name, "$term": term, "$exp": exp, "$last": last}.items():
        text = text.replace(place, part)
    return Kernel(text, (), ("math.h",))


FLOAT_KERNELS = {
    "float_dense": Kernel(_DENSE),
    "float_add": Kernel(_ADD),
    "float_scale": Kernel(_SCALE),
    "float_normalise": Kernel(_NORMALISE, (), ("math.h",)),
    "float_softmax": _rowwise("softmax", "y[i] = expf(x[i] - most);", "y[i]", "y[i] /= total;"),
    "float_log_softmax": _rowwise("log_softmax", "y[i] = x[i] - most;", "expf(y[i])", "y[i] -= logf(total);"),
    **{f"float_{name}": _elementwise(name, expression) for name, expression in EXPRESSIONS.items()},
}
