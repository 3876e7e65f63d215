"""One's own training loop: forward, backward and apply_gradients by themselves, and single batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import _checks, backends
from nbdense.backends.base import NOTHING, Data, Workspace
from nbdense.network import set_delta_flags
from nbdense.optimizers import Optimizer
from nbdense.training import phases
from nbdense.training.accumulation import NO_BYTES, Pass, Updates
from nbdense.training.batches import Batches, form_of, is_lent, lent
from nbdense.training.evaluation import Tally, penalty
from nbdense.training.loop import LossNotFiniteError, count_steps
from nbdense.training.state import TrainState

_STRIDE = 0x9E3779B97F4A7C15  # between the seeds of calls


class Steps:
    """Single steps of a model's training, and what they keep; the docstrings of `Sequential` have the rules.

    Threads take turns: a step that comes while another is taken waits for its end.

    Parameters
    ----------
    state : TrainState
        State of a model that is built before the first step.
    """

    def __init__(self, state: TrainState) -> None:
        self._state = state
        self._calls = 0  # in training
        self.forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"_state": self._state, "_calls": self._calls}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.forget()  # what is kept is made anew when it is wanted

    def forget(self) -> None:
        """Drop what is kept: the network or what is computed with it has changed."""
        self._open: _OpenStep | None = None
        self._batches: dict[str, Batches] = {}

    def forward(self, x: Any, training: bool, seed: int | None = None) -> npt.NDArray[Any]:
        """Return the outputs of a batch, and keep what a backward needs.

        Dropout's ``seed`` is the model's by default.
        """
        with self._state.lock:
            return self._forward(x, training, self._state.seed if seed is None else seed)

    def _forward(self, x: Any, training: bool, seed: int) -> npt.NDArray[Any]:
        state, step = self._state, self._open
        outputs = None if step is None else step.forward_again(x, training, seed)
        if outputs is not None:
            return outputs
        rows = state.inputs(x)
        if rows.shape[0] == 0:
            raise ValueError("forward: x has no rows")
        if step is None or step.workspace.batch != rows.shape[0] or not step.is_current:
            self._open = step = None  # its memory first
            self._open = step = _OpenStep(state, rows.shape[0])
        return step.forward(x, rows, training, seed)

    def call(self, x: Any, training: bool) -> npt.NDArray[Any]:
        """Return the outputs of a batch; in training dropout draws anew each time, and running statistics move."""
        with self._state.lock:
            self._calls += training
            seed = (self._state.seed + self._calls * _STRIDE) % 2**62 if training else self._state.seed
            outputs = self._forward(x, training, seed)
            if training and self._open is not None:
                self._open.move_statistics()
            return outputs

    def backward(self, grad_output: Any) -> npt.NDArray[Any]:
        """Fill the gradients from the derivative by the last forward's outputs; return that by its inputs."""
        with self._state.lock:
            network, step = self._state.network, self._open
            if step is None or step.rows == 0:
                raise RuntimeError("backward: call forward first; a forward serves one backward")
            if step.version != network.version:
                raise RuntimeError(
                    "backward: the weights have changed since forward (by a training step or set_weights), so its "
                    "activations are no longer theirs; call forward again"
                )
            grad = np.asarray(_checks.numbers_of("backward: grad_output", grad_output), network.dtype)
            shape = (step.rows, *network.output_shape)
            if grad.shape != shape:
                raise ValueError(f"backward: grad_output must have the outputs' shape {shape}, got {grad.shape}")
            return step.backward(grad)

    def apply_gradients(self) -> None:
        """Take the optimizer's step with the gradients that are there."""
        optimizer, _ = self._state.compiled("apply_gradients")
        with self._state.lock:
            step = self._open
            if step is None or not step.is_current:
                raise RuntimeError("apply_gradients: call forward and backward first")
            step.update(optimizer)
            count_steps(self._state)

    def train_on_batch(self, x: Any, y: Any, sample_weight: Any, class_weight: Any) -> dict[str, float]:
        """Take one step on one batch; return its loss and metrics before the step."""
        with self._state.lock:
            batches = self._batches_of("steps")
            totals = self._step(batches, x, y, sample_weight, class_weight)
            return self._results(batches, totals, len(y))

    def learn(self, x: Any, y: Any, sample_weight: Any = None) -> float:
        """Take one step on one batch; return its loss before the step, and compute no metric."""
        with self._state.lock:
            totals = self._step(self._batches_of("bare steps"), x, y, sample_weight, None)
            return totals.item(0) / (len(y) * self._state.network.positions_out)

    def make_room(self, rows: int) -> None:
        """Make the memory for batches that `learn` gets."""
        with self._state.lock:
            self._batches_of("bare steps").make_room(rows)

    def test_on_batch(self, x: Any, y: Any, sample_weight: Any) -> dict[str, float]:
        """Return loss and metrics of one batch."""
        with self._state.lock:
            batches = self._batches_of("looks")
            _, totals = batches.run(x, y, sample_weight)  # a loss that is not finite belongs in the result
            results = self._results(batches, totals, len(y))
            results["loss"] += penalty(self._state.network)
            return results

    def _step(self, batches: Batches, x: Any, y: Any, sample_weight: Any, class_weight: Any) -> npt.NDArray[np.float64]:
        done, totals = batches.run(x, y, sample_weight, class_weight)
        if done == 0:
            raise LossNotFiniteError(f"the loss of this batch is {totals[0, 0]}; no weight was changed")
        count_steps(self._state)
        return totals

    def _batches_of(self, kind: str) -> Batches:
        """Return the batches of a kind, prepared anew where the model has changed."""
        batches = self._batches.get(kind)
        if batches is None or not batches.is_current:
            if not self._state.built:
                raise RuntimeError("train_step: the model's layers have changed since; call train_step again")
            self._batches.pop(kind, None)  # its memory first
            batches = Batches(self._state, learns=kind != "looks", reports=kind != "bare steps")
            self._batches[kind] = batches
        return batches

    def _results(self, batches: Batches, totals: npt.NDArray[np.float64], rows: int) -> dict[str, float]:
        tally = Tally(batches.metrics, self._state.network.positions_out)
        tally.add(totals, rows, batches.workspace, batches.layers)
        return tally.results()


