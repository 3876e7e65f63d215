"""Scheme "static": integers all the way, with scales and zero points of activations from calibration data.

Method: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"
(2018), section 2, with a scale for each output channel of the weights as in TFLite's int8 specification.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nbdense.engine.rows import ACTIVATION, ADD, DENSE, RESHAPE
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
    """Make the integer layers of a step; what has none stays in float.

    Parameters
    ----------
    conversion : Conversion
        The conversion that the layers are for.
    step : Step
        A step of any kind.
    bits : int
        Bits of its weights; 0: it stays in float.
    last : bool
        Whether it is the last.
    """
    if step.row.kind is DENSE and bits:
        return _dense(conversion, step, bits, last)
    if not _has_integers(step.row):
        return Converted(layers_in_float(conversion, step), _parameters(step.output, conversion.options))
    if step.row.activation.name == "softmax":
        place = conversion.place(step)
        in_float = last and conversion.options.softmax == "float" and place["inputs"] is None
        form = conversion.format_of(step.inputs[0])
        return Converted([], form, "softmax") if in_float else _softmax(conversion, step, form, place)
    return _OF_KIND[step.row.kind](conversion, step)


def _has_integers(row: Row) -> bool:
    """Tell whether a row has an integer form; no table of 256 entries holds an activation of whole rows."""
    return row.kind in _OF_KIND and (not row.activation.rowwise or row.activation.name == "softmax")


def _parameters(bounds: Range, options: Options) -> Parameters:
    return activation_parameters(bounds, options.activation_dtype, options.symmetric)


def _dense(conversion: Conversion, step: Step, bits: int, last: bool) -> Converted:
    row, options, dtype = step.row, conversion.options, conversion.options.activation_dtype
    source = conversion.format_of(step.inputs[0])
    pre = output = _parameters(step.pre, options)
    rowwise, table = row.activation.rowwise, None
    if not rowwise and not is_clamp(row.activation):
        pre, output = table_parameters(row, step.pre, step.output, dtype, options.symmetric, conversion.settled)
        table = activation_table(row, pre, output, dtype)
    kernel, scales = conversion.weights(step, source[0], bits)
    bias = conversion.bias(step, kernel.astype(np.float32) * scales, source)
    layer = QuantizedDense(
        kernel=kernel,
        kernel_scales=scales,
        bias=_bias_steps(bias, np.float32(source[0]) * scales, row),
        input_scale=source[0],
        input_zero_point=source[1],
        output_scale=output[0],
        output_zero_point=output[1],
        pre_scale=pre[0],
        pre_zero_point=pre[1],
        activation="linear" if rowwise else row.activation.name,
        table=table,
        granularity=options.granularity,
        alpha=row.activation.alpha,
        bits=bits,
        **conversion.place(step),
    )
    if not rowwise:
        return Converted([layer], output)
    behind: dict[str, Any] = {"name": f"{row.name}{SOFTMAX}", "inputs": None, "positions": row.positions}
    if row.activation.name != "softmax":
        in_float = FloatLayer(what="activation", n=row.n_out, activation=row.activation.name, **behind)
        return Converted([layer, in_float], _parameters(step.output, options))
    if last and options.softmax == "float":
        return Converted([layer], output, "softmax")
    ending = _softmax(conversion, step, output, behind)
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


def _softmax(conversion: Conversion, step: Step, source: Parameters, place: dict[str, Any]) -> Converted:
    low = LIMITS[conversion.options.activation_dtype][0]
    layer = QuantizedSoftmax(
        n=step.row.n_out,
        input_scale=source[0],
        input_zero_point=source[1],
        output_zero_point=low,
        exponentials=exponentials(source[0]),
        **place,
    )
    return Converted([layer], (QuantizedSoftmax.output_scale, low))


def _activation(conversion: Conversion, step: Step) -> Converted:
    row, options, dtype = step.row, conversion.options, conversion.options.activation_dtype
    source = conversion.format_of(step.inputs[0])
    fixed = FIXED_OUTPUTS.get(row.activation.name)
    output = (fixed[0], fixed[1][dtype]) if fixed else _parameters(step.output, options)
    layer = QuantizedActivation(
        n=row.n_in,
        input_scale=source[0],
        input_zero_point=source[1],
        output_scale=output[0],
        output_zero_point=output[1],
        table=activation_table(row, source, output, dtype),
        activation=row.activation.name,
        alpha=row.activation.alpha,
        **conversion.place(step),
    )
    return Converted([layer], output)


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


_OF_KIND = {ACTIVATION: _activation, ADD: _add, RESHAPE: _flatten}

STATIC = Scheme(
    "static",
    title="a quantized model",
    layers=(QuantizedDense, QuantizedAdd, QuantizedActivation, QuantizedSoftmax, QuantizedFlatten),
    granularities=GRANULARITIES,
    calibrates=True,
    trains=True,
    convert=convert,
)
