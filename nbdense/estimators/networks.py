"""The networks of estimators: their layers and penalties, the same before the last activation, and their files."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from nbdense.activations import Activation as Function
from nbdense.initializers import RandomUniform
from nbdense.layers import (
    Activation,
    BatchNormalization,
    Composite,
    Dense,
    Dropout,
    Input,
    Layer,
    LayerNormalization,
    Residual,
    inner_layers,
)
from nbdense.models import Sequential, load_model
from nbdense.regularizers import L2

OUTPUT = "output"  # the last layer's name
NORMS = {"batch_norm": BatchNormalization, "layer_norm": LayerNormalization}
_OF_TRAINING = ("kernel_initializer", "bias_initializer", "kernel_regularizer")  # what does not shape a network


@dataclass(frozen=True)
class Architecture:
    """The parts of an estimator's network, of which its layers are made.

    Attributes
    ----------
    hidden : sequence of int
        Units of each hidden layer.
    activations : sequence of Activation
        Theirs.
    dropout : sequence of float
        The share of each hidden layer's outputs that is dropped in training.
    norm : str
        A key of NORMS, or "".
    residual : bool
        Whether each hidden layer behind the first adds its input to what it makes of it.
    outputs : int
        Units of the last layer.
    out_activation : str
        Its activation.
    last_hidden : Activation or None
        The activation before the last layer, of which its initial weights depend.
    """

    hidden: Sequence[int]
    activations: Sequence[Function]
    dropout: Sequence[float]
    norm: str
    residual: bool
    outputs: int
    out_activation: str
    last_hidden: Function | None

    def layers(self, n_in: int) -> list[Layer]:
        """Return new layers for inputs of a width, which will draw initial weights as scikit-learn does."""
        made: list[Layer] = [Input((n_in,))]
        fan_in = n_in
        for number, (units, activation) in enumerate(zip(self.hidden, self.activations, strict=True), 1):
            block = self._hidden(number, _dense(units, fan_in, activation, f"hidden_{number}"), activation)
            made += [Residual(block, name=f"block_{number}")] if self.residual and number > 1 else block
            fan_in = units
        last = _dense(self.outputs, fan_in, self.last_hidden, OUTPUT)
        last.activation = self.out_activation
        return [*made, last]

    def _hidden(self, number: int, dense: Dense, activation: Function) -> list[Layer]:
        """Return a hidden layer, with what belongs to it: normalised before its activation, dropped behind it."""
        block: list[Layer] = [dense]
        if self.norm:
            block += [NORMS[self.norm](name=f"norm_{number}"), Activation(activation, name=f"activation_{number}")]
        else:
            dense.activation = activation
        if self.dropout[number - 1]:
            block.append(Dropout(self.dropout[number - 1], name=f"dropout_{number}"))
        return block


def _dense(units: int, fan_in: int, activation: Function | None, name: str) -> Dense:
    """Return a linear layer whose initial weights suit an activation, as scikit-learn draws them."""
    spread = 2.0 if activation is not None and activation.name == "sigmoid" else 6.0
    bound = math.sqrt(spread / (fan_in + units))
    initializer = RandomUniform(-bound, bound)
    return Dense(units, None, kernel_initializer=initializer, bias_initializer=initializer, name=name)


def new_model(name: str, layers: Sequence[Layer], dtype: str, seed: int) -> Sequential:
    """Return a built network of new layers, the first of which is an Input."""
    model = Sequential(layers, name=name, dtype=dtype)
    model.seed = seed
    _ = model.network
    return model


def description(layers: Iterable[Layer]) -> list[Any]:
    """Return what shapes a network: equal for networks of which one can go on with the other's weights."""
    described: list[Any] = []
    for layer in layers:
        if isinstance(layer, Composite):
            described.append((layer.kind, layer.name, description(layer.layers)))
        elif not isinstance(layer, Input):
            config = {key: value for key, value in layer.get_config().items() if key not in _OF_TRAINING}
            described.append((layer.kind, config))
    return described


def is_trained(model: Any) -> bool:
    """Tell whether a model can learn: one of integers, say, can't."""
    return isinstance(model, Sequential)


def units_of(model: Sequential) -> list[int]:
    """Return the units of the hidden layers."""
    return [layer.units for layer in inner_layers(model.layers) if isinstance(layer, Dense) and layer.name != OUTPUT]


def dense_tensors(model: Sequential, kind: str) -> list[npt.NDArray[Any]]:
    """Return copies of the dense layers' tensors of a kind, layer by layer.

    Parameters
    ----------
    model : Sequential
    kind : {"kernel", "bias"}
        What is wanted of each.
    """
    tensors = ((name.split("/"), view) for name, view in model.parameters.items())
    return [view.copy() for (*_, layer, own), view in tensors if own == kind and layer.startswith(("hidden_", OUTPUT))]


def set_penalty(model: Sequential, l2: float) -> None:
    """Penalise the kernels' squares by ``l2`` from now on: it depends on the batch, which may change between fits."""
    network = model.network
    for layer in inner_layers(model.layers):
        if isinstance(layer, Dense):
            layer.kernel_regularizer = L2(l2) if l2 else None
    for parameter, segment in zip(network.parameters, network.segments, strict=True):
        if parameter.name.endswith("/kernel"):
            segment["l2"] = l2


def before_activation(model: Sequential) -> Sequential:
    """Return a model of the same weights, in the same memory, without the last layer's activation."""
    layers = [layer.copy() for layer in model.input_and_layers]
    last = layers[-1]
    assert isinstance(last, Dense)
    last.activation = "linear"
    twin = new_model(model.name, layers, str(model.dtype), model.seed)
    twin.network.share(model.network)
    return twin


def scale_output(model: Sequential, factor: float) -> None:
    """Multiply by a factor what goes into the last layer's activation."""
    names = list(model.parameters)
    scaled = [
        weights * factor if name.startswith(f"{OUTPUT}/") else weights
        for name, weights in zip(names, model.get_weights(), strict=True)
    ]
    model.set_weights(scaled)


def to_bytes(model: Any) -> bytes:
    """Return the model's file, optimizer included: a pickle holds that, since a model holds compiled functions."""
    with tempfile.TemporaryDirectory(prefix="nbdense-") as folder:
        path = Path(folder, "model.safetensors")
        model.save(path)
        return path.read_bytes()


def from_bytes(content: bytes, custom_objects: Mapping[str, Any]) -> Any:
    """Return the model of a file's bytes."""
    with tempfile.TemporaryDirectory(prefix="nbdense-") as folder:
        path = Path(folder, "model.safetensors")
        path.write_bytes(content)
        return load_model(path, custom_objects)
