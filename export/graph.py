"""An ONNX graph being written: names, nodes, constants, and at the end a checked ModelProto.

All flavours write through `Graph`, so that names, versions and metadata are alike. Nothing here depends on time, memory
addresses or hashing: the same calls give the same bytes, in every process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from nbdense._version import __version__

INPUT = "input"  # the default names of the ends
OUTPUT = "output"
BATCH = "batch"  # the name of the dynamic dimension
LARGEST_FILE = 2**31 - 1  # bytes: what protobuf can hold without side files


class Graph:
    """Collects nodes and constants.

    A node is named after the tensor that it writes. A layer's tensors are named ``layer/what``, what belongs to the
    network's ends ``input_what`` and ``output_what``: none of them ever meets another.

    Parameters
    ----------
    opset : int
        The opset that the nodes are of.
    input, output : str
        The names of the network's ends.

    Raises
    ------
    ValueError
        If an end's name could meet another tensor's.
    """

    def __init__(self, opset: int, input: str = INPUT, output: str = OUTPUT) -> None:
        for what, name, other in (("input", input, output), ("output", output, input)):
            if not isinstance(name, str) or not name or "/" in name:
                raise ValueError(f"to_onnx: {what}_name must be a string without '/', got {name!r}")
            if name == other or name.startswith(f"{other}_"):
                raise ValueError(f"to_onnx: {what}_name {name!r} is too like the other end's, {other!r}")
        self.opset, self.input, self.output = opset, input, output
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._size = 0
        self._layers: set[str] = set()

    def layer(self, name: str) -> str:
        """The prefix of a layer's tensors: its name, with a number behind it where it has been taken.

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
        """A constant tensor; returns its name.

        Parameters
        ----------
        name : str
            Of the tensor.
        value : array-like
            Of any rank; a number makes a rank-0 tensor.
        dtype : dtype
            That it is stored in.

        Raises
        ------
        ValueError
            If all constants together are more than a file without side files can hold.
        """
        array = np.ascontiguousarray(value, dtype).reshape(np.shape(value))
        self._size += array.nbytes
        if self._size > LARGEST_FILE:
            raise ValueError(f"the network's tensors take over {LARGEST_FILE:,} bytes: one ONNX file cannot hold them")
        self._constants[name] = numpy_helper.from_array(array, name)
        return name

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """A node with one output; returns the output's name.

        Parameters
        ----------
        operator : str
            The ONNX operator.
        inputs : list of str
            Tensor names.
        output : str
            Name of the tensor that it writes.
        **attributes
            Of the operator.
        """
        self._nodes.append(helper.make_node(operator, inputs, [output], name=f"{output}/{operator}", **attributes))
        return output

    def finish(
        self, input_shape: tuple[int, ...], output_shape: tuple[int, ...], metadata: Mapping[str, str]
    ) -> onnx.ModelProto:
        """The model: float32 input [batch, *input_shape] to float32 output [batch, *output_shape].

        Parameters
        ----------
        input_shape, output_shape : tuple of int
            Of one row of data.
        metadata : mapping of str to str
            What the file says of itself, nbdense's version aside.
        """
        graph = helper.make_graph(
            self._nodes,
            "nbdense",
            [helper.make_tensor_value_info(self.input, onnx.TensorProto.FLOAT, [BATCH, *input_shape])],
            [helper.make_tensor_value_info(self.output, onnx.TensorProto.FLOAT, [BATCH, *output_shape])],
            list(self._constants.values()),
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=ir_version_of(self.opset),
            producer_name="nbdense",
            producer_version=__version__,
        )
        helper.set_model_props(model, {"nbdense_version": __version__, **metadata})
        return model


def newest_opset() -> int:
    """The newest opset that the installed onnx knows."""
    return onnx.defs.onnx_opset_version()


def ir_version_of(opset: int) -> int:
    """The lowest IR version that has the opset: more runtimes read it. onnx would stamp its own newest.

    Parameters
    ----------
    opset : int
        The opset.
    """
    return int(helper.find_min_ir_version_for([helper.make_opsetid("", opset)]))


def serialize(model: onnx.ModelProto) -> bytes:
    """The bytes of the file: equal for equal models.

    Parameters
    ----------
    model : ModelProto
        The model.
    """
    return bytes(model.SerializeToString(deterministic=True))


def check(model: onnx.ModelProto, name: str) -> None:
    """Run onnx's full checker, and shape inference, strict and with data propagation.

    Parameters
    ----------
    model : ModelProto
        What to check.
    name : str
        What the error calls it.

    Raises
    ------
    ValueError
        If it is no valid model, with the checker's reason.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, TypeError, ValueError) as error:
        raise ValueError(f"{name} is not a valid ONNX model: {error}") from error
