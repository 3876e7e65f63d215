"""The epoch loop of ``fit``."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nbdense.backends.base import Data, Workspace
from nbdense.optimizers import Optimizer
from nbdense.training.accumulation import TrainingSteps
from nbdense.training.evaluation import Tally, evaluate_feed
from nbdense.training.feeding import Steps
from nbdense.training.preparation import Fit
from nbdense.training.progress import ProgressBar, number_text
from nbdense.training.state import TrainState

SLICE_SECONDS = 0.1  # compiled code runs this long before the progress bar and Ctrl-C have their turn

Logs = dict[str, Any]  # numbers, or arrays of metrics that have several


class LossNotFiniteError(FloatingPointError, RuntimeError):
    """An error: a step's loss is NaN or infinite; the weights are those of the last finite step.

    A RuntimeError too, as Keras's ``TerminateOnNaN(raise_error=True)`` raises.
    """


class Hooks(Protocol):
    """Protocol of what a fit reports to: `nbdense.callbacks.base.CallbackList` is one.

    Attributes
    ----------
    each_batch : bool
        Whether any hook around batches is wanted: then compiled code runs as many steps as `steps_at_once` says.
    each_test_batch : bool
        The same around the batches of an evaluation.
    takes_not_finite : bool
        Whether a loss that is not finite is to end the fit without an error.
    """

    each_batch: bool
    each_test_batch: bool
    takes_not_finite: bool

    @property
    def stopped(self) -> bool:
        """State of the fit: True once it is to end."""

    def stop(self) -> None:
        """End the fit."""

    def steps_at_once(self, batch: int) -> int:
        """Return how many steps may be taken from a batch on before a hook around batches is wanted."""

    def begin_training(self, epochs: range) -> range:
        """Call the hook before the first epoch; return the epochs that are to be run."""

    def call(self, name: str, *arguments: Any, logs: Logs | None = None) -> None:
        """Call a hook, such as "on_epoch_end"."""


def fit_epochs(fit: Fit, epochs: range, hooks: Hooks, verbose: int) -> None:
    """Train for some epochs; the docstring of ``Sequential.fit`` has the rules."""
    with fit.state.lock:
        _fit_epochs(fit, epochs, hooks, verbose)


def _fit_epochs(fit: Fit, epochs: range, hooks: Hooks, verbose: int) -> None:
    epochs = hooks.begin_training(epochs)
    logs: Logs = {}
    slices = _Slices(fit)
    for epoch in epochs:
        if not fit.feed.begin(fit.state.epochs_trained):
            break
        hooks.call("on_epoch_begin", epoch)
        bar = ProgressBar(epoch, epochs.stop, fit.steps, verbose == 1)
        try:
            logs = _Epoch(fit, slices, epoch, epoch == epochs[-1], hooks, bar).run()
            fit.state.epochs_trained += 1
            logs |= _validate(fit, epoch + 1, hooks)
        except LossNotFiniteError as error:
            if not hooks.takes_not_finite:
                raise
            print(error)
            logs = {"loss": float("nan")}
            hooks.stop()
        finally:
            bar.close(logs)
        if verbose == 2:
            print(f"Epoch {epoch + 1}/{epochs.stop} - " + " - ".join(f"{k}: {number_text(v)}" for k, v in logs.items()))
        hooks.call("on_epoch_end", epoch, logs=logs)
        if hooks.stopped:
            break
    optimizer, _ = fit.state.compiled()
    if optimizer.use_ema and optimizer.batches:
        take_averages(fit.state)
    hooks.call("on_train_end", logs=logs)


def _validate(fit: Fit, epoch: int, hooks: Hooks) -> Logs:
    """Return the ``val_`` logs of an epoch: none where no rows are held out, or it is not their turn."""
    if fit.validation is None or not fit.validation.is_due(epoch):
        return {}
    hooks.call("on_test_begin")
    results = evaluate_feed(fit.validation.room, fit.metrics, fit.validation.feed, hooks)
    hooks.call("on_test_end", logs=results)
    return {f"val_{name}": value for name, value in results.items()}


@dataclass(frozen=True)
class _Slice:
    """Steps that were taken in one call, and what is needed to take them again."""

    params: npt.NDArray[Any]
    slots: npt.NDArray[Any]
    optimizer: Optimizer
    data: Data
    options: dict[str, Any]
    count: int

    @classmethod
    def begun(cls, workspace: Workspace, into: _Slice | None, *of_steps: Any) -> _Slice:
        """Return a slice that begins with the weights and slots as they are now, kept in the arrays of another.

        Memory of the size of both, anew for each slice, would cost more than to copy them: the system hands it out by
        pages, which it clears.
        """
        params, slots = workspace.network.params, workspace.state[1:]
        if into is None or into.params.shape != params.shape or into.slots.shape != slots.shape:
            return cls(params.copy(), slots.copy(), *of_steps)
        into.params[:], into.slots[:] = params, slots
        return cls(into.params, into.slots, *of_steps)

    def retake(self, workspace: Workspace, count: int) -> int:
        """Take the first ``count`` steps again from the slice's start: they are deterministic. Returns count."""
        network = workspace.network
        network.params[:], workspace.state[1:] = self.params, self.slots
        if count:
            TrainingSteps(workspace, network.layers, self.optimizer).run(self.data, count=count, **self.options)
        return count


