"""ONNX's operators, as what they make of shapes and constants: one rule each, in `OPERATORS`."""

from __future__ import annotations

import math

import numpy as np

from nbdense.export.read.graph import BATCH, COMPARISONS, ONE_ARGUMENT, TWO_ARGUMENTS, Call
from nbdense.export.read.integers import INDICES, Rule, clip_integers, integers_through, scaled_product
from nbdense.export.read.nodes import (
    AccumulatorNode,
    ColumnsNode,
    DenseNode,
    DropoutNode,
    FunctionNode,
    ReshapeNode,
)
from nbdense.export.read.tensors import FLOATS, Array
from nbdense.export.read.values import Value
from nbdense.export.read.weights import Integers
from nbdense.layers import FORMS


def _same(call: Call) -> Value:
    """Return the rule of an elementwise operator of one argument."""
    value = call.data()
    return call.make([value], value.shape, FunctionNode(call.node.op_type, call.attributes))


def _elementwise(call: Call) -> Value:
    """Return the value of an elementwise operator of two arguments, one of which may be constant."""
    if len(call.inputs) == 1:
        return call.data()  # a sum, or the largest, of one
    scaled = scaled_product(call) if call.node.op_type == "Mul" else None
    if scaled is not None:
        return scaled
    if len(call.inputs) != 2:
        raise call.fail(f"it must have two inputs, got {len(call.inputs)}")
    one, two = call.inputs
    if isinstance(one, Value) and isinstance(two, Value):
        shapes = one.shape, two.shape
        if one.merged != two.merged:
            raise call.fail("one of its inputs has a row for each position, the other one for each row of data")
        # What is narrower must be so on the last axis alone: a mean over it, for instance.
        narrow = [(*shape[:-1], 1) for shape in shapes]
        if one.shape != two.shape and not ((one.shape and two.shape and shapes[0] in narrow) or shapes[1] in narrow):
            raise call.fail(f"rows of shapes {one.shape} and {two.shape} cannot be combined element by element")
        shape = max(shapes, key=lambda shape: shape[-1:] or (0,))
        if one.shape[:-1] != two.shape[:-1]:
            raise call.fail(f"rows of shapes {one.shape} and {two.shape} cannot be combined element by element")
        return call.make([one, two], shape)
    value, array = (one, two) if isinstance(one, Value) else (two, one)
    assert isinstance(value, Value)
    array = call.constant(array, "other input")
    if array.ndim and array.shape[-1] != 1:
        call.state.width_of(value, array.shape[-1])
    shape, seen = value.shape, value.seen
    if shape[-1:] == (1,) and array.ndim and array.shape[-1] > 1:  # a mean times a column each: in norms
        shape, seen = (*shape[:-1], array.shape[-1]), (*seen[:-1], array.shape[-1])
    cut = call.row_constant(array, seen)
    return call.make([cut if other is not value else value for other in call.inputs], shape)


def _where(call: Call) -> Value:
    """Return one of two tensors by a comparison, as in decomposed activations."""
    shapes = {(part.merged, part.shape) for part in call.inputs if isinstance(part, Value)}
    if len(call.inputs) != 3 or len(shapes) != 1:
        raise call.fail(
            f"it needs three inputs with rows of one shape, got {len(call.inputs)} with {sorted(s for _, s in shapes)}"
        )
    merged, shape = shapes.pop()
    seen = shape[-1:] if merged else shape
    parts = [
        call.row_constant(part.astype(np.uint8) if part.dtype == bool else part, seen)
        if isinstance(part, np.ndarray)
        else part
        for part in call.inputs
    ]
    return call.make(parts, shape)


def _clip(call: Call) -> Value:
    value = call.data()
    if value.is_integer:
        return clip_integers(call, value) if len(call.inputs) > 1 else value
    ends = []
    for index, (name, none) in enumerate((("min", -math.inf), ("max", math.inf)), start=1):
        bound = call.inputs[index] if index < len(call.inputs) else None
        if bound is None:
            ends.append(float(call.attributes.get(name, none)))
            continue
        array = call.constant(bound, name)
        if array.size != 1 or array.dtype.kind not in "fiu":
            raise call.fail(f"its {name} must be one number")
        ends.append(float(array.reshape(-1)[0]))
    if ends == [-math.inf, math.inf]:
        return value
    return call.make([value], value.shape, FunctionNode("Clip", {"min": ends[0], "max": ends[1]}))


