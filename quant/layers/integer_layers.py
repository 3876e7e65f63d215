"""The layers that compute in integers alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nbdense.activations import Alpha
from nbdense.engine.tables import leading_dimension
from nbdense.quant.kernels import tables
from nbdense.quant.kernels.microkernel import OFFSET
from nbdense.quant.layers import sparse_rows
from nbdense.quant.layers.base import Activated, Format, FromIntegers, Layer, OfColumns, OfKernel, ToIntegers
from nbdense.quant.layers.checks import (
    LIMITS,
    check_accumulator,
    check_columns,
    check_format,
    check_granularity,
    check_kernel,
    check_table,
    clamp_limits,
)
from nbdense.quant.layers.layout import Layout
from nbdense.runtime.rounding import SHIFT_OF_SUMS, fixed_point_multiplier


@dataclass(frozen=True, eq=False)
class QuantizedDense(OfKernel, FromIntegers, ToIntegers, Activated):
    """A dense layer in integers: multiply and accumulate, requantise and clamp, then look up in the table if there.

    Attributes
    ----------
    name : str
        The layer's name.
    kernel : ndarray of int8, (n_in, n_out)
        Weights; in [-8, 7] where ``bits`` is 4.
    kernel_scales : ndarray of float32, (n_out,)
        Scale of each column; all equal where ``granularity`` is "per_tensor".
    bias : ndarray of int32, (n_out,)
        Added to the accumulator, of scale ``input_scale * kernel_scales[j]``, taken in float32; zeros where the layer
        has none.
    input_scale, input_zero_point : float, int
        Scale and zero point of the layer's input: of the tensor that it reads, or what that is quantized with where it
        is float.
    output_scale, output_zero_point : float, int
        Scale and zero point of the layer's output, after its activation.
    pre_scale, pre_zero_point : float, int
        Scale and zero point of the requantised accumulator, which the table is indexed by; the output's where there is
        no table.
    activation : str
        Name in ``nbdense.activations.ACTIVATIONS``, or a custom one's; "linear" in the last layer of a network that
        ends in softmax.
    table : ndarray of the activation dtype, (256,), or None
        The activation: entry ``q - minimum`` is the output for the requantised integer q. None: linear or a clamp.
    granularity : str
        "per_channel" or "per_tensor".
    alpha : float or tuple of float
        The activation's parameter, if it has one, or all of several.
    inputs : tuple of int, or None
        The tensor that it reads; None: the one before.
    positions : int
        Rows of columns in a row of data.
    bits : int
        Bits of the weights: 8 or 4, as which they are stored.
    kernel_zero_points : ndarray of int8, (n_out,), or None
        The integer of each column that stands for 0; None: it is 0, as in all that `quantize` makes.
    """

    kind: ClassVar[str] = "dense"
    arrays: ClassVar[tuple[str, ...]] = ("kernel", "kernel_scales", "bias", "table", "kernel_zero_points")

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
    alpha: Alpha = 0.0
    inputs: tuple[int, ...] | None = None
    positions: int = 1
    bits: int = 8
    kernel_zero_points: npt.NDArray[np.int8] | None = None

    def bias_scales(self) -> npt.NDArray[np.float32]:
        """Return the scales of the bias and the accumulator, float32 (n_out,)."""
        return np.float32(self.input_scale) * self.kernel_scales

    def fixed_point_multipliers(self) -> list[tuple[int, int]]:
        """Return (multiplier, shift) of each column, for the roundings in fixed point.

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
        """Return the least and greatest requantised integer that the activation leaves possible.

        Parameters
        ----------
        dtype : str
            The activation dtype.
        rounding : str
            Rounding of bounds that are not whole: "onnx" half to even, the others half away from zero.
        """
        if self.table is not None:
            return LIMITS[dtype]
        return clamp_limits(self.function, self.output_scale, self.output_zero_point, dtype, rounding)

    def check(self, dtype: str, where: str) -> None:
        """Refuse what the integer program could not run exactly."""
        check_kernel(self, where)
        check_columns(self.bias, (self.n_out,), np.int32, f"{where}bias")
        check_table(self, dtype, where)
        for key in ("input", "output", "pre"):
            check_format(getattr(self, f"{key}_scale"), getattr(self, f"{key}_zero_point"), dtype, where, key)
        if self.table is None and (self.pre_scale, self.pre_zero_point) != self.output_format:
            raise ValueError(f"{where}pre_scale and pre_zero_point must be the output's where there is no table")
        check_granularity(self, where)
        with np.errstate(over="ignore", under="ignore"):
            scales = self.bias_scales()
            multipliers = scales / np.float32(self.pre_scale)
        if not ((self.kernel_scales > 0) & (scales > 0) & (multipliers < np.inf)).all():
            raise ValueError(f"{where}the scales of its input, weights and output are too far apart for float32")
        self._check_accumulator(dtype, where)

    def _check_accumulator(self, dtype: str, where: str) -> None:
        low, high = (limit - self.input_zero_point for limit in LIMITS[dtype])
        weights = self.weights()
        positive = np.maximum(weights, 0).sum(axis=0, dtype=np.int64)
        negative = np.minimum(weights, 0).sum(axis=0, dtype=np.int64)
        most = positive * high + negative * low + self.bias
        least = positive * low + negative * high + self.bias
        check_accumulator(int(least.min()), int(most.max()), self, where)

    def lay_out(self, layout: Layout, index: int) -> None:
        """Write the layer's row of the integer program, its weights and its columns.

        Parameters
        ----------
        layout : Layout
            Layout of the program.
        index : int
            The layer's place in the network.
        """
        zero_point = self.input_zero_point - layout.minimum - OFFSET
        # May wrap, as the sums that are added to it will.
        bias = (self.bias - zero_point * self.weights().sum(axis=0, dtype=np.int64)).astype(np.int32)
        columns = {"bias": bias, "multipliers": self.bias_scales() / np.float32(self.pre_scale)}
        if layout.rounding != "onnx":
            columns["fixed_multipliers"], columns["shifts"] = np.array(self.fixed_point_multipliers()).T
        blocks = layout.sparse.blocks.get(index)
        weights = sparse_rows.integer_fields(layout, blocks) if blocks else {"kernel": layout.kernel(self.kernel)}
        layout.integer_row(
            tables.SPARSE_PRODUCT if blocks else tables.PRODUCT,
            index,
            **weights,
            zero_points=layout.zero_points(self.kernel_zero_points),
            channels=layout.columns(leading_dimension(self.n_out), **columns),
            table=-1 if self.table is None else layout.table(self.table),
            **layout.clamp(self.clamp(layout.dtype, layout.rounding), self.pre_zero_point),
        )


