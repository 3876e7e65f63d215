"""Scheme "weight_only": weights are stored as integers of 8 or 4 bits, and everything is computed in float.

All that there is of the scheme is here: its layer, with its checks and its row of the program, and its conversion.
What a report says of it is what the layer says of itself (`OfKernel`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nbdense.activations import Activation, Alpha
from nbdense.engine.rows import DENSE
from nbdense.quant.layers.base import OfKernelInFloat
from nbdense.quant.layers.checks import GRANULARITIES
from nbdense.quant.layers.layout import Layout
from nbdense.quant.schemes.options import BLOCK
from nbdense.quant.schemes.scheme import Conversion, Converted, Scheme, Step, convert_weights


@dataclass(frozen=True, eq=False)
class WeightOnlyDense(OfKernelInFloat):
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
        Bits of the weights: 8 or 4, as which they are stored.
    activation : str
        Computed in float.
    alpha : float or tuple of float
        The activation's parameter, if it has one, or all of several.
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
    alpha: Alpha = 0.0
    inputs: tuple[int, ...] | None = None
    positions: int = 1
    custom: Activation | None = field(default=None, repr=False)
    kernel_zero_points: npt.NDArray[np.int8] | None = None

    @property
    def scales_shape(self) -> tuple[int, ...]:
        """One for each column of each block."""
        return -(-self.n_in // (self.block_size or self.n_in)), self.n_out

    def of_inputs(self, table: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return scales or zero points that meet the kernel elementwise: those of blocks once for each input.

        Parameters
        ----------
        table : ndarray, (blocks, n_out)
            As the layer holds them.
        """
        return np.repeat(table, self.block_size or self.n_in, axis=0)[: self.n_in]

    def check(self, dtype: str, where: str) -> None:
        """Refuse what does not fit together."""
        if self.block_size < 0:
            raise ValueError(f"{where}block_size must be at least 0, got {self.block_size}")
        super().check(dtype, where)

    def lay_out(self, layout: Layout, index: int) -> None:
        """Write the layer's row of the engine's table, with the weights as floats.

        Parameters
        ----------
        layout : Layout
            Layout of the program.
        index : int
            The layer's place in the network.
        """
        layout.float_row(DENSE, index, self.function, {"kernel": self.dequantized(), "bias": self.bias})


def convert(conversion: Conversion, step: Step, bits: int, last: bool) -> Converted:
    """Make a `WeightOnlyDense` of a dense step; others stay in float.

    Parameters
    ----------
    conversion : Conversion
        The conversion that the layer is for.
    step : Step
        A step of any kind.
    bits : int
        Bits of its weights; 0: it stays in float.
    last : bool
        Whether it is the last.
    """
    return convert_weights(conversion, step, bits, _with_blocks, block_size=conversion.options.blocks or 0)


def _with_blocks(kernel_scales: npt.NDArray[np.float32], **fields: Any) -> WeightOnlyDense:
    """Make the layer from scales of columns, or of blocks of their inputs."""
    return WeightOnlyDense(kernel_scales=np.atleast_2d(kernel_scales), **fields)


WEIGHT_ONLY = Scheme(
    "weight_only",
    title="a model of which the weights alone are quantized",
    layers=(WeightOnlyDense,),
    granularities=(*GRANULARITIES, BLOCK),
    calibrates=False,
    trains=False,
    convert=convert,
)