def _softmax(call: Call) -> Value:
    value = call.data()
    rank = 1 + len(value.seen)
    axis = call.attributes.get("axis", -1 if call.state.file.opset >= 13 else 1)
    if rank == 1 or axis not in (-1, rank - 1):  # until opset 12 it was over all axes from this one on
        raise call.fail(f"softmax must be over the last of {rank} axes, got axis {axis}")
    if value.shape[-1] == 1:
        raise call.fail("softmax over one column is always 1")
    return call.make([value], value.shape)


def _matmul(call: Call) -> Value:
    value = call.data()
    kernel = call.constant(call.inputs[1], "second input")
    return call.dense(value, kernel, None, DenseNode(_integers(call, 1)))


def _integers(call: Call, index: int) -> Integers | None:
    """Return the integers that an input was before it was dequantized; None where it was none."""
    return None if call.input(index) is None else call.state.integers.get(call.node.input[index])


def _gemm(call: Call) -> Value:
    value = call.data()
    if call.attributes.get("transA", 0):
        raise call.fail("transA must be 0: with 1 its columns would be the rows of data")
    if len(value.seen) != 1:
        raise call.fail(f"its input must have rows of one axis, got shape {value.shape}")
    alpha, beta = call.attributes.get("alpha", 1.0), call.attributes.get("beta", 1.0)
    kernel = call.constant(call.inputs[1], "second input")
    integers = _integers(call, 1) if alpha == 1.0 else None
    if kernel.ndim == 2 and call.attributes.get("transB", 0):
        kernel = kernel.T
        integers = None if integers is None else integers.transposed
    if alpha != 1.0:
        kernel = (kernel * np.float64(alpha)).astype(kernel.dtype)
    added = call.inputs[2] if len(call.inputs) > 2 else None
    if isinstance(added, np.ndarray):
        bias = call.row_constant(added, kernel.shape[1:])
        bias = np.broadcast_to(bias if beta == 1.0 else (bias * np.float64(beta)).astype(bias.dtype), kernel.shape[1:])
        return call.dense(value, kernel, bias, DenseNode(integers, _integers(call, 2) if beta == 1.0 else None))
    product = call.dense(value, kernel, None, DenseNode(integers))
    if added is None or beta == 0.0:
        return product
    if beta != 1.0 or added.shape != product.shape:
        raise call.fail(
            f"what it adds must be a constant, or with beta=1 rows of shape {product.shape}, got {added.shape}"
        )
    return call.make([product, added], product.shape, FunctionNode("Add"))


def _reduce_mean(call: Call) -> Value:
    value = call.data()
    axes = call.input(1) if call.input(1) is not None else call.attributes.get("axes")
    listed = [] if axes is None else call.whole_numbers(axes, "axes")
    if listed not in ([-1], [len(value.seen)]) or not call.attributes.get("keepdims", 1) or not value.shape:
        raise call.fail("it must be a mean over the last axis with keepdims=1, as in a normalisation")
    return call.make([value], (*value.shape[:-1], 1))


