"""A network's steps, which a quantizer works on: its rows, with normalisations folded in and activations merged.

A step becomes one layer of the quantized network. It names the tensors that it reads as that does: 0 is the input,
i + 1 the output of step i.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from nbdense.engine.rows import ACTIVATION, ADD, DENSE, FROZEN_NORM, rows_of
from nbdense.network import Network, Row, folding, held_network
from nbdense.quant.calibration.calibration import Ranges
from nbdense.quant.layers.activations import is_clamp
from nbdense.quant.layers.base import Range
from nbdense.quant.schemes.scheme import Step

_NO_RANGES = (0.0, 0.0)


def source_of(model: Any) -> Any:
    """Return the network of a model that is to be quantized, without the batch normalisations that can be folded.

    One that reads the model's input stays: its columns have scales of their own, and an integer tensor has one.

    Parameters
    ----------
    model : Sequential or Network
        The float model.
    """
    network = held_network(model)
    if network is model or not isinstance(network, Network) or not rows_of(network.inference, FROZEN_NORM).size:
        return network
    return model.fold_batch_normalization(at_input=False).network


def plan(network: Network, ranges: Ranges | None = None, *, settled: bool = False) -> list[Step]:
    """Return the steps of a network.

    Parameters
    ----------
    network : Network
        The float network.
    ranges : Ranges, optional
        Ranges of its rows; without, those of steps mean nothing.
    settled : bool
        Whether training has rounded sums before the clamps behind them: then these are steps of their own.

    Raises
    ------
    ValueError
        If a weight is not finite; the layer is named.
    """
    rows = list(network.rows())
    readers: dict[int, int] = {}
    for row in rows:
        for source in folding.reads(row):
            readers[source] = readers.get(source, 0) + 1
    steps: list[Step] = []
    tensor_of = {0: 0}
    for row in rows:
        for part, value in row.tensors.items():
            if not np.isfinite(value).all():
                raise ValueError(f"{row.label}: its weights are not all finite ({part})")
        pre, output = (ranges.pre[row.index], ranges.output[row.index]) if ranges else (_NO_RANGES, _NO_RANGES)
        tensor = tensor_of[row.input]
        previous = steps[tensor - 1] if tensor > 0 else None
        if previous is not None and _is_copy(row):
            tensor_of[row.output] = tensor
            previous.last = row.index
        elif previous is not None and readers[row.input] == 1 and _merge(previous, row, pre, output, settled):
            tensor_of[row.output] = tensor
        else:
            steps.append(Step(row, tuple(tensor_of[source] for source in folding.reads(row)), pre, output, row.index))
            tensor_of[row.output] = len(steps)
    return steps


def _is_copy(row: Row) -> bool:
    return row.kind is ACTIVATION and row.activation.name == "linear"


def _merge(step: Step, row: Row, pre: Range, output: Range, settled: bool) -> bool:
    """Work a row into the step before it, where that can be; returns whether it could."""
    linear = step.row.activation.name == "linear"
    if row.kind is FROZEN_NORM and step.row.kind is DENSE and linear:
        step.row = folding.into_row_before(step.row, row)
        step.pre = step.output = output
    elif row.kind is ACTIVATION and linear and (step.row.kind is DENSE or (not settled and _takes(step, row))):
        step.row = dataclasses.replace(step.row, activation=row.activation)
        step.pre, step.output = (pre if not is_clamp(row.activation) else output), output
    else:
        return False
    step.last = row.index
    return True


def _takes(step: Step, row: Row) -> bool:
    return step.row.kind is ADD and is_clamp(row.activation)
