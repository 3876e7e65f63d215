"""The state of reading an ONNX graph: the tensors so far (`Trace`), and a node with its inputs (`Call`).

`nbdense.export.read.trace` follows the nodes once. Nodes of constants alone are computed (by onnx's reference
implementation of a handful of operators that make nothing larger than what goes in); the rest becomes `Value`s, which
`nbdense.export.read.layers` turns into layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from nbdense.export.graph.activations import ACTIVATION_OPERATORS
from nbdense.export.read.file import OnnxFile, describe
from nbdense.export.read.nodes import DenseNode, FunctionNode, InputNode, LayerNode, Node
from nbdense.export.read.tensors import Array
from nbdense.export.read.values import Value
from nbdense.export.read.weights import Integers
from nbdense.files import FileFormatError
from nbdense.layers.forms import RowForm, Settings, Tensors

LARGEST_ROW = 2**24  # elements that one row of data may have, anywhere in the network
BATCH = -(2**30) - 7  # stands for the number of rows where a graph computes with shapes, in int32 too
MICROSOFT = "com.microsoft"

# Elementwise operators, by the tensors that they read; what else they take are attributes.
ONE_ARGUMENT = {
    *("Erf", "Log", "Neg", "Sqrt", "Reciprocal", "Abs", "Sign", "Not"),
    *(name for name, entry in ACTIVATION_OPERATORS.items() if entry.arguments == 1),
}
TWO_ARGUMENTS = {
    *("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum"),
    *(name for name, entry in ACTIVATION_OPERATORS.items() if entry.arguments == 2),
}
COMPARISONS = {"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or"}


class NodeError(ValueError):
    """An error about a node, which the message names."""


class WidthUnknownError(Exception):
    """An error about a width that the file does not say and a node needs; it is ``width``."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.width = width


class Trace:
    """The state of following a file's nodes: the tensors so far.

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
        self.integers: dict[str, Integers] = {}  # of constants that were dequantized: what they were
        shape, self.width_known = self._input_shape(width)
        self.input = Value(InputNode(), [], shape, f"input {file.input.name!r}")
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
            raise ValueError(f"{where} must be a tensor of numbers")
        dims = list(kind.shape.dim) if kind.HasField("shape") else None
        if dims is None:
            return (width or 1,), width is not None
        if not dims:
            raise ValueError(f"{where} must have an axis for the rows of data, got a single number")
        if dims[0].HasField("dim_value"):
            self.batch = dims[0].dim_value
        shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in dims[1:]]
        if any(n is not None and n < 1 for n in shape) or math.prod(n or 1 for n in shape) > LARGEST_ROW:
            raise FileFormatError(f"{where} claims rows of shape {shape}; a row must have 1 to {LARGEST_ROW} elements")
        if shape and shape[-1] is None:
            shape[-1] = width or 1
            unknown = width is None
        else:
            unknown = False
        if any(n is None for n in shape):
            raise ValueError(f"{where}: only its number of rows and of columns may be open, got rows of shape {shape}")
        return tuple(n for n in shape if n is not None), not unknown

    def get(self, name: str) -> Value | Array | None:
        """Return a tensor by its name; None for one that was left out.

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
        """Floating type of the model: "float64" where the file computes in it, else "float32"."""
        if self.file.input.type.tensor_type.elem_type == TensorProto.DOUBLE:
            return "float64"
        arrays = [part for value in self.known.values() if isinstance(value, Value) for part in value.inputs]
        return (
            "float64"
            if any(isinstance(part, np.ndarray) and part.dtype == np.float64 for part in arrays)
            else "float32"
        )

    def width_of(self, value: Value, wanted: int) -> None:
        """Raise WidthUnknownError where a value whose width is not known yet must have so many columns.

        Parameters
        ----------
        value : Value
            The value.
        wanted : int
            Its columns.
        """
        if not self.width_known and value.shape and value.shape[-1] != wanted and value.shape == self.input.shape:
            raise WidthUnknownError(wanted)


