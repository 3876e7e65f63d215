"""The loops over a row's columns that compute an expression and its derivative, as Python that numba compiles."""

from __future__ import annotations

import math

from nbdense.losses.tracing.expressions import OPERATIONS, REDUCTIONS, Expression, derivative, in_order

_LEAVES = {"output": "a[j]", "target": "b[j]", "hot": "number(j == int(b[0]))", "count": "number(count)"}


def write_loop(loss: Expression) -> str:
    """Write the body of a row's loop, for `nbdense._compile.loops.row_loop`.

    Outputs are in ``a``, targets in ``b``; it writes ``scale`` times the derivative to ``c`` and returns the row's
    number. What depends on sums over the columns is computed behind the loop that takes them, so that there is a loop
    for each sum of sums, and one for the derivative. Each loop computes anew what columns need: there is no memory to
    keep it in.
    """
    slope = derivative(loss)
    order = in_order(loss, slope)
    depth: dict[Expression, int] = {}
    for expression in order:
        deepest = max((depth[part] for part in expression.parts), default=0)
        depth[expression] = deepest + (expression.operation in REDUCTIONS)
    names = {expression: f"v{k}" for k, expression in enumerate(order)}
    lines = _row_numbers(order, depth, names, 0)
    for level in range(1, max(depth.values()) + 1):
        sums = [e for e in order if e.operation in REDUCTIONS and depth[e] == level]
        lines += [f"{names[e]}s = {REDUCTIONS[e.operation][0]}" for e in sums]
        steps = [f"{names[e]}s = {REDUCTIONS[e.operation][1].format(f'{names[e]}s', names[e.parts[0]])}" for e in sums]
        lines += _loop(order, names, [e.parts[0] for e in sums], steps)
        lines += [f"{names[e]} = number({names[e]}s)" for e in sums]
        lines += _row_numbers(order, depth, names, level)
    lines += _loop(order, names, [slope], [f"c[j] = {names[slope]} * scale"])
    return "\n".join([*lines, f"return {names[loss]}"])


def _row_numbers(
    order: list[Expression], depth: dict[Expression, int], names: dict[Expression, str], level: int
) -> list[str]:
    """Return the lines of all that a row has one of and that is known at this level."""
    return [
        f"{names[e]} = {_code(e, names)}"
        for e in order
        if not e.wide and depth[e] == level and e.operation not in REDUCTIONS
    ]


def _loop(
    order: list[Expression], names: dict[Expression, str], results: list[Expression], steps: list[str]
) -> list[str]:
    """Return a loop that computes what columns have one of, for these results, and takes steps with them."""
    needed = set(results)
    for expression in reversed(order):
        if expression in needed and expression.wide:
            needed.update(expression.parts)
    wide = [f"{names[e]} = {_code(e, names)}" for e in order if e.wide and e in needed]
    return ["for j in range(count):", *(f"    {line}" for line in [*wide, *steps])]


def _code(expression: Expression, names: dict[Expression, str]) -> str:
    if expression.operation == "number":
        value = expression.value
        return f"number({value!r})" if math.isfinite(value) else f"number({'-' if value < 0 else ''}inf)"
    if expression.operation in _LEAVES:
        return _LEAVES[expression.operation]
    return OPERATIONS[expression.operation].code.format(*(names[part] for part in expression.parts))
