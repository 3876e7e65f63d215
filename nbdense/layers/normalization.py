"""Layers that standardise."""

from __future__ import annotations

import math
from typing import Any

from nbdense import initializers
from nbdense.layers.base import Layer, Shape
from nbdense.layers.registry import register
from nbdense.network.builder import NetworkBuilder


class _Normalization(Layer):
    def __init__(
        self,
        axis: int,
        epsilon: float,
        center: bool,
        scale: bool,
        beta_initializer: Any,
        gamma_initializer: Any,
        name: str | None,
        trainable: bool,
    ) -> None:
        super().__init__(name, trainable)
        if axis not in (-1, [-1], (-1,)):
            raise ValueError(f"{type(self).__name__}: axis must be -1, the last, got {axis!r}")
        if not (math.isfinite(epsilon) and epsilon > 0):
            raise ValueError(f"{type(self).__name__}: epsilon must be a positive number, got {epsilon!r}")
        self.epsilon = float(epsilon)
        self.center, self.scale = bool(center), bool(scale)
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)

    def _gamma_and_beta(self, builder: NetworkBuilder, seed: int, number: int) -> tuple[int, int]:
        offsets = []
        for which, (name, wanted, make) in enumerate(
            [("gamma", self.scale, self.gamma_initializer), ("beta", self.center, self.beta_initializer)]
        ):
            values = make((builder.n,), initializers.generator(seed, 2 * number + which))
            known = wanted and builder.parameter(f"{self.name}/{name}", values, trainable=self.trainable)
            offsets.append(known if wanted else -1)
        return offsets[0], offsets[1]

    def count_params(self, shape: Shape) -> int:
        return shape[-1] * (self.center + self.scale)

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = {"epsilon": self.epsilon, "center": self.center, "scale": self.scale}
        for field in ("beta_initializer", "gamma_initializer"):
            config[field] = initializers.serialize(getattr(self, field))
        return config | super().get_config()


@register
class BatchNormalization(_Normalization):
    """Batch normalisation: each column standardised over batch and positions, then gamma times it plus beta.

    Ioffe and Szegedy 2015, algorithms 1 and 2. Outside training, and where ``trainable`` is false, running
    statistics take the place of the batch's, as in Keras.

    Parameters
    ----------
    axis : int
        -1, the last.
    momentum : float
        Momentum of the running statistics, in [0, 1].
    epsilon : float
        Added to the (biased) variance.
    center, scale : bool
        Whether there are a beta and a gamma.
    beta_initializer, gamma_initializer : str or Initializer
        See `nbdense.initializers`.
    moving_mean_initializer, moving_variance_initializer : str or Initializer
        See `nbdense.initializers`.
    name : str, optional
        Unique within a model.
    trainable : bool
        Whether gamma and beta learn.
    """

    kind = "batch_normalization"

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(axis, epsilon, center, scale, beta_initializer, gamma_initializer, name, trainable)
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"BatchNormalization: momentum must be in [0, 1], got {momentum!r}")
        self.momentum = float(momentum)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)

    def build(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        gamma, beta = self._gamma_and_beta(builder, seed, number)
        running = [
            builder.parameter(
                f"{self.name}/moving_{what}",
                make((builder.n,), initializers.generator(seed, 2 * number)),
                trainable=False,
            )
            for what, make in (("mean", self.moving_mean_initializer), ("variance", self.moving_variance_initializer))
        ]
        builder.batch_norm(
            self.name, gamma, beta, *running, momentum=self.momentum, epsilon=self.epsilon, frozen=not self.trainable
        )

    def count_params(self, shape: Shape) -> int:
        return super().count_params(shape) + 2 * shape[-1]

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = {"momentum": self.momentum}
        for field in ("moving_mean_initializer", "moving_variance_initializer"):
            config[field] = initializers.serialize(getattr(self, field))
        return config | super().get_config()


@register
class LayerNormalization(_Normalization):
    """Layer normalisation: each row standardised, then gamma times it plus beta (Ba, Kiros and Hinton 2016, section 3).

    Parameters
    ----------
    axis : int
        -1, the last.
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
    """

    kind = "layer_normalization"

    def __init__(
        self,
        axis: int = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(axis, epsilon, center, scale, beta_initializer, gamma_initializer, name, trainable)

    def build(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        gamma, beta = self._gamma_and_beta(builder, seed, number)
        builder.layer_norm(self.name, gamma, beta, self.epsilon)
