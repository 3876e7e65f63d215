"""JAX at its best: a whole epoch, shuffling included, is one compiled program."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import BETA_1, BETA_2, EPSILON, LEARNING_RATE, Weights
from benchmarks.peers import Array


def _logits(params: Any, x: Any) -> Any:
    for kernel, bias in params[:-1]:
        x = jax.nn.relu(x @ kernel + bias)
    return x @ params[-1][0] + params[-1][1]


def _loss(params: Any, x: Any, y: Any) -> Any:
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(_logits(params, x)), y[:, None], 1))


def adam_step(state: Any, x: Any, y: Any) -> Any:
    """Return the state behind a step of training, and the loss before it."""
    params, m, v, t = state
    loss, gradients = jax.value_and_grad(_loss)(params, x, y)
    t = t + 1
    m = jax.tree.map(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, m, gradients)
    v = jax.tree.map(lambda v, g: BETA_2 * v + (1 - BETA_2) * g * g, v, gradients)
    rate = LEARNING_RATE * jnp.sqrt(1 - BETA_2**t) / (1 - BETA_1**t)
    params = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + EPSILON), params, m, v)
    return (params, m, v, t), loss


@partial(jax.jit, static_argnames="batch", donate_argnums=0)
def _epoch(state: Any, key: Any, x: Any, y: Any, batch: int) -> Any:
    # Scan wants steps of one shape: rows that do not fill a batch are left out, others in every epoch.
    steps = len(x) // batch
    order = jax.random.permutation(key, len(x))[: steps * batch].reshape(steps, batch)
    return jax.lax.scan(lambda state, rows: adam_step(state, x[rows], y[rows]), state, order)


@jax.jit
def _probabilities(params: Any, x: Any) -> Any:
    return jax.nn.softmax(_logits(params, x))


class Jax:
    """JAX, which scans over the batches of an epoch."""

    def __init__(self, threads: int) -> None:
        self._key = jax.random.key(0)  # the environment has set the threads: there is no call for it

    def build(self, x: Array, y: Array, batch: int, weights: Weights) -> None:
        self._x, self._y, self._batch = jnp.asarray(x), jnp.asarray(y, jnp.int32), batch
        self.reset(weights)

    def reset(self, weights: Weights) -> None:
        # copies: the epoch donates its state
        params = [(jnp.array(kernel), jnp.array(bias)) for kernel, bias in weights]
        self._state = (params, *(jax.tree.map(jnp.zeros_like, params) for _ in range(2)), jnp.float32(0))
        jax.block_until_ready(self._state)

    def step(self) -> float:
        self._state, loss = jax.jit(adam_step)(self._state, self._x[: self._batch], self._y[: self._batch])
        return float(loss)

    def epochs(self, count: int) -> None:
        for _ in range(count):
            self._key, key = jax.random.split(self._key)
            self._state, _ = _epoch(self._state, key, self._x, self._y, self._batch)
        jax.block_until_ready(self._state)

    def product(self, a: Array, b: Array) -> Callable[[], object]:
        matmul, first, second = jax.jit(jnp.matmul), jnp.asarray(a), jnp.asarray(b)
        return lambda: matmul(first, second).block_until_ready()

    def predict(self, x: Array) -> Array:
        return np.asarray(_probabilities(self._state[0], x))
