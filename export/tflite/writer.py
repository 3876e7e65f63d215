"""A network as a TFLite model: the graph that its layers write, cut at the ends that are asked for."""

from __future__ import annotations

from nbdense.export.networks import is_quantized
from nbdense.export.tflite.graph import TfliteGraph
from nbdense.export.tflite.quantized import write_quantized
from nbdense.export.tflite.schema import Operator, Tensor, TfliteModel
from nbdense.export.write.float_flavour import write_float
from nbdense.network import Network
from nbdense.quant.model.network import QuantizedNetwork

TYPES_OF_ENDS = ("float32", "int8")
_PASSED = {"DEQUANTIZE", "RESHAPE", "SOFTMAX"}  # what stands between the last integers and the output


def network_to_tflite(
    network: Network | QuantizedNetwork, input_type: str, output_type: str, operators: bool
) -> TfliteModel:
    """Return a network as a TFLite model.

    Parameters
    ----------
    network : Network or QuantizedNetwork
        The network.
    input_type, output_type : str
        "float32", or "int8" for the integers that the network makes of its input, and those of its last layer.
    operators : bool
        Whether activations of integers are TFLite's operators, where it has one, instead of tables.

    Raises
    ------
    ValueError
        If a layer has no form in TFLite, or an end is no integers; the layer is named.
    """
    for name, value in (("input", input_type), ("output", output_type)):
        if value not in TYPES_OF_ENDS:
            raise ValueError(f"to_tflite: inference_{name}_type must be 'float32' or 'int8', got {value!r}")
    graph = TfliteGraph(network.input_shape)
    if is_quantized(network):
        write_quantized(graph, network, operators)  # type: ignore[arg-type]
    else:
        write_float(graph, network)  # type: ignore[arg-type]
    source = _integer_input(graph) if input_type == "int8" else graph.input
    target = _integer_output(graph) if output_type == "int8" else graph.output
    return graph.model(source, target)


def _made_by(graph: TfliteGraph, name: str) -> Operator | None:
    return next((operator for operator in graph.operators if operator.output == name), None)


def _readers(graph: TfliteGraph, name: str) -> list[Operator]:
    return [operator for operator in graph.operators if name in operator.inputs]


def _integer_output(graph: TfliteGraph) -> str:
    """Return the last layer's integers, before what makes floats of them, in the shape of the output."""
    name, reshape = graph.output, None
    while graph.tensors[name].dtype != "int8":
        operator = _made_by(graph, name)
        if operator is None or operator.kind not in _PASSED:
            raise ValueError("to_tflite: inference_output_type='int8': the model's last layer computes in float")
        reshape = operator if operator.kind == "RESHAPE" else reshape
        name = operator.inputs[0]
    if reshape is None:
        return name
    shape, known = graph.tensors[reshape.output].shape, graph.tensors[name].quantization
    return graph.operator("RESHAPE", [name, reshape.inputs[1]], f"{graph.output}_integers", shape, quantization=known)


def _integer_input(graph: TfliteGraph) -> str:
    """Return the integers that are made of the input; where they have fewer axes, of the input's own."""
    readers = _readers(graph, graph.input)
    reshape = readers[0] if len(readers) == 1 and readers[0].kind == "RESHAPE" else None
    if reshape is not None:
        readers = _readers(graph, reshape.output)
    if [operator.kind for operator in readers] != ["QUANTIZE"]:
        raise ValueError("to_tflite: inference_input_type='int8': the input is not read as one kind of integers")
    made = readers[0].output
    if reshape is None:
        return made
    known = graph.tensors[made].quantization
    shape = graph.tensors[graph.input].shape
    source = f"{graph.input}_quantized_rows"
    graph.tensors[source] = Tensor(source, shape, "int8", quantization=known, first_is_batch=True)
    place = graph.operators.index(readers[0])
    graph.operators[place] = Operator("RESHAPE", [source, reshape.inputs[1]], made)
    return source
