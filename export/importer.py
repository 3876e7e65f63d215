"""`from_onnx`: a model of anybody's ONNX file, to be trained, pruned and quantized here."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnx

from nbdense.export.read.file import OnnxFile, read_file
from nbdense.export.read.layers import build_model, steps_between
from nbdense.export.read.quantized import is_quantized, quantized_network
from nbdense.export.read.trace import trace
from nbdense.models import Sequential
from nbdense.quant.model.model import QuantizedModel


def from_onnx(
    source: str | os.PathLike[str] | bytes | onnx.ModelProto, *, output: str | None = None, quantized: str = "auto"
) -> Any:
    """Make a model of an ONNX file, whoever wrote it.

    It predicts what onnxruntime computes of the file, and can be trained, pruned and quantized. It is not compiled. A
    graph with integers in it (QuantizeLinear around float operators, QLinearMatMul, onnxruntime's QGemm and QLinearAdd,
    MatMulInteger behind DynamicQuantizeLinear, weights behind DequantizeLinear) becomes a QuantizedModel of the same
    integers, in which what computes in float stays in float.

    What is dense comes back as `Dense`, exactly where the file says it exactly. Constants that are added or multiplied
    column by column (standardisation in front, say) go into the dense layer beside them; where the data is far from
    zero and that would lose digits, they become a `BatchNormalization` that does not learn. A sum of a branch and its
    start is a `Residual`. Activations are known by what they compute, however they are written. Dropout is kept, for
    training; what makes labels of probabilities is left out. A binary classifier that gives 1 - p and p keeps both
    columns, as a softmax. float16 weights become float32, and a float64 graph a model of dtype "float64".

    Parameters
    ----------
    source : path, bytes or ModelProto
        The file. Data beside it is read from within its folder only, and only if a path is given.
    output : str, optional
        The name of the tensor that ``predict`` shall give, of the graph's outputs or any other; None: the one output
        that holds probabilities or values.

    quantized : {"auto", "float"}
        "auto": a graph with integers in it becomes a QuantizedModel, and is refused where that could not hold them as
        they are. "float": a Sequential of the real numbers that its weights stand for; activations are not rounded.

    Returns
    -------
    Sequential or QuantizedModel
        Its attribute ``class_names`` is what the columns of the output stand for, a list of str, where the file says
        so (the metadata "class_names" that `to_onnx` writes, a ZipMap, or the constant that labels are picked from),
        and None elsewhere. It is not saved with the model.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    nbdense.files.FileFormatError
        If it is damaged, truncated or cyclic, claims more than it holds, points outside of its folder, or is of an IR
        version or opset that the installed onnx does not know.
    ValueError
        For what no dense network does: an operator that is not taken, or not in this use; the node is named. And
        where several outputs could be meant.
    TypeError
        If the source is none of those.

    Examples
    --------
    >>> from nbdense.export import from_onnx, to_onnx
    >>> from nbdense.layers import Dense, Input
    >>> from nbdense.models import Sequential
    >>> proto = to_onnx(Sequential([Input((4,)), Dense(8, "relu"), Dense(3, "softmax")]), verify=False)
    >>> [(layer.units, layer.activation.name) for layer in from_onnx(proto).layers]
    [(8, 'relu'), (3, 'softmax')]
    """
    if quantized not in ("auto", "float"):
        raise ValueError(f"from_onnx: quantized must be 'auto' or 'float', got {quantized!r}")
    file = read_file(source, output)
    with np.errstate(all="ignore"):  # a file may hold any number
        state, end = trace(file)
        if quantized == "auto" and is_quantized(state):
            model: Sequential | QuantizedModel = QuantizedModel(quantized_network(state, end))
        else:
            steps = steps_between(state.input, end, file.constants.half)
            model = build_model(steps, state.input.shape, end.shape, state.dtype, file.name)
    vars(model)["class_names"] = _class_names(file, end.shape)
    return model


def _class_names(file: OnnxFile, shape: tuple[int, ...]) -> list[str] | None:
    """Return class names, one a column, or two of one column: for values below 0.5, and from there on."""
    columns = shape[-1] if shape else 1
    names = file.class_names
    return names if names is not None and len(names) == (columns if columns > 1 else 2) else None
