"""The program of a file that `Sequential.save` wrote: its layers as prediction runs them, weights prepared."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.files import TensorFile
from nbdense.runtime import floats
from nbdense.runtime.activations import ROWWISE, Function, described, function_of, numbers_of, thresholded_relu
from nbdense.runtime.program import Program
from nbdense.runtime.settings import number, one_of, shape, text, whole

Array = npt.NDArray[Any]
Entries = Mapping[str, Any]

KERNEL_LIMITS = {8: 127, 4: 7}  # the largest weight of so many bits
LEAST_FACTOR = 1 / 16  # no learned range shrinks to less
LEAST_SCALE = float(np.finfo(np.float32).tiny)


def sequential(file: TensorFile) -> Program:
    """Return the program of a file of kind "model".

    Parameters
    ----------
    file : TensorFile
        The file, opened.
    """
    return _Reader(file).program


class _Reader:
    """The layers of a file, read one after the other into a program."""

    def __init__(self, file: TensorFile) -> None:
        config, self._file = file.config, file
        text(config, "name")
        dtype = np.dtype(one_of(config, "dtype", ("float32", "float64")))
        first, *layers = config["layers"]
        if text(first, "kind") != "input":
            raise ValueError("the model has no Input")
        if first["config"]["name"] is not None:
            _name_of(first["config"])
        self.shape = shape(first["config"]["shape"])
        self.program = Program(dtype, self.shape, positions=math.prod(self.shape[:-1]))
        self.output = 0  # the number of the tensor that the next layer reads
        self._scales: dict[int, np.float32] = {}  # of tensors that hold what integers of a scale do
        self._read: set[str] = set()
        for layer in layers:
            self.layer(layer, "")
        left = {name for name in file.shapes if name.startswith("weights/")} - self._read
        if left:
            raise ValueError(f"no layer has the tensor {min(left)!r}")
        if not self.program.steps:
            self.add(lambda x: x)
        self.program.output_shape = self.shape

    @property
    def positions(self) -> int:
        """Rows of columns that a row of data has at this point."""
        return math.prod(self.shape[:-1])

    def layer(self, entries: Entries, prefix: str) -> None:
        """Read a layer."""
        kind, config = _kind_of(entries), entries["config"]
        if kind not in LAYERS:
            raise ValueError(f"unknown kind of layer {kind!r}")
        LAYERS[kind][1](self, config, f"{prefix}{_name_of(config)}")

    def add(self, step: floats.Step, *inputs: int) -> None:
        """Add a step that reads the current tensor, or others; what it makes is the current one from now on."""
        self.output = self.program.add(step, *(inputs or (self.output,)))

    def tensor(self, name: str, *sizes: int) -> Array:
        """Return the weights of a name in the model's dtype."""
        self._read.add(f"weights/{name}")
        value = self._file.read(f"weights/{name}", sizes)
        if value.dtype.kind not in "fiub":
            raise ValueError(f"tensor weights/{name} must hold numbers, got {value.dtype}")
        return value.astype(self.program.dtype)

    def rounded_kernel(self, name: str, n_in: int, n_out: int, bits: int) -> tuple[Array, Array]:
        """Return a kernel rounded to integers of so many bits times their columns' scales, and these."""
        kernel, scales = self.tensor(f"{name}/kernel", n_in, n_out), self.tensor(f"{name}/kernel_scale", n_out)
        limit = KERNEL_LIMITS[bits]
        steps = np.rint(np.minimum(np.maximum(kernel / scales, -limit), limit))
        return np.where(scales > 0, steps * scales, 0), scales

    def rounded_bias(self, bias: Array, scales: Array) -> Array:
        """Return a bias rounded to steps of an accumulator, if the current tensor has a scale."""
        scale = self._scales.get(self.output)
        if scale is None:
            return bias
        step = (scale * scales.astype(np.float32)).astype(np.float64)
        wide = bias.astype(np.float64)
        return np.where(step > 0, np.rint(wide / step) * step, wide).astype(bias.dtype)

    # -- kinds of layers --

    def dense(self, config: Entries, name: str) -> None:
        units, (activation, numbers) = whole(config, "units", 1), described(config["activation"])
        _check_columns(activation, units)
        bits = one_of(config, "kernel_bits", KERNEL_LIMITS) if "kernel_bits" in config else None
        n_in = self.shape[-1]
        bias = None
        if one_of(config, "use_bias", (False, True)):
            bias = self.tensor(f"{name}/bias", units)
        if bits is None:
            kernel = self.tensor(f"{name}/kernel", n_in, units)
        else:
            kernel, scales = self.rounded_kernel(name, n_in, units, bits)
            bias = None if bias is None else self.rounded_bias(bias, scales)
        self.add(floats.dense(kernel, bias, function_of(activation, numbers)))
        self.shape = (*self.shape[:-1], units)

    def activation(self, function: Function | None) -> None:
        """Add an activation by itself; the linear one is nothing."""
        if function is not None:
            self.add(function)

    def activation_layer(self, config: Entries, name: str) -> None:
        activation, numbers = described(config["activation"])
        _check_columns(activation, self.shape[-1])
        self.activation(function_of(activation, numbers))

    def rectifier(self, config: Entries, name: str) -> None:
        most = math.inf if config["max_value"] is None else number(config, "max_value")
        threshold, slope = number(config, "threshold"), number(config, "negative_slope")
        for value in (min(most, 1.0), threshold, slope):
            if not 0 <= value < math.inf:
                raise ValueError(f"a ReLU's numbers must be at least 0 and finite, got {value!r}")
        self.activation(lambda z: thresholded_relu(z, threshold, slope, most))

    def leaky_rectifier(self, config: Entries, name: str) -> None:
        self.activation(function_of("leaky_relu", numbers_of("leaky_relu", number(config, "negative_slope"))))

    def exponential_unit(self, config: Entries, name: str) -> None:
        self.activation(function_of("elu", numbers_of("elu", number(config, "alpha"))))

    def softmax(self, config: Entries, name: str) -> None:
        if config["axis"] not in (-1, [-1], len(self.shape)):
            raise ValueError(f"the axis of a softmax must be the last, got {config['axis']!r}")
        _check_columns("softmax", self.shape[-1])
        self.activation(function_of("softmax"))

    def flatten(self, config: Entries, name: str) -> None:
        if self.positions > 1:
            before, scale = self.positions, self._scales.get(self.output)
            self.add(floats.flatten(before))
            if scale is not None:
                self._scales[self.output] = scale
        self.shape = (math.prod(self.shape),)

    def stack(self, config: Entries, name: str) -> None:
        """Read a model among the layers."""
        for place, layer in enumerate(config["layers"]):
            if place > 0 or _kind_of(layer) != "input":
                self.layer(layer, f"{name}/")
            elif shape(layer["config"]["shape"]) != self.shape:
                raise ValueError(f"the model {name!r} reads another shape than {self.shape}")

    def nothing(self, config: Entries, name: str) -> None:
        """Read a layer that does something in training alone."""

    def norm(self, kind: str, tensors: dict[str, str], config: Entries, name: str) -> None:
        """Read a normalisation, which has these tensors under their names in files."""
        n, epsilon = self.shape[-1], number(config, "epsilon")
        if not 0 < epsilon < math.inf:
            raise ValueError(f"epsilon must be a finite number above 0, got {epsilon!r}")
        if config.get("axis", -1) not in (-1, len(self.shape)):
            raise ValueError(f"the axis of a normalisation must be the last, got {config['axis']!r}")
        found = {role: self.tensor(f"{name}/{tensor}", n) for role, tensor in tensors.items()}
        self.add(floats.NORMS[kind](found, epsilon))

    def batch_normalization(self, config: Entries, name: str) -> None:
        running = {"mean": "moving_mean", "variance": "moving_variance"}
        self.norm("batch_norm", _gamma_and_beta(config) | running, config, name)

    def layer_normalization(self, config: Entries, name: str) -> None:
        self.norm("layer_norm", _gamma_and_beta(config), config, name)

    def rms_normalization(self, config: Entries, name: str) -> None:
        self.norm("rms_norm", {"scale": "scale"}, config, name)

    def residual(self, config: Entries, name: str) -> None:
        start, before, inner = self.output, self.shape, config["layers"]
        if not isinstance(inner, list) or not inner or {*map(_kind_of, inner)} & {"input", "flatten"}:
            raise ValueError("a residual block needs layers that keep the rows' shape")
        for layer in inner:
            self.layer(layer, f"{name}/")
        end, after = self.output, self.shape
        if before != after:
            self.output, self.shape = start, before
            self.projection(config, f"{name}/projection", before[-1], after[-1])
            start, self.shape = self.output, after
        self.add(floats.add, start, end)

    def projection(self, config: Entries, name: str, n_in: int, n_out: int) -> None:
        """Read the kernel through which a block's input goes."""
        if "kernel_bits" not in config:
            self.add(floats.dense(self.tensor(f"{name}/kernel", n_in, n_out), None, None))
            return
        kernel, _ = self.rounded_kernel(name, n_in, n_out, one_of(config, "kernel_bits", KERNEL_LIMITS))
        self.add(floats.dense(kernel, None, None))
        if config.get("projection") is not None:
            self.fake_quantize(config["projection"], f"{name}_output")

    def fake_quantize(self, config: Entries, name: str) -> None:
        limits = np.iinfo(one_of(config, "dtype", ("int8", "uint8"), "int8"))
        low, high = number(config, "low"), number(config, "high")
        if not -math.inf < np.float32(low) <= np.float32(high) < math.inf:
            raise ValueError(f"a range must be finite, got {low!r} to {high!r}")
        factors = np.ones(2)
        if one_of(config, "learned", (False, True), True):
            factors = self.tensor(f"{name}/range_factor", 2).astype(np.float64)
        low, high = (
            float(np.float32(end * (factor if factor > LEAST_FACTOR else LEAST_FACTOR)))
            for end, factor in zip((min(low, 0.0), max(high, 0.0)), factors.tolist(), strict=True)
        )
        scale = float(np.float32((high - low) / (limits.max - limits.min)))
        if scale < LEAST_SCALE:
            low, scale = 0.0, float(np.float32(1.0 / (limits.max - limits.min)))
        zero_point = min(max(float(np.rint(limits.min - low / scale)), limits.min), limits.max)
        made = self.program.dtype.type
        s, least, most = made(scale), made(limits.min - zero_point), made(limits.max - zero_point)
        self.add(lambda x: np.rint(np.minimum(np.maximum(x / s, least), most)) * s)
        self._scales[self.output] = np.float32(scale)


