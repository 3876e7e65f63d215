"""The epoch loop of ``fit``, the pass of ``evaluate``, and what they report."""

from __future__ import annotations

import copy
import functools
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nbdense import _checks
from nbdense.callbacks import Callback, History, ProgressBar
from nbdense.metrics import Metric
from nbdense.network import Network
from nbdense.training import phases
from nbdense.training.workspace import Data, Slice, Workspace

if TYPE_CHECKING:
    from nbdense.models import Sequential

SLICE_SECONDS = 0.05  # compiled code runs this long before the progress bar and Ctrl-C have their turn
EVALUATE_STEPS = 4096  # at most, in a call of evaluation


class LossNotFiniteError(FloatingPointError):
    """A step's loss is NaN or infinite; the weights are those of the last finite step."""


class Tally:
    """Sums of loss and metrics over the rows seen so far.

    Parameters
    ----------
    metrics : list of Metric
        In the order of the program's columns behind the loss.
    positions : int
        Rows of outputs that a row of data has.
    """

    def __init__(self, metrics: list[Metric], positions: int) -> None:
        self._metrics, self._positions = metrics, positions
        self._sums = np.zeros(1 + len(metrics))
        self._rows = 0
        self._seen: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = []
        self.collects = any(metric.collects for metric in metrics)

    def add(self, totals: npt.NDArray[np.float64], rows: int) -> None:
        """Count in what a run reported of ``rows`` rows of data."""
        # One after the other: how many steps a slice has depends on the clock, and the sums must not.
        self._sums = np.cumsum(np.vstack([self._sums, totals]), axis=0)[-1]
        self._rows += rows * self._positions

    def collect(self, workspace: Workspace, layers: npt.NDArray[Any], rows: int) -> None:
        """Keep a batch's targets and outputs, for metrics that are no means over rows."""
        self._seen.append((workspace.targets(rows).copy(), workspace.outputs(rows, layers=layers).copy()))

    def means(self) -> dict[str, float]:
        """Loss and metrics so far, but for those that need all outputs at once."""
        values = (self._sums / max(1, self._rows)).tolist()
        found = {"loss": values[0]}
        for metric, value in zip(self._metrics, values[1:], strict=True):
            if not metric.collects:
                found[metric.name] = metric.finish(value)
        return found

    def results(self) -> dict[str, float]:
        """Loss and metrics, in their order."""
        found = self.means()
        if not self.collects:
            return found
        seen = [np.concatenate(arrays).reshape(-1, arrays[0].shape[-1]) for arrays in zip(*self._seen, strict=True)]
        collected = {metric.name: metric.compute(*seen) for metric in self._metrics if metric.collects}
        return {name: {**found, **collected}[name] for name in ["loss", *(metric.name for metric in self._metrics)]}


