"""The dense layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nbdense import activations, constraints, initializers, regularizers
from nbdense._checks import finite_float32, positive_int
from nbdense.engine.rows import DENSE
from nbdense.layers.base import ActivatedLayer, Shape, describe_given, input_of, penalties, refuse
from nbdense.layers.forms import OnnxGraph, RowForm, register_form
from nbdense.layers.registry import register
from nbdense.layers.regularization import penalise_activity
from nbdense.layers.weights import Weight
from nbdense.network import Row
from nbdense.network.builder import NetworkBuilder


@register
class Dense(ActivatedLayer):
    """activation(x kernel + bias) on the last axis, kernel of shape (n_in, units).

    Parameters
    ----------
    units : int
        Columns of the output; positive.
    activation : str, Activation or activation layer, optional
        A row of ``nbdense.activations.ACTIVATIONS`` or one's own; None is linear.
    use_bias : bool
        Whether a bias is added.
    kernel_initializer, bias_initializer : str or Initializer
        See `nbdense.initializers`.
    kernel_regularizer, bias_regularizer : str or Regularizer, optional
        See `nbdense.regularizers`.
    name : str, optional
        Unique within a model.
    trainable : bool
        Whether the parameters learn.
    input_shape : tuple of int, optional
        Shape of one input row, where this is the first layer and there is no Input.
    input_dim : int, optional
        The same as ``input_shape=(input_dim,)``.
    dtype : {"float32", "float64"}, optional
        As the model's, which it is by default.
    kernel_constraint, bias_constraint : str or Constraint, optional
        Projections of the weights behind each step; see `nbdense.constraints`.
    activity_regularizer : str or Regularizer, optional
        Penalises the outputs, as an `ActivityRegularization` behind the layer does.
    lora_rank, quantization_config : None
        Keras's arguments that are not supported, refused by name.
    """

    kind = "dense"

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        name: str | None = None,
        trainable: bool = True,
        input_shape: tuple[int, ...] | None = None,
        input_dim: int | None = None,
        dtype: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        activity_regularizer: Any = None,
        lora_rank: None = None,
        quantization_config: None = None,
    ) -> None:
        super().__init__(name, trainable, dtype)
        refuse("Dense", "lora_rank", lora_rank, "freeze the layers before it by trainable=False instead")
        refuse("Dense", "quantization_config", quantization_config, "quantize the model by nbdense.quantize")
        self.units = positive_int("Dense", "units", units)
        self.activation = activation
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.for_layer(kernel_initializer)
        self.bias_initializer = initializers.for_layer(bias_initializer)
        self.kernel_regularizer = regularizers.for_layer(kernel_regularizer)
        self.bias_regularizer = regularizers.for_layer(bias_regularizer)
        self.activity_regularizer = regularizers.for_layer(activity_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        self.input = input_of(input_shape, input_dim)
        if self.activation.rowwise and self.units == 1:
            always, instead = (1, "sigmoid") if self.activation.not_negative else (0, "log_sigmoid")
            raise ValueError(
                f"Dense: {self.activation.name} over 1 unit is always {always}; use activation={instead!r}, or a unit "
                "for each class"
            )

    def write(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        n_in = builder.n
        random = initializers.generator(seed, 2 * number)
        kernel = builder.parameter(
            f"{self.name}/kernel",
            self.kernel_initializer.draw((n_in, self.units), random),
            trainable=self.trainable,
            **penalties(self.kernel_regularizer),
            projection=self.kernel_constraint,
        )
        bias = -1
        if self.use_bias:
            random = initializers.generator(seed, 2 * number + 1)
            bias = builder.parameter(
                f"{self.name}/bias",
                self.bias_initializer.draw((self.units,), random, n_in),
                trainable=self.trainable,
                **penalties(self.bias_regularizer),
                projection=self.bias_constraint,
            )
        builder.dense(self.name, self.units, self.activation, kernel, bias)
        self._finish_kernel(builder)
        penalise_activity(builder, self.name, self.activity_regularizer)

    def _finish_kernel(self, builder: NetworkBuilder) -> None:
        """Add to the dense row; nothing here."""

    @property
    def kernel(self) -> Weight | None:
        """Kernel, (columns of the input, units), once it is built."""
        return self._weight("kernel")

    @property
    def bias(self) -> Weight | None:
        """Bias, (units,), once it is built; None without one."""
        return self._weight("bias")

    @property
    def is_linear(self) -> bool:
        """Tell whether it has no activation."""
        return self.activation.name == "linear"

    def parameters_for(self, shape: Shape) -> int:
        return self.units * (shape[-1] + (1 if self.use_bias else 0))

    def shape_after(self, shape: Shape) -> Shape:
        return (*shape[:-1], self.units)

    def multiply_adds(self, shape: Shape) -> int:
        return math.prod(shape) * self.units

    def get_config(self) -> dict[str, Any]:
        config = {
            "units": self.units,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "bias_initializer": initializers.serialize(self.bias_initializer),
            **super().get_config(),
        }
        if self.activity_regularizer is not None:
            config["activity_regularizer"] = regularizers.serialize(self.activity_regularizer)
        return config | describe_given(self, ("kernel", "bias"))


def _write_onnx(graph: OnnxGraph, row: Row, prefix: str, inputs: Sequence[str], target: str) -> None:
    """Write a Gemm with weights [N, K], which is what runtimes fuse; on more axes MatMul and Add, on the last one."""
    kernel = finite_float32(row.kernel, row.label, "kernel")
    bias = None
    if row.bias is not None:
        bias = graph.constant(f"{prefix}/bias", finite_float32(row.bias, row.label, "bias"), np.float32)
    if row.positions == 1:
        weight = graph.constant(f"{prefix}/weight", kernel.T, np.float32)
        graph.node("Gemm", [*inputs, weight, *([] if bias is None else [bias])], target, transB=1)
        return
    factors = [*inputs, graph.constant(f"{prefix}/weight", kernel, np.float32)]
    if bias is None:
        graph.node("MatMul", factors, target)
    else:
        graph.node("Add", [graph.node("MatMul", factors, f"{prefix}/product"), bias], target)


register_form(RowForm(DENSE, "dense", tensors=("kernel", "bias?"), write_onnx=_write_onnx))
