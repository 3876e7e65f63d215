"""A jitted JAX step that Python calls with NumPy batches."""

from __future__ import annotations

import jax
import numpy as np

from benchmarks.cases import Weights
from benchmarks.peers import Array
from benchmarks.peers.jax_scan import Jax, adam_step
from benchmarks.peers.own_loops import batches_of

_jitted = jax.jit(adam_step, donate_argnums=0)


class JaxLoop(Jax):
    """JAX, a step a call."""

    def build(self, x: Array, y: Array, batch: int, weights: Weights) -> None:
        self._batches = batches_of(x, y.astype(np.int32), batch)
        super().build(x, y, batch, weights)

    def epochs(self, count: int) -> None:
        for _ in range(count):
            for x, y in self._batches:
                self._state, loss = _jitted(self._state, x, y)
                float(loss)
