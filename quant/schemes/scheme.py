"""Schemes of quantization, and what all of them share: layers that stay in float, kernels of integers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nbdense.layers import RowForm, form_of
from nbdense.network import Row
from nbdense.quant.layers.activations import Parameters
from nbdense.quant.layers.base import Layer, Range
from nbdense.quant.layers.float_layers import FloatLayer
from nbdense.quant.schemes.options import Options

# Of a step that becomes two layers, one has its name, the other its name and this: the softmax behind logits, or the
# sum in front of a clamp.
SOFTMAX, SUM = "/softmax", "/sum"


@dataclass
class Step:
    """One layer of the quantized network to be.

    Attributes
    ----------
    row : Row
        Row of the network; with another kernel, bias and activation where others have gone into it.
    inputs : tuple of int
        The tensors that it reads.
    pre, output : (float, float)
        Ranges, as in `nbdense.quant.calibration.calibration.Ranges`.
    last : int
        The index, among the network's rows, of the last one that has gone into it: whose output is its output.
    """

    row: Row
    inputs: tuple[int, ...]
    pre: Range
    output: Range
    last: int

    @property
    def form(self) -> RowForm:
        """Form of its row."""
        form = form_of(self.row.kind)
        assert form is not None
        return form

    @property
    def kind(self) -> str:
        """Name of its form: "dense", "activation" or "add", for instance."""
        return self.form.name


class Conversion(Protocol):
    """A conversion in progress, as far as a scheme asks about it.

    Attributes
    ----------
    options : Options
        Options of `quantize`.
    settled : bool
        Whether training has settled ranges and scales.
    """

    options: Options
    settled: bool

    def place(self, step: Step) -> dict[str, Any]:
        """Return a layer's name, inputs and positions.

        Parameters
        ----------
        step : Step
            The step that becomes the layer.
        """

    def format_of(self, tensor: int) -> Parameters:
        """Return scale and zero point with which steps read a tensor.

        Parameters
        ----------
        tensor : int
            Number of a tensor of the plan.
        """

    def weights(
        self, step: Step, input_scale: float | None, bits: int
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        """Return integers and scales of a dense step's kernel.

        Parameters
        ----------
        step : Step
            A dense one.
        input_scale : float, optional
            Scale of its input; None: its bias stays float.
        bits : int
            Bits of the weights.
        """

    def bias(
        self, step: Step, dequantized: npt.NDArray[np.float32], form: Parameters | None
    ) -> npt.NDArray[np.float64] | None:
        """Return a dense step's bias, corrected if that was asked for; None where there is none.

        Parameters
        ----------
        step : Step
            A dense one.
        dequantized : ndarray of float32, (n_in, n_out)
            Its kernel as it will be.
        form : (float, int), optional
            Scale and zero point with which it reads its input; None: as floats.
        """


@dataclass(frozen=True)
class Converted:
    """The layers of a step, and the tensor and format in which later steps read their output.

    Attributes
    ----------
    layers : list of layers
        One, or two.
    form : (float, int), optional
        Scale and zero point with which steps behind it read its output as integers; None: they read floats.
    final : str
        The network's final activation, if this is its last step.
    """

    layers: list[Any]
    form: Parameters | None = None
    final: str = "linear"


@dataclass(frozen=True)
class Scheme:
    """A way to quantize a network.

    Attributes
    ----------
    name : str
        Name in `quantize` and in files.
    title : str
        Name of its models in messages.
    layers : tuple of types
        The layers that it makes, beside those that stay in float.
    granularities : tuple of str
        Granularities of its weight scales.
    calibrates : bool
        Whether it needs the ranges of activations, and so calibration data.
    trains : bool
        Whether `quantize_aware` makes models that train for it.
    convert : callable
        Makes the layers of a step. Its arguments are the conversion, the step, the bits of its weights (0: it stays in
        float), and whether it is the last.
    """

    name: str
    title: str
    layers: tuple[type[Layer], ...]
    granularities: tuple[str, ...]
    calibrates: bool
    trains: bool
    convert: Callable[[Conversion, Step, int, bool], Converted]


def layers_in_float(conversion: Conversion, step: Step) -> list[Any]:
    """Return the layers of a step that stays in float.

    Parameters
    ----------
    conversion : Conversion
        The conversion that the layers are for.
    step : Step
        A step of any kind.
    """
    row = step.row
    place = conversion.place(step)
    if step.kind == "add" and row.activation.name != "linear":
        total = FloatLayer(what="add", n=row.n_in, **{**place, "name": f"{row.name}{SUM}"})
        return [total, FloatLayer(row.name, "activation", row.n_in, positions=row.positions, **_activation(row))]
    arrays = {name: _as_float32(value, row, name) for name, value in row.tensors.items()}
    fields = _activation(row) | ({"alpha": row.settings[step.form.setting]} if step.form.setting else {})
    return [FloatLayer(what=step.kind, n=row.n_in, tensors=arrays, **fields, **place)]


def convert_weights(
    conversion: Conversion, step: Step, bits: int, make: Callable[..., Any], **settings: Any
) -> Converted:
    """Make a layer of a dense step whose weights are integers and that gives floats; others stay in float.

    Parameters
    ----------
    conversion : Conversion
        The conversion that the layer is for.
    step : Step
        A step of any kind.
    bits : int
        Bits of its weights; 0: it stays in float.
    make : callable
        The layer's type. Its ``kernel_scales`` are those of the weights, as they come.
    **settings
        Other fields of the layer.
    """
    if step.kind != "dense" or not bits:
        return Converted(layers_in_float(conversion, step))
    kernel, scales = conversion.weights(step, None, bits)
    layer = make(
        kernel=kernel, kernel_scales=scales, bits=bits, **settings, **_activation(step.row), **conversion.place(step)
    )
    bias = conversion.bias(step, layer.dequantized(), None)
    return Converted([layer if bias is None else replace(layer, bias=_as_float32(bias, step.row, "bias"))])


def _activation(row: Row) -> dict[str, Any]:
    return {
        "activation": row.activation.name,
        "alpha": row.activation.alpha,
        "custom": row.activation if row.activation.own else None,
    }


def _as_float32(value: npt.NDArray[Any], row: Row, part: str) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(value, np.float32)
    if not np.isfinite(converted).all():
        raise ValueError(f"{row.label}: its {part} holds a number that is too large for float32")
    return converted
