"""The program of a file that `QuantizedModel.save` wrote: static, dynamic and weight-only layers, and those in float.

What `nbdense.quant` would refuse is refused here: a file that nobody vouches for makes no integers that overflow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.files import TensorFile, unpack_nibbles
from nbdense.runtime import checks, floats, integers
from nbdense.runtime.activations import (
    FORMULAS,
    Function,
    custom_refusal,
    function_of,
    numbers_of,
)
from nbdense.runtime.integers import Format
from nbdense.runtime.program import Program, Wiring
from nbdense.runtime.rounding import ROUNDINGS, clamp_of
from nbdense.runtime.settings import number, one_of, shape, text, whole

Array = npt.NDArray[Any]
Entries = Mapping[str, Any]

LIMITS = {"int8": (-128, 127), "uint8": (0, 255)}
GRANULARITIES = ("per_channel", "per_tensor")
FINAL_ACTIVATIONS = ("linear", "softmax")


@dataclass
class Layer:
    """A layer of a file, read: what it takes and gives, and its step.

    Attributes
    ----------
    step : callable
        Its step.
    n_in, n_out : int
        Columns of each of its inputs, and of its output.
    inputs : tuple of (float, int) or None
        Scales and zero points with which it reads them; None: floats.
    output : (float, int) or None
        Scale and zero point of what it gives.
    flattens : bool
        Whether it lays the positions of a row of data end to end.
    whole_call : bool
        Whether its scale is that of all rows of a call.
    """

    step: floats.Step
    n_in: int
    n_out: int
    inputs: tuple[Format, ...]
    output: Format
    flattens: bool = False
    whole_call: bool = False


@dataclass
class Reader:
    """Source that a kind of layer is read from.

    Attributes
    ----------
    entries : mapping
        What the file says of the layer.
    arrays : dict of str to ndarray
        The arrays that it has of it.
    dtype : str
        Type of the network's integers.
    rounding : str
        The network's.
    positions : int
        Rows of columns in a row of data.
    alpha : float or list
        The activation's parameter, or all of several.
    """

    entries: Entries
    arrays: dict[str, Array]
    dtype: str
    rounding: str
    positions: int = field(init=False)
    alpha: Any = field(init=False)

    def __post_init__(self) -> None:
        self.positions = whole(self.entries, "positions", 1, 1)
        alpha = self.entries.get("alpha", 0.0)
        self.alpha = alpha if isinstance(alpha, list) else float(alpha)

    @property
    def limits(self) -> tuple[int, int]:
        """Least and greatest integer of the activation dtype."""
        return LIMITS[self.dtype]

    def form(self, name: str) -> tuple[float, int]:
        """Return a scale and a zero point: ``{name}_scale``, ``{name}_zero_point``."""
        prefix = f"{name}_" if name else ""
        scale, zero_point = number(self.entries, f"{prefix}scale"), whole(self.entries, f"{prefix}zero_point", -128)
        return checks.form(scale, zero_point, self.limits, name or "its")

    def less(self, form: tuple[float, int]) -> tuple[float, float]:
        """Return the limits of integers less a zero point."""
        return self.limits[0] - form[1], self.limits[1] - form[1]

    def numbers(self) -> tuple[str, tuple[float, ...] | None]:
        """Return the activation's name and parameters; None for one's own, which has none that are known."""
        name = text(self.entries, "activation") if "activation" in self.entries else "linear"
        if name not in FORMULAS:
            return name, None
        return name, numbers_of(name, self.alpha) if FORMULAS[name].parameters else ()

    def function(self) -> Function | None:
        """Return the activation as a function of floats."""
        name, numbers = self.numbers()
        if numbers is None:
            raise ValueError(custom_refusal(name))
        return function_of(name, numbers)

    def clamp(self, form: tuple[float, int]) -> tuple[float, float]:
        """Return the ends that an activation which is a clamp leaves, less the zero point."""
        name, numbers = self.numbers()
        made = FORMULAS[name].clamp if numbers is not None else None
        if made is None or numbers is None:
            raise ValueError(f"activation {name!r} needs a table")
        low, high = self.less(form)
        least, most = clamp_of(made(*numbers), form[0], self.rounding)
        return min(max(least, low), high), min(max(most, low), high)

    def kernel(self) -> tuple[Array, int]:
        """Return the integers of a kernel and their bits."""
        bits = one_of(self.entries, "bits", (8, 4), 8)
        if "kernel_int4" in self.arrays:
            return checks.kernel(unpack_nibbles(self.arrays["kernel_int4"], whole(self.entries, "n_in", 1)), bits), bits
        return checks.kernel(self.arrays["kernel"], bits), bits

    def weights(self, scales_shape: tuple[int, ...] | None = None) -> tuple[Array, Array]:
        """Return a kernel less its zero points, as they are in the rows' shape, and its scales."""
        kernel, bits = self.kernel()
        expected = scales_shape or kernel.shape[1:]
        scales, zero_points = self.arrays["kernel_scales"], self.arrays.get("kernel_zero_points")
        checks.array(scales, np.float32, expected, "kernel_scales")
        if not ((scales > 0) & (scales < np.inf)).all():
            raise ValueError("kernel_scales must be positive and finite")
        if zero_points is None:
            return kernel, scales
        checks.array(zero_points, np.int8, expected, "kernel_zero_points")
        checks.within_bits(zero_points, bits)
        per_input = zero_points if zero_points.ndim == 1 else self.repeated(zero_points, len(kernel))
        return kernel.astype(np.int16) - per_input, scales

    def repeated(self, of_blocks: Array, n_in: int) -> Array:
        """Return what is one for each block of inputs, once for each input."""
        return np.repeat(of_blocks, self.block_size or n_in, axis=0)[:n_in]

    @property
    def block_size(self) -> int:
        """Inputs of a block of weights of one scale; 0: all."""
        return whole(self.entries, "block_size", 0, 0)

    def columns(self, name: str, n: int, dtype: Any) -> Array | None:
        """Return a vector of columns, if the layer has it."""
        value = self.arrays.get(name)
        return value if value is None else checks.array(value, dtype, (n,), name)

    def check_granularity(self, *parts: str) -> None:
        """Refuse columns that differ where there is one scale."""
        if one_of(self.entries, "granularity", GRANULARITIES, "per_channel") == "per_tensor":
            for name in ("kernel_scales", "kernel_zero_points"):
                part = self.arrays.get(name)
                if part is not None and (part != part[0]).any():
                    raise ValueError(f"{name} must be equal where granularity is per_tensor")


