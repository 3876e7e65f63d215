"""Layers under Keras's names. A layer is a description; `build` writes it into a NetworkBuilder."""

from __future__ import annotations

import math
from typing import Any

from nbdense import activations, initializers, regularizers
from nbdense._checks import positive_int
from nbdense.activations import ACTIVATIONS
from nbdense.layers.base import Input, Layer, Shape
from nbdense.layers.registry import register
from nbdense.network.builder import NetworkBuilder


def _input_of(input_shape: tuple[int, ...] | None, input_dim: int | None) -> Input | None:
    if input_dim is not None:
        input_shape = (input_dim,)
    return None if input_shape is None else Input(input_shape)


@register
class Dense(Layer):
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
        self.kernel_initializer = initializers.for_layer(kernel_initializer)
        self.bias_initializer = initializers.for_layer(bias_initializer)
        self.kernel_regularizer = regularizers.for_layer(kernel_regularizer)
        self.bias_regularizer = regularizers.for_layer(bias_regularizer)
        self.input = _input_of(input_shape, input_dim)
        if self.activation.name == "softmax" and self.units == 1:
            raise ValueError(
                "Dense: softmax over 1 unit is always 1; use activation='sigmoid', or a unit for each class"
            )

    def build(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        n_in = builder.n
        random = initializers.generator(seed, 2 * number)
        kernel = builder.parameter(
            f"{self.name}/kernel",
            self.kernel_initializer.draw((n_in, self.units), random),
            trainable=self.trainable,
            **_penalties(self.kernel_regularizer),
        )
        bias = -1
        if self.use_bias:
            random = initializers.generator(seed, 2 * number + 1)
            bias = builder.parameter(
                f"{self.name}/bias",
                self.bias_initializer.draw((self.units,), random, n_in),
                trainable=self.trainable,
                **_penalties(self.bias_regularizer),
            )
        builder.dense(self.name, self.units, self.activation, self.activation.alpha, kernel, bias)

    @property
    def is_linear(self) -> bool:
        """Tell whether it has no activation."""
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
class Activation(Layer):
    """An activation as a layer of its own; behind a linear Dense it costs no more than in it.

    Parameters
    ----------
    activation : str or Activation
        As for `Dense`.
    name : str, optional
        Unique within a model.
    """

    kind = "activation"

    def __init__(self, activation: Any, name: str | None = None) -> None:
        super().__init__(name)
        self.activation = activations.get(activation)

    def build(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        if self.activation.name == "softmax" and builder.n == 1:
            raise ValueError(f"layer {self.name!r}: softmax over 1 column is always 1; use sigmoid")
        builder.activation(self.name, self.activation, self.activation.alpha)

    def get_config(self) -> dict[str, Any]:
        return {"activation": activations.serialize(self.activation), **super().get_config()}


@register
class ReLU(Activation):
    """max(x, 0), with a most or with a slope below 0.

    Parameters
    ----------
    max_value : float, optional
        The most that comes out.
    negative_slope : float
        Slope below 0; at least 0, and not together with ``max_value``.
    name : str, optional
        Unique within a model.
    """

    kind = "re_lu"

    def __init__(self, max_value: float | None = None, negative_slope: float = 0.0, name: str | None = None) -> None:
        if max_value is not None and negative_slope:
            raise ValueError("ReLU: give max_value or negative_slope, not both")
        if max_value is not None and not (math.isfinite(max_value) and max_value > 0):
            raise ValueError(f"ReLU: max_value must be a positive number, got {max_value!r}")
        chosen = ACTIVATIONS["relu"]
        if max_value is not None:
            chosen = ACTIVATIONS["relu6"].with_alpha(max_value)
        elif negative_slope:
            chosen = ACTIVATIONS["leaky_relu"].with_alpha(negative_slope)
        super().__init__(chosen, name)
        self.max_value, self.negative_slope = max_value, negative_slope

    def get_config(self) -> dict[str, Any]:
        return {"max_value": self.max_value, "negative_slope": self.negative_slope, **Layer.get_config(self)}


@register
class LeakyReLU(Activation):
    """x above 0, negative_slope x below.

    Parameters
    ----------
    negative_slope : float
        At least 0.
    name : str, optional
        Unique within a model.
    """

    kind = "leaky_re_lu"

    def __init__(self, negative_slope: float = 0.3, name: str | None = None) -> None:
        super().__init__(ACTIVATIONS["leaky_relu"].with_alpha(negative_slope), name)
        self.negative_slope = float(negative_slope)

    def get_config(self) -> dict[str, Any]:
        return {"negative_slope": self.negative_slope, **Layer.get_config(self)}


@register
class Softmax(Activation):
    """exp(x) over its sum along the last axis.

    Parameters
    ----------
    axis : int
        -1, the last.
    name : str, optional
        Unique within a model.
    """

    kind = "softmax"

    def __init__(self, axis: int = -1, name: str | None = None) -> None:
        if axis != -1:
            raise ValueError(f"Softmax: axis must be -1, got {axis!r}")
        super().__init__("softmax", name)

    def get_config(self) -> dict[str, Any]:
        return Layer.get_config(self)


@register
class Dropout(Layer):
    """In training, zeros for a random share of the elements, and the others times 1 / (1 - rate).

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
    """All axes of a row of data as one.

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
