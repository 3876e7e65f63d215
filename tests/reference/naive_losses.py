"""Slow, obvious twins of the losses that a model compiles on demand, with their gradients; `naive` has the others.

Imports nothing of nbdense. Targets of class numbers come as one-hot rows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray
EPSILON = 1e-7


def _inside(p: Array) -> Array:
    return ((p >= EPSILON) & (p <= 1.0 - EPSILON)).astype(p.dtype)


def mean_absolute_percentage_error(outputs: Array, targets: Array) -> Array:
    return 100.0 * np.mean(np.abs(outputs - targets) / np.maximum(np.abs(targets), EPSILON), axis=-1)


def mean_absolute_percentage_error_gradient(outputs: Array, targets: Array) -> Array:
    return 100.0 * np.sign(outputs - targets) / np.maximum(np.abs(targets), EPSILON) / outputs.shape[-1]


def mean_squared_logarithmic_error(outputs: Array, targets: Array) -> Array:
    error = np.log1p(np.maximum(outputs, EPSILON)) - np.log1p(np.maximum(targets, EPSILON))
    return np.mean(error**2, axis=-1)


def mean_squared_logarithmic_error_gradient(outputs: Array, targets: Array) -> Array:
    error = np.log1p(np.maximum(outputs, EPSILON)) - np.log1p(np.maximum(targets, EPSILON))
    return np.where(outputs > EPSILON, 2.0 * error, 0.0) / (1.0 + outputs) / outputs.shape[-1]


def squared_hinge(outputs: Array, targets: Array) -> Array:
    t = 2.0 * targets - 1.0 if np.isin(targets, (0, 1)).all() else targets
    return np.mean(np.maximum(1.0 - t * outputs, 0.0) ** 2, axis=-1)


def squared_hinge_gradient(outputs: Array, targets: Array) -> Array:
    t = 2.0 * targets - 1.0 if np.isin(targets, (0, 1)).all() else targets
    return -2.0 * t * np.maximum(1.0 - t * outputs, 0.0) / outputs.shape[-1]


def categorical_hinge(outputs: Array, targets: Array) -> Array:
    short = np.max((1.0 - targets) * outputs, axis=-1) - np.sum(targets * outputs, axis=-1) + 1.0
    return np.maximum(short, 0.0)


def categorical_hinge_gradient(outputs: Array, targets: Array) -> Array:
    grad = np.zeros_like(outputs)
    for i in range(len(outputs)):
        wrong = (1.0 - targets[i]) * outputs[i]
        worst = int(np.argmax(wrong))
        if wrong[worst] - np.sum(targets[i] * outputs[i]) + 1.0 > 0.0:
            grad[i] = -targets[i]
            grad[i, worst] += 1.0 - targets[i, worst]
    return grad


def cosine_similarity(outputs: Array, targets: Array, axis: int = -1) -> Array:
    lengths = np.linalg.norm(outputs, axis=-1) * np.linalg.norm(targets, axis=-1)
    return -np.sum(outputs * targets, axis=-1) / lengths


def cosine_similarity_gradient(outputs: Array, targets: Array, axis: int = -1) -> Array:
    length = np.linalg.norm(outputs, axis=-1, keepdims=True)
    u, t = outputs / length, targets / np.linalg.norm(targets, axis=-1, keepdims=True)
    return -(t - np.sum(t * u, axis=-1, keepdims=True) * u) / length


def _focal_parts(outputs: Array, targets: Array, from_logits: bool, label_smoothing: float) -> tuple[Array, ...]:
    t = targets * (1.0 - label_smoothing) + 0.5 * label_smoothing
    p = 1.0 / (1.0 + np.exp(-outputs)) if from_logits else outputs
    q = np.clip(p, EPSILON, 1.0 - EPSILON)
    return t, p, q, -t * np.log(q) - (1.0 - t) * np.log(1.0 - q), t * (1.0 - p) + (1.0 - t) * p


def binary_focal_crossentropy(
    outputs: Array,
    targets: Array,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Array:
    t, _, _, loss, unlikely = _focal_parts(outputs, targets, from_logits, label_smoothing)
    balance = t * alpha + (1.0 - t) * (1.0 - alpha) if apply_class_balancing else 1.0
    return np.mean(balance * unlikely**gamma * loss, axis=-1)


def binary_focal_crossentropy_gradient(
    outputs: Array,
    targets: Array,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Array:
    t, p, q, loss, unlikely = _focal_parts(outputs, targets, from_logits, label_smoothing)
    balance = t * alpha + (1.0 - t) * (1.0 - alpha) if apply_class_balancing else 1.0
    slope = gamma * unlikely ** (gamma - 1.0) * (1.0 - 2.0 * t) * loss
    slope = slope + unlikely**gamma * _inside(p) * (q - t) / (q * (1.0 - q))
    return balance * slope * (p * (1.0 - p) if from_logits else 1.0) / outputs.shape[-1]


def categorical_focal_crossentropy(
    outputs: Array,
    targets: Array,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Array:
    t = targets * (1.0 - label_smoothing) + label_smoothing / outputs.shape[-1]
    p = np.exp(outputs) if from_logits else outputs
    q = np.clip(p / p.sum(axis=-1, keepdims=True), EPSILON, 1.0 - EPSILON)
    return -alpha * np.sum((1.0 - q) ** gamma * t * np.log(q), axis=-1)


def categorical_focal_crossentropy_gradient(
    outputs: Array,
    targets: Array,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Array:
    t = targets * (1.0 - label_smoothing) + label_smoothing / outputs.shape[-1]
    before = np.exp(outputs) if from_logits else outputs
    total = before.sum(axis=-1, keepdims=True)
    p = before / total
    q = np.clip(p, EPSILON, 1.0 - EPSILON)
    slope = -alpha * t * ((1.0 - q) ** gamma / q - gamma * (1.0 - q) ** (gamma - 1.0) * np.log(q)) * _inside(p)
    slope = (slope - (slope * p).sum(axis=-1, keepdims=True)) / total
    return slope * (before if from_logits else 1.0)


def categorical_generalized_cross_entropy(outputs: Array, targets: Array, q: float = 0.5) -> Array:
    return (1.0 - np.sum(outputs * targets, axis=-1) ** q) / q


def categorical_generalized_cross_entropy_gradient(outputs: Array, targets: Array, q: float = 0.5) -> Array:
    return -targets * np.sum(outputs * targets, axis=-1, keepdims=True) ** (q - 1.0)


def tversky(outputs: Array, targets: Array, alpha: float = 0.5, beta: float = 0.5, axis: int = -1) -> Array:
    both = np.sum(targets * outputs, axis=-1)
    others = alpha * np.sum(targets * (1.0 - outputs), axis=-1) + beta * np.sum(outputs * (1.0 - targets), axis=-1)
    return 1.0 - both / (both + others + EPSILON)


def tversky_gradient(outputs: Array, targets: Array, alpha: float = 0.5, beta: float = 0.5, axis: int = -1) -> Array:
    both = np.sum(targets * outputs, axis=-1, keepdims=True)
    missed = np.sum(targets * (1.0 - outputs), axis=-1, keepdims=True)
    below = both + alpha * missed + beta * np.sum(outputs * (1.0 - targets), axis=-1, keepdims=True) + EPSILON
    return both * (targets - alpha * targets + beta * (1.0 - targets)) / below**2 - targets / below


def dice(outputs: Array, targets: Array, axis: int = -1) -> Array:
    return 1.0 - 2.0 * np.sum(targets * outputs, axis=-1) / (np.sum(targets + outputs, axis=-1) + EPSILON)


def dice_gradient(outputs: Array, targets: Array, axis: int = -1) -> Array:
    size = np.sum(targets + outputs, axis=-1, keepdims=True) + EPSILON
    return 2.0 * np.sum(targets * outputs, axis=-1, keepdims=True) / size**2 - 2.0 * targets / size


ROWS: list[tuple[Callable[..., Any], Callable[..., Any]]] = [
    (mean_absolute_percentage_error, mean_absolute_percentage_error_gradient),
    (mean_squared_logarithmic_error, mean_squared_logarithmic_error_gradient),
    (squared_hinge, squared_hinge_gradient),
    (categorical_hinge, categorical_hinge_gradient),
    (cosine_similarity, cosine_similarity_gradient),
    (binary_focal_crossentropy, binary_focal_crossentropy_gradient),
    (categorical_focal_crossentropy, categorical_focal_crossentropy_gradient),
    (categorical_generalized_cross_entropy, categorical_generalized_cross_entropy_gradient),
    (dice, dice_gradient),
    (tversky, tversky_gradient),
]
