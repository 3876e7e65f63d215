"""A Sequential to a file, which `files` reads; weights alone to a file and back."""

from __future__ import annotations

import os
from typing import Any

import numpy.typing as npt

from nbdense import losses, metrics, optimizers
from nbdense.compression import open_tensors, save_tensors
from nbdense.files import FileFormatError, write_tensors
from nbdense.models.stack import LayerStack


def save_model(model: LayerStack, path: str | os.PathLike[str], compressed: bool = False) -> None:
    """Write a model: its layers, weights and mask, and what its training needs to go on bit for bit."""
    config, tensors = file_of(model)
    save_tensors(path, "model", config, tensors, compressed)


def file_of(model: LayerStack) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Return what a file says and holds of a model."""
    network = model.network
    tensors: dict[str, npt.NDArray[Any]] = {f"weights/{name}": view for name, view in network.tensors().items()}
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
        weighted = [metrics.serialize(metric) for metric in model.train_state.weighted_metrics]
        config["compiled"] |= {"weighted_metrics": weighted} if weighted else {}
        for slot in range(1, model.optimizer.state_rows):
            tensors |= {f"slot{slot}/{name}": view for name, view in network.tensors(model.state[slot]).items()}
    return config, tensors


def save_weights(model: LayerStack, path: str | os.PathLike[str]) -> None:
    """Write a model's weights, with their names in the model's order."""
    tensors = model.network.tensors()
    write_tensors(
        path, "weights", {"names": list(tensors)}, {f"weights/{name}": view for name, view in tensors.items()}
    )


def load_weights(model: LayerStack, path: str | os.PathLike[str]) -> None:
    """Set a model's weights to those of a file: of the same order where it has one, else of the same names."""
    file, tensors = open_tensors(path), model.network.tensors()
    names = file.config.get("names", list(tensors))
    stored = [name for name in file.shapes if name.startswith("weights/")]
    if not isinstance(names, list) or len(names) != len(tensors) or len(stored) != len(tensors):
        raise FileFormatError(f"{file.path}: it has {len(stored)} tensors of weights, the model has {len(tensors)}")
    pairs = zip(names, tensors.values(), strict=True)
    model.set_weights([file.read(f"weights/{name}", view.shape) for name, view in pairs])