@dataclass(frozen=True, eq=False)
class QuantizedAdd(OfColumns, ToIntegers, Activated):
    """The sum of two integer tensors, rescaled to one format and clamped.

    "onnx": round_half_even(float32(a - za) * (sa / s) + float32(b - zb) * (sb / s)) + z, with the ratios, products and
    sum rounded to float32. The others: both terms shifted left by 20 and taken to twice the larger scale by fixed-point
    multipliers, then summed and taken to the output's (TFLite, kernels/internal/reference/add.h).

    Attributes
    ----------
    name : str
        The layer's name.
    n : int
        Columns.
    input_scales, input_zero_points : tuple of two
        Scales and zero points of the two tensors.
    output_scale, output_zero_point : float, int
        Scale and zero point of the sum.
    activation : str
        "linear", or a clamp.
    alpha : float or tuple of float
        The activation's parameter, if it has one, or all of several.
    inputs : tuple of two int
        The tensors that it reads.
    positions : int
        Rows of columns in a row of data.
    """

    kind: ClassVar[str] = "add"
    arrays: ClassVar[tuple[str, ...]] = ()

    name: str
    n: int
    input_scales: tuple[float, float]
    input_zero_points: tuple[int, int]
    output_scale: float
    output_zero_point: int
    activation: str = "linear"
    alpha: Alpha = 0.0
    inputs: tuple[int, ...] | None = None
    positions: int = 1

    @property
    def input_formats(self) -> tuple[Format, ...]:
        """Scales and zero points of the inputs."""
        return tuple(zip(self.input_scales, self.input_zero_points, strict=True))

    def clamp(self, dtype: str, rounding: str) -> tuple[int, int]:
        """Return the least and greatest integer, as `QuantizedDense.clamp` does."""
        return clamp_limits(self.function, self.output_scale, self.output_zero_point, dtype, rounding)

    def fixed_point_multipliers(self) -> list[tuple[int, int]]:
        """Return (multiplier, shift) of the two terms and of the sum, for the roundings in fixed point.

        Raises
        ------
        ValueError
            If one is too large.
        """
        twice = 2 * max(self.input_scales)
        reals = [scale / twice for scale in self.input_scales]
        try:
            return [fixed_point_multiplier(real) for real in (*reals, twice / (2**SHIFT_OF_SUMS * self.output_scale))]
        except ValueError as error:
            raise ValueError(f"layer {self.name!r}: {error}") from error

    def check(self, dtype: str, where: str) -> None:
        """Refuse what the integer program could not run exactly."""
        if self.inputs is None or len(self.inputs) != 2 or len(self.input_scales) != 2:
            raise ValueError(f"{where}a sum needs two inputs")
        for scale, zero_point in self.input_formats:  # type: ignore[misc]
            check_format(scale, zero_point, dtype, where, "input")
        check_format(self.output_scale, self.output_zero_point, dtype, where, "output")
        if not self.function.is_clamp:
            raise ValueError(f"{where}a sum takes no activation but a clamp, got {self.activation!r}")
        with np.errstate(over="ignore", under="ignore"):
            ratios = np.array(self.input_scales, np.float32) / np.float32(self.output_scale)
        if not (np.isfinite(ratios) & (ratios > 0)).all():
            raise ValueError(f"{where}the scales of its inputs and output are too far apart for float32")

    def lay_out(self, layout: Layout, index: int) -> None:
        """Write the layer's row of the integer program and its factors.

        Parameters
        ----------
        layout : Layout
            Layout of the program.
        index : int
            The layer's place in the network.
        """
        second = layout.bytes_of_input(index, 1)
        columns = {"multipliers": np.array(self.input_scales, np.float32) / np.float32(self.output_scale)}
        if layout.rounding != "onnx":
            columns["fixed_multipliers"], columns["shifts"] = np.array(self.fixed_point_multipliers()).T
        clamp = layout.clamp(self.clamp(layout.dtype, layout.rounding), self.output_zero_point)
        layout.integer_row(
            tables.SUM,
            index,
            second=second,
            channels=layout.columns(0, **columns),
            zero_points=layout.zero_points(np.array(self.input_zero_points) - layout.minimum),
            **clamp,
        )


