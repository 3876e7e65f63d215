"""Progress on stderr, where that is a terminal."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nbdense.callbacks import Callback, Logs

_LINE = re.compile(r"Iteration (\d+), loss = (\S+)")


@contextmanager
def epochs_shown(title: str, epochs: int) -> Iterator[bool]:
    """Draw a bar of the epochs that an estimator prints.

    Parameters
    ----------
    title : str
        What the bar is called.
    epochs : int
        How many there are at most.

    Yields
    ------
    bool
        What the estimator's ``verbose`` has to be: whether anything is drawn.
    """
    if not on_terminal():
        yield False
        return
    from tqdm import tqdm

    with tqdm(total=epochs, desc=title, unit="epoch", file=sys.stderr, dynamic_ncols=True) as bar:
        with contextlib.redirect_stdout(_Lines(bar)):
            yield True
        bar.total = bar.n  # it may have stopped early
        bar.refresh()


def on_terminal() -> bool:
    """Tell whether stderr is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


class _Lines(io.TextIOBase):
    """Lines that an estimator prints, as steps of a bar."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def write(self, text: str) -> int:
        for _, loss in _LINE.findall(text):
            self._bar.set_postfix(loss=f"{float(loss):.4f}", refresh=False)
            self._bar.update()
        return len(text)


class EpochBar(Callback):
    """One progress bar on stderr for a whole fit.

    Parameters
    ----------
    title : str
        What the bar is called.
    epochs : int
        How many there will be.
    """

    def __init__(self, title: str, epochs: int) -> None:
        self._title, self._epochs = title, epochs
        self._bar: Any = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self._bar is None:  # the first epoch may compile, and say so in a line of its own
            from tqdm import tqdm

            self._bar = tqdm(
                total=self._epochs, desc=f"{self._title:<17}", unit="epoch", file=sys.stderr, dynamic_ncols=True
            )
        self._bar.set_postfix({name: f"{value:.4f}" for name, value in (logs or {}).items()}, refresh=False)
        self._bar.update()

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._bar is not None:
            self._bar.close()
