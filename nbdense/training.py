"""The memory of a training run, the calls into the compiled program that work on it, and the epoch loop."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nbdense import _threads
from nbdense.callbacks import Callback, History, ProgressBar
from nbdense.engine import optimizer as steps
from nbdense.engine import program
from nbdense.losses import LossForm
from nbdense.network import Network, aligned_zeros, leading_dimension

if TYPE_CHECKING:
    from nbdense.models import Sequential

Source = tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]


@dataclass(frozen=True)
class Objective:
    """What a run computes from outputs and targets: a compiled loss and metrics."""

    form: LossForm
    parameter: float
    fused: bool
    sparse: bool
    metrics: tuple[int, ...]
    target_width: int


@dataclass(frozen=True)
class Data:
    """Sources of a data set's rows; ``weights`` has no rows where all weigh alike."""

    x: Source
    y: Source
    weights: Source
    rows: int


@dataclass(frozen=True)
class Slice:
    """Steps that were taken in one call, and what is needed to take them again."""

    params: npt.NDArray[Any]
    state: npt.NDArray[Any]
    run: Callable[..., Any]
    count: int

    def retake(self, workspace: Workspace, count: int) -> int:
        """Go back to the slice's start and take its first ``count`` steps: they are deterministic. Returns count."""
        workspace.network.params[:], workspace.state[:] = self.params, self.state
        if count:
            self.run(count=count)
        return count


