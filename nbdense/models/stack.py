"""A stack of layers and the network that they make: what a model is before it learns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import _checks, backends, utils
from nbdense.inspection.attribution import saliency
from nbdense.inspection.plots import plot_weights
from nbdense.inspection.summary import summary
from nbdense.layers import Input, Layer, assign, inner_layers, name_layers
from nbdense.losses import Loss
from nbdense.network import Network
from nbdense.network.builder import NetworkBuilder
from nbdense.optimizers import Optimizer
from nbdense.training.state import TrainState

_BLOCK = 8192  # rows that predict converts at a time where they are not ready to read


class LayerStack:
    """Layers, one after the other, and the parameters that they have: `Sequential` without its training.

    Parameters
    ----------
    layers : sequence of Layer, optional
        May begin with an Input; more can be added with `add`.
    name : str, optional
        The model's name.
    dtype : {"float32", "float64"}
        Type of parameters and all computation.
    """

    def __init__(self, layers: Sequence[Layer] | None = None, name: str | None = None, dtype: str = "float32") -> None:
        self.name = "sequential" if name is None else name
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.dtype("float32"), np.dtype("float64")):
            raise ValueError(f"{type(self).__name__}: dtype must be 'float32' or 'float64', got {dtype!r}")
        self._all: list[Layer] = []
        self._built_trainable: list[bool] = []
        self._train = TrainState()
        for layer in layers or []:
            self.add(layer)

    # -- structure ----------------------------------------------------------------------------------------------

    def add(self, layer: Layer) -> None:
        """Append a layer.

        Parameters
        ----------
        layer : Layer
            Its name must be new in this model.
        """
        if not isinstance(layer, Layer):
            raise TypeError(f"add: expected a layer, got {type(layer).__name__}")
        if isinstance(layer, Input) and self._all:
            raise ValueError("add: Input must be the first layer")
        if self.built:
            raise ValueError("add: the model is built already; add layers before it is fitted or asked to predict")
        inner = getattr(layer, "input", None)
        if not self._all and inner is not None:
            self._all.append(inner)
        name_layers([*self._all, layer])
        self._all.append(layer)

    @property
    def layers(self) -> list[Layer]:
        """The layers, without the Input, as in Keras."""
        return [layer for layer in self._all if not isinstance(layer, Input)]

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
        """State of the parameters: True once they exist."""
        return self._train.built

    @property
    def network(self) -> Network:
        """The tables and parameters; built on first use if the input's width is known."""
        if not self._train.built:
            if not self._all or not isinstance(self._all[0], Input):
                raise ValueError(
                    "the model is not built: its input's width is not known; begin with Input((n,)), or call fit"
                )
            self.build((None, *self._all[0].shape))
        return self._train.network

    def build(self, input_shape: int | tuple[int | None, ...]) -> None:
        """Create the parameters.

        Parameters
        ----------
        input_shape : int or tuple
            The input's width, or (None, ..., width).
        """
        if isinstance(input_shape, tuple):
            input_shape = input_shape[1:] if len(input_shape) > 1 else input_shape
            shape = tuple(_checks.positive_int("build", "input_shape", n) for n in input_shape)
        else:
            shape = (_checks.positive_int("build", "input_shape", input_shape),)
        if not self.layers:
            raise ValueError("build: the model has no layers")
        if isinstance(self._all[0], Input):
            if self._all[0].shape != shape:
                raise ValueError(f"build: the Input has shape {self._all[0].shape}, not {shape}")
        else:
            self._all.insert(0, Input(shape))
        if self.seed < 0:
            self.seed = utils.next_seed()
        self._take_network(self._compile_layers(shape))

    def _compile_layers(self, shape: tuple[int, ...]) -> Network:
        """Return a new network of the layers, its parameters at their initial values."""
        builder = NetworkBuilder(shape, self.dtype)
        for number, layer in enumerate(self.layers):
            layer.build(builder, self.seed, number)
        return builder.finish()

    def _take_network(self, network: Network) -> None:
        """Replace the network by this one, which the layers have made."""
        layers = self.layers
        self._train.take_network(network, layers)
        self._built_trainable = [layer.trainable for layer in inner_layers(layers)]
        for layer in layers:
            layer.set_network(network)

    def _drop_network(self) -> None:
        """Return to the state before `build`, without an Input: the next data may come with another width."""
        self._train.drop_network()
        self._all = self._all[1:]

    def _set_trainable(self) -> None:
        """Update the network by the layers' ``trainable``."""
        if self._built_trainable == [layer.trainable for layer in inner_layers(self.layers)]:
            return
        weights, old = self.get_weights(), self.network
        network = self._compile_layers(old.input_shape)
        network.mask = old.mask
        self._take_network(network)
        self.set_weights(weights)

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Shape of what goes in, (None, ...)."""
        return (None, *self.network.input_shape)

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """Shape of what comes out, (None, ...)."""
        return (None, *self.network.output_shape)

    def get_weights(self) -> list[npt.NDArray[Any]]:
        """Return copies of all parameters, kernel and bias in turn, as in Keras."""
        return [view.copy() for view in self.network.tensors().values()]

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
        """The optimizer, once the model is compiled."""
        return self._train.optimizer

    @optimizer.setter
    def optimizer(self, optimizer: Optimizer | None) -> None:
        self._train.optimizer = optimizer

    @property
    def loss(self) -> Loss | None:
        """The loss, once the model is compiled."""
        return self._train.loss

    @loss.setter
    def loss(self, loss: Loss | None) -> None:
        self._train.loss = loss

    # -- outputs, and looking inside ----------------------------------------------------------------------------

    def predict(self, x: Any, batch_size: int | None = None, verbose: int | str = 0) -> npt.NDArray[Any]:
        """Return the outputs of the last layer.

        Parameters
        ----------
        x : array-like, (rows, ..., n_in)
            Any real dtype and memory layout. A NaN reaches its own row's outputs only.
        batch_size : int, optional
            Accepted for Keras's sake; any number of rows is worked through in blocks that fit the cache.
        verbose : {"auto", 0, 1, 2}
            Accepted for Keras's sake.

        Returns
        -------
        ndarray, (rows, ..., n_out), of the model's dtype
        """
        network = self.network
        if (  # carray: C-ordered, aligned and writable
            type(x) is np.ndarray
            and x.dtype == self.dtype
            and x.ndim == 2
            and x.shape[1] == network.n_in
            and len(network.input_shape) == 1
            and x.flags.carray
        ):
            out = backends.current().predict(network, x)
        else:
            x, backend = self._train.inputs(x), backends.current()
            out = np.empty((x.shape[0], network.n_out), self.dtype)
            for first in range(0, x.shape[0], _BLOCK):
                block = _checks.matrix_of(x[first : first + _BLOCK], self.dtype)
                out[first : first + len(block)] = backend.predict(network, block)
        return out if len(network.output_shape) == 1 else out.reshape(-1, *network.output_shape)

    def count_params(self) -> int:
        """Return the number of parameters."""
        return sum(math.prod(parameter.shape) for parameter in self.network.parameters)

    def summary(self, line_length: int | None = None, print_fn: Callable[[str], Any] | None = None) -> None:
        """Print the layers with the shapes of their outputs, parameters, multiply-adds and memory, and the totals.

        Parameters
        ----------
        line_length : int, optional
            Columns of the table; by default as many as the longest name wants. Names that do not fit are cut.
        print_fn : callable, optional
            Called with each line instead of ``print``.
        """
        for line in summary(self, line_length).splitlines():
            (print if print_fn is None else print_fn)(line)

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
