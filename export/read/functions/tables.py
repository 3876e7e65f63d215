"""Tables of functions of quantized numbers that are rounded on the way.

onnxruntime's quantizer rounds what every node of a decomposed activation makes: silu becomes integers, their sigmoid's
integers, and the product of both. It is a function of the first integers, of which there are 256.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.activations import Activation
from nbdense.export.read.functions.fitting import ARITHMETIC, POINTS, computed, is_of_numbers, nearest
from nbdense.export.read.nodes import DequantizeNode, Format, FunctionNode, QuantizeNode
from nbdense.export.read.values import Value, between

_MOST = 64  # nodes
_AFFINE = {"Add", "Sum", "Sub", "Mul", "Div", "Neg", "Max", "Min"}  # with a constant


@dataclass(frozen=True, eq=False)
class Composition:
    """A function of integers by way of others.

    Attributes
    ----------
    source : Value
        The integers that are read.
    entries : ndarray
        The integers that are made of all that these can be, in their order.
    activation : Activation or None
        What it is without the rounding, if that is known.
    inside : list of Value
        What lies between.
    """

    source: Value
    entries: npt.NDArray[np.integer]
    activation: Activation | None
    inside: list[Value]


def compositions(integers: Iterable[Value]) -> tuple[dict[Value, Composition], set[Value]]:
    """Find the integers that are a function of others by way of integers that nothing else reads.

    Parameters
    ----------
    integers : iterable of Value
        All integers, in the order in which they are made.

    Returns
    -------
    (dict of Value to Composition, set of Value)
        What is found; and the integers on the way, which need no layer.
    """
    made: dict[Value, Composition] = {}
    absorbed: set[Value] = set()
    for value in reversed(list(integers)):
        found = None if value in absorbed else _composition(value)
        if found is not None:
            made[value] = found
            absorbed.update(part for part in found.inside if part.is_integer)
    return made, absorbed


def _composition(value: Value) -> Composition | None:
    """Return the furthest composition that makes integers, by way of others."""
    furthest, start = None, value.values[0]
    while start.dominator is not None:
        start = start.dominator
        if not start.is_integer:
            continue
        inside = between(start, value.values, _is_taken, _MOST)
        if inside is None:
            break
        rounded, odd = (any(test(part) for part in inside) for test in (lambda part: part.is_integer, _is_no_layer))
        if rounded and odd and _reads_nothing_else(inside, value):
            furthest = start, inside
    if furthest is None or not isinstance(value.node, QuantizeNode):
        return None
    source, inside = furthest
    form = None if source.integers is None else source.integers.format
    if form is None or form.dtype not in ("int8", "uint8"):
        return None
    limits = np.iinfo(form.dtype)
    integers = np.arange(limits.min, limits.max + 1)
    entries = _run([*inside, value], source, integers)
    smooth = _run(inside, source, POINTS, rounds=False)
    return Composition(source, entries.astype(value.node.format.dtype), nearest(smooth), inside)


def _reads_nothing_else(inside: list[Value], end: Value) -> bool:
    """Tell whether the integers on the way are read on the way alone."""
    read = [part for value in [*inside, end] for part in value.values]
    return all(read.count(value) == value.readers for value in inside if value.is_integer)


def _is_no_layer(value: Value) -> bool:
    """Tell whether an operator is, by itself, neither an activation nor an affine step nor a sum."""
    if len(value.values) > 1:
        return value.operator not in ("Add", "Sum")
    return value.operator in ARITHMETIC and value.operator not in _AFFINE


def _is_taken(value: Value) -> bool:
    return isinstance(value.node, QuantizeNode | DequantizeNode) or is_of_numbers(value)


def _run(values: list[Value], start: Value, points: npt.NDArray[Any], rounds: bool = True) -> npt.NDArray[Any]:
    """Compute values in order, in float32 between integers; without ``rounds`` nothing is quantized."""
    results: dict[Value, npt.NDArray[Any]] = {start: points}
    with np.errstate(all="ignore"):
        for value in values:
            arguments: list[Any] = [
                results[part] if isinstance(part, Value) else float(np.asarray(part).reshape(-1)[0])
                for part in value.inputs
            ]
            if isinstance(value.node, FunctionNode):
                made = np.asarray(computed(value.operator, arguments, value.node.attributes), np.float64)
            elif isinstance(value.node, QuantizeNode):
                made = _quantized(arguments[0], value.node.format) if rounds else arguments[0]
            else:
                made = _real(arguments[0], value.values[0]) if rounds else arguments[0]
            results[value] = made
    return results[values[-1]]


def _quantized(x: npt.NDArray[Any], form: Format) -> npt.NDArray[Any]:
    limits = np.iinfo(form.dtype)
    steps = np.rint(x.astype(np.float32) / np.float32(form.scale)).astype(np.float64)
    return np.clip(steps + form.zero, limits.min, limits.max)


def _real(x: npt.NDArray[Any], integers: Value) -> npt.NDArray[Any]:
    assert integers.integers is not None and integers.integers.format is not None
    form = integers.integers.format
    return ((x - form.zero).astype(np.float32) * np.float32(form.scale)).astype(np.float64)