@dataclass(frozen=True, eq=False)
class QuantizedActivation(OfColumns, FromIntegers, ToIntegers, Activated):
    """An activation of integers by a table of its own.

    Attributes
    ----------
    name : str
        The layer's name.
    n : int
        Columns.
    input_scale, input_zero_point : float, int
        Scale and zero point of what the table is indexed by.
    output_scale, output_zero_point : float, int
        Scale and zero point of its entries.
    table : ndarray of the activation dtype, (256,)
        Entry ``q - minimum`` is the output for q.
    activation : str
        Name in ``nbdense.activations.ACTIVATIONS``, or a custom one's.
    alpha : float or tuple of float
        The activation's parameter, if it has one, or all of several.
    inputs : tuple of int, or None
        The tensor that it reads; None: the one before.
    positions : int
        Rows of columns in a row of data.
    """

    kind: ClassVar[str] = "activation"
    arrays: ClassVar[tuple[str, ...]] = ("table",)

    name: str
    n: int
    input_scale: float
    input_zero_point: int
    output_scale: float
    output_zero_point: int
    table: npt.NDArray[Any]
    activation: str = "linear"
    alpha: Alpha = 0.0
    inputs: tuple[int, ...] | None = None
    positions: int = 1

    def check(self, dtype: str, where: str) -> None:
        """Refuse what the integer program could not run exactly."""
        check_table(self, dtype, where)
        for key in ("input", "output"):
            check_format(getattr(self, f"{key}_scale"), getattr(self, f"{key}_zero_point"), dtype, where, key)

    def lay_out(self, layout: Layout, index: int) -> None:
        """Write the layer's row of the integer program and its table.

        Parameters
        ----------
        layout : Layout
            Layout of the program.
        index : int
            The layer's place in the network.
        """
        layout.integer_row(tables.LOOKUP, index, table=layout.table(self.table))


