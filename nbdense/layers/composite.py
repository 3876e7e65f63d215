"""Layers made of others, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from nbdense.layers.base import Layer, Shape
from nbdense.layers.registry import layer_from_config
from nbdense.network import Network
from nbdense.network.builder import NetworkBuilder

_INNER = 4096  # layers of a block are numbered from a multiple of this: random numbers differ from all others'


class Composite(Layer):
    """A layer that has layers: what it does to shapes, counts and names is theirs together."""

    layers: list[Layer]

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
    return [_layer_of(owner, layer) for layer in layers]


def _layer_of(owner: str, value: Any) -> Layer:
    if isinstance(value, Layer):
        return value
    if isinstance(value, Mapping) and "config" in value:
        kind = value.get("kind", value.get("class_name"))
        if isinstance(kind, str):
            return layer_from_config(kind, value["config"])
    raise TypeError(f"{owner}: expected layers, got {type(value).__name__}")
