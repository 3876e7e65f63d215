"""A Sequential from a file that `saving` wrote."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbdense import losses, metrics, optimizers
from nbdense.files import FileFormatError, TensorFile
from nbdense.layers import Input, hold_pruned, layer_from_config
from nbdense.models.sequential import Sequential


def load_sequential(file: TensorFile) -> Sequential:
    """Return the model in an opened file of kind "model"."""
    config = file.config
    try:
        model = Sequential(name=config["name"], dtype=config["dtype"])
        for entry in config["layers"]:
            model.add(layer_from_config(entry["kind"], entry["config"]))
        _check_shapes(file, model)
        model.seed, model.epochs_trained = _counter(config["seed"]), _counter(config["epochs_trained"])
        for name, view in model.network.tensors().items():
            view[...] = file.read(f"weights/{name}", view.shape)
        if config["masked"]:
            mask = np.ones_like(model.network.params)
            for name, view in model.network.tensors(mask).items():
                view[...] = file.read(f"mask/{name}", view.shape)
            model.network.mask = mask
            hold_pruned(str(file.path), model.network)
        if "compiled" in config:
            _load_compiled(file, model, config["compiled"])
    except FileFormatError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileFormatError(f"{file.path}: its description does not make a model: {error}") from error
    return model


def _counter(value: Any) -> int:
    """Return a number that the compiled program can count on from."""
    if not isinstance(value, int) or not 0 <= value < 2**62:
        raise ValueError(f"{value!r} is not a whole number in 0..2^62")
    return value


def _check_shapes(file: TensorFile, model: Sequential) -> None:
    """Compare the described widths with the tensors that the file really has, before anything is allocated."""
    if not model._all or not isinstance(model._all[0], Input):
        raise ValueError("the model has no Input")
    shape = model._all[0].shape
    claimed = 0
    for layer in model.layers:
        claimed += layer.parameters_for(shape)
        shape = layer.shape_after(shape)
    stored = sum(int(np.prod(shape)) for name, shape in file.shapes.items() if name.startswith("weights/"))
    if claimed != stored:
        raise FileFormatError(f"{file.path}: its layers have {claimed} parameters, its tensors {stored}")


def _load_compiled(file: TensorFile, model: Sequential, compiled: dict[str, Any]) -> None:
    optimizer, loss = optimizers.for_training(compiled["optimizer"]), losses.get(compiled["loss"])
    reported, weighted = (
        [metrics.deserialize(metric) for metric in listed]
        for listed in (compiled["metrics"], compiled.get("weighted_metrics", []))
    )
    model.compile(optimizer, loss, reported, weighted_metrics=weighted)
    optimizer.batches = _counter(compiled["iterations"])
    for slot in range(1, optimizer.state_rows):
        for name, view in model.network.tensors(model.state[slot]).items():
            view[...] = file.read(f"slot{slot}/{name}", view.shape)