@dataclass(frozen=True, eq=False)
class QuantizedSoftmax(OfColumns, FromIntegers):
    """Softmax in integers, of the fixed output scale 1/256 and the type's minimum as zero point.

    With m the largest integer of a row and e[d] its table, an output is the minimum plus
    floor((512 e[m - q] + s) / (2 s)), at most 255, where s is the sum of e[m - q] over the row: exp by a table, and one
    integer division, to nearest.

    Attributes
    ----------
    name : str
        The layer's name.
    n : int
        Columns.
    input_scale, input_zero_point : float, int
        Scale and zero point of the logits.
    exponentials : ndarray of int32, (256,)
        Entry d is round(2**23 exp(-d input_scale)).
    inputs : tuple of int, or None
        The tensor that it reads; None: the one before.
    positions : int
        Rows of columns in a row of data.
    """

    kind: ClassVar[str] = "softmax"
    arrays: ClassVar[tuple[str, ...]] = ("exponentials",)

    name: str
    n: int
    input_scale: float
    input_zero_point: int
    output_zero_point: int
    exponentials: npt.NDArray[np.int32]
    inputs: tuple[int, ...] | None = None
    positions: int = 1
    output_scale: ClassVar[float] = 1 / 256

    @property
    def output_format(self) -> Format:
        """Scale and zero point of the output."""
        return self.output_scale, self.output_zero_point

    def check(self, dtype: str, where: str) -> None:
        """Refuse what the integer program could not run exactly."""
        check_format(self.input_scale, self.input_zero_point, dtype, where, "input")
        if self.output_zero_point != LIMITS[dtype][0]:
            raise ValueError(f"{where}output_zero_point must be {LIMITS[dtype][0]}, got {self.output_zero_point}")
        check_columns(self.exponentials, (256,), np.int32, f"{where}exponentials")
        if (self.exponentials < 0).any() or not 0 < self.exponentials[0] <= 2**23:
            raise ValueError(f"{where}exponentials must lie in 0..2**23 and begin above 0")

    def lay_out(self, layout: Layout, index: int) -> None:
        """Write the layer's row of the integer program and its exponentials.

        Parameters
        ----------
        layout : Layout
            Layout of the program.
        index : int
            The layer's place in the network.
        """
        layout.integer_row(tables.SOFTMAX_OF_BYTES, index, exponentials=layout.exponentials(self.exponentials))


@dataclass(frozen=True, eq=False)
class QuantizedFlatten(Layer):
    """The positions of each row of data, end to end, in the format that they have.

    Attributes
    ----------
    name : str
        The layer's name.
    n : int
        Columns of each position.
    scale, zero_point : float, int
        Scale and zero point of its input and its output.
    inputs : tuple of int, or None
        The tensor that it reads; None: the one before.
    positions : int
        Positions of its input.
    """

    kind: ClassVar[str] = "flatten"
    arrays: ClassVar[tuple[str, ...]] = ()

    name: str
    n: int
    scale: float
    zero_point: int
    inputs: tuple[int, ...] | None = None
    positions: int = 1

    @property
    def n_in(self) -> int:
        """Columns of each position."""
        return self.n

    @property
    def n_out(self) -> int:
        """Columns of all positions together."""
        return self.n * self.positions

    @property
    def positions_out(self) -> int:
        """Rows of columns of the output: 1, since the positions lie end to end."""
        return 1

    @property
    def input_formats(self) -> tuple[Format, ...]:
        """Scale and zero point of the input."""
        return ((self.scale, self.zero_point),)

    @property
    def output_format(self) -> Format:
        """Scale and zero point of the output: the input's."""
        return self.scale, self.zero_point

    def check(self, dtype: str, where: str) -> None:
        """Refuse what the integer program could not run exactly."""
        check_format(self.scale, self.zero_point, dtype, where, "input")

    def lay_out(self, layout: Layout, index: int) -> None:
        """Write the layer's row of the integer program.

        Parameters
        ----------
        layout : Layout
            Layout of the program.
        index : int
            The layer's place in the network.
        """
        layout.integer_row(tables.RESHAPE, index)