class _Slices:
    """The slices of a fit: steps that the backend takes at once, the last of which can be taken back.

    Parameters
    ----------
    fit : Fit

    Attributes
    ----------
    size : int
        Steps in a slice that takes about SLICE_SECONDS, as those before it let expect.
    """

    def __init__(self, fit: Fit) -> None:
        self._fit = fit
        self._last: _Slice | None = None
        self._spare: _Slice | None = None  # the one before it, which nobody goes back to any more
        self._steps: TrainingSteps | None = None
        self.size = 1

    def take(self, steps: Steps, none_follows: bool) -> tuple[int, npt.NDArray[np.float64]]:
        """Take steps, and go back to the last good one where a loss is not finite.

        Returns
        -------
        done : int
            Steps whose loss is finite.
        totals : ndarray, (count, 1 + metrics), float64
        """
        fit, workspace = self._fit, self._fit.workspace
        data, first, count = steps
        network, (optimizer, _) = workspace.network, fit.state.compiled()
        options = {
            "first_step": first,
            "epoch": fit.feed.order,
            "seed": fit.state.seed,
            "shuffle": fit.shuffle and not fit.feed.has_order,
        }
        previous, spare = self._last, self._spare
        self._last, self._spare = None, previous
        # A single step at the very end is never taken back: only a step behind it could tell that it was a bad one.
        if not (none_follows and count == 1):
            as_now = copy.copy(optimizer)  # with its count of steps and learning rate
            self._last = _Slice.begun(workspace, spare, as_now, data, options, count)
        steps_of = self._steps
        if steps_of is None or not steps_of.fits(workspace, optimizer):
            self._steps = steps_of = TrainingSteps(workspace, network.layers, optimizer)
        done, totals = steps_of.run(data, count=count, **options)
        if done < count:
            self._go_back(optimizer, previous, done)
        else:
            count_steps(fit.state, count)
        return int(done), totals

    def _go_back(self, optimizer: Optimizer, previous: _Slice | None, done: int) -> None:
        """Undo the step before the one whose loss is not finite: it made the weights bad.

        It may be the last of the slice before.
        """
        workspace = self._fit.workspace
        if done > 0 and self._last is not None:
            optimizer.batches += self._last.retake(workspace, done - 1)
        elif previous is not None:
            optimizer.batches += previous.retake(workspace, previous.count - 1) - previous.count
            workspace.network.hold_masked()  # a callback may have pruned since


