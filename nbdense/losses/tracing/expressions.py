"""Expressions of a row's outputs and targets: numbers of columns or of the whole row, and what can be done to them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Slope = Callable[..., Any]  # of the parts and the result: an expression, or a number


@dataclass(frozen=True, eq=False)
class Expression:
    """A number of each column (``wide``) or of the row, as a function of others.

    Attributes
    ----------
    operation : str
        A row of `OPERATIONS` or `REDUCTIONS`, or a leaf: "output", "target", "hot", "count" or "number".
    parts : tuple of Expression
        What it is a function of.
    wide : bool
        Whether each column has one.
    learns : bool
        Whether it depends on the outputs.
    value : float
        Of a "number".
    """

    operation: str
    parts: tuple[Expression, ...] = ()
    wide: bool = False
    learns: bool = False
    value: float = 0.0

    def __neg__(self) -> Expression:
        return apply("negative", self)

    def __add__(self, other: Any) -> Expression:
        return apply("add", self, other)

    def __sub__(self, other: Any) -> Expression:
        return apply("subtract", self, other)

    def __mul__(self, other: Any) -> Expression:
        return apply("multiply", self, other)

    def __truediv__(self, other: Any) -> Expression:
        return apply("divide", self, other)

    def __radd__(self, other: Any) -> Expression:
        return apply("add", other, self)

    def __rsub__(self, other: Any) -> Expression:
        return apply("subtract", other, self)

    def __rmul__(self, other: Any) -> Expression:
        return apply("multiply", other, self)

    def __rtruediv__(self, other: Any) -> Expression:
        return apply("divide", other, self)


OUTPUT = Expression("output", wide=True, learns=True)
TARGET = Expression("target", wide=True)
HOT = Expression("hot", wide=True)  # 1 in the column of the target, a class number
COUNT = Expression("count")  # of columns


@dataclass(frozen=True)
class Operation:
    """A function of numbers: its code, in which numbers in braces stand for its parts, and its partial derivatives.

    A comparison gives 1 or 0. Names in the code are those of `nbdense._compile.loops.row_loop`. No slope is 0.
    """

    code: str
    slopes: tuple[Slope | None, ...]


def _flat(code: str, parts: int = 2) -> Operation:
    return Operation(f"number({code})", (None,) * parts)


def _side(chosen: str) -> tuple[Slope, Slope]:
    """Slopes of the larger (or smaller) of two: 1 for the one that it is, and 0 for both where they are equal."""
    return (lambda a, b, y: apply(chosen, a, b)), (lambda a, b, y: apply(chosen, b, a))


OPERATIONS: dict[str, Operation] = {
    "add": Operation("{0} + {1}", (lambda a, b, y: 1.0, lambda a, b, y: 1.0)),
    "subtract": Operation("{0} - {1}", (lambda a, b, y: 1.0, lambda a, b, y: -1.0)),
    "multiply": Operation("{0} * {1}", (lambda a, b, y: b, lambda a, b, y: a)),
    "divide": Operation("{0} / {1}", (lambda a, b, y: 1.0 / b, lambda a, b, y: -y / b)),
    "power": Operation(
        "{0} ** {1}", (lambda a, b, y: b * power(a, b - 1.0), lambda a, b, y: y * apply("log", a))
    ),
    "negative": Operation("-{0}", (lambda x, y: -1.0,)),
    "absolute": Operation("abs({0})", (lambda x, y: apply("sign", x),)),
    "sign": Operation("sign({0})", (None,)),
    "square": Operation("{0} * {0}", (lambda x, y: 2.0 * x,)),
    "sqrt": Operation("sqrt({0})", (lambda x, y: 0.5 / y,)),
    "exp": Operation("exp({0})", (lambda x, y: y,)),
    "expm1": Operation("expm1({0})", (lambda x, y: y + 1.0,)),
    "log": Operation("log({0})", (lambda x, y: 1.0 / x,)),
    "log1p": Operation("log1p({0})", (lambda x, y: 1.0 / (1.0 + x),)),
    "log2": Operation("log2({0})", (lambda x, y: (1.0 / math.log(2.0)) / x,)),
    "log10": Operation("log10({0})", (lambda x, y: (1.0 / math.log(10.0)) / x,)),
    "logaddexp": Operation(
        "logaddexp({0}, {1})", (lambda a, b, y: apply("exp", a - y), lambda a, b, y: apply("exp", b - y))
    ),
    "sin": Operation("sin({0})", (lambda x, y: apply("cos", x),)),
    "cos": Operation("cos({0})", (lambda x, y: -apply("sin", x),)),
    "tan": Operation("tan({0})", (lambda x, y: 1.0 + y * y,)),
    "arctan": Operation("arctan({0})", (lambda x, y: 1.0 / (1.0 + x * x),)),
    "sinh": Operation("sinh({0})", (lambda x, y: apply("cosh", x),)),
    "cosh": Operation("cosh({0})", (lambda x, y: apply("sinh", x),)),
    "tanh": Operation("tanh({0})", (lambda x, y: 1.0 - y * y,)),
    "maximum": Operation("maximum({0}, {1})", _side("greater")),
    "minimum": Operation("minimum({0}, {1})", _side("less")),
    # where a clip leaves its number alone, the ends included
    "clip": Operation("minimum(maximum({0}, {1}), {2})", (lambda x, low, high, y: apply("equal", x, y), None, None)),
    "where": Operation(
        "({1} if {0} != number(0.0) else {2})",
        (None, lambda c, a, b, y: apply("where", c, 1.0, 0.0), lambda c, a, b, y: apply("where", c, 0.0, 1.0)),
    ),
    "greater": _flat("{0} > {1}"),
    "greater_equal": _flat("{0} >= {1}"),
    "less": _flat("{0} < {1}"),
    "less_equal": _flat("{0} <= {1}"),
    "equal": _flat("{0} == {1}"),
    "not_equal": _flat("{0} != {1}"),
    "logical_and": _flat("{0} != number(0.0) and {1} != number(0.0)"),
    "logical_or": _flat("{0} != number(0.0) or {1} != number(0.0)"),
    "logical_not": _flat("{0} == number(0.0)", 1),
    "isnan": _flat("isnan({0})", 1),
}  # fmt: skip
REDUCTIONS = {  # over the columns: the first number, and each step
    "sum": ("0.0", "{0} + {1}"),
    "max": ("number(-inf)", "maximum({0}, {1})"),
    "min": ("number(inf)", "minimum({0}, {1})"),
}


def number(value: float) -> Expression:
    """Return the expression that is always this number."""
    return Expression("number", value=float(value))


def _of(part: Any) -> Expression:
    return part if isinstance(part, Expression) else number(part)


def _is(part: Expression, value: float) -> bool:
    return part.operation == "number" and part.value == value


def apply(operation: str, *parts: Any) -> Expression:
    """Return an operation on expressions and numbers, simpler where 0 or 1 among them allows it."""
    made = tuple(_of(part) for part in parts)
    simple = _simpler(operation, made)
    if simple is not None:
        return simple
    learns = any(p.learns for p, slope in zip(made, OPERATIONS[operation].slopes, strict=True) if slope is not None)
    return Expression(operation, made, any(part.wide for part in made), learns)


def _simpler(operation: str, parts: tuple[Expression, ...]) -> Expression | None:
    a, b = parts[0], parts[-1]
    if operation == "add":
        return b if _is(a, 0.0) else a if _is(b, 0.0) else None
    if operation == "subtract":
        return a if _is(b, 0.0) else -b if _is(a, 0.0) else None
    if operation == "multiply":
        if _is(a, 0.0) or _is(b, 0.0):
            return number(0.0)
        for one, other in ((a, b), (b, a)):
            if _is(one, 1.0) or _is(one, -1.0):
                return other if one.value == 1.0 else -other
        return None
    if operation == "divide":
        return a if _is(b, 1.0) or _is(a, 0.0) else None
    if operation == "negative":
        if a.operation == "number":
            return number(-a.value)
        return a.parts[0] if a.operation == "negative" else None
    return None


def power(base: Expression, exponent: Expression) -> Expression:
    """Return a power; whole ones and roots by the operations that are exact for them."""
    if exponent.operation == "number":
        special = {0.0: number(1.0), 1.0: base, 2.0: apply("square", base), 0.5: apply("sqrt", base), -1.0: 1.0 / base}
        if exponent.value in special:
            return special[exponent.value]
    return apply("power", base, exponent)


def total(part: Expression) -> Expression:
    """Return the sum over the columns."""
    return reduction("sum", part) if part.wide else part * COUNT


def reduction(operation: str, part: Expression) -> Expression:
    """Return the sum, the largest or the least of the columns' numbers."""
    return Expression(operation, (part,), False, part.learns) if part.wide else part


