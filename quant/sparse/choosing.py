"""The choice of each layer's form: timed on this machine, in the whole network, beside the dense one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from nbdense.quant.kernels.sparse_tiles import LANES
from nbdense.quant.layers.base import Layer
from nbdense.quant.model.network import QuantizedNetwork
from nbdense.quant.sparse.forms import DENSE, FORMS, SIZES, Form, Size, blocks_in, forms_of, kernel_of, kernels
from nbdense.quant.sparse.programs import Limits, program_of

ROWS: Mapping[Size, int] = {"few": 1, "many": 256}  # of data, in the calls for which forms are chosen
# Rows from which the forms for many are tried, while they lose nothing: a few more than whole vectors, which may cost
# as much as a vector more.
FEWER = tuple(vectors * LANES + 4 for vectors in (8, 4, 2, 1))
ROUNDS = 9  # in which the forms take turns
SECONDS = 0.002  # that a turn takes, about
GAIN = 0.95  # of the time before, below which a change of forms is worth while: the rest is noise
FILL = 0.6  # of the weights of its blocks that are not zero, from which a form is timed
MOST_FEW = LANES - 1  # rows that are ever taken one by one: fewer than a vector


class Runs(Protocol):
    """Describe what is timed."""

    def values(self, x: Any) -> Any:
        """Return the outputs of rows."""


def choose(network: QuantizedNetwork) -> tuple[dict[str, Form], Limits]:
    """Choose a form for each dense layer, for few rows and for many; and how many rows are few, and many.

    Parameters
    ----------
    network : QuantizedNetwork
        The network.
    """
    candidates = {layer.name: _candidates(layer) for layer in network.layers if forms_of(layer)}
    none = dict.fromkeys(candidates, DENSE)
    dense = _program(network, none, "many")
    picked, programs = {}, {}
    for size in SIZES:
        forms, program = _fastest(network, candidates, size)
        gains = forms != none and _ratio(program, dense, network.n_in, ROWS[size]) < GAIN
        picked[size], programs[size] = (forms, program) if gains else (none, dense)
    choice = {name: Form(form, picked["many"][name]) for name, form in picked["few"].items()}
    return choice, _limits(programs["few"], programs["many"], dense, network.n_in)


def _limits(few: Runs, many: Runs, dense: Runs, n_in: int) -> Limits:
    """Return up to how many rows a program is the fastest, and from how many on another one is."""
    if few is many:
        return Limits()
    least = ROWS["many"]
    for rows in FEWER:
        if many is not dense and _ratio(many, dense, n_in, rows) > 1 / GAIN:
            break
        least = rows
    following = many if least == FEWER[-1] else dense
    if few is following:
        return Limits(0, least)
    one, some = (np.ones((rows, n_in), np.float32) for rows in (1, MOST_FEW))
    times = timings({"few": lambda: few.values(one), "following": lambda: following.values(some)})
    most = min(MOST_FEW, max(1, int(min(times["following"]) / min(times["few"]))))
    return Limits(most, most + 1 if following is many else least)


def _fastest(network: QuantizedNetwork, candidates: Mapping[str, list[str]], size: Size) -> tuple[dict[str, str], Runs]:
    """Return a form for each layer: the first sparse ones, in place of which the others and dense are tried in turn.

    Networks are timed as a whole, since sparse layers that follow each other share their transposes.
    """
    picked = {name: forms[0] if forms else DENSE for name, forms in candidates.items()}
    now = _program(network, picked, size)
    for name, forms in candidates.items():
        for form in (*forms[1:], DENSE) if forms else ():
            other = {**picked, name: form}
            program = _program(network, other, size)
            if _ratio(program, now, network.n_in, ROWS[size]) < GAIN:
                picked, now = other, program
    return picked, now


def _program(network: QuantizedNetwork, picked: Mapping[str, str], size: Size) -> Runs:
    choice = {name: Form(form, form) for name, form in picked.items()}
    return program_of(network, kernels(network, choice, size))


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


def _ratio(new: Runs, old: Runs, n_in: int, rows: int) -> float:
    """Return the time of one program over another's.

    Of each, the least time counts: other work on the machine only adds to it.
    """
    x = np.random.default_rng(0).standard_normal((rows, n_in), np.float32)
    times = timings({"new": lambda: new.values(x), "old": lambda: old.values(x)})
    return min(times["new"]) / min(times["old"])


def timings(calls: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Time calls that take turns; returns each one's seconds a call in each of the rounds.

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
    return times


def _seconds(call: Callable[[], object], count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - started) / count
