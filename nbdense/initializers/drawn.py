"""Initializers that draw each number by itself."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from nbdense._checks import finite_number
from nbdense.initializers.base import Initializer, Values

_BLOCK = 1 << 16  # elements looked at in one go
_CUT = 0.87962566103423978  # standard deviation of a unit normal that is cut at two standard deviations
_MODES, _DISTRIBUTIONS = ("fan_in", "fan_out", "fan_avg"), ("truncated_normal", "untruncated_normal", "uniform")


class RandomInitializer(Initializer):
    """One that draws.

    Parameters
    ----------
    seed : int, optional
        In [0, 2^63). With a seed the values depend on it and on the shape only; without, on the model's seed and the
        tensor's place in the model.
    """

    draws = True

    def __init__(self, seed: int | None = None) -> None:
        if seed is not None and not (hasattr(seed, "__index__") and 0 <= operator.index(seed) < 2**63):
            raise ValueError(f"{type(self).__name__}: seed must be None or a whole number in [0, 2^63), got {seed!r}")
        self.seed = None if seed is None else operator.index(seed)


def _truncated_normal(shape: tuple[int, ...], random: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw unit normal values; those more than two standard deviations out are drawn again until none is."""
    values = random.standard_normal(shape)
    flat = values.reshape(-1)
    outside = np.concatenate(
        [first + np.flatnonzero(np.abs(flat[first : first + _BLOCK]) > 2.0) for first in range(0, flat.size, _BLOCK)]
    )
    while outside.size:
        drawn = random.standard_normal(outside.size)
        flat[outside] = drawn
        outside = outside[np.abs(drawn) > 2.0]
    return values


class RandomUniform(RandomInitializer):
    """U(minval, maxval).

    Parameters
    ----------
    minval, maxval : float
        Bounds; minval may be drawn, maxval not.
    seed : int, optional
        See `RandomInitializer`.
    """

    name = "random_uniform"

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.minval, self.maxval = (
            finite_number(type(self).__name__, "minval", minval),
            finite_number(type(self).__name__, "maxval", maxval),
        )
        if not self.minval <= self.maxval:
            raise ValueError(f"RandomUniform: minval must not be above maxval, got {minval!r} and {maxval!r}")

    def _values(self, shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None) -> Values:
        return random.uniform(self.minval, self.maxval, shape)


class RandomNormal(RandomInitializer):
    """N(mean, stddev^2).

    Parameters
    ----------
    mean, stddev : float
        Mean and standard deviation.
    seed : int, optional
        See `RandomInitializer`.
    """

    name = "random_normal"

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.mean, self.stddev = (
            finite_number(type(self).__name__, "mean", mean),
            finite_number(type(self).__name__, "stddev", stddev, 0.0),
        )

    def _values(self, shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None) -> Values:
        return random.normal(self.mean, self.stddev, shape)


class TruncatedNormal(RandomNormal):
    """N(mean, stddev^2), cut at two standard deviations from the mean.

    Parameters
    ----------
    mean, stddev : float
        Of the normal distribution that is cut: the values' own standard deviation is 0.8796 of it.
    seed : int, optional
        See `RandomInitializer`.
    """

    name = "truncated_normal"

    def _values(self, shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None) -> Values:
        values = _truncated_normal(shape, random)
        values *= self.stddev
        values += self.mean
        return values


