"""Formulas in NumPy against the engine's, for every activation that files name, and their parameters."""

import numpy as np
import pytest

from nbdense.activations import ACTIVATIONS
from nbdense.runtime import activations

POINTS = [0.0, -0.0, 1.0, -1.0, 3.0, -3.0, 0.5, -0.5, 1e-7, -1e-7, 30.0, -30.0, 87.0, -87.0, 1e4, -1e4, np.inf, -np.inf]


def points(dtype):
    drawn = np.random.default_rng(3).normal(0, 3, 500)
    return np.concatenate([POINTS, drawn]).astype(dtype)


def settings(name):
    """The row's own parameters, and others."""
    row = ACTIVATIONS[name]
    others = {"hard_tanh": (-0.3, 2.0), "softplus_beta": (2.0, 3.0), "threshold": (0.2, -1.0)}
    others |= {"thresholded_relu": (0.5, 0.25, 2.0)}
    return [row.alpha, others.get(name, 0.75)] if row.parameters else [None]


def test_there_is_one_for_each():
    assert set(activations.FORMULAS) == set(ACTIVATIONS)
    assert set(activations.ROWWISE) == {name for name, row in ACTIVATIONS.items() if row.rowwise}
    for name, row in ACTIVATIONS.items():
        formula = activations.FORMULAS[name]
        assert activations.numbers_of(name) == row.numbers
        assert [(p.least, p.none) for p in formula.parameters] == [(p.least, p.none) for p in row.parameters]
        assert (formula.clamp is not None) == row.is_clamp


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_are_the_engines(name, dtype):
    z = points(dtype)
    if name in activations.ROWWISE:
        z = z[np.isfinite(z)][:510].reshape(51, 10)
    for alpha in settings(name):
        row = ACTIVATIONS[name] if alpha is None else ACTIVATIONS[name].with_alpha(alpha)
        function = activations.function_of(name, activations.numbers_of(name, alpha))
        with np.errstate(all="ignore"):
            computed = z if function is None else function(z)
        expected = row.applied(z)
        assert computed.dtype == z.dtype
        limits = np.finfo(dtype)
        # Far down a tail the argument of exp is rounded; what is barely a number loses digits. Both may, each its own.
        units = 40 + 0.2 * np.minimum(np.abs(z), 40) ** 3
        least = 200 * limits.tiny + 4 * limits.eps * (name in ("tanh_shrink", "log_softmax"))
        np.testing.assert_array_less(_distance(computed, expected), units * limits.eps * np.abs(expected) + least)


def _distance(computed, expected):
    """Differences; 0 where both are the same, infinities included."""
    with np.errstate(invalid="ignore"):
        return np.where(computed == expected, 0, np.abs(computed.astype(np.float64) - expected))


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name not in activations.ROWWISE])
def test_nan_stays_nan(name):
    function = activations.function_of(name, activations.numbers_of(name)) or (lambda z: z)
    with np.errstate(all="ignore"):
        computed = function(np.array([np.nan, 0.5], np.float32))
    assert np.isnan(computed).tolist() == [True, False]


@pytest.mark.parametrize("name", [name for name, row in ACTIVATIONS.items() if row.is_clamp])
def test_clamps_are_the_engines(name):
    for alpha in settings(name):
        row = ACTIVATIONS[name] if alpha is None else ACTIVATIONS[name].with_alpha(alpha)
        assert activations.FORMULAS[name].clamp(*activations.numbers_of(name, alpha)) == (row.lower, row.upper)


@pytest.mark.parametrize(
    "description",
    ["sparsemax", None, 3, {"name": "relu"}, {"name": "relu", "alpha": 1.0}, {"name": "elu", "alpha": "x"}]
    + [{"name": "elu", "alpha": value} for value in (-1.0, float("nan"), float("inf"), True, [1.0, 2.0], [])]
    + [{"name": "hard_tanh", "alpha": [1.0, 1.0]}, {"name": "threshold", "alpha": [None, 0.0]}],
)
def test_what_no_file_can_say_is_refused(description):
    with pytest.raises(ValueError, match="activation"):
        activations.described(description)


def test_infinities_are_none_in_files():
    assert activations.described({"name": "hard_tanh", "alpha": [None, 2.0]}) == ("hard_tanh", (-np.inf, 2.0))
