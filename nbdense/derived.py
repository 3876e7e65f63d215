"""Models made from a model: a part of it, other parameters in it, batch normalisation folded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from nbdense.layers import BatchNormalization, Dense, Dropout, Input, Layer, Residual
from nbdense.network import Network

if TYPE_CHECKING:
    from nbdense.models import Sequential


class Derived:
    """What `Sequential` can make of itself; it stays as it is."""

    def upto(self, name: str) -> Sequential:
        """A model of its own that ends with the layer of that name, with copies of the weights.

        Parameters
        ----------
        name : str
            The name of a layer of this model: of an autoencoder's bottleneck, for instance.
        """
        model = cast("Sequential", self)
        last = model.layers.index(model.get_layer(name))
        kept = [layer for layer in model._all if isinstance(layer, Input)] + model.layers[: last + 1]
        part = _empty(model, f"{model.name}_upto_{name}", [layer.copy() for layer in kept])
        mine = model.network.tensors()
        for tensor, view in part.network.tensors().items():
            view[...] = mine[tensor]
        return part

    def with_network(self, network: Network) -> Sequential:
        """A model like this one around other parameters; it starts with a fresh optimizer.

        Parameters
        ----------
        network : Network
            Of the same layers.
        """
        model = cast("Sequential", self)
        other = _empty(model, model.name, [layer.copy() for layer in model._all])
        other._take_network(network)
        other.epochs_trained = model.epochs_trained
        if model.optimizer is not None and model.loss is not None:
            fresh = type(model.optimizer)(**model.optimizer.get_config())
            other.compile(fresh, model.loss, list(model._metric_names))
        return other

    def fold_batch_normalization(self) -> Sequential:
        """A model whose batch normalisations have gone into the dense layers before them, where that can be.

        That is where the dense layer is linear and nothing but dropout stands in between. By the running statistics, a
        batch normalisation multiplies each unit by s = gamma / sqrt(variance + epsilon) and adds beta - s mean; so can
        the layer's kernel and bias (Jacob et al. 2018, section 3.2).

        Returns
        -------
        Sequential
            Not compiled. What could not be folded is still in it.
        """
        model = cast("Sequential", self)
        tensors: dict[str, Any] = {name: view.astype(np.float64) for name, view in model.parameters.items()}
        folded = _empty(model, model.name, _folded(model._all, "", tensors))
        folded.epochs_trained = model.epochs_trained
        for name, view in folded.parameters.items():
            view[...] = tensors[name]
        return folded


def _empty(model: Sequential, name: str, layers: list[Layer]) -> Sequential:
    """A model of these layers, which are its own, with the seed and dtype of another."""
    made = type(model)(name=name, dtype=str(model.dtype))
    made._all, made.seed = layers, model.seed
    return made


def _folded(layers: Sequence[Layer], prefix: str, tensors: dict[str, Any]) -> list[Layer]:
    """Copies of layers whose tensors' names begin with ``prefix``, less the batch normalisations that were folded."""
    kept: list[Layer] = []
    for layer in layers:
        before = next((other for other in reversed(kept) if not isinstance(other, Dropout)), None)
        if isinstance(layer, BatchNormalization) and isinstance(before, Dense) and before.is_linear:
            _fold(layer, prefix + layer.name, prefix + before.name, tensors)
            before.use_bias = True
            continue
        kept.append(layer.copy())
        if isinstance(layer, Residual):
            cast("Residual", kept[-1]).layers = _folded(layer.layers, f"{prefix}{layer.name}/", tensors)
    return kept


def _fold(layer: BatchNormalization, norm: str, name: str, tensors: dict[str, Any]) -> None:
    """Work the tensors of a batch normalisation, named ``norm``, into those of the dense layer named ``name``."""
    of = {what: tensors.pop(f"{norm}/{what}", None) for what in ("gamma", "beta", "moving_mean")}
    scale = 1.0 / np.sqrt(tensors.pop(f"{norm}/moving_variance") + layer.epsilon)
    if of["gamma"] is not None:
        scale = scale * of["gamma"]
    shift = 0.0 if of["beta"] is None else of["beta"]
    tensors[f"{name}/kernel"] = tensors[f"{name}/kernel"] * scale
    tensors[f"{name}/bias"] = (tensors.get(f"{name}/bias", 0.0) - of["moving_mean"]) * scale + shift
