"""Following the nodes of an ONNX graph: what is constant is computed, the rest goes by the operators' rules."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from nbdense.export.read.file import CORE, OnnxFile, check_nodes, describe
from nbdense.export.read.functions.microsoft import MICROSOFT_FUNCTIONS
from nbdense.export.read.graph import (
    BATCH,
    LARGEST_ROW,
    TWO_ARGUMENTS,
    Call,
    NodeError,
    Trace,
    WidthUnknownError,
)
from nbdense.export.read.integers import INTEGER_OPERATORS, MICROSOFT_OPERATORS, Rule, fold_integers
from nbdense.export.read.operators import ML_OPERATORS, OPERATORS
from nbdense.export.read.softmax import softmax_part
from nbdense.export.read.tensors import Array
from nbdense.export.read.values import Value
from nbdense.files import FileFormatError

LARGEST_FOLDED = 2**26  # elements that a constant made of others may have
RULES: dict[str, dict[str, Rule]] = {
    **dict.fromkeys(CORE, OPERATORS | INTEGER_OPERATORS),
    "ai.onnx.ml": ML_OPERATORS,
    "com.microsoft": MICROSOFT_OPERATORS | MICROSOFT_FUNCTIONS,
}

# Operators on constants that are computed while a graph is read.
FOLDED = {
    *("Add", "Sub", "Mul", "Div", "Neg", "Sqrt", "Reciprocal", "Pow", "Exp", "Log", "Abs", "Cast", "CastLike"),
    *("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Concat", "Slice", "Gather", "Shape"),
    *("Min", "Max", "Dropout", "ConstantOfShape", "Mod"),
}
_GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
# Those that leave values as they are: a number of rows may go through them.
_MOVING = {"Cast", "Concat", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze"}


def trace(file: OnnxFile) -> tuple[Trace, Value]:
    """Follow a file's nodes: what is known then, and the output.

    Parameters
    ----------
    file : OnnxFile
        The file's content.

    Raises
    ------
    ValueError
        If an operator is not among those that are taken, or is used as no dense network uses it; the node is named.
    FileFormatError
        If the graph is not valid.
    """
    for node in file.nodes:
        check_operator(file, node)
    check_nodes(file)
    try:
        return _follow(Trace(file))
    except WidthUnknownError as unknown:
        try:
            return _follow(Trace(file, unknown.width))
        except WidthUnknownError as other:
            raise FileFormatError(
                f"{file.name}: its input has {unknown.width} columns for one node and {other.width} for another"
            ) from None


def check_operator(file: OnnxFile, node: onnx.NodeProto) -> None:
    """Refuse a node that no rule knows, before anything is computed.

    Parameters
    ----------
    file : OnnxFile
        The file, for the error.
    node : NodeProto
        The node.

    Raises
    ------
    ValueError
        Naming operator and node.
    """
    graphs = [attribute.name for attribute in node.attribute if attribute.type in _GRAPHS]
    if (node.op_type not in RULES.get(node.domain, {}) and not _is_folded(node)) or graphs:
        inside = f" (it holds a graph of its own, {graphs[0]!r})" if graphs else ""
        raise ValueError(
            f"{file.name}: {describe(node)}: from_onnx does not read this operator{inside}; "
            f"it reads {', '.join(sorted({name for rules in RULES.values() for name in rules}))}"
        )


def _is_folded(node: onnx.NodeProto) -> bool:
    return node.domain in CORE and node.op_type in FOLDED


def _follow(state: Trace) -> tuple[Trace, Value]:
    for node in state.file.nodes:
        call = Call(state, node)
        arrays = [value for value in call.inputs if isinstance(value, np.ndarray)]
        if len(arrays) == sum(value is not None for value in call.inputs):
            if node.op_type in ("DequantizeLinear", "QuantizeLinear") and node.domain in RULES:
                state.known[node.output[0]], integers = fold_integers(call)
                if integers is not None:
                    state.integers[node.output[0]] = integers
            else:
                state.known[node.output[0]] = _fold(call, arrays)
            source = node.input[0] if node.input else ""
            state.origin[node.output[0]] = state.origin.get(source, source)
            continue
        if node.op_type not in RULES.get(node.domain, {}):
            raise call.fail("it is supported only on constants, but its input depends on the data")
        try:
            part = softmax_part(call)
            made = RULES[node.domain][node.op_type](call) if part is None else part
        except (NodeError, FileFormatError):
            raise
        except ValueError as error:
            raise call.fail(str(error)) from error
        for name, value in zip(node.output, made if isinstance(made, tuple) else [made], strict=False):
            if isinstance(value, Value) and math.prod(value.shape) > LARGEST_ROW:
                raise FileFormatError(
                    f"{call.place}: rows of shape {value.shape} have more than {LARGEST_ROW} elements"
                )
            if name:
                state.known[name] = value
    output = state.known.get(state.file.output)
    if not isinstance(output, Value):
        raise ValueError(f"{state.file.name}: its output {state.file.output!r} does not depend on its input")
    if output.merged:
        raise ValueError(
            f"{output.place}: the output must have one row for each row of data, got several, of shape {output.shape}"
        )
    return state, output


def _fold(call: Call, inputs: list[Array]) -> Array:
    """Compute a node of constants."""
    state, node = call.state, call.node
    if not _is_folded(node):
        raise call.fail("it is not supported on constants alone; one of its inputs must depend on the data")
    if any(value.dtype.kind == "i" and (value == BATCH).any() for value in inputs) and node.op_type not in _MOVING:
        raise call.fail("it computes with the number of rows of data, which is not known")
    sizes = [value.size for value in inputs]
    if node.op_type == "ConstantOfShape":
        sizes = [abs(math.prod(int(n) for n in inputs[0].reshape(-1)))]
    elif node.op_type in TWO_ARGUMENTS:
        try:
            sizes.append(math.prod(np.broadcast_shapes(*(value.shape for value in inputs))))
        except ValueError as error:
            raise FileFormatError(f"{call.place}: {error}") from error
    elif node.op_type == "Gather" and len(inputs) == 2:
        sizes.append(inputs[0].size * inputs[1].size)
    if max(sizes, default=0) > max(LARGEST_FOLDED, sum(value.size for value in inputs)):
        raise FileFormatError(
            f"{call.place} would make a constant of {max(sizes)} elements; up to {LARGEST_FOLDED} are allowed"
        )
    kinds = [helper.np_dtype_to_tensor_dtype(value.dtype) for value in inputs]
    names = [name for name in node.input if name]
    ends = [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(names, kinds, strict=True)]
    ends = list({end.name: end for end in ends}.values())
    target = helper.make_tensor_value_info(node.output[0], TensorProto.UNDEFINED, None)
    graph = helper.make_graph([node], "constants", ends, [target])
    opset = helper.make_opsetid("", state.file.opset)
    try:
        with np.errstate(all="ignore"):
            evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=[opset]))
            results: Any = evaluator.run(node.output[:1], dict(zip(names, inputs, strict=True)))
    except Exception as error:  # of the reference's, which has no common class of its own
        raise FileFormatError(f"{call.place} cannot be computed: {error}") from error
    array = np.asarray(results[0])
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array
