"""Initial values of weights: functions of a key, so that the same seed gives the same weights in any process.

Classes have Keras 3's names, arguments and formulas. Their memory is that of the values and little more (orthogonal:
twice the values): kernels of a hundred million weights are built here.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nbdense._checks import finite_number
from nbdense._registry import Registry, class_and_config, name_of

_Values = npt.NDArray[np.float64]

_SEEDED = 2**62  # the number of a seeded initializer's stream: no model has so many tensors
_BLOCK = 1 << 16  # elements looked at in one go
_PANEL = 32  # rows made orthonormal one by one
_PIECE = 1 << 22  # elements multiplied in one go
_CUT = 0.87962566103423978  # standard deviation of a unit normal that is cut at two standard deviations
_MODES, _DISTRIBUTIONS = ("fan_in", "fan_out", "fan_avg"), ("truncated_normal", "untruncated_normal", "uniform")


def generator(seed: int, number: int) -> np.random.Generator:
    """Return the counter-based generator (Philox) of a model's ``number``-th initial tensor."""
    return np.random.Generator(np.random.Philox(key=[seed & 0xFFFFFFFFFFFFFFFF, number]))


class Initializer:
    """Maker of initial values: called as ``initializer(shape, random)``.

    Each argument of a subclass is an attribute of its objects. ``seed`` is one of those that draw.
    """

    name: ClassVar[str] = ""
    draws: ClassVar[bool] = False
    seed: int | None = None

    def __call__(
        self, shape: tuple[int, ...], random: np.random.Generator | None = None, fan_in: int | None = None
    ) -> _Values:
        """Return values of ``shape``, float64.

        Parameters
        ----------
        shape : tuple of int
            (n_in, n_out) for a kernel, (n,) for a bias.
        random : numpy.random.Generator, optional
            Source of random values; needed unless the initializer has a seed or draws nothing.
        fan_in : int, optional
            Inputs of the layer that a bias belongs to, for initializers that ask (`TorchLinear`).

        Raises
        ------
        ValueError
            If the initializer has no values for this shape, or ``random`` is needed and not there.
        """
        if random is None and self.seed is None and self.draws:
            raise ValueError(f"{type(self).__name__} draws random values: pass a numpy.random.Generator, or set seed")
        if random is None or self.seed is not None:
            random = generator(self.seed or 0, _SEEDED)
        return self._values(_checked_shape(self, shape), random, fan_in)

    def _values(self, shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None) -> _Values:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(self, shape, random, fan_in=None)")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that rebuild this initializer."""
        return {argument: getattr(self, argument) for argument in inspect.signature(type(self)).parameters}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.get_config().items())})"


def _checked_shape(owner: Initializer, shape: Any) -> tuple[int, ...]:
    try:
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError:
        sizes = ()
    if len(sizes) not in (1, 2) or min(sizes) < 1:
        raise ValueError(
            f"{type(owner).__name__}: shape must be (n_in, n_out) or (n,), of positive whole numbers, got {shape!r}"
        )
    return sizes


class Zeros(Initializer):
    """Zeros everywhere."""

    name = "zeros"

    def _values(self, shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None) -> _Values:
        return np.zeros(shape)


class Ones(Initializer):
    """Ones everywhere."""

    name = "ones"

    def _values(self, shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None) -> _Values:
        return np.ones(shape)


class Constant(Initializer):
    """The same number everywhere.

    Parameters
    ----------
    value : float
        The number; finite.
    """

    name = "constant"

    def __init__(self, value: float = 0.0) -> None:
        self.value = finite_number(type(self).__name__, "value", value)

    def _values(self, shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None) -> _Values:
        return np.full(shape, self.value)


class RandomInitializer(Initializer):
    """An initializer that draws.

    Parameters
    ----------
    seed : int, optional
        Seed, in [0, 2^63). With a seed the values depend on it and on the shape only; without, on the model's seed and
        the tensor's place in the model.
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
    """Uniform values, U(minval, maxval).

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

    def _values(self, shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None) -> _Values:
        return random.uniform(self.minval, self.maxval, shape)


