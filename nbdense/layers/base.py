"""The base of all layers: a description that writes itself into a NetworkBuilder."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy.typing as npt

from nbdense._checks import numbers_of, positive_int
from nbdense._warn import warn
from nbdense.network import Network
from nbdense.network.builder import NetworkBuilder

Shape = tuple[int, ...]


class Layer:
    """A layer: named, and able to write itself into a network and into a file.

    Parameters
    ----------
    name : str, optional
        Unique within a model; by default the kind and a number.
    trainable : bool
        Whether its parameters learn. Changed on a model that is compiled, it takes effect at the next compile, as in
        Keras.
    """

    kind: ClassVar[str]

    def __init__(self, name: str | None = None, trainable: bool = True) -> None:
        if name is not None and (not isinstance(name, str) or not name or "/" in name):
            raise ValueError(f"{type(self).__name__}: name must be a non-empty string without '/', got {name!r}")
        self.name = name or ""
        self.trainable = bool(trainable)
        self._network: Network | None = None

    def build(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        """Add this layer's rows and parameters after the builder's current output."""

    def count_params(self, shape: Shape) -> int:
        """Count the parameters that this layer has behind inputs of a shape."""
        return 0

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of one row of data behind this layer."""
        return shape

    def multiply_adds(self, shape: Shape) -> int:
        """Count the multiplications with additions that one row of data takes on its way forward."""
        return 0

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that rebuild this layer."""
        config: dict[str, Any] = {"name": self.name}
        if not self.trainable:
            config["trainable"] = False
        return config

    def copy(self) -> Self:
        """Return a layer like this one, of the same name, for another model."""
        layer = copy.copy(self)
        layer._network = None
        return layer

    def set_network(self, network: Network) -> None:
        """Tell the layer where its parameters are."""
        self._network = network

    def _built(self) -> Network:
        if self._network is None:
            raise ValueError(f"layer {self.name!r} is not built yet: build its model, or fit it")
        return self._network

    def get_weights(self) -> list[npt.NDArray[Any]]:
        """Return copies of this layer's parameters, in Keras's order."""
        return [view.copy() for view in views(self._built(), f"{self.name}/")]

    def set_weights(self, weights: Sequence[npt.ArrayLike]) -> None:
        """Set this layer's parameters.

        Parameters
        ----------
        weights : sequence of array-like
            Arrays in the order and shapes of `get_weights`. Weights that are pruned stay zero, which is warned of: see
            `Sequential.set_weights`.
        """
        assign(f"set_weights of layer {self.name!r}", self._built(), weights, f"{self.name}/")


def views(network: Network, prefix: str = "") -> list[npt.NDArray[Any]]:
    """Return views of the tensors whose names begin with ``prefix``."""
    return [view for name, view in network.tensors().items() if name.startswith(prefix)]


def assign(owner: str, network: Network, weights: Sequence[npt.ArrayLike], prefix: str = "") -> None:
    """Copy arrays into the tensors whose names begin with ``prefix``, after looking at all of them."""
    targets = views(network, prefix)
    if len(weights) != len(targets):
        raise ValueError(f"{owner}: expected {len(targets)} arrays, got {len(weights)}")
    arrays = [numbers_of(f"{owner}: array {number}", value) for number, value in enumerate(weights)]
    for number, (view, value) in enumerate(zip(targets, arrays, strict=True)):
        if value.shape != view.shape:
            raise ValueError(f"{owner}: array {number} should have shape {view.shape}, got {value.shape}")
    for view, value in zip(targets, arrays, strict=True):
        view[...] = value
    network.version += 1
    hold_pruned(owner, network, prefix)


def hold_pruned(owner: str, network: Network, prefix: str = "") -> None:
    """Set pruned weights back to zero in tensors that were written to, and warn of those that were not."""
    count = network.hold_masked(prefix)
    if count:
        weights, stay = ("weight that is", "stays") if count == 1 else ("weights that are", "stay")
        warn(
            f"{owner}: {count} {weights} pruned {stay} zero, for the model has a mask; to let all weights take other "
            "values, drop it first: model.network.mask = None"
        )


class Input(Layer):
    """The model's input.

    Parameters
    ----------
    shape : tuple of int
        Shape of one row, the batch axis left out: (n,), or more axes, of which dense layers see the last.
    batch_size : int, optional
        Accepted for Keras's sake; any number of rows is taken.
    dtype : str, optional
        Accepted for Keras's sake; any real dtype is taken.
    name : str, optional
        The input's name.
    """

    kind = "input"

    def __init__(
        self,
        shape: tuple[int, ...] | int,
        batch_size: int | None = None,
        dtype: str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        del batch_size, dtype
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if not shape:
            raise ValueError("Input: shape must have an axis, as in (20,), got ()")
        self.shape = tuple(positive_int("Input", "shape", n) for n in shape)

    def get_config(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "name": self.name or None}  # one that fit put there has none


def input_of(input_shape: tuple[int, ...] | None, input_dim: int | None) -> Input | None:
    """Return the Input that a first layer's arguments stand for, if any."""
    if input_dim is not None:
        input_shape = (input_dim,)
    return None if input_shape is None else Input(input_shape)


def inner_layers(layers: Sequence[Layer]) -> Iterator[Layer]:
    """Yield the layers, each followed by those inside it."""
    for layer in layers:
        yield layer
        yield from inner_layers(getattr(layer, "layers", []))


def name_layers(layers: Sequence[Layer]) -> None:
    """Give names to the layers that have none; refuse one that is there twice."""
    taken: set[str] = set()
    for i, layer in enumerate(layers):
        if not layer.name:
            number = sum(type(other) is type(layer) for other in layers[:i])
            later = {other.name for other in layers[i + 1 :]}
            while not layer.name or layer.name in taken | later:
                layer.name = layer.kind if number == 0 else f"{layer.kind}_{number}"
                number += 1
        elif layer.name in taken:
            raise ValueError(f"there is a layer named {layer.name!r} already")
        taken.add(layer.name)
