"""PyTorch, the usual loop; without DataLoader, which would cost more than these models do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import nn

from benchmarks.cases import BETA_1, BETA_2, EPSILON, LEARNING_RATE, Weights
from benchmarks.peers import Array


class Torch:
    """PyTorch, with its optimizer as it comes."""

    fused = False  # torch's default on a CPU

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def build(self, x: Array, y: Array, batch: int, weights: Weights) -> None:
        self._x, self._y, self._batch = torch.from_numpy(x), torch.from_numpy(y), batch
        layers: list[nn.Module] = []
        for kernel, _ in weights:
            layers += [nn.Linear(*kernel.shape), nn.ReLU()]
        self._model = nn.Sequential(*layers[:-1])
        self._loss = nn.CrossEntropyLoss()
        self.reset(weights)

    def reset(self, weights: Weights) -> None:
        with torch.no_grad():
            linear = (layer for layer in self._model if isinstance(layer, nn.Linear))
            for layer, (kernel, bias) in zip(linear, weights, strict=True):
                layer.weight.copy_(torch.from_numpy(kernel.T))
                layer.bias.copy_(torch.from_numpy(bias))
        self._optimizer = self._make_optimizer(EPSILON)

    def _make_optimizer(self, epsilon: float) -> torch.optim.Optimizer:
        betas = (BETA_1, BETA_2)
        return torch.optim.Adam(self._model.parameters(), LEARNING_RATE, betas, epsilon, fused=self.fused or None)

    def step(self) -> float:
        # torch adds epsilon to the corrected root: in the first step this epsilon has the effect of Keras's.
        self._optimizer = self._make_optimizer(EPSILON / np.sqrt(1 - BETA_2))
        return self._step(torch.arange(self._batch)).item()

    def _step(self, rows: torch.Tensor) -> torch.Tensor:
        self._optimizer.zero_grad()
        loss: torch.Tensor = self._loss(self._model(self._x[rows]), self._y[rows])
        loss.backward()
        self._optimizer.step()
        return loss

    def epochs(self, count: int) -> None:
        for _ in range(count):
            order = torch.randperm(len(self._x))
            for rows in order.split(self._batch):
                self._step(rows)

    def product(self, a: Array, b: Array) -> Callable[[], object]:
        out = torch.empty(len(a), b.shape[1])
        return partial(torch.mm, torch.from_numpy(a), torch.from_numpy(b), out=out)

    def predict(self, x: Array) -> Array:
        with torch.inference_mode():
            probabilities: Array = torch.softmax(self._model(torch.from_numpy(x)), 1).numpy()
        return probabilities


class TorchFused(Torch):
    """PyTorch, with its fused optimizer."""

    fused = True
