"""Weights of layers: views of a network's parameter vector, with Keras's methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy.typing as npt

from nbdense._checks import numbers_of
from nbdense._warn import warn
from nbdense.network import Network
from nbdense.network.network import Projection
from nbdense.variable import Variable


class Owner(Protocol):
    """Protocol of what has weights: a layer or a model."""

    @property
    def network(self) -> Network:
        """Network that has the tensors."""

    @property
    def path(self) -> str:
        """Prefix of the tensors' names there."""


class Weight(Variable):
    """A weight of a layer: what is assigned to it changes the model.

    It is that of the layer's present network, whatever is compiled or loaded meanwhile.

    Parameters
    ----------
    owner : Layer
        The layer or model.
    tensor : str
        Name of the tensor within the owner, such as "kernel".
    trainable : bool
        Whether training moves it.

    Attributes
    ----------
    name : str
        Name within its layer, such as "kernel".
    path : str
        The same with the names of its layer and the blocks around that before it.
    trainable : bool
        Whether training moves it.
    constraint : callable or None
        Projection that follows each step of training.
    """

    def __init__(self, owner: Owner, tensor: str, trainable: bool) -> None:
        self._owner, self._tensor = owner, tensor
        self.name, self.trainable = tensor.rsplit("/", 1)[-1], trainable

    @property
    def path(self) -> str:
        """Name of the tensor in the network."""
        return self._owner.path + self._tensor

    @property
    def constraint(self) -> Projection | None:
        """Projection that follows each step, as the layer was made with it."""
        return self._owner.network.projections.get(self.path)

    @property
    def _value(self) -> npt.NDArray[Any]:
        return self._owner.network.tensors()[self.path]

    def assign(self, value: Any) -> None:
        """Replace the values; those that are pruned stay zero.

        Parameters
        ----------
        value : array-like
            Of the weight's shape.

        Raises
        ------
        ValueError
            If it has another shape.
        """
        super().assign(value)
        network = self._owner.network
        network.version += 1
        hold_pruned(f"assign to {self.path}", network, self.path)

    def __repr__(self) -> str:
        return f"<Weight path={self.path}, shape={self.shape}, dtype={self.dtype}, trainable={self.trainable}>"


def tensor_names(network: Network, prefix: str) -> list[str]:
    """Return the names of the tensors that begin with ``prefix``, without it."""
    return [
        parameter.name.removeprefix(prefix) for parameter in network.parameters if parameter.name.startswith(prefix)
    ]


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
