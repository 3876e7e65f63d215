"""Static int8 quantization: ranges from calibration data, scales from ranges, integers from scales.

Method: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"
(2018), section 2, with a scale for each output channel of the weights as in TFLite's int8 specification.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.activations import CUSTOM
from nbdense.network import LAYER, Network, Row
from nbdense.quant import kernels
from nbdense.quant.calibration import Range, calibrate, check_chain, is_bare
from nbdense.quant.checks import WEIGHT_LIMIT
from nbdense.quant.model import QuantizedModel
from nbdense.quant.network import GRANULARITIES, LIMITS, ROUNDINGS, QuantizedDense, QuantizedNetwork

# TFLite's int8 specification: what these give has one scale, and the zero point of (int8, uint8) beside it.
FIXED_OUTPUTS: dict[str, tuple[float, dict[str, int]]] = {
    "sigmoid": (1 / 256, {"int8": -128, "uint8": 0}),
    "tanh": (1 / 128, {"int8": 0, "uint8": 128}),
}
_SMALLEST = float(np.finfo(np.float32).tiny)  # the least scale that has all its digits
_FINE = 2.0**24  # steps of a bias where nothing else asks for a scale
_ROOM = 2.0**30  # steps of a bias at most: half of int32 is left to the products

Parameters = tuple[float, int]


def quantize(
    model: Any,
    calibration: Any = None,
    *,
    scheme: str = "static",
    bits: int = 8,
    granularity: str = "per_channel",
    range_method: str = "minmax",
    activation_dtype: str = "int8",
    rounding: str = "onnx",
) -> QuantizedModel:
    """Turn a trained model into integers.

    Weights become int8 in [-127, 127], symmetric about 0; activations int8 or uint8 with one scale and zero point a
    tensor, over the range that the calibration data gives, widened to hold 0; biases int32. Sigmoid and tanh
    become tables of 256 entries; a softmax at the end stays in float.

    Parameters
    ----------
    model : Sequential or Network
        The trained float model; not changed.
    calibration : array-like, (rows, n_in)
        Inputs as they will come in use, a few hundred rows.
    scheme : str
        "static".
    bits : int
        Of the weights: 8.
    granularity : str
        "per_channel": a weight scale for each output column; "per_tensor": one for each kernel.
    range_method : str
        "minmax": ranges hold every calibration value.
    activation_dtype : str
        "int8" or "uint8".
    rounding : str
        How accumulators are requantised: "onnx", as onnxruntime does, or "tflite", as TFLite's reference kernels do.

    Returns
    -------
    QuantizedModel

    Raises
    ------
    ValueError
        For an option that there is not, calibration data that is missing, empty, of the wrong width or not
        finite, or a layer that cannot be quantized: the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from nbdense.layers import Dense, Input
    >>> from nbdense.models import Sequential
    >>> model = Sequential([Input((4,)), Dense(8, activation="relu"), Dense(3, activation="softmax")])
    >>> x = np.random.default_rng(0).normal(size=(100, 4))
    >>> q = quantize(model, x)
    >>> q.network.layers[0].kernel.dtype, q.size_bytes
    (dtype('int8'), 144)
    >>> bool(np.abs(q.predict(x) - model.predict(x)).max() < 0.05)
    True
    """
    for option, value, available in [
        ("scheme", scheme, ("static",)),
        ("bits", bits, (8,)),
        ("granularity", granularity, GRANULARITIES),
        ("range_method", range_method, ("minmax",)),
        ("activation_dtype", activation_dtype, tuple(LIMITS)),
        ("rounding", rounding, ROUNDINGS),
    ]:
        if value not in available:
            raise ValueError(f"quantize: {option} must be {' or '.join(map(repr, available))}, got {value!r}")
    network: Network = getattr(model, "network", model)
    if not isinstance(network, Network):
        raise ValueError(f"quantize: expected a built model or a Network, got {type(model).__name__}")
    if calibration is None:
        raise ValueError("quantize: scheme 'static' needs calibration data")
    check_chain(network)
    ranges = calibrate(network, calibration)
    given = activation_parameters(ranges.input, activation_dtype)
    layers = []
    for row, pre, output in zip(network.dense_rows("quantize"), ranges.pre, ranges.output, strict=True):
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # QuantizedNetwork refuses what comes of it
            layer = _quantize_dense(row, given, pre, output, activation_dtype, granularity)
        layers.append(layer)
        given = (layer.output_scale, layer.output_zero_point)
    softmax = row.activation.name == "softmax"
    return QuantizedModel(QuantizedNetwork(layers, activation_dtype, rounding, "softmax" if softmax else "linear"))


def _quantize_dense(
    row: Row, given: Parameters, pre: Range, output: Range, dtype: str, granularity: str
) -> QuantizedDense:
    name = row.activation.name
    table = None
    if not is_bare(row.activation) or name == "softmax":
        name = "linear" if name == "softmax" else name
        before = after = activation_parameters(pre, dtype)
    else:
        if name in FIXED_OUTPUTS:
            after = FIXED_OUTPUTS[name][0], FIXED_OUTPUTS[name][1][dtype]
        else:
            after = activation_parameters(output, dtype)
        before = activation_parameters(_without_flat_ends(row, pre, after, dtype), dtype)
        table = activation_table(row, before, after, dtype)
    bias = np.zeros(row.n_out) if row.bias is None else row.bias.astype(np.float64)
    scales = weight_scales(row.kernel, bias, given[0], granularity)
    steps = np.float32(given[0]) * scales
    return QuantizedDense(
        name=row.name,
        kernel=np.clip(np.rint(row.kernel.astype(np.float32) / scales), -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8),
        kernel_scales=scales,
        bias=np.rint(bias / steps).astype(np.int32),
        input_scale=given[0],
        input_zero_point=given[1],
        output_scale=after[0],
        output_zero_point=after[1],
        pre_scale=before[0],
        pre_zero_point=before[1],
        activation=name,
        table=table,
        granularity=granularity,
        alpha=row.alpha,
    )


def activation_parameters(bounds: Range, dtype: str) -> Parameters:
    """Scale and zero point for values within bounds, which are first widened to hold 0.

    Parameters
    ----------
    bounds : (float, float)
        Least and greatest value. Where both are 0 (dead units, constant data) nothing is known: [0, 1] is taken.
    dtype : str
        "int8" or "uint8".

    Returns
    -------
    (float, int)
        The scale, a float32 number, and the zero point.
    """
    least, most = LIMITS[dtype]
    low, high = min(float(np.float32(bounds[0])), 0.0), max(float(np.float32(bounds[1])), 0.0)
    scale = float(np.float32((high - low) / (most - least)))
    if scale < _SMALLEST:
        low, scale = 0.0, float(np.float32(1 / (most - least)))
    return scale, int(np.clip(np.rint(least - low / scale), least, most))


def weight_scales(
    kernel: npt.NDArray[Any], bias: npt.NDArray[Any], input_scale: float, granularity: str
) -> npt.NDArray[np.float32]:
    """Scale of each output column: its largest weight at 127, or coarser where the bias would not fit int32.

    Parameters
    ----------
    kernel : ndarray, (n_in, n_out)
        Float weights.
    bias : ndarray, (n_out,)
        Float biases, which get the scale ``input_scale * scale``.
    input_scale : float
        Of the layer's input.
    granularity : str
        "per_channel" or "per_tensor".

    Returns
    -------
    ndarray of float32, (n_out,)
        Where all weights are 0 the bias alone sets the scale, so that it keeps its digits.
    """
    largest = np.abs(kernel).max(axis=0).astype(np.float32) / np.float32(WEIGHT_LIMIT)
    size = np.abs(bias) / input_scale
    least = np.maximum(size / _ROOM, max(_SMALLEST / input_scale, _SMALLEST)).astype(np.float32)
    alone = np.where(bias == 0, 1.0, size / _FINE).astype(np.float32)
    if granularity == "per_tensor":
        largest = np.full_like(largest, largest.max())
        alone, least = np.full_like(alone, alone.max()), np.full_like(least, least.max())
    return np.maximum(np.where(largest == 0, alone, largest), np.nextafter(least, np.float32(np.inf)))


def activation_table(row: Row, before: Parameters, after: Parameters, dtype: str) -> npt.NDArray[Any]:
    """The activation for each of the 256 integers before it, as integers after it.

    Parameters
    ----------
    row : Row
        The layer, of which the activation and its parameter count.
    before, after : (float, int)
        Scale and zero point of the table's index and of its entries.
    dtype : str
        "int8" or "uint8".
    """
    least, most = LIMITS[dtype]
    z = (np.arange(least, most + 1) - before[1]).astype(np.float32) * np.float32(before[0])
    return _to_integers(_apply(row, z), after, dtype)


def _apply(row: Row, z: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    values = z.astype(np.float64)
    one = np.zeros(1, LAYER)
    one["n_out"] = one["ld_out"] = values.size
    one["activation"], one["alpha"] = min(row.activation.code, CUSTOM), row.alpha
    one["lower"], one["upper"] = row.activation.lower, row.activation.upper
    if row.activation.code >= CUSTOM:
        one["call_forward"], _ = row.activation.calls(np.float64)
    kernels.evaluate(one, values)
    return values


def _to_integers(values: npt.NDArray[np.float64], parameters: Parameters, dtype: str) -> npt.NDArray[Any]:
    steps = np.rint(values.astype(np.float32) / np.float32(parameters[0])).astype(np.float64)
    return np.clip(steps + parameters[1], *LIMITS[dtype]).astype(dtype)


def _without_flat_ends(row: Row, bounds: Range, after: Parameters, dtype: str) -> Range:
    """Bounds less the ends on which the activation's integers no longer change: finer steps for the rest, free."""
    low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)
    width = np.inf
    while 0.9 * width > high - low > 0:
        width = high - low
        z = np.linspace(low, high, 1024)
        entries = _to_integers(_apply(row, z), after, dtype)
        first, last = (np.flatnonzero(entries != end) for end in (entries[0], entries[-1]))
        if first.size == 0:
            break
        low, high = min(z[first[0] - 1], 0.0), max(z[last[-1] + 1], 0.0)
    return float(low), float(high)
