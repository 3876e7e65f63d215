"""An ONNX graph as tensors that depend on the data: shapes of one row, constants folded, operators by their names.

`trace` follows the nodes once. What depends on constants alone is computed (by onnx's reference implementation of a
handful of operators that make nothing larger than what goes in); the rest becomes `Value`s, each with the shape that a
row of data has there. What these mean as layers is `import_layers`' part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from nbdense.export.import_file import CORE, FLOATS, ML, Array, OnnxFile, check_nodes, describe
from nbdense.files import FileFormatError

LARGEST_ROW = 2**24  # elements that one row of data may have, anywhere in the network
LARGEST_FOLDED = 2**26  # elements that a constant made of others may have
BATCH = -(2**40) - 7  # stands for the number of rows where a graph computes with shapes
MICROSOFT = "com.microsoft"

# Operators on constants that are computed while a graph is read.
FOLDED = {
    *("Add", "Sub", "Mul", "Div", "Neg", "Sqrt", "Reciprocal", "Pow", "Exp", "Log", "Abs", "Cast", "CastLike"),
    *("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Concat", "Slice", "Gather", "Shape"),
    *("DequantizeLinear", "QuantizeLinear", "Min", "Max", "Dropout", "ConstantOfShape"),
}
# Those that leave values as they are: a number of rows may go through them.
_MOVING = {"Cast", "Concat", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze"}

ONE_ARGUMENT = {  # elementwise; what they take beside it are attributes
    *("Relu", "Sigmoid", "Tanh", "Elu", "LeakyRelu", "Selu", "Softplus", "HardSigmoid", "HardSwish", "Gelu", "Swish"),
    *("Mish", "Celu", "Erf", "Exp", "Log", "Neg", "Sqrt", "Reciprocal", "Abs"),
}
TWO_ARGUMENTS = {"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "PRelu", "Sum"}
COMPARISONS = {"Greater", "GreaterOrEqual", "Less", "LessOrEqual"}
ELEMENTWISE = ONE_ARGUMENT | TWO_ARGUMENTS | COMPARISONS | {"Clip", "Where"}


class Value:
    """A tensor that depends on the data.

    Parameters
    ----------
    operator : str
        What makes it: ONNX's operator, or "input".
    inputs : sequence of Value, ndarray or None
        Of what. Constants that meet values elementwise are cut to the shape of one row.
    shape : tuple of int
        Of one row of data.
    place : str
        What errors call it.
    settings : dict, optional
        The operator's attributes.
    name : str
        What the file calls its weights; may be empty.
    """

    def __init__(
        self,
        operator: str,
        inputs: Sequence[Value | Array | None],
        shape: tuple[int, ...],
        place: str,
        settings: dict[str, Any] | None = None,
        name: str = "",
    ) -> None:
        self.operator, self.inputs, self.shape, self.place = operator, list(inputs), shape, place
        self.settings, self.name = settings or {}, name
        self.dominator = common([value for value in inputs if isinstance(value, Value)])
        self.depth: int = 0 if self.dominator is None else self.dominator.depth + 1

    @property
    def values(self) -> list[Value]:
        """Those of its inputs that depend on the data."""
        return [value for value in self.inputs if isinstance(value, Value)]


def common(values: list[Value]) -> Value | None:
    """The nearest value through which everything from the input to these must go (itself among them, if one).

    Parameters
    ----------
    values : list of Value
        At least one, or none.
    """
    if not values:
        return None
    found: Value | None = values[0]
    for other in values[1:]:
        one: Value | None = other
        while found is not one:
            if found is None or one is None:
                return None
            if found.depth >= one.depth:
                found = found.dominator
            else:
                one = one.dominator
    return found


class WidthUnknownError(Exception):
    """A width was needed that the file does not say; it is ``width``."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.width = width


