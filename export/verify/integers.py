"""Quantized models in verification: onnxruntime's integers against those of `predict_integers`, or the floats behind.

A model that ends in float has no integers to show. Where one inside falls to the other side of a half, which the last
bit of a float decides, the whole row differs a little: so most rows must agree as floats do, and the others not be off
by more than some integers make.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from nbdense.export.verify import runtime
from nbdense.export.verify.ends import Ends
from nbdense.export.verify.runtime import Outside

# (share of the integers that may differ, by how much at most)
FUSED = (1e-3, 1)
IN_FLOAT = (0.1, 16)  # one that falls to the other side of a half may move those of later layers by more
FLIPPED = (0.1, 0.05)  # (share of the rows that may differ more than floats, by how much of the largest output)
INTEGER_PRODUCTS = ("QGemm", "QLinearMatMul", "MatMulInteger")  # integers with and without optimizations


def compare_integers(
    proto: onnx.ModelProto, reference: Any, rows: npt.NDArray[np.float32], outside: Outside | None, ends: Ends
) -> tuple[bool, dict[str, Any]]:
    """Compare the last layer's integers in onnxruntime with nbdense's.

    They are the file's output, or are read off its last DequantizeLinear; what comes behind it is cut off. Another
    output beside it would not do: with int8 activations onnxruntime leaves a Gemm whose result has two readers in
    float, and would not compute what it computes of the file.

    Parameters
    ----------
    proto : ModelProto
        The ONNX model.
    reference : QuantizedModel
        The model that the file was made of.
    rows : ndarray of float32, (rows, n_in)
        Data.
    outside : mapping of str to ndarray, optional
        Tensors that the model refers to, but does not hold.
    ends : Ends
        Its ends.

    Returns
    -------
    bool, dict
        Whether they agree, and those fields of a `Verification` that are about integers.
    """
    network = reference.network
    if ends.output is None:
        node = _last_dequantize(proto)
        (scale, zero_point), cut = _scale_of(proto, node), _upto(proto, node.output[0])
    else:
        (scale, zero_point), cut = ends.output, proto
    kept = {tensor.name for tensor in cut.graph.initializer}
    outside = {name: array for name, array in (outside or {}).items() if name in kept}
    expected = reference.predict_integers(rows)
    sessions = (runtime.open_session(cut, None, None, optimize, outside) for optimize in (True, False))
    outputs = [ends.around(session)(rows)[-1] for session in sessions]
    fused, as_written = (
        np.abs(np.rint(out / scale).reshape(expected.shape) + zero_point - expected) for out in outputs
    )
    saturates = bool(fused.any()) and runtime.kernels_saturate()
    operators = any(node.op_type in INTEGER_PRODUCTS for node in proto.graph.node)
    loose = any(_is_float(layer, network.activation_dtype, operators) for layer in network.layers)
    agrees = (saturates or _within(fused, IN_FLOAT if loose else FUSED)) and (
        (saturates and operators) or _within(as_written, IN_FLOAT)
    )
    return agrees, {
        "integers": fused.size,
        "differing_integers": int(np.count_nonzero(fused)),
        "max_integer_difference": int(fused.max()),
        "differing_as_written": int(np.count_nonzero(as_written)),
        "saturates": saturates,
    }


def compare_values(
    proto: onnx.ModelProto,
    reference: Any,
    rows: npt.NDArray[np.float32],
    outside: Outside | None,
    ends: Ends,
    tolerance: float,
) -> tuple[bool, dict[str, Any]]:
    """Compare the outputs of a model that ends in float, but has integers inside.

    Parameters
    ----------
    proto : ModelProto
        The ONNX model.
    reference : QuantizedModel
        The model that the file was made of.
    rows : ndarray of float32, (rows, ...)
        Data.
    outside : mapping of str to ndarray, optional
        Tensors that the model refers to, but does not hold.
    ends : Ends
        Its ends.
    tolerance : float
        Tolerance of floats, as a share of the largest output.

    Returns
    -------
    bool, dict
        Whether they agree, and "saturates" as in a `Verification`.
    """
    expected = reference.predict(rows)
    sessions = (runtime.open_session(proto, None, None, optimize, outside) for optimize in (True, False))
    agree = [rows_agree(expected, ends.around(session)(rows)[-1], tolerance) for session in sessions]
    saturates = not all(agree) and runtime.kernels_saturate()
    operators = any(node.op_type in INTEGER_PRODUCTS for node in proto.graph.node)
    fused, as_written = agree
    return (fused or saturates) and (as_written or (saturates and operators)), {"saturates": saturates}


def rows_agree(expected: npt.NDArray[Any], computed: npt.NDArray[Any], tolerance: float) -> bool:
    """Tell whether most rows agree, and the others are not off by more than some integers make.

    Parameters
    ----------
    expected, computed : ndarray, (rows, ..., n_out)
        Outputs; the second of any shape with as many elements in that order.
    tolerance : float
        Tolerance of floats, as a share of the largest output.
    """
    largest = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    with np.errstate(invalid="ignore"):
        off = np.abs(computed.reshape(expected.shape) - expected).reshape(-1, expected.shape[-1]).max(axis=-1) / largest
    return bool((off > tolerance).mean() <= FLIPPED[0] and off.max() <= FLIPPED[1])


def _is_float(layer: Any, dtype: str, operators: bool) -> bool:
    """Tell whether onnxruntime computes a layer in float, as it does some that nbdense computes in integers."""
    if layer.output_format is None:
        return True
    if operators:
        return False
    return (
        layer.kind == "softmax" or getattr(layer, "table", None) is not None or (layer.kind, dtype) == ("add", "int8")
    )


def _upto(proto: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    """Return the part of a model that makes a tensor, its only output, which keeps the type of the last one."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    wanted, nodes = {tensor}, []
    for node in reversed(proto.graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            nodes.append(node)
    del copy.graph.node[:], copy.graph.initializer[:], copy.graph.output[:-1]
    copy.graph.node.extend(reversed(nodes))
    copy.graph.initializer.extend(constant for constant in proto.graph.initializer if constant.name in wanted)
    copy.graph.output[0].name = tensor
    copy.graph.output[0].type.tensor_type.ClearField("shape")
    return copy


def _within(differences: npt.NDArray[Any], bound: tuple[float, int]) -> bool:
    share, most = bound
    return bool(np.count_nonzero(differences) <= share * differences.size and differences.max() <= most)


def _last_dequantize(proto: onnx.ModelProto) -> onnx.NodeProto:
    """Return the DequantizeLinear that the last output comes from, straight or through a Softmax and a Reshape."""
    writers = {output: node for node in proto.graph.node for output in node.output}
    output = proto.graph.output[-1].name
    node = writers.get(output)
    while node is not None and node.op_type in ("Reshape", "Softmax"):
        node = writers.get(node.input[0])
    if node is None or node.op_type != "DequantizeLinear":
        raise ValueError(f"the ONNX model's {output!r} comes from no DequantizeLinear: it is not of a quantized model")
    return node


def _scale_of(proto: onnx.ModelProto, node: onnx.NodeProto) -> tuple[float, int]:
    """Return scale and zero point of a DequantizeLinear of one scale."""
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    values = [numpy_helper.to_array(constants[name]) for name in node.input[1:] if name in constants]
    if len(values) != 2 or any(value.size != 1 for value in values):
        raise ValueError(f"the ONNX model's node {node.name!r} needs one constant scale and one zero point")
    return float(values[0].item()), int(values[1].item())
