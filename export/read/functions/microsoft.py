"""Operators of real numbers that onnxruntime's optimizations put in place of ONNX's: com.microsoft."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nbdense.export.graph.activations import ACTIVATION_OPERATORS
from nbdense.export.read.graph import Call
from nbdense.export.read.integers import Rule
from nbdense.export.read.nodes import DenseNode, FunctionNode
from nbdense.export.read.operators import gemm
from nbdense.export.read.values import Value

_QUICK = 1.702  # QuickGelu's alpha, by default


def _fused_gemm(call: Call) -> Value:
    """Return a Gemm with an activation behind it, whose attributes the node has as activation_alpha and so on."""
    product, operator = gemm(call), call.attributes.get("activation", b"").decode()
    if not operator:
        return product
    if operator not in ACTIVATION_OPERATORS or ACTIVATION_OPERATORS[operator].arguments != 1:
        raise call.fail(f"its activation {operator!r} is none that from_onnx takes")
    prefix = "activation_"
    names = {name.removeprefix(prefix): name for name in call.attributes if name.startswith(prefix)}
    attributes = {name: call.attributes[full] for name, full in names.items()}
    return call.make([product], product.shape, FunctionNode(operator, attributes))


def _fused_matmul(call: Call) -> Value:
    """Return a MatMul with a factor."""
    if any(call.attributes.get(name, 0) for name in ("transA", "transBatchA", "transBatchB")):
        raise call.fail("it transposes what it reads")
    kernel = call.constant(call.inputs[1], "second input")
    kernel = kernel.T if call.attributes.get("transB", 0) else kernel
    alpha = call.attributes.get("alpha", 1.0)
    scaled = kernel if alpha == 1.0 else (kernel * np.float64(alpha)).astype(kernel.dtype)
    return call.dense(call.data(), scaled, None, DenseNode())


def _gelu(approximate: bool) -> Callable[[Call], Value]:
    """Return the rule of a gelu of a tensor, or of its sum with a bias."""
    attributes = {"approximate": b"tanh" if approximate else b"none"}

    def rule(call: Call) -> Value:
        value, bias = call.data(), call.input(1)
        if bias is not None:
            added = call.row_constant(call.constant(bias, "bias"), value.seen)
            value = call.make([value, added], value.shape, FunctionNode("Add"))
        return call.make([value], value.shape, FunctionNode("Gelu", attributes))

    return rule


def _quick_gelu(call: Call) -> Value:
    value = call.data()
    alpha = call.attributes.get("alpha", _QUICK)
    return call.make([value], value.shape, FunctionNode("Swish", {"alpha": alpha}))


MICROSOFT_FUNCTIONS: dict[str, Rule] = {
    "BiasGelu": _gelu(approximate=False),
    "FastGelu": _gelu(approximate=True),
    "FusedGemm": _fused_gemm,
    "FusedMatMul": _fused_matmul,
    "Gelu": _gelu(approximate=False),
    "QuickGelu": _quick_gelu,
}
