"""A callback that evaluates the moving averages of the weights in their place."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from nbdense.callbacks.base import Callback, Logs


class SwapEMAWeights(Callback):
    """A callback that puts the moving averages of the weights in their place for evaluations, and takes them back.

    The optimizer must have ``use_ema=True``.

    Parameters
    ----------
    swap_on_epoch : bool
        Whether the averages stay until the next epoch begins, for callbacks that come behind this one, such as
        ModelCheckpoint. What may end the fit comes before it.
    """

    def __init__(self, swap_on_epoch: bool = False) -> None:
        self.swap_on_epoch = bool(swap_on_epoch)
        self._swapped = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._swapped = False

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._swap(False)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.swap_on_epoch:
            self._swap(True)
            if epoch == self.params["epochs"] - 1 or self.model.stop_training:
                self._keep()

    def on_test_begin(self, logs: Logs | None = None) -> None:
        self._swap(True)

    def on_test_end(self, logs: Logs | None = None) -> None:
        self._swap(False)

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        self._swap(True)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        self._swap(False)

    def _swap(self, to_averages: bool) -> None:
        if to_averages == self._swapped:
            return
        for weights, average in self._pairs():
            weights[:], average[:] = average.copy(), weights.copy()
        self.model.network.version += 1
        self._swapped = to_averages

    def _keep(self) -> None:
        """Let the averages be what they are, too: fit puts them in the weights' place at its end."""
        for weights, average in self._pairs():
            average[:] = weights
        self._swapped = False

    def _pairs(self) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """Return views of each trainable parameter and of its average."""
        state = self.model.train_state
        optimizer, _ = state.compiled()
        if not optimizer.use_ema:
            raise ValueError("SwapEMAWeights: the optimizer keeps no averages; make it with use_ema=True")
        learning = state.network.segments[state.network.segments["trainable"] != 0]
        spans = [
            slice(begin, begin + length) for begin, length in zip(learning["offset"], learning["length"], strict=True)
        ]
        return [(state.network.params[span], state.vectors[-1][span]) for span in spans]
