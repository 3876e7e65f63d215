"""A walk over a quantized network's layers, as the flavours of quantized files share it.

Inside, a row of data of several positions is so many rows of a matrix, as in the integer program: what every layer
does, it does to each of them. So dense layers are Gemm, which runtimes fuse. The input is reshaped ahead, the output
back.

A tensor may be there in floats, in integers, or both: what reads it in the other form than it was written in gets a
DequantizeLinear or a QuantizeLinear in front, once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from nbdense.engine.rows import DENSE
from nbdense.export.graph.activations import activation_writer, custom_writer
from nbdense.export.graph.builder import FLOAT, PLAIN, Form, Graph
from nbdense.export.write.convolution import CHANNELS, Stage, images_of, write_conv
from nbdense.export.write.float_flavour import NO_WRITERS, Writers, write_row
from nbdense.network import Row
from nbdense.quant.model.network import LIMITS, FloatLayer, QuantizedNetwork


@dataclass(frozen=True)
class Integers:
    """A tensor of integers."""

    tensor: str
    scale: list[str]  # the names of its scale and zero point
    floats: str  # what it is called once it is dequantized


class Walk:
    """A walk over a quantized network's layers that writes their nodes.

    Parameters
    ----------
    graph : Graph
        The graph that is written.
    network : QuantizedNetwork
        The network.
    form : Form
        Whether to write dense layers as Conv (see `nbdense.export.write.convolution`), and of which types the ends
        are: those of integers must be there, in the network's own type.

    Attributes
    ----------
    convolution : bool
        Whether dense layers are written as Conv.

    Raises
    ------
    ValueError
        If the network is no convolution.
    """

    def __init__(self, graph: Graph, network: QuantizedNetwork, form: Form = PLAIN) -> None:
        self.graph, self.network = graph, network
        self.dtype = network.activation_dtype
        self.least = LIMITS[self.dtype][0]
        self._prefixes: list[str] = []
        self._floats: dict[int, str] = {}  # by tensor
        self._integers: dict[tuple[int, float, int], Integers] = {}  # by tensor and format
        self._dequantized: set[str] = set()
        positions = network.tensors[-1][0]
        self._softmax = network.final_activation == "softmax"
        self._reshaped = positions > 1
        self.convolution = form.convolution
        self._images = images_of(network.input_shape, _stages(network)) if form.convolution else set[int]()
        graph.axis = CHANNELS if form.convolution else -1
        graph.input_type, graph.output_type = form.input_type, form.output_type

    def run(self, writers: Mapping[type, LayerWriter]) -> None:
        """Write everything, from the graph's input to its output.

        Parameters
        ----------
        writers : mapping of type to LayerWriter
            Writers by class of layer.

        Raises
        ------
        ValueError
            If a layer or its activation has no ONNX form; it is named.
        """
        graph, network = self.graph, self.network
        (positions, n), source, known = network.tensors[0], graph.input, network.input_format
        if positions > 1:
            shape = graph.constant(f"{graph.input}_shape", [-1, n], np.int64)
            source = graph.node("Reshape", [graph.input, shape], f"{graph.input}_rows")
        elif len(network.input_shape) > 1 and not self.convolution:
            source = graph.node("Flatten", [graph.input], f"{graph.input}_flat", axis=1)
        if graph.input_type == FLOAT:
            self._floats[0] = source
        else:
            assert known is not None
            scale = self.scale(graph.input, *known)
            self._integers[(0, *known)] = Integers(source, scale, f"{graph.input}_dequantized")
        for index, layer in enumerate(network.layers):
            prefix = graph.layer(layer.name)
            self._prefixes.append(prefix)
            writers[type(layer)](self, index, layer, prefix)
        self._finish()

    def _finish(self) -> None:
        """Write the nodes from the last layer's output to the graph's: softmax, and the axes that the input had."""
        graph, network, last = self.graph, self.network, len(self.network.layers)
        form = network.formats[last]
        if graph.output_type != FLOAT:
            assert form is not None
            if self._reshaped:
                shape = graph.constant(f"{graph.output}_shape", [-1, *network.output_shape], np.int64)
                graph.node("Reshape", [self._integers[(last, *form)].tensor, shape], graph.output)
            return
        if self._softmax:
            target = f"{graph.output}_rows" if self._reshaped else graph.output
            self._floats[last] = graph.node("Softmax", [self._floats_of(last)], target, axis=graph.axis)
        if not self._reshaped:
            self._floats_of(last)
            return
        shape = graph.constant(f"{graph.output}_shape", [-1, *network.output_shape], np.int64)
        if form is None or self._softmax:
            graph.node("Reshape", [self._floats[last], shape], graph.output)
            return
        # Integers are reshaped as such: onnxruntime moves a DequantizeLinear behind a Reshape, and of opset 21 and int8
        # it makes a graph then that it cannot load.
        known = self._integers[(last, *form)]
        tensor = graph.node("Reshape", [known.tensor, shape], f"{graph.output}_quantized")
        self.dequantize(Integers(tensor, known.scale, graph.output))

    # -- what layers read --

    def floats(self, index: int, which: int = 0) -> str:
        """Return a layer's input as floats.

        Parameters
        ----------
        index : int
            The layer's number.
        which : int
            The input's number.
        """
        return self._floats_of(self.network.inputs_of(index)[which])

    def integers(self, index: int, which: int = 0) -> Integers:
        """Return a layer's input as integers.

        Parameters
        ----------
        index : int
            The layer's number.
        which : int
            The input's number.
        """
        tensor = self.network.inputs_of(index)[which]
        wanted = self.network.layers[index].input_formats[which]
        assert wanted is not None
        key = (tensor, *wanted)
        if key not in self._integers:
            source = self._floats[tensor]
            number = 1 + sum(known[0] == tensor for known in self._integers)
            prefix = source if number == 1 else f"{source}_{number}"
            self._integers[key] = self.quantize(source, prefix, *wanted)
        return self._integers[key]

    def dequantized(self, index: int, which: int = 0) -> str:
        """Return a layer's input as the floats that its integers stand for.

        Parameters
        ----------
        index : int
            The layer's number.
        which : int
            The input's number.
        """
        return self.dequantize(self.integers(index, which))

    def _floats_of(self, tensor: int) -> str:
        if tensor not in self._floats:
            form = self.network.formats[tensor]
            assert form is not None
            self._floats[tensor] = self.dequantize(self._integers[(tensor, *form)])
        return self._floats[tensor]

    # -- what layers write --

    def target(self, index: int) -> str:
        """Return the name of a layer's output as floats.

        Parameters
        ----------
        index : int
            The layer's number.
        """
        if self._is_end(index) and self.graph.output_type == FLOAT and not self._softmax:
            return self.graph.output
        return f"{self._prefixes[index]}/output"

    def _is_end(self, index: int) -> bool:
        """Tell whether a layer writes the graph's output, if its form and type are that one's."""
        return index == len(self.network.layers) - 1 and not self._reshaped

    def give_floats(self, index: int, tensor: str) -> None:
        """Record a layer's output, as floats.

        Parameters
        ----------
        index : int
            The layer's number.
        tensor : str
            Its output.
        """
        self._floats[index + 1] = tensor

    def activate(self, index: int, write: Callable[[str], Any], write_activation: Any = None) -> None:
        """Write a float layer and its activation.

        Parameters
        ----------
        index : int
            The layer's number.
        write : callable
            Writes the layer itself, into the tensor of that name.
        write_activation : ActivationWriter, optional
            Writes the activation; by default as everywhere.
        """
        layer: Any = self.network.layers[index]
        write_activation, target = write_activation or self.activation(layer), self.target(index)
        if write_activation is None:
            write(target)
        else:
            preactivation = f"{self._prefixes[index]}/preactivation"
            write(preactivation)
            self.graph.activate(write_activation, layer.function, preactivation, target)
        self.give_floats(index, target)

    def give_integers(self, index: int, value: Integers) -> None:
        """Record a layer's output, as integers.

        Parameters
        ----------
        index : int
            The layer's number.
        value : Integers
            Its output.
        """
        form = self.network.formats[index + 1]
        assert form is not None
        self._integers[(index + 1, *form)] = value

    # -- parts of layers --

    def window(self, index: int, n_in: int) -> tuple[int, ...]:
        """Return channels, height and width of the input of a convolution's dense layer.

        Parameters
        ----------
        index : int
            The layer's number.
        n_in : int
            Its inputs.
        """
        in_image = self.network.inputs_of(index)[0] in self._images
        return self.network.input_shape if in_image else (n_in, 1, 1)

    def product(self, index: int, kernel: npt.NDArray[Any]) -> tuple[str, npt.NDArray[Any], dict[str, Any]]:
        """Return a layer's operator, Gemm or Conv; its weights in that operator's form; and its attributes.

        Parameters
        ----------
        index : int
            The layer's number.
        kernel : ndarray, (n_in, n_out)
            Its kernel.
        """
        if not self.convolution:
            return "Gemm", kernel.T, {"transB": 1}
        window = self.window(index, len(kernel))
        return "Conv", kernel.T.reshape(-1, *window), {"kernel_shape": list(window[1:])}

    def activation(self, layer: Any) -> Any:
        """Return the function that writes a layer's activation in floats; None where there is none to write.

        Parameters
        ----------
        layer : layer of a quantized network
            The layer.

        Raises
        ------
        ValueError
            If the activation has no ONNX form.
        """
        custom = getattr(layer, "custom", None)
        if custom is not None and custom.own:  # whatever its name
            return custom_writer(f"layer {layer.name!r}", custom)
        return activation_writer(f"layer {layer.name!r}", layer.activation)

    def scale(self, prefix: str, scale: float, zero_point: int) -> list[str]:
        """Write the constants of a scale and a zero point, rank 0.

        Parameters
        ----------
        prefix : str
            The prefix of their names.
        scale, zero_point : float, int
            Their values.
        """
        return [
            self.graph.constant(f"{prefix}_scale", scale, np.float32),
            self.graph.constant(f"{prefix}_zero_point", zero_point, self.dtype),
        ]

    def quantize(self, source: str, prefix: str, scale: float, zero_point: int, floats: str | None = None) -> Integers:
        """Write the nodes from floats to integers.

        Parameters
        ----------
        source : str
            The floats.
        prefix : str
            The prefix of the names.
        scale, zero_point : float, int
            Scale and zero point of the integers.
        floats : str, optional
            Their name once they are dequantized.
        """
        constants = self.scale(prefix, scale, zero_point)
        tensor = self.graph.node("QuantizeLinear", [source, *constants], f"{prefix}_quantized")
        return Integers(tensor, constants, floats or f"{prefix}_dequantized")

    def dequantize(self, value: Integers) -> str:
        """Return the floats that integers stand for.

        Parameters
        ----------
        value : Integers
            The integers.
        """
        if value.floats not in self._dequantized:
            self._dequantized.add(value.floats)
            self.graph.node("DequantizeLinear", [value.tensor, *value.scale], value.floats)
        return value.floats

    def output(self, index: int, scale: list[str] | None = None) -> Integers:
        """Return the integers that a layer is to write, and the constants of their format.

        Parameters
        ----------
        index : int
            The layer's number.
        scale : list of str, optional
            The constants, where they are there already.
        """
        form = self.network.formats[index + 1]
        assert form is not None
        prefix = f"{self._prefixes[index]}/output"
        is_output = self._is_end(index) and self.graph.output_type != FLOAT
        tensor = self.graph.output if is_output else f"{prefix}_quantized"
        return Integers(tensor, scale or self.scale(prefix, *form), self.target(index))

    def look_up(self, source: str, prefix: str, table: npt.NDArray[Any], target: str) -> str:
        """Write a table's entries for integers, in core operators.

        Parameters
        ----------
        source : str
            The integers.
        prefix : str
            The prefix of the names.
        table : ndarray of the activation dtype, (256,)
            As in `nbdense.quant.layers.integer_layers`.
        target : str
            The tensor that is written.
        """
        # Gather counts negative indices from the end: what belongs to -128..-1 comes last.
        entries = self.graph.constant(f"{prefix}/table", np.roll(table, self.least), self.dtype)
        index = self.graph.node("Cast", [source], f"{prefix}/index", to=TensorProto.INT32)
        return self.graph.node("Gather", [entries, index], target, axis=0)


def weight_format(layer: Any) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
    """Return the scales and zero points of a dense layer's weights as files have them: one, one a column, or of blocks.

    Parameters
    ----------
    layer : OfKernel
        The layer.
    """
    scales, zeros = layer.kernel_scales, layer.kernel_zero_points
    if zeros is None:
        zeros = np.zeros(scales.shape, np.int8)
    without_blocks = scales.ndim == 2 and len(scales) == 1
    if without_blocks or getattr(layer, "granularity", "") == "per_tensor":
        return scales[0], zeros[0]
    return scales, zeros


# (walk, number of the layer, layer, prefix of its tensors)
LayerWriter = Callable[[Walk, int, Any, str], None]


def write_float_layer(walk: Walk, index: int, layer: FloatLayer, prefix: str) -> None:
    """Write a layer that was left in float.

    Parameters
    ----------
    walk : Walk
        The walk.
    index : int
        The layer's number.
    layer : FloatLayer
        The layer.
    prefix : str
        The prefix of its tensors' names.
    """
    inputs = [walk.floats(index, which) for which in range(len(layer.input_formats))]
    if layer.what == "flatten":
        n = layer.n * layer.positions
        shape = walk.graph.constant(f"{prefix}/shape", [-1, n], np.int64)
        walk.give_floats(index, walk.graph.node("Reshape", [*inputs, shape], walk.target(index)))
        return
    walk.activation(layer)  # refuses
    row = Row(
        index=index,
        name=layer.name,
        kind=layer.form.kind,
        n_in=layer.n_in,
        n_out=layer.n_out,
        positions=1,  # its rows are the matrix's
        input=0,
        second=-1,
        output=0,
        tensors=layer.tensors,
        settings=layer.settings,
        activation=layer.function,
    )
    writers: Writers = NO_WRITERS
    if walk.convolution:
        writers = {DENSE: functools.partial(write_conv, window=walk.window(index, layer.n_in))}
    walk.give_floats(index, write_row(walk.graph, row, prefix, inputs, walk.target(index), writers))


def _stages(network: QuantizedNetwork) -> list[Stage]:
    return [
        Stage(f"layer {layer.name!r}", _what(layer), layer.positions, network.inputs_of(index), index + 1)
        for index, layer in enumerate(network.layers)
    ]


def _what(layer: Any) -> str:
    kind = str(getattr(layer, "what", layer.kind))
    if kind == "activation":
        return "" if getattr(layer, "custom", None) is None and layer.function.rowwise else kind
    return "dense" if kind.endswith("dense") else ""
