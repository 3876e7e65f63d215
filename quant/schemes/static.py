"""Scheme "static": integers all the way, with scales and zero points of activations from calibration data.

Method: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"
(2018), section 2, with a scale for each output channel of the weights as in TFLite's int8 specification.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nbdense.network import Row
from nbdense.quant.layers.activations import (
    FIXED_OUTPUTS,
    Parameters,
    activation_parameters,
    activation_table,
    exponentials,
    is_clamp,
    table_parameters,
)
from nbdense.quant.layers.base import Range
from nbdense.quant.layers.checks import GRANULARITIES, INT32_MAX, LIMITS
from nbdense.quant.layers.float_layers import FloatLayer
from nbdense.quant.layers.integer_layers import (
    QuantizedActivation,
    QuantizedAdd,
    QuantizedDense,
    QuantizedFlatten,
    QuantizedSoftmax,
)
from nbdense.quant.schemes.options import Options
from nbdense.quant.schemes.scheme import SOFTMAX, Conversion, Converted, Scheme, Step, layers_in_float


def convert(conversion: Conversion, step: Step, bits: int, last: bool) -> Converted:
    """Make the integer layers of a step; normalisations and activations of whole rows stay in float.

    Parameters
    ----------
    conversion : Conversion
        That the layers are for.
    step : Step
        Of any kind.
    bits : int
        Of its weights; 0: it stays in float.
    last : bool
        Whether it is the last.
    """
    if step.kind in ("batch_norm", "layer_norm") or (step.kind == "dense" and not bits):
        return Converted(layers_in_float(conversion, step), _parameters(step.output, conversion.options))
    if step.kind == "dense":
        return _dense(conversion, step, bits, last)
    if step.row.activation.name == "softmax":
        place = conversion.place(step)
        in_float = last and conversion.options.softmax == "float" and place["inputs"] is None
        given = conversion.format_of(step.inputs[0])
        return Converted([], given, "softmax") if in_float else _softmax(conversion, step, given, place)
    if step.kind == "activation" and step.row.activation.rowwise:
        return Converted([_in_float(step, conversion.place(step))], _parameters(step.output, conversion.options))
    return _BY_KIND[step.kind](conversion, step)


def _parameters(bounds: Range, options: Options) -> Parameters:
    return activation_parameters(bounds, options.activation_dtype, options.symmetric)


def _dense(conversion: Conversion, step: Step, bits: int, last: bool) -> Converted:
    row, options, dtype = step.row, conversion.options, conversion.options.activation_dtype
    given = conversion.format_of(step.inputs[0])
    before = after = _parameters(step.pre, options)
    rowwise, table = row.activation.rowwise, None
    if not rowwise and not is_clamp(row.activation):
        before, after = table_parameters(row, step.pre, step.output, dtype, options.symmetric, conversion.settled)
        table = activation_table(row, before, after, dtype)
    kernel, scales = conversion.weights(step, given[0], bits)
    bias = conversion.bias(step, kernel.astype(np.float32) * scales, given)
    layer = QuantizedDense(
        kernel=kernel,
        kernel_scales=scales,
        bias=_bias_steps(bias, np.float32(given[0]) * scales, row),
        input_scale=given[0],
        input_zero_point=given[1],
        output_scale=after[0],
        output_zero_point=after[1],
        pre_scale=before[0],
        pre_zero_point=before[1],
        activation="linear" if rowwise else row.activation.name,
        table=table,
        granularity=options.granularity,
        alpha=row.activation.alpha,
        bits=bits,
        **conversion.place(step),
    )
    if not rowwise:
        return Converted([layer], after)
    behind = {"name": f"{row.name}{SOFTMAX}", "inputs": None, "positions": row.positions}
    if row.activation.name != "softmax":
        return Converted([layer, _in_float(step, behind)], _parameters(step.output, options))
    if last and options.softmax == "float":
        return Converted([layer], after, "softmax")
    ending = _softmax(conversion, step, after, behind)
    return Converted([layer, *ending.layers], ending.form)


def _bias_steps(bias: Any, scales: Any, row: Row) -> Any:
    """Round a bias to integers of the accumulator's scales."""
    steps = np.zeros(row.n_out) if bias is None else bias / scales
    if not np.abs(steps).max() <= INT32_MAX:
        raise ValueError(
            f"{row.label}: the scales of its input and weights are too far apart for float32, or its bias "
            "too large for them"
        )
    return np.rint(steps).astype(np.int32)


def _in_float(step: Step, place: dict[str, Any]) -> FloatLayer:
    """Make the layer of an activation of whole rows, which no table of 256 entries holds."""
    return FloatLayer(what="activation", n=step.row.n_out, activation=step.row.activation.name, **place)


def _softmax(conversion: Conversion, step: Step, given: Parameters, place: dict[str, Any]) -> Converted:
    low = LIMITS[conversion.options.activation_dtype][0]
    layer = QuantizedSoftmax(
        n=step.row.n_out,
        input_scale=given[0],
        input_zero_point=given[1],
        output_zero_point=low,
        exponentials=exponentials(given[0]),
        **place,
    )
    return Converted([layer], (QuantizedSoftmax.output_scale, low))


def _activation(conversion: Conversion, step: Step) -> Converted:
    row, options, dtype = step.row, conversion.options, conversion.options.activation_dtype
    before = conversion.format_of(step.inputs[0])
    fixed = FIXED_OUTPUTS.get(row.activation.name)
    after = (fixed[0], fixed[1][dtype]) if fixed else _parameters(step.output, options)
    layer = QuantizedActivation(
        n=row.n_in,
        input_scale=before[0],
        input_zero_point=before[1],
        output_scale=after[0],
        output_zero_point=after[1],
        table=activation_table(row, before, after, dtype),
        activation=row.activation.name,
        alpha=row.activation.alpha,
        **conversion.place(step),
    )
    return Converted([layer], after)


def _add(conversion: Conversion, step: Step) -> Converted:
    first, second = (conversion.format_of(source) for source in step.inputs)
    after = _parameters(step.output, conversion.options)
    layer = QuantizedAdd(
        n=step.row.n_in,
        input_scales=(first[0], second[0]),
        input_zero_points=(first[1], second[1]),
        output_scale=after[0],
        output_zero_point=after[1],
        activation=step.row.activation.name,
        alpha=step.row.activation.alpha,
        **conversion.place(step),
    )
    return Converted([layer], after)


def _flatten(conversion: Conversion, step: Step) -> Converted:
    scale, zero_point = conversion.format_of(step.inputs[0])
    layer = QuantizedFlatten(n=step.row.n_in, scale=scale, zero_point=zero_point, **conversion.place(step))
    return Converted([layer], (scale, zero_point))


_BY_KIND = {"activation": _activation, "add": _add, "flatten": _flatten}

STATIC = Scheme(
    "static",
    layers=(QuantizedDense, QuantizedAdd, QuantizedActivation, QuantizedSoftmax, QuantizedFlatten),
    granularities=GRANULARITIES,
    calibrates=True,
    trains=True,
    convert=convert,
)