class RandomNormal(RandomInitializer):
    """Normal values, N(mean, stddev^2).

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

    def _values(self, shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None) -> _Values:
        return random.normal(self.mean, self.stddev, shape)


class TruncatedNormal(RandomNormal):
    """Normal values, N(mean, stddev^2), cut at two standard deviations from the mean.

    Parameters
    ----------
    mean, stddev : float
        Parameters of the normal distribution that is cut: the values' own standard deviation is 0.8796 of it.
    seed : int, optional
        See `RandomInitializer`.
    """

    name = "truncated_normal"

    def _values(self, shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None) -> _Values:
        values = _truncated_normal(shape, random)
        values *= self.stddev
        values += self.mean
        return values


class VarianceScaling(RandomInitializer):
    """Values of mean zero and variance scale / fan. A bias of n elements has fan_in = fan_out = n, as in Keras.

    Parameters
    ----------
    scale : float
        Above zero.
    mode : str
        The fan: 'fan_in', 'fan_out' or 'fan_avg', their mean.
    distribution : str
        'truncated_normal' (or 'normal': cut at two standard deviations, and widened to have the variance all the
        same), 'untruncated_normal' or 'uniform'.
    seed : int, optional
        See `RandomInitializer`.
    """

    name = "variance_scaling"

    def __init__(
        self, scale: float = 1.0, mode: str = "fan_in", distribution: str = "truncated_normal", seed: int | None = None
    ) -> None:
        super().__init__(seed)
        self.scale = finite_number(type(self).__name__, "scale", scale, 0.0)
        if self.scale == 0.0:
            raise ValueError("VarianceScaling: scale must be above 0; for zeros use Zeros()")
        if mode not in _MODES:
            raise ValueError(f"VarianceScaling: mode must be one of {', '.join(_MODES)}, got {mode!r}")
        self.mode = mode
        lower = distribution.lower() if isinstance(distribution, str) else distribution
        self.distribution = "truncated_normal" if lower == "normal" else lower
        if self.distribution not in _DISTRIBUTIONS:
            raise ValueError(
                f"VarianceScaling: distribution must be one of {', '.join(_DISTRIBUTIONS)}, got {distribution!r}"
            )

    def _values(self, shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None) -> _Values:
        n_in, n_out = shape[0], shape[-1]
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

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(*self.preset, seed)


class GlorotUniform(_Preset):
    """Uniform values, U(-a, a) with a = sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, eq. 16)."""

    name, preset = "glorot_uniform", (1.0, "fan_avg", "uniform")


class GlorotNormal(_Preset):
    """Truncated normal values of variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010, eq. 12)."""

    name, preset = "glorot_normal", (1.0, "fan_avg", "truncated_normal")


class HeUniform(_Preset):
    """Uniform values, U(-a, a) with a = sqrt(6 / fan_in): the variance of He et al. 2015, eq. 10."""

    name, preset = "he_uniform", (2.0, "fan_in", "uniform")


class HeNormal(_Preset):
    """Truncated normal values of variance 2 / fan_in (He et al. 2015, eq. 10)."""

    name, preset = "he_normal", (2.0, "fan_in", "truncated_normal")


class LecunUniform(_Preset):
    """Uniform values, U(-a, a) with a = sqrt(3 / fan_in): the variance of LeCun et al. 1998, eq. 16."""

    name, preset = "lecun_uniform", (1.0, "fan_in", "uniform")


class LecunNormal(_Preset):
    """Truncated normal values of variance 1 / fan_in (LeCun et al. 1998, eq. 16; for selu, Klambauer et al. 2017)."""

    name, preset = "lecun_normal", (1.0, "fan_in", "truncated_normal")


class TorchLinear(RandomInitializer):
    """Uniform values, U(-a, a) with a = 1 / sqrt(fan_in): what PyTorch's nn.Linear gives its weight and its bias."""

    name = "torch_linear"

    def _values(self, shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None) -> _Values:
        if len(shape) == 2:
            fan_in = shape[0]
        if fan_in is None or fan_in < 1:
            raise ValueError("TorchLinear: a bias needs fan_in, the number of its layer's inputs")
        limit = 1.0 / math.sqrt(fan_in)
        return random.uniform(-limit, limit, shape)


class Orthogonal(RandomInitializer):
    """``gain`` times a random matrix of orthonormal columns, or rows where there are fewer of those (Saxe et al. 2014).

    Uniformly distributed, as by a QR decomposition whose R has a positive diagonal (Mezzadri 2007, section 4).
    Orthonormal to about 1e-12. The values depend neither on the BLAS that NumPy has nor on its threads.

    Parameters
    ----------
    gain : float
        Factor on the matrix.
    seed : int, optional
        See `RandomInitializer`.
    """

    name = "orthogonal"

    def __init__(self, gain: float = 1.0, seed: int | None = None) -> None:
        super().__init__(seed)
        self.gain = finite_number(type(self).__name__, "gain", gain)

    def _values(self, shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None) -> _Values:
        if len(shape) != 2:
            raise ValueError(f"Orthogonal: shape must have two axes, got {shape}; biases take another initializer")
        rows = random.standard_normal((min(shape), max(shape)))
        _make_orthonormal(rows)
        _make_orthonormal(rows)
        rows *= self.gain
        return rows if rows.shape == shape else np.ascontiguousarray(rows.T)


def _split(values: _Values, bits: int) -> tuple[_Values, _Values, float]:
    """Split ``values`` as (high + low / 2^bits) * unit, high and low whole numbers of at most 2^bits."""
    exponent = int(np.frexp(max(values.max(), -values.min()))[1])
    low = values * 2.0 ** (bits - exponent)
    high = np.rint(low)
    low = (low - high) * 2.0**bits
    return high, np.rint(low, out=low), 2.0 ** (exponent - bits)