def _name_of(config: Entries) -> str:
    """Return the name of a layer, of which its tensors' names are made."""
    name = text(config, "name")
    if not name or "/" in name:
        raise ValueError(f"the name of a layer must be a non-empty text without '/', got {name!r}")
    return name


def _gamma_and_beta(config: Entries) -> dict[str, str]:
    switches = {"gamma": "scale", "beta": "center"}
    return {tensor: tensor for tensor, switch in switches.items() if one_of(config, switch, (False, True))}


def _check_columns(activation: str, columns: int) -> None:
    if activation in ROWWISE and columns == 1:
        raise ValueError(f"{activation} over 1 column is always the same")


def _kind_of(entries: Entries) -> str:
    """Return the kind of a layer, which files name, or its class, as in the description of a model among layers."""
    if "kind" in entries:
        return text(entries, "kind")
    return next(kind for kind, (name, _) in (*LAYERS.items(), _INPUT) if name == entries["class_name"])


_INPUT = ("input", ("InputLayer", None))
# By kind: the name of the class, and what reads the layer.
LAYERS: dict[str, tuple[str, Callable[[_Reader, Entries, str], None]]] = {
    "dense": ("Dense", _Reader.dense),
    "activation": ("Activation", _Reader.activation_layer),
    "re_lu": ("ReLU", _Reader.rectifier),
    "leaky_re_lu": ("LeakyReLU", _Reader.leaky_rectifier),
    "elu": ("ELU", _Reader.exponential_unit),
    "softmax": ("Softmax", _Reader.softmax),
    "flatten": ("Flatten", _Reader.flatten),
    "dropout": ("Dropout", _Reader.nothing),
    "activity_regularization": ("ActivityRegularization", _Reader.nothing),
    "batch_normalization": ("BatchNormalization", _Reader.batch_normalization),
    "layer_normalization": ("LayerNormalization", _Reader.layer_normalization),
    "rms_normalization": ("RMSNormalization", _Reader.rms_normalization),
    "residual": ("Residual", _Reader.residual),
    "fake_quantize": ("FakeQuantize", _Reader.fake_quantize),
    "fake_quantized_dense": ("FakeQuantizedDense", _Reader.dense),
    "fake_quantized_residual": ("FakeQuantizedResidual", _Reader.residual),
    "sequential": ("Sequential", _Reader.stack),
}
