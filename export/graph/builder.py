"""An ONNX graph being written: names, nodes, constants, and at the end a ModelProto.

All flavours write through `Graph`, so that names, versions and metadata are alike. Nothing here depends on time, memory
addresses or hashing: the same calls give the same bytes, in every process.

Constants lie in the file, unless together they are more than it can hold. Then the larger ones lie in one file beside
it, named after the model's file and its own content, so that a model never meets the data of another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from nbdense._version import __version__
from nbdense.export.graph.opsets import ir_version_of

INPUT = "input"  # the default names of the ends
OUTPUT = "output"
BATCH = "batch"  # the name of the dynamic dimension
FLOAT = "float32"
LARGEST_FILE = 2**31 - 2**25  # bytes of constants in one file: protobuf holds 2 GiB, of which the nodes take some
SMALLEST_OUTSIDE = 1024  # bytes of a constant that goes into a file beside: shapes and scales stay
ALIGNMENT = 4096  # of constants in that file: runtimes map them into memory


@dataclass(frozen=True)
class Form:
    """The form in which a flavour's writer is asked to write a network."""

    fold: bool = True  # whether dense layers take over the batch normalisations beside them
    convolution: bool = False
    input_type: str = FLOAT  # or the type of a quantized network's integers
    output_type: str = FLOAT


PLAIN = Form()
Shape = Sequence[int | str]  # numbers, and names of what is dynamic


