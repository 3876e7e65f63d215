"""Losses and metrics of a batch's rows, and the deltas that the losses start.

Each function takes one row: outputs ``y``, targets ``t``, delta ``d`` (in the engine's dtype, padded to whole
blocks) and writes the derivative of the row's loss into ``d``, times ``scale`` (its weight over the batch size).
"""

from __future__ import annotations

from nbdense._jit import kernel, switch
from nbdense.engine.activation import softmax_row
from nbdense.engine.elementary import like, log
from nbdense.losses import CATEGORICAL_CROSSENTROPY, FORMS, SOFTMAX_CROSSENTROPY

_ELEMENTWISE = [form for form in FORMS.values() if form.value is not None]
globals().update({f"_value_{form.name}": form.value for form in _ELEMENTWISE})
globals().update({f"_slope_{form.name}": form.derivative for form in _ELEMENTWISE})

_value = switch(
    "_value",
    {form.code: f"_value_{form.name}" for form in _ELEMENTWISE},
    "y, t, n, parameter",
    """
total = 0.0
for j in range(n):
    total += {f}(y[j], t[j], parameter)
return total / n
""",
    globals(),
    "return 0.0",
)

_slope = switch(
    "_slope",
    {form.code: f"_slope_{form.name}" for form in _ELEMENTWISE},
    "y, t, d, n, parameter, scale",
    """
for j in range(n):
    d[j] = {f}(y[j], t[j], parameter) * scale
""",
    globals(),
)


@kernel
def _target(t, j, n, sparse, smoothing):
    """Class j's target: from a one-hot or probability row, or from the class number in t[0]; smoothed."""
    one = like(t[0], 1.0)
    value = t[j]
    if sparse:
        value = one if j == int(t[0]) else like(one, 0.0)
    return value * (one - like(one, smoothing)) + like(one, smoothing) / like(one, n)


@kernel
def _softmax_crossentropy(y, t, d, n, sparse, smoothing, scale):
    """From logits: log-sum-exp - sum t z. Leaves softmax(y) in y."""
    loss = 0.0
    weight = like(y[0], 0.0)
    largest = y[0]
    for j in range(1, n):
        if y[j] > largest:
            largest = y[j]
    if sparse and smoothing == 0.0:
        loss = -float(y[int(t[0])] - largest)
        _, total = softmax_row(y, n)
        for j in range(n):
            d[j] = y[j] * scale
        d[int(t[0])] -= scale
        return loss + log(total)
    for j in range(n):
        target = _target(t, j, n, sparse, smoothing)
        weight += target
        if target != like(target, 0.0):
            loss -= target * (y[j] - largest)
    _, total = softmax_row(y, n)
    for j in range(n):
        d[j] = (y[j] * weight - _target(t, j, n, sparse, smoothing)) * scale
    return loss + weight * log(total)


@kernel
def _categorical_crossentropy(y, t, d, n, sparse, smoothing, scale):
    """From outputs that are taken for probabilities: normalised to sum to 1, clipped to [1e-7, 1 - 1e-7]."""
    low, one = like(y[0], 1e-7), like(y[0], 1.0)
    total = like(one, 0.0)
    for j in range(n):
        total += y[j]
    loss, pull = 0.0, like(one, 0.0)
    for j in range(n):
        target = _target(t, j, n, sparse, smoothing)
        p = y[j] / total
        q = low if p < low else p
        q = one - low if q > one - low else q
        loss -= target * log(q)
        if q == p:
            d[j] = -target / y[j]
            pull += target
        else:
            d[j] = like(one, 0.0)
    for j in range(n):
        d[j] = (d[j] + pull / total) * scale
    return loss


@kernel
def loss_of_row(code, parameter, sparse, y, t, d, n, scale):
    """The row's loss; its derivative goes to ``d``. Softmax cross-entropy turns logits in ``y`` into probabilities."""
    if code == SOFTMAX_CROSSENTROPY:
        return float(_softmax_crossentropy(y, t, d, n, sparse, parameter, scale))
    if code == CATEGORICAL_CROSSENTROPY:
        return float(_categorical_crossentropy(y, t, d, n, sparse, parameter, scale))
    value = _value(code, y, t, n, parameter)
    _slope(code, y, t, d, n, parameter, scale)
    return float(value)


# Metrics that are a mean over rows; their codes are in nbdense.metrics.
BINARY_ACCURACY, CATEGORICAL_ACCURACY, SPARSE_CATEGORICAL_ACCURACY, SQUARED_ERROR, ABSOLUTE_ERROR = range(5)


@kernel
def _largest(y, n):
    best = 0
    for j in range(1, n):
        if y[j] > y[best]:
            best = j
    return best


@kernel
def metric_of_row(code, y, t, n):
    """One metric of one row's outputs and targets."""
    if code == CATEGORICAL_ACCURACY:
        return 1.0 if _largest(y, n) == _largest(t, n) else 0.0
    if code == SPARSE_CATEGORICAL_ACCURACY:
        return 1.0 if _largest(y, n) == int(t[0]) else 0.0
    total = 0.0
    for j in range(n):
        error = float(y[j] - t[j])
        if code == BINARY_ACCURACY:
            total += 1.0 if (y[j] > 0.5) == (t[j] > 0.5) else 0.0
        elif code == SQUARED_ERROR:
            total += error * error
        else:
            total += abs(error)
    return total / n