class Workspace:
    """Everything that batches of up to ``batch`` rows need, allocated once: its size does not depend on the data's.

    Attributes
    ----------
    state : ndarray, (1 + slots, parameters)
        Row 0 takes gradients; the rest are the optimizer's slots.
    slice : Slice or None
        The steps taken last, in training.
    """

    def __init__(self, network: Network, objective: Objective, batch: int, state: npt.NDArray[Any]) -> None:
        self.network, self.objective, self.state = network, objective, state
        self.batch = batch
        self.slice: Slice | None = None
        self._run = run = np.zeros(1, program.RUN)
        widest = int(max(network.layers["ld_in"].max(), network.layers["ld_out"].max()))
        # One-hot targets are read in the outputs' columns; the row is as wide even where only a class number is in it.
        ld_target = leading_dimension(max(objective.target_width, network.n_out))
        parts = {
            "deltas": network.width * batch,
            "targets": network.width * batch,
            "weights": ld_target * batch,
            "room": batch,
            "transposes": batch,
            "zeros": network.transposes_size,
        }
        end = 0
        for name, before in parts.items():
            end += -(-before // 16) * 16
            run[name] = end
        work = aligned_zeros(end + widest + 1, network.dtype)
        run["one"] = end + widest
        work[-1] = 1.0
        run["ld_target"] = ld_target
        run["batch"] = batch
        run["loss"] = objective.form.code
        run["loss_parameter"] = objective.parameter
        run["sparse"], run["fused"] = objective.sparse, objective.fused
        self._work = work
        self._values = np.zeros(batch * (1 + len(objective.metrics)))
        self._metrics = np.array(objective.metrics, np.int64)
        self._order = np.zeros(batch, np.int64)
        self._flops = 2.0 * batch * network.multiply_adds
        self._mask = np.zeros(0, network.dtype) if network.mask is None else network.mask

    def run(
        self,
        mode: int,
        data: Data,
        *,
        first_step: int,
        count: int,
        epoch: int = 0,
        seed: int = 0,
        shuffle: bool = False,
        optimizer: int = steps.NONE,
        iteration: int = 0,
        hyper: npt.NDArray[np.float64] | None = None,
        rates: npt.NDArray[np.float64] | None = None,
    ) -> tuple[int, npt.NDArray[np.float64]]:
        """Work through batches ``first_step``.. of an epoch.

        Returns
        -------
        done : int
            Batches finished; fewer than ``count`` where a loss was not finite.
        totals : ndarray, (count, 1 + metrics), float64
            Sums of loss and metrics over each batch's rows.
        """
        run = self._run
        threads = _threads.worthwhile(self._flops * (1 if mode == program.EVALUATE else 3))
        totals = np.zeros((count, 1 + len(self._metrics)))
        for name, value in {
            "mode": mode,
            "rows": data.rows,
            "first_step": first_step,
            "steps": count,
            "iteration": iteration,
            "shuffle": shuffle,
            "seed": seed,
            "epoch": epoch,
            "optimizer": optimizer,
        }.items():
            run[name] = value
        network = self.network
        with _threads.region(threads) as granted:
            run["threads"] = granted
            done = program.run_steps[granted > 1](
                (network.layers, network.slabs, network.segments),
                (network.params, self.state, self._mask),
                (self._work, self._values, totals, self._metrics, self._order),
                (*data.x, *data.y, *data.weights),
                run,
                (
                    np.zeros(steps.HYPER) if hyper is None else hyper,
                    np.zeros(count) if rates is None else rates,
                ),
            )
        return int(done), totals


FEW_ROWS = 8  # up to so many rows, a network of MUCH_TO_READ kernel elements is read by all threads, in columns
MUCH_TO_READ = 262_144


def predict(network: Network, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Outputs of the rows of ``x``, a C-ordered, writable matrix in the network's dtype."""
    rows, multiply_adds = x.shape[0], network.multiply_adds
    out = np.empty((rows, network.n_out), network.dtype)
    flops = 2.0 * rows * multiply_adds
    by_columns = rows <= FEW_ROWS and multiply_adds >= MUCH_TO_READ
    if by_columns:
        flops = 16.0 * multiply_adds  # in time: a kernel is read no faster than eight rows are multiplied
    if flops < _threads.LEAST_PARALLEL_FLOPS:  # a few microseconds: no time for more questions
        program.predict[0](network.layers, network.params, x, out, network.width, 1, False)
        return out
    with _threads.region(_threads.worthwhile(flops)) as granted:
        by_columns = by_columns and granted > 1
        program.predict[granted > 1](network.layers, network.params, x, out, network.width, granted, by_columns)
    return out


SLICE_SECONDS = 0.05  # compiled code runs this long before the progress bar and Ctrl-C have their turn


def fit_epochs(
    model: Sequential,
    data: Data,
    held: Data | None,
    *,
    batch: int,
    epochs: range,
    verbose: int,
    callbacks: list[Callback],
    shuffle: bool,
) -> History:
    """The epoch loop of ``Sequential.fit``, whose docstring says what it does."""
    objective, names = model._objective()
    assert model.optimizer is not None
    workspace = Workspace(model.network, objective, batch, model.state)
    steps_per_epoch = -(-data.rows // batch)
    history = model.history = History()
    everyone = [*callbacks, history]
    for callback in everyone:
        callback.set_model(model)
        callback.set_params({"epochs": epochs.stop, "steps": steps_per_epoch, "verbose": verbose})
    model.stop_training = False
    for callback in everyone:
        callback.on_train_begin()
    logs: dict[str, float] = {}
    for epoch in epochs:
        for callback in everyone:
            callback.on_epoch_begin(epoch)
        bar = ProgressBar(epoch, epochs.stop, steps_per_epoch, verbose == 1)
        try:
            sums = _run_epoch(model, workspace, data, epoch, shuffle, bar, names)
            model.epochs_trained += 1
            logs = dict(zip(["loss", *names], (sums / data.rows).tolist(), strict=True))
            if held is not None:
                logs |= {f"val_{name}": value for name, value in model._evaluate(held).items()}
        finally:
            bar.close(logs)
        if verbose == 2:
            print(f"Epoch {epoch + 1}/{epochs.stop} - " + " - ".join(f"{k}: {v:.4g}" for k, v in logs.items()))
        for callback in everyone:
            callback.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    for callback in everyone:
        callback.on_train_end(logs)
    return history


def _run_epoch(
    model: Sequential, workspace: Workspace, data: Data, epoch: int, shuffle: bool, bar: ProgressBar, names: list[str]
) -> npt.NDArray[np.float64]:
    """One epoch in slices; returns the sums of loss and metrics over its rows."""
    optimizer = model.optimizer
    assert optimizer is not None
    network = model.network
    total = -(-data.rows // workspace.batch)
    sums = np.zeros(1 + len(names))
    first, size = 0, 1
    while first < total:
        count = min(size, total - first)
        arguments: dict[str, Any] = {
            "first_step": first,
            "epoch": model.epochs_trained,
            "seed": model.seed,
            "shuffle": shuffle,
            "optimizer": optimizer.code,
            "iteration": optimizer.iterations,
            "hyper": optimizer.hyper(),
            "rates": np.full(count, optimizer.learning_rate),
        }
        run = functools.partial(workspace.run, program.TRAIN, data, **arguments)
        before, workspace.slice = workspace.slice, Slice(network.params.copy(), workspace.state.copy(), run, count)
        started = time.perf_counter()
        done, totals = run(count=count)
        seconds = time.perf_counter() - started
        if done < count:
            # The step before the one that failed made the weights bad; it may be the last of the slice before.
            if done > 0:
                optimizer.iterations += workspace.slice.retake(workspace, done - 1)
            elif before is not None:
                optimizer.iterations += before.retake(workspace, before.count - 1) - before.count
            raise FloatingPointError(
                f"the loss is {totals[done, 0]} in epoch {epoch + 1}, step {first + done + 1}; the weights are those "
                "of the last finite step. A smaller learning_rate, clipped gradients or scaled inputs may help"
            )
        optimizer.iterations += count
        first += count
        sums += totals.sum(axis=0)
        bar.update(
            count, dict(zip(["loss", *names], (sums / min(first * workspace.batch, data.rows)).tolist(), strict=True))
        )
        size = max(1, min(4 * size, int(count * SLICE_SECONDS / max(seconds, 1e-9))))
    return sums
