"""The parameters that both estimators have: scikit-learn's names, and what each may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np

from nbdense import _checks
from nbdense.activations import ACTIVATIONS

# scikit-learn's names beside nbdense's own
ACTIVATION_NAMES = {"identity": "linear", "logistic": "sigmoid"} | {
    name: name for name, row in ACTIVATIONS.items() if not row.rowwise
}
OUT_ACTIVATION_NAMES = {"linear": "identity", "sigmoid": "logistic"}  # as scikit-learn calls them


def got(value: Any) -> str:
    """Write a parameter's value for an error; layers' sizes may have come first, as scikit-learn has them."""
    sizes = isinstance(value, tuple | list) and all(is_whole(size) for size in value)
    return f"{_checks.plain(value)!r}" + ("; did you mean hidden_layer_sizes=?" if sizes else "")


def is_real(value: Any) -> bool:
    """Tell whether a value is a finite number."""
    return not isinstance(value, bool | np.bool_) and isinstance(value, Real) and math.isfinite(value)


def is_whole(value: Any) -> bool:
    """Tell whether a value is a whole number."""
    return not isinstance(value, bool | np.bool_) and isinstance(value, Integral)


def _one_of(*names: str) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: isinstance(value, str) and value in names), f"one of {', '.join(map(repr, names))}"


_SWITCH = (lambda value: isinstance(value, bool | np.bool_)), "True or False"
_SHARE = (lambda value: is_real(value) and 0 <= value < 1), "a number in [0, 1)"
_NOT_NEGATIVE = (lambda value: is_real(value) and value >= 0), "a finite number of at least 0"
_POSITIVE = (lambda value: is_real(value) and value > 0), "a finite number above 0"
COUNT = (lambda value: is_whole(value) and value >= 1), "a whole number of at least 1"
# Of each parameter: whether a value will do, and what would.
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "activation": _one_of(*ACTIVATION_NAMES),
    "solver": _one_of("adam", "sgd"),
    "alpha": _NOT_NEGATIVE,
    "batch_size": ((lambda value: value == "auto" or COUNT[0](value)), "'auto' or a whole number of at least 1"),
    "learning_rate": _one_of("constant", "invscaling", "adaptive"),
    "learning_rate_init": _POSITIVE,
    "power_t": _NOT_NEGATIVE,
    "max_iter": COUNT,
    "shuffle": _SWITCH,
    "tol": _NOT_NEGATIVE,
    "verbose": ((lambda value: isinstance(value, bool | np.bool_) or is_whole(value)), "True, False or a number"),
    "warm_start": _SWITCH,
    "momentum": _SHARE,
    "nesterovs_momentum": _SWITCH,
    "early_stopping": _SWITCH,
    "validation_fraction": _SHARE,
    "beta_1": _SHARE,
    "beta_2": _SHARE,
    "epsilon": _POSITIVE,
    "n_iter_no_change": ((lambda value: value == math.inf or COUNT[0](value)), "a whole number of at least 1, or inf"),
    "dtype": _one_of("float32", "float64"),
}
