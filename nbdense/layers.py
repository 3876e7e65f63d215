"""Layers under Keras's names. A layer is a description; `build` writes it into a NetworkBuilder."""

from __future__ import annotations

from typing import Any, ClassVar

from nbdense import activations, initializers
from nbdense._validate import positive_int
from nbdense.network import NetworkBuilder


class Layer:
    """A layer: named, and able to write itself into a network and into a file.

    Parameters
    ----------
    name : str, optional
        Unique within a model; by default the kind and a number.
    """

    kind: ClassVar[str]

    def __init__(self, name: str | None = None) -> None:
        if name is not None and (not isinstance(name, str) or not name or "/" in name):
            raise ValueError(f"{type(self).__name__}: name must be a non-empty string without '/', got {name!r}")
        self.name = name or ""

    def build(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        """Add this layer's rows and parameters after the builder's current output."""

    def count_params(self, n_in: int) -> int:
        """Parameters of this layer behind ``n_in`` inputs."""
        return 0

    def output_width(self, n_in: int) -> int:
        """Columns that come out when ``n_in`` go in."""
        return n_in

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        return {"name": self.name}


class Input(Layer):
    """The model's input.

    Parameters
    ----------
    shape : tuple of int
        Shape of one row, the batch axis left out; (n,) here.
    name : str, optional
        The input's name.
    """

    kind = "input"

    def __init__(self, shape: tuple[int, ...] | int, name: str | None = None) -> None:
        super().__init__(name)
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if len(shape) != 1:
            raise ValueError(f"Input: shape must be one number, as in (20,), got {shape!r}")
        self.shape = (positive_int("Input", "shape", shape[0]),)

    def get_config(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "name": self.name or None}  # one that fit put there has none


class Dense(Layer):
    """activation(x kernel + bias), kernel of shape (n_in, units).

    Parameters
    ----------
    units : int
        Columns of the output; positive.
    activation : str, optional
        Name of a row of ``nbdense.activations.ACTIVATIONS``; None is linear.
    use_bias : bool
        Whether a bias is added.
    kernel_initializer, bias_initializer : str
        Names of rows of ``nbdense.initializers.INITIALIZERS``.
    name : str, optional
        Unique within a model.
    input_shape : tuple of int, optional
        Shape of one input row, where this is the first layer and there is no Input.
    input_dim : int, optional
        The same as ``input_shape=(input_dim,)``.
    """

    kind = "dense"

    def __init__(
        self,
        units: int,
        activation: str | activations.Activation | None = None,
        use_bias: bool = True,
        kernel_initializer: str = "glorot_uniform",
        bias_initializer: str = "zeros",
        name: str | None = None,
        input_shape: tuple[int, ...] | None = None,
        input_dim: int | None = None,
    ) -> None:
        super().__init__(name)
        self.units = positive_int("Dense", "units", units)
        self.activation = activations.get(activation)
        self.use_bias = bool(use_bias)
        initializers.get(kernel_initializer)
        initializers.get(bias_initializer)
        self.kernel_initializer, self.bias_initializer = kernel_initializer, bias_initializer
        if input_dim is not None:
            input_shape = (input_dim,)
        self.input = None if input_shape is None else Input(input_shape)
        if self.activation.name == "softmax" and self.units == 1:
            raise ValueError(
                "Dense: softmax over 1 unit is always 1; use activation='sigmoid', or a unit for each class"
            )

    def build(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        n_in = builder.widths[builder.output]
        make = initializers.get(self.kernel_initializer)
        kernel = builder.parameter(
            f"{self.name}/kernel", make((n_in, self.units), initializers.generator(seed, 2 * number))
        )
        bias = -1
        if self.use_bias:
            make = initializers.get(self.bias_initializer)
            bias = builder.parameter(
                f"{self.name}/bias", make((self.units,), initializers.generator(seed, 2 * number + 1))
            )
        builder.dense(self.name, self.units, self.activation, self.activation.alpha, kernel, bias)

    def count_params(self, n_in: int) -> int:
        return self.units * (n_in + (1 if self.use_bias else 0))

    def output_width(self, n_in: int) -> int:
        return self.units

    def get_config(self) -> dict[str, Any]:
        return {
            "units": self.units,
            "activation": self.activation.name,
            "use_bias": self.use_bias,
            "kernel_initializer": self.kernel_initializer,
            "bias_initializer": self.bias_initializer,
            "name": self.name,
        }


LAYERS: dict[str, type[Layer]] = {layer.kind: layer for layer in (Input, Dense)}
