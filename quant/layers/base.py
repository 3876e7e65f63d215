"""Common parts of the layers of a quantized network.

A real value is ``scale * (integer - zero_point)``. Scales are float32 numbers, held as Python floats where there is
one. A layer names the tensors that it reads, in ``inputs``: 0 is the network's input, which is float, and i + 1 the
output of layer i; None is the tensor before it. Tensors are integers (of the network's activation dtype, with the scale
and zero point of who writes them) or float; what reads one in the other form quantizes or dequantizes it first.

``positions`` is how many rows of columns a row of data has, as in nbdense.network.LAYER.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self, cast

import numpy as np
import numpy.typing as npt

from nbdense.activations import Activation, Alpha
from nbdense.quant.layers.checks import activation_of, check_columns, check_kernel, check_scales

Format = tuple[float, int] | None  # scale and zero point; None: float
Range = tuple[float, float]  # the least and the greatest value of a tensor


class Layer:
    """A layer of a quantized network, as reports, files and the program know it."""

    kind: ClassVar[str]
    arrays: ClassVar[tuple[str, ...]]  # fields that files hold as tensors
    # Whether its scale is that of all rows of a call, which then cannot be cut into parts.
    takes_whole_call: ClassVar[bool] = False

    name: str
    inputs: tuple[int, ...] | None
    positions: int

    @property
    def n_in(self) -> int:
        """Columns of its input."""
        raise NotImplementedError

    @property
    def n_out(self) -> int:
        """Columns of its output."""
        raise NotImplementedError

    @property
    def input_formats(self) -> tuple[Format, ...]:
        """Scales and zero points with which it reads its inputs."""
        raise NotImplementedError

    @property
    def output_format(self) -> Format:
        """Scale and zero point of its output."""
        raise NotImplementedError

    def check(self, dtype: str, where: str) -> None:
        """Refuse what does not fit together, or what the program could not run exactly.

        Parameters
        ----------
        dtype : str
            The network's activation dtype.
        where : str
            What errors begin with.
        """
        raise NotImplementedError

    def lay_out(self, layout: Any, index: int) -> None:
        """Write its row of the program and all that this reads.

        Parameters
        ----------
        layout : Layout
            Of the program.
        index : int
            The layer's place in the network.
        """
        raise NotImplementedError

    def replaced(self, **fields: Any) -> Self:
        """Return a layer like this one, but for some fields.

        Parameters
        ----------
        **fields
            Their values.
        """
        return cast(Self, dataclasses.replace(cast(Any, self), **fields))

    @property
    def title(self) -> str:
        """Kind of the layer, for a report."""
        return self.kind.replace("_", " ")

    @property
    def weight_bits(self) -> int | None:
        """Bits of each weight; None for a layer without weights."""
        return None

    @property
    def multiply_adds(self) -> int:
        """Multiplications with weights for one row of data."""
        return 0

    @property
    def positions_out(self) -> int:
        """Rows of columns that the layer gives for a row of data."""
        return self.positions


class OfKernel(Layer):
    """A layer with a kernel of integers, (n_in, n_out): a weight is its scale times the integer less its zero point."""

    bits: int
    kernel: npt.NDArray[np.int8]
    kernel_scales: npt.NDArray[np.float32]
    kernel_zero_points: npt.NDArray[np.int8] | None

    @property
    def n_in(self) -> int:
        """Number of inputs."""
        return self.kernel.shape[0]

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        return self.kernel.shape[1]

    @property
    def weight_bits(self) -> int | None:
        """Bits of each weight."""
        return self.bits

    @property
    def multiply_adds(self) -> int:
        """Multiplications with weights for one row of data."""
        return self.positions * self.n_in * self.n_out

    def weights(self) -> npt.NDArray[np.signedinteger[Any]]:
        """Return the integers less their zero points, (n_in, n_out): int8, or int16 where there are zero points."""
        if self.kernel_zero_points is None:
            return self.kernel
        return self.kernel.astype(np.int16) - self.of_inputs(self.kernel_zero_points)

    def dequantized(self) -> npt.NDArray[np.float32]:
        """Return the weights that the integers stand for, float32 (n_in, n_out)."""
        return self.weights().astype(np.float32) * self.of_inputs(self.kernel_scales)

    @property
    def scales_shape(self) -> tuple[int, ...]:
        """Shape of the scales, and of the zero points."""
        return (self.n_out,)

    def of_inputs(self, table: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return scales or zero points in a shape that meets the kernel elementwise.

        Parameters
        ----------
        table : ndarray
            As the layer holds them.
        """
        return table


class OfColumns(Layer):
    """A layer that leaves its columns as many as they are."""

    n: int

    @property
    def n_in(self) -> int:
        """Columns of each input."""
        return self.n

    @property
    def n_out(self) -> int:
        """Columns of the output."""
        return self.n


class FromIntegers(Layer):
    """A layer that reads one tensor of integers."""

    input_scale: float
    input_zero_point: int

    @property
    def input_formats(self) -> tuple[Format, ...]:
        """Scale and zero point of the input."""
        return ((self.input_scale, self.input_zero_point),)


class ToIntegers(Layer):
    """A layer that gives integers."""

    output_scale: float
    output_zero_point: int

    @property
    def output_format(self) -> Format:
        """Scale and zero point of the output."""
        return self.output_scale, self.output_zero_point


class Activated:
    """A layer with an activation."""

    activation: str
    alpha: Alpha

    @property
    def function(self) -> Activation:
        """The activation, with this layer's parameter; a custom one's is not known."""
        return activation_of(self.activation, self.alpha)


class InFloat(Layer):
    """A layer that reads and gives floats, through an activation that may be a custom one."""

    activation: str
    alpha: Alpha
    custom: Activation | None

    @property
    def function(self) -> Activation:
        """The activation, with this layer's parameter."""
        return self.custom or activation_of(self.activation, self.alpha)

    @property
    def input_formats(self) -> tuple[Format, ...]:
        """None for the input: it is float."""
        return (None,)

    @property
    def output_format(self) -> Format:
        """None: the output is float."""
        return None


class OfKernelInFloat(OfKernel, InFloat):
    """A dense layer of integer weights that reads and gives floats."""

    bias: npt.NDArray[np.float32] | None

    def check(self, dtype: str, where: str) -> None:
        """Refuse what does not fit together."""
        check_kernel(self, where)
        check_scales(self.kernel_scales, where)
        if self.bias is not None:
            check_columns(self.bias, (self.n_out,), np.float32, f"{where}bias")
        _ = self.function
