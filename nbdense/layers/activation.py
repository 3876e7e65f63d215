"""Activations as layers of their own, under Keras's names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nbdense import activations
from nbdense.activations import ACTIVATIONS
from nbdense.engine.rows import ACTIVATION
from nbdense.layers.base import Layer
from nbdense.layers.forms import OnnxGraph, RowForm, register_form
from nbdense.layers.registry import register
from nbdense.network import Row
from nbdense.network.builder import NetworkBuilder


@register
class Activation(Layer):
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
        self.activation = activations.get(activation)

    def write(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        if self.activation.name == "softmax" and builder.n == 1:
            raise ValueError(f"layer {self.name!r}: softmax over 1 column is always 1; use sigmoid")
        builder.activation(self.name, self.activation, self.activation.alpha)

    def get_config(self) -> dict[str, Any]:
        return {"activation": activations.serialize(self.activation), **super().get_config()}


@register
class ReLU(Activation):
    """max(x, 0), with a most or with a slope below 0.

    Parameters
    ----------
    max_value : float, optional
        The most that comes out.
    negative_slope : float
        Slope below 0; at least 0, and not together with ``max_value``.
    name : str, optional
        Unique within a model.
    """

    kind = "re_lu"

    def __init__(self, max_value: float | None = None, negative_slope: float = 0.0, name: str | None = None) -> None:
        if max_value is not None and negative_slope:
            raise ValueError("ReLU: give max_value or negative_slope, not both")
        if max_value is not None and not (math.isfinite(max_value) and max_value > 0):
            raise ValueError(f"ReLU: max_value must be a positive number, got {max_value!r}")
        chosen = ACTIVATIONS["relu"]
        if max_value is not None:
            chosen = ACTIVATIONS["relu6"].with_alpha(max_value)
        elif negative_slope:
            chosen = ACTIVATIONS["leaky_relu"].with_alpha(negative_slope)
        super().__init__(chosen, name)
        self.max_value, self.negative_slope = max_value, negative_slope

    def get_config(self) -> dict[str, Any]:
        return {"max_value": self.max_value, "negative_slope": self.negative_slope, **Layer.get_config(self)}


@register
class LeakyReLU(Activation):
    """x above 0, negative_slope x below.

    Parameters
    ----------
    negative_slope : float
        At least 0.
    name : str, optional
        Unique within a model.
    """

    kind = "leaky_re_lu"

    def __init__(self, negative_slope: float = 0.3, name: str | None = None) -> None:
        super().__init__(ACTIVATIONS["leaky_relu"].with_alpha(negative_slope), name)
        self.negative_slope = float(negative_slope)

    def get_config(self) -> dict[str, Any]:
        return {"negative_slope": self.negative_slope, **Layer.get_config(self)}


@register
class Softmax(Activation):
    """exp(x) over its sum along the last axis.

    Parameters
    ----------
    axis : int
        -1, the last.
    name : str, optional
        Unique within a model.
    """

    kind = "softmax"

    def __init__(self, axis: int = -1, name: str | None = None) -> None:
        if axis != -1:
            raise ValueError(f"Softmax: axis must be -1, got {axis!r}")
        super().__init__("softmax", name)

    def get_config(self) -> dict[str, Any]:
        return Layer.get_config(self)


def _write_onnx(graph: OnnxGraph, row: Row, prefix: str, inputs: Sequence[str], target: str) -> None:
    """Write a row without an activation; those that have one are nothing else."""
    graph.node("Identity", inputs, target)


register_form(RowForm(ACTIVATION, "activation", write_onnx=_write_onnx))
