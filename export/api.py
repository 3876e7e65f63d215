"""`to_onnx`: one door for networks of all flavours, and for pipelines."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx

from nbdense.export.graph.builder import FLOAT, INPUT, OUTPUT, Form
from nbdense.export.networks import network_of
from nbdense.export.pipeline.sklearn import pipeline_to_onnx
from nbdense.export.verify.verification import compare
from nbdense.export.write.exporter import network_to_onnx
from nbdense.export.write.labels import LABEL
from nbdense.export.write.writing import write_model


def to_onnx(
    model_or_quantized: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    flavour: str | None = None,
    opset: int | None = None,
    input_name: str = INPUT,
    output_name: str = OUTPUT,
    labels: bool = False,
    label_name: str = LABEL,
    class_names: Sequence[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    fold_batch_norm: bool = True,
    as_convolution: bool = False,
    inference_input_type: str = FLOAT,
    inference_output_type: str = FLOAT,
    verify: bool = True,
) -> onnx.ModelProto:
    """Export a model to ONNX, and see that onnxruntime computes what it computes.

    The graph takes float32 ``input`` [batch, ..., n_in], for any batch, and gives float32 ``output`` [batch, ...,
    n_out]: probabilities or values, as ``predict``; it is the last output. The file's bytes are the same for the same
    model, in every process. Dropout is left out, and batch normalisation is by its running statistics. There are no
    other files, unless the weights take 2 GB or more: then they lie in one beside ``path``, called like it with a
    digest and ".data" behind.

    Parameters
    ----------
    model_or_quantized : Sequential, QuantizedModel, Network or QuantizedNetwork
        The model. float64 weights are stored as float32. Or a fitted scikit-learn Pipeline, or an estimator of
        nbdense's: see `pipeline_to_onnx`.
    path : path, optional
        File to write; replaced, in one step, if it exists. None writes none.
    flavour : str, optional
        None: the first that fits the model.

        - "float": a float model, of any layers.
        - "qdq": a statically quantized one, with QuantizeLinear and DequantizeLinear around float operators, which
          runtimes fuse into integer ones. int8 activations are the most portable, uint8 ones the fastest on x86: there
          onnxruntime computes sums (Residual) of int8 in float, and of uint8 in integers.
        - "qoperator": the same in operators on integers, some of them onnxruntime's own; exactly nbdense's integers.
        - "dynamic": one whose inputs are quantized anew in every call.
        - "weight_only": one whose weights alone are integers, of 8 or 4 bits. onnxruntime rounds what weights of 4 bits
          or in blocks multiply to int8, unless its option "session.qdq_matmulnbits_accuracy_level" is "1".

        Layers that were left in float in a quantized model are float in all of them. Weights of 4 bits are stored as
        such by "weight_only", and as int8 by the others.
    opset : int, optional
        Opset, from 13 to the newest that the installed onnx knows, written with the lowest IR version that has it. By
        default 17, with IR version 8; weights of 4 bits or in blocks need 21, with IR version 10.
    input_name, output_name : str
        What the graph calls its input and its output.
    labels : bool
        Whether there is an output of labels, before the other: the class of the largest output, the first of equal
        ones; of one sigmoid output, 1 from 0.5 on, else 0. int64 [batch, ...], or strings where there are class names.
    label_name : str
        Its name.
    class_names : sequence of str, optional
        What the outputs stand for, as many as they are; of a model of one output, two: of values below 0.5 and from
        there on. Kept in the file's metadata as "class_names", a JSON list.
    metadata : mapping of str to str, number, list or dict, optional
        What else the file shall say of itself, such as metrics. What is no str is written as JSON. Runtimes show all
        of it as strings, beside "nbdense_version", "nbdense_flavour", and of a quantized model "nbdense_report", what
        `quantize` found out, as JSON.
    fold_batch_norm : bool
        Whether dense layers take over the batch normalisations beside them, inside Residual too. What no dense layer
        can take over, and what stands on inputs whose mean is over 4 deviations away from 0, stays in any case.
    as_convolution : bool
        Whether to write a model whose layers stand behind a Flatten of (C, H, W) as a Conv and 1x1 Convs: input
        [batch, C, height, width], of any size from (H, W) on, and output [batch, n_out, height - H + 1, width - W + 1],
        what the model says of each window. Not of dynamic layers, nor weights of 4 bits or in blocks.
    inference_input_type, inference_output_type : {"float32", "int8", "uint8"}
        Of a statically quantized model, its ``activation_dtype``: the file takes the integers of the input, as
        accelerators and microcontrollers do, or gives those of the last layer, before a softmax in float: what
        `QuantizedModel.predict_integers` does. Their scale and zero point are `QuantizedModel.input_quantization` and
        `QuantizedModel.output_quantization`, and in the metadata "nbdense_input_quantization" and
        "nbdense_output_quantization", as JSON. onnxruntime on x86 computes the layers at such ends of "qdq" in float
        where they are int8, and in integers where they are uint8.
    verify : bool
        Whether to compare with ``predict`` in onnxruntime before anything is written (see `verify_onnx`), where
        onnxruntime is installed. The checker and shape inference run in any case.

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    TypeError
        If the model is none of those, or the metadata no mapping.
    ValueError
        For a flavour or opset that there is not or that does not fit the model, a layer or an activation (one of your
        own, say) that has no ONNX form (named), a weight that is not finite in float32, a quantized model of another
        rounding than "onnx", labels, a convolution or integers at its ends of a model that has none, or names or
        metadata that do not fit.
    RuntimeError
        If onnxruntime cannot load the model (an opset too new for it, say) or computes something else; nothing is
        written.
    OSError
        If the folder does not exist or cannot be written; it is named.

    Examples
    --------
    >>> from nbdense.export import to_onnx
    >>> from nbdense.layers import Dense, Input
    >>> from nbdense.models import Sequential
    >>> model = to_onnx(Sequential([Input((4,)), Dense(8, "relu"), Dense(3, "softmax")]), verify=False)
    >>> [node.op_type for node in model.graph.node]
    ['Gemm', 'Relu', 'Gemm', 'Softmax']
    """
    if hasattr(model_or_quantized, "get_params"):  # scikit-learn's: a Pipeline, or an estimator of nbdense's
        ends = (inference_input_type, inference_output_type)
        options = (flavour or "float", input_name, output_name, labels, as_convolution, *ends)
        if options != ("float", INPUT, OUTPUT, False, False, FLOAT, FLOAT):
            raise ValueError(
                "to_onnx: a pipeline is written in the flavour 'float', with names, labels and types of its own: leave "
                "flavour, input_name, output_name, labels, as_convolution, inference_input_type and "
                "inference_output_type out"
            )
        return pipeline_to_onnx(
            model_or_quantized, path, opset=opset, class_names=class_names, metadata=metadata, verify=verify
        )
    model, outside = network_to_onnx(
        network_of(model_or_quantized),
        flavour=flavour,
        opset=opset,
        ends=(input_name, output_name),
        label_name=label_name if labels else None,
        class_names=class_names,
        metadata=metadata,
        form=Form(fold_batch_norm, as_convolution, inference_input_type, inference_output_type),
        file_name=None if path is None else Path(path).name,
    )
    if verify and find_spec("onnxruntime") is not None:
        result = compare(model, model_or_quantized, outside=outside)
        if not result.agrees:
            raise RuntimeError(f"onnxruntime does not compute what the model predicts, nothing was written: {result}")
    if path is not None:
        write_model(path, model, outside)
    return model
