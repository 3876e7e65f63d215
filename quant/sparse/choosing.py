"""The choice of each layer's form: timed on this machine, one layer at a time, beside the dense one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from nbdense.quant.kernels.sparse_formats import SparseKernels
from nbdense.quant.layers.base import Layer
from nbdense.quant.model.network import QuantizedNetwork
from nbdense.quant.model.program import Program
from nbdense.quant.sparse.forms import DENSE, FORMS, SIZES, Form, Size, blocks_in, forms_of, kernel_of
from nbdense.quant.sparse.programs import FEW, SparsePrograms, program_of

# Rows of data in the calls that are timed. A form has to be faster for all of them: a few rows more than a whole
# number of vectors cost as much as a vector more.
ROWS: Mapping[Size, tuple[int, ...]] = {"few": (1,), "many": (20, 256)}
ROUNDS = 9  # in which the forms take turns
SECONDS = 0.002  # that a turn takes, about
GAIN = 0.95  # of the dense layer's time, below which a sparse form is worth while: the rest is noise
FILL = 0.6  # of the weights of its blocks that are not zero, from which a form is timed
MOST_FEW = 15  # rows a call, that are ever taken one by one: fewer than a vector


class Runs(Protocol):
    """Describe what is timed."""

    def values(self, x: Any) -> Any:
        """Return the outputs of rows."""


def choose(network: QuantizedNetwork) -> tuple[dict[str, Form], int]:
    """Choose a form for each dense layer, for few rows and for many; and how many rows are few.

    Parameters
    ----------
    network : QuantizedNetwork
        The network.
    """
    picked: dict[Size, dict[str, str]] = {size: {} for size in SIZES}
    for layer in network.layers:
        if forms_of(layer):
            candidates = _candidates(layer)
            for size in SIZES:
                picked[size][layer.name] = _fastest(network, layer, candidates, size)
    choice = {name: Form(few, picked["many"][name]) for name, few in picked["few"].items()}
    return _if_faster(network, choice)


def _if_faster(network: QuantizedNetwork, choice: dict[str, Form]) -> tuple[dict[str, Form], int]:
    """Return the choice, dense for sizes of batches at which all layers together gain nothing; and how many are few."""
    if all(form == Form(DENSE, DENSE) for form in choice.values()):
        return choice, FEW
    sparse, dense = SparsePrograms(network, choice), program_of(network, SparseKernels({}, False))
    keeps = {
        size: any(form.of(size) != DENSE for form in choice.values())
        and _gain(sparse.few if size == "few" else sparse.many, dense, network.n_in, ROWS[size]) < 1
        for size in SIZES
    }
    kept = {
        name: Form(form.few if keeps["few"] else DENSE, form.many if keeps["many"] else DENSE)
        for name, form in choice.items()
    }
    if not keeps["few"] and not keeps["many"]:
        return kept, FEW
    made = SparsePrograms(network, kept)
    one, some = (np.ones((rows, network.n_in), np.float32) for rows in (1, MOST_FEW))
    times = medians({"few": lambda: made.few.values(one), "many": lambda: made.many.values(some)})
    return kept, min(MOST_FEW, max(1, int(times["many"] / times["few"])))


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
    """Return the form that takes the least time, if that is less than the dense layer's by more than noise."""
    if not candidates:
        return DENSE
    alone = QuantizedNetwork([layer.replaced(inputs=None)], network.activation_dtype, network.rounding)
    dense, gains = Program(alone), {}
    for form in candidates:
        program = Program(alone, SparseKernels({0: blocks_in(layer, form)}, size == "few"))
        gains[form] = _gain(program, dense, alone.n_in, ROWS[size])
    best = min(candidates, key=gains.__getitem__)
    return best if gains[best] < GAIN else DENSE


def _gain(sparse: Runs, dense: Runs, n_in: int, rows: tuple[int, ...]) -> float:
    """Return the time of what is sparse over that of what is dense, at the worst number of rows."""
    worst = 0.0
    for count in rows:
        x = np.random.default_rng(0).standard_normal((count, n_in), np.float32)
        times = medians({"sparse": lambda x=x: sparse.values(x), DENSE: lambda x=x: dense.values(x)})  # type: ignore[misc]
        worst = max(worst, times["sparse"] / times[DENSE])
    return worst


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
        once = min(_seconds(call, 1) for _ in range(3))
        counts[name] = max(1, math.ceil(SECONDS / max(1e-7, once)))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            times[name].append(_seconds(call, counts[name]))
    return {name: float(np.median(seconds)) for name, seconds in times.items()}


def _seconds(call: Callable[[], object], count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - started) / count
