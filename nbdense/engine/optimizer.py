"""Optimizer steps over a range of the flat vectors: parameters, gradients and state, each touched once.

``state[0]`` holds the gradients, the further rows an optimizer's slots. Formulas are Keras 3's; every operation is
elementwise, so a range may be cut anywhere without changing a bit.
"""

from __future__ import annotations

import math

from nbdense._jit import kernel

NONE, SGD, ADAM = range(3)
MOMENTUM, NESTEROV = 0, 1  # places in hyper
BETA_1, BETA_2, EPSILON = 0, 1, 2
HYPER = 8


@kernel
def _sgd(params, state, low, high, rate, hyper):
    number = params.dtype.type
    rate = number(rate)
    momentum = number(hyper[MOMENTUM])
    w, g, v = params[low:high], state[0, low:high], state[1, low:high]
    if hyper[MOMENTUM] == 0.0:
        for i in range(w.size):
            w[i] = w[i] - rate * g[i]
    elif hyper[NESTEROV] == 0.0:
        for i in range(w.size):
            v[i] = momentum * v[i] - rate * g[i]
            w[i] = w[i] + v[i]
    else:
        for i in range(w.size):
            v[i] = momentum * v[i] - rate * g[i]
            w[i] = w[i] + (momentum * v[i] - rate * g[i])


@kernel
def _adam(params, state, low, high, rate, step, hyper):
    """Kingma and Ba, "Adam" (2015), the efficient order at the end of section 2, epsilon outside the root."""
    number = params.dtype.type
    alpha = number(rate * math.sqrt(1.0 - hyper[BETA_2] ** step) / (1.0 - hyper[BETA_1] ** step))
    rest_1, rest_2 = number(1.0 - hyper[BETA_1]), number(1.0 - hyper[BETA_2])
    epsilon = number(hyper[EPSILON])
    w, g, m, v = params[low:high], state[0, low:high], state[1, low:high], state[2, low:high]
    for i in range(w.size):
        m[i] = m[i] + (g[i] - m[i]) * rest_1
        v[i] = v[i] + (g[i] * g[i] - v[i]) * rest_2
        w[i] = w[i] - alpha * m[i] / (math.sqrt(v[i]) + epsilon)


@kernel
def update(code, params, state, low, high, rate, step, hyper):
    """One step (numbered from 1) of the optimizer ``code`` on parameters low..high."""
    if code == SGD:
        _sgd(params, state, low, high, rate, hyper)
    elif code == ADAM:
        _adam(params, state, low, high, rate, step, hyper)
