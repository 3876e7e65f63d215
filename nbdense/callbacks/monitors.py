"""Callbacks that watch one name of the logs, and act when it has got better or has stopped to."""

from __future__ import annotations

import math
import os
import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nbdense._warn import warn
from nbdense.callbacks.base import Callback, Logs, learning_rate_of, real, whole
from nbdense.metrics import direction_of

if TYPE_CHECKING:
    import numpy.typing as npt


class _Monitor(Callback):
    """A callback that watches one name of the logs, and tells when its value is better than another."""

    without = "it does nothing"  # where the name is not there

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        if not isinstance(monitor, str) or not monitor:
            raise ValueError(f"{type(self).__name__}: monitor must be a name such as 'val_loss', got {monitor!r}")
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"{type(self).__name__}: mode must be 'auto', 'min' or 'max', got {mode!r}")
        self.monitor, self.mode = monitor, mode
        self.min_delta = abs(real(self, "min_delta", min_delta))
        self.best: float | None = None
        self._warned = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._warned = False

    def _current(self, logs: Logs | None) -> float | None:
        """Return the monitored value; None, with one warning a fit, where there is none."""
        logs = logs or {}
        if self.monitor in logs:
            value = np.asarray(logs[self.monitor])
            if value.size != 1:
                raise ValueError(
                    f"{type(self).__name__}: {self.monitor!r} has {value.size} numbers an epoch; monitor a metric with "
                    "one, such as F1Score(average='macro') or Precision(class_id=0)"
                )
            return float(value.reshape(()))
        if not self._warned:
            self._warned = True
            hint = ", or give fit validation data" if self.monitor.startswith("val_") else ""
            warn(
                f"{type(self).__name__}: there is no {self.monitor!r} to monitor, so {self.without}; there are: "
                f"{', '.join(logs) or 'none'}. Pass one of these as monitor{hint}"
            )
        return None

    def _is_better(self, value: float, reference: float | None) -> bool:
        """Tell whether ``value`` is better by more than min_delta; any number is better than None, and NaN never is."""
        direction = self._direction()
        if reference is None:
            return not math.isnan(value)
        if direction == "max":
            return value - self.min_delta > reference
        return value + self.min_delta < reference

    def _direction(self) -> str:
        if self.mode != "auto":
            return self.mode
        direction = direction_of(self.monitor, self.model.train_state.objective()[1])
        if not direction:
            raise ValueError(
                f"{type(self).__name__}: whether {self.monitor!r} is better when it is larger is not known; "
                "pass mode='max' or mode='min'"
            )
        return direction


