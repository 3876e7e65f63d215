"""The forward pass as one writes it in NumPy: what a library has to beat to be worth installing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks import reference
from benchmarks.cases import Weights
from benchmarks.peers import Array


class PlainNumpy:
    """NumPy, which only predicts."""

    def __init__(self, threads: int) -> None:
        pass  # its BLAS has threads, and the environment has set them

    def build(self, x: Array, y: Array, batch: int, weights: Weights) -> None:
        self.reset(weights)

    def reset(self, weights: Weights) -> None:
        self._weights = weights

    def step(self) -> float:
        raise NotImplementedError("NumPy is timed at inference only")

    def epochs(self, count: int) -> None:
        raise NotImplementedError("NumPy is timed at inference only")

    def product(self, a: Array, b: Array) -> Callable[[], object]:
        return partial(np.matmul, a, b, np.empty((len(a), b.shape[1]), a.dtype))

    def predict(self, x: Array) -> Array:
        return reference.predict(x, self._weights)
