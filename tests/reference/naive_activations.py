"""Activations that the program has not compiled in, in plain NumPy: f(z) and df/dz. At a kink it is the flat side's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def _sigmoid(x: Array) -> Array:
    return np.where(x >= 0, 1.0, np.exp(-np.abs(x))) / (1.0 + np.exp(-np.abs(x)))


def _inside(x: Array, low: float, high: float) -> Array:
    return ((x > low) & (x < high)).astype(x.dtype)


def soft_shrink(x: Array, threshold: float = 0.5) -> Array:
    return np.sign(x) * np.maximum(np.abs(x) - threshold, 0.0)


def squareplus(x: Array) -> Array:
    """Barron 2021 (arXiv:2112.11687)."""
    return (x + np.sqrt(x * x + 4.0)) / 2.0


def sparse_plus(x: Array) -> Array:
    return np.where(x <= -1, 0.0, np.where(x >= 1, x, (x + 1.0) ** 2 / 4.0))


def softplus_beta(x: Array) -> Array:
    """torch's, of which large numbers come out as they are."""
    return np.where(x > 20, x, np.log1p(np.exp(np.minimum(x, 20.0))))


def log_softmax(z: Array) -> Array:
    shifted = z - z.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def log_softmax_vjp(z: Array, grad: Array) -> Array:
    """Gradient with respect to the logits z, given that with respect to log_softmax(z)."""
    return grad - np.exp(log_softmax(z)) * grad.sum(axis=-1, keepdims=True)


ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "softsign": (lambda x: x / (1.0 + np.abs(x)), lambda x: 1.0 / (1.0 + np.abs(x)) ** 2),
    "exponential": (np.exp, np.exp),
    "celu": (lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0.0))), lambda x: np.exp(np.minimum(x, 0.0))),
    "log_sigmoid": (lambda x: np.minimum(x, 0.0) - np.log1p(np.exp(-np.abs(x))), lambda x: _sigmoid(-x)),
    "hard_tanh": (lambda x: np.clip(x, -1.0, 1.0), lambda x: _inside(x, -1.0, 1.0)),
    "hard_shrink": (lambda x: x * (np.abs(x) > 0.5), lambda x: 1.0 - _inside(x, -0.5, 0.5)),
    "soft_shrink": (soft_shrink, lambda x: 1.0 - _inside(x, -0.5, 0.5)),
    "tanh_shrink": (lambda x: x - np.tanh(x), lambda x: np.tanh(x) ** 2),
    "squareplus": (squareplus, lambda x: (1.0 + x / np.sqrt(x * x + 4.0)) / 2.0),
    "softplus_beta": (softplus_beta, lambda x: np.where(x > 20, 1.0, _sigmoid(x))),
    "sparse_plus": (sparse_plus, lambda x: np.clip((x + 1.0) / 2.0, 0.0, 1.0)),
    "sparse_sigmoid": (lambda x: np.clip((x + 1.0) / 2.0, 0.0, 1.0), lambda x: 0.5 * _inside(x, -1.0, 1.0)),
    "threshold": (lambda x: np.maximum(x, 0.0), lambda x: (x > 0).astype(x.dtype)),
    "thresholded_relu": (lambda x: x * (x > 1), lambda x: (x > 1).astype(x.dtype)),
}
