"""The layers of a quantized network that compute in float: with quantized weights, or with none (see `layers`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nbdense.activations import Activation
from nbdense.engine import tables as engine
from nbdense.quant.model.checks import (
    activation_of,
    check_accumulator,
    check_columns,
    check_granularity,
    check_kernel,
    check_scales,
    one_of,
)
from nbdense.quant.model.layers import Format, OfKernel


class InFloat:
    """What reads and gives floats, through an activation that may be a custom one."""

    activation: str
    alpha: float
    custom: Activation | None

    @property
    def function(self) -> Activation:
        """The activation, with this layer's parameter."""
        return self.custom or activation_of(self.activation, self.alpha)

    @property
    def input_formats(self) -> tuple[Format, ...]:
        """Its input is float."""
        return (None,)

    @property
    def output_format(self) -> Format:
        """Its output is float."""
        return None


@dataclass(frozen=True, eq=False)
class DynamicDense(OfKernel, InFloat):
    """A dense layer of int8 weights on float inputs, which are quantized anew in every call.

    The whole call's input becomes uint8 by ONNX's DynamicQuantizeLinear (one scale and zero point from its least and
    greatest value, 0 included); the int32 products, times ``input scale * kernel_scales[j]``, plus the bias, are float.

    Attributes
    ----------
    name : str
        The layer's name.
    kernel : ndarray of int8, (n_in, n_out)
        Weights; in [-8, 7] where ``bits`` is 4.
    kernel_scales : ndarray of float32, (n_out,)
        Scale of each column.
    bias : ndarray of float32, (n_out,), or None
        Added at the end.
    activation : str
        Computed in float.
    alpha : float
        The activation's parameter, if it has one.
    granularity : str
        "per_channel" or "per_tensor".
    inputs : tuple of int, or None
        The tensor that it reads; None: the one before.
    positions : int
        Rows of columns in a row of data.
    bits : int
        Of the weights: 8 or 4, as which they are stored.
    kernel_zero_points : ndarray of int8, (n_out,), or None
        The integer of each column that stands for 0; None: it is 0, as in all that `quantize` makes.
    """

    kind: ClassVar[str] = "dynamic_dense"
    arrays: ClassVar[tuple[str, ...]] = ("kernel", "kernel_scales", "bias", "kernel_zero_points")

    name: str
    kernel: npt.NDArray[np.int8]
    kernel_scales: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32] | None = None
    activation: str = "linear"
    alpha: float = 0.0
    granularity: str = "per_channel"
    inputs: tuple[int, ...] | None = None
    positions: int = 1
    bits: int = 8
    custom: Activation | None = field(default=None, repr=False)
    kernel_zero_points: npt.NDArray[np.int8] | None = None

    def check(self, dtype: str, where: str) -> None:
        """Refuse what the integer program could not run exactly."""
        check_kernel(self, where)
        check_columns(self.kernel_scales, (self.n_out,), np.float32, f"{where}kernel_scales")
        check_scales(self.kernel_scales, where)
        if self.bias is not None:
            check_columns(self.bias, (self.n_out,), np.float32, f"{where}bias")
        check_granularity(self, where)
        largest = 255 * int(np.abs(self.weights().astype(np.int64)).sum(axis=0).max())
        check_accumulator(-largest, largest, self, where)
        _ = self.function


