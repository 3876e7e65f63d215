"""Layers for quantization-aware training: `nbdense.quant.quantize_aware` makes models of them.

They compute in float what an integer model computes in integers: activations pass through FakeQuantize, kernels are
read rounded. Optimizers move the float kernels behind that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nbdense.layers.base import Layer, Shape
from nbdense.layers.composite import Residual
from nbdense.layers.dense import Dense
from nbdense.layers.registry import register
from nbdense.network.builder import NetworkBuilder

KERNEL_LIMITS = {8: 127, 4: 7}  # the largest weight of so many bits; the smallest is as far from zero
DTYPES = ("int8", "uint8")


def _kernel_bits(owner: str, bits: int) -> int:
    if bits not in KERNEL_LIMITS or isinstance(bits, bool):
        raise ValueError(f"{owner}: kernel_bits must be {' or '.join(map(str, KERNEL_LIMITS))}, got {bits!r}")
    return int(bits)


@register
class FakeQuantize(Layer):
    """A layer that rounds its input to what 8-bit integers can hold.

    y = scale * (clamp(round(x / scale) + zero_point) - zero_point), half to even; scale and zero point are those that
    `nbdense.quant.quantize` takes for a range (Jacob et al. 2018, section 3). Gradients pass straight through the
    rounding, and not at all outside the range. A range that is learned has a factor on each of its ends, 1 at first,
    whose gradients are those of Jain et al., "Trained Quantization Thresholds" (2019), section 3.

    Parameters
    ----------
    low, high : float
        The range, which is first widened to hold 0. An end that is 0 stays 0.
    dtype : str
        "int8" or "uint8".
    learned : bool
        Whether the range is trained; else it stays what it is.
    options : mapping, optional
        What the network is to keep in `Network.quantization`, of JSON's types.
    name : str, optional
        Unique within a model.
    trainable : bool
        Whether a learned range learns.
    """

    kind = "fake_quantize"

    def __init__(
        self,
        low: float,
        high: float,
        dtype: str = "int8",
        learned: bool = True,
        options: Mapping[str, Any] | None = None,
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name, trainable)
        for which, end in (("low", low), ("high", high)):
            if isinstance(end, bool) or not isinstance(end, int | float) or not math.isfinite(np.float32(end)):
                raise ValueError(f"FakeQuantize: {which} must be a number that float32 can hold, got {end!r}")
        if low > high:
            raise ValueError(f"FakeQuantize: low must not be above high, got {low!r} and {high!r}")
        if dtype not in DTYPES:
            raise ValueError(f"FakeQuantize: dtype must be 'int8' or 'uint8', got {dtype!r}")
        self.low, self.high = min(float(low), 0.0), max(float(high), 0.0)
        self.dtype, self.learned = dtype, bool(learned)
        self.options = dict(options or {})

    def write(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        factors = -1
        if self.learned:
            factors = builder.parameter(f"{self.name}/range_factor", np.ones(2), trainable=self.trainable)
        limits = np.iinfo(self.dtype)
        builder.fake_quant(self.name, self.low, self.high, limits.min, limits.max, factors)
        builder.quantization.update(self.options)

    def parameters_for(self, shape: Shape) -> int:
        return 2 if self.learned else 0

    def get_config(self) -> dict[str, Any]:
        config = {"low": self.low, "high": self.high, "dtype": self.dtype, "learned": self.learned}
        return config | ({"options": self.options} if self.options else {}) | super().get_config()


@register
class FakeQuantizedDense(Dense):
    """A Dense that computes with its kernel rounded: each column to integers of a few bits times the column's scale.

    The kernel's gradients pass straight through the rounding, and through the clamp at the largest integer too, so
    that no weight is stuck there. The scales are parameters that no optimizer moves.

    Parameters
    ----------
    units : int
        As for `Dense`.
    kernel_bits : int
        8 (integers in [-127, 127]) or 4 (in [-7, 7]).
    **options
        The other parameters of `Dense`.
    """

    kind = "fake_quantized_dense"
    untrained = ("kernel_scale",)

    def __init__(self, units: int, kernel_bits: int = 8, **options: Any) -> None:
        super().__init__(units, **options)
        self.kernel_bits = _kernel_bits("FakeQuantizedDense", kernel_bits)

    def _finish_kernel(self, builder: NetworkBuilder) -> None:
        builder.round_kernel(f"{self.name}/kernel_scale", KERNEL_LIMITS[self.kernel_bits])

    def parameters_for(self, shape: Shape) -> int:
        return super().parameters_for(shape) + self.units

    def get_config(self) -> dict[str, Any]:
        return {"kernel_bits": self.kernel_bits, **super().get_config()}


@register
class FakeQuantizedResidual(Residual):
    """A Residual whose projection, if it has one, computes with a rounded kernel, and rounds what it gives.

    Parameters
    ----------
    layers : sequence of Layer
        As for `Residual`.
    projection : mapping, optional
        Arguments of a `FakeQuantize` for what the projection gives; without, that is not rounded.
    kernel_bits : int
        Bits of the projection's kernel; as for `FakeQuantizedDense`.
    name : str, optional
        Unique within a model.
    trainable : bool
        Whether the parameters learn.
    """

    kind = "fake_quantized_residual"
    untrained = ("kernel_scale",)

    def __init__(
        self,
        layers: Sequence[Any],
        projection: Mapping[str, Any] | None = None,
        kernel_bits: int = 8,
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(layers, name, trainable)
        self.kernel_bits = _kernel_bits("FakeQuantizedResidual", kernel_bits)
        self.projection = None if projection is None else dict(projection)
        self._output()  # complains of what is wrong with it

    def _output(self) -> FakeQuantize | None:
        return None if self.projection is None else FakeQuantize(**self.projection, trainable=self.trainable)

    def _finish_projection(self, builder: NetworkBuilder) -> None:
        builder.round_kernel(f"{self.name}/projection/kernel_scale", KERNEL_LIMITS[self.kernel_bits])
        output = self._output()
        if output is not None:
            output.name = f"{self.name}/projection_output"
            output.write(builder, 0, 0)

    def parameters_for(self, shape: Shape) -> int:
        total, inner = super().parameters_for(shape), self.shape_after(shape)
        if inner == shape:
            return total
        output = self._output()
        return total + inner[-1] + (0 if output is None else output.parameters_for(inner))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config() | {"kernel_bits": self.kernel_bits}
        return config if self.projection is None else config | {"projection": self.projection}
