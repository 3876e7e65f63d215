"""Initial values of weights: functions of a key, so that the same seed gives the same weights in any process."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Initializer = Callable[[tuple[int, ...], np.random.Generator], npt.NDArray[np.float64]]


def generator(seed: int, number: int) -> np.random.Generator:
    """The counter-based generator (Philox) of a model's ``number``-th initial tensor."""
    return np.random.Generator(np.random.Philox(key=[seed & 0xFFFFFFFFFFFFFFFF, number]))


def _glorot_uniform(shape: tuple[int, ...], random: np.random.Generator) -> npt.NDArray[np.float64]:
    """U(-a, a), a = sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, eq. 16)."""
    limit = math.sqrt(6.0 / (shape[0] + shape[-1]))
    return random.uniform(-limit, limit, shape)


def _he_normal(shape: tuple[int, ...], random: np.random.Generator) -> npt.NDArray[np.float64]:
    """Truncated normal of variance 2 / fan_in (He et al. 2015, eq. 10), cut at two standard deviations."""
    deviation = math.sqrt(2.0 / shape[0]) / 0.87962566103423978  # the cut takes a share of the variance
    values = random.standard_normal(shape)
    while (outside := np.abs(values) > 2.0).any():
        values[outside] = random.standard_normal(int(outside.sum()))
    return values * deviation


def _zeros(shape: tuple[int, ...], random: np.random.Generator) -> npt.NDArray[np.float64]:
    return np.zeros(shape)


INITIALIZERS: dict[str, Initializer] = {
    "glorot_uniform": _glorot_uniform,
    "he_normal": _he_normal,
    "zeros": _zeros,
    "ones": lambda s, r: np.ones(s),
}


def get(name: str) -> Initializer:
    """The initializer of that name.

    Raises
    ------
    ValueError
        If there is no such initializer.
    """
    if not isinstance(name, str) or name not in INITIALIZERS:
        raise ValueError(f"unknown initializer {name!r}; there are: {', '.join(sorted(INITIALIZERS))}")

    f = INITIALIZERS[name]

    class G:
        args = (f,)

        def __call__(self, shape, random, fan_in=None):
            return f(shape, random)

    return G()


def serialize(x):
    return next(k for k, v in INITIALIZERS.items() if v is x.args[0])
