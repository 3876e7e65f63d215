"""Keras's two small helpers: `set_random_seed` and `to_categorical`."""

from __future__ import annotations

import itertools
import secrets

import numpy as np
import numpy.typing as npt

from nbdense import _checks

_seeds: itertools.count[int] | None = None


def set_random_seed(seed: int) -> None:
    """Make what comes after reproducible: each model built from now on takes the next of a sequence of seeds.

    Parameters
    ----------
    seed : int
        At least 0. NumPy's and Python's own generators are seeded too, as Keras does.
    """
    import random

    global _seeds
    if isinstance(seed, bool) or int(seed) != seed or seed < 0:
        raise ValueError(f"set_random_seed: seed must be a whole number of at least 0, got {seed!r}")
    _seeds = itertools.count(int(seed) * 1_000_003 % 2**62)
    random.seed(int(seed))
    np.random.seed(int(seed) % 2**32)  # noqa: NPY002 (Keras's function does the same)


def next_seed() -> int:
    """Return the seed of the next model: from the sequence that `set_random_seed` began, else a fresh random one."""
    return secrets.randbits(62) if _seeds is None else next(_seeds)


def to_categorical(x: npt.ArrayLike, num_classes: int | None = None) -> npt.NDArray[np.float32]:
    """Make one-hot rows of class numbers.

    Parameters
    ----------
    x : array-like of int, any shape
        Class numbers from 0.
    num_classes : int, optional
        Columns; by default the largest number plus 1.

    Returns
    -------
    ndarray of float32, shape of x plus (num_classes,)

    Raises
    ------
    ValueError
        If a number is negative or not below ``num_classes``.
    """
    numbers = np.asarray(_checks.array_of("to_categorical", x), dtype=np.int64)
    if numbers.ndim > 1 and numbers.shape[-1] == 1:
        numbers = numbers[..., 0]
    count = int(numbers.max(initial=-1)) + 1 if num_classes is None else int(num_classes)
    if numbers.size and (numbers.min() < 0 or numbers.max() >= count):
        wrong = numbers[(numbers < 0) | (numbers >= count)].flat[0]
        raise ValueError(f"to_categorical: class {wrong} is outside 0..{count - 1}")
    return np.eye(count, dtype=np.float32)[numbers]
