"""Layers made of others, one after the other; and blocks whose input is added to what they make of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from nbdense import initializers
from nbdense.activations import ACTIVATIONS
from nbdense.engine.rows import ADD
from nbdense.layers.base import Input, Layer, Shape, name_layers
from nbdense.layers.flatten import Flatten
from nbdense.layers.forms import OnnxGraph, RowForm, register_form
from nbdense.layers.registry import layer_from_config, register
from nbdense.network import Network, Row
from nbdense.network.builder import NetworkBuilder

_INNER = 4096  # layers of a block are numbered from a multiple of this: random numbers differ from all others'


class Composite(Layer):
    """A layer that has layers: what it does to shapes, counts and names is theirs together."""

    layers: list[Layer]

    def copy(self) -> Self:
        return self.with_layers([inner.copy() for inner in self.layers])

    def with_layers(self, layers: list[Layer]) -> Self:
        """Return a layer like this one, of the same name, that has other layers."""
        layer = super().copy()
        layer.layers = layers
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

    def write(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        for i, layer in enumerate(self.layers):
            inner = layer.name
            layer.name = f"{self.name}/{inner}"
            try:
                layer.write(builder, seed, (number + 1) * _INNER + i)
            finally:
                layer.name = inner

    def set_network(self, network: Network, prefix: str = "") -> None:
        super().set_network(network, prefix)
        for layer in self.layers:
            layer.set_network(network, f"{prefix}{self.name}/")

    def give_weights(self, network: Network, prefix: str = "") -> None:
        super().give_weights(network, prefix)
        for layer in self.layers:
            layer.give_weights(network, f"{prefix}{self.name}/")

    def _learns(self, tensor: str) -> bool:
        first, _, rest = tensor.partition("/")
        inner = next((layer for layer in self.layers if layer.name == first), None)
        return super()._learns(tensor) if inner is None else inner._learns(rest)

    def parameters_for(self, shape: Shape) -> int:
        total = 0
        for layer in self.layers:
            total += layer.parameters_for(shape)
            shape = layer.shape_after(shape)
        return total

    def shape_after(self, shape: Shape) -> Shape:
        for layer in self.layers:
            shape = layer.shape_after(shape)
        return shape

    def multiply_adds(self, shape: Shape) -> int:
        total = 0
        for layer in self.layers:
            total += layer.multiply_adds(shape)
            shape = layer.shape_after(shape)
        return total


def layers_of(owner: str, layers: Sequence[Any]) -> list[Layer]:
    """Return layers, made of their descriptions where they are given as these.

    Parameters
    ----------
    owner : str
        Whose they are, for the error.
    layers : sequence of Layer or mapping
        Layers, or {"kind": ..., "config": ...} as files have them, {"class_name": ..., "config": ...} as
        `get_config` of models.

    Raises
    ------
    TypeError
        If something else is among them.
    """
    if not isinstance(layers, Iterable):
        raise TypeError(f"{owner}: layers must be a list, as in {owner}([Dense(3), Dense(1)]), got {layers!r}")
    return [_layer_of(owner, layer) for layer in layers]


def _layer_of(owner: str, value: Any) -> Layer:
    if isinstance(value, Layer):
        return value
    if isinstance(value, Mapping) and "config" in value:
        kind = value.get("kind", value.get("class_name"))
        if isinstance(kind, str):
            return layer_from_config(kind, value["config"])
    raise TypeError(f"{owner}: expected layers, got {type(value).__name__}")


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
        builder.dense(f"{self.name}/projection", units, ACTIVATIONS["linear"], kernel, -1)
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