class Graph:
    """A graph in the making: nodes and constants.

    A node is named after the tensor that it writes. A layer's tensors are named ``layer/what``, what belongs to the
    network's ends ``input_what`` and ``output_what``: none of them ever meets another.

    Parameters
    ----------
    opset : int
        The opset that the nodes are of.
    input, output : str
        The names of the network's ends.
    label : str
        The name of the output of labels, if there will be one.

    Attributes
    ----------
    axis : int
        Axis of a tensor that the layers' columns are: the last, or in a convolution the channels'.
    input_type, output_type : str
        dtypes of the network's ends.
    outside : dict of str to ndarray
        The constants that `finish` has left to a file beside the model's, in that file's order.

    Raises
    ------
    ValueError
        If an end's name could meet another tensor's.
    """

    def __init__(self, opset: int, input: str = INPUT, output: str = OUTPUT, label: str | None = None) -> None:
        ends = {"input": input, "output": output, **({} if label is None else {"label": label})}
        for side, name in ends.items():
            if not isinstance(name, str) or not name or "/" in name:
                raise ValueError(f"to_onnx: {side}_name must be a string without '/', got {name!r}")
            for other in [end for key, end in ends.items() if key != side]:
                if name == other or name.startswith(f"{other}_"):
                    raise ValueError(
                        f"to_onnx: {side}_name must not be or begin with another end's name, {other!r}, got {name!r}"
                    )
        self.opset, self.input, self.output, self.axis = opset, input, output, -1
        self.input_type = self.output_type = FLOAT
        self.outside: dict[str, npt.NDArray[Any]] = {}
        self._label: onnx.ValueInfoProto | None = None
        self._domains: dict[str, int] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, npt.NDArray[Any]] = {}
        self._int4: dict[str, tuple[int, ...]] = {}  # shapes of the constants that are two numbers a byte
        self._layers: set[str] = set()

    def layer(self, name: str) -> str:
        """Return the prefix of a layer's tensors: its name, with a number behind it where it has been taken.

        Parameters
        ----------
        name : str
            The layer's name.
        """
        prefix, number = name or "layer", 1
        while prefix in self._layers:
            number += 1
            prefix = f"{name or 'layer'}_{number}"
        self._layers.add(prefix)
        return prefix

    def constant(self, name: str, value: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """Add a constant tensor; return its name.

        Parameters
        ----------
        name : str
            The tensor's name.
        value : array-like
            A value of any rank; a number makes a rank-0 tensor.
        dtype : dtype
            The type that it is stored in.
        """
        self._constants[name] = np.ascontiguousarray(value, dtype).reshape(np.shape(value))
        return name

    def int4(self, name: str, value: npt.NDArray[np.int8]) -> str:
        """Add a constant tensor of int4, two numbers a byte, the first in the low nibble; return its name.

        Parameters
        ----------
        name : str
            The tensor's name.
        value : ndarray of int8
            Integers in [-8, 7].
        """
        nibbles = np.append(value.astype(np.uint8).reshape(-1) & 15, np.zeros(value.size % 2, np.uint8))
        self._int4[name] = value.shape
        return self.constant(name, nibbles[::2] | nibbles[1::2] << np.uint8(4), np.uint8)

    def along_columns(self, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a vector, a number a column, in the shape in which it broadcasts along ``axis``.

        Parameters
        ----------
        value : ndarray, (n,)
            The vector.
        """
        return value if self.axis == -1 else value.reshape(-1, 1, 1)

    def node(self, operator: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output; return the output's name.

        Parameters
        ----------
        operator : str
            The operator.
        inputs : sequence of str
            Tensor names.
        output : str
            Name of the tensor that it writes.
        domain : str
            Domain of the operator; ONNX's own by default. Of others version 1 is taken.
        **attributes
            Of the operator.
        """
        return self.nodes(operator, inputs, [output], domain, **attributes)[0]

    def nodes(
        self, operator: str, inputs: Sequence[str], outputs: list[str], domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs; return their names.

        Parameters
        ----------
        operator : str
            The operator.
        inputs, outputs : sequence and list of str
            Tensor names.
        domain : str
            As in `node`.
        **attributes
            Of the operator.
        """
        if domain:
            self._domains[domain] = 1
        name = f"{outputs[0]}/{operator}"
        self._nodes.append(helper.make_node(operator, inputs, outputs, name=name, domain=domain, **attributes))
        return outputs

    def activate(self, write: Any, activation: Any, source: str, target: str) -> None:
        """Write an activation.

        Parameters
        ----------
        write : ActivationWriter
            What writes it.
        activation : Activation
            The activation.
        source, target : str
            The tensors.
        """
        write(self, activation, source, target)

    def readers(self, tensor: str) -> int:
        """Return the number of times that nodes read a tensor.

        Parameters
        ----------
        tensor : str
            The tensor.
        """
        return sum(list(node.input).count(tensor) for node in self._nodes)

    def label(self, name: str, elem_type: int, shape: Shape) -> None:
        """Say that a tensor is an output too, before the network's.

        Parameters
        ----------
        name : str
            The tensor.
        elem_type : int
            Its type, a TensorProto.DataType.
        shape : sequence of int and str
            Shape of one row of data.
        """
        self._label = helper.make_tensor_value_info(name, elem_type, [BATCH, *shape])

    def finish(
        self, input_shape: Shape, output_shape: Shape, metadata: Mapping[str, str], file_name: str | None = None
    ) -> onnx.ModelProto:
        """Return the model: input [batch, *input_shape] to output [batch, *output_shape], of the ends' types.

        Parameters
        ----------
        input_shape, output_shape : sequence of int and str
            Shapes of one row of data.
        metadata : mapping of str to str
            What the file says of itself, nbdense's version aside.
        file_name : str, optional
            Name of the model's file, after which one beside it is named.

        Raises
        ------
        ValueError
            If the constants need a file beside the model's, and it has no name; or if those of 4 bits alone, which
            stay inside, are too many.
        """
        if sum(array.nbytes for array in self._constants.values()) > LARGEST_FILE:
            self.outside = {
                name: array
                for name, array in self._constants.items()
                if array.nbytes >= SMALLEST_OUTSIDE and name not in self._int4
            }
        if sum(self._constants[name].nbytes for name in self._int4) > LARGEST_FILE:
            raise ValueError(
                f"to_onnx: the weights of 4 bits take over {LARGEST_FILE:,} bytes, more than a file can hold"
            )
        ends = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), [BATCH, *shape])
            for name, dtype, shape in (
                (self.input, self.input_type, input_shape),
                (self.output, self.output_type, output_shape),
            )
        ]
        inside = [self._tensor(name) for name in self._constants if name not in self.outside]
        graph = helper.make_graph(
            self._nodes,
            "nbdense",
            ends[:1],
            [*([] if self._label is None else [self._label]), ends[1]],
            [*inside, *_references(self.outside, file_name)],
        )
        domains = [helper.make_opsetid(domain, version) for domain, version in sorted(self._domains.items())]
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset), *domains],
            ir_version=ir_version_of(self.opset),
            producer_name="nbdense",
            producer_version=__version__,
        )
        helper.set_model_props(model, {"nbdense_version": __version__, **metadata})
        return model

    def _tensor(self, name: str) -> onnx.TensorProto:
        if name in self._int4:
            data = self._constants[name].tobytes()
            return TensorProto(name=name, dims=self._int4[name], data_type=TensorProto.INT4, raw_data=data)
        return numpy_helper.from_array(self._constants[name], name)


def _references(arrays: Mapping[str, npt.NDArray[Any]], file_name: str | None) -> list[onnx.TensorProto]:
    """Return the tensors that stand in the model for constants in the file beside it."""
    if not arrays:
        return []
    if file_name is None:
        raise ValueError(
            f"to_onnx: the network's tensors take over {LARGEST_FILE:,} bytes, more than a ModelProto can hold: "
            "give a path, so that they go into a file beside it"
        )
    digest, offset, tensors = hashlib.sha256(), 0, []
    for array in arrays.values():
        digest.update(array.data)
    location = f"{file_name}.{digest.hexdigest()[:16]}.data"
    for name, array in arrays.items():
        tensor = TensorProto(name=name, dims=array.shape, data_location=TensorProto.EXTERNAL)
        tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
        for key, value in (("location", location), ("offset", offset), ("length", array.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
        offset += array.nbytes + -array.nbytes % ALIGNMENT
    return tensors
