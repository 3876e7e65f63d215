"""The base of all layers: a description that writes itself into a NetworkBuilder."""

from __future__ import annotations

import copy
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from nbdense import activations, constraints, regularizers
from nbdense._checks import positive_int
from nbdense.layers.weights import Weight, assign, tensor_names, views
from nbdense.network import Network
from nbdense.network.builder import NetworkBuilder
from nbdense.utils import next_seed

Shape = tuple[int, ...]


class NotBuiltError(ValueError, AttributeError):
    """Error of a layer or model that is not built yet; an AttributeError too, so that ``hasattr`` is False."""


class Layer:
    """A layer: named, and able to write itself into a network and into a file.

    Called with an array it computes by itself, with weights that are made when it is first called; in a model it brings
    them along.

    Parameters
    ----------
    name : str, optional
        Unique within a model; by default the kind and a number.
    trainable : bool
        Whether its parameters learn. Changed on a model that is compiled, it takes effect at the next compile, as in
        Keras.
    dtype : {"float32", "float64"}, optional
        Type of parameters and computation; by default the model's, and float32 for a layer by itself.
    """

    kind: ClassVar[str]
    untrained: ClassVar[tuple[str, ...]] = ()  # names of tensors that no optimizer moves
    only_trains: ClassVar[bool] = False  # whether it does nothing where nothing is trained

    def __init__(self, name: str | None = None, trainable: bool = True, dtype: Any = None) -> None:
        if name is not None and (not isinstance(name, str) or not name or "/" in name):
            raise ValueError(f"{type(self).__name__}: name must be a non-empty string without '/', got {name!r}")
        self.name = name or ""
        self.named = name is not None  # by the user, or by a model that has been built: then the name stays
        self.trainable = bool(trainable)
        self._dtype = None if dtype is None else float_dtype(type(self).__name__, dtype)
        self._network: Network | None = None
        self._path = ""
        self._weights: dict[str, Weight] = {}  # those that were asked for: an optimizer knows its variables by identity
        self.runner: Any = None  # what runs it by itself; `nbdense.models.single` keeps it here

    # -- what it is made of, in a network ----------------------------------------------------------------------------

    def write(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        """Add this layer's rows and parameters after the builder's current output."""

    def parameters_for(self, shape: Shape) -> int:
        """Count the parameters that this layer has behind inputs of a shape."""
        return 0

    def shape_after(self, shape: Shape) -> Shape:
        """Return the shape of one row of data behind this layer."""
        return shape

    def multiply_adds(self, shape: Shape) -> int:
        """Count the multiplications with additions that one row of data takes on its way forward."""
        return 0

    def copy(self) -> Self:
        """Return a layer like this one, of the same name, for another model."""
        layer = copy.copy(self)
        layer._network = layer.runner = None
        layer._weights = {}
        return layer

    def check_dtype(self, dtype: np.dtype[Any]) -> None:
        """Raise unless the layer can be computed in a dtype."""
        if self._dtype not in (None, dtype.name):
            raise ValueError(f"layer {self.name!r} has dtype {self._dtype!r}, but its model has {dtype.name!r}")

    def set_network(self, network: Network, prefix: str = "") -> None:
        """Tell the layer where its parameters are: their names there begin with ``prefix`` and the layer's name."""
        self._network, self._path, self.named = network, f"{prefix}{self.name}/", True

    def give_weights(self, network: Network, prefix: str = "") -> None:
        """Copy this layer's weights, if it has any, into the network that it becomes a part of.

        Raises
        ------
        ValueError
            If they are of other shapes there.
        """
        if self._network is not None:
            give_tensors(self, self._network, self._path, network, f"{prefix}{self.name}/")

    def forget_network(self) -> None:
        """Return to the state before the layer was built."""
        self._network = self.runner = None

    # -- by itself ---------------------------------------------------------------------------------------------------

    @property
    def built(self) -> bool:
        """State of the parameters: True once they exist."""
        return self._network is not None

    def build(self, input_shape: Any) -> None:
        """Create the parameters of this layer by itself.

        Parameters
        ----------
        input_shape : tuple
            Shape of its inputs, the batch axis included: (None, ..., width).
        """
        if self._network is not None:
            return
        if not self.name:
            self.name = self.kind
        builder = NetworkBuilder(row_shape(self.name, input_shape), self._dtype or "float32")
        self.write(builder, next_seed(), 0)
        named = self.named
        self.set_network(builder.finish())
        self.named = named

    def __call__(self, x: Any, training: bool | None = False) -> npt.NDArray[Any]:
        """Return the layer's outputs for a batch, as if it were a model of its own.

        Parameters
        ----------
        x : array-like, (rows, ..., columns)
            Inputs.
        training : bool, optional
            Whether dropout drops, and batch normalisation takes the batch's statistics and moves its own.

        Returns
        -------
        ndarray
        """
        # By name: what runs networks is of a higher storey.
        run: Callable[..., npt.NDArray[Any]] = pkgutil.resolve_name("nbdense.models.single:call_layer")
        return run(self, x, bool(training))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Return the shape of the outputs, the batch axis included.

        Parameters
        ----------
        input_shape : tuple
            Shape of the inputs, the batch axis included: (None, ..., width).
        """
        return (input_shape[0], *self.shape_after(row_shape(self.name or self.kind, input_shape)))

    # -- as Keras's --------------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that rebuild this layer."""
        config: dict[str, Any] = {"name": self.name or None}
        if not self.trainable:
            config["trainable"] = False
        if self._dtype is not None:
            config["dtype"] = self._dtype
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make a layer of what `get_config` returned; its weights are new.

        Parameters
        ----------
        config : mapping
            Arguments of the class.
        """
        return cls(**config)

    @property
    def network(self) -> Network:
        """Network that has this layer's parameters."""
        if self._network is None:
            raise NotBuiltError(f"layer {self.name or self.kind!r} is not built yet: build its model, or fit it")
        return self._network

    @property
    def path(self) -> str:
        """Prefix of the names of its tensors in the network."""
        return self._path

    @property
    def weights(self) -> list[Weight]:
        """All weights, in Keras's order; none before it is built."""
        if not self.built:
            return []
        return [self._named_weight(name) for name in tensor_names(self.network, self.path)]

    @property
    def trainable_weights(self) -> list[Weight]:
        """Weights that training moves."""
        return [weight for weight in self.weights if weight.trainable]

    @property
    def non_trainable_weights(self) -> list[Weight]:
        """Weights that no optimizer moves: running statistics, and those of frozen layers."""
        return [weight for weight in self.weights if not weight.trainable]

    variables, trainable_variables, non_trainable_variables = weights, trainable_weights, non_trainable_weights

    def _learns(self, tensor: str) -> bool:
        return self.trainable and tensor.rsplit("/", 1)[-1] not in self.untrained

    def _weight(self, tensor: str) -> Weight | None:
        """Return the weight of a name; None if it has none."""
        return self._named_weight(tensor) if self.path + tensor in self.network.tensors() else None

    def _named_weight(self, tensor: str) -> Weight:
        weight = self._weights.setdefault(tensor, Weight(self, tensor, True))
        weight.trainable = self._learns(tensor)
        return weight

    def count_params(self) -> int:
        """Return the number of parameters."""
        return sum(view.size for view in views(self.network, self.path))

    def get_weights(self) -> list[npt.NDArray[Any]]:
        """Return copies of this layer's parameters, in Keras's order; none before it is built."""
        return [] if not self.built else [view.copy() for view in views(self.network, self.path)]

    def set_weights(self, weights: Sequence[npt.ArrayLike]) -> None:
        """Set this layer's parameters.

        Parameters
        ----------
        weights : sequence of array-like
            Arrays in the order and shapes of `get_weights`. Weights that are pruned stay zero, which is warned of: see
            `Sequential.set_weights`.
        """
        assign(f"set_weights of layer {self.name!r}", self.network, weights, self.path)


class ActivatedLayer(Layer):
    """A layer with an activation."""

    @property
    def activation(self) -> activations.Activation:
        """Activation; None is linear. Changed on a model that is built, it takes effect at the next compile."""
        return self._activation

    @activation.setter
    def activation(self, activation: Any) -> None:
        self._activation = activations.get(activation)
        self.runner = None


def give_tensors(layer: Layer, source: Network, path: str, target: Network, new_path: str) -> None:
    """Copy the tensors of a layer from one network to another.

    Parameters
    ----------
    layer : Layer
        The layer, for the error.
    source : Network
        The network that has them.
    path : str
        Beginning of their names there.
    target : Network
        The network that takes them.
    new_path : str
        Beginning of their names there.

    Raises
    ------
    ValueError
        If one is not there, or of another shape.
    """
    known = source.tensors()
    for name, view in target.tensors().items():
        if name.startswith(new_path):
            value = known.get(path + name.removeprefix(new_path))
            if value is None or value.shape != view.shape:
                there = "none of that name" if value is None else f"one of shape {value.shape}"
                raise ValueError(
                    f"layer {layer.name!r}: it has weights already, but for other inputs: {name!r} must have shape "
                    f"{view.shape}, there is {there}; use a new layer, or a copy of it"
                )
            view[...] = value


def penalties(regularizer: Any) -> dict[str, float]:
    """Return a regularizer, or None, as `NetworkBuilder.parameter` takes it."""
    return {} if regularizer is None else {"l1": regularizer.l1, "l2": regularizer.l2}


def describe_given(layer: Layer, tensors: Sequence[str]) -> dict[str, Any]:
    """Return the descriptions of the regularizers and constraints that a layer's tensors have."""
    config: dict[str, Any] = {}
    for kind, serialize in (("regularizer", regularizers.serialize), ("constraint", constraints.serialize)):
        for field in (f"{tensor}_{kind}" for tensor in tensors):
            if getattr(layer, field) is not None:
                config[field] = serialize(getattr(layer, field))
    return config


def refuse(owner: str, name: str, value: Any, instead: str) -> None:
    """Raise if an argument of Keras's that is not supported is neither None nor False; say what to do instead."""
    if value is not None and value is not False:
        raise ValueError(f"{owner}: {name} is not supported, got {value!r}; {instead}")


def row_shape(name: str, input_shape: Any) -> Shape:
    """Return the shape of one row of inputs of a shape that has the batch axis, which may be None."""
    shape = tuple(input_shape) if isinstance(input_shape, tuple | list) else ()
    if len(shape) < 2:
        raise ValueError(f"layer {name!r}: expected an input shape (rows, ..., columns), got {input_shape!r}")
    return tuple(positive_int(f"layer {name!r}", "input_shape", n) for n in shape[1:])


def float_dtype(owner: str, dtype: Any) -> str:
    """Return the name of a dtype that networks compute in, or raise."""
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", getattr(dtype, "__name__", None))
    if name not in ("float32", "float64"):
        raise ValueError(f"{owner}: dtype must be 'float32' or 'float64', got {dtype!r}")
    return str(name)


class Input(Layer):
    """The model's input.

    Parameters
    ----------
    shape : tuple of int
        Shape of one row, the batch axis left out: (n,), or more axes, of which dense layers see the last.
    batch_size : int, optional
        Accepted for Keras's sake; any number of rows is taken.
    dtype : str, optional
        Accepted for Keras's sake; any real dtype is taken.
    name : str, optional
        The input's name.
    batch_shape : tuple of int, optional
        The shape with the batch axis before it, instead of ``shape`` and ``batch_size``.
    sparse, ragged, optional : False, optional
        Keras's arguments that are not supported, refused by name.
    """

    kind = "input"

    def __init__(
        self,
        shape: tuple[int, ...] | int | None = None,
        batch_size: int | None = None,
        dtype: str | None = None,
        name: str | None = None,
        batch_shape: tuple[int | None, ...] | None = None,
        sparse: bool | None = None,
        ragged: bool | None = None,
        optional: bool = False,
    ) -> None:
        super().__init__(name)
        del dtype
        refuse("Input", "sparse", sparse, "give dense arrays")
        refuse("Input", "ragged", ragged, "give rows of one length")
        refuse("Input", "optional", optional, "a model has one input, which is always there")
        if batch_size is not None and batch_shape is not None:
            raise ValueError(
                f"Input: batch_shape has the batch's size already, so leave batch_size out; got {batch_shape!r} and "
                f"{batch_size!r}"
            )
        if batch_size is not None:
            positive_int("Input", "batch_size", batch_size)
        if (shape is None) == (batch_shape is None):
            raise ValueError(
                f"Input: give shape, as in (20,), or batch_shape, as in (None, 20); got {shape!r} and {batch_shape!r}"
            )
        if batch_shape is not None:
            shape = row_shape("Input", batch_shape)
        shape = (shape,) if isinstance(shape, int) else tuple(shape or ())
        if not shape:
            raise ValueError("Input: shape must have an axis, as in (20,), got ()")
        self.shape = tuple(positive_int("Input", "shape", n) for n in shape)

    def get_config(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "name": self.name or None}  # one that fit put there has none


InputLayer = Input  # Keras's class of what its function Input makes


def input_of(input_shape: tuple[int, ...] | None, input_dim: int | None) -> Input | None:
    """Return the Input that a first layer's arguments stand for, if any."""
    if input_dim is not None:
        input_shape = (input_dim,)
    return None if input_shape is None else Input(input_shape)


def inner_layers(layers: Sequence[Layer]) -> Iterator[Layer]:
    """Yield the layers, each followed by those inside it."""
    for layer in layers:
        yield layer
        yield from inner_layers(getattr(layer, "layers", []))


def name_layers(layers: Sequence[Layer]) -> None:
    """Give names to the layers that have none; refuse one that is there twice."""
    taken: set[str] = set()
    for i, layer in enumerate(layers):
        if any(layer is other for other in layers[:i]):
            raise ValueError(f"layer {layer.name!r} is there twice: it has one place; make another for the second")
        if layer.name in taken and not layer.named:
            layer.name = ""  # it was named for its use by itself
        if not layer.name:
            number = sum(type(other) is type(layer) for other in layers[:i])
            later = {other.name for other in layers[i + 1 :]}
            while not layer.name or layer.name in taken | later:
                layer.name = layer.kind if number == 0 else f"{layer.kind}_{number}"
                number += 1
        elif layer.name in taken:
            raise ValueError(f"there is a layer named {layer.name!r} already")
        taken.add(layer.name)
