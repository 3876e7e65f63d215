"""The state of a model's training, and the protocols by which inspection and callbacks know a model."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nbdense import _checks, metrics
from nbdense._warn import warn
from nbdense.backends.base import Data, Objective
from nbdense.engine.memory import aligned_zeros
from nbdense.engine.rows import ACTIVATION, DENSE, kind_of
from nbdense.layers import Layer
from nbdense.losses import Loss
from nbdense.network import Network
from nbdense.optimizers import Optimizer
from nbdense.training import targets
from nbdense.training.sparse_rows import dense_rows, is_sparse, readable

Rows = npt.NDArray[Any]


class TrainState:
    """Everything that training reads of a model and changes in it; a model has one for all its life.

    Attributes
    ----------
    network : Network
        Tables and parameters; there once the model is built.
    built : bool
        Whether it is.
    input_layer, output_layer : str
        Names of the first and the last layer, for messages about data.
    seed : int
        Initial weights, orders of rows and dropout depend on it; -1 before the first build.
    epochs_trained : int
        Over all fits.
    optimizer : Optimizer or None
    loss : Loss or None
    metrics, weighted_metrics : list of str or Metric
        As they were compiled.
    lock : RLock
        Held by whoever changes weights by steps.
    """

    network: Network
    input_layer: str
    output_layer: str

    def __init__(self) -> None:
        self.built = False
        self.seed = -1
        self.epochs_trained = 0
        self.optimizer: Optimizer | None = None
        self.loss: Loss | None = None
        self.metrics: list[str | metrics.Metric] = []
        self.weighted_metrics: list[str | metrics.Metric] = []
        self.lock = threading.RLock()
        self._vectors: npt.NDArray[Any] | None = None
        self._advised = False

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "lock": None}  # a copy is another model's, with a lock of its own

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, lock=threading.RLock())

    def take_network(self, network: Network, layers: Sequence[Layer]) -> None:
        """Train this network, made of these layers, from now on; gradients and slots begin at zero."""
        self.network, self.built = network, True
        self.input_layer, self.output_layer = layers[0].name, layers[-1].name
        self._vectors = None
        self._set_decay()

    def drop_network(self) -> None:
        """Return to the state before the first build: the next data may come with another width."""
        if self.built:
            self.built, self._vectors = False, None
            del self.network

    def compile(
        self,
        optimizer: Optimizer,
        loss: Loss,
        reported: list[str | metrics.Metric],
        weighted: list[str | metrics.Metric],
    ) -> None:
        """Begin anew with this optimizer, loss and metrics; an optimizer that has been used forgets its steps."""
        for metric in [*reported, *weighted]:  # those that depend on the number of columns are made in `objective`
            metrics.get(metric, loss, 1)
        self.take_optimizer(optimizer)
        self.loss, self._advised = loss, False
        self.metrics, self.weighted_metrics = reported, weighted

    def take_optimizer(self, optimizer: Optimizer | None) -> None:
        """Learn by this optimizer from now on; it forgets its steps, and what it keeps beside the weights."""
        self.optimizer, self._vectors = optimizer, None
        if optimizer is not None:
            optimizer.batches = 0
            optimizer.leave_variables()
        if self.built:
            self._set_decay()

    def holds(self, vectors: npt.NDArray[Any]) -> bool:
        """Tell whether gradients and slots still lie in these vectors, so that what works on them may go on."""
        return self._vectors is vectors

    def _set_decay(self) -> None:
        """Tell the network what the optimizer's weight decay leaves alone."""
        if self.optimizer is not None:
            names = (parameter.name for parameter in self.network.parameters)
            self.network.segments["decay"] = self.optimizer.decay_factors(names)

    @property
    def vectors(self) -> npt.NDArray[Any]:
        """Gradients (row 0) and the optimizer's slots, flat as the parameters."""
        if self._vectors is not None:
            return self._vectors
        with self.lock:  # threads that ask for the first time get the same
            if self._vectors is None:
                rows = 1 if self.optimizer is None else self.optimizer.state_rows
                self._vectors = aligned_zeros((rows, self.network.params.size), self.network.dtype)
                if self.optimizer is not None:
                    self.optimizer.take_slots(self._slots_by_parameter(self.optimizer, self._vectors))
            return self._vectors

    def _slots_by_parameter(self, optimizer: Optimizer, vectors: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """Return views of the slots in Keras's order: what is beside all optimizers' first, then by parameter."""
        first = 1 + optimizer.slots
        parts = [[row] for row in range(first, len(vectors))] + [list(range(1, first))]
        views = [list(self.network.tensors(vector).values()) for vector in vectors]
        learning = [number for number, segment in enumerate(self.network.segments) if segment["trainable"]]
        return [views[row][number] for rows in parts for number in learning for row in rows]

    def compiled(self, caller: str = "") -> tuple[Optimizer, Loss]:
        """Return the optimizer and the loss.

        Raises
        ------
        RuntimeError
            If the model is not compiled; ``caller`` begins the message.
        """
        if self.optimizer is None or self.loss is None:
            owner = f"{caller}: " if caller else ""
            raise RuntimeError(f"{owner}the model is not compiled: call compile(optimizer, loss) first")
        return self.optimizer, self.loss

    def objective(self, reports: bool = True) -> tuple[Objective, list[metrics.Metric]]:
        """Return what a run computes from outputs and targets, and the metrics that it reports.

        Parameters
        ----------
        reports : bool
            Whether there are metrics beside the loss.

        Warns
        -----
        UserWarning
            Once, of a loss that hardly suits the last layer's activation.
        """
        _, loss = self.compiled()
        network = self.network
        last = network.layers[-1]
        activated = kind_of(last) in (DENSE, ACTIVATION)
        activation = network.activation_of(last).name if activated else "none"
        form, fused, parameter = loss.form(activation)
        advice = loss.advice_after(activation)
        if advice and not self._advised:
            warn(f"{loss.name} after {activation!r}: {advice}")
        self._advised = True
        n_out = int(last["n_out"])
        reported = metrics.get_all(self.metrics, loss, n_out, self.weighted_metrics) if reports else []
        codes = tuple(metric.code for metric in reported)
        width = 1 if loss.sparse else n_out
        call = loss.loop(network.dtype) or form.loop(network.dtype)
        return Objective(form, parameter, fused, loss.sparse, codes, width, call), reported

    def inputs(self, x: Any) -> Rows:
        """Return inputs as a matrix of rows, in any dtype and memory layout, after a look at their shape.

        A sparse matrix becomes dense as a whole: a single batch.
        """
        if is_sparse(x):
            return dense_rows(self.sparse_inputs(x), self.network.dtype)
        return _checks.rows("x", x, self.network.input_shape, f"layer {self.input_layer!r}")

    def sparse_inputs(self, x: Any) -> Any:
        """Return the inputs in a sparse matrix as a CSR matrix, after a look at their shape and dtype."""
        rows = readable("x", x)
        _checks.refuse_shape("x", rows.shape, self.network.input_shape, f"layer {self.input_layer!r}")
        return rows

    def arrays(
        self, x: Any, y: Any, sample_weight: Any = None, class_weight: Any = None
    ) -> tuple[Rows, Rows, Rows | None]:
        """Return inputs, targets and the rows' weights, checked but for NaN and infinity."""
        x = self.inputs(x)
        if x.shape[0] == 0:
            raise ValueError("x: the data set is empty")
        return x, *self.targets(y, x.shape[0], sample_weight, class_weight)

    def targets(
        self, y: Any, rows: int, sample_weight: Any = None, class_weight: Any = None
    ) -> tuple[Rows, Rows | None]:
        """Return the targets and weights of so many rows, checked but for NaN and infinity."""
        _, loss = self.compiled()
        y = targets.check_targets(y, loss, rows, self.network.output_shape, self.output_layer)
        return y, targets.row_weights(sample_weight, class_weight, y, loss, self.network.positions_out)

    def data(self, x: Any, y: Any, sample_weight: Any = None, class_weight: Any = None) -> Data:
        """Return a data set as the engine reads it, after all checks."""
        return targets.as_sources(*self.arrays(x, y, sample_weight, class_weight), self.network.dtype)


class Model(Protocol):
    """Protocol of what inspection needs of a model; `Sequential` is one."""

    name: str
    dtype: np.dtype[Any]

    @property
    def layers(self) -> list[Layer]:
        """Layers, without the Input."""

    @property
    def network(self) -> Network:
        """Tables and parameters; built on first use."""

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer, once the model is compiled."""

    @property
    def loss(self) -> Loss | None:
        """The loss, once the model is compiled."""

    @property
    def train_state(self) -> TrainState:
        """The state of its training; the network is built on first use."""


class FittedModel(Model, Protocol):
    """Protocol of what callbacks need of the model that is fitted; `Sequential` is one."""

    stop_training: bool

    @property
    def state(self) -> npt.NDArray[Any]:
        """Gradients (row 0) and the optimizer's slots."""

    def predict(self, x: Any, batch_size: int | None = None, verbose: int | str = 0) -> npt.NDArray[Any]:
        """Return the outputs of rows."""

    def evaluate(
        self,
        x: Any,
        y: Any,
        batch_size: int | None = None,
        verbose: int | str = 0,
        sample_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Return loss and metrics on a data set."""

    def get_weights(self) -> list[npt.NDArray[Any]]:
        """Return copies of all parameters."""

    def set_weights(self, weights: Sequence[npt.ArrayLike]) -> None:
        """Set all parameters."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file."""
