"""Operators of quantized networks, as the same few values: QuantizeLinear, DequantizeLinear and dense layers.

QLinearMatMul, QGemm and their like are written as what they stand for, float operators between a DequantizeLinear and a
QuantizeLinear; MatMulInteger behind a DynamicQuantizeLinear as a dense layer that is marked. What is made of them, in
integers or in float, is decided later.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from nbdense.export.read.graph import Call, Value
from nbdense.export.read.tensors import Array

INDICES = (TensorProto.INT32, TensorProto.INT64)  # what integers are cast to before a table is read
_STEPS = {"int8": -128, "uint8": 0}


@dataclass(frozen=True, eq=False)
class Integers:
    """What a constant was before it was dequantized.

    Attributes
    ----------
    values : ndarray of integers
        As they are stored.
    scale, zero : ndarray
        Of all, or along an axis, or of blocks of it; no zero is 0.
    axis : int
        Along which there are several.
    block : int
        Elements a block; 0: there are none.
    """

    values: Array
    scale: Array
    zero: Array | None = None
    axis: int = 1
    block: int = 0

    @property
    def transposed(self) -> Integers:
        """Of the transposed matrix."""
        turned = [None if part is None else part.T if part.ndim == 2 else part for part in (self.scale, self.zero)]
        assert turned[0] is not None
        return dataclasses.replace(self, values=self.values.T, scale=turned[0], zero=turned[1], axis=1 - self.axis)

    def of_columns(self, bits: int = 8) -> tuple[Array, Array, Array | None, int]:
        """Return a kernel of int8 (n_in, n_out), its scales and zero points (blocks, n_out), and the inputs a block.

        The kernel is the integers less their zero points where the bits hold them: zero points are None then. Else both
        are as they are stored, those of unsigned types counted from their middle. A block of 0: all inputs.

        Parameters
        ----------
        bits : int
            That are to hold an integer.

        Raises
        ------
        ValueError
            If integers are wider, or scales lie along the inputs.
        """
        scales, zero = self._of_blocks(self.scale.astype(np.float32)), np.zeros((), np.int32)
        zero = zero if self.zero is None else self.zero.astype(np.int32)
        kernel, zeros = self.values - self._along(zero), None
        if not _fits(kernel, bits):
            middle = 2 ** (bits - 1) if self.values.dtype.kind == "u" else 0
            kernel = self.values.astype(np.int32) - middle
            zeros = np.broadcast_to(self._of_blocks(zero) - middle, scales.shape)
            if not _fits(kernel, bits) or not _fits(zeros, bits):
                raise ValueError(f"its weights are {self.values.dtype} and need more than {bits} bits")
        block = 0 if self.scale.size == 1 else self.block
        return kernel.astype(np.int8), scales, None if zeros is None else zeros.astype(np.int8), block

    def _of_blocks(self, part: Array) -> Array:
        """Scales or zero points as (blocks, n_out)."""
        n = self.values.shape[1]
        if part.size == 1:
            return np.full((1, n), part.reshape(-1)[0])
        if self.block and self.axis == 0 and part.ndim == 2:
            return part
        if self.block or self.axis != 1 or part.shape != (n,):
            raise ValueError("its weights have scales along their inputs")
        return part[None]

    @property
    def real(self) -> Array:
        """The numbers."""
        zero = self._along(np.zeros((), np.int32) if self.zero is None else self.zero.astype(np.int32))
        return (self.values.astype(np.int32) - zero).astype(np.float32) * self._along(self.scale.astype(np.float32))

    def _along(self, part: Array) -> Array:
        return along(part, self.values.shape, self.axis, self.block)


def _fits(values: Array, bits: int) -> bool:
    return bool(-(2 ** (bits - 1)) <= values.min(initial=0) and values.max(initial=0) < 2 ** (bits - 1))


def along(part: Array, shape: tuple[int, ...], axis: int, block: int) -> Array:
    """Scales or zero points, to be broadcast against what they are of.

    Parameters
    ----------
    part : ndarray
        One number; one for each place of the axis; or of the rank of the tensor, with one for each block.
    shape : tuple of int
        Of the tensor.
    axis : int
        Along which there are several.
    block : int
        Elements a block; 0: there are none.

    Raises
    ------
    ValueError
        If they do not fit.
    """
    if part.size == 1:
        return part.reshape(())
    if block and part.ndim == len(shape) and part.shape[axis] == -(-shape[axis] // block):
        repeated = np.repeat(part, block, axis)[(slice(None),) * axis + (slice(shape[axis]),)]
        if repeated.shape == shape:
            return repeated
    if not block and part.ndim == 1 and len(shape) > axis and part.size == shape[axis]:
        return part.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    raise ValueError(f"scales or zero points of shape {part.shape} do not fit a tensor of shape {shape}")


def fold_integers(call: Call) -> tuple[Array, Integers | None]:
    """A QuantizeLinear or DequantizeLinear of constants; of the latter also what it was made of.

    Parameters
    ----------
    call : Call
        The node.
    """
    values, scale, zero = (call.given(index) for index in range(3))
    values, scale = call.constant(values, "input"), call.constant(scale, "scale")
    zero = None if zero is None else call.constant(zero, "zero point")
    axis, block = call.attributes.get("axis", 1) % max(values.ndim, 1), call.attributes.get("block_size", 0)
    try:
        if call.node.op_type == "DequantizeLinear":
            held = Integers(values, scale, zero, axis, block)
            return held.real, held
        zero = np.zeros((), np.uint8) if zero is None else zero
        limits = np.iinfo(zero.dtype)
        steps = np.rint(values / along(scale, values.shape, axis, block)) + along(zero, values.shape, axis, block)
        return np.clip(steps, limits.min, limits.max).astype(zero.dtype), None
    except (ValueError, IndexError) as error:
        raise call.fail(f"it cannot be computed: {error}") from error


def _format(call: Call, first: int, what: str, dtype: str | None = None) -> dict[str, Any]:
    """Scale and zero point of an activation, from the inputs ``first`` and ``first + 1``."""
    scale = call.constant(call.given(first), f"{what}'s scale")
    given = call.given(first + 1)
    zero = np.zeros((), dtype or np.uint8) if given is None else call.constant(given, f"{what}'s zero point")
    if scale.size != 1 or zero.size != 1 or scale.dtype.kind != "f":
        raise call.fail(f"{what} has several scales; one is taken")
    number = float(np.float32(scale.reshape(-1)[0]))
    if not (0 < number < math.inf) or zero.dtype.kind not in "iu":
        raise call.fail(f"{what} has scale {number} and a zero point of type {zero.dtype}")
    return {"scale": number, "zero": int(zero.reshape(-1)[0]), "dtype": zero.dtype.name}


def _real(call: Call, value: Value, said: dict[str, Any]) -> Value:
    """The DequantizeLinear of an integer value."""
    if value.operator == "Lookup" and "scale" not in value.settings:
        value.settings.update({**said, "dtype": value.settings["dtype"]})
    if not value.is_integer:
        raise call.fail("what it takes for integers is none")
    held = {key: value.settings[key] for key in ("scale", "zero")}
    if held != {key: said[key] for key in held}:
        raise call.fail(f"it reads {held} with scale {said['scale']} and zero point {said['zero']}")
    return call.make([value], value.shape, operator="DequantizeLinear")


def _integer(call: Call, value: Value, said: dict[str, Any]) -> Value:
    return call.make([value], value.shape, said, "QuantizeLinear")


def _quantize(call: Call) -> Value:
    value = call.data()
    if value.is_integer:
        raise call.fail("what it quantizes is quantized")
    kinds = {TensorProto.INT8: "int8", TensorProto.INT16: "int16", TensorProto.UINT16: "uint16"}
    return _integer(call, value, _format(call, 1, "its output", kinds.get(call.attributes.get("output_dtype", 0))))


def _dequantize(call: Call) -> Value:
    value = call.data()
    return _real(call, value, _format(call, 1, "its input", value.settings.get("dtype")))


def _input(call: Call, index: int, what: str = "its input") -> Value:
    """An input and its scale and zero point behind it, as real numbers; constants are computed."""
    value, said = call.given(index), _format(call, index + 1, what)
    if isinstance(value, Value):
        return _real(call, value, said)
    raise call.fail(f"{what} does not depend on the data")


def integers_through(call: Call, value: Value, change: Callable[[Value], Value]) -> Value:
    """What a change of shape makes of integers.

    Parameters
    ----------
    call : Call
        The node.
    value : Value
        The integers.
    change : callable
        What makes another real Value of one.
    """
    said = value.settings
    if "scale" not in said:
        raise call.fail("the scale of the integers that it reads is not known")
    return _integer(call, change(_real(call, value, said)), said)


def clip_integers(call: Call, value: Value) -> Value:
    """A clamp of integers, as one of the real numbers that they stand for.

    Parameters
    ----------
    call : Call
        The node.
    value : Value
        The integers.
    """
    if value.operator != "QuantizeLinear" or len(call.inputs) != 3:
        raise call.fail("it clamps integers that are no layer's")
    said = value.settings
    least, most = (int(call.constant(given, "bound").reshape(-1)[0]) for given in call.inputs[1:])
    low = _STEPS.get(said["dtype"], 0)
    bounds = {
        "min": -math.inf if least == low else (least - said["zero"]) * said["scale"],
        "max": math.inf if most == low + 255 else (most - said["zero"]) * said["scale"],
    }
    real = value.values[0]
    return _integer(call, call.make([real], real.shape, bounds, "Clip"), said)


def _lookup(call: Call) -> Value:
    """A table of 256 entries, read by integers."""
    index = call.given(1)
    table = call.given(0)
    fits = isinstance(table, np.ndarray) and table.shape == (256,) and table.dtype.name in _STEPS
    if not fits or not isinstance(index, Value) or not index.is_integer or call.attributes.get("axis", 0) != 0:
        raise call.fail("it reads more than a table of 256 integers")
    assert isinstance(table, np.ndarray)
    kind = index.settings["dtype"]
    # Gather counts negative indices from the end.
    entries = table[np.arange(_STEPS[kind], _STEPS[kind] + 256) % 256] if kind in _STEPS else table
    if index.operator == "Lookup":  # a table of a table is one: what the integers between stand for, nobody says
        entries = entries[index.settings["table"].astype(np.int64) - _STEPS[kind]]
        index = index.values[0]
    return call.make([index], index.shape, {"table": entries, "dtype": table.dtype.name}, "Lookup")


def _reduce(call: Call) -> Value:
    raise call.fail("only of integers is it taken, in a softmax")


def _kernel(call: Call, first: int, rows: bool = False) -> Integers:
    """Weights, scale and zero point from three inputs; ``rows``: [n_out, n_in]."""
    parts = [call.constant(call.given(first + i), "weights") for i in range(2)]
    zero = call.given(first + 2)
    values, scale = parts
    if values.ndim != 2 or values.dtype.kind not in "iu":
        raise call.fail(f"its weights must be a matrix of integers, got {values.dtype} {values.shape}")
    found = Integers(values, scale, None if zero is None else call.constant(zero, "weights' zero point"))
    found = found.transposed if rows else found
    if scale.size not in (1, found.values.shape[1]) or (
        found.zero is not None and found.zero.size not in (1, scale.size)
    ):
        raise call.fail("its weights' scales and zero points do not fit them")
    flat = [
        None if part is None else part.reshape(-1) if part.size > 1 else part.reshape(())
        for part in (scale, found.zero)
    ]
    assert flat[0] is not None
    return Integers(found.values, flat[0], flat[1])


def _dense(call: Call, value: Value, kernel: Integers, bias: Array | None = None, **settings: Any) -> Value:
    return call.dense(value, kernel.real, bias, {"kernel": kernel, **settings})


def _qlinear_matmul(call: Call) -> Value:
    product = _dense(call, _input(call, 0), _kernel(call, 3))
    return _integer(call, product, _format(call, 6, "its output"))


def _qgemm(call: Call) -> Value:
    if call.attributes.get("transA", 0) or call.attributes.get("alpha", 1.0) != 1.0:
        raise call.fail("transA and alpha are not taken")
    value, kernel = _input(call, 0), _kernel(call, 3, rows=bool(call.attributes.get("transB", 0)))
    bias, settings = call.given(6), {}
    if bias is not None:
        held = call.constant(bias, "bias")
        if held.shape != kernel.values.shape[1:] and held.size != 1:
            raise call.fail(f"its bias of shape {held.shape} does not fit {kernel.values.shape[1]} outputs")
        scale = np.float32(_format(call, 1, "its input")["scale"]) * kernel.scale.astype(np.float32)
        integers = Integers(np.broadcast_to(held.reshape(-1), kernel.values.shape[1:]), scale, axis=0)
        settings = {"bias": integers}
    real = settings["bias"].real if settings else None
    product = call.dense(value, kernel.real, real, {"kernel": kernel, **settings})
    return product if call.given(7) is None else _integer(call, product, _format(call, 7, "its output"))


def _qlinear_add(call: Call) -> Value:
    parts: list[Value | Array | None] = []
    for first in (0, 3):
        given = call.given(first)
        if isinstance(given, Value):
            parts.append(_input(call, first))
        else:
            said = _format(call, first + 1, "a constant")
            array = call.constant(given, "other input")
            parts.append(Integers(array, np.float32(said["scale"]) + np.zeros(()), np.array(said["zero"])).real)
    values = [part for part in parts if isinstance(part, Value)]
    cut = [part if isinstance(part, Value) else call.row_constant(np.asarray(part), values[0].seen) for part in parts]
    if len({value.shape for value in values}) != 1:
        raise call.fail("its inputs have rows of different shapes")
    total = call.make(cut, values[0].shape, operator="Add")
    return _integer(call, total, _format(call, 6, "its output"))


def _qlinear(operator: str, first: int = 3) -> Callable[[Call], Value]:
    """An activation of integers."""

    def rule(call: Call) -> Value:
        value = _input(call, 0)
        if operator == "Softmax" and call.attributes.get("axis", -1) not in (-1, len(value.seen)):
            raise call.fail("softmax over the last axis is taken")
        made = call.make([value], value.shape, call.attributes, operator)
        return _integer(call, made, _format(call, first, "its output"))

    return rule


# -- dynamic -------------------------------------------------------------------------------------------------------


def _dynamic_quantize(call: Call) -> tuple[Value, ...]:
    value = call.data()
    return tuple(
        call.make([value], shape, operator=operator)
        for operator, shape in (("DynamicIntegers", value.shape), ("DynamicScale", ()), ("DynamicZero", ()))
    )


def _matmul_integer(call: Call) -> Value:
    integers, zero = call.data(), call.given(2)
    source = integers.values[0] if integers.operator == "DynamicIntegers" else None
    if source is None or not isinstance(zero, Value) or zero.operator != "DynamicZero" or zero.values[0] is not source:
        raise call.fail("what it multiplies does not come, with its zero point, from a DynamicQuantizeLinear")
    values = call.constant(call.given(1), "weights")
    zeros = call.given(3)
    if values.ndim != 2 or values.dtype.kind not in "iu" or source.shape[-1:] != values.shape[:1]:
        raise call.fail(f"weights of {values.dtype} {values.shape} do not fit rows of shape {source.shape}")
    kernel = Integers(values, np.ones((), np.float32), None if zeros is None else call.constant(zeros, "zero point"))
    shape = (*source.shape[:-1], values.shape[1])
    return call.make([source], shape, {"kernel": kernel}, "Accumulator", call.node.input[1])


def scaled_product(call: Call) -> Value | tuple[Value, Array, None, dict[str, Any]] | None:
    """What a Mul makes of a MatMulInteger or of the scales behind it: a dense layer, at the end; None: nothing.

    Parameters
    ----------
    call : Call
        The node.
    """
    if len(call.inputs) != 2:
        return None
    one, two = call.inputs
    if isinstance(two, Value) and two.operator in ("Accumulator", "DynamicScale"):
        one, two = two, one
    if not isinstance(one, Value) or one.operator not in ("Accumulator", "DynamicScale"):
        return None
    if isinstance(two, Value) and two.operator == "Accumulator":
        one, two = two, one
    assert isinstance(one, Value)
    if isinstance(two, np.ndarray):
        factor = two.reshape(-1) if two.size > 1 else two.reshape(())
        settings = {**one.settings, "factor": factor * one.settings.get("factor", np.float32(1))}
    elif isinstance(two, Value) and two.operator == "DynamicScale" and two.values[0] is one.values[0]:
        factor = two.settings.get("factor", np.float32(1)) * one.settings.get("factor", np.float32(1))
        settings = {**one.settings, "factor": factor, "scaled": True}
    else:
        raise call.fail("it does not scale what it multiplies by its own scale")
    held = settings.get("kernel")
    if held is None or not settings.get("scaled") or (np.ndim(settings["factor"]) == 0 and settings["factor"] == 1):
        return call.make([one.values[0]], one.shape, settings, one.operator, one.name)
    scale = np.asarray(settings["factor"], np.float32)
    if scale.size not in (1, held.values.shape[1]):
        raise call.fail(f"{scale.size} scales do not fit {held.values.shape[1]} outputs")
    kernel = dataclasses.replace(held, scale=scale)
    return one.values[0], kernel.real, None, {"kernel": kernel, "dynamic": True}


def _dynamic_matmul(call: Call) -> Value:
    """DynamicQuantizeMatMul: what onnxruntime's optimizations make of the above."""
    found = Integers(call.constant(call.given(1), "weights"), call.constant(call.given(2), "weights' scale"))
    zero = call.given(3)
    kernel = dataclasses.replace(found, zero=None if zero is None else call.constant(zero, "zero point"))
    bias = call.given(4)
    held = None if bias is None else call.constant(bias, "bias").reshape(-1)
    return _dense(call, call.data(), kernel, held, dynamic=True)


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
    "Gelu": lambda call: call.make([call.data()], call.data().shape),
    "QGemm": _qgemm,
    "QLinearAdd": _qlinear_add,
    "QLinearLeakyRelu": _qlinear("LeakyRelu"),
    "QLinearSigmoid": _qlinear("Sigmoid"),
    "QLinearSoftmax": _qlinear("Softmax"),
    "QuantizeLinear": _quantize,
}
