"""Layers under Keras's names. A layer is a description; `build` writes it into a NetworkBuilder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Self

from nbdense import activations, initializers, regularizers
from nbdense._checks import positive_int
from nbdense.activations import ACTIVATIONS
from nbdense.layers.base import Input as Input
from nbdense.layers.base import Layer as Layer
from nbdense.layers.base import Shape
from nbdense.layers.base import assign as assign
from nbdense.layers.base import hold_pruned as hold_pruned
from nbdense.layers.normalization import BatchNormalization as BatchNormalization
from nbdense.layers.normalization import LayerNormalization as LayerNormalization
from nbdense.network.builder import NetworkBuilder

_INNER = 4096  # layers of a block are numbered from a multiple of this: random numbers differ from all others'


def _input_of(input_shape: tuple[int, ...] | None, input_dim: int | None) -> Input | None:
    if input_dim is not None:
        input_shape = (input_dim,)
    return None if input_shape is None else Input(input_shape)


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
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
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
        builder.dense(self.name, self.units, self.activation, self.activation.alpha, kernel, bias)

    @property
    def is_linear(self) -> bool:
        """Whether it has no activation."""
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


class Residual(Layer):
    """What its layers make of the input, plus the input (He et al. 2016, section 3.1).

    Where the widths differ, the input goes through a kernel without a bias first (their equation 2).

    Parameters
    ----------
    layers : sequence of Layer
        One after the other; Residual itself included.
    name : str, optional
        Unique within a model.
    trainable : bool
        Whether the parameters learn; False freezes its layers too.
    """

    kind = "residual"

    def __init__(self, layers: Sequence[Any], name: str | None = None, trainable: bool = True) -> None:
        super().__init__(name)
        self.layers: list[Layer] = [
            layer if isinstance(layer, Layer) else layer_from_config(layer["kind"], layer["config"]) for layer in layers
        ]
        if not self.layers:
            raise ValueError("Residual: give it at least one layer")
        wrong = next((layer for layer in self.layers if isinstance(layer, Input | Flatten)), None)
        if wrong is not None:
            raise ValueError(f"Residual: {type(wrong).__name__} cannot stand in it: rows must keep their shape")
        name_layers(self.layers)
        if not trainable:
            self.trainable = False

    def copy(self) -> Self:
        layer = super().copy()
        layer.layers = [inner.copy() for inner in self.layers]
        return layer

    @property
    def trainable(self) -> bool:
        """Whether the parameters learn, those of its layers included."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        for layer in getattr(self, "layers", []):
            layer.trainable = value

    def build(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        skip, shape = builder.pin(), builder.shape
        for i, layer in enumerate(self.layers):
            inner = layer.name
            layer.name = f"{self.name}/{inner}"
            try:
                layer.build(builder, seed, (number + 1) * _INNER + i)
            finally:
                layer.name = inner
        if builder.shape == shape:
            builder.add(self.name, skip)
            return
        ahead, units = builder.pin(), builder.n
        builder.output, builder.shape = skip, shape
        kernel = builder.parameter(
            f"{self.name}/projection/kernel",
            initializers.get("glorot_uniform")((shape[-1], units), initializers.generator(seed, 2 * number)),
            trainable=self.trainable,
        )
        builder.dense(f"{self.name}/projection", units, ACTIVATIONS["linear"], 0.0, kernel, -1)
        self._finish_projection(builder)
        builder.add(self.name, ahead)

    def _finish_projection(self, builder: NetworkBuilder) -> None:
        """What there is to be done to the projected input before it is added."""

    def count_params(self, shape: Shape) -> int:
        total, inner = 0, shape
        for layer in self.layers:
            total += layer.count_params(inner)
            inner = layer.output_shape(inner)
        return total + (shape[-1] * inner[-1] if inner != shape else 0)

    def output_shape(self, shape: Shape) -> Shape:
        for layer in self.layers:
            shape = layer.output_shape(shape)
        return shape

    def multiply_adds(self, shape: Shape) -> int:
        total, inner = 0, shape
        for layer in self.layers:
            total += layer.multiply_adds(inner)
            inner = layer.output_shape(inner)
        return total + (math.prod(shape) * inner[-1] if inner != shape else 0)

    def get_config(self) -> dict[str, Any]:
        inner = [{"kind": layer.kind, "config": layer.get_config()} for layer in self.layers]
        return {"layers": inner, **super().get_config()}


def inner_layers(layers: Sequence[Layer]) -> Iterator[Layer]:
    """The layers, each followed by those inside it."""
    for layer in layers:
        yield layer
        yield from inner_layers(getattr(layer, "layers", []))


def name_layers(layers: Sequence[Layer]) -> None:
    """Give names to the layers that have none; refuse one that is there twice."""
    taken: set[str] = set()
    for i, layer in enumerate(layers):
        if not layer.name:
            number = sum(type(other) is type(layer) for other in layers[:i])
            later = {other.name for other in layers[i + 1 :]}
            while not layer.name or layer.name in taken | later:
                layer.name = layer.kind if number == 0 else f"{layer.kind}_{number}"
                number += 1
        elif layer.name in taken:
            raise ValueError(f"there is a layer named {layer.name!r} already")
        taken.add(layer.name)


LAYERS: dict[str, type[Layer]] = {
    layer.kind: layer
    for layer in (
        Input,
        Dense,
        Activation,
        ReLU,
        LeakyReLU,
        Softmax,
        Dropout,
        BatchNormalization,
        LayerNormalization,
        Flatten,
        Residual,
    )
}


def layer_from_config(kind: str, config: dict[str, Any]) -> Layer:
    """A layer from its kind and the arguments that `Layer.get_config` gave.

    Raises
    ------
    ValueError
        If there is no such kind of layer.
    """
    if kind not in LAYERS:
        from nbdense.layers.fake_quantization import FAKE_QUANTIZED  # which is made from the layers here

        if kind not in FAKE_QUANTIZED:
            raise ValueError(f"unknown kind of layer {kind!r}")
        return FAKE_QUANTIZED[kind](**config)
    return LAYERS[kind](**config)
