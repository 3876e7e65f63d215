"""C: dense layers as calls of CMSIS-NN."""

from __future__ import annotations

from nbdense.export.c.kernels.kernel import Kernel

_DENSE = """\
#if$other_rounding CMSIS_NN_USE_SINGLE_ROUNDING
#error "CMSIS-NN has to be built $with CMSIS_NN_USE_SINGLE_ROUNDING, as this source has, for integers to be the model's"
#endif

typedef struct {
    const int8_t *weights;
    const int32_t *bias, *multipliers, *shifts;
    int32_t rows, n_in, n_out, zero_point, low, high;
} fully_connected_layer;

/* The zero point of the input is in the bias, which so is what Helium's code takes for its sums of weights, too. */
static NOINLINE int dense_by_cmsis_nn(const fully_connected_layer *layer, const int8_t *x, int8_t *y)
{
    const cmsis_nn_context context = {
        .buf = (void *)layer->bias, .size = layer->n_out * (int32_t)sizeof(int32_t)
    };
    const cmsis_nn_fc_params parameters = {
        .output_offset = layer->zero_point, .activation = {.min = layer->low, .max = layer->high}
    };
    const cmsis_nn_per_channel_quant_params scales = {
        .multiplier = (int32_t *)layer->multipliers, .shift = (int32_t *)layer->shifts
    };
    const cmsis_nn_dims input = {.n = layer->rows, .h = 1, .w = 1, .c = layer->n_in};
    const cmsis_nn_dims filter = {.n = layer->n_in, .h = 1, .w = 1, .c = layer->n_out};
    const cmsis_nn_dims bias = {.n = 1, .h = 1, .w = 1, .c = layer->n_out};
    const cmsis_nn_dims output = {.n = layer->rows, .h = 1, .w = 1, .c = layer->n_out};

    return arm_fully_connected_per_channel_s8(&context, &parameters, &scales, &input, x, &filter, layer->weights,
                                              &bias, layer->bias, &output, y);
}
"""

CMSIS_NN_KERNELS = {"dense_by_cmsis_nn": Kernel(_DENSE, (), ("arm_nnfunctions.h",), fails=True)}