class _Epoch:
    """One pass over the training data, in slices of steps that the compiled program takes at once.

    Parameters
    ----------
    fit : Fit
    slices : _Slices
        Of all its epochs.
    number : int
        Number of the epoch, from 0, for messages.
    is_last : bool
        Whether no other epoch is to follow.
    hooks : Hooks
    bar : ProgressBar
    """

    def __init__(self, fit: Fit, slices: _Slices, number: int, is_last: bool, hooks: Hooks, bar: ProgressBar) -> None:
        self._fit, self._slices, self._hooks, self._bar = fit, slices, hooks, bar
        self._number, self._is_last = number, is_last
        self._optimizer, _ = fit.state.compiled()
        self._tally = Tally(fit.metrics, fit.room.network.positions_out)
        self._first = 0  # step of the next slice

    def run(self) -> Logs:
        """Take the epoch's steps; return loss and metrics over its rows."""
        hooks, feed = self._hooks, self._fit.feed
        while not (hooks.each_batch and hooks.stopped):
            steps = feed.take(self._first, self._slice_length())
            if steps is None:
                break
            count = steps[2]
            if hooks.each_batch:
                hooks.call("on_train_batch_begin", self._first)
            started = time.perf_counter()
            totals = self._take(steps)
            self._set_size(count, time.perf_counter() - started)
            self._add(totals, steps)
            logs = self._tally.means()
            self._bar.update(count, logs)
            if hooks.each_batch:
                hooks.call("on_train_batch_end", self._first - 1, logs=logs)
        return self._tally.results()

    def _slice_length(self) -> int:
        """Return how many steps are taken next.

        None passes a step behind which a callback wants to be called, or averages overwrite the weights.
        """
        count, optimizer = min(self._slices.size, self._hooks.steps_at_once(self._first)), self._optimizer
        if optimizer.use_ema and optimizer.ema_overwrite_frequency:
            every = optimizer.ema_overwrite_frequency
            count = min(count, every - optimizer.batches % every)
        return 1 if optimizer.gradient_accumulation_steps else count

    def _set_size(self, count: int, seconds: float) -> None:
        """Learn from a slice how long the next should be."""
        longest = int(count * SLICE_SECONDS / max(seconds, 1e-9))
        self._slices.size = 1 if self._tally.collects else max(1, min(4 * self._slices.size, longest))

    def _take(self, steps: Steps) -> npt.NDArray[np.float64]:
        """Take steps, and return what they report."""
        count = steps[2]
        none_follows = self._is_last and self._first + count == self._fit.steps
        done, totals = self._slices.take(steps, none_follows)
        if done < count:
            raise LossNotFiniteError(
                f"the loss is {totals[done, 0]} in epoch {self._number + 1}, step {self._first + done + 1}; the "
                "weights are those of the last finite step. A smaller learning_rate, clipped gradients or scaled "
                "inputs may help"
            )
        return totals

    def _add(self, totals: npt.NDArray[np.float64], steps: Steps) -> None:
        """Count in what a slice of steps reported."""
        workspace, (data, first, count) = self._fit.workspace, steps
        rows = min((first + count) * workspace.batch, data.rows) - first * workspace.batch
        self._tally.add(totals, rows, workspace, workspace.network.layers)
        self._first += count


def count_steps(state: TrainState, count: int = 1) -> None:
    """Count steps that the optimizer has taken, and put the averages in the weights' place where that is due.

    It may be due behind the last of the steps only: a longer run of steps is cut there.
    """
    optimizer, _ = state.compiled()
    optimizer.batches += count
    if optimizer.use_ema and (every := optimizer.ema_overwrite_frequency) and optimizer.batches % every == 0:
        take_averages(state)


def take_averages(state: TrainState) -> None:
    """Put the moving averages of the weights in their place."""
    network, average = state.network, state.vectors[-1]
    for segment in network.segments:
        if segment["trainable"]:
            span = slice(int(segment["offset"]), int(segment["offset"] + segment["length"]))
            network.params[span] = average[span]
    network.hold_masked()  # the averages may be from before it was pruned
    network.version += 1
