"""The layers of integer networks as steps of a C program: the numbers that are made in advance, and the calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbdense.export.c.source import POINTER, Source
from nbdense.export.c.steps.rounding import ROUNDINGS, Rounding, Scales
from nbdense.export.c.steps.sparse import SparseKernel, sparse_kernel
from nbdense.export.c.steps.step import Step
from nbdense.export.c.targets import CMSIS_NN, nibbles
from nbdense.quant.model.network import (
    LIMITS,
    QuantizedActivation,
    QuantizedAdd,
    QuantizedDense,
    QuantizedNetwork,
    QuantizedSoftmax,
)

_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, eq=False)
class DenseStep(Step):
    """A dense layer.

    Attributes
    ----------
    layer : QuantizedDense
        The layer.
    weights : ndarray of int8, (n_in, n_out)
        Its weights, less their zero points.
    bias : ndarray of int64, (n_out,)
        Its bias, with what the input's zero point adds.
    scales : Scales
        What its sums are requantised with.
    bounds : ndarray of int64, (n_out,)
        The largest sums, without their signs.
    limits : (int, int)
        The least and greatest integer, before a table.
    rounding : str
        The network's.
    sparse : SparseKernel or None
        The weights without zeros, where they take less so.
    """

    layer: QuantizedDense
    weights: Any
    bias: Any
    scales: Scales
    bounds: Any
    limits: tuple[int, int]
    rounding: str
    sparse: SparseKernel | None = None

    @property
    def is_by_target(self) -> bool:
        """Tell whether the order of the weights, and the C function, are the processor's."""
        return self.sparse is None and self.layer.bits == 8

    def write(self, source: Source, label: str, inputs: Sequence[str], output: str) -> None:
        layer, parts = self.layer, source.parts
        if self.is_by_target and source.target.layout is CMSIS_NN:
            self._call_cmsis_nn(source, label, inputs[0], output)
            return
        fields = {
            "weights": self._weights(source, label),
            "bias": source.array("int32_t", f"bias_{label}", self.bias.astype(np.int32)),
            "multipliers": source.array("int32_t", f"multipliers_{label}", self.scales.multipliers.astype(np.int32)),
        }
        if "shifts" in parts["pointers"]:
            fields["shifts"] = source.array("int8_t", f"shifts_{label}", self.scales.shifts.astype(np.int8))
        if "table" in parts["pointers"]:
            table = layer.table
            fields["table"] = "0" if table is None else source.array(source.value, f"table_{label}", table)
        if "gaps" in parts["pointers"]:
            fields |= (
                dict.fromkeys(("gaps", "counts"), "0") if self.sparse is None else self.sparse.write(source, label)
            )
        pointers = len(fields)
        fields |= {"n_in": str(layer.n_in), "n_out": str(layer.n_out)}
        numbers = layer_numbers(self, ROUNDINGS[self.rounding], each="shifts" in parts["pointers"])
        fields |= {name: str(value) for name, (_, value) in numbers.items() if f" {name};" in parts["numbers"]}
        size = POINTER * pointers + 8 + _padded_size(parts["numbers"])
        kernel = self._kernel(parts["dense"])
        function = "dense" if kernel.startswith(("dense_of_words", "dense_of_blocks")) else kernel
        address = source.layer("dense_layer", fields, size)
        call = f"{function}({address}, {{}}, {{}})"
        operands = {inputs[0]: layer.n_in, output: layer.n_out}
        source.repeated((parts["requantised"], kernel), layer.positions, call, operands)

    def _call_cmsis_nn(self, source: Source, label: str, given: str, output: str) -> None:
        """Write a call of CMSIS-NN, and one that looks the activation up."""
        layer, scales = self.layer, self.scales
        self._check_cmsis_nn(source.value)
        fields = {
            "weights": self._weights(source, label),
            "bias": source.array("int32_t", f"bias_{label}", self.bias.astype(np.int32)),
            "multipliers": source.array("int32_t", f"multipliers_{label}", scales.multipliers.astype(np.int32)),
            "shifts": source.array("int32_t", f"shifts_{label}", -scales.shifts.astype(np.int32)),
        }
        size = POINTER * len(fields) + 24
        numbers = (layer.positions, layer.n_in, layer.n_out, layer.pre_zero_point, *self.limits)
        names = ("rows", "n_in", "n_out", "zero_point", "low", "high")
        fields |= {name: str(number) for name, number in zip(names, numbers, strict=True)}
        kernel, address = CMSIS_NN.kernel, source.layer("fully_connected_layer", fields, size)
        call = f"{kernel}({address}, {given}, {output})"
        source.call((kernel,), f"if ({call} != 0) {{\n        return -2;\n    }}")
        if layer.table is not None:
            table = source.array(source.value, f"table_{label}", layer.table)
            source.call(("look_up",), f"look_up({table}, {output}, {output}, {layer.positions * layer.n_out});")

    def _check_cmsis_nn(self, value: str) -> None:
        """Refuse what CMSIS-NN computes otherwise."""
        name = f"layer {self.layer.name!r}: CMSIS-NN"
        if value != "int8_t":
            raise ValueError(f"{name} has int8 alone: quantize the model with activation_dtype='int8'")
        if ROUNDINGS[self.rounding].cmsis_nn is None:
            raise ValueError(
                f"{name} does not round as {self.rounding!r} does: quantize the model with rounding='gemmlowp', or "
                "with 'tflite' for a CMSIS-NN that is built with CMSIS_NN_USE_SINGLE_ROUNDING"
            )
        left = np.maximum(-self.scales.shifts, 0)
        high = (self.bounds * self.scales.multipliers) >> np.maximum(self.scales.shifts + 30, 0)
        if (self.scales.shifts > 30).any() or ((self.bounds << left) > _INT32_MAX).any() or (high > _INT32_MAX).any():
            raise ValueError(
                f"{name} cannot rescale its sums, which are too far from its output's scale: quantize the model anew, "
                "with data for calibration that is like what it will see, or write it for another target"
            )

    def _weights(self, source: Source, label: str) -> str:
        """Define the array of weights; return its name."""
        if self.sparse is not None:
            return source.array("int8_t", f"weights_{label}", self.sparse.weights)
        if self.layer.bits == 4:
            return source.array("int8_t", f"weights_{label}", nibbles(self.weights))
        layout = source.target.layout
        return source.array("int8_t", f"weights_{label}", layout.lay_out(self.weights), aligned=layout.aligned)

    def _kernel(self, of_target: str) -> str:
        """Return the C function that multiplies."""
        if self.sparse is not None:
            return f"sparse_of_{self.sparse.width}"
        return "dense_of_nibbles" if self.layer.bits == 4 else of_target


