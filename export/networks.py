"""Models as the networks that are exported and compared: float and quantized ones, and what predicts with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from nbdense import backends
from nbdense.network import Network, held_network
from nbdense.quant.model.model import QuantizedModel
from nbdense.quant.model.network import QuantizedNetwork

Floats = npt.NDArray[np.floating[Any]]


def network_of(model: Any) -> Network | QuantizedNetwork:
    """Return the network of a model, or the network itself.

    Parameters
    ----------
    model : Sequential, QuantizedModel, Network or QuantizedNetwork
        The model.

    Raises
    ------
    TypeError
        If it is none of those.
    """
    network = held_network(model)
    if not (isinstance(network, Network) or is_quantized(network)):
        raise TypeError(f"expected a model of nbdense's, float or quantized, got {type(model).__name__}")
    return network


def shapes_of(network: Network | QuantizedNetwork) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of one row of data, before and behind a network.

    Parameters
    ----------
    network : Network or QuantizedNetwork
        The network.
    """
    return network.input_shape, network.output_shape


def is_quantized(network: Any) -> bool:
    """Tell whether a network is quantized.

    Parameters
    ----------
    network : Network or QuantizedNetwork
        The network.
    """
    return isinstance(network, QuantizedNetwork)


def has_integers(network: Network | QuantizedNetwork) -> TypeGuard[QuantizedNetwork]:
    """Tell whether any tensor between a network's layers becomes integers, if only while a layer multiplies.

    Parameters
    ----------
    network : Network or QuantizedNetwork
        The network.
    """
    if isinstance(network, Network):
        return False
    return network.ends_in_integers or any(
        layer.kind == "dynamic_dense" or layer.output_format is not None for layer in network.layers
    )


def with_predict(model: Any) -> Any:
    """Return a model as it is, and a bare network as an object that predicts (integers too, where it is quantized).

    Parameters
    ----------
    model : Sequential, QuantizedModel, Network or QuantizedNetwork
        The model.
    """
    if isinstance(model, QuantizedNetwork):
        return QuantizedModel(model)
    return BareNetwork(model) if isinstance(model, Network) else model


@dataclass(frozen=True)
class BareNetwork:
    """A float network that predicts as a model does."""

    network: Network

    def predict(self, x: Floats) -> Floats:
        """Return the network's outputs.

        Parameters
        ----------
        x : ndarray of float, (rows, ..., n_in)
            Rows of data.
        """
        rows = np.ascontiguousarray(x, self.network.dtype).reshape(-1, self.network.n_in)
        return backends.current().predict(self.network, rows).reshape(-1, *self.network.output_shape)
