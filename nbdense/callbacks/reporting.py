"""Callbacks that report, or run functions of the user's, between epochs or batches."""

from __future__ import annotations

import csv
import inspect
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nbdense._tables import Table, Tabular
from nbdense.callbacks.base import Callback as Callback
from nbdense.callbacks.base import Logs as Logs
from nbdense.callbacks.base import learning_rate_of, real
from nbdense.callbacks.monitors import EarlyStopping as EarlyStopping
from nbdense.callbacks.monitors import ModelCheckpoint as ModelCheckpoint
from nbdense.callbacks.monitors import ReduceLROnPlateau as ReduceLROnPlateau
from nbdense.inspection.plots import plot_history
from nbdense.training.progress import ProgressBar as ProgressBar
from nbdense.training.progress import number_text

_FIRST, _LAST = 5, 15  # epochs that a table of many shows


class History(Tabular, Callback):
    """Record of what each epoch reported: in a notebook a table, and for pandas, ``DataFrame(history.history)``.

    Attributes
    ----------
    epoch : list of int
        Epoch numbers.
    history : dict of str to list of float
        Loss and metrics, a value an epoch: an array of a metric that has several numbers.
    """

    def __init__(self) -> None:
        self.epoch: list[int] = []
        self.history: dict[str, list[Any]] = {}

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)

    def to_table(self) -> Table:
        missing = {name: len(self.epoch) - len(values) for name, values in self.history.items()}
        rows = [
            (
                str(epoch + 1),
                *(
                    number_text(v[place - missing[name]]) if place >= missing[name] else ""
                    for name, v in self.history.items()
                ),
            )
            for place, epoch in enumerate(self.epoch)
        ]
        if len(rows) > _FIRST + _LAST:
            rows = [*rows[:_FIRST], ("...",) * len(rows[0]), *rows[-_LAST:]]
        return Table(("epoch", *self.history), rows, left=0)

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {number_text(values[-1])}" for name, values in self.history.items() if values)
        count = f"{len(self.epoch)} epoch{'' if len(self.epoch) == 1 else 's'}"
        return f"<History: {count}{f'; {last}' if last else ''}>"

    def plot(self, metrics: str | list[str] | None = None, ax: Any = None) -> Any:
        """Draw what was reported over the epochs, each name together with its ``val_`` twin; needs matplotlib.

        Parameters
        ----------
        metrics : str or list of str, optional
            Names without ``val_``; all by default.
        ax : matplotlib Axes, optional
            Takes all curves. By default a new figure gets axes for each name, side by side.

        Returns
        -------
        Axes, or ndarray of Axes, (names,)
            ``ax``, or what was drawn on.

        Raises
        ------
        ValueError
            If there is no such name, or nothing to draw.
        ImportError
            If a figure is to be made and matplotlib is not installed.
        """
        return plot_history(self.epoch, self.history, metrics, ax)


class LambdaCallback(Callback):
    """A callback made of functions, each of which gets what the method of its name gets.

    Parameters
    ----------
    on_epoch_begin, on_epoch_end : callable, optional
        Called with (epoch, logs).
    on_train_begin, on_train_end : callable, optional
        Called with (logs).
    on_train_batch_begin, on_train_batch_end : callable, optional
        Called with (batch, logs); each step is taken by itself then.
    **functions
        Others of `Callback`'s methods, such as ``on_test_end``. What does not begin with "on_" becomes an attribute.

    Examples
    --------
    >>> from nbdense.callbacks import LambdaCallback
    >>> shout = LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs["loss"]))
    >>> shout.on_epoch_end(3, {"loss": 0.5})
    3 0.5
    """

    def __init__(
        self,
        on_epoch_begin: Callable[..., Any] | None = None,
        on_epoch_end: Callable[..., Any] | None = None,
        on_train_begin: Callable[..., Any] | None = None,
        on_train_end: Callable[..., Any] | None = None,
        on_train_batch_begin: Callable[..., Any] | None = None,
        on_train_batch_end: Callable[..., Any] | None = None,
        **functions: Any,
    ) -> None:
        functions |= {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
        }
        hooks = [name for name in vars(Callback) if name.startswith("on_")]
        for name, function in functions.items():
            if not name.startswith("on_"):
                setattr(self, name, function)
                continue
            if name not in hooks:
                raise ValueError(f"LambdaCallback: no method {name!r}; there are: {', '.join(hooks)}")
            if function is None:
                continue
            if not callable(function):
                raise ValueError(f"LambdaCallback: {name} must be a function, got {function!r}")
            takes_place = next(iter(inspect.signature(getattr(self, name)).parameters)) != "logs"
            setattr(self, name, _of_place(function) if takes_place else _of_logs(function))


def _of_place(function: Callable[..., Any]) -> Callable[..., None]:
    def hook(place: int, logs: Logs | None = None) -> None:
        function(place, {} if logs is None else logs)

    return hook


