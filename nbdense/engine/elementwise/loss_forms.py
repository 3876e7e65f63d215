"""The table of the library's losses with formulas of their own: each one's code and scalar functions.

``value(y, t, parameter)`` is a column's share of a row's loss, ``derivative`` its derivative by the output y. They are
free of branches: both sides of a choice are computed. At a kink the derivative is 0 where the two sides differ in
sign, as in Keras and torch, and else the flat side's.

Softmax cross-entropy and the squared error are in the training program; it calls the loops of all others by their
addresses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from nbdense._compile.loops import kernel_loop
from nbdense._compile.policy import kernel
from nbdense.engine.elementwise.elementary import exp, expm1, like, log, sigmoid, tanh

MEAN_SQUARED_ERROR = 0
SOFTMAX_CROSSENTROPY = 100
SOFTMAX_CROSSENTROPY_OF_OUTPUTS = 102  # an activation that is still to be differentiated made the logits: they stay
CUSTOM_LOSS, CUSTOM_SUM = 1000, 1001  # by the address of a loop: means over the columns, and sums


@dataclass(frozen=True)
class LossForm:
    """One compiled loss.

    Parameters
    ----------
    name : str
        Its name.
    code : int
        Its number in runs.
    value, derivative : kernel, optional
        Its scalar functions, if it is elementwise.
    row : kernel, optional
        ``row(y, t, d, smoothing, sparse, scale)`` of another: returns the loss of a row, and writes its derivative
        times ``scale`` to d.
    """

    name: str
    code: int
    value: Callable[..., Any] | None = None
    derivative: Callable[..., Any] | None = None
    row: Callable[..., Any] | None = None

    def loop(self, dtype: Any) -> int:
        """Return the address of the loop of one that the training program calls; 0 for those that are in it."""
        if self.code < CUSTOM_LOSS:
            return 0
        if self.value is not None:
            return kernel_loop(self.name, "loss", dtype, self.value, derivative=self.derivative)
        assert self.row is not None
        return kernel_loop(self.name, "row_loss", dtype, self.row)


# LLVM would leave a call of so long a body, and does not vectorise a loop with a call in it.
long_kernel = partial(kernel, inline=True)


# -- distances of numbers -------------------------------------------------------------------------------------------


@kernel
def _squared(y, t, parameter):
    return (y - t) * (y - t)


@kernel
def _squared_derivative(y, t, parameter):
    return like(y, 2.0) * (y - t)


@kernel
def _absolute(y, t, parameter):
    return abs(y - t)


@kernel
def _absolute_derivative(y, t, parameter):
    one = like(y, 1.0)
    side = one if y > t else like(y, 0.0)
    return -one if y < t else side


@kernel
def _huber(y, t, delta):
    size, limit = abs(y - t), like(y, delta)
    near = size if size < limit else limit
    return near * (size - like(y, 0.5) * near)


@kernel
def _huber_derivative(y, t, delta):
    error, limit = y - t, like(y, delta)
    error = limit if error > limit else error
    return -limit if error < -limit else error


@long_kernel
def _log_cosh(y, t, parameter):
    """Return log(1 + 2 sinh(e / 2)^2), which keeps its digits at small e; past 20 it is a line, to the last digit."""
    size, limit, one = abs(y - t), like(y, 20.0), like(y, 1.0)
    near = size if size < limit else limit
    e = expm1(near)
    return _log1p(e * e / (like(y, 2.0) * (one + e))) + (size - near)


@kernel
def _log_cosh_derivative(y, t, parameter):
    return tanh(y - t)


@kernel
def _quantile(y, t, quantile):
    error, share = t - y, like(y, quantile)
    return error * (share if error > like(y, 0.0) else share - like(y, 1.0))


@kernel
def _quantile_derivative(y, t, quantile):
    zero, share = like(y, 0.0), like(y, quantile)
    side = like(y, 1.0) - share if y > t else zero
    return -share if y < t else side


# -- counts, labels and distributions -------------------------------------------------------------------------------


@kernel
def _poisson(y, t, parameter):
    return y - t * log(y + like(y, 1e-7))


@kernel
def _poisson_derivative(y, t, parameter):
    return like(y, 1.0) - t / (y + like(y, 1e-7))


@kernel
def _hinge(y, t, parameter):
    zero, short = like(y, 0.0), like(y, 1.0) - t * y
    return zero if short < zero else short


@kernel
def _hinge_derivative(y, t, parameter):
    zero, short = like(y, 0.0), like(y, 1.0) - t * y
    return -t if short > zero else zero


@kernel
def _within(p, high):
    """Clip a probability to [1e-7, high], as Keras does."""
    low = like(p, 1e-7)
    p = low if p < low else p
    return high if p > high else p


@kernel
def _kl_divergence(y, t, parameter):
    one = like(y, 1.0)
    t, p = _within(t, one), _within(y, one)
    return t * log(t / p)


@kernel
def _kl_divergence_derivative(y, t, parameter):
    one = like(y, 1.0)
    t, p = _within(t, one), _within(y, one)
    slope = -t / p
    return slope if p == y else like(y, 0.0)


@kernel
def _log1p(x):
    """Return log(1 + x), x >= 0: log of u = 1 + x rounded, and what rounding took, to first order."""
    one = like(x, 1.0)
    u = one + x
    return log(u) + (x - (u - one)) / u


@kernel
def _smoothed(t, smoothing):
    return t * (like(t, 1.0) - like(t, smoothing)) + like(t, 0.5) * like(t, smoothing)


@long_kernel
def _binary_logit(z, t, smoothing):
    zero = like(z, 0.0)
    return (z if z > zero else zero) - z * _smoothed(t, smoothing) + _log1p(exp(-abs(z)))


@kernel
def _binary_logit_derivative(z, t, smoothing):
    return sigmoid(z) - _smoothed(t, smoothing)


@kernel
def _binary(p, t, smoothing):
    one = like(p, 1.0)
    t, q = _smoothed(t, smoothing), _within(p, one - like(p, 1e-7))
    return -(t * log(q) + (one - t) * log(one - q))


@kernel
def _binary_derivative(p, t, smoothing):
    one = like(p, 1.0)
    t, q = _smoothed(t, smoothing), _within(p, one - like(p, 1e-7))
    slope = (q - t) / (q * (one - q))
    return slope if q == p else like(p, 0.0)


@kernel
def target_of(values, t, j, n, sparse, smoothing):
    """Return class j's smoothed target, from a row of class probabilities or from the class number at ``t``."""
    number = values.dtype.type
    value = values[np.uint64(t + j)]
    if sparse:
        value = number(1.0) if j == int(values[np.uint64(t)]) else number(0.0)
    return value * (number(1.0) - number(smoothing)) + number(smoothing) / number(n)


