"""The parameters that both estimators have: scikit-learn's names, and what each may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np

from nbdense import _checks, activations
from nbdense.activations import ACTIVATIONS, Activation
from nbdense.estimators.networks import NORMS
from nbdense.losses import LOSSES
from nbdense.optimizers import OPTIMIZERS, Optimizer, Schedule

# scikit-learn's names beside nbdense's own
ACTIVATION_NAMES = {"identity": "linear", "logistic": "sigmoid"} | {
    name: name for name, row in ACTIVATIONS.items() if not row.rowwise
}
OUT_ACTIVATION_NAMES = {"linear": "identity", "sigmoid": "logistic", "exponential": "exp"}  # as scikit-learn has them
LBFGS = "lbfgs"
SOLVERS = ("adam", "sgd", LBFGS, *(name for name in OPTIMIZERS if name not in ("adam", "sgd")))


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


def is_activation(value: Any) -> bool:
    """Tell whether a value stands for a hidden layer's activation."""
    if isinstance(value, str):
        return value in ACTIVATION_NAMES
    return isinstance(value, Activation) and not value.rowwise


def activation_of(value: Any) -> Activation:
    """Return the activation that a value stands for, by scikit-learn's name or nbdense's."""
    return activations.get(ACTIVATION_NAMES[value] if isinstance(value, str) else value)


def listed(value: Any) -> list[Any]:
    """Return the values of a parameter that may have one for each hidden layer, as a list."""
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]


def _one_of(*names: str) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: isinstance(value, str) and value in names), f"one of {', '.join(map(repr, names))}"


Rule = tuple[Callable[[Any], bool], str]  # whether a value will do, and what would
_SWITCH: Rule = ((lambda value: isinstance(value, bool | np.bool_)), "True or False")
_SHARE: Rule = ((lambda value: is_real(value) and 0 <= value < 1), "a number in [0, 1)")
_NOT_NEGATIVE: Rule = ((lambda value: is_real(value) and value >= 0), "a finite number of at least 0")
_POSITIVE: Rule = ((lambda value: is_real(value) and value > 0), "a finite number above 0")
COUNT: Rule = ((lambda value: is_whole(value) and value >= 1), "a whole number of at least 1")

RULES: dict[str, Rule] = {
    "activation": (
        (lambda value: all(is_activation(one) for one in listed(value))),
        f"one of {', '.join(map(repr, ACTIVATION_NAMES))}, an Activation, or a sequence of such, one a hidden layer",
    ),
    "solver": (
        (lambda value: isinstance(value, Optimizer) or (isinstance(value, str) and value in SOLVERS)),
        f"one of {', '.join(map(repr, SOLVERS))}, or an Optimizer",
    ),
    "alpha": _NOT_NEGATIVE,
    "batch_size": ((lambda value: value == "auto" or COUNT[0](value)), "'auto' or a whole number of at least 1"),
    "learning_rate": _one_of("constant", "invscaling", "adaptive"),
    "learning_rate_init": (
        (lambda value: isinstance(value, Schedule) or _POSITIVE[0](value)),
        "a finite number above 0, or a schedule",
    ),
    "power_t": _NOT_NEGATIVE,
    "max_iter": COUNT,
    "shuffle": _SWITCH,
    "tol": _NOT_NEGATIVE,
    "verbose": ((lambda value: isinstance(value, bool | np.bool_) or is_whole(value)), "True, False or a number"),
    "warm_start": _SWITCH,
    "momentum": ((lambda value: is_real(value) and 0 <= value <= 1), "a number in [0, 1]"),
    "nesterovs_momentum": _SWITCH,
    "early_stopping": _SWITCH,
    "validation_fraction": _SHARE,
    "beta_1": _SHARE,
    "beta_2": _SHARE,
    "epsilon": _POSITIVE,
    "n_iter_no_change": ((lambda value: value == math.inf or COUNT[0](value)), "a whole number of at least 1, or inf"),
    "max_fun": COUNT,
    "dropout": (
        (lambda value: all(_SHARE[0](share) for share in listed(value))),
        "a number in [0, 1), or a sequence of such, one a hidden layer",
    ),
    **dict.fromkeys(NORMS, _SWITCH),
    "residual": _SWITCH,
    "dtype": _one_of("float32", "float64", "auto"),
}


def is_loss(value: Any, names: Iterable[str]) -> bool:
    """Tell whether a value stands for a loss: by one of scikit-learn's names, by nbdense's, or as an object."""
    return (isinstance(value, str) and (value in names or value in LOSSES)) or callable(value)


def wanted_loss(names: Iterable[str]) -> str:
    """Say what a loss may be, for an error."""
    return f"one of {', '.join(map(repr, names))}, another of nbdense's losses, or a function of (y_true, y_pred)"


def checked_sizes(estimator: Any) -> list[int]:
    """Return the hidden layers' sizes, after raising for the first of an estimator's parameters that will not do."""
    owner = type(estimator).__name__
    for name, (suits, wanted) in RULES.items():
        value = getattr(estimator, name)
        if not suits(value):
            raise ValueError(f"{owner}: {name} must be {wanted}, got {got(value)}")
    sizes = listed(estimator.hidden_layer_sizes)
    if not all(COUNT[0](size) for size in sizes):
        raise ValueError(
            f"{owner}: hidden_layer_sizes must be whole numbers of at least 1, one for each hidden "
            f"layer (hidden_layer_sizes > 0), got {estimator.hidden_layer_sizes!r}"
        )
    for name in ("activation", "dropout"):
        per_layer(estimator, name, len(sizes))
    _check_together(owner, estimator)
    return [int(size) for size in sizes]


def per_layer(estimator: Any, name: str, count: int) -> list[Any]:
    """Return a parameter's value for each hidden layer."""
    value = getattr(estimator, name)
    values = listed(value)
    if isinstance(value, str) or (len(values) == 1 and values[0] is value):
        return values * count
    if len(values) != count:
        raise ValueError(
            f"{type(estimator).__name__}: {name} must have a value for each of the {count} hidden layers, or be one "
            f"for all of them, got {len(values)}"
        )
    return values


def _check_together(owner: str, estimator: Any) -> None:
    """Raise for parameters that do not go with each other."""
    if all(getattr(estimator, name) for name in NORMS):
        raise ValueError(f"{owner}: give only one of {' and '.join(NORMS)}")
    varies = estimator.batch_norm or any(listed(estimator.dropout))
    if is_lbfgs(estimator) and varies:
        raise ValueError(
            f"{owner}: solver='lbfgs' takes all rows at once and compares their losses, which dropout and batch_norm "
            "change from batch to batch; use solver='adam', or leave these out"
        )
    follows = isinstance(estimator.learning_rate_init, Schedule)
    if follows and estimator.solver == "sgd" and estimator.learning_rate != "constant":
        raise ValueError(
            f"{owner}: learning_rate={estimator.learning_rate!r} changes the rate, and so does the schedule in "
            "learning_rate_init; give only one of them"
        )


def is_lbfgs(estimator: Any) -> bool:
    """Tell whether an estimator goes by all rows at once; other solvers go by batches, in epochs."""
    return isinstance(estimator.solver, str) and estimator.solver == LBFGS