def _of_logs(function: Callable[..., Any]) -> Callable[..., None]:
    def hook(logs: Logs | None = None) -> None:
        function({} if logs is None else logs)

    return hook


class LearningRateScheduler(Callback):
    """A callback that sets the learning rate before each epoch.

    Parameters
    ----------
    schedule : callable
        ``schedule(epoch, learning_rate)`` (or ``schedule(epoch)``), epochs from 0; returns the new rate.
    verbose : {0, 1}
        1 says what was done.
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        if not callable(schedule):
            raise ValueError(f"LearningRateScheduler: schedule must be a function of (epoch, rate), got {schedule!r}")
        self.schedule, self.verbose = schedule, verbose
        self._takes_rate = True
        try:
            inspect.signature(schedule).bind(0, 0.0)
        except TypeError:
            self._takes_rate = False
        except ValueError:
            pass  # a builtin that does not tell its arguments

    def on_train_begin(self, logs: Logs | None = None) -> None:
        learning_rate_of(self, self.model)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        current = learning_rate_of(self, self.model)
        rate = real(self, "schedule's rate", self.schedule(*(epoch, current) if self._takes_rate else (epoch,)))
        if rate < 0.0:
            raise ValueError(f"LearningRateScheduler: schedule's rate must be at least 0, got {rate!r}")
        assert self.model.optimizer is not None
        self.model.optimizer.learning_rate = rate
        if self.verbose:
            print(f"Epoch {epoch + 1}: learning rate set to {rate:.6g}")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = learning_rate_of(self, self.model)


class CSVLogger(Callback):
    """A callback that writes each epoch's logs to a CSV file, a row at a time.

    The columns are epoch (from 0) and, in order, the names that the first epoch reports and their ``val_`` twins. A
    name that appears later has no column; one that is missing is "NA".

    Parameters
    ----------
    filename : str or path
        The file; its folder must exist.
    separator : str
        One character.
    append : bool
        Whether to go on with a file that is there, in its columns, instead of replacing it.
    """

    def __init__(self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False) -> None:
        if not isinstance(separator, str) or len(separator) != 1 or separator in '"\r\n':
            raise ValueError(f"CSVLogger: separator must be one character, got {separator!r}")
        self.filename, self.sep, self.append = os.fspath(filename), separator, bool(append)
        self._columns: list[str] | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._columns = None
        file = Path(self.filename)
        if self.append and file.exists():
            with file.open(newline="", encoding="utf-8") as lines:
                self._columns = next(csv.reader(lines, delimiter=self.sep), None)
            if self._columns and self._columns[0] != "epoch":
                raise ValueError(
                    f"CSVLogger: {self.filename} does not begin with a column 'epoch' before {self.sep!r}: it is no "
                    "log to append to"
                )
        else:
            file.write_bytes(b"")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        logs = logs or {}
        rows: list[list[Any]] = []
        if not self._columns:
            names = sorted(logs)
            if not any(name.startswith("val_") for name in names):
                names += [f"val_{name}" for name in names]
            self._columns = ["epoch", *names]
            rows.append(self._columns)
        rows.append([epoch, *(_cell(logs.get(name, "NA")) for name in self._columns[1:])])
        # Opened for each row: nothing is lost or left open when the fit ends with an error.
        with Path(self.filename).open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter=self.sep).writerows(rows)


def _cell(value: Any) -> Any:
    """Return what a cell shows: of a metric that has several numbers all of them, as in Keras."""
    return f"[{', '.join(map(str, value.tolist()))}]" if isinstance(value, np.ndarray) else value


class TerminateOnNaN(Callback):
    """A callback that ends the fit without an error when the loss is NaN or infinite.

    Without it fit raises FloatingPointError. The weights are those of the last finite step.

    Parameters
    ----------
    raise_error : bool
        Whether fit is to raise after all, as in Keras.
    """

    takes_not_finite = True

    def __init__(self, raise_error: bool = False) -> None:
        self.takes_not_finite = not raise_error

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        loss = (logs or {}).get("loss")
        if self.takes_not_finite and loss is not None and not math.isfinite(loss):
            print(f"Epoch {epoch + 1}: the loss is {loss}, the fit ends")
            self.model.stop_training = True


class ProgbarLogger(Callback):
    """A callback that does nothing: the progress bar is fit's own, and drawn as its ``verbose`` says."""


class TensorBoard(Callback):
    """A callback that there is not: nbdense writes no event files.

    Parameters
    ----------
    *arguments, **options
        Whatever Keras's takes.

    Raises
    ------
    NotImplementedError
        Always, with what to use instead.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        raise NotImplementedError(
            "TensorBoard: nbdense writes no event files; CSVLogger('log.csv') keeps each epoch's logs, and "
            "fit(...).plot() draws them"
        )
