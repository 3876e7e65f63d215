"""Find the activation that a function of one number is, by its values at many points.

Those that are compiled into the program are computed by it, others by the nodes that their writers write: nothing is
compiled for the comparison.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from nbdense.activations import ACTIVATIONS, Activation, Alpha
from nbdense.export.graph.activations import ACTIVATION_FORMS, ACTIVATION_OPERATORS
from nbdense.export.graph.builder import Graph
from nbdense.export.graph.opsets import OLDEST_OPSET
from nbdense.export.graph.steps import Doubles
from nbdense.export.read.values import Value

TOLERANCE = 2e-6  # of values, and of their size where that is above 1: float32's rounding of constants
_NOISE = 1e-9
HALF_TOLERANCE = 2e-3  # where constants were float16; gelu and gelu_tanh differ by 5e-4: the nearest is taken
POINTS = np.concatenate([np.linspace(-12.0, 12.0, 252) + 0.0123, [-30.0, -20.0, 20.0, 30.0]])  # whole blocks

# What decompositions are made of, beside operators that are activations.
ARITHMETIC: dict[str, Callable[..., Any]] = {
    "Abs": np.abs,
    "Add": np.add,
    "And": np.logical_and,
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
    "Not": np.logical_not,
    "Or": np.logical_or,
    "Pow": np.power,
    "Reciprocal": lambda x: 1.0 / x,
    "ReduceMean": lambda x: x.mean(axis=-1, keepdims=True),
    "Sign": np.sign,
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
    "Sum": np.add,
    "Where": np.where,
}


def is_of_numbers(value: Value, means: bool = False) -> bool:
    """Tell whether each element of a value is computed from one of each value that is read, and constant numbers.

    Parameters
    ----------
    value : Value
        The result.
    means : bool
        Whether means over columns will do too, and constants that are a number a column.
    """
    constants = [part for part in value.inputs if isinstance(part, np.ndarray)]
    known = ACTIVATION_OPERATORS.get(value.operator)
    if value.operator not in ARITHMETIC and (known is None or known.compute is None):
        return False
    if len(constants) + len(value.values) != len(value.inputs) or (value.operator == "ReduceMean" and not means):
        return False
    return all(part.size == 1 or (means and part.size == part.shape[-1]) for part in constants)


def computed(operator: str, arguments: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    """Return what an operator makes of arrays and numbers.

    Parameters
    ----------
    operator : str
        By ONNX's name.
    arguments : sequence of ndarray and float
        Its inputs.
    attributes : mapping of str
        Its attributes.
    """
    if operator in ARITHMETIC:
        return ARITHMETIC[operator](*arguments)
    compute = ACTIVATION_OPERATORS[operator].compute
    assert compute is not None
    return compute(arguments[0], attributes)


def nearest(values: Doubles, constants: Sequence[float] = (), half: bool = False) -> Activation | None:
    """Return the activation that has these values at POINTS; None where there is none.

    Parameters
    ----------
    values : ndarray
        One for each point.
    constants : sequence of float
        Those of the operators that make them, among which there may be a parameter.
    half : bool
        Whether constants were float16.
    """
    if not np.isfinite(values).all():
        return None
    tolerance = HALF_TOLERANCE if half else TOLERANCE
    best: tuple[float, Activation] | None = None
    for row in _candidates(values, sorted({*constants, *map(abs, constants)})):
        expected = _values(row)
        away = float((np.abs(values - expected) / np.maximum(np.abs(expected), 1.0)).max())
        if away <= tolerance and (best is None or away < best[0] - _NOISE):  # of equals, the first
            best = (away, row)
    return None if best is None else best[1]


def _candidates(values: Doubles, constants: Sequence[float]) -> list[Activation]:
    """Return every elementwise activation, with the parameters that these values at POINTS speak for."""
    rows = []
    for name, form in ACTIVATION_FORMS.items():
        row = ACTIVATIONS[name]
        if not form.elementwise:
            continue
        alphas: list[Alpha | None] = [None] if form.fit is None else list(form.fit(POINTS, values, constants))
        for alpha in alphas:
            try:
                rows.append(row if alpha is None else row.with_alpha(_as_meant(alpha)))
            except ValueError:  # not of this kind, then
                continue
    return rows


def _as_meant(alpha: Alpha) -> Alpha:
    return tuple(map(_rounded, alpha)) if isinstance(alpha, tuple) else _rounded(alpha)


def _rounded(number: float) -> float:
    """Return the number of few digits that is meant where float32 has rounded it."""
    if math.isinf(number):
        return number
    short = round(number, 4)
    return short if abs(short - number) <= 1e-6 * max(abs(number), 1e-2) else number


@functools.lru_cache(maxsize=64)
def _values(row: Activation) -> Doubles:
    """Return an activation's values at POINTS."""
    if row.is_clamp:
        return np.clip(POINTS, row.lower, row.upper)
    return _written_values(row)


def _written_values(row: Activation) -> Doubles:
    """Return the values of the nodes that stand for an activation."""
    graph = Graph(OLDEST_OPSET)
    write = ACTIVATION_FORMS[row.name].write
    assert write is not None
    write(graph, row, graph.input, graph.output)
    model = graph.finish((1,), (1,), {})
    tensors: dict[str, Any] = {array.name: float(numpy_helper.to_array(array)) for array in model.graph.initializer}
    tensors[graph.input] = POINTS
    with np.errstate(all="ignore"):
        for node in model.graph.node:
            attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
            tensors[node.output[0]] = computed(node.op_type, [tensors[name] for name in node.input], attributes)
    return np.asarray(tensors[graph.output])
