"""One's own training loop: forward, backward and apply_gradients by themselves, and single batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from nbdense import _checks
from nbdense.network import set_delta_flags
from nbdense.training import phases
from nbdense.training.loop import LossNotFiniteError, Tally, count_steps
from nbdense.training.workspace import NOTHING, Data, Workspace

if TYPE_CHECKING:
    from nbdense.models import Sequential


class Stepping:
    """What `Sequential` can do step by step."""

    def __init__(self) -> None:
        self._forget_steps()

    def _forget_steps(self) -> None:
        """Let go of the memory for single steps: the network or what is computed with it has changed."""
        self._open: _OpenStep | None = None
        self._batch: tuple[Any, Workspace] | None = None

    @property
    def parameters(self) -> dict[str, npt.NDArray[Any]]:
        """Views of all parameters by name ("dense/kernel", ...): writing to them changes the model.

        Nobody watches them: `backward` does not see that they were written to, and what is written over pruned weights
        stays. `set_weights` sees to both.
        """
        return cast("Sequential", self).network.tensors()

    @property
    def gradients(self) -> dict[str, npt.NDArray[Any]]:
        """Views of the gradients by the same names, as the last `backward` or training step left them.

        `backward` leaves them unclipped: `apply_gradients` clips what is in them then, so they may be written to.
        """
        model = cast("Sequential", self)
        return model.network.tensors(model.state[0])

    def forward(self, x: Any, training: bool = False) -> npt.NDArray[Any]:
        """Outputs of a batch, kept for one `backward` with the same weights.

        Parameters
        ----------
        x : array-like, (rows, ..., n_in)
            All rows are one batch.
        training : bool
            Whether dropout drops, and batch normalisation takes the batch's statistics.

        Returns
        -------
        ndarray, (rows, ..., n_out)
        """
        model = cast("Sequential", self)
        network = model.network
        x = _checks.rows("x", x, network.input_shape, f"layer {model.layers[0].name!r}")
        rows = x.shape[0]
        if rows == 0:
            raise ValueError("forward: x has no rows")
        layers = network.layers.copy() if training else network.kept_inference()
        if self._open is None or self._open.workspace.batch != rows:
            self._open = None  # its memory first
            self._open = _OpenStep(Workspace(network, NOTHING, rows, model.state), layers)
        step = self._open
        step.layers, step.rows, step.version = layers, rows, network.version
        set_delta_flags(layers, network.segments, input_learns=True)
        data = Data(_checks.source(x), _checks.no_source(), _checks.no_source(), rows)
        optimizer = model.optimizer
        step.workspace.run(phases.forward(layers), data, layers=layers, seed=model.seed, optimizer=optimizer)
        return step.workspace.outputs(rows, layers=layers).reshape(rows, *network.output_shape).copy()

    def backward(self, grad_output: Any) -> npt.NDArray[Any]:
        """Gradients of all trainable parameters, from the gradient with respect to the last `forward`'s outputs.

        They replace those that were there; `gradients` shows them, `apply_gradients` takes the step. The slopes of
        regularizers are in them; weights that are pruned have none.

        The weights must be those of the forward: after a step of any kind or `set_weights`, call `forward` again. That
        they were written to through the views of `parameters` goes unnoticed, and mixes old activations with new
        weights.

        Parameters
        ----------
        grad_output : array-like, of the outputs' shape
            Derivative of a number with respect to each output.

        Returns
        -------
        ndarray, of the inputs' shape
            Derivative of that number with respect to each input.

        Raises
        ------
        RuntimeError
            If there is no forward for it, or the weights have been changed since.
        ValueError
            If ``grad_output`` has not the outputs' shape.
        """
        model = cast("Sequential", self)
        network, step = model.network, self._open
        if step is None or step.rows == 0:
            raise RuntimeError("backward: call forward first; a forward serves one backward")
        if step.version != network.version:
            raise RuntimeError(
                "backward: the weights have changed since forward (by a training step or set_weights), so its "
                "activations are no longer theirs; call forward again"
            )
        rows = step.rows
        grad = np.asarray(_checks.array_of("backward: grad_output", grad_output), model.dtype)
        shape = (rows, *network.output_shape)
        if grad.shape != shape:
            raise ValueError(f"backward: grad_output must have the outputs' shape {shape}, got {grad.shape}")
        outputs = step.workspace.outputs(rows, layers=step.layers, deltas=True)
        outputs[...] = grad.reshape(outputs.shape)
        step.rows = 0  # backward writes over what forward kept
        data = Data(_checks.no_source(), _checks.no_source(), _checks.no_source(), rows)
        step.workspace.run(phases.backward(step.layers), data, layers=step.layers)
        return step.workspace.input_deltas(rows).reshape(rows, *network.input_shape).copy()

    def apply_gradients(self) -> None:
        """Take the optimizer's step with what is in `gradients`: what `backward` left there, or you wrote there.

        As in a step of `fit`, the gradients are clipped, as `gradients` shows behind it, and the weights decayed as the
        optimizer says; pruned weights stay zero. For larger batches than fit into memory, add up the gradients of
        several `backward`, and write the sum or mean to the views before this. Each has the slopes of the regularizers
        in it, so their mean has these once.

        The running statistics of batch normalisation move here too, if the last forward was for training.
        """
        model = cast("Sequential", self)
        step = self._open
        if model.optimizer is None:
            raise RuntimeError("apply_gradients: the model is not compiled: call compile(optimizer, loss) first")
        if step is None:
            raise RuntimeError("apply_gradients: call forward and backward first")
        nothing = _checks.no_source()
        data = Data(nothing, nothing, nothing, step.workspace.batch)
        table = phases.update(model.optimizer.clips_by_norm)
        step.workspace.run(table, data, layers=step.layers, optimizer=model.optimizer)
        count_steps(model)

    def train_on_batch(
        self, x: Any, y: Any, sample_weight: Any = None, class_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """One step on one batch.

        Parameters
        ----------
        x, y : array-like
            As for `fit`; all rows are one batch.
        sample_weight : array-like, (rows,), optional
            A weight for each row.
        class_weight : mapping of int to float, or "balanced", optional
            A weight for each class, as for `fit`.
        return_dict : bool
            Return a dict by name.

        Returns
        -------
        float, list of float, or dict of str to float
            The batch's loss and metrics, as they were before the step.

        Raises
        ------
        FloatingPointError
            If the loss is not finite; no weight has been changed by this step.
        """
        model = cast("Sequential", self)
        objective, metrics = model._objective()
        optimizer = model.optimizer
        assert optimizer is not None
        data = model._data(x, y, sample_weight, class_weight)
        key = (data.rows, objective)
        if self._batch is None or self._batch[0] != key:
            self._batch = None
            self._batch = (key, Workspace(model.network, objective, data.rows, model.state))
        workspace = self._batch[1]
        layers = model.network.layers
        table = phases.training(layers, optimizer.clips_by_norm)
        done, totals = workspace.run(table, data, seed=model.seed, optimizer=optimizer)
        if done == 0:
            raise LossNotFiniteError(f"the loss of this batch is {totals[0, 0]}; no weight was changed")
        count_steps(model)
        tally = Tally(metrics, model.network.positions_out)
        tally.add(totals, data.rows)
        if tally.collects:
            tally.collect(workspace, layers, data.rows)
        logs = tally.results()
        if return_dict:
            return logs
        return list(logs.values()) if len(logs) > 1 else logs["loss"]


class _OpenStep:
    """A forward that may be followed by a backward."""

    def __init__(self, workspace: Workspace, layers: npt.NDArray[Any]) -> None:
        self.workspace, self.layers = workspace, layers
        self.rows = 0  # that a backward may go back through
        self.version = -1  # of the network's parameters in forward
