"""The base class of callbacks, and the list of those that a fit calls."""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense._checks import plain
from nbdense.training.state import FittedModel

Logs = dict[str, Any]  # numbers, or arrays of metrics that have several


class Callback:
    """Base class of callbacks: override what you need. ``self.model`` is the model being fitted.

    Setting ``self.model.stop_training = True`` ends the fit after the epoch, or after the batch where some callback
    wants batches. What is put into the ``logs`` of `on_epoch_end` is seen by later callbacks and the history.
    """

    model: FittedModel
    params: dict[str, Any]
    takes_not_finite = False  # whether a loss that is not finite is to end the fit without an error
    initial_epoch: int | None = None  # epoch that the fit is to begin with, where `on_train_begin` has found one

    def wants_batches(self) -> bool:
        """Tell whether a method for batches is overridden: then compiled slices are one step long."""
        return self.overrides("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")

    def next_batch(self, batch: int) -> int:
        """Return the next batch around which the methods for batches are to be called: compiled slices end there.

        They may be called around others too. By default it is each.

        Parameters
        ----------
        batch : int
            The batch that comes next in the epoch, numbered from 0.
        """
        return batch

    def overrides(self, *hooks: str) -> bool:
        """Tell whether any of these methods is not the base class's, which does nothing.

        Parameters
        ----------
        *hooks : str
            Names of methods.
        """
        return any(getattr(getattr(self, hook), "__func__", None) is not getattr(Callback, hook) for hook in hooks)

    def set_model(self, model: FittedModel) -> None:
        """Take the model, once, before training begins."""
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Take epochs, steps and verbose, once."""
        self.params = params

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Run before the first epoch."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Run after the last epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Run before each epoch, numbered from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Run after each epoch, with its loss, metrics and their ``val_`` twins."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Run before each batch of an epoch, numbered from 0."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Run after each batch, with the loss and metrics of the epoch so far."""
        self.on_batch_end(batch, logs)

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Run before each batch: another name for `on_train_batch_begin`."""

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Run after each batch: another name for `on_train_batch_end`."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Run before an evaluation."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Run after an evaluation, with its results."""

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Run before each batch of an evaluation, numbered from 0."""

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Run after each batch of an evaluation, with the loss and metrics so far."""

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Run before a prediction."""

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """Run after a prediction."""

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Run before each batch of a prediction, numbered from 0."""

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Run after each batch of a prediction, with its "outputs"."""


class CallbackList:
    """The callbacks of one fit, evaluation or prediction, called in turn.

    Parameters
    ----------
    callbacks : list of Callback
    model : FittedModel
        The model that is fitted or asked.
    params : dict
        Settings for the callbacks' ``set_params``.

    Attributes
    ----------
    each_batch, each_test_batch, each_predict_batch : bool
        Whether any wants to be called around batches: then compiled code runs one step at a time, in training as many
        as `steps_at_once` says.
    takes_not_finite : bool
        Whether any says that a loss that is not finite is to end the fit without an error.
    """

    def __init__(self, callbacks: list[Callback], model: FittedModel, params: dict[str, Any]) -> None:
        self._callbacks, self._model = callbacks, model
        for callback in callbacks:
            callback.set_model(model)
            callback.set_params(params)
        self._by_batch = [callback for callback in callbacks if callback.wants_batches()]
        self.each_batch = bool(self._by_batch)
        self.each_test_batch = self._overridden("on_test_batch_begin", "on_test_batch_end")
        self.each_predict_batch = self._overridden("on_predict_batch_begin", "on_predict_batch_end")
        self.takes_not_finite = any(callback.takes_not_finite for callback in callbacks)

    def _overridden(self, *hooks: str) -> bool:
        return any(callback.overrides(*hooks) for callback in self._callbacks)

    def steps_at_once(self, batch: int) -> int:
        """Return how many steps may be taken from a batch on before a callback wants to be called."""
        return min((callback.next_batch(batch) - batch + 1 for callback in self._by_batch), default=sys.maxsize)

    def begin_training(self, epochs: range) -> range:
        """Call `on_train_begin`; return the epochs that there are to run, of which a callback may have done some."""
        self._model.stop_training = False
        self.call("on_train_begin")
        first = max((callback.initial_epoch or 0 for callback in self._callbacks), default=0)
        return range(max(epochs.start, first), max(epochs.stop, first))

    @property
    def stopped(self) -> bool:
        """State of the fit: True once a callback has ended it."""
        return self._model.stop_training

    def stop(self) -> None:
        """End the fit."""
        self._model.stop_training = True

    def call(self, name: str, *arguments: Any, logs: Logs | None = None) -> None:
        """Call a method of each callback; all get the same logs, and may add to them."""
        logs = {} if logs is None else logs
        for callback in self._callbacks:
            getattr(callback, name)(*arguments, logs)


def predict_in_batches(
    predict: Callable[[Any], npt.NDArray[Any]], batches: Iterable[Any], hooks: CallbackList
) -> npt.NDArray[Any]:
    """Return outputs, with calls of callbacks around each batch.

    Parameters
    ----------
    predict : callable
        Of rows the outputs.
    batches : iterable of array-like
        Rows.
    hooks : CallbackList
        Callbacks.
    """
    outputs = []
    for number, rows in enumerate(batches):
        hooks.call("on_predict_batch_begin", number)
        outputs.append(predict(rows))
        hooks.call("on_predict_batch_end", number, logs={"outputs": outputs[-1]})
    return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)


def callbacks_of(owner: str, value: Any) -> list[Callback]:
    """Return the callbacks of an iterable as a list, of None an empty one, or raise for what is no callback."""
    callbacks = [] if value is None else list(value) if isinstance(value, Iterable) else [value]
    for callback in callbacks:
        if callback is value or not isinstance(callback, Callback):
            got = f"the class {callback.__name__}" if isinstance(callback, type) else type(callback).__name__
            advice = f"; make one: {callback.__name__}(...)" if isinstance(callback, type) else ""
            raise TypeError(f"{owner}: callbacks must be a list of Callback objects, got {got}{advice}")
    return callbacks


def whole(owner: object, name: str, value: Any, least: int = 0) -> int:
    """Return ``value`` as an int of at least ``least``; the error names the callback."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        kind = type(owner).__name__
        raise ValueError(f"{kind}: {name} must be a whole number of at least {least}, got {plain(value)!r}")
    return int(value)


def real(owner: object, name: str, value: Any) -> float:
    """Return ``value`` as a finite float; the error names the callback."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"{type(owner).__name__}: {name} must be a finite number, got {plain(value)!r}")
    return float(value)


def learning_rate_of(owner: object, model: FittedModel) -> float:
    """Return the optimizer's learning rate, where it is a number that can be set."""
    optimizer = model.optimizer
    assert optimizer is not None
    if optimizer.schedule is not None:
        raise TypeError(
            f"{type(owner).__name__}: the optimizer's learning_rate is a {type(optimizer.schedule).__name__}, which "
            "changes by itself; give the optimizer a number, or leave this callback out"
        )
    return float(optimizer.learning_rate)
