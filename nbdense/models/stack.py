"""A stack of layers and the network that they make: what a model is before it learns."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from nbdense import _checks, _registry, losses, optimizers, utils
from nbdense._tables import Table, Tabular
from nbdense.inspection.attribution import saliency
from nbdense.inspection.plots import plot_weights
from nbdense.layers import (
    Composite,
    Input,
    Layer,
    NotBuiltError,
    assign,
    float_dtype,
    give_tensors,
    inner_layers,
    layers_of,
    name_layers,
)
from nbdense.losses import Loss
from nbdense.network import Network
from nbdense.network.builder import NetworkBuilder
from nbdense.optimizers import Optimizer
from nbdense.training.state import TrainState


class LayerStack(Tabular, Composite):
    """Layers, one after the other, and the parameters that they have: `Sequential` without its training.

    Parameters
    ----------
    layers : sequence of Layer, optional
        May begin with an Input; more can be added with `add`. A Sequential may be among them.
    name : str, optional
        The model's name.
    dtype : {"float32", "float64"}
        Type of parameters and all computation.
    trainable : bool
        Whether the layers learn; False freezes all of them.
    """

    kind = "sequential"

    def __init__(
        self,
        layers: Sequence[Any] | None = None,
        name: str | None = None,
        dtype: str = "float32",
        trainable: bool = True,
    ) -> None:
        self._all: list[Layer] = []
        super().__init__()
        self.name, self.named = "sequential" if name is None else name, name is not None
        self._dtype = float_dtype(type(self).__name__, dtype)
        self.dtype = np.dtype(self._dtype)
        self._built_settings: list[Any] = []
        self._train = TrainState()
        for layer in layers_of(type(self).__name__, layers or []):
            self.add(layer)
        if not trainable:
            self.trainable = False

    # -- structure ----------------------------------------------------------------------------------------------

    def add(self, layer: Layer) -> None:
        """Append a layer.

        Weights that it has already come along, as those of layers that are here already stay; an optimizer begins anew.

        Parameters
        ----------
        layer : Layer
            A layer, or a Sequential. Its name must be new in this model.
        """
        if not isinstance(layer, Layer):
            raise TypeError(f"add: expected a layer, got {type(layer).__name__}")
        if isinstance(layer, Input) and self._all:
            raise ValueError(
                "add: Input must be the first layer; this Sequential has already been configured to use "
                f"{self._all[0].name or 'its first layer'!r} there"
            )
        if any(part is self for part in inner_layers([layer])):
            raise ValueError(f"add: {self.name!r} cannot be a layer of itself, nor of what it is in")
        front = _input_in_front(layer)
        added = [layer] if self._all or front is None else [front, layer]
        name_layers([*self._all, *added])
        self._all += added
        self._train.drop_network()

    def pop(self, rebuild: bool = True) -> Layer | None:
        """Take the last layer away and return it; None where there is none. The others keep their weights.

        Parameters
        ----------
        rebuild : bool
            Accepted for Keras's sake: the model is built anew when it is next used.
        """
        if not self.layers:
            return None
        self._train.drop_network()
        return self._all.pop()

    @property
    def layers(self) -> list[Layer]:
        """The layers, without the Input, as in Keras."""
        return [layer for layer in self._all if not isinstance(layer, Input)]

    @layers.setter
    def layers(self, layers: list[Layer]) -> None:
        raise AttributeError(f"{self.name}: layers cannot be assigned. Use `add()` and `pop()` to change them")

    @property
    def input_and_layers(self) -> list[Layer]:
        """The layers behind the Input, if there is one: all that a file says of the architecture."""
        return list(self._all)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """Return the layer of that name or index.

        Parameters
        ----------
        name : str, optional
            A layer's name.
        index : int, optional
            A place in `layers`; used where no name is given.
        """
        if index is not None and name is None:
            try:
                return self.layers[index]
            except IndexError:
                raise ValueError(f"no layer of index {index}; there are {len(self.layers)}") from None
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise ValueError(f"no layer named {name!r}; there are: {', '.join(layer.name for layer in self.layers)}")

    @property
    def built(self) -> bool:
        """State of the model: True once it has parameters, or can make them because its input's shape is known."""
        return self._train.built or (bool(self.layers) and isinstance(self._all[0], Input))

    @property
    def network(self) -> Network:
        """The tables and parameters; built on first use if the input's width is known."""
        if not self._train.built:
            if not self._all:
                raise NotBuiltError("the model has no layers: add some")
            if not isinstance(front := self._all[0], Input):
                raise NotBuiltError(
                    "the model is not built: its input's width is not known; begin with Input((n,)), or call fit"
                )
            self.build((None, *front.shape))
        return self._train.network

    @property
    def path(self) -> str:
        """Prefix of the names of its tensors in its network: none."""
        return ""

    def build(self, input_shape: int | tuple[int | None, ...]) -> None:
        """Create the parameters; layers that have some keep them.

        Parameters
        ----------
        input_shape : int or tuple
            The input's width, or (None, ..., width).
        """
        if isinstance(input_shape, tuple | list):
            input_shape = tuple(input_shape)[1:] if len(input_shape) > 1 else tuple(input_shape)
            shape = tuple(_checks.positive_int("build", "input_shape", n) for n in input_shape)
        else:
            shape = (_checks.positive_int("build", "input_shape", input_shape),)
        self._set_input(shape)
        if self.seed < 0:
            self.seed = utils.next_seed()
        network = self._compile_layers(shape)
        for layer in self.layers:
            layer.give_weights(network)
        self._take_network(network)

    def build_for(self, x: Any) -> None:
        """Build the model by the shape of data, where neither it nor an Input has one.

        Parameters
        ----------
        x : array-like, (rows, ..., columns)
            The data.
        """
        if not self.built and self.layers:
            shape = np.shape(x if hasattr(x, "shape") else _checks.array_of("x", x))
            if len(shape) < 2:
                raise ValueError(f"x: expected shape (rows, columns), got {shape}")
            self.build((None, *shape[1:]))

    def _set_input(self, shape: tuple[int, ...]) -> None:
        """Let the input be of a shape; raise if it is of another."""
        if not self.layers:
            raise ValueError("build: the model has no layers")
        if not isinstance(self._all[0], Input):
            self._all.insert(0, Input(shape))
        elif self._all[0].shape != shape:
            raise ValueError(
                f"build: the Input has shape {self._all[0].shape}, not {shape}: it has already been configured"
            )

    def _compile_layers(self, shape: tuple[int, ...]) -> Network:
        """Return a new network of the layers, its parameters at their initial values."""
        builder = NetworkBuilder(shape, self.dtype)
        for layer in inner_layers(self.layers):
            layer.check_dtype(self.dtype)
        for number, layer in enumerate(self.layers):
            layer.write(builder, self.seed, number)
        return builder.finish()

    def _take_network(self, network: Network) -> None:
        """Replace the network by this one, which the layers have made."""
        layers = self.layers
        self._train.take_network(network, layers)
        self._built_settings = self._settings()
        for layer in layers:
            layer.set_network(network)

    def _drop_network(self) -> None:
        """Return to the state before `build`, without an Input: the next data may come with another width."""
        self._train.drop_network()
        self._all = self._all[1:]
        for layer in inner_layers(self._all):
            layer.forget_network()

    def _settings(self) -> list[Any]:
        """Return what may be changed in layers that are built, and is heeded at the next compile."""
        return [(layer.trainable, getattr(layer, "activation", None)) for layer in inner_layers(self.layers)]

    def _apply_settings(self) -> None:
        """Update the network by the layers' ``trainable`` and ``activation``."""
        if self._built_settings == self._settings():
            return
        old = self.network
        network = self._compile_layers(old.input_shape)
        network.share(old)
        self._take_network(network)

    # -- as a layer of another model ----------------------------------------------------------------------------

    def write(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        self._set_input(builder.shape)
        if self.seed < 0:
            self.seed = seed
        super().write(builder, seed, number)

    def set_network(self, network: Network, prefix: str = "") -> None:
        """Share the weights that the model has as a layer of another: from now on both learn the same ones."""
        self.named = True
        path = f"{prefix}{self.name}/"
        first = next((parameter.offset for parameter in network.parameters if parameter.name.startswith(path)), None)
        front = self._all[0]
        assert isinstance(front, Input)  # `write` has put it there
        own = self._compile_layers(front.shape)
        if first is not None:
            own.share(network, first)
        self._take_network(own)

    def give_weights(self, network: Network, prefix: str = "") -> None:
        if self._train.built:
            give_tensors(self, self.network, "", network, f"{prefix}{self.name}/")
        else:
            for layer in self.layers:
                layer.give_weights(network, f"{prefix}{self.name}/")

    def with_layers(self, layers: list[Layer]) -> Self:
        front = [layer.copy() for layer in self._all if isinstance(layer, Input)]
        made = type(self)([*front, *layers], self.name, str(self.dtype))
        made.seed, made._trainable = self.seed, self._trainable
        return made

    # -- shapes, descriptions and weights -----------------------------------------------------------------------

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Shape of what goes in, (None, ...)."""
        return (None, *self.network.input_shape)

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """Shape of what comes out, (None, ...)."""
        return (None, *self.network.output_shape)

    def get_config(self) -> dict[str, Any]:
        """Return a description of the layers, without weights, from which `from_config` makes such a model again."""
        layers = [
            {
                "class_name": "InputLayer" if isinstance(layer, Input) else type(layer).__name__,
                "config": layer.get_config(),
            }
            for layer in self._all
        ]
        return {"name": self.name, "trainable": self.trainable, "dtype": str(self.dtype), "layers": layers}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        """Make a model of what `get_config` returned; its weights are new.

        Parameters
        ----------
        config : mapping
            The description.
        custom_objects : mapping of str to object, optional
            One's own activations, initializers and so on by name.
        """
        with _registry.custom_objects(custom_objects):
            return cls(**config)

    def to_json(self, **kwargs: Any) -> str:
        """Return the description as JSON, which `nbdense.models.model_from_json` reads.

        Parameters
        ----------
        **kwargs
            Options of ``json.dumps``.
        """
        return json.dumps({"class_name": "Sequential", "config": self.get_config()}, **kwargs)

    def set_weights(self, weights: Sequence[npt.ArrayLike]) -> None:
        """Set all parameters.

        Parameters
        ----------
        weights : sequence of array-like
            Arrays in the order and shapes of `get_weights`. Of a pruned model, what is held at zero stays zero; a
            UserWarning says of how many numbers that were not zero. ``model.network.mask = None`` lets go of the mask.
        """
        assign("set_weights", self.network, weights)

    @property
    def parameters(self) -> dict[str, npt.NDArray[Any]]:
        """Views of all parameters by name ("dense/kernel", ...): writing to them changes the model.

        Nobody watches them: `backward` does not see that they were written to, and what is written over pruned weights
        stays. `set_weights` sees to both.
        """
        return self.network.tensors()

    # -- the state of training ----------------------------------------------------------------------------------

    @property
    def train_state(self) -> TrainState:
        """State of the model's training; the network is built on first use."""
        _ = self.network
        return self._train

    @property
    def state(self) -> npt.NDArray[Any]:
        """Gradients (row 0) and the optimizer's slots, flat as the parameters."""
        return self.train_state.vectors

    @property
    def gradients(self) -> dict[str, npt.NDArray[Any]]:
        """Views of the gradients by the same names, as the last `backward` or training step left them.

        `backward` leaves them unclipped: `apply_gradients` clips what is in them then, so they may be written to.
        """
        return self.network.tensors(self.state[0])

    @property
    def seed(self) -> int:
        """Number that initial weights, orders of rows and dropout depend on; -1 before the first build."""
        return self._train.seed

    @seed.setter
    def seed(self, seed: int) -> None:
        self._train.seed = seed

    @property
    def epochs_trained(self) -> int:
        """Number of epochs, over all fits."""
        return self._train.epochs_trained

    @epochs_trained.setter
    def epochs_trained(self, epochs_trained: int) -> None:
        self._train.epochs_trained = epochs_trained

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer, once the model is compiled; another that is assigned begins anew."""
        return self._train.optimizer

    @optimizer.setter
    def optimizer(self, optimizer: str | Optimizer | None) -> None:
        if optimizer is not self._train.optimizer:
            self._train.take_optimizer(None if optimizer is None else optimizers.for_training(optimizer))

    @property
    def loss(self) -> Loss | None:
        """The loss, once the model is compiled; another may be assigned."""
        return self._train.loss

    @loss.setter
    def loss(self, loss: str | Loss | Callable[[Any, Any], Any] | None) -> None:
        self._train.loss = None if loss is None else losses.for_training(loss)

    # -- looking inside ----------------------------------------------------------------------------

    def summary(self, line_length: int | None = None, print_fn: Callable[[str], Any] | None = None) -> None:
        """Print the layers with the shapes of their outputs, parameters, multiply-adds and memory, and the totals.

        Parameters
        ----------
        line_length : int, optional
            Columns of the table; by default as many as the longest name wants. Names that do not fit are cut.
        print_fn : callable, optional
            Called with each line instead of ``print``.
        """
        from nbdense.inspection.summary import summary, unbuilt_summary

        for line in (summary(self, line_length) if self.built else unbuilt_summary(self)).splitlines():
            (print if print_fn is None else print_fn)(line)

    def to_table(self) -> Table:
        from nbdense.inspection.summary import summary_table

        return summary_table(self, self._known_shape(), totals=self._train.built)

    def __repr__(self) -> str:
        from nbdense.inspection.summary import description

        return description(self, self._known_shape())

    def _known_shape(self) -> tuple[int, ...] | None:
        """Return the shape of one row of the input; None where no Input says it."""
        front = next(iter(self._all), None)
        return front.shape if isinstance(front, Input) else None

    def saliency(self, x: Any, output: int | None = None) -> npt.NDArray[Any]:
        """Measure how steeply an output rises or falls with each input.

        Parameters
        ----------
        x : array-like, (rows, ..., n_in)
            Inputs.
        output : int, optional
            A column of the outputs; by default each row's largest.

        Returns
        -------
        ndarray, of the shape of x
        """
        return saliency(self, x, output)

    def plot_weights(self, ax: Any = None) -> Any:
        """Draw the spread of each parameter tensor: a box from quartile to quartile, whiskers to the extremes.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes to draw on; by default a new figure.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        return plot_weights(self, ax)


def _input_in_front(layer: Layer) -> Input | None:
    """Return the Input that a first layer brings along: by its arguments, or as the first of its own layers."""
    if isinstance(layer, LayerStack):
        first = next(iter(layer.input_and_layers), None)
        return Input(first.shape) if isinstance(first, Input) else None
    own_input: Input | None = getattr(layer, "input", None)
    return own_input
