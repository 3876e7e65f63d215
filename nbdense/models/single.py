"""A layer by itself, on arrays: a network of its own rows that shares the weights which it has in its model."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from nbdense import _checks
from nbdense.layers import Layer
from nbdense.network import Network
from nbdense.network.builder import NetworkBuilder
from nbdense.training.state import TrainState
from nbdense.training.stepping import Steps
from nbdense.utils import next_seed


def call_layer(layer: Layer, x: Any, training: bool) -> npt.NDArray[Any]:
    """Return a layer's outputs for a batch; the docstring of `Layer.__call__` has the rules."""
    x = _checks.array_of("x", x)
    if not layer.built:
        layer.build(x.shape)
    key = (x.shape[1:], layer.trainable)
    if layer.runner is None or layer.runner.network is not layer.network or layer.runner.key != key:
        layer.runner = _Runner(layer, key)
    outputs: npt.NDArray[Any] = layer.runner.steps.call(x, training)
    return outputs


class _Runner:
    """The memory of a layer's runs for one shape of input."""

    def __init__(self, layer: Layer, key: tuple[tuple[int, ...], bool]) -> None:
        self.network, self.key = layer.network, key
        state = TrainState()
        state.take_network(share(layer, self.network, key[0]), [layer])
        state.seed = next_seed()
        self.steps = Steps(state)


def share(layer: Layer, network: Network, shape: tuple[int, ...]) -> Network:
    """Return a network of a layer's rows alone whose parameters are those that it has in another network.

    Parameters
    ----------
    layer : Layer
        A layer that has been built.
    network : Network
        The network that has its parameters.
    shape : tuple of int
        Shape of one row of inputs.

    Raises
    ------
    ValueError
        If its parameters are of other shapes behind such inputs.
    """
    builder = NetworkBuilder(shape, network.dtype)
    layer.write(builder, 0, 0)
    alone = builder.finish()
    theirs = [parameter for parameter in network.parameters if parameter.name.startswith(layer.path)]
    if [parameter.shape for parameter in alone.parameters] != [parameter.shape for parameter in theirs]:
        raise ValueError(f"layer {layer.name!r}: its weights are not for inputs of shape (rows, {str(shape)[1:]}")
    if theirs:
        alone.share(network, theirs[0].offset)
    return alone