class EarlyStopping(_Monitor):
    """A callback that ends the fit when a monitored value has stopped improving.

    Parameters
    ----------
    monitor : str
        A name in the logs.
    min_delta : float
        The least change that counts as an improvement.
    patience : int
        Epochs without an improvement after which the fit ends.
    verbose : {0, 1}
        1 says what was done.
    mode : {"auto", "min", "max"}
        Direction that is better; auto knows it of the loss and of the model's metrics with a ``direction``.
    baseline : float, optional
        The fit ends too after ``patience`` epochs that are no better than this.
    restore_best_weights : bool
        Whether the fit leaves the weights of the best epoch instead of the last one's.
    start_from_epoch : int
        Earlier epochs (from 0) are not looked at.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience = whole(self, "patience", patience)
        self.verbose = verbose
        self.baseline = None if baseline is None else real(self, "baseline", baseline)
        self.restore_best_weights = bool(restore_best_weights)
        self.start_from_epoch = whole(self, "start_from_epoch", start_from_epoch)
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best_weights: list[npt.NDArray[Any]] | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best = self.best_weights = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        current = self._current(logs)
        if current is None or epoch < self.start_from_epoch:
            return
        better = self._is_better(current, self.best)
        if self.restore_best_weights and (better or self.best_weights is None):
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if better:
            self.best, self.best_epoch = current, epoch
            if self.baseline is None or self._is_better(current, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.stopped_epoch > 0 and self.verbose:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.best_weights is not None:
            if self.verbose:
                print(f"Restoring the weights of the best epoch: {self.best_epoch + 1}")
            self.model.set_weights(self.best_weights)


class ModelCheckpoint(_Monitor):
    """A callback that saves the model in training: after each epoch, each improvement, or some number of batches.

    A file is replaced as a whole or not at all, and holds the optimizer's state: a fit of what `load_model` reads
    goes on where this one was.

    Parameters
    ----------
    filepath : str or path
        Any suffix; may hold ``{epoch:02d}`` (from 1), ``{batch}`` and names of the logs, as in ``{val_loss:.3f}``.
        Missing folders are made.
    monitor : str
        A name in the logs, for ``save_best_only``. Where it is missing, each model is saved.
    verbose : {0, 1}
        1 says what was done.
    save_best_only : bool
        Whether to save only when the monitored value is the best so far; NaN never is.
    save_weights_only : bool
        Accepted for Keras's sake: the whole model is saved, which is its weights and little more.
    mode : {"auto", "min", "max"}
        Direction that is better; auto knows it of the loss and of the model's metrics with a ``direction``.
    save_freq : "epoch" or int
        Save after each epoch, or after so many batches; each step is taken by itself then.
    initial_value_threshold : float, optional
        The first to be saved has to be better than this.
    """

    without = "every model is saved"

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode)
        self.filepath = os.fspath(filepath)
        try:
            places = [field for _, field, _, _ in string.Formatter().parse(self.filepath) if field is not None]
        except ValueError as error:
            raise ValueError(f"ModelCheckpoint: filepath {self.filepath!r}: {error}") from error
        if not self.filepath or "" in places:
            raise ValueError(f"ModelCheckpoint: filepath must be a path with named fields only, got {self.filepath!r}")
        self.verbose = verbose
        self.save_best_only, self.save_weights_only = bool(save_best_only), bool(save_weights_only)
        self.save_freq = save_freq if save_freq == "epoch" else whole(self, "save_freq", save_freq, 1)
        if initial_value_threshold is not None:
            self.best = real(self, "initial_value_threshold", initial_value_threshold)
        self._epoch = self._batches = 0

    def wants_batches(self) -> bool:
        return self.save_freq != "epoch"

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if isinstance(self.save_freq, int):
            self._batches += 1
            if self._batches >= self.save_freq:
                self._batches = 0
                self._save(self._epoch, {"batch": batch + 1} | (logs or {}))

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.save_freq == "epoch":
            self._save(epoch, logs or {})

    def _save(self, epoch: int, logs: dict[str, Any]) -> None:
        if self.save_best_only:
            current = self._current(logs)
            if current is not None:
                if not self._is_better(current, self.best):
                    if self.verbose:
                        print(f"Epoch {epoch + 1}: {self.monitor} did not improve from {self.best}")
                    return
                self.best = current
        try:
            path = self.filepath.format(**{"epoch": epoch + 1} | logs)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"ModelCheckpoint: filepath {self.filepath!r} cannot be filled in ({error!r}); there are: "
                f"{', '.join(['epoch', *logs])}"
            ) from error
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self.model.save(path)
        if self.verbose:
            print(f"Epoch {epoch + 1}: saved the model to {path}")


class ReduceLROnPlateau(_Monitor):
    """A callback that multiplies the learning rate by a factor when a monitored value has stopped improving.

    Parameters
    ----------
    monitor : str
        A name in the logs.
    factor : float
        Factor, in [0, 1).
    patience : int
        Epochs without an improvement after which the rate is reduced.
    verbose : {0, 1}
        1 says what was done.
    mode : {"auto", "min", "max"}
        Direction that is better; auto knows it of the loss and of the model's metrics with a ``direction``.
    min_delta : float
        The least change that counts as an improvement.
    cooldown : int
        Epochs after a reduction in which no epoch without an improvement is counted.
    min_lr : float
        The rate is not reduced below this.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.factor, self.min_lr = real(self, "factor", factor), real(self, "min_lr", min_lr)
        if not 0.0 <= self.factor < 1.0:
            raise ValueError(f"ReduceLROnPlateau: factor must be in [0, 1), got {factor!r}")
        if self.min_lr < 0.0:
            raise ValueError(f"ReduceLROnPlateau: min_lr must be at least 0, got {min_lr!r}")
        self.patience, self.cooldown = whole(self, "patience", patience), whole(self, "cooldown", cooldown)
        self.verbose = verbose
        self.wait = self.cooldown_counter = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        learning_rate_of(self, self.model)
        self.best = None
        self.wait = self.cooldown_counter = 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        rate = learning_rate_of(self, self.model)
        if logs is not None:
            logs["learning_rate"] = rate
        current = self._current(logs)
        if current is None:
            return
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self._is_better(current, self.best):
            self.best = current
            self.wait = 0
        elif self.cooldown_counter == 0:
            self.wait += 1
            if self.wait >= self.patience and rate > self.min_lr:
                self._set_rate(epoch, max(rate * self.factor, self.min_lr))

    def _set_rate(self, epoch: int, rate: float) -> None:
        assert self.model.optimizer is not None
        self.model.optimizer.learning_rate = rate
        self.cooldown_counter, self.wait = self.cooldown, 0
        if self.verbose:
            print(f"Epoch {epoch + 1}: learning rate reduced to {rate:.6g}")