@dataclass(frozen=True, eq=False)
class WeightOnlyDense(OfKernel, InFloat):
    """A dense layer that computes in float with weights kept as integers, of 8 or 4 bits.

    Attributes
    ----------
    name : str
        The layer's name.
    kernel : ndarray of int8, (n_in, n_out)
        Weights; in [-8, 7] where ``bits`` is 4.
    kernel_scales : ndarray of float32, (blocks, n_out)
        Scale of each column of each block of ``block_size`` inputs, of which the last may be shorter.
    bias : ndarray of float32, (n_out,), or None
        Added at the end.
    block_size : int
        Inputs a block; 0: all of them are one.
    bits : int
        Of the weights: 8 or 4, as which they are stored.
    activation : str
        Computed in float.
    alpha : float
        The activation's parameter, if it has one.
    inputs : tuple of int, or None
        The tensor that it reads; None: the one before.
    positions : int
        Rows of columns in a row of data.
    kernel_zero_points : ndarray of int8, (blocks, n_out), or None
        The integer that stands for 0 where each scale does; None: it is 0, as in all that `quantize` makes.
    """

    kind: ClassVar[str] = "weight_only_dense"
    arrays: ClassVar[tuple[str, ...]] = ("kernel", "kernel_scales", "bias", "kernel_zero_points")

    name: str
    kernel: npt.NDArray[np.int8]
    kernel_scales: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32] | None = None
    block_size: int = 0
    bits: int = 8
    activation: str = "linear"
    alpha: float = 0.0
    inputs: tuple[int, ...] | None = None
    positions: int = 1
    custom: Activation | None = field(default=None, repr=False)
    kernel_zero_points: npt.NDArray[np.int8] | None = None

    def of_inputs(self, table: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return scales or zero points as what meets the kernel elementwise: those of blocks once for each input.

        Parameters
        ----------
        table : ndarray, (blocks, n_out)
            As the layer holds them.
        """
        return np.repeat(table, self.block_size or self.n_in, axis=0)[: self.n_in]

    def check(self, dtype: str, where: str) -> None:
        """Refuse what does not fit together."""
        check_kernel(self, where)
        if self.block_size < 0:
            raise ValueError(f"{where}block_size must be at least 0, got {self.block_size}")
        blocks = -(-self.n_in // (self.block_size or self.n_in))
        check_columns(self.kernel_scales, (blocks, self.n_out), np.float32, f"{where}kernel_scales")
        check_scales(self.kernel_scales, where)
        if self.bias is not None:
            check_columns(self.bias, (self.n_out,), np.float32, f"{where}bias")
        _ = self.function


# What float layers are called, and the engine's kinds of row.
ENGINE_KINDS = {
    "dense": engine.DENSE,
    "activation": engine.ACTIVATION,
    "batch_norm": engine.FROZEN_NORM,
    "layer_norm": engine.LAYER_NORM,
    "add": engine.ADD,
    "flatten": engine.RESHAPE,
}

# Kinds of float layers, the tensors that each has (a "?" marks those that may be missing), and its inputs.
FLOAT_KINDS: dict[str, tuple[tuple[str, ...], int]] = {
    "dense": (("kernel", "bias?"), 1),
    "activation": ((), 1),
    "batch_norm": (("gamma?", "beta?", "mean", "variance"), 1),
    "layer_norm": (("gamma?", "beta?"), 1),
    "add": ((), 2),
    "flatten": ((), 1),
}


@dataclass(frozen=True, eq=False)
class FloatLayer(InFloat):
    """A layer that was left in float.

    Attributes
    ----------
    name : str
        The layer's name.
    what : str
        "dense", "activation", "batch_norm" (by its running statistics), "layer_norm", "add" or "flatten".
    n : int
        Columns of the input.
    tensors : dict of str to ndarray of float32
        "kernel" (n, n_out) and "bias"; "gamma", "beta", "mean" and "variance" of norms.
    activation : str
        Name in ``nbdense.activations.ACTIVATIONS``, or a custom one's.
    alpha : float
        The activation's parameter, if it has one; a norm's epsilon.
    inputs : tuple of int, or None
        The tensors that it reads; None: the one before.
    positions : int
        Rows of columns in a row of data, of the input.
    custom : Activation, optional
        The activation, where it is a custom one.
    """

    kind: ClassVar[str] = "float"
    arrays: ClassVar[tuple[str, ...]] = ()

    name: str
    what: str
    n: int
    tensors: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    activation: str = "linear"
    alpha: float = 0.0
    inputs: tuple[int, ...] | None = None
    positions: int = 1
    custom: Activation | None = field(default=None, repr=False)

    @property
    def n_in(self) -> int:
        """Columns of the input."""
        return self.n

    @property
    def n_out(self) -> int:
        """Columns of the output."""
        if self.what == "dense":
            return int(self.tensors["kernel"].shape[1])
        return self.n * self.positions if self.what == "flatten" else self.n

    @property
    def input_formats(self) -> tuple[Format, ...]:
        """Its inputs are float."""
        return (None,) * FLOAT_KINDS[self.what][1]

    def check(self, dtype: str, where: str) -> None:
        """Refuse what does not fit together."""
        one_of(f"{where}what", self.what, FLOAT_KINDS)
        names, inputs = FLOAT_KINDS[self.what]
        if inputs == 2 and (self.inputs is None or len(self.inputs) != 2):
            raise ValueError(f"{where}a sum needs two inputs")
        wanted = {name.rstrip("?") for name in names}
        missing = {name for name in names if not name.endswith("?")} - set(self.tensors)
        if missing or not set(self.tensors) <= wanted:
            raise ValueError(f"{where}a {self.what} has the tensors {sorted(wanted)}, got {sorted(self.tensors)}")
        columns = self.tensors["kernel"].shape[-1:] if "kernel" in self.tensors else (self.n,)
        for name, value in self.tensors.items():
            shape = (self.n, *columns) if name == "kernel" else columns
            check_columns(value, shape, np.float32, f"{where}{name}")
        if self.what not in ("dense", "activation") and self.activation != "linear":
            raise ValueError(f"{where}a {self.what} has no activation, got {self.activation!r}")
        _ = self.function