def in_order(*results: Expression) -> list[Expression]:
    """Return all expressions that these are made of and themselves, each behind its parts."""
    ordered: dict[Expression, None] = {}

    def visit(expression: Expression) -> None:
        if expression not in ordered:
            for part in expression.parts:
                visit(part)
            ordered[expression] = None

    for result in results:
        visit(result)
    return list(ordered)


def derivative(loss: Expression) -> Expression:
    """Return the derivative of a row's number by the output of each column: reverse accumulation."""
    adjoints: dict[Expression, Expression] = {loss: number(1.0)}
    for expression in reversed(in_order(loss)):
        adjoint = adjoints.get(expression)
        if adjoint is None or not expression.learns or not expression.parts:
            continue
        for part, share in zip(expression.parts, _shares(expression, adjoint), strict=True):
            if part.learns and share is not None:
                own = total(share) if expression.wide and not part.wide else share
                adjoints[part] = adjoints[part] + own if part in adjoints else own
    return adjoints.get(OUTPUT, number(0.0))


def _shares(expression: Expression, adjoint: Expression) -> list[Expression | None]:
    """Return what an adjoint gives to each part."""
    parts = expression.parts
    if expression.operation == "sum":
        return [adjoint]
    if expression.operation in REDUCTIONS:  # evenly to the columns that are it, as in Keras
        among = apply("equal", parts[0], expression)
        return [adjoint * among / total(among)]
    slopes = OPERATIONS[expression.operation].slopes
    return [None if slope is None else adjoint * slope(*parts, expression) for slope in slopes]
