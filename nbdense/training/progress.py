"""Progress bars of epochs and other loops; in a notebook Jupyter's own, where ipywidgets is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> Any:
    """Return a bar of tqdm's: Jupyter's widget in a notebook, text elsewhere.

    Parameters
    ----------
    iterable : iterable, optional
        What is gone through.
    **options
        Of tqdm.
    """
    from tqdm.auto import tqdm

    return tqdm(iterable, dynamic_ncols=True, **options)


class ProgressBar:
    """A tqdm bar an epoch: batches done, loss and metrics so far, time left.

    Parameters
    ----------
    epoch, epochs : int
        Number of the epoch, and of all epochs.
    steps : int or None
        Number of its batches, where it is known.
    shown : bool
        Nothing is drawn where this is false.
    """

    def __init__(self, epoch: int, epochs: int, steps: int | None, shown: bool) -> None:
        self._bar: Any = None
        if shown:
            title = f"Epoch {epoch + 1}/{epochs}"
            self._bar = progress_bar(total=steps, desc=title, unit="batch", file=sys.stdout, mininterval=0.1)

    def update(self, batches: int, logs: dict[str, Any]) -> None:
        """Show that ``batches`` more are done, and the means so far."""
        if self._bar is not None:
            self._bar.set_postfix({name: number_text(value) for name, value in logs.items()}, refresh=False)
            self._bar.update(batches)

    def close(self, logs: dict[str, Any] | None = None) -> None:
        """Leave the finished bar on the screen with the epoch's results."""
        if self._bar is not None:
            if logs:
                self._bar.set_postfix({name: number_text(value) for name, value in logs.items()})
            self._bar.close()


def number_text(value: Any) -> str:
    """Return a number, or the numbers of a metric that has several, to four digits."""
    return f"{value:.4g}" if np.ndim(value) == 0 else f"[{' '.join(f'{each:.4g}' for each in np.ravel(value))}]"
