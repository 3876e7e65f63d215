"""The networks of estimators: their layers and penalties, and their files, which pickles hold."""

from __future__ import annotations

import math
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.initializers import RandomUniform
from nbdense.layers import Dense, Input
from nbdense.models import Sequential, load_model
from nbdense.regularizers import L2

Sizes = list[tuple[int, str]]  # units and activation of each layer, the input's first


def new_model(name: str, sizes: Sizes, activation: str, dtype: str, seed: int) -> Sequential:
    """Return a network of dense layers, with initial weights as scikit-learn draws them for its hidden activation."""
    spread = 2.0 if activation in ("logistic", "sigmoid") else 6.0
    layers: list[Any] = [Input((sizes[0][0],))]
    for number, ((fan_in, _), (units, name_of_activation)) in enumerate(pairwise(sizes), 1):
        bound = math.sqrt(spread / (fan_in + units))
        layers.append(
            Dense(
                units,
                name_of_activation,
                kernel_initializer=RandomUniform(-bound, bound),
                bias_initializer=RandomUniform(-bound, bound),
                name=f"hidden_{number}" if number < len(sizes) - 1 else "output",
            )
        )
    model = Sequential(layers, name=name, dtype=dtype)
    model.seed = seed
    model.build((None, sizes[0][0]))
    return model


def sizes_of(model: Sequential) -> Sizes:
    """Return units and activation of each layer of a model that `new_model` made."""
    sizes: Sizes = [(model.network.n_in, "")]
    for layer in model.layers:
        assert isinstance(layer, Dense)
        sizes.append((layer.units, layer.activation.name))
    return sizes


def dense(X: Any) -> npt.NDArray[Any]:
    """Return rows as the engine reads them: encoders hand over sparse ones unasked."""
    return np.asarray(X.toarray() if hasattr(X, "toarray") else X)


def set_penalty(model: Sequential, l2: float) -> None:
    """Penalise the kernels' squares by ``l2`` from now on: it depends on the batch, which may change between fits."""
    network = model.network
    for layer in model.layers:
        if isinstance(layer, Dense):
            layer.kernel_regularizer = L2(l2) if l2 else None
    for parameter, segment in zip(network.parameters, network.segments, strict=True):
        if parameter.name.endswith("/kernel"):
            segment["l2"] = l2


def to_bytes(model: Sequential) -> bytes:
    """Return the model's file, optimizer included: a pickle holds that, since a model holds compiled functions."""
    with tempfile.TemporaryDirectory(prefix="nbdense-") as folder:
        path = Path(folder, "model.safetensors")
        model.save(path)
        return path.read_bytes()


def from_bytes(content: bytes) -> Sequential:
    """Return the model of a file's bytes."""
    with tempfile.TemporaryDirectory(prefix="nbdense-") as folder:
        path = Path(folder, "model.safetensors")
        path.write_bytes(content)
        model: Sequential = load_model(path)
        return model
