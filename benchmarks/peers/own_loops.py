"""Loops of one's own: each batch is a call from Python, NumPy in and the loss out."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.cases import Weights
from benchmarks.peers import Array
from benchmarks.peers.ours import Nbdense


def batches_of(x: Array, y: Array, batch: int) -> list[tuple[Array, Array]]:
    """Return the batches of an epoch, in their order."""
    return [(x[first : first + batch], y[first : first + batch]) for first in range(0, len(x), batch)]


class TrainOnBatch(Nbdense):
    """nbdense, by ``train_on_batch``."""

    def build(self, x: Array, y: Array, batch: int, weights: Weights) -> None:
        self._batches = batches_of(x, y, batch)
        super().build(x, y, batch, weights)

    def reset(self, weights: Weights) -> None:
        super().reset(weights)
        self._take = self._taker()

    def _taker(self) -> Any:
        return self._model.train_on_batch

    def step(self) -> float:
        return float(self._take(*self._batches[0]))

    def epochs(self, count: int) -> None:
        take = self._take
        for _ in range(count):
            for x, y in self._batches:
                take(x, y)


class TrainStep(TrainOnBatch):
    """nbdense, by the function that ``train_step`` returns."""

    def _taker(self) -> Any:
        return self._model.train_step(len(self._batches[0][0]))


class LearnOne(TrainOnBatch):
    """nbdense, by ``learn_one``: a row, and not a batch of one."""

    def build(self, x: Array, y: Array, batch: int, weights: Weights) -> None:
        super().build(x, y, batch, weights)
        self._batches = list(zip(x, y, strict=True))

    def _taker(self) -> Any:
        return self._model.learn_one


class OwnLoop(TrainOnBatch):
    """nbdense, by ``forward``, the loss's derivative in NumPy, ``backward`` and ``apply_gradients``."""

    def _taker(self) -> Any:
        model, rows = self._model, np.arange(len(self._batches[0][0]))
        slope = np.zeros((len(rows), model.network.n_out), np.float32)

        def take(x: Array, y: Array) -> float:
            chosen = model.forward(x, training=True)[rows, y]
            slope[:] = 0.0
            slope[rows, y] = -1.0 / (len(rows) * chosen)
            model.backward(slope)
            model.apply_gradients()
            return float(-np.log(chosen).mean())

        return take