# -- kinds of layers -------------------------------------------------------------------------------------------------


def dense(r: Reader) -> Layer:
    """Read a dense layer in integers.

    Parameters
    ----------
    r : Reader
        The layer.
    """
    weights, scales = r.weights()
    n_in, n_out = weights.shape
    bias = checks.array(r.arrays["bias"], np.int32, (n_out,), "bias")
    source, output, pre = r.form("input"), r.form("output"), r.form("pre")
    r.check_granularity()
    table = r.arrays.get("table")
    if table is None and pre != output:
        raise ValueError("pre_scale and pre_zero_point must be the output's where there is no table")
    looked_up, clamp = None, r.less(pre) if table is not None else r.clamp(pre)
    if table is not None:
        r.numbers()
        checks.array(table, np.dtype(r.dtype), (256,), "table")
        looked_up = integers.lookup(table, pre[1] - r.limits[0], output[1])
    multipliers = checks.multipliers(np.float32(source[0]) * scales, np.float32(pre[0]))
    if r.rounding != "onnx":
        multipliers = source[0] * scales.astype(np.float64) / pre[0]
    limits = r.less(source)
    checks.accumulator(weights, bias, limits)
    step = integers.dense(weights, bias, limits, multipliers, r.rounding, clamp, looked_up)
    return Layer(step, n_in, n_out, (source,), output)


def add(r: Reader) -> Layer:
    """Read a sum of two tensors of integers.

    Parameters
    ----------
    r : Reader
        The layer.
    """
    n, scales, zero_points = whole(r.entries, "n", 1), r.entries["input_scales"], r.entries["input_zero_points"]
    if len(scales) != 2 or len(zero_points) != 2:
        raise ValueError("a sum needs two inputs")
    sources = [
        checks.form(
            number({"scale": scale}, "scale"), whole({"zero_point": zero_point}, "zero_point", -128), r.limits, "input"
        )
        for scale, zero_point in zip(scales, zero_points, strict=True)
    ]
    output = r.form("output")
    checks.multipliers(np.array([scale for scale, _ in sources], np.float32), np.float32(output[0]))
    (first, second), clamp = sources, r.clamp(output)
    step = integers.add((first[0], second[0]), (r.less(first), r.less(second)), output[0], r.rounding, clamp)
    return Layer(step, n, n, tuple(sources), output)


