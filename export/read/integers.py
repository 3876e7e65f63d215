"""Operators of quantized networks, as the same few values: QuantizeLinear, DequantizeLinear and dense layers.

QLinearMatMul, QGemm and their like are written as what they stand for, float operators between a DequantizeLinear and a
QuantizeLinear; MatMulInteger behind a DynamicQuantizeLinear as a dense layer that is marked. What is made of them, in
integers or in float, is decided later.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from nbdense.export.read.graph import Call
from nbdense.export.read.nodes import (
    AccumulatorNode,
    DenseNode,
    DequantizeNode,
    DynamicIntegersNode,
    DynamicScaleNode,
    DynamicZeroNode,
    Format,
    FunctionNode,
    InputNode,
    LookupNode,
    QuantizeNode,
)
from nbdense.export.read.tensors import Array
from nbdense.export.read.values import Value
from nbdense.export.read.weights import Integers, along

INDICES = (TensorProto.INT32, TensorProto.INT64)  # what integers are cast to before a table is read
_STEPS = {"int8": -128, "uint8": 0}


def fold_integers(call: Call) -> tuple[Array, Integers | None]:
    """Compute a QuantizeLinear or DequantizeLinear of constants; of the latter, keep the integers too.

    Parameters
    ----------
    call : Call
        The node.
    """
    values, scale, zero = (call.input(index) for index in range(3))
    values, scale = call.constant(values, "input"), call.constant(scale, "scale")
    zero = None if zero is None else call.constant(zero, "zero point")
    axis, block = call.attributes.get("axis", 1) % max(values.ndim, 1), call.attributes.get("block_size", 0)
    try:
        if call.node.op_type == "DequantizeLinear":
            integers = Integers(values, scale, zero, axis, block)
            return np.asarray(integers.real), integers
        zero = np.zeros((), np.uint8) if zero is None else zero
        limits = np.iinfo(zero.dtype)
        steps = np.rint(values / along(scale, values.shape, axis, block)) + along(zero, values.shape, axis, block)
        return np.asarray(np.clip(steps, limits.min, limits.max)).astype(zero.dtype), None
    except (ValueError, IndexError) as error:
        raise call.fail(f"it cannot be computed: {error}") from error


def _format(call: Call, first: int, label: str, dtype: str | None = None) -> Format:
    """Return scale and zero point of an activation, from the inputs ``first`` and ``first + 1``."""
    scale = call.constant(call.input(first), f"{label}'s scale")
    zero_point = call.input(first + 1)
    zero = np.zeros((), dtype or np.uint8) if zero_point is None else call.constant(zero_point, f"{label}'s zero point")
    if scale.size != 1 or zero.size != 1 or scale.dtype.kind != "f":
        raise call.fail(
            f"{label} needs one float scale and one zero point, got {scale.size} ({scale.dtype}) and {zero.size}"
        )
    number = float(np.float32(scale.reshape(-1)[0]))
    if not (0 < number < math.inf) or zero.dtype.kind not in "iu":
        raise call.fail(
            f"{label} needs a finite scale above 0 and an integer zero point, got {number} and {zero.dtype}"
        )
    return Format(number, int(zero.reshape(-1)[0]), zero.dtype.name)


def _real(call: Call, value: Value, form: Format, label: str = "its input") -> Value:
    """Return the DequantizeLinear of an integer value."""
    node = value.integers
    if node is None:
        kind = call.state.file.input.type.tensor_type.elem_type
        if isinstance(value.node, InputNode) and kind in (TensorProto.INT8, TensorProto.UINT8):
            raise call.fail(f"{label} is the file's input, of integers: from_onnx reads files that take real numbers")
        raise call.fail(f"{label} must be quantized integers, got real numbers")
    if isinstance(node, LookupNode) and node.format is None:
        value.node = node = dataclasses.replace(node, format=dataclasses.replace(form, dtype=node.dtype))
    written = node.format
    assert written is not None
    if written.pair != form.pair:
        raise call.fail(
            f"it reads {label} with scale {form.scale} and zero point {form.zero}, but that was written with scale "
            f"{written.scale} and zero point {written.zero}"
        )
    return call.make([value], value.shape, DequantizeNode())


def _integer(call: Call, value: Value, form: Format) -> Value:
    return call.make([value], value.shape, QuantizeNode(form))


def _quantize(call: Call) -> Value:
    value = call.data()
    if value.is_integer:
        raise call.fail("its input is quantized already")
    kinds = {TensorProto.INT8: "int8", TensorProto.INT16: "int16", TensorProto.UINT16: "uint16"}
    return _integer(call, value, _format(call, 1, "its output", kinds.get(call.attributes.get("output_dtype", 0))))


def _dequantize(call: Call) -> Value:
    value = call.data()
    return _real(call, value, _format(call, 1, "its input", None if value.integers is None else value.integers.dtype))


def _input(call: Call, index: int, label: str = "its input") -> Value:
    """Return an input as real numbers, whose scale and zero point are the inputs behind it."""
    value, form = call.input(index), _format(call, index + 1, label)
    if isinstance(value, Value):
        return _real(call, value, form, label)
    raise call.fail(f"{label} must depend on the network's input, got a constant")


def integers_through(call: Call, value: Value, change: Callable[[Value], Value]) -> Value:
    """Return integers in another shape.

    Parameters
    ----------
    call : Call
        The node.
    value : Value
        The integers.
    change : callable
        Makes another real Value of one.
    """
    node = value.integers
    form = None if node is None else node.format
    if form is None and isinstance(node, LookupNode):  # whose scale comes later: a table is read in any shape
        index = integers_through(call, value.values[0], change)
        return call.make([index], index.shape, node)
    if form is None:
        raise call.fail("its input is integers without a known scale: no node dequantizes them")
    return _integer(call, change(_real(call, value, form)), form)


def clip_integers(call: Call, value: Value) -> Value:
    """Return a clamp of integers as one of the real numbers that they stand for.

    Parameters
    ----------
    call : Call
        The node.
    value : Value
        The integers.
    """
    if not isinstance(value.node, QuantizeNode) or len(call.inputs) != 3:
        raise call.fail("to clamp integers it needs two bounds, and an input that a quantized operator has written")
    form = value.node.format
    least, most = (int(call.constant(bound, "bound").reshape(-1)[0]) for bound in call.inputs[1:])
    low = _STEPS.get(form.dtype, 0)
    bounds = {
        "min": -math.inf if least == low else (least - form.zero) * form.scale,
        "max": math.inf if most == low + 255 else (most - form.zero) * form.scale,
    }
    real = value.values[0]
    return _integer(call, call.make([real], real.shape, FunctionNode("Clip", bounds)), form)


def _lookup(call: Call) -> Value:
    """Return the entries that integers read from a table of 256."""
    index = call.input(1)
    table = call.input(0)
    fits = isinstance(table, np.ndarray) and table.shape == (256,) and table.dtype.name in _STEPS
    if not fits or not isinstance(index, Value) or not index.is_integer or call.attributes.get("axis", 0) != 0:
        raise call.fail("it must look up quantized integers in a constant table of 256 integers of 8 bits")
    assert isinstance(table, np.ndarray)
    node = index.integers
    assert node is not None
    kind = node.dtype
    # Gather counts negative indices from the end.
    entries = table[np.arange(_STEPS[kind], _STEPS[kind] + 256) % 256] if kind in _STEPS else table
    if isinstance(node, LookupNode):  # a table of a table is one: what the integers between stand for, nobody says
        entries = entries[node.table.astype(np.int64) - _STEPS[kind]]
        index = index.values[0]
    return call.make([index], index.shape, LookupNode(entries, table.dtype.name))


def _reduce(call: Call) -> Value:
    raise call.fail("it is supported only on integers, as a part of a softmax")


def _kernel(call: Call, first: int, rows: bool = False) -> Integers:
    """Return weights, scale and zero point from three inputs; ``rows``: [n_out, n_in]."""
    parts = [call.constant(call.input(first + i), "weights") for i in range(2)]
    zero = call.input(first + 2)
    values, scale = parts
    if values.ndim != 2 or values.dtype.kind not in "iu":
        raise call.fail(f"its weights must be a matrix of integers, got {values.dtype} {values.shape}")
    weights = Integers(values, scale, None if zero is None else call.constant(zero, "weights' zero point"))
    weights = weights.transposed if rows else weights
    if scale.size not in (1, weights.values.shape[1]) or (
        weights.zero is not None and weights.zero.size not in (1, scale.size)
    ):
        raise call.fail(
            f"its weights need one scale and zero point, or {weights.values.shape[1]}, one for each output; got "
            f"{scale.size} scales and {0 if weights.zero is None else weights.zero.size} zero points"
        )
    flat = [
        None if part is None else part.reshape(-1) if part.size > 1 else part.reshape(())
        for part in (scale, weights.zero)
    ]
    assert flat[0] is not None
    return Integers(weights.values, flat[0], flat[1])


def _qlinear_matmul(call: Call) -> Value:
    value, kernel = _input(call, 0), _kernel(call, 3)
    product = call.dense(value, kernel.real, None, DenseNode(kernel))
    return _integer(call, product, _format(call, 6, "its output"))


def _qgemm(call: Call) -> Value:
    if call.attributes.get("transA", 0) or call.attributes.get("alpha", 1.0) != 1.0:
        raise call.fail("transA must be 0 and alpha 1")
    value, kernel = _input(call, 0), _kernel(call, 3, rows=bool(call.attributes.get("transB", 0)))
    bias = None
    if call.input(6) is not None:
        array = call.constant(call.input(6), "bias")
        if array.shape != kernel.values.shape[1:] and array.size != 1:
            raise call.fail(
                f"its bias must have shape {kernel.values.shape[1:]}, one number for each output, got {array.shape}"
            )
        scale = np.float32(_format(call, 1, "its input").scale) * kernel.scale.astype(np.float32)
        bias = Integers(np.broadcast_to(array.reshape(-1), kernel.values.shape[1:]), scale, axis=0)
    product = call.dense(value, kernel.real, None if bias is None else bias.real, DenseNode(kernel, bias))
    return product if call.input(7) is None else _integer(call, product, _format(call, 7, "its output"))


def _qlinear_pair(operator: str) -> Callable[[Call], Value]:
    """Return the rule of a sum or product of integers, of which one may be constant."""

    def rule(call: Call) -> Value:
        parts: list[Value | Array | None] = []
        for first in (0, 3):
            part = call.input(first)
            if isinstance(part, Value):
                parts.append(_input(call, first))
            else:
                form = _format(call, first + 1, "a constant")
                array = call.constant(part, "other input")
                parts.append(Integers(array, np.float32(form.scale) + np.zeros(()), np.array(form.zero)).real)
        values = [part for part in parts if isinstance(part, Value)]
        cut = [
            part if isinstance(part, Value) else call.row_constant(np.asarray(part), values[0].seen) for part in parts
        ]
        if len({value.shape for value in values}) != 1:
            raise call.fail(
                f"its inputs must have rows of one shape, got {' and '.join(str(value.shape) for value in values)}"
            )
        made = call.make(cut, values[0].shape, FunctionNode(operator))
        return _integer(call, made, _format(call, 6, "its output"))

    return rule


def _qlinear(operator: str, first: int = 3) -> Callable[[Call], Value]:
    """Return the rule of an operator that is an activation of integers."""

    def rule(call: Call) -> Value:
        value = _input(call, 0)
        if operator == "Softmax" and call.attributes.get("axis", -1) not in (-1, len(value.seen)):
            raise call.fail(f"softmax must be over the last axis, got axis {call.attributes['axis']}")
        made = call.make([value], value.shape, FunctionNode(operator, call.attributes))
        return _integer(call, made, _format(call, first, "its output"))

    return rule


# -- dynamic -------------------------------------------------------------------------------------------------------


def _dynamic_quantize(call: Call) -> tuple[Value, ...]:
    value = call.data()
    return (
        call.make([value], value.shape, DynamicIntegersNode()),
        call.make([value], (), DynamicScaleNode()),
        call.make([value], (), DynamicZeroNode()),
    )


def _matmul_integer(call: Call) -> Value:
    integers, zero = call.data(), call.input(2)
    source = integers.values[0] if isinstance(integers.node, DynamicIntegersNode) else None
    known = isinstance(zero, Value) and isinstance(zero.node, DynamicZeroNode) and zero.values[0] is source
    if source is None or not known:
        raise call.fail("its first input and that one's zero point must come from one DynamicQuantizeLinear")
    values = call.constant(call.input(1), "weights")
    zeros = call.input(3)
    if values.ndim != 2 or values.dtype.kind not in "iu" or source.shape[-1:] != values.shape[:1]:
        raise call.fail(
            f"weights of {values.dtype} {values.shape} must be a matrix of integers that fits rows of {source.shape}"
        )
    kernel = Integers(values, np.ones((), np.float32), None if zeros is None else call.constant(zeros, "zero point"))
    shape = (*source.shape[:-1], values.shape[1])
    return call.make([source], shape, AccumulatorNode(kernel), call.node.input[1])


def scaled_product(call: Call) -> Value | None:
    """Return what a Mul makes of a MatMulInteger and its scales, at the end a dense layer; None for another Mul.

    Parameters
    ----------
    call : Call
        The node.
    """
    parts = [part for part in call.inputs if isinstance(part, Value)]
    product = next((part for part in parts if isinstance(part.node, AccumulatorNode)), None)
    scaling = next((part for part in parts if isinstance(part.node, DynamicScaleNode)), None)
    value = product or scaling
    if value is None or len(call.inputs) != 2:
        return None
    node, source = value.node, value.values[0]
    assert isinstance(node, AccumulatorNode | DynamicScaleNode)
    other = call.inputs[1 if call.inputs[0] is value else 0]
    if isinstance(other, np.ndarray):
        factor = other.reshape(-1) if other.size > 1 else other.reshape(())
        node = dataclasses.replace(node, factor=factor * node.factor)
    elif (
        isinstance(node, AccumulatorNode)
        and not node.is_scaled
        and isinstance(other, Value)
        and isinstance(other.node, DynamicScaleNode)
        and other.values[0] is source
    ):
        node = dataclasses.replace(node, factor=other.node.factor * node.factor, is_scaled=True)
    else:
        raise call.fail(
            "it must scale a product of integers by its own scale, that of the product's DynamicQuantizeLinear"
        )
    is_one = np.ndim(node.factor) == 0 and node.factor == 1
    if isinstance(node, DynamicScaleNode) or not node.is_scaled or is_one:
        return call.make([source], value.shape, node, value.name)
    scale = np.asarray(node.factor, np.float32)
    if scale.size not in (1, node.kernel.values.shape[1]):
        raise call.fail(
            f"it needs one scale, or one for each of {node.kernel.values.shape[1]} outputs, got {scale.size}"
        )
    kernel = dataclasses.replace(node.kernel, scale=scale)
    return call.dense(source, kernel.real, None, DenseNode(kernel, is_dynamic=True))


def _dynamic_matmul(call: Call) -> Value:
    """Return the dense layer of a DynamicQuantizeMatMul, which onnxruntime's optimizations write for the above."""
    weights = Integers(call.constant(call.input(1), "weights"), call.constant(call.input(2), "weights' scale"))
    zero = call.input(3)
    kernel = dataclasses.replace(weights, zero=None if zero is None else call.constant(zero, "zero point"))
    bias = call.input(4)
    added = None if bias is None else call.constant(bias, "bias").reshape(-1)
    return call.dense(call.data(), kernel.real, added, DenseNode(kernel, is_dynamic=True))


Rule = Callable[[Call], "Value | Array | tuple[Value, ...]"]
INTEGER_OPERATORS: dict[str, Rule] = {
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic_quantize,
    "Gather": _lookup,
    "MatMulInteger": _matmul_integer,
    "QLinearMatMul": _qlinear_matmul,
    "QuantizeLinear": _quantize,
    "ReduceMax": _reduce,
    "ReduceSum": _reduce,
}
MICROSOFT_OPERATORS: dict[str, Rule] = {
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeMatMul": _dynamic_matmul,
    "QGemm": _qgemm,
    "QLinearAdd": _qlinear_pair("Add"),
    "QLinearLeakyRelu": _qlinear("LeakyRelu"),
    "QLinearMul": _qlinear_pair("Mul"),
    "QLinearSigmoid": _qlinear("Sigmoid"),
    "QLinearSoftmax": _qlinear("Softmax"),
    "QuantizeLinear": _quantize,
}