def layer_numbers(step: DenseStep, rounding: Rounding, each: bool) -> dict[str, tuple[str, int]]:
    """Return numbers of a layer's structure, by name, with their C types.

    Parameters
    ----------
    step : DenseStep
        The layer.
    rounding : Rounding
        The network's.
    each : bool
        Whether each channel has a shift of its own.
    """
    zero_point = step.layer.pre_zero_point
    numbers = {"zero_point": ("int16_t", zero_point)} if each else rounding.numbers(step.scales, zero_point)
    return {**numbers, "low": ("int16_t", step.limits[0]), "high": ("int16_t", step.limits[1])}


def _padded_size(members: str) -> int:
    size = sum(int(kind[3:].removesuffix("_t")) // 8 for kind in members.split() if kind.startswith("int"))
    return -(-size // 4) * 4


@dataclass(frozen=True, eq=False)
class AddStep(Step):
    """A sum of two tensors.

    Attributes
    ----------
    layer : QuantizedAdd
        The layer.
    scales : Scales
        What its terms are scaled with.
    limits : (int, int)
        The least and greatest integer.
    rounding : str
        The network's.
    """

    layer: QuantizedAdd
    scales: Scales
    limits: tuple[int, int]
    rounding: str

    def write(self, source: Source, label: str, inputs: Sequence[str], output: str) -> None:
        layer, wide = self.layer, len(self.scales.multipliers) == 2
        shifts = ", ".join(map(str, self.scales.shifts))
        fields = {
            "multipliers": "{"
            + ", ".join(f"{number}{'LL' if wide else ''}" for number in self.scales.multipliers)
            + "}",
            "n": str(layer.positions * layer.n),
            "zero_point_a": str(layer.input_zero_points[0]),
            "zero_point_b": str(layer.input_zero_points[1]),
            "zero_point": str(layer.output_zero_point),
            "low": str(self.limits[0]),
            "high": str(self.limits[1]),
        }
        if wide:
            fields["shift"], fields["bits"] = shifts.split(", ")
        else:
            fields["shifts"] = "{" + shifts + "}"
        address = source.layer("sum_layer", fields, 32)
        kernels = (ROUNDINGS[self.rounding].kernel_sum, "add")
        source.call(kernels, f"add({address}, {inputs[0]}, {inputs[1]}, {output});")


@dataclass(frozen=True, eq=False)
class LookUpStep(Step):
    """An activation by a table of its own.

    Attributes
    ----------
    layer : QuantizedActivation
        The layer.
    """

    layer: QuantizedActivation

    def write(self, source: Source, label: str, inputs: Sequence[str], output: str) -> None:
        table = source.array(source.value, f"table_{label}", self.layer.table)
        count = self.layer.positions * self.layer.n
        source.call(("look_up",), f"look_up({table}, {inputs[0]}, {output}, {count});")


@dataclass(frozen=True, eq=False)
class SoftmaxStep(Step):
    """Softmax in integers.

    Attributes
    ----------
    layer : QuantizedSoftmax
        The layer.
    """

    layer: QuantizedSoftmax

    def write(self, source: Source, label: str, inputs: Sequence[str], output: str) -> None:
        layer = self.layer
        table = source.array("int32_t", f"exponentials_{label}", layer.exponentials)
        call = f"softmax({table}, {{}}, {{}}, {layer.n})"
        source.repeated(("softmax",), layer.positions, call, {inputs[0]: layer.n, output: layer.n})


# -- made of layers --------------------------------------------------------------------------------------------------


def _dense(layer: QuantizedDense, network: QuantizedNetwork) -> Step:
    weights = layer.weights()
    if weights.min() < -128 or weights.max() > 127:
        raise ValueError(
            f"layer {layer.name!r}: its weights less their zero points do not fit 8 bits: quantize a float model with "
            "nbdense.quantize, whose weights have no zero points"
        )
    sums = weights.astype(np.int64)
    bias = layer.bias - layer.input_zero_point * sums.sum(axis=0)
    largest = max(map(abs, LIMITS[network.activation_dtype])) * np.abs(sums).sum(axis=0)
    if (np.abs(bias) + largest * (16 if layer.bits == 4 else 1)).max() > _INT32_MAX:
        raise ValueError(
            f"layer {layer.name!r}: with {layer.n_in:,} inputs its sums can leave 32 bits in C: make it narrower"
        )
    low, high = (limit - layer.input_zero_point for limit in LIMITS[network.activation_dtype])
    positive, negative = np.maximum(sums, 0).sum(axis=0), np.minimum(sums, 0).sum(axis=0)
    most, least = positive * high + negative * low + layer.bias, positive * low + negative * high + layer.bias
    bounds = np.maximum(most, -least)
    scales = ROUNDINGS[network.rounding].dense(layer, bounds)
    limits = layer.clamp(network.activation_dtype, network.rounding)
    kernel = weights.astype(np.int8)
    sparse = sparse_kernel(kernel, nibbles(kernel).nbytes if layer.bits == 4 else kernel.nbytes)
    return DenseStep(layer, kernel, bias, scales, bounds, limits, network.rounding, sparse)


def _add(layer: QuantizedAdd, network: QuantizedNetwork) -> Step:
    scales = ROUNDINGS[network.rounding].add(layer)
    return AddStep(layer, scales, layer.clamp(network.activation_dtype, network.rounding), network.rounding)


STEPS: Mapping[type[Any], Callable[[Any, QuantizedNetwork], Step]] = {
    QuantizedDense: _dense,
    QuantizedAdd: _add,
    QuantizedActivation: lambda layer, network: LookUpStep(layer),
    QuantizedSoftmax: lambda layer, network: SoftmaxStep(layer),
}
