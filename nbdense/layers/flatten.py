"""The axes of a row of data as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nbdense.engine.rows import RESHAPE
from nbdense.layers.base import Layer, Shape, input_of
from nbdense.layers.forms import OnnxGraph, RowForm, register_form
from nbdense.layers.registry import register
from nbdense.network import Row
from nbdense.network.builder import NetworkBuilder


@register
class Flatten(Layer):
    """All axes of a row of data as one.

    Parameters
    ----------
    data_format : str, optional
        Accepted for Keras's sake; elements keep their order.
    name : str, optional
        Unique within a model.
    input_shape : tuple of int, optional
        Shape of one input row, where this is the first layer and there is no Input.
    trainable : bool
        Accepted for Keras's sake: there is nothing to learn.
    dtype : {"float32", "float64"}, optional
        As the model's, which it is by default.
    """

    kind = "flatten"

    def __init__(
        self,
        data_format: str | None = None,
        name: str | None = None,
        input_shape: tuple[int, ...] | None = None,
        trainable: bool = True,
        dtype: Any = None,
    ) -> None:
        super().__init__(name, trainable, dtype)
        del data_format
        self.input = input_of(input_shape, None)

    def write(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        builder.flatten(self.name)

    def shape_after(self, shape: Shape) -> Shape:
        return (math.prod(shape),)


def _write_onnx(graph: OnnxGraph, row: Row, prefix: str, inputs: Sequence[str], target: str) -> None:
    graph.node("Flatten", inputs, target, axis=1)


register_form(RowForm(RESHAPE, "flatten", write_onnx=_write_onnx))
