"""A Sequential to a file; `files` reads it."""

from __future__ import annotations

import os
from typing import Any

from nbdense import losses, metrics, optimizers
from nbdense.files import write_tensors
from nbdense.models.stack import LayerStack


def save_model(model: LayerStack, path: str | os.PathLike[str]) -> None:
    """Write a model: its layers, weights and mask, and what its training needs to go on bit for bit."""
    network = model.network
    tensors = {f"weights/{name}": view for name, view in network.tensors().items()}
    if network.mask is not None:
        tensors |= {f"mask/{name}": view != 0 for name, view in network.tensors(network.mask).items()}
    config: dict[str, Any] = {
        "name": model.name,
        "dtype": str(model.dtype),
        "seed": model.seed,
        "epochs_trained": model.epochs_trained,
        "layers": [{"kind": layer.kind, "config": layer.get_config()} for layer in model.input_and_layers],
        "masked": network.mask is not None,
    }
    if model.optimizer is not None and model.loss is not None:
        config["compiled"] = {
            "optimizer": optimizers.serialize(model.optimizer),
            "iterations": model.optimizer.batches,
            "loss": losses.serialize(model.loss),
            "metrics": [metrics.serialize(metric) for metric in model.train_state.metrics],
        }
        for slot in range(1, model.optimizer.state_rows):
            tensors |= {f"slot{slot}/{name}": view for name, view in network.tensors(model.state[slot]).items()}
    write_tensors(path, "model", config, tensors)
