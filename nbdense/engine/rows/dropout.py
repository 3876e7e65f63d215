"""Dropout: zeros for a share of the elements, the others scaled up; what each was multiplied by is kept."""

from __future__ import annotations

import numpy as np

from nbdense._compile.policy import kernel
from nbdense.engine.kernels.random import dropout_mask
from nbdense.engine.rows.activation import ACTIVATION
from nbdense.engine.rows.kind import RowKind, buffers, register

_RATE = "rate"  # the column of the share of zeros


@kernel
def _forward(row, params, work, capacity, span, aside, noise):
    m, source, pre, output = buffers(row, capacity, span)
    ld = row["ld_in"]
    dropout_mask(noise, row["number"], row[_RATE], span[0] * row["positions"], m, row["n_in"], work, pre, ld)
    s, f, t = np.uint64(source), np.uint64(pre), np.uint64(output)
    zero = work.dtype.type(0.0)
    for j in range(m * ld):  # what a zero multiplies is left out, so that dropout stops an infinity
        k = np.uint64(j)
        work[t + k] = work[s + k] * work[f + k] if work[f + k] != zero else zero


@kernel
def _backward(row, params, work, capacity, span, deltas, aside, batch):
    m, _, pre, output = buffers(row, capacity, span)
    d = deltas + output
    f, t = np.uint64(pre), np.uint64(d)
    for j in range(m * row["ld_in"]):
        k = np.uint64(j)
        work[t + k] *= work[f + k]
    return d


DROPOUT = register(
    RowKind(
        "dropout",
        "Dropout",
        settings={"rate": _RATE},
        keeps=True,
        keeps_format=True,
        inference=ACTIVATION,  # linear: a copy
        forward=_forward,
        backward=_backward,
    )
)
