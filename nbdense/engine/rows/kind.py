"""Kinds of row: one object each, made and registered in the module that has its compiled functions.

A kind is known to the rest of the engine by being registered. Its functions are compiled by themselves, when a network
that has such a row first needs them; `dispatch` and `slabs` call them by the addresses in the row. Storeys above ask
the kind what its row is made of, and never compare names.

Functions of a kind, all compiled, of one share ``span`` (first, count) of the rows of data:

forward(row, params, work, capacity, span, aside, noise)
    From the input to the output, without the row's activation. ``aside`` is where transposes and statistics begin,
    ``noise`` the step's key of random numbers.
backward(row, params, work, capacity, span, deltas, aside, batch)
    Returns where the deltas are that the input gets: those of the output, by default; below 0 if it has handed them
    over itself. ``batch`` is the batch's rows of data.
statistics(row, work, aside, source, m, first, last), sums(row, work, aside, pre, d, m, first, last)
    Columns first..last over all m rows of columns of a batch: before the way forward, and before the way back.
gradient(row, gradient, work, run, count, slab, low)
    A slab's gradient, where it is no product with the deltas of the output.
move(row, params, work, aside)
    Parameters that follow the batch's statistics, and not an optimizer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numba.core import types

from nbdense._compile.policy import inlined
from nbdense.engine.on_demand import address_of, call_in, defined
from nbdense.engine.tables import GAMMA, ROLES

Function = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class RowKind:
    """A kind of row of the layer table.

    Parameters
    ----------
    name : str
        Unique.
    layer : str
        The class of layers that write such rows, for messages.
    title : str
        Its name in a diagnosis; by default ``name``.
    tensors, settings : mapping of str to str
        What it calls the offsets of its parameters and its numbers, and the columns of `nbdense.engine.tables.LAYER`
        that they are in.
    vector : int
        Of its first parameter, where that is no kernel: GAMMA, a number a column, whose gradients are the sums of what
        backward leaves in the ``pre`` buffer, or FACTORS.
    keeps : bool
        Whether it keeps as much as its output for backward, in its ``pre`` buffer.
    aside : int
        Vectors of a number a column that it has beside the activations.
    keeps_format : bool
        Whether what it gives without an activation is what it gets: in the same integers, where these were rounded.
    inference : RowKind, optional
        The kind that it becomes where nothing is trained; one that becomes an activation does nothing then.
    forward, backward, statistics, sums, gradient, move : kernels, optional
        See the module.
    code : int
        Its number in layer tables, given by `register`.
    """

    name: str
    layer: str
    title: str = ""
    tensors: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    vector: int = GAMMA
    keeps: bool = False
    aside: int = 0
    keeps_format: bool = False
    inference: RowKind | None = None
    forward: Function | None = None
    backward: Function | None = None
    statistics: Function | None = None
    sums: Function | None = None
    gradient: Function | None = None
    move: Function | None = None
    code: int = -1

    def columns(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return fields of a row of the table from values by the names that the kind has for them."""
        places = {**self.tensors, **self.settings}
        return {places.get(name, name): value for name, value in values.items()}

    def setting(self, row: Any, name: str) -> float:
        """Return one of its numbers from a row of the table."""
        return float(row[self.settings[name]])

    def offsets(self, row: Any) -> dict[str, int]:
        """Return the offsets of its parameters from a row of the table; those that it lacks are left out."""
        places = {name: int(row[column]) for name, column in self.tensors.items()}
        return {name: offset for name, offset in places.items() if offset >= 0}


@inlined
def buffers(row, capacity, span):
    """Return a share's rows of columns, and where they begin in the row's input, ``pre`` buffer and output."""
    first, count = span
    start = first * row["positions"] * row["ld_in"]
    source, pre, output = row["input"] * capacity, row["pre"] * capacity, row["output"] * capacity
    return count * row["positions"], source + start, pre + start, output + start


ROW_KINDS: list[RowKind] = []  # by code


def register(kind: RowKind) -> RowKind:
    """Give a kind its code; returns it."""
    if any(other.name == kind.name for other in ROW_KINDS):
        raise ValueError(f"there is a kind of row named {kind.name!r} already")
    kind = dataclasses.replace(kind, code=len(ROW_KINDS), title=kind.title or kind.name)
    ROW_KINDS.append(kind)
    return kind


def kind_of(row: Any) -> RowKind:
    """Return the kind of a row of the table."""
    return ROW_KINDS[int(row["kind"])]


def rows_of(layers: Any, kind: RowKind) -> Any:
    """Return the rows of a table that are of a kind."""
    return layers[layers["kind"] == kind.code]


_ARGUMENTS = {
    "forward": "row, params, work, capacity, span, aside, noise",
    "backward": "row, params, work, capacity, span, deltas, aside, batch",
    "gradient": "row, gradient, work, run, count, slab, low",
    "statistics": "row, work, aside, source, m, first, last",
    "sums": "row, work, aside, pre, d, m, first, last",
    "move": "row, params, work, aside",
}


def set_addresses(layers: Any, dtype: Any, roles: tuple[str, ...] = ROLES) -> None:
    """Write to the rows of a table where the functions of their kinds are that compiled code is to call.

    Parameters
    ----------
    layers : structured array of `nbdense.engine.tables.LAYER`
        The rows.
    dtype : dtype
        Of the network.
    roles : tuple of str
        The functions that are wanted.
    """
    for row in layers:
        for role in roles:
            function = getattr(kind_of(row), role)
            # 0 too: a row may have been of another kind, as those that do nothing where nothing is trained.
            row[role] = 0 if function is None else address_of(function, dtype)


def by_kind(role: str, space: dict[str, Any], otherwise: str = "None") -> Any:
    """Compile ``function(row, ...)``: what the row's kind has for a role, by its address.

    Parameters
    ----------
    role : str
        One of `nbdense.engine.tables.ROLES`.
    space : dict
        The calling module's ``globals()``. The module is none that the kinds import: all are registered by then.
    otherwise : str
        The expression that is returned for kinds that have none.
    """
    chain = _chain(role, space, otherwise)
    result: Any = types.int64 if role == "backward" else types.none
    return call_in("row", role, chain, chain, space, otherwise=otherwise, result=result)


def _chain(role: str, space: dict[str, Any], otherwise: str) -> Any:
    """Return the same as an if-chain over all kinds, for where there is no JIT, and devices without addresses."""
    functions = {kind: getattr(kind, role) for kind in ROW_KINDS if getattr(kind, role) is not None}
    name_of = {function: f"_{role}_{kind.name}" for kind, function in functions.items()}  # kinds may share one
    space.update({name: function for function, name in name_of.items()})
    lines = [f"def {{}}({_ARGUMENTS[role]}):"]
    for kind, function in functions.items():
        lines += [f"    if row['kind'] == {kind.code}:", f"        return {name_of[function]}({_ARGUMENTS[role]})"]
    return defined(f"{role}_by_kind", [*lines, f"    return {otherwise}"], space)
