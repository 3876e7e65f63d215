"""A TFLite model as an ONNX graph, which `nbdense.export.importer` reads: its rules for both are the same.

Operators on integers become those on the real numbers that these stand for, between DequantizeLinear and
QuantizeLinear: what ONNX files of quantized models have, and what is read back as integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from nbdense.export.tflite.schema import RELU, RELU6, RELU_N1_TO_1, Operator, Tensor, TfliteModel

OPSET = 20  # the first that has Gelu
INTEGERS = ("int8", "uint8")


def to_onnx_model(model: TfliteModel) -> onnx.ModelProto:
    """Return a model's ONNX graph, of floats at both ends.

    Parameters
    ----------
    model : TfliteModel
        The model.

    Raises
    ------
    ValueError
        If an operator is used in a way that dense networks don't; it is named.
    """
    return _Translation(model).proto()


class _Translation:
    """A graph in the making: TFLite's tensors keep their names; "real" ones have ":real" behind."""

    def __init__(self, model: TfliteModel) -> None:
        self._model = model
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, npt.NDArray[Any]] = {}
        self._known: set[str] = set()  # tensors that there are, in ONNX
        self._weights: set[str] = set()  # what is made of constants
        self._indices: dict[str, tuple[str, int]] = {}  # integers that count from another: (it, less what)

    def proto(self) -> onnx.ModelProto:
        model = self._model
        source, target = model.tensors[model.input], model.tensors[model.output]
        shape = self._data_shape(source)
        name = source.name
        if source.dtype in INTEGERS:
            name = f"{source.name}:real_input"
            self.node("QuantizeLinear", [name, *self._scale(source)], source.name)
        elif source.dtype != "float32":
            raise ValueError(f"its input is of {source.dtype}, expected float32, int8 or uint8")
        self._known.add(source.name)
        for operator in model.operators:
            self.translate(operator)
        if model.output not in self._known:
            raise ValueError(f"nothing makes its output {model.output!r}")
        end = self.real(target.name)
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]),
            helper.make_tensor_value_info(end, TensorProto.FLOAT, ["batch", *target.shape[1:]]),
        ]
        constants = [numpy_helper.from_array(value, key) for key, value in self._constants.items()]
        graph = helper.make_graph(self._nodes, "tflite", ends[:1], ends[1:], constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)

    def _data_shape(self, tensor: Tensor) -> tuple[int, ...]:
        if len(tensor.shape) < 2 or not tensor.first_is_batch or any(size < 1 for size in tensor.shape[1:]):
            raise ValueError(
                f"its input has the shape {tensor.shape}, expected a batch of 1 or of any size, and columns"
            )
        return tensor.shape[1:]

    # -- parts --

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [output], name=f"{output}/{kind}", **attributes))
        self._known.add(output)
        return output

    def constant(self, name: str, value: Any, dtype: Any) -> str:
        self._constants[name] = np.asarray(value, dtype)
        return name

    def _tensor(self, name: str) -> Tensor:
        """Return a tensor that is a constant, or made before."""
        tensor = self._model.tensors.get(name)
        if tensor is None or (tensor.data is None and name not in self._known):
            raise ValueError(f"an operator reads {name!r}, which nothing has made before")
        return tensor

    def _scale(self, tensor: Tensor) -> list[str]:
        known = tensor.quantization
        if known is None:
            raise ValueError(f"tensor {tensor.name!r} is of {tensor.dtype} and has no scale")
        dtype = tensor.dtype
        one = len(known.scales) == 1
        scales = known.scales[0] if one else known.scales
        limits = np.iinfo(dtype)
        if ((known.zero_points < limits.min) | (known.zero_points > limits.max)).any():
            raise ValueError(f"tensor {tensor.name!r} has a zero point that {dtype} does not hold")
        zeros = known.zero_points[0] if one else known.zero_points
        return [
            self.constant(f"{tensor.name}:scale", scales, np.float32),
            self.constant(f"{tensor.name}:zero_point", zeros, dtype),
        ]

    def real(self, name: str) -> str:
        """Return a tensor as real numbers."""
        tensor = self._tensor(name)
        if tensor.data is not None and name not in self._constants:
            self.constant(name, tensor.data, tensor.data.dtype)
        if tensor.quantization is None or tensor.dtype == "float32":
            return name
        made = f"{name}:real"
        if made not in self._known:
            axis = {"axis": tensor.quantization.axis} if len(tensor.quantization.scales) > 1 else {}
            self.node("DequantizeLinear", [name, *self._scale(tensor)], made, **axis)
        return made

    def give(self, operator: Operator, kind: str, inputs: list[str], **attributes: Any) -> None:
        """Write an operator of real numbers, the activation that is fused into it, and what makes integers of it."""
        tensor = self._model.tensors[operator.output]
        steps = [(kind, inputs, attributes), *self._fused(operator)]
        if tensor.dtype in INTEGERS:
            steps.append(("QuantizeLinear", self._scale(tensor), {}))
        name = ""
        for place, (step, read, given) in enumerate(steps):
            target = tensor.name if place == len(steps) - 1 else f"{tensor.name}:step{place}"
            name = self.node(step, read if place == 0 else [name, *read], target, **given)

    def _fused(self, operator: Operator) -> list[tuple[str, list[str], dict[str, Any]]]:
        code = operator.options.get("fused", 0)
        if code == 0:
            return []
        if code == RELU:
            return [("Relu", [], {})]
        if code not in (RELU6, RELU_N1_TO_1):
            raise ValueError(f"the {operator.kind} that makes {operator.output!r} has the fused activation {code}")
        return [("Clip", self._bounds(operator.output, *((0.0, 6.0) if code == RELU6 else (-1.0, 1.0))), {})]

    def _bounds(self, name: str, low: float, high: float) -> list[str]:
        ends = (("low", low), ("high", high))
        return [self.constant(f"{name}:{which}", value, np.float32) for which, value in ends]

    # -- operators --

    def translate(self, operator: Operator) -> None:
        """Write what computes an operator."""
        if operator.output not in self._model.tensors or operator.output in self._known:
            raise ValueError(f"the {operator.kind} makes {operator.output!r}, which is made already")
        if operator.kind in _ELEMENTWISE:
            kind, attributes = _ELEMENTWISE[operator.kind]
            self.give(operator, kind, [self.real(name) for name in operator.inputs], **attributes)
        else:
            _OTHERS[operator.kind](self, operator)

    def dense(self, operator: Operator) -> None:
        source, weight = operator.inputs[:2]
        kernel, shape = self._tensor(weight), self._tensor(source).shape
        constant = kernel.data is not None or weight in self._weights
        if operator.options.get("weights_format") or not constant or len(kernel.shape) != 2:
            raise ValueError(f"the FULLY_CONNECTED that makes {operator.output!r} has no constant matrix of weights")
        n_in = kernel.shape[1]
        bias = [self.real(name) for name in operator.inputs[2:3] if name]
        read = self.real(source)
        if len(shape) == 2 and shape[1] == n_in:
            self.give(operator, "Gemm", [read, self.real(weight), *bias], transB=1)
            return
        if bias or not operator.options.get("keep_num_dims"):
            shaped = self.constant(f"{operator.output}:rows", [-1, n_in], np.int64)
            read = self.node("Reshape", [read, shaped], f"{operator.output}:as_rows")
            self.give(operator, "Gemm", [read, self.real(weight), *bias], transB=1)
            return
        turned = self.node("Transpose", [self.real(weight)], f"{operator.output}:kernel", perm=[1, 0])
        self.give(operator, "MatMul", [read, turned])

    def add(self, operator: Operator) -> None:
        first, second = operator.inputs
        offset = self._model.tensors.get(second)
        if first in self._indices and offset is not None and offset.data is not None and offset.data.size == 1:
            source, less = self._indices[first]
            self._indices[operator.output] = (source, less - int(offset.data.reshape(-1)[0]))
            self._known.add(operator.output)
            return
        self.give(operator, "Add", [self.real(name) for name in (first, second)])

    def cast(self, operator: Operator) -> None:
        (source,) = operator.inputs
        if self._tensor(source).dtype not in INTEGERS or self._model.tensors[operator.output].dtype != "int32":
            raise ValueError(f"the CAST that makes {operator.output!r} is of no integers that are looked up")
        self._indices[operator.output] = (source, 0)
        self._known.add(operator.output)

    def gather(self, operator: Operator) -> None:
        table, index = operator.inputs
        entries, limits = self._tensor(table).data, None
        if index in self._indices:
            source, less = self._indices[index]
            limits = np.iinfo(self._model.tensors[source].dtype)
        if limits is None or entries is None or entries.shape != (256,) or less != limits.min:
            raise ValueError(f"the GATHER that makes {operator.output!r} is no look-up of integers in 256 entries")
        # Gather counts negative indices from the end.
        turned = self.constant(f"{operator.output}:table", np.roll(entries, limits.min), entries.dtype)
        place = self.node("Cast", [source], f"{operator.output}:index", to=TensorProto.INT32)
        self.node("Gather", [turned, place], operator.output, axis=0)

    def reshape(self, operator: Operator) -> None:
        tensor, source = self._model.tensors[operator.output], self._tensor(operator.inputs[0])
        rest = tensor.shape[1:]
        if not rest or math.prod(source.shape) != math.prod(tensor.shape) or any(size < 1 for size in rest):
            raise ValueError(f"the RESHAPE of {source.shape} to {tensor.shape} does not keep the columns")
        shape = self.constant(f"{operator.output}:shape", [-1, *rest], np.int64)
        self.node("Reshape", [source.name, shape], operator.output)

    def quantize(self, operator: Operator) -> None:
        tensor = self._model.tensors[operator.output]
        self.node("QuantizeLinear", [self.real(operator.inputs[0]), *self._scale(tensor)], operator.output)

    def dequantize(self, operator: Operator) -> None:
        source = self._tensor(operator.inputs[0])
        if source.data is not None:
            self.constant(source.name, source.data, source.data.dtype)
            self._weights.add(operator.output)
        known = source.quantization
        axis = {"axis": known.axis} if known is not None and len(known.scales) > 1 else {}
        self.node("DequantizeLinear", [source.name, *self._scale(source)], operator.output, **axis)

    def softmax(self, operator: Operator) -> None:
        if operator.options.get("beta", 0.0) != 1.0:
            raise ValueError(f"the SOFTMAX that makes {operator.output!r} has a factor, {operator.options.get('beta')}")
        self.give(operator, "Softmax", [self.real(operator.inputs[0])], axis=-1)

    def mean(self, operator: Operator) -> None:
        source, axes = (self._tensor(name) for name in operator.inputs)
        if axes.data is None:
            raise ValueError(f"the MEAN that makes {operator.output!r} has no constant axes")
        wanted = self.constant(f"{operator.output}:axes", axes.data.reshape(-1), np.int64)
        keep = int(bool(operator.options.get("keep_dims")))
        self.give(operator, "ReduceMean", [self.real(source.name), wanted], keepdims=keep)

    def clip(self, operator: Operator) -> None:
        bounds = (0.0, 6.0) if operator.kind == "RELU6" else (-1.0, 1.0)
        self.give(operator, "Clip", [self.real(operator.inputs[0]), *self._bounds(operator.output, *bounds)])

    def leaky_relu(self, operator: Operator) -> None:
        self.give(operator, "LeakyRelu", [self.real(operator.inputs[0])], alpha=operator.options.get("alpha", 0.0))

    def gelu(self, operator: Operator) -> None:
        approximate = "tanh" if operator.options.get("approximate") else "none"
        self.give(operator, "Gelu", [self.real(operator.inputs[0])], approximate=approximate)


