"""C: dense layers whose kernels are held without their zeros; see `nbdense.export.c.steps.sparse`."""

from __future__ import annotations

from nbdense.export.c.kernels.kernel import Kernel, filled

WIDTHS = (1, 4)  # outputs of a block of weights

_INTEGERS = """\
/* Of each block of weights comes how many inputs it lies behind the last. */
static NOINLINE void sparse_of_@WIDTH(const dense_layer *layer, const $value *x, $value *y)
{
    const int8_t *w = layer->weights;
    const uint8_t *gaps = layer->gaps;
    const uint16_t *counts = layer->counts;
    int32_t column = 0;

    while (column < layer->n_out) {
        const $value *input = x;
        int32_t left = *counts++;
        int32_t @ZEROS;

        for (; left != 0; --left, w += @WIDTH) {
            input += *gaps++;
@PRODUCTS        }
@OUTPUTS    }
}
"""

_ONE = """\
        y[column] = requantised(layer, column, layer->bias[column] + a);
        ++column;
"""

_SOME = """\
        {
            const int32_t sums[@WIDTH] = {@SUMS};
            int32_t i;

            for (i = 0; i < @WIDTH && column < layer->n_out; ++i, ++column) {
                y[column] = requantised(layer, column, layer->bias[column] + sums[i]);
            }
        }
"""

_FLOAT_LAYER = """\
typedef struct {
    const float *weights, *bias;
    const uint8_t *gaps;
    const uint16_t *counts;
    int32_t n_out;
} float_sparse_layer;
"""

# Sums begin with the bias, and go by input, as those of a kernel with its zeros.
_FLOATS = """\
/* Of each block of weights comes how many inputs it lies behind the last. */
static NOINLINE void float_sparse_of_@WIDTH(const float_sparse_layer *layer, const float *x, float *y)
{
    const float *w = layer->weights, *bias = layer->bias;
    const uint8_t *gaps = layer->gaps;
    const uint16_t *counts = layer->counts;
    float *const end = y + layer->n_out;

    for (; y < end; bias += @WIDTH) {
        const float *input = x;
        int32_t left = *counts++;
        float @BIASES;

        for (; left != 0; --left, w += @WIDTH) {
            input += *gaps++;
@PRODUCTS        }
@OUTPUTS    }
}
"""

_FLOAT_SOME = """\
        {
            const float sums[@WIDTH] = {@SUMS};
            int32_t i;

            for (i = 0; i < @WIDTH && y < end; ++i) {
                *y++ = sums[i];
            }
        }
"""


def _written(text: str, width: int, one: str, some: str, product: str) -> str:
    """Return the text of a function for blocks of a width."""
    names = "abcd"[:width]
    return filled(
        filled(text, outputs=one if width == 1 else some),
        products="".join(f"            {name} += {product}w[{i}];\n" for i, name in enumerate(names)),
        zeros=", ".join(f"{name} = 0" for name in names),
        biases=", ".join(f"{name} = bias[{i}]" for i, name in enumerate(names)),
        sums=", ".join(names),
        width=str(width),
    )


SPARSE_KERNELS = {
    "float_sparse_layer": Kernel(_FLOAT_LAYER),
    **{f"sparse_of_{width}": Kernel(_written(_INTEGERS, width, _ONE, _SOME, "(int32_t)*input * ")) for width in WIDTHS},
    **{
        f"float_sparse_of_{width}": Kernel(
            _written(_FLOATS, width, "        *y++ = a;\n", _FLOAT_SOME, "*input * "), ("float_sparse_layer",)
        )
        for width in WIDTHS
    },
}
