"""Layer normalisation: the layer, and how rows of it are written to and read from ONNX.

In files it is LayerNormalization from opset 17 on; before, and where the columns are no last axis, core operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nbdense._checks import finite_float32
from nbdense.engine.rows import LAYER_NORM
from nbdense.layers.base import refuse
from nbdense.layers.forms import (
    Array,
    ForeignLayer,
    OnnxCall,
    OnnxGraph,
    OnnxValue,
    RowForm,
    Settings,
    Tensors,
    register_form,
    tensors_of,
)
from nbdense.layers.normalization import (
    Normalization,
    absorb,
    fit_gamma_and_beta,
    mean_of_columns,
    over_mean_squares,
    read_norm_operator,
    write_gamma_and_beta,
    write_norm_in_c,
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
    rms_scaling : False
        Keras's argument that is not supported, refused by name.
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
        rms_scaling: bool = False,
    ) -> None:
        refuse("LayerNormalization", "rms_scaling", rms_scaling, "take RMSNormalization")
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
    parts, epsilon = read_norm_operator(call, ("scale", "bias"), optional=1)
    return call.layer(FORM, dict(zip(("gamma", "beta"), parts, strict=False)), {"epsilon": epsilon})


def _composed(value: OnnxValue) -> tuple[Settings, Any] | None:
    """Read (x - mean) / sqrt(variance + epsilon), or times the reciprocal, in any order."""
    for centred, factors, epsilon in over_mean_squares(value):
        source = _less_its_mean(centred)
        if source is not None and all(_less_its_mean(factor) is source for factor in factors):
            return {"epsilon": epsilon}, source
    return None


def _less_its_mean(value: OnnxValue) -> Any:
    if value.operator != "Sub" or len(value.values) != 2:
        return None
    source, mean = value.values
    return source if mean.operator == "ReduceMean" and mean.values[0] is source else None


def _fitted(rows: Array, values: Array, epsilon: float) -> Tensors | None:
    """Fit other ways to write it, as TensorFlow's x (gamma / s) + (beta - mean gamma / s)."""
    centred = rows - rows.mean(axis=-1, keepdims=True)
    return fit_gamma_and_beta(centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon), values)


def _read_torch(layer: ForeignLayer) -> tuple[Tensors, Settings]:
    if len(layer.setting("normalized_shape")) != 1:
        raise layer.fail(
            f"it normalises {len(layer.setting('normalized_shape'))} axes together; one, the last, is taken"
        )
    return tensors_of(layer, gamma="weight", beta="bias"), {"epsilon": float(layer.setting("eps"))}


def _read_keras(layer: ForeignLayer) -> tuple[Tensors, Settings]:
    layer.check_axis(layer.setting("axis"))
    if layer.setting("rms_scaling"):
        raise layer.fail("rms_scaling=True is not taken: it is another normalisation; take RMSNormalization")
    return tensors_of(layer, gamma="gamma", beta="beta"), {"epsilon": float(layer.setting("epsilon"))}


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
        write_c=lambda source, row, label: write_norm_in_c(source, row, label, "gamma", centres=True),
        operators={_OPERATOR: _read_operator},
        composed=_composed,
        fitted=_fitted,
        means=2,
        modules={"torch.LayerNorm": _read_torch, "keras.LayerNormalization": _read_keras},
        absorb=absorb,
        layer=_layer,
    )
)
