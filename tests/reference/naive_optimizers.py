"""Keras 3's optimizers on one flat array: the reference for the compiled steps (see naive.py).

Each is step(parameters, gradient, state, **options) -> new parameters. `state` starts as {} and is updated in
place; it holds the step count "t" and the optimizer's slots. Options and defaults are Keras's
(keras/src/optimizers/*.py). Clip first, then decay, then step: Keras's order.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray
State = dict[str, Any]


def _slot(state: State, name: str, like: Array, value: float = 0.0) -> Array:
    return state.setdefault(name, np.full_like(like, value))


def _next_step(state: State) -> int:
    state["t"] = state.get("t", 0) + 1
    return state["t"]


def clip_by_value(gradient: Array, limit: float) -> Array:
    return np.clip(gradient, -limit, limit)


def clip_by_norm(gradient: Array, limit: float) -> Array:
    """Return the gradient of one variable, clipped to a norm."""
    return gradient * limit / np.maximum(np.sqrt(np.sum(gradient**2)), limit)


def clip_by_global_norm(gradients: list[Array], limit: float) -> list[Array]:
    norm = np.sqrt(sum(np.sum(g**2) for g in gradients))
    return [g * limit / np.maximum(norm, limit) for g in gradients]


def decay_weights(parameters: Array, learning_rate: float, weight_decay: float) -> Array:
    """Decoupled (Loshchilov and Hutter 2019, arXiv:1711.05101); any optimizer of Keras takes it."""
    return parameters - parameters * weight_decay * learning_rate


def exponential_moving_average(parameters: Array, state: State, momentum: float = 0.99) -> Array:
    """The average after a step; the first step's average is the parameters themselves."""
    first = "average" not in state
    state["average"] = parameters.copy() if first else momentum * state["average"] + (1 - momentum) * parameters
    return state["average"]


