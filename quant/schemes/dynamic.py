"""Scheme "dynamic": int8 weights on inputs that are quantized anew in every call; all else is float."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from nbdense.activations import Activation, Alpha
from nbdense.engine.rows import ACTIVATION
from nbdense.engine.tables import leading_dimension
from nbdense.quant.kernels import tables
from nbdense.quant.layers.base import OfKernelInFloat
from nbdense.quant.layers.checks import GRANULARITIES, check_accumulator, check_granularity
from nbdense.quant.layers.layout import Layout
from nbdense.quant.schemes.scheme import Conversion, Converted, Scheme, Step, convert_weights


@dataclass(frozen=True, eq=False)
class DynamicDense(OfKernelInFloat):
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
    alpha : float or tuple of float
        The activation's parameter, if it has one, or all of several.
    granularity : str
        "per_channel" or "per_tensor".
    inputs : tuple of int, or None
        The tensor that it reads; None: the one before.
    positions : int
        Rows of columns in a row of data.
    bits : int
        Bits of the weights: 8 or 4, as which they are stored.
    kernel_zero_points : ndarray of int8, (n_out,), or None
        The integer of each column that stands for 0; None: it is 0, as in all that `quantize` makes.
    """

    kind: ClassVar[str] = "dynamic_dense"
    takes_whole_call: ClassVar[bool] = True
    arrays: ClassVar[tuple[str, ...]] = ("kernel", "kernel_scales", "bias", "kernel_zero_points")

    name: str
    kernel: npt.NDArray[np.int8]
    kernel_scales: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32] | None = None
    activation: str = "linear"
    alpha: Alpha = 0.0
    granularity: str = "per_channel"
    inputs: tuple[int, ...] | None = None
    positions: int = 1
    bits: int = 8
    custom: Activation | None = field(default=None, repr=False)
    kernel_zero_points: npt.NDArray[np.int8] | None = None

    def check(self, dtype: str, where: str) -> None:
        """Refuse what the integer program could not run exactly."""
        super().check(dtype, where)
        check_granularity(self, where)
        largest = 255 * int(np.abs(self.weights().astype(np.int64)).sum(axis=0).max())
        check_accumulator(-largest, largest, self, where)

    def lay_out(self, layout: Layout, index: int) -> None:
        """Write the layer's row of the dynamic program, its weights and columns, and its activation.

        Parameters
        ----------
        layout : Layout
            Layout of the program.
        index : int
            The layer's place in the network.
        """
        columns = {
            "weight_sums": -self.weights().sum(axis=0, dtype=np.int64),
            "multipliers": self.kernel_scales,
            "float_bias": np.zeros(self.n_out, np.float32) if self.bias is None else self.bias,
        }
        source = layout.floats_of_input(index)
        output = layout.float_output(index)
        activation = layout.engine_row(ACTIVATION, index, source, output, self.function)
        layout.row(
            tables.DYNAMIC,
            layout.inputs[index][0],
            index + 1,
            input=source,
            output=output,
            kernel=layout.kernel(self.kernel),
            zero_points=layout.zero_points(self.kernel_zero_points),
            channels=layout.columns(leading_dimension(self.n_out), **columns),
            engine_row=activation,
        )


def convert(conversion: Conversion, step: Step, bits: int, last: bool) -> Converted:
    """Make a `DynamicDense` of a dense step; others stay in float.

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
    return convert_weights(conversion, step, bits, DynamicDense, granularity=conversion.options.granularity)


DYNAMIC = Scheme(
    "dynamic",
    title="a dynamically quantized model",
    layers=(DynamicDense,),
    granularities=GRANULARITIES,
    calibrates=False,
    trains=False,
    convert=convert,
)
