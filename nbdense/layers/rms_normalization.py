"""Root mean square normalisation: the layer, and how rows of it are written to and read from ONNX.

In files it is RMSNormalization from opset 23 on; before, and where the columns are no last axis, core operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nbdense._checks import finite_float32, finite_number
from nbdense.engine.rows import RMS_NORM
from nbdense.layers.base import Layer, Shape
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
    check_is_last,
    mean_of_columns,
    over_mean_squares,
    read_norm_operator,
    single_axis,
    write_norm_in_c,
)
from nbdense.layers.registry import register
from nbdense.layers.weights import Weight
from nbdense.network import Row
from nbdense.network.builder import NetworkBuilder

_OPERATOR, _OPSET = "RMSNormalization", 23


@register
class RMSNormalization(Layer):
    """Every row's columns over their root mean square, times a scale (Zhang and Sennrich 2019, eq. 4).

    Parameters
    ----------
    axis : int
        -1 or the number of the last.
    epsilon : float
        Added to the mean square. Of torch's ``nn.RMSNorm``, whose default depends on the dtype, it is that of float32
        where ``epsilon=numpy.finfo("float32").eps``.
    name : str, optional
        Unique within a model.
    trainable : bool
        Whether the scale, 1 at first, learns.
    dtype : {"float32", "float64"}, optional
        As the model's, which it is by default.
    """

    kind = "rms_normalization"

    def __init__(
        self,
        axis: int = -1,
        epsilon: float = 1e-6,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
    ) -> None:
        super().__init__(name, trainable, dtype)
        self.axis = single_axis("RMSNormalization", axis)
        self.epsilon = finite_number("RMSNormalization", "epsilon", epsilon, 0, ends="()")

    def write(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        check_is_last(self.name, self.axis, builder.shape)
        scale = builder.parameter(f"{self.name}/scale", np.ones(builder.n), trainable=self.trainable)
        builder.row(RMS_NORM, self.name, scale=scale, epsilon=self.epsilon)

    @property
    def scale(self) -> Weight | None:
        """Factor of each column, once it is built."""
        return self._weight("scale")

    def parameters_for(self, shape: Shape) -> int:
        return shape[-1]

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = {"axis": self.axis} if self.axis != -1 else {}
        return config | {"epsilon": self.epsilon} | super().get_config()


# -- writing ---------------------------------------------------------------------------------------------------------


def _write_onnx(graph: OnnxGraph, row: Row, prefix: str, inputs: Sequence[str], target: str) -> None:
    scale = finite_float32(row.tensors.get("scale", np.ones(row.n_out, np.float32)), row.label, "scale")
    if graph.opset >= _OPSET and graph.axis == -1:  # the operator normalises from its axis on, to the last
        constant = graph.constant(f"{prefix}/scale", scale, np.float32)
        graph.node(_OPERATOR, [*inputs, constant], target, axis=-1, epsilon=row.settings["epsilon"])
        return
    (source,) = inputs
    square = graph.node("Mul", [source, source], f"{prefix}/square")
    mean = mean_of_columns(graph, prefix, square, f"{prefix}/mean_square")
    epsilon = graph.constant(f"{prefix}/epsilon", row.settings["epsilon"], np.float32)
    root = graph.node("Sqrt", [graph.node("Add", [mean, epsilon], f"{prefix}/raised")], f"{prefix}/root")
    constant = graph.constant(f"{prefix}/scale", graph.along_columns(scale), np.float32)
    graph.node("Mul", [graph.node("Div", [source, root], f"{prefix}/normalised"), constant], target)


# -- reading ---------------------------------------------------------------------------------------------------------


def _read_operator(call: OnnxCall) -> Any:
    (scale,), epsilon = read_norm_operator(call, ("scale",))
    return call.layer(FORM, {"scale": scale}, {"epsilon": epsilon})


def _composed(value: OnnxValue) -> tuple[Settings, Any] | None:
    """Read x / sqrt(mean(x x) + epsilon), or times the reciprocal, in any order."""
    for source, factors, epsilon in over_mean_squares(value):
        if all(factor is source for factor in factors):
            return {"epsilon": epsilon}, source
    return None


def _fitted(rows: Array, values: Array, epsilon: float) -> Tensors | None:
    """Fit other ways to write it, as x (scale / root)."""
    standard = rows / np.sqrt((rows**2).mean(axis=-1, keepdims=True) + epsilon)
    scale = (standard * values).sum(axis=0) / (standard**2).sum(axis=0)
    fits = (np.abs(scale * standard - values) <= 1e-9 * np.maximum(np.abs(values), 1.0)).all()
    return {"scale": scale} if fits else None


def _absorb(tensors: Tensors, mean: Array, scale: Array, shift: Array) -> Tensors | None:
    """Return the tensors with a multiplication done behind the layer; None of what adds something too."""
    if mean.any() or shift.any():
        return None
    return {"scale": tensors.get("scale", np.ones(len(scale))).astype(np.float64) * scale}


def _read_torch(layer: ForeignLayer) -> tuple[Tensors, Settings]:
    if len(layer.setting("normalized_shape")) != 1:
        raise layer.fail(
            f"it normalises {len(layer.setting('normalized_shape'))} axes together; one, the last, is taken"
        )
    epsilon = layer.setting("eps")
    return tensors_of(layer, scale="weight"), {
        "epsilon": float(np.finfo(np.float32).eps if epsilon is None else epsilon)
    }


def _read_keras(layer: ForeignLayer) -> tuple[Tensors, Settings]:
    layer.check_axis(layer.setting("axis"))
    return tensors_of(layer, scale="scale"), {"epsilon": float(layer.setting("epsilon"))}


def _layer(tensors: Tensors, settings: Settings, name: str | None) -> tuple[Any, dict[str, Array]]:
    return RMSNormalization(epsilon=settings["epsilon"], name=name), dict(tensors)


FORM = register_form(
    RowForm(
        RMS_NORM,
        "rms_norm",
        tensors=("scale?",),
        setting="epsilon",
        write_onnx=_write_onnx,
        write_c=lambda source, row, label: write_norm_in_c(source, row, label, "scale", centres=False),
        operators={_OPERATOR: _read_operator},
        composed=_composed,
        fitted=_fitted,
        means=1,
        modules={"torch.RMSNorm": _read_torch, "keras.RMSNormalization": _read_keras},
        absorb=_absorb,
        layer=_layer,
    )
)
