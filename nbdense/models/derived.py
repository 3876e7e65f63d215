"""Models made from a model: a part of it, other parameters in it, batch normalisation folded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from nbdense.layers import BatchNormalization, Dense, Dropout, Input, Layer, Residual
from nbdense.network import Network
from nbdense.network.folding import into_layer_before, into_layer_behind, is_far_from_zero, scale_and_shift

if TYPE_CHECKING:
    from nbdense.models.sequential import Sequential


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
        part.network.take_tensors(model.network)
        part.network.take_mask(model.network)
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

    def fold_batch_normalization(self, *, at_input: bool = True) -> Sequential:
        """A model whose batch normalisations have gone into the dense layers beside them, where that can be.

        By the running statistics, a batch normalisation multiplies each unit by s = gamma / sqrt(variance + epsilon)
        and adds beta - s mean. So can the kernel and bias of a linear dense layer before it; or of a dense layer behind
        it, unless the mean is over 4 deviations away from zero, where digits would be lost. Nothing but dropout may
        stand in between (Jacob et al. 2018, section 3.2).

        Parameters
        ----------
        at_input : bool
            Whether one that reads the model's input, standardising raw data, may go too.

        Returns
        -------
        Sequential
            Not compiled. What could not be folded is still in it.
        """
        model = cast("Sequential", self)
        tensors: dict[str, Any] = {name: view.astype(np.float64) for name, view in model.parameters.items()}
        folded = _empty(model, model.name, _folded(model._all, "", tensors, at_input))
        folded.epochs_trained = model.epochs_trained
        for name, view in folded.parameters.items():
            view[...] = tensors[name]
        folded.network.take_mask(model.network)
        return folded


def _empty(model: Sequential, name: str, layers: list[Layer]) -> Sequential:
    """A model of these layers, which are its own, with the seed and dtype of another."""
    made = type(model)(name=name, dtype=str(model.dtype))
    made._all, made.seed = layers, model.seed
    return made


def _folded(layers: Sequence[Layer], prefix: str, tensors: dict[str, Any], at_input: bool) -> list[Layer]:
    """Copies of layers whose tensors' names begin with ``prefix``, less the batch normalisations that were folded."""
    kept: list[Layer] = []
    for i, layer in enumerate(layers):
        if isinstance(layer, BatchNormalization):
            before = next((other for other in reversed(kept) if not isinstance(other, Dropout)), None)
            behind = next((other for other in layers[i + 1 :] if not isinstance(other, Dropout)), None)
            reads_input = not prefix and (before is None or isinstance(before, Input))
            if isinstance(before, Dense) and before.is_linear:
                _take_over(layer, prefix, before, tensors, into_layer_before)
                before.use_bias = True
                continue
            if isinstance(behind, Dense) and (at_input or not reads_input) and not _far(layer, prefix, tensors):
                _take_over(layer, prefix, behind, tensors, into_layer_behind)
                continue
        kept.append(layer.copy())
        if isinstance(layer, Residual):
            cast("Residual", kept[-1]).layers = _folded(layer.layers, f"{prefix}{layer.name}/", tensors, at_input)
        elif isinstance(layer, Dense) and f"{prefix}{layer.name}/bias" in tensors:
            cast("Dense", kept[-1]).use_bias = True
    return kept


def _far(layer: BatchNormalization, prefix: str, tensors: dict[str, Any]) -> bool:
    name = f"{prefix}{layer.name}"
    return is_far_from_zero(tensors[f"{name}/moving_mean"], tensors[f"{name}/moving_variance"], layer.epsilon)


def _take_over(
    layer: BatchNormalization, prefix: str, dense: Dense, tensors: dict[str, Any], rule: Callable[..., Any]
) -> None:
    """Work the tensors of a batch normalisation into those of a dense layer."""
    name, norm = f"{prefix}{dense.name}", f"{prefix}{layer.name}"
    gamma, beta = (tensors.pop(f"{norm}/{what}", None) for what in ("gamma", "beta"))
    mean, variance = (tensors.pop(f"{norm}/moving_{what}") for what in ("mean", "variance"))
    scale, shift = scale_and_shift(gamma, beta, mean, variance, layer.epsilon)
    kernel, bias = tensors[f"{name}/kernel"], tensors.get(f"{name}/bias")
    tensors[f"{name}/kernel"], tensors[f"{name}/bias"] = rule(kernel, bias, scale, shift)