class _Passes:
    """Passes through one table of layers, prepared.

    Parameters
    ----------
    workspace : Workspace
    state : TrainState
    training : bool
        Whether dropout drops, and norms take the batch's statistics.

    Attributes
    ----------
    first, last : dict of str to number
        Fields of the table's first and last row.
    form : tuple or None
        Form of the last inputs; None where their memory could not be lent.
    """

    def __init__(self, workspace: Workspace, state: TrainState, training: bool) -> None:
        network = state.network
        self.layers = network.layers.copy() if training else network.kept_inference()
        set_delta_flags(self.layers, network.segments, input_learns=True)
        names = self.layers.dtype.names or ()
        # Python's numbers, which are read several times faster than a record's fields.
        self.first, self.last = (dict(zip(names, self.layers[i].item(), strict=True)) for i in (0, -1))
        self.forward = workspace.plan(phases.forward(self.layers), layers=self.layers, optimizer=state.optimizer)
        self.backward = Pass(workspace.plan(phases.backward(self.layers), layers=self.layers), workspace.batch)
        self.form: tuple[Any, ...] | None = None
        self.updates: Updates | None = None


class _OpenStep:
    """A forward that may be followed by a backward, and by a step of the optimizer.

    Parameters
    ----------
    state : TrainState
    count : int
        Rows of its batch.
    """

    def __init__(self, state: TrainState, count: int) -> None:
        self._state, self._vectors = state, state.vectors
        self.workspace = backends.current().workspace(state.network, NOTHING, count, self._vectors)
        self._by_table: dict[bool, _Passes] = {}
        self._passes: _Passes | None = None  # of the last forward
        self.rows = 0  # that a backward may go back through
        self.version = -1  # of the network's parameters in forward

    @property
    def is_current(self) -> bool:
        """True as long as gradients and slots lie where they were."""
        return self._state.holds(self._vectors)

    def forward_again(self, x: Any, training: bool, seed: int) -> npt.NDArray[Any] | None:
        """Return the outputs of a batch of the last one's form; None for another, which has to be looked at."""
        passes = self._by_table.get(training)
        if passes is None or not self.is_current:
            return None
        if passes.form is None or passes.form != form_of(x):
            return None
        passes.forward.again(lent(x), NO_BYTES, NO_BYTES, seed)
        return self._outputs(passes)

    def forward(self, x: Any, rows: npt.NDArray[Any], training: bool, seed: int) -> npt.NDArray[Any]:
        """Return the outputs of a batch whose rows have been looked at."""
        passes = self._by_table.get(training)
        if passes is None:
            passes = self._by_table[training] = _Passes(self.workspace, self._state, training)
        source, nothing = _checks.source(rows), _checks.no_source()
        passes.forward.run(Data(source, nothing, nothing, self.workspace.batch), seed=seed)
        form = form_of(x)
        passes.form = form if form is not None and is_lent(source, x) else None
        return self._outputs(passes)

    def _outputs(self, passes: _Passes) -> npt.NDArray[Any]:
        network, rows = self._state.network, self.workspace.batch
        self._passes, self.rows, self.version = passes, rows, network.version
        outputs = self.workspace.tensor(passes.last, "output", rows)
        return outputs.reshape(rows, *network.output_shape).copy()

    def backward(self, grad: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Fill the gradients; return the derivative by the inputs."""
        passes, rows = self._passes, self.rows
        assert passes is not None
        last = passes.last
        self.workspace.set_deltas(last, grad.reshape(rows, last["positions_out"], last["n_out"]))
        self.rows = 0  # backward writes over what forward kept
        passes.backward.run()
        deltas = self.workspace.tensor(passes.first, "input", rows, deltas=True)
        return deltas.reshape(rows, *self._state.network.input_shape).copy()

    def update(self, optimizer: Optimizer) -> None:
        """Take the optimizer's step with the gradients that are there."""
        passes = self._passes
        assert passes is not None
        if passes.updates is None:
            passes.updates = Updates(self.workspace, passes.layers, optimizer)
        passes.updates.take()

    def move_statistics(self) -> None:
        """Move running statistics by those of the last forward; no backward follows it."""
        assert self._passes is not None
        Pass(self.workspace.plan(phases.update(), layers=self._passes.layers), self.workspace.batch).run()
        self.rows = 0
