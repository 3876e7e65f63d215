"""The progress bar of an epoch."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


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
            from tqdm import tqdm

            self._bar = tqdm(
                total=steps,
                desc=f"Epoch {epoch + 1}/{epochs}",
                unit="batch",
                file=sys.stdout,
                dynamic_ncols=True,
                mininterval=0.1,
            )

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
