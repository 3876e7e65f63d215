"""Blocks whose input is added to what they make of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nbdense import initializers
from nbdense.activations import ACTIVATIONS
from nbdense.engine.rows import ADD
from nbdense.layers.base import Input, Shape, name_layers
from nbdense.layers.composite import Composite, layers_of
from nbdense.layers.flatten import Flatten
from nbdense.layers.forms import OnnxGraph, RowForm, register_form
from nbdense.layers.registry import register
from nbdense.network import Row
from nbdense.network.builder import NetworkBuilder


@register
class Residual(Composite):
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
        self.layers = layers_of("Residual", layers)
        if not self.layers:
            raise ValueError("Residual: give it at least one layer")
        wrong = next((layer for layer in self.layers if isinstance(layer, Input | Flatten)), None)
        if wrong is not None:
            raise ValueError(f"Residual: its layers must keep the rows' shape, which {type(wrong).__name__} does not")
        name_layers(self.layers)
        if not trainable:
            self.trainable = False

    def write(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        skip, shape = builder.pin(), builder.shape
        super().write(builder, seed, number)
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
        builder.dense(f"{self.name}/projection", units, ACTIVATIONS["linear"], 0.0, kernel, -1)
        self._finish_projection(builder)
        builder.add(self.name, ahead)

    def _finish_projection(self, builder: NetworkBuilder) -> None:
        """Add rows behind the projected input, before it is added; none here."""

    def parameters_for(self, shape: Shape) -> int:
        after = self.shape_after(shape)
        return super().parameters_for(shape) + (shape[-1] * after[-1] if after != shape else 0)

    def multiply_adds(self, shape: Shape) -> int:
        after = self.shape_after(shape)
        return super().multiply_adds(shape) + (math.prod(shape) * after[-1] if after != shape else 0)

    def get_config(self) -> dict[str, Any]:
        inner = [{"kind": layer.kind, "config": layer.get_config()} for layer in self.layers]
        return {"layers": inner, **super().get_config()}


def _write_onnx(graph: OnnxGraph, row: Row, prefix: str, inputs: Sequence[str], target: str) -> None:
    graph.node("Add", inputs, target)


register_form(RowForm(ADD, "add", inputs=2, write_onnx=_write_onnx))