def _product(a: _Values, b: _Values) -> _Values:
    """Multiply a @ b as good as in float64, the same in whatever order BLAS adds: it adds whole numbers, exactly.

    Ozaki et al. 2012, "Error-free transformations of matrix multiplication", section 3.
    """
    bits = (53 - len(b).bit_length()) // 2  # len(b) products of two parts add up to 2^53 at most
    a_high, a_low, a_unit = _split(a, bits)
    b_high, b_low, b_unit = _split(b, bits)
    small = a_high @ b_low + a_low @ b_high
    return (a_high @ b_high + small * 2.0**-bits) * (a_unit * b_unit)


def _make_orthonormal(rows: _Values) -> None:
    """Take from each row its shares of those before it, and scale it to length 1 (Gram and Schmidt's process).

    Done twice the rows are orthonormal: the second time takes away what rounding left (Giraud et al. 2005).
    """
    if len(rows) <= _PANEL:
        for i, row in enumerate(rows):
            if i:  # einsum has loops of its own: one order, no BLAS
                row[:] -= np.einsum("i,ij->j", np.einsum("ij,j->i", rows[:i], row), rows[:i])
            row[:] /= math.sqrt(np.einsum("i,i->", row, row))
        return
    first, second = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    _make_orthonormal(first)
    step = max(1, _PIECE // len(rows))
    # in pieces, or the parts that numbers are split into would be copies of all
    pieces = [slice(start, start + step) for start in range(0, rows.shape[1], step)]
    shares = np.zeros((len(second), len(first)))
    for piece in pieces:
        shares += _product(second[:, piece], first[:, piece].T)
    for piece in pieces:
        second[:, piece] -= _product(shares, first[:, piece])
    _make_orthonormal(second)


class _Function(Initializer):
    """An initializer made of a user's function of (shape, random)."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.label = name_of(function)

    def _values(self, shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None) -> _Values:
        values = np.asarray(self.function(shape, random), np.float64)
        if values.shape != shape or not np.isfinite(values).all():
            result = f"shape {values.shape}" if values.shape != shape else "NaN or infinity"
            raise ValueError(f"initializer {self.label!r} must return finite values of shape {shape}, got {result}")
        return values


_KINDS: tuple[type[Initializer], ...] = (
    *(Zeros, Ones, Constant, Orthogonal, TorchLinear),
    *(RandomNormal, RandomUniform, TruncatedNormal, VarianceScaling),
    *(GlorotNormal, GlorotUniform, HeNormal, HeUniform, LecunNormal, LecunUniform),
)
INITIALIZERS: dict[str, type[Initializer]] = {kind.name: kind for kind in _KINDS}
_ALIASES = {"normal": "random_normal", "uniform": "random_uniform", "one": "ones", "zero": "zeros"}  # Keras has them


def _describe(initializer: Initializer) -> str | dict[str, Any]:
    if isinstance(initializer, _Function):
        return initializer.label
    kind = type(initializer)
    if INITIALIZERS.get(kind.name) is kind and initializer.get_config() == kind().get_config():
        return kind.name
    return class_and_config(initializer)


REGISTRY: Registry[Initializer] = Registry(
    "initializer",
    Initializer,
    INITIALIZERS,
    _ALIASES,
    hint="; one of your own is passed as a function of (shape, random), or by its name in custom_objects",
    describe=_describe,
    from_function=_Function,
)


def get(identifier: Any, custom_objects: Mapping[str, Any] | None = None) -> Initializer:
    """Return the initializer that ``identifier`` names or is.

    Parameters
    ----------
    identifier : str, dict, Initializer, type or callable
        A name ('he_normal' or 'HeNormal'), with the default arguments; {"class_name": name, "config": arguments}
        (or "name" for "class_name"); an initializer or its class; a function of (shape, random) that gives an array.
    custom_objects : mapping of str, optional
        Initializers, classes and functions of the user's by name; they go before those that there are.

    Raises
    ------
    ValueError
        If there is no such initializer, or it doesn't take these arguments.
    """
    return REGISTRY.get(identifier, custom_objects)


def serialize(initializer: Any) -> str | dict[str, Any]:
    """Describe an initializer for JSON: by its name where its arguments are the defaults, else by a dict.

    Parameters
    ----------
    initializer : Initializer, or what `get` takes
        One of the user's own is written by its name, and needs ``custom_objects`` to be rebuilt.

    Examples
    --------
    >>> serialize(HeNormal())
    'he_normal'
    >>> get(serialize(Constant(0.5)))
    Constant(value=0.5)
    """
    description: str | dict[str, Any] = REGISTRY.serialize(initializer)
    return description