def sgd(
    p: Array,
    g: Array,
    state: State,
    *,
    learning_rate: float = 0.01,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> Array:
    _next_step(state)
    if momentum == 0:
        return p - learning_rate * g
    state["momentum"] = m = momentum * _slot(state, "momentum", p) - learning_rate * g
    return p + momentum * m - learning_rate * g if nesterov else p + m


def rmsprop(
    p: Array,
    g: Array,
    state: State,
    *,
    learning_rate: float = 0.001,
    rho: float = 0.9,
    momentum: float = 0.0,
    epsilon: float = 1e-7,
    centered: bool = False,
) -> Array:
    """Epsilon is inside the root."""
    _next_step(state)
    state["velocity"] = v = rho * _slot(state, "velocity", p) + (1 - rho) * g * g
    denominator = v + epsilon
    if centered:
        state["average_gradient"] = a = rho * _slot(state, "average_gradient", p) + (1 - rho) * g
        denominator = v - a * a + epsilon
    increment = learning_rate * g / np.sqrt(denominator)
    if momentum > 0:
        state["momentum"] = increment = momentum * _slot(state, "momentum", p) + increment
    return p - increment


def adagrad(
    p: Array,
    g: Array,
    state: State,
    *,
    learning_rate: float = 0.001,
    initial_accumulator_value: float = 0.1,
    epsilon: float = 1e-7,
) -> Array:
    """Duchi et al. 2011; epsilon is inside the root."""
    _next_step(state)
    state["accumulator"] = a = _slot(state, "accumulator", p, initial_accumulator_value) + g * g
    return p - learning_rate * g / np.sqrt(a + epsilon)


def adam(
    p: Array,
    g: Array,
    state: State,
    *,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    amsgrad: bool = False,
) -> Array:
    """Kingma and Ba 2015 (arXiv:1412.6980), the form just before section 2.1 ("epsilon hat")."""
    t = _next_step(state)
    state["momentum"] = m = beta_1 * _slot(state, "momentum", p) + (1 - beta_1) * g
    state["velocity"] = v = beta_2 * _slot(state, "velocity", p) + (1 - beta_2) * g * g
    if amsgrad:
        state["velocity_hat"] = v = np.maximum(_slot(state, "velocity_hat", p), v)
    alpha = learning_rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
    return p - alpha * m / (np.sqrt(v) + epsilon)


def adamw(
    p: Array,
    g: Array,
    state: State,
    *,
    learning_rate: float = 0.001,
    weight_decay: float = 0.004,
    **options: Any,
) -> Array:
    p = decay_weights(p, learning_rate, weight_decay)
    return adam(p, g, state, learning_rate=learning_rate, **options)


def nadam(
    p: Array,
    g: Array,
    state: State,
    *,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
) -> Array:
    """Dozat 2015, with the momentum schedule of its section 2: mu_t = beta_1 (1 - 0.96^t / 2)."""
    t = _next_step(state)
    mu, mu_next = (beta_1 * (1 - 0.5 * 0.96**s) for s in (t, t + 1))
    state["mu_product"] = product = state.get("mu_product", 1.0) * mu
    state["momentum"] = m = beta_1 * _slot(state, "momentum", p) + (1 - beta_1) * g
    state["velocity"] = v = beta_2 * _slot(state, "velocity", p) + (1 - beta_2) * g * g
    m_hat = mu_next * m / (1 - product * mu_next) + (1 - mu) * g / (1 - product)
    v_hat = v / (1 - beta_2**t)
    return p - learning_rate * m_hat / (np.sqrt(v_hat) + epsilon)


def lion(
    p: Array,
    g: Array,
    state: State,
    *,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.99,
) -> Array:
    """Chen et al. 2023 (arXiv:2302.06675), algorithm 2."""
    _next_step(state)
    m = _slot(state, "momentum", p)
    state["momentum"] = beta_2 * m + (1 - beta_2) * g
    return p - learning_rate * np.sign(beta_1 * m + (1 - beta_1) * g)


def adamax(
    p: Array,
    g: Array,
    state: State,
    *,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
) -> Array:
    """Kingma and Ba 2015 (arXiv:1412.6980), algorithm 2."""
    t = _next_step(state)
    state["m"] = beta_1 * _slot(state, "m", p) + (1 - beta_1) * g
    state["u"] = np.maximum(beta_2 * _slot(state, "u", p), np.abs(g))
    return p - learning_rate / (1 - beta_1**t) * state["m"] / (state["u"] + epsilon)


def adadelta(
    p: Array, g: Array, state: State, *, learning_rate: float = 0.001, rho: float = 0.95, epsilon: float = 1e-7
) -> Array:
    """Zeiler 2012 (arXiv:1212.5701), algorithm 1."""
    state["g"] = rho * _slot(state, "g", p) + (1 - rho) * g**2
    change = -np.sqrt(_slot(state, "x", p) + epsilon) / np.sqrt(state["g"] + epsilon) * g
    state["x"] = rho * state["x"] + (1 - rho) * change**2
    return p + learning_rate * change


def ftrl(
    p: Array,
    g: Array,
    state: State,
    *,
    learning_rate: float = 0.001,
    learning_rate_power: float = -0.5,
    initial_accumulator_value: float = 0.1,
    l1_regularization_strength: float = 0.0,
    l2_regularization_strength: float = 0.0,
    l2_shrinkage_regularization_strength: float = 0.0,
    beta: float = 0.0,
) -> Array:
    """McMahan et al. 2013, "Ad Click Prediction", algorithm 1, weight by weight."""
    n, z = _slot(state, "n", p, initial_accumulator_value), _slot(state, "z", p)
    out = p.copy()
    for i in np.ndindex(p.shape):
        after = n[i] + g[i] ** 2
        grown = after**-learning_rate_power
        if grown == 0.0 and l2_regularization_strength == 0.0 and beta == 0.0:
            continue
        sigma = (grown - n[i] ** -learning_rate_power) / learning_rate
        z[i] += g[i] + 2 * l2_shrinkage_regularization_strength * p[i] - sigma * p[i]
        n[i] = after
        below = (beta + grown) / learning_rate + 2 * l2_regularization_strength
        over = abs(z[i]) - l1_regularization_strength
        out[i] = -np.sign(z[i]) * over / below if over > 0 else 0.0
    return out


OPTIMIZERS: dict[str, Callable[..., Array]] = {
    f.__name__: f for f in (sgd, rmsprop, adagrad, adam, adamw, nadam, lion, adamax, adadelta, ftrl)
}
