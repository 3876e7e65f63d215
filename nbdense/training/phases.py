"""Tables of phases: the parts of a step, for the compiled program, for each thing that is done with a network."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.engine.rows import kind_of
from nbdense.engine.tables import (
    CLIP,
    GATHER,
    GRADIENT,
    IDLE,
    LOSS,
    PHASE,
    ROWS,
    SLABS,
    STATISTICS,
    SUMS,
    TRANSPOSES,
    UPDATE,
)

Phases = npt.NDArray[Any]


def evaluation(layers: npt.NDArray[Any]) -> Phases:
    """Return the phases of an evaluation: gather, forward and loss, of the table for inference."""
    return _table([(ROWS, GATHER | LOSS, 0, len(layers), 0, 0)])


def forward(layers: npt.NDArray[Any]) -> Phases:
    """Return the phases of a forward pass; outputs and what backward needs stay in the workspace."""
    return _table(_forward(layers, 0))


def backward(layers: npt.NDArray[Any]) -> Phases:
    """Return the phases of a backward pass, from deltas that are there already to the gradients."""
    return _table([(TRANSPOSES, 0, 0, 0, 0, 0), *_backward(layers, len(layers)), (SLABS, GRADIENT, 0, 0, 0, 0)])


def update(clipped: bool = False) -> Phases:
    """Return the phases of an optimizer's step on gradients that are there already; ``clipped`` as for `training`."""
    return _table(_update(0, clipped))


def training(layers: npt.NDArray[Any], clipped: bool = False, updates: bool = True) -> Phases:
    """Return the phases of a whole training step.

    Parameters
    ----------
    layers : structured array of `LAYER`
        The table for training.
    clipped : bool
        Whether gradients are clipped by a norm, which needs all of them before the first step is taken.
    updates : bool
        Whether there is a step; else gradients are left as they are.
    """
    ahead = _forward(layers, LOSS)
    # The last region goes back as far as it may without another pair of regions.
    kind, flags, begin, end, _, _ = ahead[-1]
    stop = _norms(layers)[-1:] or [-1]
    ahead[-1] = (kind, flags, begin, end, stop[0] + 1, len(layers))
    phases = [(TRANSPOSES, 0, 0, 0, 0, 0), *ahead, *_backward(layers, stop[0] + 1)]
    phases += _update(GRADIENT, clipped) if updates else [(SLABS, GRADIENT, 0, 0, 0, 0)]
    return _table(phases)


def _update(flags: int, clipped: bool) -> list[tuple[int, ...]]:
    """Return the phases of the optimizer's step, behind the work of ``flags`` in the same pass over the slabs."""
    if clipped:
        return [(SLABS, flags | CLIP, 0, 0, 0, 0), (SLABS, UPDATE, 0, 0, 0, 0)]
    return [(SLABS, flags | CLIP | UPDATE, 0, 0, 0, 0)]


def _norms(layers: npt.NDArray[Any]) -> list[int]:
    """Return the rows that need statistics of the whole batch."""
    return [i for i, row in enumerate(layers) if kind_of(row).statistics is not None]


def _forward(layers: npt.NDArray[Any], last_flags: int) -> list[tuple[int, ...]]:
    bounds = [0, *_norms(layers), len(layers)]
    phases: list[tuple[int, ...]] = []
    for number, (begin, end) in enumerate(itertools.pairwise(bounds)):
        flags = (GATHER if number == 0 else 0) | (last_flags if end == len(layers) else 0)
        if number > 0:
            phases.append((STATISTICS, 0, begin, 0, 0, 0))
        phases.append((ROWS, flags, begin, end, 0, 0))
    return phases


def _backward(layers: npt.NDArray[Any], end: int) -> list[tuple[int, ...]]:
    """Return the phases that go back through rows before ``end``, behind which everything is done."""
    phases: list[tuple[int, ...]] = []
    norms = [i for i in _norms(layers) if i < end and not layers[i]["flags"] & IDLE]
    cuts = [end, *reversed(norms)]
    for number, cut in enumerate(cuts):
        below = cuts[number + 1] + 1 if number + 1 < len(cuts) else 0
        above = cut
        if number > 0:
            phases.append((SUMS, 0, cut, 0, 0, 0))
            above = cut + 1
        if above > below:
            phases.append((ROWS, 0, 0, 0, below, above))
    return phases


def _table(phases: list[tuple[int, ...]]) -> Phases:
    return np.array(phases, PHASE)
