"""Versions of ONNX: the opsets that can be asked for, and the IR version that goes with each."""

from __future__ import annotations

import operator
from typing import Any

import onnx
from onnx import helper

DEFAULT_OPSET = 17  # with IR version 8 the widest target of float and int8
OLDEST_OPSET = 13  # the first with scales per channel, and with today's Softmax


def newest_opset() -> int:
    """Return the newest opset that the installed onnx knows."""
    return onnx.defs.onnx_opset_version()


def ir_version_of(opset: int) -> int:
    """Return the lowest IR version that has the opset: more runtimes read it. onnx would stamp its own newest.

    Parameters
    ----------
    opset : int
        The opset.
    """
    return int(helper.find_min_ir_version_for([helper.make_opsetid("", opset)]))


def checked_opset(door: str, opset: Any, newest: int, library: str) -> int:
    """Return an opset that the user asked for, as an int.

    Parameters
    ----------
    door : str
        The public function, for the error.
    opset : int
        The user's opset.
    newest : int
        The newest that there is.
    library : str
        The library that sets it, for the error.

    Raises
    ------
    ValueError
        If it is no whole number from OLDEST_OPSET to the newest.
    """
    try:
        number = operator.index(opset)
    except TypeError:
        number = 0
    if not OLDEST_OPSET <= number <= newest:
        raise ValueError(
            f"{door}: opset must be from {OLDEST_OPSET} to {newest}, the installed {library}'s, got {opset!r}"
        )
    return number