def _reshape_to(call: Call, value: Value, shape: list[int | None]) -> Value:
    """Return rows in another shape; its first entry is the batch's, and None stands for the size that fits."""
    total = math.prod(value.shape)
    batch, rest = shape[0], shape[1:]
    known = math.prod(n for n in rest if n is not None)
    if None in rest and (known == 0 or total % known):
        raise call.fail(f"rows of shape {value.shape} cannot take the shape {[-1 if n is None else n for n in rest]}")
    row = tuple(total // known if n is None else n for n in rest)
    kept = batch in (BATCH, None) or (call.state.batch is not None and batch == call.state.batch)
    if batch is None and row == value.shape[-1:] and math.prod(row) != total and value.shape:
        return _all_as_rows(call, value)
    if math.prod(row) != total or not kept:
        written = [-1 if n in (None, BATCH) else n for n in shape]
        raise call.fail(
            f"it must keep the rows of data, of shape {value.shape}, apart, but turns all of them into {written}; "
            f"from_onnx(..., output={call.node.input[0]!r}) ends the network before it",
        )
    if row == value.shape and not value.merged:
        return value
    if value.is_integer:
        return integers_through(call, value, lambda real: _reshape_to(call, real, shape))
    if isinstance(value.node, ReshapeNode):
        value = value.values[0]
    return call.make([value], row, ReshapeNode(), merged=False)


def _global_mean(call: Call) -> Value:
    """Return a mean over the last axis of three, as tf2onnx writes it."""
    value = call.data()
    if len(value.seen) != 2:
        raise call.fail(
            f"it must be a mean over the last of 3 axes, as in a normalisation, got {1 + len(value.seen)} axes"
        )
    return call.make([value], (*value.shape[:-1], 1), FunctionNode("ReduceMean"))


def _all_as_rows(call: Call, value: Value) -> Value:
    """Return [rows, positions, columns] as [rows * positions, columns]: the same data in another shape."""
    if value.is_integer:
        return integers_through(call, value, lambda real: _all_as_rows(call, real))
    return call.make([value], value.shape, ReshapeNode(), merged=True)


def _reshape(call: Call) -> Value:
    value = call.data()
    target = call.constant(call.inputs[1], "shape")
    if target.ndim != 1 or target.dtype.kind not in "iu" or not target.size:
        raise call.fail(f"its shape must be a list of whole numbers, got {target.dtype} of shape {target.shape}")
    copied = [BATCH, *value.seen]
    shape: list[int | None] = []
    for index, number in enumerate(target.tolist()):
        if number == 0 and not call.attributes.get("allowzero", 0):
            shape.append(copied[index] if index < len(copied) else 0)
        else:
            shape.append(None if number == -1 else number)
    if shape.count(None) > 1 or any(n is not None and n < 0 and n != BATCH for n in shape):
        raise call.fail(f"its shape may have one -1 and no number below that, got {target.tolist()}")
    return _reshape_to(call, value, shape)


def _flatten(call: Call) -> Value:
    value = call.data()
    axis = call.attributes.get("axis", 1)
    if axis < 0:
        axis += 1 + len(value.seen)
    if value.merged and axis == 1:
        return value
    if axis != 1:
        raise call.fail(f"axis must be 1, which keeps the rows of data apart, got {call.attributes.get('axis', 1)}")
    return _reshape_to(call, value, [BATCH, math.prod(value.shape)])


def _squeeze(call: Call) -> Value:
    value = call.data()
    axes = call.inputs[1] if len(call.inputs) > 1 and call.inputs[1] is not None else call.attributes.get("axes")
    squeezing = call.node.op_type == "Squeeze"
    if value.merged:
        raise call.fail("it changes axes where a Reshape has made rows of positions")
    rank = 1 + len(value.shape)
    if axes is None:
        if not squeezing:
            raise call.fail("its axes are missing")
        chosen = {index for index, n in enumerate(value.shape, start=1) if n == 1}
    else:
        listed = call.whole_numbers(axes, "axes")
        rank += 0 if squeezing else len(listed)
        chosen = {axis + rank if axis < 0 else axis for axis in listed}
    if 0 in chosen or any(not 0 < axis < rank for axis in chosen):
        raise call.fail(
            f"its axes must be from 1 to {rank - 1}, which keeps the rows of data apart, got {sorted(chosen)}"
        )
    if squeezing:
        if any(value.shape[axis - 1] != 1 for axis in chosen):
            raise call.fail(
                f"it must drop axes of one element, got axes {sorted(chosen)} of rows of shape {value.shape}"
            )
        row = [n for index, n in enumerate(value.shape, start=1) if index not in chosen]
    else:
        rest = iter(value.shape)
        row = [1 if index in chosen else next(rest) for index in range(1, rank)]
    return _reshape_to(call, value, [BATCH, *row])


def _shape(call: Call) -> Array:
    value = call.data()
    if value.merged:
        raise call.fail("it asks for a shape where a Reshape has made rows of positions")
    batch = BATCH if call.state.batch is None else call.state.batch
    return np.array([batch, *value.shape], np.int64)[call.attributes.get("start", 0) : call.attributes.get("end")]


def _identity(call: Call) -> Value:
    return call.data()


def _cast(call: Call) -> Value | Array:
    if call.node.op_type == "CastLike" and isinstance(call.inputs[0], np.ndarray):  # a constant, as the data is: real
        return call.inputs[0] if call.inputs[0].dtype.kind == "f" else call.inputs[0].astype(np.float32)
    value = call.data()
    if (value.is_integer and call.attributes.get("to") in INDICES) or isinstance(value.node, AccumulatorNode):
        return value
    if value.is_integer or (call.node.op_type == "Cast" and call.attributes.get("to") not in FLOATS):
        raise call.fail(
            "it must cast real numbers to a floating-point type; quantized integers need a DequantizeLinear"
        )
    return value


def _dropout(call: Call) -> Value:
    value = call.data()
    if len(call.inputs) > 2 and call.inputs[2] is not None and call.constant(call.inputs[2], "training_mode").any():
        raise call.fail("it is in training mode: export the model for inference")
    if call.uses_more:
        raise call.fail("other nodes read its mask; only its first output is supported")
    ratio = (
        call.inputs[1]
        if len(call.inputs) > 1 and call.inputs[1] is not None
        else np.array(call.attributes.get("ratio", 0.5))
    )
    rate = call.constant(ratio, "ratio")
    number = float(rate.reshape(-1)[0]) if rate.size == 1 and rate.dtype.kind == "f" else math.nan
    return call.make([value], value.shape, DropoutNode(number)) if 0 < number < 1 else value


def _scaler(call: Call) -> Value:
    """Return (x - offset) scale, of ai.onnx.ml."""
    value = call.data()
    parts = [
        np.array(call.attributes.get(name, [none]), np.float32) for name, none in (("offset", 0.0), ("scale", 1.0))
    ]
    for part in parts:
        if part.size > 1:
            call.state.width_of(value, part.size)
    offset, scale = (call.row_constant(part, value.seen) for part in parts)
    centred = call.make([value, offset], value.shape, FunctionNode("Sub"))
    return call.make([centred, scale], value.shape, FunctionNode("Mul"))


def _concat(call: Call) -> Value:
    """Return the two columns of a binary classifier, 1 - p and p."""
    if len(call.inputs) == 1:
        return call.data()
    one, two = call.inputs if len(call.inputs) == 2 else (None, None)
    if (
        isinstance(one, Value)
        and isinstance(two, Value)
        and one.shape == two.shape
        and one.shape[-1:] == (1,)
        and call.attributes.get("axis") in (-1, len(one.seen))
    ):
        for place, (rest, value) in enumerate(((one, two), (two, one))):
            if rest.operator == "Sub" and rest.inputs[1] is value and _is_one(rest.inputs[0]):
                return call.make([value], (*value.shape[:-1], 2), ColumnsNode(place))
    raise call.fail("it may put only 1 - p and p side by side, the two columns of a binary classifier")


def _is_one(value: Value | Array | None) -> bool:
    return isinstance(value, np.ndarray) and value.size == 1 and float(value.reshape(-1)[0]) == 1.0


def _transpose(call: Call) -> Value:
    value = call.data()
    rank = 1 + len(value.shape)
    if value.merged:
        raise call.fail("it moves axes where a Reshape has made rows of positions")
    order = list(call.attributes.get("perm", range(rank - 1, -1, -1)))
    moved = [axis for axis in order if 0 < axis < rank and value.shape[axis - 1] > 1]
    if len(order) != rank or order[:1] != [0] or moved != sorted(moved):
        raise call.fail(f"perm may only move axes of one element, got {order} for rows of shape {value.shape}")
    return _reshape_to(call, value, [BATCH, *(value.shape[axis - 1] for axis in order[1:])])


OPERATORS: dict[str, Rule] = {
    **{operator: rule for form in FORMS.values() for operator, rule in form.operators.items()},
    **dict.fromkeys(ONE_ARGUMENT, _same),
    **dict.fromkeys(TWO_ARGUMENTS, _elementwise),
    **dict.fromkeys(COMPARISONS, _elementwise),
    "Cast": _cast,
    "CastLike": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_mean,
    "Identity": _identity,
    "MatMul": _matmul,
    "ReduceMean": _reduce_mean,
    "Reshape": _reshape,
    "Shape": _shape,
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _squeeze,
    "Where": _where,
}
ML_OPERATORS: dict[str, Rule] = {"Scaler": _scaler}
