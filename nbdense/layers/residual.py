"""Blocks whose input is added to what they make of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

from nbdense import initializers
from nbdense.activations import ACTIVATIONS
from nbdense.engine.rows import ADD
from nbdense.layers.base import Input, Layer, Shape, name_layers
from nbdense.layers.flatten import Flatten
from nbdense.layers.forms import OnnxGraph, RowForm, register_form
from nbdense.layers.registry import layer_from_config, register
from nbdense.network import Row
from nbdense.network.builder import NetworkBuilder

_INNER = 4096  # layers of a block are numbered from a multiple of this: random numbers differ from all others'


@register
class Residual(Layer):
    """A residual block: the input plus what the block's layers make of it (He et al. 2016, section 3.1).

    Where the widths differ, the input goes through a kernel without a bias first (their equation 2).

    Parameters
    ----------
    layers : sequence of Layer
        One after the other; Residual itself included.
    name : str, optional
        Unique within a model.
    trainable : bool
        Whether the parameters learn; False freezes its layers too.
    """

    kind = "residual"

    def __init__(self, layers: Sequence[Any], name: str | None = None, trainable: bool = True) -> None:
        super().__init__(name)
        self.layers = [self._layer_of(layer) for layer in layers]
        if not self.layers:
            raise ValueError("Residual: give it at least one layer")
        wrong = next((layer for layer in self.layers if isinstance(layer, Input | Flatten)), None)
        if wrong is not None:
            raise ValueError(f"Residual: its layers must keep the rows' shape, which {type(wrong).__name__} does not")
        name_layers(self.layers)
        if not trainable:
            self.trainable = False

    @staticmethod
    def _layer_of(value: Any) -> Layer:
        if isinstance(value, Layer):
            return value
        if isinstance(value, Mapping) and {"kind", "config"} <= value.keys():  # as get_config describes it
            return layer_from_config(value["kind"], value["config"])
        raise TypeError(f"Residual: expected layers, got {type(value).__name__}")

    def copy(self) -> Self:
        layer = super().copy()
        layer.layers = [inner.copy() for inner in self.layers]
        return layer

    @property
    def trainable(self) -> bool:
        """Switch for learning: that of the parameters, those of its layers included."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        for layer in getattr(self, "layers", []):
            layer.trainable = value

    def build(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        skip, shape = builder.pin(), builder.shape
        for i, layer in enumerate(self.layers):
            inner = layer.name
            layer.name = f"{self.name}/{inner}"
            try:
                layer.build(builder, seed, (number + 1) * _INNER + i)
            finally:
                layer.name = inner
        if builder.shape == shape:
            builder.add(self.name, skip)
            return
        ahead, units = builder.pin(), builder.n
        builder.output, builder.shape = skip, shape
        kernel = builder.parameter(
            f"{self.name}/projection/kernel",
            initializers.for_layer("glorot_uniform").draw((shape[-1], units), initializers.generator(seed, 2 * number)),
            trainable=self.trainable,
        )
        builder.dense(f"{self.name}/projection", units, ACTIVATIONS["linear"], kernel, -1)
        self._finish_projection(builder)
        builder.add(self.name, ahead)

    def _finish_projection(self, builder: NetworkBuilder) -> None:
        """Add rows behind the projected input, before it is added; none here."""

    def count_params(self, shape: Shape) -> int:
        total, inner = 0, shape
        for layer in self.layers:
            total += layer.count_params(inner)
            inner = layer.output_shape(inner)
        return total + (shape[-1] * inner[-1] if inner != shape else 0)

    def output_shape(self, shape: Shape) -> Shape:
        for layer in self.layers:
            shape = layer.output_shape(shape)
        return shape

    def multiply_adds(self, shape: Shape) -> int:
        total, inner = 0, shape
        for layer in self.layers:
            total += layer.multiply_adds(inner)
            inner = layer.output_shape(inner)
        return total + (math.prod(shape) * inner[-1] if inner != shape else 0)

    def get_config(self) -> dict[str, Any]:
        inner = [{"kind": layer.kind, "config": layer.get_config()} for layer in self.layers]
        return {"layers": inner, **super().get_config()}


def _write_onnx(graph: OnnxGraph, row: Row, prefix: str, inputs: Sequence[str], target: str) -> None:
    graph.node("Add", inputs, target)


register_form(RowForm(ADD, "add", inputs=2, write_onnx=_write_onnx))