class Call:
    """A node and its inputs.

    Parameters
    ----------
    state : Trace
        The tensors so far.
    node : NodeProto
        The node.
    """

    def __init__(self, state: Trace, node: onnx.NodeProto) -> None:
        self.state, self.node = state, node
        self.inputs = [state.get(name) for name in node.input]
        self.attributes: dict[str, Any] = {
            attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute
        }

    @property
    def place(self) -> str:
        """Description of the node for errors."""
        return f"{self.state.file.name}: {describe(self.node)}"

    def fail(self, why: str) -> NodeError:
        """Return an error that names the node.

        Parameters
        ----------
        why : str
            The reason.
        """
        return NodeError(f"{self.place}: {why}")

    @property
    def uses_more(self) -> bool:
        """True where other outputs than the node's first are read."""
        read = {name for node in self.state.file.nodes for name in node.input} | {self.state.file.output}
        return any(name in read for name in self.node.output[1:] if name)

    def input(self, index: int) -> Value | Array | None:
        """Return an input, or None where it was left out.

        Parameters
        ----------
        index : int
            The input's number.
        """
        return self.inputs[index] if index < len(self.inputs) else None

    def data(self, index: int = 0) -> Value:
        """Return an input that must depend on the data.

        Parameters
        ----------
        index : int
            The input's number.
        """
        value = self.input(index)
        if not isinstance(value, Value):
            raise self.fail(
                f"its input {index} must depend on the network's input, got a constant; weights are the second input"
            )
        return value

    def constant(self, value: Value | Array | None, label: str) -> Array:
        """Return an input that must be constant.

        Parameters
        ----------
        value : Value, ndarray or None
            The input or attribute.
        label : str
            The input's name for the error.
        """
        if not isinstance(value, np.ndarray):
            raise self.fail(
                f"its {label} {'is missing' if value is None else 'must be a constant, but depends on the data'}"
            )
        return value

    def constants(self, labels: Sequence[str], optional: int = 0) -> list[Array]:
        """Return the inputs behind the first, which must be constant.

        Parameters
        ----------
        labels : sequence of str
            Their names for errors. The first of them has as many elements as the data has columns, where the file does
            not say.
        optional : int
            How many of the last may be left out.
        """
        parts = [self.input(index) for index in range(1, 1 + len(labels))]
        while optional and parts[-1] is None:
            parts.pop()
            optional -= 1
        arrays = [self.constant(part, label) for part, label in zip(parts, labels, strict=False)]
        self.state.width_of(self.data(), arrays[0].size)
        return arrays

    def whole_numbers(self, value: Any, label: str) -> list[int]:
        """Return a list of whole numbers, of an input or an attribute.

        Parameters
        ----------
        value : Value, ndarray or list of int
            The input or attribute.
        label : str
            The list's name for the error.
        """
        array = self.constant(value if isinstance(value, Value) else np.asarray(value), label)
        if array.dtype.kind not in "iu":
            raise self.fail(f"its {label} must be whole numbers, got {array.dtype}")
        return [int(number) for number in array.reshape(-1)]

    def row_constant(self, array: Array, shape: tuple[int, ...]) -> Array:
        """Return a constant that meets a value elementwise, cut to the shape that broadcasts against one row.

        Parameters
        ----------
        array : ndarray
            As the node reads it, against [rows, *shape].
        shape : tuple of int
            Shape of one row.
        """
        if array.dtype.kind not in "fiu":
            raise self.fail(f"its constant must be of numbers, got type {array.dtype}")
        if array.size == 1 and array.ndim <= len(shape) + 1:
            return array.reshape(())
        if array.ndim > len(shape):
            if array.ndim > len(shape) + 1 or array.shape[0] == 0:
                raise self.fail(f"its constant of shape {array.shape} has more axes than rows of shape {shape}")
            if array.shape[0] != 1 and not (array == array[:1]).all():
                raise self.fail(f"its constant of shape {array.shape} must be the same for all rows of data")
            array = array[0]
        try:
            fits = np.broadcast_shapes(array.shape, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise self.fail(f"its constant of shape {array.shape} does not broadcast to rows of shape {shape}")
        return array

    def make(
        self,
        inputs: Sequence[Value | Array | None],
        shape: tuple[int, ...],
        node: Node | None = None,
        name: str = "",
        merged: bool | None = None,
    ) -> Value:
        """Return a Value that the node makes.

        Parameters
        ----------
        inputs : sequence of Value, ndarray or None
            The tensors that it is made of.
        shape : tuple of int
            The shape of one row.
        node : Node, optional
            Node; by default a FunctionNode of the node's name, without attributes.
        name : str
            The name of its weights.
        merged : bool, optional
            As of `Value`.
        """
        return Value(node or FunctionNode(self.node.op_type), inputs, shape, self.place, name, merged)

    def layer(self, form: RowForm, tensors: Tensors, settings: Settings) -> Value:
        """Return the Value of a layer whose form has read the node.

        Parameters
        ----------
        form : RowForm
            The form.
        tensors, settings : mapping
            Of the layer.
        """
        value, name = self.data(), self.state.origin.get(self.node.input[1], self.node.input[1])
        return self.make([value, *tensors.values()], value.shape, LayerNode(form, tuple(tensors), settings), name)

    def dense(self, value: Value, kernel: Array, bias: Array | None, node: DenseNode) -> Value:
        """Return a dense layer's Value.

        Parameters
        ----------
        value : Value
            The layer's input.
        kernel : ndarray of float, (n_in, n_out)
            Weights.
        bias : ndarray, (n_out,), or None
            Added to the product.
        node : DenseNode
            The integers that these are, where they are.
        """
        if kernel.ndim != 2 or not kernel.size or kernel.dtype.kind != "f":
            raise self.fail(f"its weights must be a matrix of real numbers, got {kernel.dtype} {kernel.shape}")
        if not value.shape:
            raise self.fail("it needs rows of columns, got one number for each row of data")
        self.state.width_of(value, kernel.shape[0])
        if value.shape[-1] != kernel.shape[0]:
            raise self.fail(f"weights of shape {kernel.shape} do not fit rows of shape {value.shape}")
        shape = (*value.shape[:-1], kernel.shape[1])
        return self.make([value, kernel, bias], shape, node, self._weights_name())

    def _weights_name(self) -> str:
        """Return the name of the first constant matrix that the node reads."""
        constants = self.state.file.constants
        for name in self.node.input:
            source = self.state.origin.get(name, name)
            if source in constants and len(constants.shape(source)) == 2:
                return source
        return ""
