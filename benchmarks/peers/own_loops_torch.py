"""PyTorch's usual loop over NumPy batches."""

from __future__ import annotations

import torch

from benchmarks.cases import Weights
from benchmarks.peers import Array
from benchmarks.peers.own_loops import batches_of
from benchmarks.peers.pytorch import Torch


class TorchLoop(Torch):
    """PyTorch, with its optimizer as it comes."""

    def build(self, x: Array, y: Array, batch: int, weights: Weights) -> None:
        self._batches = batches_of(x, y, batch)
        super().build(x, y, batch, weights)

    def epochs(self, count: int) -> None:
        for _ in range(count):
            for x, y in self._batches:
                self._optimizer.zero_grad()
                loss = self._loss(self._model(torch.from_numpy(x)), torch.from_numpy(y))
                loss.backward()
                self._optimizer.step()
                loss.item()


class TorchFusedLoop(TorchLoop):
    """PyTorch, with its fused optimizer."""

    fused = True
