"""Models made from a model: a part of it, or batch normalisation folded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from nbdense.layers import BatchNormalization, Composite, Dense, Input, Layer
from nbdense.models.stack import LayerStack
from nbdense.network.folding import into_layer_before, into_layer_behind, is_far_from_zero, scale_and_shift

ModelT = TypeVar("ModelT", bound=LayerStack)


def upto(model: ModelT, name: str) -> ModelT:
    """Return a model that ends with the layer of that name, with copies of the weights."""
    last = model.layers.index(model.get_layer(name))
    kept = [layer for layer in model.input_and_layers if isinstance(layer, Input)] + model.layers[: last + 1]
    part = empty_like(model, f"{model.name}_upto_{name}", [layer.copy() for layer in kept])
    part.network.take_tensors(model.network)
    part.network.take_mask(model.network)
    return part


def fold_batch_normalization(model: ModelT, at_input: bool) -> ModelT:
    """Return a model, not compiled, whose batch normalisations have gone into the dense layers beside them.

    `Sequential.fold_batch_normalization` says which can.
    """
    tensors: dict[str, Any] = {name: view.astype(np.float64) for name, view in model.parameters.items()}
    folded = empty_like(model, model.name, _folded(model.input_and_layers, "", tensors, at_input))
    folded.epochs_trained = model.epochs_trained
    for name, view in folded.parameters.items():
        view[...] = tensors[name]
    folded.network.take_mask(model.network)
    return folded


def empty_like(model: ModelT, name: str, layers: list[Layer]) -> ModelT:
    """Return a model of these layers with the seed and dtype of another.

    Parameters
    ----------
    model : Sequential
        The other.
    name : str
        The new one's name.
    layers : list of Layer
        An Input first; they become the new model's own.
    """
    made = type(model)(name=name, dtype=str(model.dtype))
    made._all, made.seed = layers, model.seed
    return made


def _folded(layers: Sequence[Layer], prefix: str, tensors: dict[str, Any], at_input: bool) -> list[Layer]:
    """Return copies of layers, whose tensors' names begin with ``prefix``, less the batch normalisations folded."""
    kept: list[Layer] = []
    for i, layer in enumerate(layers):
        if isinstance(layer, BatchNormalization):
            previous = next((other for other in reversed(kept) if not other.only_trains), None)
            following = next((other for other in layers[i + 1 :] if not other.only_trains), None)
            reads_input = not prefix and (previous is None or isinstance(previous, Input))
            if isinstance(previous, Dense) and previous.is_linear:
                _take_over(layer, prefix, previous, tensors, into_layer_before)
                previous.use_bias = True
                continue
            if isinstance(following, Dense) and (at_input or not reads_input) and not _far(layer, prefix, tensors):
                _take_over(layer, prefix, following, tensors, into_layer_behind)
                continue
        if isinstance(layer, Composite):
            kept.append(layer.with_layers(_folded(layer.layers, f"{prefix}{layer.name}/", tensors, at_input)))
            continue
        kept.append(layer.copy())
        if isinstance(layer, Dense) and f"{prefix}{layer.name}/bias" in tensors:
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
    gamma, beta = (tensors.pop(f"{norm}/{vector}", None) for vector in ("gamma", "beta"))
    mean, variance = (tensors.pop(f"{norm}/moving_{statistic}") for statistic in ("mean", "variance"))
    scale, shift = scale_and_shift(gamma, beta, mean, variance, layer.epsilon)
    kernel, bias = tensors[f"{name}/kernel"], tensors.get(f"{name}/bias")
    tensors[f"{name}/kernel"], tensors[f"{name}/bias"] = rule(kernel, bias, scale, shift)
