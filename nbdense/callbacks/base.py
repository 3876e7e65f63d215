"""What a callback is; `nbdense.callbacks` has them."""

from __future__ import annotations

import math
import numbers
from typing import TYPE_CHECKING, Any

from nbdense._checks import plain

if TYPE_CHECKING:
    from nbdense.models import Sequential

Logs = dict[str, float]


class Callback:
    """Base class: override what you need. ``self.model`` is the model being fitted.

    Setting ``self.model.stop_training = True`` ends the fit after the epoch, or after the batch where some callback
    wants batches. What is put into the ``logs`` of `on_epoch_end` is seen by later callbacks and the history.
    """

    model: Sequential
    params: dict[str, Any]
    takes_not_finite = False  # whether a loss that is not finite is to end the fit without an error

    def wants_batches(self) -> bool:
        """Whether something is overridden that runs for each batch: it shortens the compiled slices to one step."""
        hooks = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
        return any(getattr(getattr(self, hook), "__func__", None) is not getattr(Callback, hook) for hook in hooks)

    def set_model(self, model: Sequential) -> None:
        """Called once, before training begins."""
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Called once with epochs, steps and verbose."""
        self.params = params

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """After the last epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Before each epoch, numbered from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """After each epoch, with its loss, metrics and their ``val_`` twins."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before each batch of an epoch, numbered from 0."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After each batch, with the loss and metrics of the epoch so far."""
        self.on_batch_end(batch, logs)

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Another name for `on_train_batch_begin`."""

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Another name for `on_train_batch_end`."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Before an evaluation."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """After an evaluation, with its results."""


def whole(owner: object, name: str, value: Any, least: int = 0) -> int:
    """``value`` as an int of at least ``least``; the error names the callback."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        kind = type(owner).__name__
        raise ValueError(f"{kind}: {name} must be a whole number of at least {least}, got {plain(value)!r}")
    return int(value)


def real(owner: object, name: str, value: Any) -> float:
    """``value`` as a finite float; the error names the callback."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"{type(owner).__name__}: {name} must be a finite number, got {plain(value)!r}")
    return float(value)


def learning_rate_of(owner: object, model: Sequential) -> float:
    """The optimizer's learning rate, where it is a number that can be set."""
    rate: Any = getattr(model.optimizer, "learning_rate", None)
    if isinstance(rate, bool) or not isinstance(rate, numbers.Real):
        raise ValueError(
            f"{type(owner).__name__}: the optimizer's learning_rate is a {type(rate).__name__}, which changes by "
            "itself; give the optimizer a number, or leave this callback out"
        )
    return float(rate)
