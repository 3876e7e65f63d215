"""`from_keras`: a Keras 3 model of dense layers as a Sequential, whatever Keras's backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nbdense.activations import ACTIVATIONS, ALIASES
from nbdense.export.frameworks.chain import Chain, ForeignLayer, array_of, class_of, readers_of
from nbdense.export.frameworks.graph import Node, write_nodes
from nbdense.export.graph.steps import DropoutStep, FunctionStep, Step, function
from nbdense.models import Sequential

OWNER = "from_keras"
_ELSEWHERE = 'model.export(path, format="onnx") and nbdense.from_onnx take more of what a layer may do'


def from_keras(model: Any, *, dtype: str = "float32") -> Sequential:
    """Make a model of a built Keras 3 model: of its layers, with copies of their weights.

    A Sequential, nested or not, or a functional model of one input and one output: a chain, or one in which an `Add`
    adds a branch to its start, which becomes a `Residual`. Names of layers, rates of Dropout and statistics of
    BatchNormalization come along; regularizers, constraints and what was compiled do not. It predicts what the model
    does, within 1e-5.

    Parameters
    ----------
    model : keras.Sequential or keras.Model
        Of Dense, Activation and the activation layers, Dropout, Flatten, the normalisations that nbdense has,
        Rescaling, Normalization, noise layers and Add.
    dtype : {"float32", "float64"}
        Type of the model.

    Returns
    -------
    Sequential
        Not compiled.

    Raises
    ------
    TypeError
        If it is no model of Keras's.
    ValueError
        If it is not built, or for a layer or an option that nbdense has not: it is named.

    Examples
    --------
    >>> from nbdense.export import from_keras
    >>> try:
    ...     from_keras("model.keras")
    ... except TypeError as error:
    ...     print(error)
    from_keras: expected a Keras 3 model, got str; keras.models.load_model reads files
    """
    kind = class_of(model, "keras", ("call",))
    if kind not in ("Sequential", "Functional"):
        if kind or hasattr(model, "layers"):
            raise ValueError(
                f"{OWNER}: {type(model).__name__} is no Sequential or functional model, and its call cannot be read; "
                f"{_ELSEWHERE}"
            )
        raise TypeError(
            f"{OWNER}: expected a Keras 3 model, got {type(model).__name__}; keras.models.load_model reads files"
        )
    if not getattr(model, "built", False):
        raise ValueError(f"{OWNER}: the model is not built: call it on data, or model.build((None, n)), first")
    shape = getattr(model, "input_shape", None)
    if isinstance(shape, list) or not shape:
        raise ValueError(f"{OWNER}: the model must have one input, got {shape!r}")
    if any(size is None for size in shape[1:]):
        raise ValueError(f"{OWNER}: only the number of rows may be open, got an input of shape {tuple(shape)}")
    chain = Chain(OWNER, tuple(shape[1:]))
    _append_layer(chain, model)
    return chain.model(dtype)


def _append_layer(chain: Chain, layer: Any) -> None:
    """Append what a layer does, or a model that is one."""
    kind = class_of(layer, "keras", ("call",))
    place = f"{type(layer).__name__} {getattr(layer, 'name', '')!r}"
    if kind == "Sequential":
        for inner in layer.layers:
            _append_layer(chain, inner)
    elif kind == "Functional":
        _append_functional(chain, layer, place)
    elif kind in _READERS:
        form, read = _READERS[kind]
        tensors, settings = read(ForeignLayer(layer, chain, place))
        chain.row(form, tensors, settings, f"{layer.name}/kernel", place)
    elif kind in _WRITERS:
        _WRITERS[kind](chain, layer, place)
    elif not kind:
        raise chain.fail(place, f"it has a call of its own, which no layer stands for; {_ELSEWHERE}")
    else:
        raise chain.fail(place, f"nbdense has no such layer; {_ELSEWHERE}")


def _append_functional(chain: Chain, model: Any, place: str) -> None:
    """Append a functional model: what makes its one output of its one input."""
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise chain.fail(
            place, f"it has {len(model.inputs)} inputs and {len(model.outputs)} outputs; one of each is taken"
        )
    made: dict[int, Node] = {id(model.inputs[0]): Node()}
    waiting = [model.outputs[0]]
    while waiting:
        tensor = waiting[-1]
        if id(tensor) in made:
            waiting.pop()
            continue
        layer, number, _ = tensor._keras_history
        sources = layer._inbound_nodes[number].input_tensors
        missing = [source for source in sources if id(source) not in made]
        if missing:
            waiting += missing
            continue
        inputs = tuple(made[id(source)] for source in sources)
        name = f"{type(layer).__name__} {layer.name!r}"
        if len(inputs) > 2 or (len(inputs) == 2) != (class_of(layer, "keras", ("call",)) == "Add"):
            raise chain.fail(name, f"it takes {len(inputs)} inputs; two are taken by Add, and one by all others")
        made[id(tensor)] = Node(inputs, lambda chain, layer=layer: _append_layer(chain, layer), name)  # type: ignore[misc]
    write_nodes(chain, made[id(model.outputs[0])])


# -- layers -----------------------------------------------------------------------------------------------------------


def _activation(chain: Chain, layer: Any, place: str) -> list[Step]:
    """Return the steps of a layer's activation, a function of Keras's."""
    called = layer.activation
    name = getattr(called, "__name__", type(called).__name__)
    name = ALIASES.get(name, name)
    ours = getattr(called, "__module__", "").partition(".")[0] == "keras"
    if called is None or name == "linear":
        return []
    if not ours or name not in ACTIVATIONS:
        raise chain.fail(
            place, f"its activation {name!r} is none of nbdense's; activations.custom makes one for a layer of yours"
        )
    return [function(name)]


def _dense(chain: Chain, layer: Any, place: str) -> None:
    bias = array_of(layer.bias) if layer.use_bias else None
    chain.dense(array_of(layer.kernel), bias, f"{layer.name}/kernel", place)
    chain.add(*_activation(chain, layer, place))


def _softmax(chain: Chain, layer: Any, place: str) -> None:
    chain.check_axis(layer.axis, place)
    chain.add(function("softmax"))


def _relu(chain: Chain, layer: Any, place: str) -> None:
    most = None if layer.max_value is None else float(layer.max_value)
    chain.add(
        FunctionStep(ACTIVATIONS["relu"].with_parameters(float(layer.negative_slope), most, float(layer.threshold)))
    )


def _normalization(chain: Chain, layer: Any, place: str) -> None:
    mean, deviation = array_of(layer.mean), np.sqrt(array_of(layer.variance).astype(np.float64))
    if layer.invert:
        chain.affine(0.0, deviation, mean, place)
    else:
        chain.affine(mean, 1 / np.maximum(deviation, 1e-7), 0.0, place)  # Keras's epsilon


def _nothing(chain: Chain, layer: Any, place: str) -> None:
    """Append nothing: a layer that only trains, or says what the input is."""


_READERS = readers_of("keras")
_WRITERS: dict[str, Callable[[Chain, Any, str], None]] = {
    "Dense": _dense,
    "Activation": lambda chain, layer, place: chain.add(*_activation(chain, layer, place)),
    "ReLU": _relu,
    "LeakyReLU": lambda chain, layer, place: chain.add(function("leaky_relu", float(layer.negative_slope))),
    "ELU": lambda chain, layer, place: chain.add(function("elu", float(layer.alpha))),
    "Softmax": _softmax,
    "Dropout": lambda chain, layer, place: chain.add(*([DropoutStep(float(layer.rate))] if layer.rate else [])),
    "Flatten": lambda chain, layer, place: chain.flatten(place),
    "Rescaling": lambda chain, layer, place: chain.affine(0.0, layer.scale, layer.offset, place),
    "Normalization": _normalization,
    **dict.fromkeys(
        ("InputLayer", "Identity", "ActivityRegularization", "GaussianNoise", "GaussianDropout", "AlphaDropout"),
        _nothing,
    ),
}
