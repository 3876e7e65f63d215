"""Tensors that depend on the data: the node that makes each, and the shape that a row of data has there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from nbdense.export.read.nodes import FunctionNode, LookupNode, Node, QuantizeNode
from nbdense.export.read.tensors import Array


class Value:
    """A tensor that depends on the data.

    Parameters
    ----------
    node : Node
        The node that makes it.
    inputs : sequence of Value, ndarray or None
        The tensors that the node reads. Constants that meet values elementwise are cut to the shape of one row.
    shape : tuple of int
        Shape of one row of data.
    place : str
        Its name for errors.
    name : str
        What the file calls its weights; may be empty.
    merged : bool, optional
        Whether the graph takes all positions of a row of data for rows; by default as its inputs.
    """

    def __init__(
        self,
        node: Node,
        inputs: Sequence[Value | Array | None],
        shape: tuple[int, ...],
        place: str,
        name: str = "",
        merged: bool | None = None,
    ) -> None:
        self.node, self.inputs, self.shape, self.place, self.name = node, list(inputs), shape, place, name
        self.merged: bool = any(value.merged for value in self.values) if merged is None else merged
        self.readers = 0
        for value in self.values:
            value.readers += 1
        self.dominator = common([value for value in inputs if isinstance(value, Value)])
        self.depth: int = 0 if self.dominator is None else self.dominator.depth + 1

    @property
    def operator(self) -> str:
        """ONNX's name of the operator; "" for nodes that have a class of their own."""
        return self.node.operator if isinstance(self.node, FunctionNode) else ""

    @property
    def integers(self) -> QuantizeNode | LookupNode | None:
        """Node that quantized the value; None for real numbers."""
        return self.node if isinstance(self.node, QuantizeNode | LookupNode) else None

    @property
    def is_integer(self) -> bool:
        """True where the value is quantized."""
        return self.integers is not None

    @property
    def seen(self) -> tuple[int, ...]:
        """Shape of a row, as the graph sees it."""
        return self.shape[-1:] if self.merged else self.shape

    @property
    def values(self) -> list[Value]:
        """Inputs of the value's node that depend on the data."""
        return [value for value in self.inputs if isinstance(value, Value)]


def between(start: Value, ends: Iterable[Value], takes: Callable[[Value], bool], most: int) -> list[Value] | None:
    """Return what lies behind a value up to others, these included: each behind all that it is made of.

    Parameters
    ----------
    start : Value
        Where it begins; it is not among them.
    ends : iterable of Value
        Where it ends.
    takes : callable
        Tells whether a value may be among them.
    most : int
        How many values are looked at.

    Returns
    -------
    list of Value or None
        None where one may not be among them, or there are more than are looked at.
    """
    ordered: dict[Value, None] = {}
    stack = [(value, False) for value in ends]
    while stack:
        value, leaving = stack.pop()
        if leaving:
            ordered[value] = None
            continue
        if value is start or value in ordered:
            continue
        if len(ordered) + len(stack) > most or not takes(value):
            return None
        stack.append((value, True))
        stack.extend((part, False) for part in value.values)
    return list(ordered)


def common(values: list[Value]) -> Value | None:
    """Return the nearest value through which everything from the input to these must go; it may be one of these.

    Parameters
    ----------
    values : list of Value
        At least one, or none.
    """
    if not values:
        return None
    nearest: Value | None = values[0]
    for other in values[1:]:
        one: Value | None = other
        while nearest is not one:
            if nearest is None or one is None:
                return None
            if nearest.depth >= one.depth:
                nearest = nearest.dominator
            else:
                one = one.dominator
    return nearest
