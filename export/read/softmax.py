"""The softmax of integers that the QOperator flavour writes in core operators, known by its arithmetic.

See `nbdense.quant.layers.integer_layers.QuantizedSoftmax`. Each node between the largest integer of a row and the cast
to the output's type becomes a term of its inputs; the whole is compared with the one that is meant.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from nbdense.export.read.graph import Call
from nbdense.export.read.nodes import DequantizeNode, Format, FunctionNode, QuantizeNode, SoftmaxPartNode
from nbdense.export.read.tensors import Array
from nbdense.export.read.values import Value
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
    """Return what a node makes of the parts of an integer softmax; None if it reads none.

    Parameters
    ----------
    call : Call
        The node.
    """
    begins = call.node.op_type == "ReduceMax" and any(_is_integer(value) for value in call.inputs)
    parts = [value for value in call.inputs if isinstance(value, Value) and isinstance(value.node, SoftmaxPartNode)]
    if not begins and not parts:
        return None
    if not begins and call.node.op_type not in _OPERATORS:
        raise call.fail("no layer computes this with integers")
    nodes = [value.node for value in parts if isinstance(value.node, SoftmaxPartNode)]
    source = call.data() if begins else parts[0].values[0]
    if call.node.op_type == "Cast":
        return _finished(call, parts[0], nodes[0], source)
    reduces = call.node.op_type.startswith("Reduce")
    inputs = call.inputs[:1] if reduces else call.inputs
    terms = [_term(call, value, source) for value in inputs]
    axes = call.attributes.get("axes") if call.input(1) is None else call.input(1)
    if reduces and (axes is None or call.whole_numbers(axes, "axes") not in ([-1], [len(source.seen)])):
        raise call.fail("it must reduce the last axis alone")
    depth = 1 + max((node.depth for node in nodes), default=0)
    if depth > DEEPEST:
        raise call.fail("no layer computes this with integers")
    tables: list[Array] = [np.asarray(value) for value, term in zip(inputs, terms, strict=True) if term == "table"]
    tables += [node.table for node in nodes if node.table is not None]
    node = SoftmaxPartNode((call.node.op_type, *terms), depth, tables[0] if tables else None)
    return call.make([source], source.shape, node)


def _is_integer(value: Any) -> bool:
    return isinstance(value, Value) and value.is_integer


def _term(call: Call, value: Any, source: Value) -> Any:
    if value is source:
        return "q"
    if isinstance(value, Value):
        if not isinstance(value.node, SoftmaxPartNode) or value.values[0] is not source:
            raise call.fail("no layer computes this with integers")
        return value.node.term
    array = call.constant(value, "input")
    if array.shape == (256,) and array.dtype.kind in "iu":
        return "table"
    if array.size != 1 or array.dtype.kind not in "iu":
        raise call.fail("no layer computes this with integers")
    return int(array.reshape(-1)[0])


def _finished(call: Call, part: Value, node: SoftmaxPartNode, source: Value) -> Value:
    """Return the softmax as a float one, between a DequantizeLinear and a QuantizeLinear of its fixed scale."""
    kind = _TYPES.get(call.attributes.get("to", 0))
    if kind is None:  # a wider type: nothing changes
        return part
    form = None if source.integers is None else source.integers.format
    meant = form is not None and node.table is not None and node.term == ("Add", _STEPS, _LEAST[kind])
    if form is None or not meant or not np.array_equal(np.asarray(node.table), exponentials(form.scale)):
        raise call.fail("no layer computes this with integers")
    real = call.make([source], source.shape, DequantizeNode())
    made = call.make([real], source.shape, FunctionNode("Softmax"))
    return call.make([made], source.shape, QuantizeNode(Format(QuantizedSoftmax.output_scale, _LEAST[kind], kind)))
