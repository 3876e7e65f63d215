"""Activations as layers of their own, under Keras's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import activations
from nbdense._checks import finite_number
from nbdense.activations import ACTIVATIONS
from nbdense.engine.rows import ACTIVATION
from nbdense.layers.base import ActivatedLayer, Layer
from nbdense.layers.forms import OnnxGraph, RowForm, register_form
from nbdense.layers.registry import register
from nbdense.network import Row
from nbdense.network.builder import NetworkBuilder


@register
class Activation(ActivatedLayer):
    """An activation as a layer of its own; behind a linear Dense it costs no more than in it.

    Parameters
    ----------
    activation : str or Activation
        As for `Dense`.
    name : str, optional
        Unique within a model.
    """

    kind = "activation"

    def __init__(self, activation: Any, name: str | None = None) -> None:
        super().__init__(name)
        self.activation = activation

    def __call__(self, x: Any, training: bool | None = False) -> npt.NDArray[Any]:
        """Apply the activation to an array.

        Parameters
        ----------
        x : array-like
            Numbers, of any shape.
        training : bool, optional
            Accepted as by all layers: it changes nothing.
        """
        return self.activation(x)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def write(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        if self.activation.rowwise and builder.n == 1:
            always, instead = (1, "sigmoid") if self.activation.not_negative else (0, "log_sigmoid")
            raise ValueError(
                f"layer {self.name!r}: {self.activation.name} over 1 column is always {always}; use {instead}"
            )
        builder.activation(self.name, self.activation)

    def get_config(self) -> dict[str, Any]:
        return {"activation": activations.serialize(self.activation), **super().get_config()}


@register
class ReLU(Activation):
    """The rectifier: x above a threshold, up to a most, and a slope below.

    Parameters
    ----------
    max_value : float, optional
        The most that comes out; at least 0.
    negative_slope : float
        Slope below the threshold, where the output is negative_slope (x - threshold); at least 0.
    threshold : float
        At least 0.
    name : str, optional
        Unique within a model.
    """

    kind = "re_lu"

    def __init__(
        self,
        max_value: float | None = None,
        negative_slope: float = 0.0,
        threshold: float = 0.0,
        name: str | None = None,
    ) -> None:
        if max_value is not None:
            max_value = finite_number("ReLU", "max_value", max_value, 0)
        negative_slope = finite_number("ReLU", "negative_slope", negative_slope, 0)
        threshold = finite_number("ReLU", "threshold", threshold, 0)
        super().__init__(ACTIVATIONS["relu"].with_parameters(negative_slope, max_value, threshold), name)
        self.max_value, self.negative_slope, self.threshold = max_value, negative_slope, threshold

    def get_config(self) -> dict[str, Any]:
        return {
            "max_value": self.max_value,
            "negative_slope": self.negative_slope,
            "threshold": self.threshold,
            **Layer.get_config(self),
        }


@register
class LeakyReLU(Activation):
    """The leaky rectifier: x above 0, negative_slope x below.

    Parameters
    ----------
    negative_slope : float
        At least 0.
    name : str, optional
        Unique within a model.
    alpha : float, optional
        What older versions of Keras call ``negative_slope``.
    """

    kind = "leaky_re_lu"

    def __init__(
        self, negative_slope: float | None = 0.3, name: str | None = None, *, alpha: float | None = None
    ) -> None:
        negative_slope = negative_slope if alpha is None else alpha
        self.negative_slope = finite_number("LeakyReLU", "negative_slope", negative_slope, 0)
        super().__init__(ACTIVATIONS["leaky_relu"].with_alpha(self.negative_slope), name)

    def get_config(self) -> dict[str, Any]:
        return {"negative_slope": self.negative_slope, **Layer.get_config(self)}


@register
class ELU(Activation):
    """The exponential linear unit: x above 0, alpha (exp(x) - 1) below.

    Parameters
    ----------
    alpha : float
        At least 0.
    name : str, optional
        Unique within a model.
    """

    kind = "elu"

    def __init__(self, alpha: float = 1.0, name: str | None = None) -> None:
        super().__init__(ACTIVATIONS["elu"].with_alpha(alpha), name)
        self.alpha = float(alpha)

    def get_config(self) -> dict[str, Any]:
        return {"alpha": self.alpha, **Layer.get_config(self)}


@register
class Softmax(Activation):
    """The softmax: exp(x) over its sum along the last axis.

    Parameters
    ----------
    axis : int or tuple of int
        -1, the last; others are for calls of the layer by itself.
    name : str, optional
        Unique within a model.
    """

    kind = "softmax"

    def __init__(self, axis: int | tuple[int, ...] = -1, name: str | None = None) -> None:
        super().__init__("softmax", name)
        self.axis = axis

    def __call__(self, x: Any, training: bool | None = False, *, mask: Any = None) -> npt.NDArray[Any]:
        """Return the softmax of an array.

        Parameters
        ----------
        x : array-like
            Logits, of any shape.
        training : bool, optional
            Accepted as by all layers: it changes nothing.
        mask : array-like, optional
            Where it is 0, so is the output, and the others share it among them; it must broadcast to the shape of x.

        Raises
        ------
        ValueError
            If it does not.
        """
        if mask is None:
            return self.activation(x, axis=self.axis)
        kept, inputs = np.asarray(mask).astype(bool), np.asarray(x)
        if kept.ndim > inputs.ndim:
            raise ValueError(f"Softmax: mask must not have more dimensions than {inputs.shape}, got {kept.shape}")
        if any(size not in (1, wanted) for size, wanted in zip(kept.shape[::-1], inputs.shape[::-1], strict=False)):
            raise ValueError(f"Softmax: mask must be broadcastable to {inputs.shape}, got shape {kept.shape}")
        least = np.finfo(np.float32).min / 2  # Keras's way: all masked, they are equal before they are zeros
        return np.where(kept, self.activation(np.where(kept, x, inputs + least), axis=self.axis), 0)

    def write(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        if self.axis not in (-1, (-1,), len(builder.shape)):
            raise ValueError(f"layer {self.name!r}: in a model the axis of a softmax must be -1, got {self.axis!r}")
        super().write(builder, seed, number)

    def get_config(self) -> dict[str, Any]:
        return {"axis": self.axis, **Layer.get_config(self)}


def _write_onnx(graph: OnnxGraph, row: Row, prefix: str, inputs: Sequence[str], target: str) -> None:
    """Write a row without an activation; those that have one are nothing else."""
    graph.node("Identity", inputs, target)


register_form(RowForm(ACTIVATION, "activation", write_onnx=_write_onnx))
