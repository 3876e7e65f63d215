"""The quantized network: integers and their scales, layer by layer. What the integer program, exporters and files read.

A real value is ``scale * (integer - zero_point)``. Weights are int8 in [-127, 127] with zero point 0; activations
int8 or uint8, one scale and zero point a tensor; biases int32 with scale ``input_scale * kernel_scales[j]``, taken
in float32. Scales are float32 numbers, held as Python floats where there is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.activations import ACTIVATIONS, Activation
from nbdense.quant.rounding import fixed_point_multiplier, round_half_away

LIMITS = {"int8": (-128, 127), "uint8": (0, 255)}  # of each activation dtype
WEIGHT_LIMIT = 127
GRANULARITIES = ("per_channel", "per_tensor")
ROUNDINGS = ("onnx", "tflite")
FINAL_ACTIVATIONS = ("linear", "softmax")
INT32_MAX = 2**31 - 1


@dataclass(frozen=True, eq=False)
class QuantizedDense:
    """A dense layer in integers: multiply and accumulate, requantise and clamp, then look up in the table if there.

    Attributes
    ----------
    name : str
        The layer's name.
    kernel : ndarray of int8, (n_in, n_out)
        Weights in [-127, 127].
    kernel_scales : ndarray of float32, (n_out,)
        Scale of each column; all equal where ``granularity`` is "per_tensor".
    bias : ndarray of int32, (n_out,)
        Added to the accumulator; zeros where the layer has none.
    input_scale, input_zero_point : float, int
        Of the layer's input: its predecessor's output, or the network's input.
    output_scale, output_zero_point : float, int
        Of the layer's output, after its activation.
    pre_scale, pre_zero_point : float, int
        Of the requantised accumulator, which the table is indexed by; the output's where there is no table.
    activation : str
        Name in ``nbdense.activations.ACTIVATIONS``; "linear" in the last layer of a network that ends in softmax.
    table : ndarray of the activation dtype, (256,), or None
        The activation: entry ``q - minimum`` is the output for the requantised integer q. None: linear or a clamp.
    granularity : str
        "per_channel" or "per_tensor".
    alpha : float
        The activation's parameter, if it has one.
    """

    name: str
    kernel: npt.NDArray[np.int8]
    kernel_scales: npt.NDArray[np.float32]
    bias: npt.NDArray[np.int32]
    input_scale: float
    input_zero_point: int
    output_scale: float
    output_zero_point: int
    pre_scale: float
    pre_zero_point: int
    activation: str = "linear"
    table: npt.NDArray[Any] | None = None
    granularity: str = "per_channel"
    alpha: float = 0.0

    @property
    def function(self) -> Activation:
        """The activation, with this layer's parameter."""
        row = ACTIVATIONS[self.activation]
        return row if row.least == np.inf else row.with_alpha(self.alpha)

    @property
    def n_in(self) -> int:
        """Inputs."""
        return self.kernel.shape[0]

    @property
    def n_out(self) -> int:
        """Outputs."""
        return self.kernel.shape[1]

    def bias_scales(self) -> npt.NDArray[np.float32]:
        """Scales of the bias and the accumulator, float32 (n_out,)."""
        return np.float32(self.input_scale) * self.kernel_scales

    def fixed_point_multipliers(self) -> list[tuple[int, int]]:
        """(multiplier, shift) of each column, for the rounding "tflite".

        Raises
        ------
        ValueError
            If one is too large.
        """
        ratio = float(np.float32(self.input_scale))
        try:
            return [fixed_point_multiplier(ratio * float(scale) / self.pre_scale) for scale in self.kernel_scales]
        except ValueError as error:
            raise ValueError(f"layer {self.name!r}: {error}") from error

    def clamp(self, dtype: str, rounding: str) -> tuple[int, int]:
        """The least and greatest requantised integer that the activation leaves possible.

        Parameters
        ----------
        dtype : str
            The activation dtype.
        rounding : str
            Of bounds that are not whole: "onnx" half to even, "tflite" half away from zero.
        """
        low, high = LIMITS[dtype]
        if self.table is not None:
            return low, high
        row = self.function
        with np.errstate(over="ignore"):
            bounds = np.array([row.lower, row.upper], np.float32) / np.float32(self.output_scale)
        steps = np.rint(bounds) if rounding == "onnx" else np.array([round_half_away(float(b)) for b in bounds])
        least, most = np.clip(steps.astype(np.float64) + self.output_zero_point, low, high)
        return int(least), int(most)


