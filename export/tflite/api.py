"""`to_tflite`: networks as TFLite files, and the proof that LiteRT computes what nbdense computes."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

from nbdense._version import __version__
from nbdense.export.networks import is_quantized, network_of
from nbdense.export.tflite.schema import TfliteModel
from nbdense.export.tflite.writer import network_to_tflite
from nbdense.files import atomic_write

ACTIVATIONS = ("tables", "operators")


def to_tflite(
    model_or_quantized: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    inference_input_type: str = "float32",
    inference_output_type: str = "float32",
    activations: str = "tables",
    verify: bool = True,
) -> bytes:
    """Export a model to TFLite, without TensorFlow, and see that LiteRT computes what it computes.

    The file takes ``input`` [batch, ..., n_in] and gives ``output`` [batch, ..., n_out]: probabilities or values, as
    ``predict``. Its batch is 1, and whatever an interpreter resizes it to. The bytes are the same for the same model,
    in every process.

    Parameters
    ----------
    model_or_quantized : Sequential, QuantizedModel, Network or QuantizedNetwork
        The model: a float one, or one quantized with scheme "static" and int8 activations. float64 weights are stored
        as float32, weights of 4 bits as int8.
    path : path, optional
        File to write; replaced, in one step, if it exists. None writes none.
    inference_input_type, inference_output_type : {"float32", "int8"}
        "int8": the file takes the integers of the input, as microcontrollers do, or gives those of the last layer,
        before a softmax in float. Scales and zero points are the tensors'.
    activations : {"tables", "operators"}
        How activations of integers are written that are no clamps. "tables": as GATHER from 256 entries, which gives
        nbdense's integers in every interpreter. "operators": as LOGISTIC, TANH, GELU, HARD_SWISH and LEAKY_RELU of
        int8, which accelerators know; each runtime computes them in its own way, and may be off by one.
    verify : bool
        Whether to compare with ``predict`` in LiteRT before anything is written, where ai-edge-litert is installed.
        Integers are compared in the kernels that round as the network does (see ``rounding`` of
        `nbdense.quant.quantize`), for the integers that nbdense makes of the input.

    Returns
    -------
    bytes
        The file's content.

    Raises
    ------
    ImportError
        If the package flatbuffers is not installed.
    TypeError
        If the model is none of those.
    ValueError
        For a layer or an activation that has no form in TFLite (named), integers that are uint8, weights with zero
        points, ends that the model does not have in int8, or a weight that is not finite in float32.
    RuntimeError
        If LiteRT cannot run the file or computes something else; nothing is written.
    OSError
        If the folder does not exist or cannot be written; it is named.

    Notes
    -----
    What LiteRT computes in a way of its own, and nbdense's integers may be off from by one: the softmax of integers;
    sums (Residual) in its default kernels; the rounding of real inputs that lie between two integers.

    Examples
    --------
    >>> from nbdense.export import to_tflite
    >>> from nbdense.layers import Dense, Input
    >>> from nbdense.models import Sequential
    >>> content = to_tflite(Sequential([Input((4,)), Dense(8, "relu"), Dense(3, "softmax")]))
    >>> content[4:8]
    b'TFL3'
    """
    if find_spec("flatbuffers") is None:
        raise ImportError("to_tflite needs flatbuffers: pip install 'nbdense[tflite]'")
    from nbdense.export.tflite.flatbuffer import serialize

    if activations not in ACTIVATIONS:
        raise ValueError(f"to_tflite: activations must be 'tables' or 'operators', got {activations!r}")
    network = network_of(model_or_quantized)

    def written(input_type: str, output_type: str) -> tuple[bytes, TfliteModel]:
        made = network_to_tflite(network, input_type, output_type, activations == "operators")
        return serialize(made, f"nbdense {__version__}"), made

    content, made = written(inference_input_type, inference_output_type)
    if verify and find_spec("ai_edge_litert") is not None:
        from nbdense.export.tflite.verification import compare

        checked = [(content, made), *([written("int8", "int8")] if _has_integer_ends(network) else [])]
        for result in (compare(*each, model_or_quantized) for each in checked):
            if not result.agrees:
                raise RuntimeError(f"LiteRT does not compute what the model predicts, nothing was written: {result}")
    if path is not None:
        atomic_write(path, content)
    return content


def _has_integer_ends(network: Any) -> bool:
    """Tell whether a network reads its input as one kind of integers, and ends in integers."""
    return (
        is_quantized(network)
        and network.input_format is not None
        and all(form is not None for form in network.formats[1:])
    )