class Trace:
    """What is known while the nodes of a file are followed.

    Parameters
    ----------
    file : OnnxFile
        The file.
    width : int, optional
        Columns of the input, where the file does not say.

    Attributes
    ----------
    known : dict of str to Value or ndarray
        All tensors so far.
    input : Value
        The input.
    """

    def __init__(self, file: OnnxFile, width: int | None = None) -> None:
        self.file = file
        self.batch: int | None = None
        self.known: dict[str, Value | Array] = {}
        self.origin: dict[str, str] = {}  # of constants that were made of one other: its name
        shape, self.width_known = self._input_shape(width)
        self.input = Value("input", [], shape, f"input {file.input.name!r}")
        self.known[file.input.name] = self.input

    def _input_shape(self, width: int | None) -> tuple[tuple[int, ...], bool]:
        where = f"{self.file.name}: input {self.file.input.name!r}"
        kind = self.file.input.type.tensor_type
        if not self.file.input.type.HasField("tensor_type") or kind.elem_type in (
            TensorProto.STRING,
            TensorProto.BOOL,
            TensorProto.COMPLEX64,
            TensorProto.COMPLEX128,
        ):
            raise ValueError(f"{where} is no tensor of numbers")
        dims = list(kind.shape.dim) if kind.HasField("shape") else None
        if dims is None:
            return (width or 1,), width is not None
        if not dims:
            raise ValueError(f"{where} is one number; a network takes rows")
        if dims[0].HasField("dim_value"):
            self.batch = dims[0].dim_value
        shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in dims[1:]]
        if any(n is not None and n < 1 for n in shape) or math.prod(n or 1 for n in shape) > LARGEST_ROW:
            raise FileFormatError(f"{where} claims rows of shape {shape}; they may have up to {LARGEST_ROW} elements")
        if shape and shape[-1] is None:
            shape[-1] = width or 1
            unknown = width is None
        else:
            unknown = False
        if any(n is None for n in shape):
            raise ValueError(f"{where}: only its number of rows may be open, its shape is [rows, {shape}]")
        return tuple(n for n in shape if n is not None), not unknown

    def get(self, name: str) -> Value | Array | None:
        """A tensor by its name; None for one that was left out.

        Parameters
        ----------
        name : str
            Its name, or "".
        """
        if not name:
            return None
        return self.known[name] if name in self.known else self.file.constants[name]

    @property
    def dtype(self) -> str:
        """ "float64" where the file computes in it, else "float32"."""
        if self.file.input.type.tensor_type.elem_type == TensorProto.DOUBLE:
            return "float64"
        arrays = [part for value in self.known.values() if isinstance(value, Value) for part in value.inputs]
        return (
            "float64"
            if any(isinstance(part, np.ndarray) and part.dtype == np.float64 for part in arrays)
            else "float32"
        )

    def fail(self, node: onnx.NodeProto, why: str) -> ValueError:
        """An error that names the node.

        Parameters
        ----------
        node : NodeProto
            The node.
        why : str
            What it cannot.
        """
        return ValueError(f"{self.file.name}: {describe(node)}: {why}")

    def width_of(self, value: Value, wanted: int) -> None:
        """Take note that a value must have so many columns, where its width has not been known.

        Parameters
        ----------
        value : Value
            The value.
        wanted : int
            Its columns.
        """
        if not self.width_known and value.shape and value.shape[-1] != wanted and value.shape == self.input.shape:
            raise WidthUnknownError(wanted)