@kernel
def _categorical_crossentropy(y, t, d, smoothing, sparse, scale):
    """Compute -sum t log p, with outputs normalised to sum to 1 and clipped to [1e-7, 1 - 1e-7] for p.

    A row of zeros, as relu may put out, is not divided by its sum: it is clipped like other zeros.
    """
    number, n = y.dtype.type, y.size
    low, high = number(1e-7), number(1.0) - number(1e-7)
    total = number(0.0)
    for j in range(n):
        total += y[j]
    total = number(1.0) if total == number(0.0) else total
    loss, pull = number(0.0), number(0.0)
    for j in range(n):
        target = target_of(t, 0, j, n, sparse, smoothing)
        p = y[j] / total
        q = low if p < low else p
        q = high if q > high else q
        loss -= target * log(q)
        if q == p:
            d[j] = -target / y[j]
            pull += target
        else:
            d[j] = number(0.0)
    for j in range(n):
        d[j] = (d[j] + pull / total) * number(scale)
    return float(loss)


FORMS: dict[str, LossForm] = {
    form.name: form
    for form in [
        LossForm("mean_squared_error", MEAN_SQUARED_ERROR, _squared, _squared_derivative),
        LossForm("binary_crossentropy", CUSTOM_LOSS, _binary, _binary_derivative),
        LossForm("binary_crossentropy_from_logits", CUSTOM_LOSS, _binary_logit, _binary_logit_derivative),
        LossForm("mean_absolute_error", CUSTOM_LOSS, _absolute, _absolute_derivative),
        LossForm("huber", CUSTOM_LOSS, _huber, _huber_derivative),
        LossForm("log_cosh", CUSTOM_LOSS, _log_cosh, _log_cosh_derivative),
        LossForm("quantile", CUSTOM_LOSS, _quantile, _quantile_derivative),
        LossForm("poisson", CUSTOM_LOSS, _poisson, _poisson_derivative),
        LossForm("hinge", CUSTOM_LOSS, _hinge, _hinge_derivative),
        LossForm("kl_divergence", CUSTOM_SUM, _kl_divergence, _kl_divergence_derivative),
        LossForm("softmax_crossentropy", SOFTMAX_CROSSENTROPY),
        LossForm("categorical_crossentropy", CUSTOM_SUM, row=_categorical_crossentropy),
        LossForm("softmax_crossentropy_of_outputs", SOFTMAX_CROSSENTROPY_OF_OUTPUTS),
    ]
}
CUSTOM_FORM = LossForm("custom", CUSTOM_LOSS)
