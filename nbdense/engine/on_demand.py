"""Kernels that are compiled by themselves, when a run first needs them, and called by their addresses in tables.

A program has in it what nearly everyone needs. All else costs those alone who use it: a fraction of a second to compile
once, and a call. The types of a kernel's arguments follow from their names, so that whoever compiles it and whoever
calls it agree.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from numba.core import types

from nbdense._compile.policy import JIT, address, by_address, kernel
from nbdense.engine.tables import LAYER, PHASE, RUN, SEGMENT, SLAB

_RECORDS: dict[str, Any] = {
    name: numba.from_dtype(dtype)
    for name, dtype in (("row", LAYER), ("run", RUN), ("slab", SLAB), ("segment", SEGMENT), ("phase", PHASE))
}
_TYPES: dict[str, Any] = {
    **_RECORDS,
    **{f"{name}s": types.Array(_RECORDS[name], 1, "C") for name in ("slab", "segment", "phase")},
    "layers": types.Array(_RECORDS["row"], 1, "C"),
    "span": types.UniTuple(types.int64, 2),  # type: ignore[attr-defined]
    "noise": types.uint64,
    "rate": types.float64,
    "hyper": types.Array(types.float64, 1, "C"),
    "metrics": types.Array(types.int64, 1, "C"),
    "per_row": types.Array(types.float64, 1, "C"),  # a loss and metrics
    "losses": types.Array(types.float64, 1, "C"),
    "sums": types.Array(types.float64, 2, "C"),
    # Of losses: see `nbdense.engine.elementwise.loss`.
    "form": types.Tuple([types.int64, types.float64, types.boolean, types.int64]),  # type: ignore[attr-defined]
    "places": types.UniTuple(types.int64, 5),  # type: ignore[attr-defined]
    "shape": types.UniTuple(types.int64, 5),  # type: ignore[attr-defined]
}  # of arguments; those named below are of the network's dtype, others whole numbers
_VECTORS = ("params", "work", "gradient", "values", "x")
KERNELS: list[Any] = []  # all that may be called so, but those of kinds of rows
_RESULTS = {"None": types.none, "0.0": types.float64, "True": types.boolean}


def argument_types(names: Sequence[str], dtype: Any) -> tuple[Any, ...]:
    """Return numba's types of arguments of these names, in a network of a dtype, which is numba's."""
    vector = types.Array(dtype, 1, "C")
    of_dtype: dict[str, Any] = dict.fromkeys(_VECTORS, vector)
    of_dtype["vectors"] = types.Tuple([vector, types.Array(dtype, 2, "C"), vector, vector])  # type: ignore[attr-defined]
    return tuple(of_dtype.get(name) or _TYPES.get(name, types.int64) for name in names)


def dtype_among(names: Sequence[str], kinds: Sequence[Any]) -> Any:
    """Return the dtype of a network, numba's, from types of arguments; None where it does not matter."""
    for name, kind in zip(names, kinds, strict=True):
        if name in _VECTORS:
            return kind.dtype
        if name == "vectors":
            return kind[0].dtype
    return None


@functools.cache
def address_of(function: Any, dtype: Any) -> int:
    """Return the address of a kernel for networks of a dtype, compiled if it is not; 1 where there is no JIT."""
    if not JIT:
        return 1
    names = list(inspect.signature(function.py_func).parameters)
    return address(function, argument_types(names, numba.from_dtype(np.dtype(dtype))))


def on_demand(
    field: str,
    function: Any,
    space: dict[str, Any],
    *,
    record: str = "run",
    otherwise: str = "None",
    kernels: tuple[Any, ...] = (),
) -> Any:
    """Make ``call(record, ...)``: a call of a kernel whose address is in a record's field.

    Parameters
    ----------
    field : str
        The field; it is 0 where whoever filled the record in knows that the kernel has nothing to do.
    function : kernel
        It has the other parameters, the record among them if it reads it.
    space : dict
        The calling module's ``globals()``.
    record : str
        The record's name.
    otherwise : str
        What is returned where the field is 0: an expression that says of what type the result is.
    kernels : tuple of kernels
        Those of the same arguments one of which is called; by default the function itself.
    """
    KERNELS.extend(kernels or (function,))
    plain: Callable[..., Any] = getattr(function, "py_func", function)
    names = list(inspect.signature(plain).parameters)
    arguments, parameters = ", ".join(names), ", ".join([record, *(name for name in names if name != record)])
    space[f"_plain_{field}"] = function
    twin = defined(f"{field}_on_demand", [f"def {{}}({parameters}):", f"    return _plain_{field}({arguments})"], space)
    return call_in(record, field, plain, twin, space, otherwise=otherwise, result=_RESULTS[otherwise])


def call_in(
    record: str, field: str, plain: Callable[..., Any], twin: Any, space: dict[str, Any], *, otherwise: str, result: Any
) -> Any:
    """Compile a call of the kernel whose address is in a record's field, where that is not 0.

    Parameters
    ----------
    record, field : str
        The record's name among the parameters of ``twin``, and the field's in it.
    plain : callable
        Has the parameters' names of the kernel.
    twin : callable
        Does the same without an address, where there is no JIT and on devices that have none.
    space : dict
        The calling module's ``globals()``.
    otherwise : str
        The expression that is returned where the address is 0.
    result : numba type
        What the kernel returns.
    """
    if not JIT:
        return twin
    names = list(inspect.signature(plain).parameters)
    arguments, parameters = ", ".join(names), ", ".join(inspect.signature(twin).parameters)

    def typed(kinds: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        return result, argument_types(names, dtype_among(names, kinds))

    space[f"_call_{field}"] = by_address(plain, typed)
    lines = [f"def {{}}({parameters}):", f'    if {record}["{field}"] != 0:']
    lines += [f'        return _call_{field}({record}["{field}"], {arguments})', f"    return {otherwise}"]
    made = kernel(defined(twin.__name__, lines, space), inline=True)
    made.twin = twin
    return made


def defined(name: str, lines: list[str], space: dict[str, Any]) -> Any:
    """Return a function of its source's lines, in which ``{}`` stands for its name."""
    local: dict[str, Any] = {}
    exec(compile("\n".join(lines).replace("{}", name), f"<nbdense {name}>", "exec"), space, local)
    return local[name]
