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
    seed = _checks.whole_number("set_random_seed", "seed", seed)
    _seeds = itertools.count(seed * 1_000_003 % 2**62)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (Keras's function does the same)


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
    TypeError, ValueError
        If something is no whole number, is negative or is not below ``num_classes``.
    """
    numbers = _checks.numbers_of("to_categorical", x)
    if numbers.ndim > 1 and numbers.shape[-1] == 1:
        numbers = numbers[..., 0]
    if num_classes is None:
        end, allowed = np.iinfo(np.int64).max, "a whole number from 0"
    else:
        end = _checks.positive_int("to_categorical", "num_classes", num_classes)
        allowed = f"in 0..{end - 1}"
    wrong = numbers[~((numbers >= 0) & (numbers < end) & (numbers == np.floor(numbers)))]  # NaN too
    if wrong.size:
        raise ValueError(f"to_categorical: class {wrong[0]} is not {allowed}")
    classes = numbers.astype(np.int64).ravel()
    columns = classes.max(initial=-1) + 1 if num_classes is None else num_classes
    rows = np.zeros((classes.size, columns), np.float32)
    rows[np.arange(classes.size), classes] = 1
    return rows.reshape(*numbers.shape, columns)
