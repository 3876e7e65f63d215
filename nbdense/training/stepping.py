"""One's own training loop: forward, backward and apply_gradients by themselves, and single batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import _checks, backends
from nbdense.backends.base import NOTHING, Data, Objective, Workspace
from nbdense.network import set_delta_flags
from nbdense.training import phases
from nbdense.training.accumulation import take_steps, use_gradients
from nbdense.training.evaluation import Tally
from nbdense.training.loop import LossNotFiniteError, count_steps
from nbdense.training.state import TrainState

_STRIDE = 0x9E3779B97F4A7C15  # between the seeds of calls


class Steps:
    """Single steps of a model's training, and the memory that they keep; the docstrings of `Sequential` have the rules.

    Parameters
    ----------
    state : TrainState
        State of a model that is built before the first step.
    """

    def __init__(self, state: TrainState) -> None:
        self._state = state
        self._calls = 0  # in training
        self.forget()

    def forget(self) -> None:
        """Drop the memory: the network or what is computed with it has changed."""
        self._open: _OpenStep | None = None
        self._batch: tuple[tuple[int, Objective], Workspace] | None = None

    def forward(self, x: Any, training: bool, seed: int | None = None) -> npt.NDArray[Any]:
        """Return the outputs of a batch, and keep what a backward needs.

        Dropout's ``seed`` is the model's by default.
        """
        state, network = self._state, self._state.network
        x = state.inputs(x)
        rows = x.shape[0]
        if rows == 0:
            raise ValueError("forward: x has no rows")
        layers = network.layers.copy() if training else network.kept_inference()
        if self._open is None or self._open.workspace.batch != rows:
            self._open = None  # its memory first
            self._open = _OpenStep(backends.current().workspace(network, NOTHING, rows, state.vectors), layers)
        step = self._open
        step.layers, step.rows, step.version = layers, rows, network.version
        set_delta_flags(layers, network.segments, input_learns=True)
        data = Data(_checks.source(x), _checks.no_source(), _checks.no_source(), rows)
        seed = state.seed if seed is None else seed
        step.workspace.run(phases.forward(layers), data, layers=layers, seed=seed, optimizer=state.optimizer)
        return step.workspace.tensor(layers[-1], "output", rows).reshape(rows, *network.output_shape).copy()

    def call(self, x: Any, training: bool) -> npt.NDArray[Any]:
        """Return the outputs of a batch; in training dropout draws anew each time, and running statistics move."""
        self._calls += training
        outputs = self.forward(x, training, (self._state.seed + self._calls * _STRIDE) % 2**62 if training else None)
        step = self._open
        if training and step is not None:
            nothing = _checks.no_source()
            data = Data(nothing, nothing, nothing, step.workspace.batch)
            step.workspace.run(phases.update(), data, layers=step.layers)  # without an optimizer: statistics alone
            step.rows = 0
        return outputs

    def backward(self, grad_output: Any) -> npt.NDArray[Any]:
        """Fill the gradients from the derivative by the last forward's outputs; return that by its inputs."""
        network, step = self._state.network, self._open
        if step is None or step.rows == 0:
            raise RuntimeError("backward: call forward first; a forward serves one backward")
        if step.version != network.version:
            raise RuntimeError(
                "backward: the weights have changed since forward (by a training step or set_weights), so its "
                "activations are no longer theirs; call forward again"
            )
        rows = step.rows
        grad = np.asarray(_checks.numbers_of("backward: grad_output", grad_output), network.dtype)
        shape = (rows, *network.output_shape)
        if grad.shape != shape:
            raise ValueError(f"backward: grad_output must have the outputs' shape {shape}, got {grad.shape}")
        last = step.layers[-1]
        step.workspace.set_deltas(last, grad.reshape(rows, last["positions_out"], last["n_out"]))
        step.rows = 0  # backward writes over what forward kept
        data = Data(_checks.no_source(), _checks.no_source(), _checks.no_source(), rows)
        step.workspace.run(phases.backward(step.layers), data, layers=step.layers)
        deltas = step.workspace.tensor(step.layers[0], "input", rows, deltas=True)
        return deltas.reshape(rows, *network.input_shape).copy()

    def apply_gradients(self) -> None:
        """Take the optimizer's step with the gradients that are there."""
        optimizer, _ = self._state.compiled("apply_gradients")
        step = self._open
        if step is None:
            raise RuntimeError("apply_gradients: call forward and backward first")
        use_gradients(step.workspace, step.layers, optimizer)
        count_steps(self._state)

    def train_on_batch(self, x: Any, y: Any, sample_weight: Any, class_weight: Any) -> dict[str, float]:
        """Take one step on one batch; return its loss and metrics before the step."""
        state = self._state
        optimizer, _ = state.compiled()
        objective, metrics = state.objective()
        data = state.data(x, y, sample_weight, class_weight)
        key = (data.rows, objective)
        if self._batch is None or self._batch[0] != key:
            self._batch = None  # its memory first
            self._batch = (key, backends.current().workspace(state.network, objective, data.rows, state.vectors))
        workspace, layers = self._batch[1], state.network.layers
        done, totals = take_steps(workspace, layers, optimizer, data, seed=state.seed)
        if done == 0:
            raise LossNotFiniteError(f"the loss of this batch is {totals[0, 0]}; no weight was changed")
        count_steps(state)
        tally = Tally(metrics, state.network.positions_out)
        tally.add(totals, data.rows, workspace, layers)
        return tally.results()


class _OpenStep:
    """A forward that may be followed by a backward."""

    def __init__(self, workspace: Workspace, layers: npt.NDArray[Any]) -> None:
        self.workspace, self.layers = workspace, layers
        self.rows = 0  # that a backward may go back through
        self.version = -1  # of the network's parameters in forward