_ELEMENTWISE: dict[str, tuple[str, dict[str, Any]]] = {
    "ABS": ("Abs", {}),
    "DIV": ("Div", {}),
    "ELU": ("Elu", {}),
    "EXP": ("Exp", {}),
    "GREATER": ("Greater", {}),
    "HARD_SWISH": ("HardSwish", {}),
    "LOG": ("Log", {}),
    "LOGISTIC": ("Sigmoid", {}),
    "LOG_SOFTMAX": ("LogSoftmax", {"axis": -1}),
    "MAXIMUM": ("Max", {}),
    "MINIMUM": ("Min", {}),
    "MUL": ("Mul", {}),
    "NEG": ("Neg", {}),
    "RELU": ("Relu", {}),
    "SELECT_V2": ("Where", {}),
    "SQRT": ("Sqrt", {}),
    "SUB": ("Sub", {}),
    "TANH": ("Tanh", {}),
}
_OTHERS: dict[str, Callable[[_Translation, Operator], None]] = {
    "ADD": _Translation.add,
    "CAST": _Translation.cast,
    "DEQUANTIZE": _Translation.dequantize,
    "FULLY_CONNECTED": _Translation.dense,
    "GATHER": _Translation.gather,
    "GELU": _Translation.gelu,
    "LEAKY_RELU": _Translation.leaky_relu,
    "MEAN": _Translation.mean,
    "QUANTIZE": _Translation.quantize,
    "RELU6": _Translation.clip,
    "RELU_N1_TO_1": _Translation.clip,
    "RESHAPE": _Translation.reshape,
    "SOFTMAX": _Translation.softmax,
}