def activation(r: Reader) -> Layer:
    """Read an activation of integers by a table.

    Parameters
    ----------
    r : Reader
        The layer.
    """
    n, source, output = whole(r.entries, "n", 1), r.form("input"), r.form("output")
    r.numbers()
    table = checks.array(r.arrays["table"], np.dtype(r.dtype), (256,), "table")
    return Layer(integers.lookup(table, source[1] - r.limits[0], output[1]), n, n, (source,), output)


def softmax(r: Reader) -> Layer:
    """Read a softmax in integers.

    Parameters
    ----------
    r : Reader
        The layer.
    """
    n, source = whole(r.entries, "n", 1), r.form("input")
    zero_point = whole(r.entries, "output_zero_point", -128)
    if zero_point != r.limits[0]:
        raise ValueError(f"output_zero_point must be {r.limits[0]}, got {zero_point}")
    exponentials = checks.array(r.arrays["exponentials"], np.int32, (256,), "exponentials")
    if (exponentials < 0).any() or not 0 < exponentials[0] <= 2**23:
        raise ValueError("exponentials must lie in 0..2**23 and begin above 0")
    return Layer(integers.softmax(exponentials), n, n, (source,), (1 / 256, zero_point))


def flatten(r: Reader) -> Layer:
    """Read a change of shape of integers.

    Parameters
    ----------
    r : Reader
        The layer.
    """
    n, form = whole(r.entries, "n", 1), r.form("")
    return Layer(floats.flatten(r.positions), n, n * r.positions, (form,), form, flattens=True)


def dynamic_dense(r: Reader) -> Layer:
    """Read a dense layer whose inputs are quantized in each call.

    Parameters
    ----------
    r : Reader
        The layer.
    """
    weights, scales = r.weights()
    n_in, n_out = weights.shape
    r.check_granularity()
    largest = np.abs(weights.astype(np.int64)).sum(axis=0).max() * 255
    checks.fits_int32(-int(largest), int(largest))
    step = integers.dynamic(weights, scales, r.columns("bias", n_out, np.float32), r.function())
    return Layer(step, n_in, n_out, (None,), None, whole_call=True)


