"""Keras on its JAX backend (the environment chooses it), through ``fit``."""

from __future__ import annotations

import keras
import numpy as np

from benchmarks.cases import LEARNING_RATE, Weights
from benchmarks.peers import Array


class Keras:
    """Keras on JAX."""

    def __init__(self, threads: int) -> None:
        if keras.backend.backend() != "jax":
            raise RuntimeError(f"Keras runs on {keras.backend.backend()}, not on jax")

    def build(self, x: Array, y: Array, batch: int, weights: Weights) -> None:
        self._x, self._y, self._batch = x, y, batch
        layers = [keras.Input((x.shape[1],))]
        layers += [keras.layers.Dense(kernel.shape[1], "relu") for kernel, _ in weights[:-1]]
        self._model = keras.Sequential([*layers, keras.layers.Dense(weights[-1][0].shape[1], "softmax")])
        self._model.compile(keras.optimizers.Adam(LEARNING_RATE), "sparse_categorical_crossentropy")
        self.reset(weights)

    def reset(self, weights: Weights) -> None:
        # The optimizer goes on as it is: a new one would be compiled anew.
        self._model.set_weights([array for pair in weights for array in pair])

    def step(self) -> float:
        return float(self._model.train_on_batch(self._x[: self._batch], self._y[: self._batch]))

    def epochs(self, count: int) -> None:
        self._model.fit(self._x, self._y, self._batch, epochs=count, verbose=0)

    def predict(self, x: Array) -> Array:
        return np.asarray(self._model(x))
