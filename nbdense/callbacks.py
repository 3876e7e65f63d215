"""Callbacks: what runs between epochs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbdense.models import Sequential

Logs = dict[str, float]


class Callback:
    """Base class: override what you need. ``self.model`` is the model being fitted.

    Setting ``self.model.stop_training = True`` ends the fit after the epoch.
    """

    model: Sequential
    params: dict[str, Any]
    takes_not_finite = False  # whether a loss that is not finite is to end the fit without an error

    def wants_batches(self) -> bool:
        """Whether a method that is called around batches is overridden: they cost compiled code its long runs."""
        mine, base = type(self), Callback
        return (
            mine.on_train_batch_begin is not base.on_train_batch_begin
            or mine.on_train_batch_end is not base.on_train_batch_end
        )

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

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After each batch, with the epoch's loss and metrics so far."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Before each evaluation on validation data."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """After it, with its results."""


class History(Callback):
    """What each epoch reported.

    Attributes
    ----------
    epoch : list of int
        Epoch numbers.
    history : dict of str to list of float
        Loss and metrics, a value an epoch.
    """

    def __init__(self) -> None:
        self.epoch: list[int] = []
        self.history: dict[str, list[float]] = {}

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)


class ProgressBar:
    """A tqdm bar an epoch: batches done, loss and metrics so far, time left.

    Parameters
    ----------
    epoch, epochs, steps : int
        Which epoch of how many, and its batches.
    shown : bool
        Nothing is drawn where this is false.
    """

    def __init__(self, epoch: int, epochs: int, steps: int, shown: bool) -> None:
        self._bar: Any = None
        if shown:
            from tqdm import tqdm

            self._bar = tqdm(
                total=steps,
                desc=f"Epoch {epoch + 1}/{epochs}",
                unit="batch",
                file=sys.stdout,
                dynamic_ncols=True,
                mininterval=0.1,
            )

    def update(self, batches: int, logs: Logs) -> None:
        """Show that ``batches`` more are done, and the means so far."""
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in logs.items()}, refresh=False)
            self._bar.update(batches)

    def close(self, logs: Logs | None = None) -> None:
        """Leave the finished bar on the screen with the epoch's results."""
        if self._bar is not None:
            if logs:
                self._bar.set_postfix({name: f"{value:.4g}" for name, value in logs.items()})
            self._bar.close()