@dataclass(frozen=True, eq=False)
class QuantizedNetwork:
    """A chain of quantized layers.

    Attributes
    ----------
    layers : list of QuantizedDense
        In the order in which they run.
    activation_dtype : str
        "int8" or "uint8".
    rounding : str
        How accumulators are requantised: "onnx" (float32 multiplier, half to even) or "tflite" (fixed-point
        multiplier and shift).
    final_activation : str
        "softmax": predictions are the softmax, in float, of the last layer's dequantized outputs; or "linear".

    Raises
    ------
    ValueError
        If the parts do not fit together, or an accumulator could leave int32; the message names the layer.
    """

    layers: list[QuantizedDense]
    activation_dtype: str = "int8"
    rounding: str = "onnx"
    final_activation: str = "linear"

    def __post_init__(self) -> None:
        check_network(self)

    @property
    def n_in(self) -> int:
        """Width of the input."""
        return self.layers[0].n_in

    @property
    def n_out(self) -> int:
        """Width of the output."""
        return self.layers[-1].n_out

    def to_tensors(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """The arrays by name, as they are, and a configuration of JSON's types, for a file."""
        tensors: dict[str, npt.NDArray[Any]] = {}
        layers = []
        for index, layer in enumerate(self.layers):
            for key in ("kernel", "kernel_scales", "bias", "table"):
                if getattr(layer, key) is not None:
                    tensors[f"{index}/{key}"] = getattr(layer, key)
            layers.append({key: getattr(layer, key) for key in _SETTINGS})
        config = {key: getattr(self, key) for key in ("activation_dtype", "rounding", "final_activation")}
        return tensors, {**config, "layers": layers}

    @classmethod
    def from_tensors(cls, tensors: dict[str, npt.NDArray[Any]], config: dict[str, Any]) -> QuantizedNetwork:
        """The network of what `to_tensors` gave.

        Parameters
        ----------
        tensors : dict of str to ndarray
            The arrays.
        config : dict
            The configuration.

        Raises
        ------
        ValueError
            If something is missing, of the wrong type or inconsistent.
        """
        try:
            layers = [
                QuantizedDense(
                    kernel=tensors[f"{index}/kernel"],
                    kernel_scales=tensors[f"{index}/kernel_scales"],
                    bias=tensors[f"{index}/bias"],
                    table=tensors.get(f"{index}/table"),
                    **{key: kind({"alpha": 0.0, **settings}[key]) for key, kind in _SETTINGS.items()},
                )
                for index, settings in enumerate(config["layers"])
            ]
            return cls(layers, config["activation_dtype"], config["rounding"], config["final_activation"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a quantized network: {type(error).__name__}: {error}") from error


# Of a layer, what is no array: JSON holds it.
_SETTINGS: dict[str, Any] = {
    "name": str,
    "input_scale": float,
    "input_zero_point": int,
    "output_scale": float,
    "output_zero_point": int,
    "pre_scale": float,
    "pre_zero_point": int,
    "activation": str,
    "granularity": str,
    "alpha": float,  # missing in files from before there were activations with one
}


def check_network(network: QuantizedNetwork) -> None:
    """Refuse what the integer program could not run exactly.

    Parameters
    ----------
    network : QuantizedNetwork
        What to check.

    Raises
    ------
    ValueError
        Naming the layer and what is wrong with it.
    """
    _one_of("activation_dtype", network.activation_dtype, LIMITS)
    _one_of("rounding", network.rounding, ROUNDINGS)
    _one_of("final_activation", network.final_activation, FINAL_ACTIVATIONS)
    if not network.layers:
        raise ValueError("a quantized network needs a layer")
    for layer in network.layers:
        _check_layer(layer, network.activation_dtype)
        _check_accumulator(layer, network.activation_dtype)
        if network.rounding == "tflite":
            layer.fixed_point_multipliers()
    for before, layer in zip(network.layers, network.layers[1:], strict=False):
        if layer.n_in != before.n_out:
            raise ValueError(f"layer {layer.name!r} has {layer.n_in} inputs, {before.name!r} {before.n_out} outputs")
        given = (before.output_scale, before.output_zero_point)
        if (layer.input_scale, layer.input_zero_point) != given:
            raise ValueError(f"layer {layer.name!r}: its input has not the scale and zero point of {before.name!r}")


def _one_of(what: str, value: Any, allowed: Any) -> None:
    if value not in allowed:
        raise ValueError(f"{what} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def _check_layer(layer: QuantizedDense, dtype: str) -> None:
    where = f"layer {layer.name!r}: "
    if layer.kernel.ndim != 2 or layer.kernel.size == 0:
        raise ValueError(f"{where}kernel must be two-dimensional and not empty, got shape {layer.kernel.shape}")
    table = layer.table is not None
    if not table and (layer.activation not in ACTIVATIONS or ACTIVATIONS[layer.activation].forward is not None):
        raise ValueError(f"{where}activation {layer.activation!r} needs a table")
    if layer.activation in ACTIVATIONS:
        try:
            _ = layer.function
        except ValueError as error:
            raise ValueError(f"{where}{error}") from error
    if not table and layer.activation == "softmax":
        raise ValueError(f"{where}softmax is the network's final_activation, not a layer's")
    _one_of(f"{where}granularity", layer.granularity, GRANULARITIES)
    arrays: list[tuple[str, Any, tuple[int, ...]]] = [
        ("kernel", np.int8, layer.kernel.shape),
        ("kernel_scales", np.float32, (layer.n_out,)),
    ]
    arrays += [("bias", np.int32, (layer.n_out,))] + ([("table", np.dtype(dtype), (256,))] if table else [])
    for key, kind, shape in arrays:
        array = getattr(layer, key)
        if array.dtype != kind or array.shape != shape:
            raise ValueError(f"{where}{key} must be {np.dtype(kind)} {shape}, got {array.dtype} {array.shape}")
    if (layer.kernel == -128).any():
        raise ValueError(f"{where}a weight is -128; weights lie in [-127, 127]")
    low, high = LIMITS[dtype]
    for key in ("input", "output", "pre"):
        scale, zero_point = getattr(layer, f"{key}_scale"), getattr(layer, f"{key}_zero_point")
        if not (0 < scale < np.inf and float(np.float32(scale)) == scale):
            raise ValueError(f"{where}{key}_scale must be a positive float32 number, got {scale!r}")
        if not low <= zero_point <= high:
            raise ValueError(f"{where}{key}_zero_point must lie in [{low}, {high}], got {zero_point}")
    if not table and (layer.pre_scale, layer.pre_zero_point) != (layer.output_scale, layer.output_zero_point):
        raise ValueError(f"{where}pre_scale and pre_zero_point must be the output's where there is no table")
    if layer.granularity == "per_tensor" and (layer.kernel_scales != layer.kernel_scales[0]).any():
        raise ValueError(f"{where}kernel_scales must be equal where granularity is per_tensor")
    with np.errstate(over="ignore", under="ignore"):
        scales = layer.bias_scales()
        multipliers = scales / np.float32(layer.pre_scale)
    if not ((layer.kernel_scales > 0) & (scales > 0) & (multipliers < np.inf)).all():
        raise ValueError(f"{where}the scales of its input, weights and output are too far apart for float32")


def _check_accumulator(layer: QuantizedDense, dtype: str) -> None:
    low, high = (limit - layer.input_zero_point for limit in LIMITS[dtype])
    positive = np.maximum(layer.kernel, 0).sum(axis=0, dtype=np.int64)
    negative = np.minimum(layer.kernel, 0).sum(axis=0, dtype=np.int64)
    most = positive * high + negative * low + layer.bias
    least = positive * low + negative * high + layer.bias
    if most.max() > INT32_MAX or least.min() < -INT32_MAX - 1:
        raise ValueError(
            f"layer {layer.name!r}: with {layer.n_in} inputs its accumulator can leave int32 "
            "(at full range that takes more than 66,311)"
        )
