"""Operators as activations, and what several of them make together: decomposed activations and normalisations.

A decomposition of an activation is not looked up by its form, of which every exporter has its own: what elementwise
operators with scalar constants make of one tensor is a function of one number, and it is compared, value by value, with
the activations that there are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nbdense.activations import ACTIVATIONS, Activation
from nbdense.engine.tables import LAYER
from nbdense.export.graph.activations import ACTIVATION_FORMS, ACTIVATION_OPERATORS
from nbdense.export.graph.steps import Doubles, FunctionStep, LayerStep, Step, affine, clip
from nbdense.export.read.nodes import FunctionNode
from nbdense.export.read.values import Value
from nbdense.layers import FORMS, RowForm
from nbdense.layers.forms import number_of
from nbdense.quant.kernels.activations import evaluate

MOST_OPERATORS = 24  # in one decomposition; torch's of gelu_tanh has 8
TOLERANCE = 2e-6  # of values, and of their size where that is above 1: float32's rounding of constants
HALF_TOLERANCE = 2e-3  # where constants were float16; gelu and gelu_tanh differ by 5e-4: the nearest is taken
WIDEST_FIT = 2**16  # columns
_POINTS = np.concatenate([np.linspace(-12.0, 12.0, 252) + 0.0123, [-30.0, -20.0, 20.0, 30.0]])  # whole blocks

# What decompositions are made of, beside operators that are activations.
_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "Abs": np.abs,
    "Add": np.add,
    "Div": np.divide,
    "Erf": np.vectorize(math.erf, otypes=[np.float64]),
    "Exp": np.exp,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Log": np.log,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Pow": np.power,
    "Reciprocal": lambda x: 1.0 / x,
    "ReduceMean": lambda x: x.mean(axis=-1, keepdims=True),
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
    "Sum": np.add,
    "Where": np.where,
}


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
    "Neg": lambda value: [affine(scale=-1.0)],
}


def affine_of(value: Value) -> tuple[list[Step], Value] | None:
    """Return the step of a sum, difference, product or quotient with a constant, and the value that it reads.

    Parameters
    ----------
    value : Value
        The result.
    """
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
            values, tolerance = _evaluate(inside, start), HALF_TOLERANCE if half else TOLERANCE
            activation = _nearest(values, tolerance)
            if activation is not None:
                return [FunctionStep(activation)], start
            bounds = _bounds(values, tolerance)
            if bounds is not None:
                return clip(*bounds), start
        start = start.dominator
    return None


def _between(start: Value, end: Value, means: bool = False) -> list[Value] | None:
    """Return the values behind ``start`` up to ``end``, in order; None where one is not of numbers alone.

    With ``means``: of numbers, a number a column, and means over the columns.
    """
    ordered: dict[Value, None] = {}
    stack = [(end, False)]
    while stack:
        value, leaving = stack.pop()
        if leaving:
            ordered[value] = None
            continue
        if value is start or value in ordered:
            continue
        constants = [part for part in value.inputs if isinstance(part, np.ndarray)]
        numbers = all(part.size == 1 or (means and part.size == part.shape[-1]) for part in constants)
        known = _is_computed(value.operator) and (means or value.operator != "ReduceMean")
        if not known or not numbers or len(constants) + len(value.values) != len(value.inputs):
            return None
        if len(ordered) + len(stack) > 3 * MOST_OPERATORS:
            return None
        stack.append((value, True))
        stack.extend((part, False) for part in value.values)
    return list(ordered) if len(ordered) <= MOST_OPERATORS else None


def _evaluate(inside: list[Value], start: Value, points: Doubles = _POINTS) -> Doubles:
    results: dict[Value, Doubles] = {start: points}
    with np.errstate(all="ignore"):
        for value in inside:
            arguments = [results[part] if isinstance(part, Value) else _numbers(part) for part in value.inputs]
            if value.operator in _ARITHMETIC:
                results[value] = _ARITHMETIC[value.operator](*arguments)
            else:
                compute = ACTIVATION_OPERATORS[value.operator].compute
                assert compute is not None and isinstance(value.node, FunctionNode)
                results[value] = compute(arguments[0], value.node.attributes)
    return results[inside[-1]]


def _is_computed(operator: str) -> bool:
    known = ACTIVATION_OPERATORS.get(operator)
    return operator in _ARITHMETIC or (known is not None and known.compute is not None)


def _numbers(part: Any) -> Any:
    array = np.asarray(part, np.float64).reshape(-1)
    return array if array.size > 1 else float(array[0])


def _nearest(values: Doubles, tolerance: float) -> Activation | None:
    """Return the activation with these values at _POINTS."""
    if not np.isfinite(values).all():
        return None
    best: tuple[float, Activation] | None = None
    for row in _candidates(values):
        expected = _values(row.name, row.alpha)
        away = float((np.abs(values - expected) / np.maximum(np.abs(expected), 1.0)).max())
        if away <= tolerance and (best is None or away < best[0]):
            best = (away, row)
    return None if best is None else best[1]


def _bounds(values: Doubles, tolerance: float) -> tuple[float, float] | None:
    """Return the two numbers to which these values clamp _POINTS; None where they do otherwise."""
    least, most = _rounded(float(values.min())), _rounded(float(values.max()))
    if not (least < most) or (least <= _POINTS.min() and most >= _POINTS.max()):
        return None
    if (np.abs(np.clip(_POINTS, least, most) - values) > tolerance * np.maximum(np.abs(values), 1.0)).any():
        return None
    return least if least > _POINTS.min() else -math.inf, most if most < _POINTS.max() else math.inf


def _candidates(values: Doubles) -> list[Activation]:
    """Return every elementwise activation, with the parameter that these values at _POINTS speak for."""
    rows = []
    for name, form in ACTIVATION_FORMS.items():
        row = ACTIVATIONS[name]
        if not form.elementwise:
            continue
        try:
            rows.append(row if form.fit is None else row.with_alpha(_rounded(form.fit(_POINTS, values))))
        except ValueError:  # not of this kind, then
            continue
    return rows


def _rounded(number: float) -> float:
    """Return the number of few digits that is meant where float32 has rounded it."""
    short = round(number, 4)
    return short if abs(short - number) <= 1e-6 * max(abs(number), 1e-2) else number


@functools.lru_cache(maxsize=64)
def _values(name: str, alpha: float) -> Doubles:
    """Return an activation's values at _POINTS, by the engine's own function."""
    row = ACTIVATIONS[name]
    if row.forward is None:
        return np.clip(_POINTS, row.lower, alpha if row.least != math.inf else row.upper)
    values, layer = _POINTS.copy(), np.zeros(1, LAYER)
    layer["n_out"] = layer["ld_out"] = values.size
    layer["activation"], layer["alpha"], layer["lower"], layer["upper"] = row.code, alpha, row.lower, row.upper
    evaluate(layer, values)
    return values


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