def trace(file: OnnxFile) -> tuple[Trace, Value]:
    """Follow a file's nodes: what is known then, and the output.

    Parameters
    ----------
    file : OnnxFile
        What was read.

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
    except WidthUnknownError as found:
        try:
            return _follow(Trace(file, found.width))
        except WidthUnknownError as other:
            raise FileFormatError(
                f"{file.name}: its input has {found.width} columns for one node and {other.width} for another"
            ) from None


def check_operator(file: OnnxFile, node: onnx.NodeProto) -> None:
    """Refuse a node that no rule knows, before anything is computed.

    Parameters
    ----------
    file : OnnxFile
        For the error.
    node : NodeProto
        The node.

    Raises
    ------
    ValueError
        Naming operator and node.
    """
    graphs = [attribute.name for attribute in node.attribute if attribute.type in (5, 10)]  # GRAPH, GRAPHS
    known = OPERATORS if node.domain in CORE else OTHER_OPERATORS.get(node.domain, {})
    if node.op_type not in known and not (node.domain in CORE and node.op_type in FOLDED) or graphs:
        inside = f" (it holds a graph of its own, {graphs[0]!r})" if graphs else ""
        raise ValueError(
            f"{file.name}: {describe(node)} is no operator that from_onnx takes{inside}; "
            f"it takes {', '.join(sorted(OPERATORS))}"
        )


def _used(state: Trace, names: Sequence[str]) -> bool:
    """Whether a node or the output reads one of these tensors."""
    read = {name for node in state.file.nodes for name in node.input} | {state.file.output}
    return any(name in read for name in names if name)


def _follow(state: Trace) -> tuple[Trace, Value]:
    for node in state.file.nodes:
        inputs = [state.get(name) for name in node.input]
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if all(value is None or isinstance(value, np.ndarray) for value in inputs):
            made: Value | Array = _fold(state, node, [value for value in inputs if isinstance(value, np.ndarray)])
            sources = [state.origin.get(name, name) for name in node.input[:1]]
            state.origin[node.output[0]] = sources[0] if sources else ""
        else:
            known = OPERATORS if node.domain in CORE else OTHER_OPERATORS[node.domain]
            if node.op_type not in known:
                raise state.fail(node, "it cannot be computed with what depends on the data")
            made = known[node.op_type](state, node, inputs, attributes)
            if isinstance(made, Value) and math.prod(made.shape) > LARGEST_ROW:
                raise state.fail(node, f"rows of shape {made.shape} are larger than {LARGEST_ROW} elements")
        state.known[node.output[0]] = made
    output = state.known.get(state.file.output)
    if not isinstance(output, Value):
        raise ValueError(f"{state.file.name}: its output {state.file.output!r} does not depend on its input")
    return state, output


def _fold(state: Trace, node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """Compute a node of constants."""
    if node.domain not in CORE or node.op_type not in FOLDED:
        raise state.fail(node, "it is not computed of constants alone")
    if any(value.dtype == np.int64 and (value == BATCH).any() for value in inputs) and node.op_type not in _MOVING:
        raise state.fail(node, "it computes with the number of rows")
    sizes = [value.size for value in inputs]
    if node.op_type == "ConstantOfShape":
        sizes = [abs(math.prod(int(n) for n in inputs[0].reshape(-1)))]
    elif node.op_type in TWO_ARGUMENTS:
        try:
            sizes.append(math.prod(np.broadcast_shapes(*(value.shape for value in inputs))))
        except ValueError as error:
            raise FileFormatError(f"{state.file.name}: {describe(node)}: {error}") from error
    elif node.op_type == "Gather" and len(inputs) == 2:
        sizes.append(inputs[0].size * inputs[1].size)
    if max(sizes, default=0) > max(LARGEST_FOLDED, sum(value.size for value in inputs)):
        raise FileFormatError(f"{state.file.name}: {describe(node)} would make a constant of {max(sizes)} elements")
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
            made = evaluator.run(node.output[:1], dict(zip(names, inputs, strict=True)))[0]
    except Exception as error:  # of the reference's, which has no common class of its own
        raise FileFormatError(f"{state.file.name}: {describe(node)} cannot be computed: {error}") from error
    array = np.asarray(made)
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array


# -- operators -----------------------------------------------------------------------------------------------------

Rule = Callable[[Trace, onnx.NodeProto, "list[Value | Array | None]", "dict[str, Any]"], "Value | Array"]


def make(
    state: Trace,
    node: onnx.NodeProto,
    inputs: Sequence[Value | Array | None],
    shape: tuple[int, ...],
    settings: dict[str, Any] | None = None,
    operator: str = "",
    name: str = "",
) -> Value:
    """A Value of a node.

    Parameters
    ----------
    state : Trace
        Where.
    node : NodeProto
        The node.
    inputs : sequence of Value, ndarray or None
        Its inputs.
    shape : tuple of int
        Of one row.
    settings : dict, optional
        Attributes.
    operator : str
        Another name than the node's.
    name : str
        Of its weights.
    """
    place = f"{state.file.name}: {describe(node)}"
    return Value(operator or node.op_type, inputs, shape, place, settings, name)


def data(state: Trace, node: onnx.NodeProto, value: Value | Array | None) -> Value:
    """The input of a node that must depend on the data.

    Parameters
    ----------
    state : Trace
        Where.
    node : NodeProto
        The node.
    value : Value, ndarray or None
        What is there.
    """
    if not isinstance(value, Value):
        raise state.fail(node, "its first input does not depend on the data; weights are the second of a dense layer")
    return value


def constant(state: Trace, node: onnx.NodeProto, value: Value | Array | None, what: str) -> Array:
    """The input of a node that must be constant.

    Parameters
    ----------
    state : Trace
        Where.
    node : NodeProto
        The node.
    value : Value, ndarray or None
        What is there.
    what : str
        What the error calls it.
    """
    if not isinstance(value, np.ndarray):
        raise state.fail(node, f"its {what} must be {'there' if value is None else 'constant'}")
    return value


def row_constant(state: Trace, node: onnx.NodeProto, array: Array, shape: tuple[int, ...]) -> Array:
    """A constant that meets a value elementwise, cut to what broadcasts against the shape of one row.

    Parameters
    ----------
    state : Trace
        Where.
    node : NodeProto
        The node.
    array : ndarray
        As the node reads it, against [rows, *shape].
    shape : tuple of int
        Of one row.
    """
    if array.dtype.kind not in "fiu":
        raise state.fail(node, f"its constant is of type {array.dtype}")
    if array.size == 1 and array.ndim <= len(shape) + 1:
        return array.reshape(())
    if array.ndim > len(shape):
        if array.ndim > len(shape) + 1 or array.shape[0] == 0:
            raise state.fail(node, f"its constant of shape {array.shape} has more axes than rows of shape {shape}")
        if array.shape[0] != 1 and not (array == array[:1]).all():
            raise state.fail(node, f"its constant of shape {array.shape} differs from row to row of the data")
        array = array[0]
    try:
        fits = np.broadcast_shapes(array.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise state.fail(node, f"its constant of shape {array.shape} does not fit rows of shape {shape}")
    return array


def _same(state: Trace, node: onnx.NodeProto, inputs: list[Value | Array | None], attributes: dict[str, Any]) -> Value:
    """An operator of one argument, elementwise."""
    value = data(state, node, inputs[0])
    return make(state, node, [value], value.shape, attributes)


def _elementwise(
    state: Trace, node: onnx.NodeProto, inputs: list[Value | Array | None], attributes: dict[str, Any]
) -> Value:
    """Two arguments, one of which may be constant."""
    if len(inputs) == 1:
        return make(state, node, inputs, data(state, node, inputs[0]).shape, operator="Identity")
    if len(inputs) != 2:
        raise state.fail(node, f"it has {len(inputs)} inputs; two are taken")
    one, two = inputs
    if isinstance(one, Value) and isinstance(two, Value):
        shapes = one.shape, two.shape
        # What is narrower must be so on the last axis alone: a mean over it, for instance.
        narrow = [shape[:-1] + (1,) for shape in shapes]
        if one.shape != two.shape and not (one.shape and two.shape and shapes[0] in narrow or shapes[1] in narrow):
            raise state.fail(node, f"rows of shapes {one.shape} and {two.shape} do not meet element by element")
        shape = max(shapes, key=lambda shape: shape[-1:] or (0,))
        if one.shape[:-1] != two.shape[:-1]:
            raise state.fail(node, f"rows of shapes {one.shape} and {two.shape} do not meet element by element")
        return make(state, node, [one, two], shape)
    value, array = (one, two) if isinstance(one, Value) else (two, one)
    assert isinstance(value, Value)
    array = constant(state, node, array, "other input")
    if array.ndim and array.shape[-1] != 1:
        state.width_of(value, array.shape[-1])
    cut = row_constant(state, node, array, value.shape)
    return make(state, node, [cut if other is not value else value for other in inputs], value.shape)


def _where(state: Trace, node: onnx.NodeProto, inputs: list[Value | Array | None], attributes: dict[str, Any]) -> Value:
    """One of two, by a comparison: a part of decomposed activations."""
    shapes = {part.shape for part in inputs if isinstance(part, Value)}
    if len(inputs) != 3 or len(shapes) != 1:
        raise state.fail(node, f"its inputs have rows of different shapes, {sorted(shapes)}")
    shape = shapes.pop()
    parts = [
        row_constant(state, node, part.astype(np.uint8) if part.dtype == bool else part, shape)
        if isinstance(part, np.ndarray)
        else part
        for part in inputs
    ]
    return make(state, node, parts, shape)


def _clip(state: Trace, node: onnx.NodeProto, inputs: list[Value | Array | None], attributes: dict[str, Any]) -> Value:
    value = data(state, node, inputs[0])
    ends = []
    for index, (what, none) in enumerate((("min", -math.inf), ("max", math.inf)), start=1):
        given = inputs[index] if index < len(inputs) else None
        if given is None:
            ends.append(float(attributes.get(what, none)))
            continue
        array = constant(state, node, given, what)
        if array.size != 1 or array.dtype.kind not in "fiu":
            raise state.fail(node, f"its {what} must be one number")
        ends.append(float(array.reshape(-1)[0]))
    return make(state, node, [value], value.shape, {"min": ends[0], "max": ends[1]})


def _softmax(
    state: Trace, node: onnx.NodeProto, inputs: list[Value | Array | None], attributes: dict[str, Any]
) -> Value:
    value = data(state, node, inputs[0])
    rank = 1 + len(value.shape)
    axis = attributes.get("axis", -1 if state.file.opset >= 13 else 1)
    if rank == 1 or axis not in (-1, rank - 1):  # until opset 12 it was over all axes from this one on
        raise state.fail(node, f"softmax over axis {axis} of {rank}; the last is taken")
    if value.shape[-1] == 1:
        raise state.fail(node, "softmax over one column is always 1")
    return make(state, node, [value], value.shape)


def _matmul(
    state: Trace, node: onnx.NodeProto, inputs: list[Value | Array | None], attributes: dict[str, Any]
) -> Value:
    value = data(state, node, inputs[0])
    kernel = constant(state, node, inputs[1], "second input")
    return _product(state, node, value, kernel, None, node.input[1])


def _product(state: Trace, node: onnx.NodeProto, value: Value, kernel: Array, bias: Array | None, name: str) -> Value:
    """A dense layer."""
    if kernel.ndim != 2 or not kernel.size or kernel.dtype.kind != "f":
        raise state.fail(node, f"its weights must be a matrix of real numbers, got {kernel.dtype} {kernel.shape}")
    if not value.shape:
        raise state.fail(node, "its rows have no columns")
    state.width_of(value, kernel.shape[0])
    if value.shape[-1] != kernel.shape[0]:
        raise state.fail(node, f"weights of shape {kernel.shape} do not fit rows of shape {value.shape}")
    shape = (*value.shape[:-1], kernel.shape[1])
    return make(state, node, [value, kernel, bias], shape, {}, "Dense", state.origin.get(name, name))


def _gemm(state: Trace, node: onnx.NodeProto, inputs: list[Value | Array | None], attributes: dict[str, Any]) -> Value:
    value = data(state, node, inputs[0])
    if attributes.get("transA", 0):
        raise state.fail(node, "transA=1: its columns are rows of data")
    if len(value.shape) != 1:
        raise state.fail(node, f"it takes rows of one axis, got {value.shape}")
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    kernel = constant(state, node, inputs[1], "second input")
    if kernel.ndim == 2 and attributes.get("transB", 0):
        kernel = kernel.T
    if alpha != 1.0:
        kernel = (kernel * np.float64(alpha)).astype(kernel.dtype)
    added = inputs[2] if len(inputs) > 2 else None
    if isinstance(added, np.ndarray):
        bias = row_constant(state, node, added, kernel.shape[1:])
        bias = np.broadcast_to(bias if beta == 1.0 else (bias * np.float64(beta)).astype(bias.dtype), kernel.shape[1:])
        return _product(state, node, value, kernel, bias, node.input[1])
    product = _product(state, node, value, kernel, None, node.input[1])
    if added is None or beta == 0.0:
        return product
    if beta != 1.0 or added.shape != product.shape:
        raise state.fail(node, "what it adds is neither constant nor the same size as its output")
    return make(state, node, [product, added], product.shape, operator="Add")


def _batch_norm(
    state: Trace, node: onnx.NodeProto, inputs: list[Value | Array | None], attributes: dict[str, Any]
) -> Value:
    value = data(state, node, inputs[0])
    if attributes.get("training_mode", 0) or _used(state, node.output[1:]):
        raise state.fail(node, "it is in training mode: export the model for inference")
    if len(value.shape) != 1:
        raise state.fail(node, f"its channels are the first axis of rows of shape {value.shape}; one axis is taken")
    arrays = [constant(state, node, given, "statistics") for given in inputs[1:5]]
    state.width_of(value, arrays[0].size)
    if len(arrays) != 4 or any(array.shape != value.shape or array.dtype.kind != "f" for array in arrays):
        raise state.fail(node, f"scale, bias, mean and variance must have {value.shape[0]} elements each")
    epsilon, momentum = float(attributes.get("epsilon", 1e-5)), float(attributes.get("momentum", 0.9))
    if not (arrays[3].astype(np.float64) + epsilon > 0).all() or epsilon < 0:
        raise state.fail(node, "its variance plus epsilon is not above zero everywhere")
    settings = {"epsilon": epsilon, "momentum": momentum}
    name = state.origin.get(node.input[1], node.input[1])
    return make(state, node, [value, *arrays], value.shape, settings, name=name)


def _layer_norm(
    state: Trace, node: onnx.NodeProto, inputs: list[Value | Array | None], attributes: dict[str, Any]
) -> Value:
    value = data(state, node, inputs[0])
    axis = attributes.get("axis", -1)
    if not value.shape or axis not in (-1, len(value.shape)):
        raise state.fail(node, f"it normalises from axis {axis} on; the last alone is taken")
    if _used(state, node.output[1:]):
        raise state.fail(node, "its mean or deviation is read; its output alone is taken")
    gamma = constant(state, node, inputs[1], "scale")
    beta = inputs[2] if len(inputs) > 2 else None
    state.width_of(value, gamma.size)
    parts = [gamma] if beta is None else [gamma, constant(state, node, beta, "bias")]
    if any(part.dtype.kind != "f" or part.size not in (1, value.shape[-1]) for part in parts):
        raise state.fail(node, f"scale and bias must have {value.shape[-1]} elements each")
    parts = [np.broadcast_to(part.reshape(-1), value.shape[-1:]) for part in parts]
    epsilon = float(attributes.get("epsilon", 1e-5))
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise state.fail(node, f"epsilon must be above 0, got {epsilon}")
    name = state.origin.get(node.input[1], node.input[1])
    return make(state, node, [value, *parts], value.shape, {"epsilon": epsilon}, name=name)


def _reduce_mean(
    state: Trace, node: onnx.NodeProto, inputs: list[Value | Array | None], attributes: dict[str, Any]
) -> Value:
    value = data(state, node, inputs[0])
    axes = inputs[1] if len(inputs) > 1 else attributes.get("axes")
    listed = [] if axes is None else [int(axis) for axis in np.asarray(axes).reshape(-1)]
    if listed not in ([-1], [len(value.shape)]) or not attributes.get("keepdims", 1) or not value.shape:
        raise state.fail(node, "only a mean over the last axis, kept, is taken: in a layer normalisation")
    return make(state, node, [value], (*value.shape[:-1], 1))


def _reshape_to(state: Trace, node: onnx.NodeProto, value: Value, shape: list[int | None]) -> Value:
    """Rows of another shape; the first entry is of the batch, None: whatever makes it fit."""
    total = math.prod(value.shape)
    batch, rest = shape[0], shape[1:]
    known = math.prod(n for n in rest if n is not None)
    if None in rest and (known == 0 or total % known):
        raise state.fail(node, f"rows of shape {value.shape} do not become {rest}")
    row = tuple(total // known if n is None else n for n in rest)
    kept = batch in (BATCH, None) or (state.batch is not None and batch == state.batch)
    if math.prod(row) != total or not kept:
        said = [-1 if n in (None, BATCH) else n for n in shape]
        raise state.fail(
            node,
            f"it does not keep the rows of data, of shape {value.shape}, apart: it makes {said} of all; "
            f"output={node.input[0]!r} takes what it reads",
        )
    if row == value.shape:
        return value
    if value.operator == "Reshape":
        value = value.values[0]
    return make(state, node, [value], row, operator="Reshape")


def _reshape(
    state: Trace, node: onnx.NodeProto, inputs: list[Value | Array | None], attributes: dict[str, Any]
) -> Value:
    value = data(state, node, inputs[0])
    target = constant(state, node, inputs[1], "shape")
    if target.ndim != 1 or target.dtype.kind not in "iu" or not target.size:
        raise state.fail(node, "its shape must be a list of numbers that keeps the rows of data")
    copied = [BATCH, *value.shape]
    shape: list[int | None] = []
    for index, number in enumerate(target.tolist()):
        if number == 0 and not attributes.get("allowzero", 0):
            shape.append(copied[index] if index < len(copied) else 0)
        else:
            shape.append(None if number == -1 else number)
    if shape.count(None) > 1 or any(n is not None and n < 0 and n != BATCH for n in shape):
        raise state.fail(node, f"its shape {target.tolist()} is none")
    return _reshape_to(state, node, value, shape)


def _flatten(
    state: Trace, node: onnx.NodeProto, inputs: list[Value | Array | None], attributes: dict[str, Any]
) -> Value:
    value = data(state, node, inputs[0])
    axis = attributes.get("axis", 1)
    if axis < 0:
        axis += 1 + len(value.shape)
    if axis != 1:
        raise state.fail(node, f"axis {attributes.get('axis', 1)} does not keep the rows of data apart")
    return _reshape_to(state, node, value, [BATCH, math.prod(value.shape)])


def _squeeze(
    state: Trace, node: onnx.NodeProto, inputs: list[Value | Array | None], attributes: dict[str, Any]
) -> Value:
    value = data(state, node, inputs[0])
    axes = inputs[1] if len(inputs) > 1 and inputs[1] is not None else attributes.get("axes")
    squeezing = node.op_type == "Squeeze"
    rank = 1 + len(value.shape)
    if axes is None:
        if not squeezing:
            raise state.fail(node, "it has no axes")
        found = {index for index, n in enumerate(value.shape, start=1) if n == 1}
    else:
        listed = [int(axis) for axis in constant(state, node, np.asarray(axes), "axes").reshape(-1)]
        rank += 0 if squeezing else len(listed)
        found = {axis + rank if axis < 0 else axis for axis in listed}
    if 0 in found or any(not 0 < axis < rank for axis in found):
        raise state.fail(node, "its axes do not keep the rows of data apart")
    if squeezing:
        if any(value.shape[axis - 1] != 1 for axis in found):
            raise state.fail(node, f"rows of shape {value.shape} have more than one element on its axes")
        row = [n for index, n in enumerate(value.shape, start=1) if index not in found]
    else:
        rest = iter(value.shape)
        row = [1 if index in found else next(rest) for index in range(1, rank)]
    return _reshape_to(state, node, value, [BATCH, *row])


def _shape(state: Trace, node: onnx.NodeProto, inputs: list[Value | Array | None], attributes: dict[str, Any]) -> Array:
    value = data(state, node, inputs[0])
    batch = BATCH if state.batch is None else state.batch
    return np.array([batch, *value.shape], np.int64)[attributes.get("start", 0) : attributes.get("end")]


def _identity(
    state: Trace, node: onnx.NodeProto, inputs: list[Value | Array | None], attributes: dict[str, Any]
) -> Value:
    return data(state, node, inputs[0])


def _cast(
    state: Trace, node: onnx.NodeProto, inputs: list[Value | Array | None], attributes: dict[str, Any]
) -> Value | Array:
    if node.op_type == "CastLike" and isinstance(inputs[0], np.ndarray):  # a constant, as the data is: real
        return inputs[0] if inputs[0].dtype.kind == "f" else inputs[0].astype(np.float32)
    value = data(state, node, inputs[0])
    if node.op_type == "Cast" and attributes.get("to") not in FLOATS:
        raise state.fail(node, "it makes other than real numbers of the data")
    return value


def _dropout(
    state: Trace, node: onnx.NodeProto, inputs: list[Value | Array | None], attributes: dict[str, Any]
) -> Value:
    value = data(state, node, inputs[0])
    if len(inputs) > 2 and inputs[2] is not None and constant(state, node, inputs[2], "training_mode").any():
        raise state.fail(node, "it is in training mode: export the model for inference")
    if _used(state, node.output[1:]):
        raise state.fail(node, "its mask is read")
    given = inputs[1] if len(inputs) > 1 and inputs[1] is not None else np.array(attributes.get("ratio", 0.5))
    rate = constant(state, node, given, "ratio")
    number = float(rate.reshape(-1)[0]) if rate.size == 1 and rate.dtype.kind == "f" else math.nan
    return make(state, node, [value], value.shape, {"rate": number}) if 0 < number < 1 else value


def _scaler(
    state: Trace, node: onnx.NodeProto, inputs: list[Value | Array | None], attributes: dict[str, Any]
) -> Value:
    """(x - offset) scale, of ai.onnx.ml."""
    value = data(state, node, inputs[0])
    parts = [np.array(attributes.get(what, [none]), np.float32) for what, none in (("offset", 0.0), ("scale", 1.0))]
    for part in parts:
        if part.size > 1:
            state.width_of(value, part.size)
    offset, scale = (row_constant(state, node, part, value.shape) for part in parts)
    centred = make(state, node, [value, offset], value.shape, operator="Sub")
    return make(state, node, [centred, scale], value.shape, operator="Mul")


def _concat(
    state: Trace, node: onnx.NodeProto, inputs: list[Value | Array | None], attributes: dict[str, Any]
) -> Value:
    """The two columns of a binary classifier, 1 - p and p."""
    if len(inputs) == 1:
        return data(state, node, inputs[0])
    one, two = inputs if len(inputs) == 2 else (None, None)
    if isinstance(one, Value) and isinstance(two, Value) and one.shape == two.shape and one.shape[-1:] == (1,):
        if attributes.get("axis") in (-1, len(one.shape)):
            for place, (rest, value) in enumerate(((one, two), (two, one))):
                if rest.operator == "Sub" and rest.inputs[1] is value and _is_one(rest.inputs[0]):
                    return make(state, node, [value], (*value.shape[:-1], 2), {"rest": place}, operator="Columns")
    raise state.fail(node, "only 1 - p and p are put side by side")


def _is_one(value: Value | Array | None) -> bool:
    return isinstance(value, np.ndarray) and value.size == 1 and float(value.reshape(-1)[0]) == 1.0


def _transpose(
    state: Trace, node: onnx.NodeProto, inputs: list[Value | Array | None], attributes: dict[str, Any]
) -> Value:
    value = data(state, node, inputs[0])
    rank = 1 + len(value.shape)
    order = list(attributes.get("perm", range(rank - 1, -1, -1)))
    moved = [axis for axis in order if 0 < axis < rank and value.shape[axis - 1] > 1]
    if len(order) != rank or order[:1] != [0] or moved != sorted(moved):
        raise state.fail(node, f"perm {order} moves the data's elements")
    return _reshape_to(state, node, value, [BATCH, *(value.shape[axis - 1] for axis in order[1:])])


def _quantize(
    state: Trace, node: onnx.NodeProto, inputs: list[Value | Array | None], attributes: dict[str, Any]
) -> Value:
    """Integers, to be taken back by a DequantizeLinear: in float, the identity, and relu where that is what it does."""
    value = data(state, node, inputs[0])
    scale = constant(state, node, inputs[1], "scale")
    zero = inputs[2] if len(inputs) > 2 and inputs[2] is not None else np.zeros(scale.shape, np.uint8)
    zero = constant(state, node, zero, "zero point")
    if scale.size != 1 or zero.size != 1 or zero.dtype.kind not in "iu" or zero.dtype.itemsize > 2:
        raise state.fail(node, "one scale and one integer zero point are taken")
    return make(state, node, [value], value.shape, {"scale": scale.reshape(()), "zero": zero.reshape(())})


def _dequantize(
    state: Trace, node: onnx.NodeProto, inputs: list[Value | Array | None], attributes: dict[str, Any]
) -> Value:
    value = data(state, node, inputs[0])
    if value.operator != "QuantizeLinear":
        raise state.fail(node, "what it reads does not come from a QuantizeLinear")
    scale = constant(state, node, inputs[1], "scale")
    zero = inputs[2] if len(inputs) > 2 and inputs[2] is not None else np.zeros((), value.settings["zero"].dtype)
    zero = constant(state, node, zero, "zero point")
    if scale.size != 1 or zero.size != 1 or scale != value.settings["scale"] or zero != value.settings["zero"]:
        raise state.fail(node, "its scale and zero point are not those of the QuantizeLinear before it")
    before = value.values[0]
    if int(zero.reshape(())) == np.iinfo(value.settings["zero"].dtype).min and before.operator in ("Dense", "Add"):
        return make(state, node, [before], before.shape, operator="Relu")  # its range starts at 0: the clamp is a relu
    return before


OPERATORS: dict[str, Rule] = {
    **dict.fromkeys(ONE_ARGUMENT, _same),
    **dict.fromkeys(TWO_ARGUMENTS, _elementwise),
    **dict.fromkeys(COMPARISONS, _elementwise),
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "CastLike": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "DequantizeLinear": _dequantize,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "Identity": _identity,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "QuantizeLinear": _quantize,
    "ReduceMean": _reduce_mean,
    "Reshape": _reshape,
    "Shape": _shape,
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _squeeze,
    "Where": _where,
}
OTHER_OPERATORS: dict[str, dict[str, Rule]] = {
    ML: {"Scaler": _scaler},
    MICROSOFT: {"Gelu": _same},
}
