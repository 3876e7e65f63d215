"""Projections of weights: their values, names and files."""

import json

import numpy as np
import pytest

from nbdense import constraints
from nbdense.constraints import CONSTRAINTS, Constraint, MaxNorm, MinMaxNorm, NonNeg, UnitNorm, get, serialize

W = np.array([[3.0, 0.0, -0.3], [-4.0, 0.0, 0.4]])  # columns of norms 5, 0 and 0.5


@pytest.mark.parametrize(
    ("constraint", "norms"),
    [
        (MaxNorm(2.0), [2.0, 0.0, 0.5]),
        (MaxNorm(), [2.0, 0.0, 0.5]),
        (UnitNorm(), [1.0, 0.0, 1.0]),
        (MinMaxNorm(0.6, 2.0), [2.0, 0.0, 0.6]),
        (MinMaxNorm(0.6, 2.0, rate=0.25), [0.25 * 2 + 0.75 * 5, 0.0, 0.25 * 0.6 + 0.75 * 0.5]),
        (MinMaxNorm(), [1.0, 0.0, 0.5]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_norms(constraint, norms, dtype):
    """Directions stay; a vector of zeros stays one. Keras's epsilon takes 1e-7 of 1 away."""
    found = constraint(W.astype(dtype))
    assert found.dtype == dtype
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), norms, rtol=1e-6)
    np.testing.assert_allclose(found[0] * W[1], found[1] * W[0], rtol=1e-6)
    kept = np.array(W)
    constraint(W)
    np.testing.assert_array_equal(W, kept)


def test_axes():
    np.testing.assert_allclose(UnitNorm(axis=1)([[3, 4], [0, -2]]), [[0.6, 0.8], [0, -1]], rtol=1e-6)
    both = UnitNorm(axis=[0, 1])(np.ones((2, 2, 3)))
    np.testing.assert_allclose(both, 0.5, rtol=1e-6)


def test_signs():
    np.testing.assert_array_equal(NonNeg()(W), np.maximum(W, 0))
    assert NonNeg()(W.astype(np.float32)).dtype == np.float32
    np.testing.assert_array_equal(Constraint()(W), W)


def test_forms_of_get():
    assert get(None) is None and serialize(None) is None
    for name, kind in CONSTRAINTS.items():
        assert getattr(constraints, name) is kind
        for identifier in (name, kind.__name__, kind, {"class_name": kind.__name__, "config": {}}):
            assert type(get(identifier)) is kind
    one = MaxNorm(3.0, axis=1)
    assert get(one) is one and repr(one) == "MaxNorm(max_value=3.0, axis=1)"
    with pytest.raises(ValueError, match="unknown constraint 'max'; there are: None, max_norm, .*unit_norm"):
        get("max")


@pytest.mark.parametrize("constraint", [MaxNorm(3.0, 1), NonNeg(), UnitNorm(1), MinMaxNorm(0.5, 2.0, 0.7, 1)], ids=repr)
def test_round_trip(constraint):
    for again in (
        constraints.deserialize(json.loads(json.dumps(serialize(constraint)))),
        type(constraint).from_config(constraint.get_config()),
    ):
        assert type(again) is type(constraint) and again.get_config() == constraint.get_config()
        np.testing.assert_array_equal(again(W), constraint(W))


def test_a_users_class():
    class Halved(Constraint):
        def __call__(self, w):
            return np.asarray(w) / 2

    assert serialize(Halved()) == {"class_name": "Halved", "config": {}}
    np.testing.assert_array_equal(get("Halved", {"Halved": Halved})(W), W / 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaxNorm(-1.0), "MaxNorm: max_value must be a finite number of at least 0, got -1.0"),
        (lambda: MinMaxNorm(2.0, 1.0), "MinMaxNorm: max_value must be a finite number of at least 2, got 1.0"),
        (lambda: get({"class_name": "MaxNorm", "config": {"max": 1}}), "'MaxNorm' doesn't take these arguments"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
