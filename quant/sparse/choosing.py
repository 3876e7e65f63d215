"""The choice of each layer's form: timed on this machine, one layer at a time, beside the dense one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

from nbdense.quant.kernels.sparse_formats import SparseKernels
from nbdense.quant.layers.base import Layer
from nbdense.quant.model.network import QuantizedNetwork
from nbdense.quant.model.program import Program
from nbdense.quant.sparse.forms import DENSE, FORMS, SIZES, Form, Size, blocks_in, forms_of, kernel_of

ROWS: Mapping[Size, int] = {"few": 1, "many": 256}  # of data, in the calls that are timed
ROUNDS = 9  # in which the forms take turns
SECONDS = 0.002  # that a turn takes, about
GAIN = 0.95  # of the dense layer's time, below which a sparse form is worth while: the rest is noise
FILL = 0.6  # of the weights of its blocks that are not zero, from which a form is timed


def choose(network: QuantizedNetwork) -> dict[str, Form]:
    """Choose a form for each dense layer, for few rows and for many.

    Parameters
    ----------
    network : QuantizedNetwork
        The network.
    """
    choice = {}
    for layer in network.layers:
        if forms_of(layer):
            candidates = _candidates(layer)
            few, many = (_fastest(network, layer, candidates, size) for size in SIZES)
            choice[layer.name] = Form(few, many)
    return choice


def _candidates(layer: Layer) -> list[str]:
    """Return the sparse forms that may be worth while: of those whose blocks are full, the largest, and single weights.

    A kernel of integers has one form, in which blocks may be sparse themselves.
    """
    kernel = kernel_of(layer)
    there = int(np.count_nonzero(kernel))
    if there == kernel.size:
        return []
    sizes = {form: blocks_in(layer, form).values.size for form in forms_of(layer)}
    if len(sizes) == 1:
        return [form for form, size in sizes.items() if size < kernel.size]
    full = [form for form, size in sizes.items() if there >= FILL * size]
    largest = max(full, key=lambda form: FORMS[form][1])
    return sorted({largest, min(sizes, key=lambda form: FORMS[form][1])})


def _fastest(network: QuantizedNetwork, layer: Layer, candidates: list[str], size: Size) -> str:
    """Return the form whose median time is the least, and less than the dense layer's by more than noise."""
    if not candidates:
        return DENSE
    alone = QuantizedNetwork([layer.replaced(inputs=None)], network.activation_dtype, network.rounding)
    programs = {DENSE: Program(alone)}
    for form in candidates:
        programs[form] = Program(alone, SparseKernels({0: blocks_in(layer, form)}, size == "few"))
    x = np.random.default_rng(0).standard_normal((ROWS[size], alone.n_in), np.float32)
    times = medians({form: (lambda program=program: program.values(x)) for form, program in programs.items()})
    best = min(candidates, key=times.__getitem__)
    return best if times[best] < GAIN * times[DENSE] else DENSE


def medians(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Time calls that take turns; returns each one's median, in seconds.

    Parameters
    ----------
    calls : mapping of str to callable
        The calls, by name.
    """
    counts, times = {}, {name: list[float]() for name in calls}
    for name, call in calls.items():
        call()  # compiles
        counts[name] = max(1, round(SECONDS / max(1e-7, min(_seconds(call, 1) for _ in range(3)))))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            times[name].append(_seconds(call, counts[name]))
    return {name: float(np.median(seconds)) for name, seconds in times.items()}


def _seconds(call: Callable[[], object], count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - started) / count
