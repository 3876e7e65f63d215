"""Sequential: a stack of layers that is compiled, fitted, evaluated, saved and loaded as in Keras."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import _checks, losses, metrics, optimizers, utils
from nbdense._warn import warn
from nbdense.callbacks import Callback, History
from nbdense.engine.tables import ACTIVATION, DENSE, aligned_zeros
from nbdense.inspection.summary import Inspection
from nbdense.layers import Input, Layer, assign, inner_layers, name_layers
from nbdense.models.derived import Derived
from nbdense.network import Network
from nbdense.network.builder import NetworkBuilder
from nbdense.training import targets
from nbdense.training.loop import evaluate, fit_epochs, split
from nbdense.training.stepping import Stepping
from nbdense.training.workspace import Data, Objective, predict

_BLOCK = 8192  # rows that predict converts at a time where they are not ready to read


class Sequential(Stepping, Inspection, Derived):
    """A feed-forward network: layers, one after the other.

    Parameters
    ----------
    layers : sequence of Layer, optional
        May begin with an Input; more can be added with `add`.
    name : str, optional
        The model's name.
    dtype : {"float32", "float64"}
        Of parameters and all computation.

    Examples
    --------
    >>> import numpy as np
    >>> from nbdense.models import Sequential
    >>> from nbdense.layers import Dense, Input
    >>> model = Sequential([Input((2,)), Dense(8, "tanh"), Dense(1)])
    >>> model.compile("adam", loss="mse")
    >>> model.predict(np.zeros((3, 2), "float32")).shape
    (3, 1)
    """

    EVALUATE_ROWS = 256  # at a time, if nothing else is asked for

    def __init__(self, layers: Sequence[Layer] | None = None, name: str | None = None, dtype: str = "float32") -> None:
        self.name = "sequential" if name is None else name
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.dtype("float32"), np.dtype("float64")):
            raise ValueError(f"Sequential: dtype must be 'float32' or 'float64', got {dtype!r}")
        super().__init__()
        self._all: list[Layer] = []
        self._built_trainable: list[bool] = []
        self._network: Network | None = None
        self.seed = -1
        self.epochs_trained = 0
        self.optimizer: optimizers.Optimizer | None = None
        self.loss: losses.Loss | None = None
        self._metric_names: list[str | metrics.Metric] = []
        self._advised = False
        self._state: npt.NDArray[Any] | None = None
        self._custom_objects: dict[str, Any] = {}
        self.stop_training = False
        self.history: History | None = None
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
        if self._network is not None:
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

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of that name or index.

        Parameters
        ----------
        name : str, optional
            A layer's name.
        index : int, optional
            A place in `layers`; used where no name is given.
        """
        if index is not None and name is None:
            return self.layers[index]
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise ValueError(f"no layer named {name!r}; there are: {', '.join(layer.name for layer in self.layers)}")

    @property
    def built(self) -> bool:
        """Whether the parameters exist."""
        return self._network is not None

    @property
    def network(self) -> Network:
        """The tables and parameters; built on first use if the input's width is known."""
        if self._network is None:
            if not self._all or not isinstance(self._all[0], Input):
                raise ValueError(
                    "the model is not built: its input's width is not known; begin with Input((n,)), or call fit"
                )
            self.build((None, *self._all[0].shape))
        assert self._network is not None
        return self._network

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
        builder = NetworkBuilder(shape, self.dtype)
        for number, layer in enumerate(self.layers):
            layer.build(builder, self.seed, number)
        self._take_network(builder.finish())

    def _take_network(self, network: Network) -> None:
        self._network, self._state = network, None
        self._forget_steps()
        self._built_trainable = [layer.trainable for layer in inner_layers(self.layers)]
        for layer in self.layers:
            layer.set_network(network)
        self._set_decay()

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """(None, ...): the shape of what goes in."""
        return (None, *self.network.input_shape)

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """(None, ...): the shape of what comes out."""
        return (None, *self.network.output_shape)

    def get_weights(self) -> list[npt.NDArray[Any]]:
        """Copies of all parameters, kernel and bias in turn, as in Keras."""
        return [view.copy() for view in self.network.tensors().values()]

    def set_weights(self, weights: Sequence[npt.ArrayLike]) -> None:
        """Set all parameters.

        Parameters
        ----------
        weights : sequence of array-like
            In the order and shapes of `get_weights`. Of a pruned model, what is held at zero stays zero; a UserWarning
            says of how many numbers that were not zero. ``model.network.mask = None`` lets go of the mask.
        """
        assign("set_weights", self.network, weights)

    # -- training -----------------------------------------------------------------------------------------------

    def compile(
        self,
        optimizer: str | optimizers.Optimizer = "adam",
        loss: str | losses.Loss | None = None,
        metrics: Iterable[str | metrics.Metric] | None = None,
    ) -> None:
        """Choose how the model learns.

        Parameters
        ----------
        optimizer : str or Optimizer
            A name takes the defaults.
        loss : str or Loss
            What is minimised.
        metrics : iterable of str, optional
            What is reported beside the loss, such as "accuracy".

        Notes
        -----
        Training begins anew: an optimizer that has been used forgets what it knew, its count of steps too.

        A loss that hardly suits the last layer's activation is warned of once, when it is first used.
        """
        if loss is None:
            raise ValueError(f"compile: name a loss; there are: {', '.join(sorted(losses.LOSSES))}")
        chosen_optimizer, chosen_loss, names = optimizers.get(optimizer), losses.get(loss), list(metrics or [])
        _check_metrics(names, chosen_loss)
        self.optimizer, self.loss, self._metric_names = chosen_optimizer, chosen_loss, names
        chosen_optimizer.iterations = 0
        self._state, self._advised = None, False
        self._forget_steps()
        if self._network is not None:
            self._set_trainable()
            self._set_decay()

    def _set_decay(self) -> None:
        """Bring the network up to date with what the optimizer's weight decay leaves alone."""
        if self.optimizer is not None:
            network = self.network
            network.segments["decay"] = self.optimizer.decay_factors(p.name for p in network.parameters)

    def _set_trainable(self) -> None:
        """Bring the network up to date with the layers' ``trainable``."""
        if self._built_trainable == [layer.trainable for layer in inner_layers(self.layers)]:
            return
        weights, old = self.get_weights(), self.network
        builder = NetworkBuilder(old.input_shape, self.dtype)
        for number, layer in enumerate(self.layers):
            layer.build(builder, self.seed, number)
        network = builder.finish()
        network.mask = old.mask
        self._take_network(network)
        self.set_weights(weights)

    def _objective(self) -> tuple[Objective, list[metrics.Metric]]:
        if self.loss is None or self.optimizer is None:
            raise RuntimeError("the model is not compiled: call compile(optimizer, loss) first")
        network = self.network
        last = network.layers[-1]
        activated = last["kind"] in (DENSE, ACTIVATION)
        activation = network.activation_of(last).name if activated else "none"
        form, fused, parameter = self.loss.form(activation)
        advice = self.loss.advice_after(activation)
        if advice and not self._advised:
            warn(f"{self.loss.name} after {activation!r}: {advice}")
        self._advised = True
        n_out = int(last["n_out"])
        chosen = metrics.get_all(self._metric_names, self.loss, n_out)
        codes = tuple(metric.code for metric in chosen)
        width = 1 if self.loss.sparse else n_out
        call = self.loss.call(self.dtype)
        return Objective(form, parameter, fused, self.loss.sparse, codes, width, call), chosen

    def _data(self, x: Any, y: Any, sample_weight: Any = None, class_weight: Any = None) -> Data:
        network = self.network
        assert self.loss is not None
        x = _checks.rows("x", x, network.input_shape, f"layer {self.layers[0].name!r}")
        if x.shape[0] == 0:
            raise ValueError("x: the data set is empty")
        y = targets.check_targets(y, self.loss, x.shape[0], network.output_shape, self.layers[-1].name)
        weights = targets.row_weights(sample_weight, class_weight, y, self.loss, network.positions_out)
        return targets.as_sources(x, y, weights, self.dtype)

    @property
    def state(self) -> npt.NDArray[Any]:
        """Gradients (row 0) and the optimizer's slots, flat as the parameters."""
        if self._state is None:
            rows = 1 if self.optimizer is None else self.optimizer.state_rows
            self._state = aligned_zeros((rows, self.network.params.size), self.dtype)
        return self._state

    def fit(
        self,
        x: Any,
        y: Any,
        batch_size: int | None = 32,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Iterable[Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: Sequence[Any] | None = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | str | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
    ) -> History:
        """Train.

        Parameters
        ----------
        x : array-like, (rows, n_in)
            Inputs: any real dtype and memory layout, read where they lie (a memmap too).
        y : array-like
            Targets, (rows, n_out), or (rows,) of class numbers for a sparse loss.
        batch_size : int
            Rows a step; None is 32.
        epochs : int
            The number of the last epoch.
        verbose : {"auto", 0, 1, 2}
            1 (auto) draws a progress bar, 2 prints a line an epoch, 0 is silent.
        callbacks : iterable of Callback, optional
            Called between epochs.
        validation_split : float
            The share of rows, from the end and before shuffling, that is held out.
        validation_data : (x, y) or (x, y, sample_weight), optional
            Evaluated after each epoch; goes before ``validation_split``.
        shuffle : bool
            A new order of rows each epoch.
        class_weight : mapping of int to float, or "balanced", optional
            A weight for each class, 1 where a mapping has none; balanced is rows / (classes * rows of the class), as in
            scikit-learn, where a row counts as often as its sample weight says.
        sample_weight : array-like, (rows,), optional
            A weight for each row; a class weight multiplies it.
        initial_epoch : int
            The number of the first epoch.

        Returns
        -------
        History
            Loss and metrics of each epoch.

        Raises
        ------
        ValueError, TypeError
            For data of a wrong shape, dtype or range, with NaN, infinity or masked elements in it; nothing has been
            changed then.
        FloatingPointError
            If the loss is no longer finite; the weights are those of the last finite step.
        """
        batch = _checks.positive_int("fit", "batch_size", 32 if batch_size is None else batch_size)
        if verbose not in ("auto", 0, 1, 2):
            raise ValueError(f"fit: verbose must be 'auto', 0, 1 or 2, got {verbose!r}")
        if self.loss is None:
            raise RuntimeError("fit: the model is not compiled: call compile(optimizer, loss) first")
        first_fit = not self.built and not (self._all and isinstance(self._all[0], Input))
        if first_fit:
            shape = np.shape(x)
            if len(shape) < 2:
                raise ValueError(f"x: expected shape (rows, columns), got {shape}")
            self.build((None, *shape[1:]))
        held: Data | None = None
        try:
            if validation_data is not None:
                held = self._data(*validation_data[:2], *(validation_data[2:3]))
            elif validation_split:
                x, y, sample_weight, rest = split(x, y, sample_weight, validation_split)
                held = self._data(*rest)
            data = self._data(x, y, sample_weight, class_weight)
        except Exception:
            if first_fit:  # the next may come with another width
                self._network, self._all = None, self._all[1:]
            raise
        return fit_epochs(
            self,
            data,
            held,
            batch=min(batch, data.rows),
            epochs=range(initial_epoch, epochs),
            verbose=1 if verbose == "auto" else int(verbose),
            callbacks=list(callbacks or []),
            shuffle=bool(shuffle),
        )

    def evaluate(
        self,
        x: Any,
        y: Any,
        batch_size: int | None = None,
        verbose: int | str = 0,
        sample_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Loss and metrics on a data set.

        Parameters
        ----------
        x, y : array-like
            As for `fit`.
        batch_size : int, optional
            Rows at a time; the result does not depend on it.
        verbose : {"auto", 0, 1, 2}
            Accepted for Keras's sake.
        sample_weight : array-like, (rows,), optional
            A weight for each row.
        return_dict : bool
            Return a dict by name.

        Returns
        -------
        float, list of float, or dict of str to float
            The loss alone if there are no metrics, else the loss and the metrics.
        """
        self._objective()
        data = self._data(x, y, sample_weight)
        batch = self.EVALUATE_ROWS if batch_size is None else batch_size
        logs = evaluate(self, data, min(data.rows, _checks.positive_int("evaluate", "batch_size", batch)))
        if return_dict:
            return logs
        return list(logs.values()) if len(logs) > 1 else logs["loss"]

    def predict(self, x: Any, batch_size: int | None = None, verbose: int | str = 0) -> npt.NDArray[Any]:
        """What the last layer puts out.

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
            out = predict(network, x)
        else:
            x = _checks.rows("x", x, network.input_shape, f"layer {self.layers[0].name!r}")
            out = np.empty((x.shape[0], network.n_out), self.dtype)
            for first in range(0, x.shape[0], _BLOCK):
                block = _checks.matrix_of(x[first : first + _BLOCK], self.dtype)
                out[first : first + len(block)] = predict(network, block)
        return out if len(network.output_shape) == 1 else out.reshape(-1, *network.output_shape)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one file: architecture, weights, and what resuming its training needs.

        Parameters
        ----------
        path : path
            Any suffix; the format is safetensors. Written atomically.
        """
        from nbdense.models.files import save_model

        save_model(self, path)


def load_model(path: str | os.PathLike[str], custom_objects: Mapping[str, Any] | None = None) -> Any:
    """Read a model that `Sequential.save` or `QuantizedModel.save` wrote.

    Parameters
    ----------
    path : path
        The file.
    custom_objects : mapping of str to object, optional
        One's own activations, losses, metrics and initializers by name: a file names them, and never brings their
        code.

    Returns
    -------
    Sequential or QuantizedModel

    Raises
    ------
    nbdense.files.FileFormatError
        If the file is damaged, truncated, not ours, of a newer format, or names what ``custom_objects`` has not.
    """
    from nbdense.models.files import load

    return load(path, custom_objects)


def _check_metrics(names: list[str | metrics.Metric], loss: losses.Loss) -> None:
    """Raise for a metric that does not exist or does not fit the loss; what it is for n_out columns comes later."""
    for name in names:
        metrics.get(name, loss, 1)
