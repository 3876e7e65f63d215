"""Layer normalisation: the layer, and how rows of it are written to and read from ONNX.

In files it is LayerNormalization from opset 17 on; before, and where the columns are no last axis, core operators.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nbdense._checks import finite_float32
from nbdense.engine.rows import LAYER_NORM
from nbdense.layers.forms import (
    Array,
    OnnxCall,
    OnnxGraph,
    OnnxValue,
    RowForm,
    Settings,
    Tensors,
    number_of,
    register_form,
)
from nbdense.layers.normalization import (
    Normalization,
    absorb,
    fit_gamma_and_beta,
    mean_of_columns,
    write_gamma_and_beta,
)
from nbdense.layers.registry import register
from nbdense.network import Row
from nbdense.network.builder import NetworkBuilder

_OPERATOR, _OPSET = "LayerNormalization", 17


@register
class LayerNormalization(Normalization):
    """Every row's columns standardised, then gamma times it plus beta (Ba, Kiros and Hinton 2016, section 3).

    Parameters
    ----------
    axis : int
        The last: -1, or its number, the batch's being 0.
    epsilon : float
        Added to the variance.
    center, scale : bool
        Whether there are a beta and a gamma.
    beta_initializer, gamma_initializer : str or Initializer
        See `nbdense.initializers`.
    name : str, optional
        Unique within a model.
    trainable : bool
        Whether gamma and beta learn.
    dtype : {"float32", "float64"}, optional
        As the model's, which it is by default.
    beta_regularizer, gamma_regularizer : str or Regularizer, optional
        See `nbdense.regularizers`.
    beta_constraint, gamma_constraint : str or Constraint, optional
        See `nbdense.constraints`.
    """

    kind = "layer_normalization"

    def __init__(
        self,
        axis: Any = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
    ) -> None:
        super().__init__(axis, epsilon, center, scale, beta_initializer, gamma_initializer, name, trainable, dtype)
        self.set_options(beta_regularizer, gamma_regularizer, beta_constraint, gamma_constraint)

    def write(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        gamma, beta = self.gamma_and_beta(builder, seed, number)
        builder.row(LAYER_NORM, self.name, gamma=gamma, beta=beta, epsilon=self.epsilon)


# -- writing ---------------------------------------------------------------------------------------------------------


def _write_onnx(graph: OnnxGraph, row: Row, prefix: str, inputs: Sequence[str], target: str) -> None:
    if graph.opset < _OPSET or graph.axis != -1:  # the operator normalises from its axis on, to the last
        _write_core_operators(graph, row, prefix, inputs[0], target)
        return
    gamma = row.tensors.get("gamma", np.ones(row.n_out, np.float32))
    constants = [graph.constant(f"{prefix}/gamma", finite_float32(gamma, row.label, "gamma"), np.float32)]
    if "beta" in row.tensors:
        beta = finite_float32(row.tensors["beta"], row.label, "beta")
        constants.append(graph.constant(f"{prefix}/beta", beta, np.float32))
    graph.node(_OPERATOR, [*inputs, *constants], target, axis=graph.axis, epsilon=row.settings["epsilon"])


def _write_core_operators(graph: OnnxGraph, row: Row, prefix: str, source: str, target: str) -> None:
    mean = mean_of_columns(graph, prefix, source, f"{prefix}/mean")
    centred = graph.node("Sub", [source, mean], f"{prefix}/centred")
    square = graph.node("Mul", [centred, centred], f"{prefix}/square")
    variance = mean_of_columns(graph, prefix, square, f"{prefix}/variance")
    epsilon = graph.constant(f"{prefix}/epsilon", row.settings["epsilon"], np.float32)
    deviation = graph.node("Sqrt", [graph.node("Add", [variance, epsilon], f"{prefix}/raised")], f"{prefix}/deviation")
    standardised = f"{prefix}/standardised" if row.tensors else target
    graph.node("Div", [centred, deviation], standardised)
    write_gamma_and_beta(graph, row, prefix, standardised, target)


# -- reading ---------------------------------------------------------------------------------------------------------


def _read_operator(call: OnnxCall) -> Any:
    value = call.data()
    axis = call.attributes.get("axis", -1)
    if not value.shape or axis not in (-1, len(value.seen)):
        raise call.fail(f"it must normalise the last axis alone, got axis {axis}")
    if call.uses_more:
        raise call.fail("other nodes read its mean or deviation; only its first output is supported")
    parts = call.constants(("scale", "bias"), optional=1)
    if any(part.dtype.kind != "f" or part.size not in (1, value.shape[-1]) for part in parts):
        raise call.fail(f"scale and bias must have {value.shape[-1]} elements each")
    parts = [np.broadcast_to(part.reshape(-1), value.shape[-1:]) for part in parts]
    epsilon = float(call.attributes.get("epsilon", 1e-5))
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise call.fail(f"epsilon must be above 0, got {epsilon}")
    return call.layer(FORM, dict(zip(("gamma", "beta"), parts, strict=False)), {"epsilon": epsilon})


def _composed(value: OnnxValue) -> tuple[Settings, Any] | None:
    """Read (x - mean) / sqrt(variance + epsilon), or times the reciprocal, in any order."""
    if value.operator not in ("Div", "Mul") or len(value.values) != 2:
        return None
    one, two = value.values
    for centred, other in [(one, two)] if value.operator == "Div" else [(one, two), (two, one)]:
        root = other if value.operator == "Div" else _inverse(other)
        if root is None or root.operator not in ("Sqrt", "Pow"):
            continue
        if root.operator == "Pow" and (root.inputs[0] is not root.values[0] or number_of(root.inputs[1]) != 0.5):
            continue
        known = _standardised(centred, root.values[0])
        if known is not None:
            return known
    return None


def _inverse(value: OnnxValue) -> OnnxValue | None:
    """Return the tensor that a value is one over."""
    if value.operator == "Reciprocal":
        return value.values[0]
    if value.operator == "Div" and len(value.values) == 1 and number_of(value.inputs[0]) == 1.0:
        return value.values[0]
    return None


def _standardised(centred: OnnxValue, raised: OnnxValue) -> tuple[Settings, Any] | None:
    """Return epsilon and x, where ``centred`` is x less its mean and ``raised`` its variance plus epsilon."""
    if raised.operator not in ("Add", "Sum") or len(raised.values) != 1:
        return None
    variance, source = raised.values[0], _less_its_mean(centred)
    epsilon = number_of(next(part for part in raised.inputs if part is not variance))
    if epsilon is None or not (0 < epsilon < math.inf) or variance.operator != "ReduceMean" or source is None:
        return None
    square = variance.values[0]
    factors = square.values if square.operator == "Mul" else []
    if square.operator == "Pow":
        factors = [square.values[0]] * 2 if number_of(square.inputs[1]) == 2.0 else []
    same = [_less_its_mean(part) is source for part in factors]
    return ({"epsilon": epsilon}, source) if same == [True, True] else None


def _less_its_mean(value: OnnxValue) -> Any:
    if value.operator != "Sub" or len(value.values) != 2:
        return None
    source, mean = value.values
    return source if mean.operator == "ReduceMean" and mean.values[0] is source else None


def _fitted(rows: Array, values: Array, epsilon: float) -> Tensors | None:
    """Fit other ways to write it, as TensorFlow's x (gamma / s) + (beta - mean gamma / s)."""
    centred = rows - rows.mean(axis=-1, keepdims=True)
    return fit_gamma_and_beta(centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon), values)


def _layer(tensors: Tensors, settings: Settings, name: str | None) -> tuple[Any, dict[str, Array]]:
    has_gamma, has_beta = "gamma" in tensors, "beta" in tensors
    return LayerNormalization(epsilon=settings["epsilon"], center=has_beta, scale=has_gamma, name=name), dict(tensors)


FORM = register_form(
    RowForm(
        LAYER_NORM,
        "layer_norm",
        tensors=("gamma?", "beta?"),
        setting="epsilon",
        write_onnx=_write_onnx,
        operators={_OPERATOR: _read_operator},
        composed=_composed,
        fitted=_fitted,
        means=2,
        absorb=absorb,
        layer=_layer,
    )
)
