"""The quantized network, which the program, exporters and files read: its layers in the order in which they run.

See `nbdense.quant.layers.base` for what a layer is, and how it names the tensors that it reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense._registry import find_custom
from nbdense.activations import ACTIVATIONS, Activation, json_alpha
from nbdense.files import pack_nibbles, unpack_nibbles
from nbdense.quant.layers.base import Format, Layer
from nbdense.quant.layers.checks import GRANULARITIES as GRANULARITIES
from nbdense.quant.layers.checks import LIMITS as LIMITS
from nbdense.quant.layers.checks import ROUNDINGS as ROUNDINGS
from nbdense.quant.layers.checks import WEIGHT_LIMITS as WEIGHT_LIMITS
from nbdense.quant.layers.checks import one_of
from nbdense.quant.layers.float_layers import FloatLayer as FloatLayer
from nbdense.quant.layers.integer_layers import QuantizedActivation as QuantizedActivation
from nbdense.quant.layers.integer_layers import QuantizedAdd as QuantizedAdd
from nbdense.quant.layers.integer_layers import QuantizedDense as QuantizedDense
from nbdense.quant.layers.integer_layers import QuantizedFlatten as QuantizedFlatten
from nbdense.quant.layers.integer_layers import QuantizedSoftmax as QuantizedSoftmax
from nbdense.quant.schemes.table import SCHEMES

FINAL_ACTIVATIONS = ("linear", "softmax")

_LAYERS: list[type[Layer]] = [*(layer for scheme in SCHEMES.values() for layer in scheme.layers), FloatLayer]
LAYERS: dict[str, type[Any]] = {layer.kind: layer for layer in _LAYERS}  # by what files call them


@dataclass(frozen=True, eq=False)
class QuantizedNetwork:
    """Quantized layers, each reading tensors that were written before.

    Attributes
    ----------
    layers : list of layers
        Layers, in the order in which they run; the last one's output is the network's.
    activation_dtype : str
        "int8" or "uint8".
    rounding : str
        How accumulators are requantised: "onnx" (float32 multiplier, half to even), or, by a fixed-point multiplier
        and a shift, "tflite" (rounded once), "gemmlowp" or "ruy" (rounded twice).
    final_activation : str
        "softmax": predictions are the softmax, in float, of the last layer's dequantized outputs; or "linear".
    input_shape : tuple of int
        Shape of one row of data; by default what the first layer that reads it takes.
    tensors : list of (int, int)
        Positions and columns of each tensor: of the input, then of each layer's output.
    formats : list of (float, int) or None
        Scale and zero point of each tensor; None: it is float, as the input is.
    report : mapping
        What quantize() found out, of JSON's types (see `QuantizedModel.report`); files hold it.

    Raises
    ------
    ValueError
        If the parts do not fit together, or an accumulator could leave int32; the message names the layer.
    """

    layers: list[Layer]
    activation_dtype: str = "int8"
    rounding: str = "onnx"
    final_activation: str = "linear"
    input_shape: tuple[int, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    tensors: list[tuple[int, int]] = field(init=False)
    formats: list[Format] = field(init=False)

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("a quantized network needs at least one layer")
        one_of("activation_dtype", self.activation_dtype, LIMITS)
        one_of("rounding", self.rounding, ROUNDINGS)
        one_of("final_activation", self.final_activation, FINAL_ACTIVATIONS)
        first = next((layer for i, layer in enumerate(self.layers) if 0 in self.inputs_of(i)), self.layers[0])
        tensors, formats = [(first.positions, first.n_in)], list[Format]([None])
        for i, layer in enumerate(self.layers):
            where = f"layer {layer.name!r}: "
            layer.check(self.activation_dtype, where)
            if self.rounding != "onnx" and isinstance(layer, QuantizedDense | QuantizedAdd):
                layer.fixed_point_multipliers()
            _check_inputs(self, i, tensors, formats)
            tensors.append((layer.positions_out, layer.n_out))
            formats.append(layer.output_format)
        kinds = {form is None for form in formats[1:]}
        if len(kinds) > 1 and self.takes_whole_call:
            raise ValueError("dynamic layers and layers in integers cannot stand in one network")
        object.__setattr__(self, "tensors", tensors)
        object.__setattr__(self, "formats", formats)
        if not self.input_shape:
            positions, n = tensors[0]
            object.__setattr__(self, "input_shape", (n,) if positions == 1 else (positions, n))
        if math.prod(self.input_shape) != math.prod(tensors[0]):
            raise ValueError(f"input_shape {self.input_shape} does not hold {math.prod(tensors[0])} elements")

    def inputs_of(self, index: int) -> tuple[int, ...]:
        """Return the tensors that a layer reads.

        Parameters
        ----------
        index : int
            Number of the layer.
        """
        inputs = self.layers[index].inputs
        return (index,) if inputs is None else inputs

    @property
    def n_in(self) -> int:
        """Elements of one row of data."""
        return math.prod(self.tensors[0])

    @property
    def n_out(self) -> int:
        """Elements of one row of outputs."""
        return math.prod(self.tensors[-1])

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one row of outputs."""
        positions, n = self.tensors[-1]
        if positions == 1:
            return (n,)
        ahead = self.input_shape[:-1]
        return (*ahead, n) if math.prod(ahead) == positions else (positions, n)

    @property
    def scheme(self) -> str:
        """Name of the scheme whose layers it has; where all stayed in float, of the last."""
        kinds = {type(layer) for layer in self.layers}
        return next((name for name, scheme in SCHEMES.items() if kinds.intersection(scheme.layers)), list(SCHEMES)[-1])

    @property
    def takes_whole_call(self) -> bool:
        """Tell whether a layer takes its scale from all rows of a call together."""
        return any(layer.takes_whole_call for layer in self.layers)

    @property
    def input_format(self) -> Format:
        """Scale and zero point of the integers that the input is read as; None: as floats, or as several kinds."""
        formats = {
            form
            for i, layer in enumerate(self.layers)
            for tensor, form in zip(self.inputs_of(i), layer.input_formats, strict=True)
            if tensor == 0
        }
        return next(iter(formats)) if len(formats) == 1 else None

    @property
    def ends_in_integers(self) -> bool:
        """Tell whether the last layer's output is integers."""
        return self.formats[-1] is not None

    def layer_bytes(self) -> list[int]:
        """Return the bytes that the arrays of each layer take in a file."""
        sizes = [0] * len(self.layers)
        for name, value in self.to_tensors()[0].items():
            sizes[int(name.split("/")[0])] += value.nbytes
        return sizes

    def peak_activation_bytes(self) -> int:
        """Return the most bytes of one row's tensors at a time, each kept until its last reader is done.

        The input counts as what its readers take: integers of one byte, or floats.
        """
        last_use = {tensor: i for i in range(len(self.layers)) for tensor in self.inputs_of(i)}
        read_as_floats = {
            tensor
            for i, layer in enumerate(self.layers)
            for tensor, form in zip(self.inputs_of(i), layer.input_formats, strict=True)
            if form is None
        }
        sizes = [positions * n for positions, n in self.tensors]
        for tensor, form in enumerate(self.formats):
            if tensor in read_as_floats or (form is None and tensor > 0):
                sizes[tensor] *= 4
        ending: dict[int, int] = {}  # bytes that are free behind a layer
        for tensor, reader in last_use.items():
            ending[reader] = ending.get(reader, 0) + sizes[tensor]
        alive, peak = sizes[0], 0
        for i in range(len(self.layers)):
            peak = max(peak, alive + sizes[i + 1])
            alive += (sizes[i + 1] if i + 1 in last_use else 0) - ending.get(i, 0)
        return peak

    def to_tensors(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """Return the arrays by name, as they are, and a configuration of JSON's types, for a file.

        Kernels of four bits are packed: "kernel_int4", uint8 ((n_in + 1) / 2, n_out), holds the weights of input 2 i in
        its low and those of input 2 i + 1 in its high nibbles, in two's complement.
        """
        tensors: dict[str, npt.NDArray[Any]] = {}
        layers = []
        for index, layer in enumerate(self.layers):
            arrays = (
                layer.tensors if isinstance(layer, FloatLayer) else {key: getattr(layer, key) for key in layer.arrays}
            )
            for key, value in arrays.items():
                if key == "kernel" and getattr(layer, "bits", 8) == 4:
                    tensors[f"{index}/kernel_int4"] = pack_nibbles(np.asarray(value, np.int8))
                elif value is not None:
                    tensors[f"{index}/{key}"] = value
            settings = {name: getattr(layer, name) for name in _settings(layer)}
            if "alpha" in settings:
                settings["alpha"] = json_alpha(settings["alpha"])
            if getattr(layer, "bits", 8) == 4:
                settings["n_in"] = layer.n_in
            layers.append({"kind": layer.kind, **settings})
        config = {key: getattr(self, key) for key in ("activation_dtype", "rounding", "final_activation")}
        return tensors, {**config, "input_shape": list(self.input_shape), "layers": layers, "report": dict(self.report)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]], config: Mapping[str, Any]) -> QuantizedNetwork:
        """Make the network of what `to_tensors` gave.

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
            arrays: dict[str, dict[str, npt.NDArray[Any]]] = {}  # by layer
            for path, value in tensors.items():
                index, _, name = path.partition("/")
                arrays.setdefault(index, {})[name] = value
            layers = [_layer(settings, arrays.get(str(i), {}), f"{i}/") for i, settings in enumerate(config["layers"])]
            return cls(
                layers,
                config["activation_dtype"],
                config["rounding"],
                config["final_activation"],
                tuple(map(int, config.get("input_shape", ()))),
                dict(config.get("report", {})),
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"not a quantized network: {type(error).__name__}: {error}") from error


def cuts(inputs: Sequence[Sequence[int]]) -> set[int]:
    """Find the tensors that everything behind them goes through: a network can be cut in two there.

    Parameters
    ----------
    inputs : sequence of sequences of int
        The tensors that each layer reads; tensor i + 1 is what layer i makes.
    """
    bottlenecks, least = set[int](), len(inputs)  # the earliest tensor that layers behind read
    for tensor in range(len(inputs), 0, -1):
        if least >= tensor:
            bottlenecks.add(tensor)
        least = min(least, *inputs[tensor - 1])
    return bottlenecks


def between(layers: Sequence[Layer], start: int, tensor: int) -> list[Layer]:
    """Return the layers that make a tensor of an earlier one, as those of a network that reads it as its input.

    Parameters
    ----------
    layers : sequence of layers
        Layers of a network.
    start : int
        The tensor that is read: 0, or one of `cuts`.
    tensor : int
        The one that is made.
    """
    return [
        layer if layer.inputs is None else layer.replaced(inputs=tuple(source - start for source in layer.inputs))
        for layer in layers[start:tensor]
    ]


def _numbers(kind: Any) -> Any:
    return lambda value: None if value is None else tuple(kind(item) for item in value)


# Of a layer's fields, by their annotations, those that are no arrays, and how JSON's values become theirs.
_FROM_JSON: dict[str, Callable[[Any], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "Alpha": lambda alpha: tuple(alpha) if isinstance(alpha, list | tuple) else float(alpha),
    "tuple[int, ...] | None": _numbers(int),
    "tuple[int, int]": _numbers(int),
    "tuple[float, float]": _numbers(float),
}


def _settings(layer: Any) -> dict[str, Callable[[Any], Any]]:
    """Return the fields of a class of layers, or of a layer, that are no arrays, and how to make them of JSON."""
    return {f.name: _FROM_JSON[f.type] for f in fields(layer) if f.type in _FROM_JSON}


def _layer(settings: Mapping[str, Any], arrays: dict[str, npt.NDArray[Any]], prefix: str) -> Any:
    kind = settings.get("kind", "dense")  # files from before there were others do not say it
    if kind not in LAYERS:
        raise ValueError(f"unknown kind of layer {kind!r}")
    layer = LAYERS[kind]
    names = {f.name for f in fields(layer)}
    values = {name: make(settings[name]) for name, make in _settings(layer).items() if name in settings}
    row = ACTIVATIONS.get(values.get("activation", ""))
    if row is not None and row.parameters and "alpha" in values:
        values["alpha"] = row.with_alpha(values["alpha"]).alpha  # JSON has None for an infinity
    if "kernel_int4" in arrays:
        arrays["kernel"] = unpack_nibbles(arrays.pop("kernel_int4"), int(settings["n_in"]))
    if layer is FloatLayer:
        values["tensors"] = arrays
    else:
        values |= {key: arrays.get(key) for key in layer.arrays}
        missing = [
            f.name for f in fields(layer) if f.name in layer.arrays and f.default is MISSING and f.name not in arrays
        ]
        if missing:
            raise KeyError(f"{prefix}{missing[0]}")
    if "custom" in names and values.get("activation", "linear") not in ACTIVATIONS:
        values["custom"] = find_custom("activation", values["activation"], Activation)
    return layer(**values)


def _check_inputs(network: QuantizedNetwork, index: int, tensors: list[tuple[int, int]], formats: list[Format]) -> None:
    layer, inputs = network.layers[index], network.inputs_of(index)
    if len(inputs) != len(layer.input_formats) or not all(0 <= tensor <= index for tensor in inputs):
        raise ValueError(
            f"layer {layer.name!r}: inputs must be {len(layer.input_formats)} numbers from 0 to {index}, got {inputs}"
        )
    for tensor, wanted in zip(inputs, layer.input_formats, strict=True):
        source = "the input" if tensor == 0 else repr(network.layers[tensor - 1].name)
        positions, n = tensors[tensor]
        if layer.n_in != n:
            raise ValueError(f"layer {layer.name!r} has {layer.n_in} inputs, but {source} has {n} outputs")
        if layer.positions != positions:
            raise ValueError(f"layer {layer.name!r} has {layer.positions} positions, but {source} has {positions}")
        if wanted is not None and formats[tensor] not in (None, wanted):
            raise ValueError(
                f"layer {layer.name!r}: input scale and zero point must be {formats[tensor]} of {source}, got {wanted}"
            )
