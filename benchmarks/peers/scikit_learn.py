"""scikit-learn's MLPClassifier, through ``partial_fit``, which is an epoch and goes on where the last one ended.

It gives a model of two classes a single logistic output: the same function, loss and predictions as softmax with the
difference of the two outputs' weights, but other steps.
"""

from __future__ import annotations

import numpy as np
from sklearn.neural_network import MLPClassifier

from benchmarks.cases import BETA_1, BETA_2, EPSILON, LEARNING_RATE, Weights
from benchmarks.peers import Array


class Sklearn:
    """scikit-learn's MLPClassifier."""

    def __init__(self, threads: int) -> None:
        pass  # only its BLAS has threads, and the environment has set them

    def build(self, x: Array, y: Array, batch: int, weights: Weights) -> None:
        self._x, self._y, self._batch = x, y, batch
        self._model = MLPClassifier(
            tuple(kernel.shape[1] for kernel, _ in weights[:-1]),
            alpha=0.0,
            batch_size=batch,
            learning_rate_init=LEARNING_RATE,
            beta_1=BETA_1,
            beta_2=BETA_2,
            epsilon=EPSILON,
            random_state=0,
        )
        self._classes = np.arange(weights[-1][0].shape[1])
        self._model.partial_fit(x[:batch], y[:batch], classes=self._classes)  # makes the arrays that reset fills
        self.reset(weights)

    def reset(self, weights: Weights) -> None:
        model = self._model
        for target, pair in zip(zip(model.coefs_, model.intercepts_, strict=True), weights, strict=True):
            for array, value in zip(target, pair, strict=True):
                array[...] = value if array.shape == value.shape else value[..., 1:] - value[..., :1]
        if hasattr(model, "_optimizer"):
            del model._optimizer  # partial_fit goes on with it; without, it begins with a fresh one

    def step(self) -> float:
        self._model.set_params(shuffle=False)
        self._model.partial_fit(self._x[: self._batch], self._y[: self._batch])
        self._model.set_params(shuffle=True)
        return float(self._model.loss_)

    def epochs(self, count: int) -> None:
        for _ in range(count):
            self._model.partial_fit(self._x, self._y)

    def predict(self, x: Array) -> Array:
        probabilities: Array = self._model.predict_proba(x)
        return probabilities
