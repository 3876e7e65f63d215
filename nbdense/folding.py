"""Batch normalisation folded into the layer before it: the same outputs, with less to compute and to export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nbdense.layers import BatchNormalization, Dense, Dropout, Layer, layer_from_config

if TYPE_CHECKING:
    from nbdense.models import Sequential


def fold_batch_normalization(model: Sequential) -> Sequential:
    """A model whose batch normalisations have gone into the dense layers before them, where that can be.

    That is where the dense layer is linear and nothing but dropout stands in between. By the running statistics, a
    batch normalisation multiplies each unit by s = gamma / sqrt(variance + epsilon) and adds beta - s mean; so can the
    layer's kernel and bias (Jacob et al. 2018, section 3.2).

    Parameters
    ----------
    model : Sequential
        Stays as it is. Layers inside a Residual are left alone.

    Returns
    -------
    Sequential
        Not compiled. What could not be folded is still in it.
    """
    from nbdense.models import Sequential

    folded = Sequential(name=model.name, dtype=str(model.dtype))
    tensors: dict[str, Any] = {name: view.astype(np.float64) for name, view in model.parameters.items()}
    kept: list[Layer] = []
    for layer in model._all:
        before = next((other for other in reversed(kept) if not isinstance(other, Dropout)), None)
        if not (isinstance(layer, BatchNormalization) and isinstance(before, Dense) and _linear(before)):
            kept.append(layer_from_config(layer.kind, layer.get_config()))
            continue
        of = {what: tensors.pop(f"{layer.name}/{what}", None) for what in ("gamma", "beta", "moving_mean")}
        scale = 1.0 / np.sqrt(tensors.pop(f"{layer.name}/moving_variance") + layer.epsilon)
        if of["gamma"] is not None:
            scale = scale * of["gamma"]
        bias = tensors.get(f"{before.name}/bias", 0.0)
        tensors[f"{before.name}/kernel"] = tensors[f"{before.name}/kernel"] * scale
        tensors[f"{before.name}/bias"] = (bias - of["moving_mean"]) * scale + (
            0.0 if of["beta"] is None else of["beta"]
        )
        kept[kept.index(before)] = layer_from_config("dense", before.get_config() | {"use_bias": True})
    folded._all = kept
    folded.seed, folded.epochs_trained = model.seed, model.epochs_trained
    for name, view in folded.parameters.items():
        view[...] = tensors[name]
    return folded


def _linear(layer: Dense) -> bool:
    return layer.activation.name == "linear"