class VarianceScaling(RandomInitializer):
    """Mean zero and variance scale / fan. A bias of n elements has fan_in = fan_out = n, as in Keras.

    Parameters
    ----------
    scale : float
        Above zero.
    mode : str
        Which fan: 'fan_in', 'fan_out' or 'fan_avg', their mean.
    distribution : str
        'truncated_normal' (or 'normal': cut at two standard deviations, and widened to have the variance all the
        same), 'untruncated_normal' or 'uniform'.
    seed : int, optional
        See `RandomInitializer`.
    input_axes, output_axes : sequence of int, optional
        Axes whose sizes' product is the fan, of arrays of more axes than a dense layer's; both, or neither counts.
    """

    name = "variance_scaling"

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(seed)
        self.scale = finite_number(type(self).__name__, "scale", scale, 0.0)
        if self.scale == 0.0:
            raise ValueError("VarianceScaling: scale must be above 0; for zeros use Zeros()")
        if mode not in _MODES:
            raise ValueError(f"Invalid `mode` argument: mode must be one of {', '.join(_MODES)}, got {mode!r}")
        self.mode = mode
        lower = distribution.lower() if isinstance(distribution, str) else distribution
        self.distribution = "truncated_normal" if lower == "normal" else lower
        if self.distribution not in _DISTRIBUTIONS:
            raise ValueError(
                f"Invalid `distribution` argument: distribution must be one of {', '.join(_DISTRIBUTIONS)}, "
                f"got {distribution!r}"
            )
        self.input_axes, self.output_axes = input_axes, output_axes

    def _fans(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the numbers of inputs and outputs, as Keras does: axes before the last two are a window's."""
        if self.input_axes is not None and self.output_axes is not None:
            axes = self.input_axes, self.output_axes
            return tuple(math.prod(shape[axis] for axis in part) for part in axes)  # type: ignore[return-value]
        if len(shape) < 2:
            return math.prod(shape), math.prod(shape)
        window = math.prod(shape[:-2])
        return shape[-2] * window, shape[-1] * window

    def _values(self, shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None) -> Values:
        n_in, n_out = self._fans(shape)
        fan = {"fan_in": n_in, "fan_out": n_out, "fan_avg": (n_in + n_out) / 2.0}[self.mode]
        if self.distribution == "uniform":
            limit = math.sqrt(3.0 * self.scale / fan)
            return random.uniform(-limit, limit, shape)
        deviation = math.sqrt(self.scale / fan)
        if self.distribution == "untruncated_normal":
            return random.normal(0.0, deviation, shape)
        values = _truncated_normal(shape, random)
        values *= deviation / _CUT
        return values


class _Preset(VarianceScaling):
    preset: ClassVar[tuple[float, str, str]]

    def __init__(
        self,
        seed: int | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(*self.preset, seed, input_axes, output_axes)


class GlorotUniform(_Preset):
    """U(-a, a), a = sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, eq. 16)."""

    name, preset = "glorot_uniform", (1.0, "fan_avg", "uniform")


class GlorotNormal(_Preset):
    """Truncated normal of variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010, eq. 12)."""

    name, preset = "glorot_normal", (1.0, "fan_avg", "truncated_normal")


class HeUniform(_Preset):
    """U(-a, a), a = sqrt(6 / fan_in): the variance of He et al. 2015, eq. 10."""

    name, preset = "he_uniform", (2.0, "fan_in", "uniform")


class HeNormal(_Preset):
    """Truncated normal of variance 2 / fan_in (He et al. 2015, eq. 10)."""

    name, preset = "he_normal", (2.0, "fan_in", "truncated_normal")


class LecunUniform(_Preset):
    """U(-a, a), a = sqrt(3 / fan_in): the variance of LeCun et al. 1998, eq. 16."""

    name, preset = "lecun_uniform", (1.0, "fan_in", "uniform")


class LecunNormal(_Preset):
    """Truncated normal of variance 1 / fan_in (LeCun et al. 1998, eq. 16; for selu, Klambauer et al. 2017)."""

    name, preset = "lecun_normal", (1.0, "fan_in", "truncated_normal")


class TorchLinear(RandomInitializer):
    """U(-a, a), a = 1 / sqrt(fan_in): what PyTorch's nn.Linear gives its weight and its bias by default."""

    name = "torch_linear"

    def _values(self, shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None) -> Values:
        if len(shape) == 2:
            fan_in = shape[0]
        if fan_in is None or fan_in < 1:
            raise ValueError("TorchLinear: a bias needs fan_in, the number of its layer's inputs")
        limit = 1.0 / math.sqrt(fan_in)
        return random.uniform(-limit, limit, shape)
