/* A stand-in for CMSIS-NN's fully connected layer of int8 with a scale a channel, by its documentation.

   WITH_SUMS: as its code for Helium, which takes what the context holds for each output instead of bias and offset.
   FAILS: it reports an error. */
#include "arm_nnfunctions.h"

#include <stdlib.h>

/* value * multiplier * 2^(shift - 31): rounded once, ties up, or the product (ties up) and the shift (ties away). */
static int64_t rescaled(int64_t value, int64_t multiplier, int shift)
{
#ifdef CMSIS_NN_USE_SINGLE_ROUNDING
    const int64_t floored = (value * multiplier) >> (30 - shift);

    if (floored != (int32_t)floored) {
        abort(); /* it keeps this in 32 bits */
    }
    return (floored + 1) >> 1;
#else
    const int64_t moved = value * ((int64_t)1 << (shift > 0 ? shift : 0));
    const int64_t high = (moved * multiplier + ((int64_t)1 << 30)) >> 31;
    const int64_t divisor = (int64_t)1 << (shift < 0 ? -shift : 0);
    const int64_t size = ((high < 0 ? -high : high) * 2 + divisor) / (2 * divisor);

    if (moved != (int32_t)moved || shift < -30) {
        abort();
    }
    return high < 0 ? -size : size;
#endif
}

arm_cmsis_nn_status arm_fully_connected_per_channel_s8(
    const cmsis_nn_context *ctx, const cmsis_nn_fc_params *fc_params,
    const cmsis_nn_per_channel_quant_params *quant_params, const cmsis_nn_dims *input_dims, const int8_t *input_data,
    const cmsis_nn_dims *filter_dims, const int8_t *filter_data, const cmsis_nn_dims *bias_dims,
    const int32_t *bias_data, const cmsis_nn_dims *output_dims, int8_t *output_data)
{
    const int32_t depth = filter_dims->n, columns = output_dims->c;

#ifdef FAILS
    return ARM_CMSIS_NN_ARG_ERROR;
#endif
    if (ctx->buf == NULL || ctx->size < 4 * columns || filter_dims->c != columns || bias_dims->c != columns
        || input_dims->n != output_dims->n || input_dims->c != depth || fc_params->filter_offset != 0) {
        return ARM_CMSIS_NN_ARG_ERROR;
    }
    for (int32_t row = 0; row < input_dims->n; ++row) {
        for (int32_t column = 0; column < columns; ++column) {
            int64_t sum = bias_data[column];
            int32_t offset = fc_params->input_offset;

#ifdef WITH_SUMS
            sum = ((const int32_t *)ctx->buf)[column];
            offset = 0;
#endif
            for (int32_t i = 0; i < depth; ++i) {
                sum += (int64_t)(input_data[row * depth + i] + offset) * filter_data[column * depth + i];
            }
            if (sum != (int32_t)sum) {
                abort();
            }
            sum = rescaled(sum, quant_params->multiplier[column], quant_params->shift[column]);
            sum += fc_params->output_offset;
            sum = sum < fc_params->activation.min ? fc_params->activation.min : sum;
            output_data[row * columns + column] =
                (int8_t)(sum > fc_params->activation.max ? fc_params->activation.max : sum);
        }
    }
    return ARM_CMSIS_NN_SUCCESS;
}