def evaluate(model: Sequential, data: Data, batch: int) -> dict[str, float]:
    """Loss and metrics by name, penalties included."""
    objective, metrics = model._objective()
    network = model.network
    workspace = Workspace(network, objective, batch, model.state)
    tally = Tally(metrics, network.positions_out)
    table = phases.evaluation(network.inference)
    total, first = -(-data.rows // batch), 0
    while first < total:
        count = min(total - first, 1 if tally.collects else EVALUATE_STEPS, workspace.steps_at_once)
        done, totals = workspace.run(table, data, layers=network.inference, first_step=first, count=count)
        done = min(done + 1, count)  # a NaN ends a run, and belongs in the result
        rows = min((first + done) * batch, data.rows) - first * batch
        tally.add(totals[:done], rows)
        if tally.collects:
            tally.collect(workspace, network.inference, rows)
        first += done
    results = tally.results()
    results["loss"] += penalty(network)
    return results


def penalty(network: Network) -> float:
    """What the regularizers add to the loss at the present weights."""
    total = 0.0
    for parameter, segment in zip(network.parameters, network.segments, strict=True):
        if segment["trainable"] and (segment["l1"] or segment["l2"]):
            values = network.tensor(parameter).astype(np.float64)
            with np.errstate(over="ignore"):  # infinite is what it is then
                total += float(segment["l1"] * np.abs(values).sum() + segment["l2"] * (values * values).sum())
    return total


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
    objective, _ = model._objective()
    optimizer = model.optimizer
    assert optimizer is not None
    workspace = Workspace(model.network, objective, batch, model.state)
    steps = -(-data.rows // batch)
    history = model.history = History()
    everyone = Everyone([*callbacks, history], model, {"epochs": epochs.stop, "steps": steps, "verbose": verbose})
    model.stop_training = False
    everyone.call("on_train_begin")
    logs: dict[str, float] = {}
    for epoch in epochs:
        everyone.call("on_epoch_begin", epoch)
        bar = ProgressBar(epoch, epochs.stop, steps, verbose == 1)
        try:
            logs = _run_epoch(model, workspace, data, epoch, shuffle, bar, everyone, epoch == epochs[-1])
            model.epochs_trained += 1
            if held is not None:
                everyone.call("on_test_begin")
                results = evaluate(model, held, min(held.rows, model.EVALUATE_ROWS))
                everyone.call("on_test_end", logs=results)
                logs |= {f"val_{name}": value for name, value in results.items()}
        except LossNotFiniteError as error:
            if not everyone.take_not_finite:
                raise
            print(error)
            logs, model.stop_training = {"loss": float("nan")}, True
        finally:
            bar.close(logs)
        if verbose == 2:
            print(f"Epoch {epoch + 1}/{epochs.stop} - " + " - ".join(f"{k}: {v:.4g}" for k, v in logs.items()))
        everyone.call("on_epoch_end", epoch, logs=logs)
        if model.stop_training:
            break
    if optimizer.use_ema and optimizer.iterations:
        take_averages(model)
    everyone.call("on_train_end", logs=logs)
    return history


def split(x: Any, y: Any, sample_weight: Any, share: float) -> tuple[Any, Any, Any, tuple[Any, Any, Any]]:
    """Hold out the last ``share`` of rows, as Keras does."""
    if not 0.0 < share < 1.0:
        raise ValueError(f"fit: validation_split must be in [0, 1), got {share!r}")
    x, y = _checks.array_of("x", x), _checks.array_of("y", y)
    rows = len(x)
    cut = int(rows * (1.0 - share))
    if cut == 0 or cut == rows:
        part = "training" if cut == 0 else "validation"
        raise ValueError(f"fit: validation_split={share} of {rows} rows leaves none for {part}")
    weights = None if sample_weight is None else _checks.array_of("sample_weight", sample_weight)
    ahead, behind = (None, None) if weights is None else (weights[:cut], weights[cut:])
    return x[:cut], y[:cut], ahead, (x[cut:], y[cut:], behind)


class Everyone:
    """The callbacks of one fit, called in turn.

    Parameters
    ----------
    callbacks : list of Callback
    model : Sequential
    params : dict
        For their ``set_params``.

    Attributes
    ----------
    each_batch : bool
        Whether any wants to be called around batches: then compiled code runs one step at a time.
    take_not_finite : bool
        Whether any says that a loss that is not finite is to end the fit without an error.
    """

    def __init__(self, callbacks: list[Callback], model: Sequential, params: dict[str, Any]) -> None:
        self._callbacks = callbacks
        for callback in callbacks:
            callback.set_model(model)
            callback.set_params(params)
        self.each_batch = any(callback.wants_batches() for callback in callbacks)
        self.take_not_finite = any(callback.takes_not_finite for callback in callbacks)

    def call(self, name: str, *arguments: Any, logs: dict[str, float] | None = None) -> None:
        """Call a method of each that has it; all get the same logs, and may add to them."""
        for callback in self._callbacks:
            getattr(callback, name)(*arguments, logs)


def count_steps(model: Sequential, count: int = 1) -> None:
    """Count steps that the optimizer has taken, and put the averages in the weights' place where that is due.

    It may be due behind the last of the steps only: a longer run of steps is cut there.
    """
    optimizer = model.optimizer
    assert optimizer is not None
    optimizer.iterations += count
    every = optimizer.ema_overwrite_frequency
    if optimizer.use_ema and every and optimizer.iterations % every == 0:
        take_averages(model)


def take_averages(model: Sequential) -> None:
    """Put the moving averages of the weights in their place."""
    network, average = model.network, model.state[-1]
    for segment in network.segments:
        if segment["trainable"]:
            span = slice(int(segment["offset"]), int(segment["offset"] + segment["length"]))
            network.params[span] = average[span]
    network.hold_masked()  # the averages may be from before it was pruned
    network.version += 1


def _run_epoch(
    model: Sequential,
    workspace: Workspace,
    data: Data,
    epoch: int,
    shuffle: bool,
    bar: ProgressBar,
    everyone: Everyone,
    is_last: bool,
) -> dict[str, float]:
    """One epoch in slices, the last one or not; returns loss and metrics over its rows."""
    optimizer = model.optimizer
    assert optimizer is not None
    network = model.network
    tally = Tally(model._objective()[1], network.positions_out)
    total = -(-data.rows // workspace.batch)
    one_by_one = everyone.each_batch or tally.collects
    first, size = 0, 1
    while first < total and not (model.stop_training and everyone.each_batch):
        count = min(size, total - first)
        if optimizer.use_ema and optimizer.ema_overwrite_frequency:
            every = optimizer.ema_overwrite_frequency
            count = min(count, every - optimizer.iterations % every)
        if everyone.each_batch:
            everyone.call("on_train_batch_begin", first)
        run = functools.partial(
            workspace.run,
            phases.training(network.layers, optimizer.clips_by_norm),  # which a callback may have changed
            data,
            first_step=first,
            epoch=model.epochs_trained,
            seed=model.seed,
            shuffle=shuffle,
            optimizer=copy.copy(optimizer),  # with its count of steps and learning rate as they are now
        )
        before, workspace.slice = workspace.slice, None
        # A single step at the very end is never taken back: only a step behind it could tell that it was a bad one.
        if not (is_last and count == 1 and first + 1 == total):
            workspace.slice = Slice(network.params.copy(), workspace.state[1:].copy(), run, count)
        started = time.perf_counter()
        done, totals = run(count=count)
        seconds = time.perf_counter() - started
        if done < count:
            _go_back(workspace, optimizer, before, done)
            raise LossNotFiniteError(
                f"the loss is {totals[done, 0]} in epoch {epoch + 1}, step {first + done + 1}; the weights are those "
                "of the last finite step. A smaller learning_rate, clipped gradients or scaled inputs may help"
            )
        count_steps(model, count)
        rows = min((first + count) * workspace.batch, data.rows) - first * workspace.batch
        tally.add(totals, rows)
        if tally.collects:
            tally.collect(workspace, network.layers, rows)
        first += count
        logs = tally.means()
        bar.update(count, logs)
        if everyone.each_batch:
            everyone.call("on_train_batch_end", first - 1, logs=logs)
        size = 1 if one_by_one else max(1, min(4 * size, int(count * SLICE_SECONDS / max(seconds, 1e-9))))
    return tally.results()


def _go_back(workspace: Workspace, optimizer: Any, before: Slice | None, done: int) -> None:
    """Undo the step before the one whose loss is not finite: it made the weights bad.

    It may be the last of the slice before.
    """
    if done > 0 and workspace.slice is not None:
        optimizer.iterations += workspace.slice.retake(workspace, done - 1)
    elif before is not None:
        optimizer.iterations += before.retake(workspace, before.count - 1) - before.count