def weight_only_dense(r: Reader) -> Layer:
    """Read a dense layer in float whose weights are kept as integers.

    Parameters
    ----------
    r : Reader
        The layer.
    """
    n_in, n_out = r.kernel()[0].shape
    weights, scales = r.weights((-(-n_in // (r.block_size or n_in)), n_out))
    kernel = weights.astype(np.float32) * r.repeated(scales, n_in)
    step = floats.dense(kernel, r.columns("bias", n_out, np.float32), r.function())
    return Layer(step, n_in, n_out, (None,), None)


# The tensors of layers that were left in float, by what these are; a "?" marks those that may be missing.
TENSORS = {
    "dense": ("kernel", "bias?"),
    "activation": (),
    "add": (),
    "flatten": (),
    "batch_norm": ("gamma?", "beta?", "mean", "variance"),
    "layer_norm": ("gamma?", "beta?"),
    "rms_norm": ("scale?",),
}


def in_float(r: Reader) -> Layer:
    """Read a layer that was left in float.

    Parameters
    ----------
    r : Reader
        The layer.
    """
    what, n = one_of(r.entries, "what", TENSORS), whole(r.entries, "n", 1)
    allowed = {name.rstrip("?") for name in TENSORS[what]}
    if not allowed & set(TENSORS[what]) <= set(r.arrays) <= allowed:
        raise ValueError(f"a {what} has the tensors {sorted(allowed)}, got {sorted(r.arrays)}")
    n_out = r.arrays["kernel"].shape[-1] if what == "dense" else n
    for name, value in r.arrays.items():
        checks.array(value, np.float32, (n, n_out) if name == "kernel" else (n_out,), name)
    function = r.function()
    if what not in ("dense", "activation") and function is not None:
        raise ValueError(f"a {what} has no activation")
    if what in floats.NORMS:
        return Layer(floats.NORMS[what](r.arrays, number(r.entries, "alpha", 0.0)), n, n, (None,), None)
    if what == "dense":
        return Layer(floats.dense(r.arrays["kernel"], r.arrays.get("bias"), function), n, n_out, (None,), None)
    if what == "add":
        return Layer(floats.add, n, n, (None, None), None)
    if what == "flatten":
        return Layer(floats.flatten(r.positions), n, n * r.positions, (None,), None, flattens=True)
    return Layer(floats.activation(function), n, n, (None,), None)


LAYERS: dict[str, Callable[[Reader], Layer]] = {
    "dense": dense,
    "add": add,
    "activation": activation,
    "softmax": softmax,
    "flatten": flatten,
    "dynamic_dense": dynamic_dense,
    "weight_only_dense": weight_only_dense,
    "float": in_float,
}


# -- networks --------------------------------------------------------------------------------------------------------


def quantized(file: TensorFile) -> Program:
    """Return the program of a file of kind "quantized model".

    Parameters
    ----------
    file : TensorFile
        The file, opened.
    """
    return network({path: file.read(path) for path in file.shapes}, file.config)


def network(tensors: Mapping[str, Array], config: Entries) -> Program:
    """Return the program of a quantized network.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        Its arrays by name: "0/kernel" is one of the first layer.
    config : mapping
        What the file says of it.
    """
    dtype, rounding = one_of(config, "activation_dtype", LIMITS), one_of(config, "rounding", ROUNDINGS)
    final = one_of(config, "final_activation", FINAL_ACTIVATIONS)
    arrays: dict[str, dict[str, Array]] = {}
    for path, value in tensors.items():
        index, _, name = path.partition("/")
        arrays.setdefault(index, {})[name] = value
    entries = config["layers"]
    if not isinstance(entries, list) or not entries:
        raise ValueError("a quantized network needs at least one layer")
    read = []
    for i, settings in enumerate(entries):
        kind = settings.get("kind", "dense")
        if kind not in LAYERS:
            raise ValueError(f"unknown kind of layer {kind!r}")
        label = f"layer {settings['name']!r}"
        reader = Reader(settings, arrays.get(str(i), {}), dtype, rounding)
        try:
            read.append((LAYERS[kind](reader), reader.positions, _inputs(settings, i)))
        except ValueError as error:
            raise ValueError(f"{label}: {error}") from error
    first = next((found for found in read if 0 in found[2]), read[0])
    program = Program(np.dtype(np.float32), (), positions=first[1])
    _wire(program, read, dtype)
    program.final = function_of("softmax") if final == "softmax" else None
    width = first[1] * first[0].n_in
    given = config.get("input_shape", [])
    program.input_shape = shape(given if given != [] else [width] if first[1] == 1 else [first[1], first[0].n_in])
    if math.prod(program.input_shape) != width:
        raise ValueError(f"input_shape {program.input_shape} does not hold {width} elements")
    last, positions, _ = read[-1]
    program.output_shape = _output_shape(program.input_shape, 1 if last.flattens else positions, last.n_out)
    return program


def _inputs(settings: Entries, index: int) -> tuple[int, ...]:
    given = settings.get("inputs")
    if given is None:
        return (index,)
    return tuple(whole({"inputs": value}, "inputs", 0) for value in given)


def _wire(program: Program, read: list[tuple[Layer, int, tuple[int, ...]]], dtype: str) -> None:
    """Add the layers' steps to a program, and between them what turns floats into integers and back."""
    tensors = [(program.positions, next((layer.n_in for layer, _, inputs in read if 0 in inputs), read[0][0].n_in))]
    wiring, formats = Wiring(program, LIMITS[dtype]), list[Format]([None])
    for index, (layer, positions, inputs) in enumerate(read):
        if len(inputs) != len(layer.inputs) or not all(tensor <= index for tensor in inputs):
            raise ValueError(f"inputs of layer {index} must be {len(layer.inputs)} numbers up to {index}")
        for tensor, form in zip(inputs, layer.inputs, strict=True):
            if tensors[tensor] != (positions, layer.n_in):
                raise ValueError(f"layer {index} reads {(positions, layer.n_in)} columns of {tensors[tensor]}")
            if form is not None and formats[tensor] not in (None, form):
                raise ValueError(f"layer {index} reads the scale and zero point {form} of {formats[tensor]}")
        reads = [wiring.read(tensor, form) for tensor, form in zip(inputs, layer.inputs, strict=True)]
        wiring.write(layer.step, reads, layer.output)
        tensors.append((1 if layer.flattens else positions, layer.n_out))
        formats.append(layer.output)
    program.takes_whole_call = any(layer.whole_call for layer, _, _ in read)
    if program.takes_whole_call and len({form is None for form in formats[1:]}) > 1:
        raise ValueError("dynamic layers and layers in integers cannot stand in one network")
    program.output_format, program.integers = formats[-1], np.dtype(dtype)


def _output_shape(input_shape: tuple[int, ...], positions: int, n: int) -> tuple[int, ...]:
    if positions == 1:
        return (n,)
    ahead = input_shape[:-1]
    return (*ahead, n) if math.prod(ahead) == positions else (positions, n)
