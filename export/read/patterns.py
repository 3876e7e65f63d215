"""Operators as activations, and what several of them make together: decomposed activations and normalisations.

A decomposition of an activation is not looked up by its form, of which every exporter has its own: what elementwise
operators with scalar constants make of one tensor is a function of one number, and it is compared, value by value, with
the activations that there are (`nbdense.export.read.functions.fitting`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nbdense.export.graph.activations import ACTIVATION_OPERATORS
from nbdense.export.graph.steps import Doubles, FunctionStep, LayerStep, Step, affine, clip
from nbdense.export.read.functions.fitting import POINTS, computed, is_of_numbers, nearest
from nbdense.export.read.nodes import FunctionNode
from nbdense.export.read.values import Value, between
from nbdense.layers import FORMS, RowForm
from nbdense.layers.forms import number_of

MOST_OPERATORS = 24  # in one decomposition; torch's of gelu_tanh has 8
WIDEST_FIT = 2**16  # columns


def _bound(value: Value) -> list[Step]:
    """Return the clamp of a Max or Min with one number."""
    bounds = [array for array in value.inputs if not isinstance(array, Value)]
    if len(bounds) != 1 or bounds[0] is None or bounds[0].size != 1:
        raise ValueError(f"a {value.operator} must be taken with one constant number")
    number = float(bounds[0].reshape(-1)[0])
    return clip(number, math.inf) if value.operator == "Max" else clip(-math.inf, number)


def _activation(value: Value) -> list[Step]:
    """Read an operator that is an activation."""
    assert isinstance(value.node, FunctionNode)
    constants = [None if isinstance(part, Value) else part for part in value.inputs]
    return ACTIVATION_OPERATORS[value.operator].read(value.node.attributes, constants)


# Operators of one tensor and numbers, as steps of a value.
FUNCTIONS: dict[str, Callable[[Value], list[Step]]] = {
    **dict.fromkeys(ACTIVATION_OPERATORS, _activation),
    "Max": _bound,
    "Min": _bound,
}


def affine_of(value: Value) -> tuple[list[Step], Value] | None:
    """Return the step of a negation, or of arithmetic with a constant, and the value that it reads.

    Parameters
    ----------
    value : Value
        The result.
    """
    if value.operator == "Neg":
        return [affine(scale=-1.0)], value.values[0]
    if value.operator not in ("Add", "Sub", "Mul", "Div", "Sum") or len(value.values) != 1:
        return None
    if value.shape != value.values[0].shape:
        return None
    first = isinstance(value.inputs[0], Value)
    array = np.asarray(value.inputs[1 if first else 0], np.float64)
    with np.errstate(all="ignore"):
        if value.operator in ("Add", "Sum"):
            step = affine(mean=-array)
        elif value.operator == "Mul":
            step = affine(scale=array)
        elif value.operator == "Sub":
            step = affine(mean=array, scale=1.0 if first else -1.0)
        elif first:
            step = affine(scale=1.0 / array)
        else:
            return None
    step.place = value.place
    return [step], value.values[0]


def recognise(value: Value, half: bool = False) -> tuple[list[Step], Value] | None:
    """Return the activation that several operators make together, and the value that it reads.

    Parameters
    ----------
    value : Value
        The result.
    half : bool
        Whether constants were float16.
    """
    start = value.dominator
    while start is not None:
        inside = _between(start, value)
        if inside is None:
            return None
        if len(inside) > 1:
            constants = [number_of(part) for each in inside for part in each.inputs if not isinstance(part, Value)]
            values = _evaluate(inside, start, POINTS)
            activation = nearest(values, [c for c in constants if c is not None], half)
            if activation is not None:
                return [FunctionStep(activation)], start
        start = start.dominator
    return None


def _between(start: Value, end: Value, means: bool = False) -> list[Value] | None:
    """Return the operators behind ``start`` up to ``end``, in order; None where one is no function of numbers."""
    inside = between(start, [end], lambda value: is_of_numbers(value, means), 3 * MOST_OPERATORS)
    return inside if inside is not None and len(inside) <= MOST_OPERATORS else None


def _evaluate(inside: list[Value], start: Value, points: Doubles) -> Doubles:
    results: dict[Value, Doubles] = {start: points}
    with np.errstate(all="ignore"):
        for value in inside:
            arguments = [results[part] if isinstance(part, Value) else _numbers(part) for part in value.inputs]
            assert isinstance(value.node, FunctionNode)
            results[value] = computed(value.operator, arguments, value.node.attributes)
    return results[inside[-1]]


def _numbers(part: Any) -> Any:
    array = np.asarray(part, np.float64).reshape(-1)
    return array if array.size > 1 else float(array[0])


def composed(value: Value) -> tuple[list[Step], Value] | None:
    """Return the layer that core operators make in a form that its form of rows knows, and the value that it reads.

    Parameters
    ----------
    value : Value
        The result.
    """
    for form in FORMS.values():
        known = None if form.composed is None else form.composed(value)
        if known is not None:
            settings, source = known
            return [LayerStep(form, source.shape[-1], {}, settings)], source
    return None


def fitted(value: Value) -> tuple[list[Step], Value] | None:
    """Return the layer that operators make in any other way, and the value that it reads.

    What they make of random rows is compared with what such a layer of the same epsilon makes of them.

    Parameters
    ----------
    value : Value
        The result.
    """
    if value.operator not in ("Add", "Sub", "Mul", "Div", "Sum"):
        return None
    for form in FORMS.values():
        known = None if form.fitted is None else _fitted(form, value)
        if known is not None:
            return known
    return None


def _fitted(form: RowForm, value: Value) -> tuple[list[Step], Value] | None:
    start, inside = value.dominator, list[Value]()
    while start is not None and sum(part.operator == "ReduceMean" for part in inside) < form.means:
        if inside:
            start = start.dominator
        found_inside = None if start is None else _between(start, value, means=True)
        if found_inside is None:
            return None
        inside = found_inside
    epsilon = next((number for number in map(_epsilon, inside) if number), None)
    width = start.shape[-1] if start is not None and start.shape else 0
    if start is None or start.shape != value.shape or epsilon is None or not 2 <= width <= WIDEST_FIT:
        return None
    rows = np.random.default_rng(0).standard_normal((8, width)) * np.geomspace(0.1, 10.0, 8)[:, None] + 0.5
    assert form.fitted is not None
    tensors = form.fitted(rows, np.broadcast_to(_evaluate(inside, start, rows), rows.shape), epsilon)
    return None if tensors is None else ([LayerStep(form, width, tensors, {"epsilon": epsilon})], start)


def _epsilon(root: Value) -> float | None:
    """Return the number that is added to a mean before its root is taken."""
    if root.operator != "Sqrt" and not (root.operator == "Pow" and abs(number_of(root.inputs[1]) or 0.0) == 0.5):
        return None
    raised = root.values[0]
    if raised.operator not in ("Add", "Sum") or len(raised.values) != 1 or raised.values[0].operator != "ReduceMean":
        return None
    return number_of(next(part for part in raised.inputs if not isinstance(part, Value)))
