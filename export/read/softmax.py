"""The softmax of integers that the QOperator flavour writes in core operators, known by its arithmetic.

See `nbdense.quant.layers.integer_layers.QuantizedSoftmax`. Each node between the largest integer of a row and the cast
to the output's type becomes a term of its inputs; the whole is compared with the one that is meant.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from nbdense.export.read.graph import Call, Value
from nbdense.quant.layers.activations import exponentials
from nbdense.quant.layers.integer_layers import QuantizedSoftmax

DEEPEST = 10  # the meant term is of 8
_TYPES: dict[int, str] = {TensorProto.INT8: "int8", TensorProto.UINT8: "uint8"}
_LEAST = {"int8": -128, "uint8": 0}
_OPERATORS = {"Add", "Cast", "Clip", "Div", "Gather", "Mul", "ReduceSum", "Sub"}

_E = ("Gather", "table", ("Sub", ("ReduceMax", "q"), "q"))
_S = ("ReduceSum", _E)
_STEPS = ("Clip", ("Div", ("Add", ("Mul", _E, 512), _S), ("Mul", _S, 2)), 0, 255)


def softmax_part(call: Call) -> Value | None:
    """What a node makes of the parts of an integer softmax; None if it reads none.

    Parameters
    ----------
    call : Call
        The node.
    """
    begins = call.node.op_type == "ReduceMax" and any(_is_integer(value) for value in call.inputs)
    parts = [value for value in call.inputs if isinstance(value, Value) and value.operator == "IntegerPart"]
    if not begins and not parts:
        return None
    if not begins and call.node.op_type not in _OPERATORS:
        raise call.fail("it computes with integers as no layer does")
    source = call.data() if begins else parts[0].values[0]
    if call.node.op_type == "Cast":
        return _finished(call, parts[0], source)
    settings: dict[str, Any] = {"depth": 1 + max((part.settings["depth"] for part in parts), default=0)}
    reduces = call.node.op_type.startswith("Reduce")
    terms = [_term(call, value, source, settings) for value in (call.inputs[:1] if reduces else call.inputs)]
    axes = call.attributes.get("axes") if call.given(1) is None else call.given(1)
    if reduces and (axes is None or call.whole_numbers(axes, "axes") not in ([-1], [len(source.seen)])):
        raise call.fail("it does not reduce the last axis alone")
    if settings["depth"] > DEEPEST:
        raise call.fail("it computes with integers as no layer does")
    settings["term"] = (call.node.op_type, *terms)
    for part in parts:
        settings.setdefault("table", part.settings.get("table"))
    return call.make([source], source.shape, settings, "IntegerPart")


def _is_integer(value: Any) -> bool:
    return isinstance(value, Value) and value.is_integer


def _term(call: Call, value: Any, source: Value, settings: dict[str, Any]) -> Any:
    if value is source:
        return "q"
    if isinstance(value, Value):
        if value.operator != "IntegerPart" or value.values[0] is not source:
            raise call.fail("it computes with integers as no layer does")
        return value.settings["term"]
    array = call.constant(value, "input")
    if array.shape == (256,) and array.dtype.kind in "iu":
        settings["table"] = array
        return "table"
    if array.size != 1 or array.dtype.kind not in "iu":
        raise call.fail("it computes with integers as no layer does")
    return int(array.reshape(-1)[0])


def _finished(call: Call, part: Value, source: Value) -> Value:
    """The softmax, as a float one between a DequantizeLinear and a QuantizeLinear of its fixed scale."""
    kind = _TYPES.get(call.attributes.get("to", 0))
    if kind is None:  # a wider type: nothing changes
        return part
    said, table = source.settings, part.settings["table"]
    meant = "scale" in said and part.settings["term"] == ("Add", _STEPS, _LEAST[kind])
    if not meant or not np.array_equal(table, exponentials(said["scale"])):
        raise call.fail("it computes with integers as no layer does")
    real = call.make([source], source.shape, operator="DequantizeLinear")
    made = call.make([real], source.shape, operator="Softmax")
    settings = {"scale": QuantizedSoftmax.output_scale, "zero": _LEAST[kind], "dtype": kind}
    return call.make([made], source.shape, settings, "QuantizeLinear")
