"""The reference that libraries are checked against before timing: textbook NumPy in float64, nothing of nbdense."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.cases import BETA_1, BETA_2, EPSILON, LEARNING_RATE, Weights

Array = npt.NDArray[Any]


def outputs_of_layers(x: Array, weights: Weights) -> list[Array]:
    """Return the input, and the output of each layer; the last are probabilities."""
    outputs = [x]
    for index, (kernel, bias) in enumerate(weights):
        z = outputs[-1] @ kernel + bias
        if index < len(weights) - 1:
            outputs.append(np.maximum(z, 0))
        else:
            e = np.exp(z - z.max(axis=1, keepdims=True))
            outputs.append(e / e.sum(axis=1, keepdims=True))
    return outputs


def predict(x: Array, weights: Weights) -> Array:
    """Return probabilities, in the dtype of the arrays."""
    return outputs_of_layers(x, weights)[-1]


def first_step(x: Array, y: Array, weights: Weights) -> tuple[float, Weights]:
    """Return the loss of one batch, and the weights after Adam's first step on it."""
    exact: Weights = [(kernel.astype(np.float64), bias.astype(np.float64)) for kernel, bias in weights]
    outputs = outputs_of_layers(x.astype(np.float64), exact)
    rows = np.arange(len(y))
    loss = -np.log(outputs[-1][rows, y]).mean()
    delta = outputs[-1].copy()
    delta[rows, y] -= 1
    delta /= len(y)
    stepped: Weights = []
    for (kernel, bias), source in zip(reversed(exact), reversed(outputs[:-1]), strict=True):
        gradients = source.T @ delta, delta.sum(axis=0)
        delta = (delta @ kernel.T) * (source > 0)
        stepped.insert(0, (_adam(kernel, gradients[0]), _adam(bias, gradients[1])))
    return float(loss), stepped


def _adam(parameter: Array, gradient: Array) -> Array:
    """Take Adam's first step as Keras does: epsilon is added to the root that is not corrected for its bias."""
    m, v = (1 - BETA_1) * gradient, (1 - BETA_2) * gradient**2
    rate = LEARNING_RATE * np.sqrt(1 - BETA_2) / (1 - BETA_1)
    return parameter - rate * m / (np.sqrt(v) + EPSILON)
