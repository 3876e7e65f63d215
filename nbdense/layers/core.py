"""Layers under Keras's names. A layer is a description; `build` writes it into a NetworkBuilder."""

from __future__ import annotations

import math
from typing import Any

from nbdense import activations, initializers, regularizers
from nbdense._checks import positive_int
from nbdense.layers.base import Input, Layer, Shape
from nbdense.layers.registry import register
from nbdense.network.builder import NetworkBuilder


def _input_of(input_shape: tuple[int, ...] | None, input_dim: int | None) -> Input | None:
    if input_dim is not None:
        input_shape = (input_dim,)
    return None if input_shape is None else Input(input_shape)


@register
class Dense(Layer):
    """A dense layer: activation(x kernel + bias) on the last axis, kernel of shape (n_in, units).

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
    ) -> None:
        super().__init__(name, trainable)
        self.units = positive_int("Dense", "units", units)
        self.activation = activations.get(activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.input = _input_of(input_shape, input_dim)
        if self.activation.rowwise and self.units == 1:
            always, instead = (1, "sigmoid") if self.activation.not_negative else (0, "log_sigmoid")
            raise ValueError(
                f"Dense: {self.activation.name} over 1 unit is always {always}; use activation={instead!r}, or a unit "
                "for each class"
            )

    def build(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        n_in = builder.n
        random = initializers.generator(seed, 2 * number)
        kernel = builder.parameter(
            f"{self.name}/kernel",
            self.kernel_initializer((n_in, self.units), random),
            trainable=self.trainable,
            **_penalties(self.kernel_regularizer),
        )
        bias = -1
        if self.use_bias:
            random = initializers.generator(seed, 2 * number + 1)
            bias = builder.parameter(
                f"{self.name}/bias",
                self.bias_initializer((self.units,), random, n_in),
                trainable=self.trainable,
                **_penalties(self.bias_regularizer),
            )
        builder.dense(self.name, self.units, self.activation, kernel, bias)

    @property
    def is_linear(self) -> bool:
        """True where it has no activation."""
        return self.activation.name == "linear"

    def count_params(self, shape: Shape) -> int:
        return self.units * (shape[-1] + (1 if self.use_bias else 0))

    def output_shape(self, shape: Shape) -> Shape:
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
        for field in ("kernel_regularizer", "bias_regularizer"):
            if getattr(self, field) is not None:
                config[field] = regularizers.serialize(getattr(self, field))
        return config


def _penalties(regularizer: Any) -> dict[str, float]:
    return {} if regularizer is None else {"l1": regularizer.l1, "l2": regularizer.l2}


@register
class Dropout(Layer):
    """Dropout: in training, zeros for a random share of the elements, and the others times 1 / (1 - rate).

    Srivastava et al. 2014, section 10 ("inverted"). Which elements is a function of the model's seed, the step, the
    layer and the element: the same with any number of threads, and after a stop and resume.

    Parameters
    ----------
    rate : float
        The share, in [0, 1).
    noise_shape : None
        Accepted for Keras's sake.
    seed : int, optional
        Accepted for Keras's sake; the model's seed decides.
    name : str, optional
        Unique within a model.
    """

    kind = "dropout"

    def __init__(self, rate: float, noise_shape: None = None, seed: int | None = None, name: str | None = None) -> None:
        super().__init__(name)
        del seed
        if noise_shape is not None:
            raise ValueError("Dropout: noise_shape is not supported")
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0.0 <= rate < 1.0:
            raise ValueError(f"Dropout: rate must be in [0, 1), got {rate!r}; 1 would leave nothing")
        self.rate = float(rate)

    def build(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        if self.rate:
            builder.dropout(self.name, self.rate)

    def get_config(self) -> dict[str, Any]:
        return {"rate": self.rate, **super().get_config()}


@register
class Flatten(Layer):
    """A change of shape: all axes of a row of data as one.

    Parameters
    ----------
    data_format : str, optional
        Accepted for Keras's sake; elements keep their order.
    name : str, optional
        Unique within a model.
    input_shape : tuple of int, optional
        Shape of one input row, where this is the first layer and there is no Input.
    """

    kind = "flatten"

    def __init__(
        self, data_format: str | None = None, name: str | None = None, input_shape: tuple[int, ...] | None = None
    ) -> None:
        super().__init__(name)
        del data_format
        self.input = _input_of(input_shape, None)

    def build(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        builder.flatten(self.name)

    def output_shape(self, shape: Shape) -> Shape:
        return (math.prod(shape),)
