"""Penalties: their values, names, old keywords, files and refusals."""

import json
import math

import numpy as np
import pytest

from nbdense import regularizers
from nbdense.layers import Dense
from nbdense.regularizers import L1, L1L2, L2, REGULARIZERS, Regularizer, get, l1, l1_l2, l2, serialize

W = np.array([[1.0, -2.0, 0.0], [0.5, -0.25, 4.0]])  # sum |w| = 7.75, sum w^2 = 21.3125


@pytest.mark.parametrize(
    ("regularizer", "factors", "penalty"),
    [
        (L1(), (0.01, 0.0), 0.0775),
        (L2(), (0.0, 0.01), 0.213125),
        (L1L2(), (0.0, 0.0), 0.0),
        (L1(0.5), (0.5, 0.0), 3.875),
        (L2(2), (0.0, 2.0), 42.625),
        (L1L2(l1=0.5, l2=2), (0.5, 2.0), 46.5),
        (L1L2(l2=2.0), (0.0, 2.0), 42.625),
        (L1(None), (0.01, 0.0), 0.0775),  # None is the default, as in Keras
        (L1L2(None, 1.0), (0.0, 1.0), 21.3125),
    ],
)
def test_penalty(regularizer, factors, penalty):
    assert (regularizer.l1, regularizer.l2) == factors
    assert type(regularizer.l1) is type(regularizer.l2) is float
    for weights in (W, W.ravel(), W.T, W.astype(np.float32), W.tolist()):
        value = regularizer(weights)
        assert type(value) is float and value == pytest.approx(penalty, rel=1e-14, abs=0)


def test_penalty_of_views_and_of_large_weights():
    """Taken in pieces, in float64: float32 sums of a million weights would be off in the fourth digit."""
    random = np.random.default_rng(0)
    padded = random.standard_normal((3000, 400)).astype(np.float32)
    view = padded[:, :301]
    exact = 0.1 * math.fsum(np.abs(view.ravel()).tolist()) + 0.2 * math.fsum((view.ravel().astype(float) ** 2).tolist())
    assert L1L2(0.1, 0.2)(view) == pytest.approx(exact, rel=1e-13, abs=0)
    assert L1L2(0.1, 0.2)(view.ravel()) == pytest.approx(exact, rel=1e-13, abs=0)
    assert L1L2(0.1, 0.2)(view[:1]) == pytest.approx(L1L2(0.1, 0.2)(view[0]), rel=1e-14, abs=0)
    assert L2()(np.zeros((0, 3))) == 0.0
    assert L2(1.0)(np.float32(3.0)) == 9.0


def test_keras_aliases_and_old_keywords():
    assert (l1, l2, l1_l2) == (L1, L2, L1L2)
    assert l2(l=0.03).l2 == 0.03 and l1(l=0.03).l1 == 0.03
    assert l1_l2(l1=0.1, l2=0.2).get_config() == {"l1": 0.1, "l2": 0.2}


@pytest.mark.parametrize(
    ("name", "kind", "factors"),
    [
        ("l1", L1, (0.01, 0.0)),
        ("L1", L1, (0.01, 0.0)),
        ("l2", L2, (0.0, 0.01)),
        ("L2", L2, (0.0, 0.01)),
        ("l1_l2", L1L2, (0.01, 0.01)),
        ("l1l2", L1L2, (0.0, 0.0)),  # its arguments' defaults, as in Keras
        ("L1L2", L1L2, (0.0, 0.0)),
    ],
)
def test_by_name(name, kind, factors):
    regularizer = get(name)
    assert type(regularizer) is kind and (regularizer.l1, regularizer.l2) == factors


def test_what_else_identifies():
    assert get(None) is None
    regularizer = L2(0.5)
    assert get(regularizer) is regularizer
    assert type(get(L1)) is L1
    assert get({"class_name": "L1L2", "config": {"l2": 0.5}}).get_config() == {"l1": 0.0, "l2": 0.5}
    assert get({"name": "l2", "config": {"l2": 0.5}}).l2 == 0.5
    assert get({"class_name": "L2", "config": {"l": 0.5}}).l2 == 0.5
    # with its arguments named, even with none, L1L2 has its arguments' defaults
    assert get({"class_name": "L1L2", "config": {}}).get_config() == {"l1": 0.0, "l2": 0.0}
    assert repr(L1L2(0.5)) == "L1L2(l1=0.5, l2=0.0)"


@pytest.mark.parametrize("regularizer", [L1(), L1(0.3), L2(), L2(0.0), L1L2(), L1L2(0.01, 0.01), L1L2(0.5)])
def test_round_trip(regularizer):
    again = get(json.loads(json.dumps(serialize(regularizer))))
    assert type(again) is type(regularizer) and again.get_config() == regularizer.get_config()
    assert again(W) == regularizer(W)


def test_serialize():
    assert serialize(None) is None
    assert serialize("l2") == {"class_name": "L2", "config": {"l2": 0.01}}
    assert set(REGULARIZERS) == {"L1", "L2", "L1L2", "OrthogonalRegularizer"}


class Heavy(Regularizer):
    fields = ()
    l2 = 10.0


def test_a_users_class():
    written = serialize(Heavy())
    assert written == {"class_name": "Heavy", "config": {}}
    assert get(written, {"Heavy": Heavy})(W) == 213.125
    assert type(get("Heavy", {"Heavy": Heavy})) is Heavy
    with pytest.raises(ValueError, match="unknown regularizer"):
        get(written)


@pytest.mark.parametrize("identifier", ["l3", "", 0.01, {}, {"class_name": None}, dict, W, lambda w: 0.0])
def test_unknown(identifier):
    with pytest.raises(ValueError, match="(?s)unknown regularizer .*there are: None, l1, l2, l1_l2"):
        get(identifier)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "0.1", [0.1]])
@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda value: L1(value), "L1: l1"),
        (lambda value: L1(l=value), "L1: l1"),
        (lambda value: L2(value), "L2: l2"),
        (lambda value: L1L2(l1=value), "L1L2: l1"),
        (lambda value: L1L2(l2=value), "L1L2: l2"),
        (lambda value: get({"class_name": "L2", "config": {"l2": value}}), "L2: l2"),
    ],
)
def test_bad_factors(make, named, value):
    with pytest.raises(ValueError, match=f"{named} must be a finite number of at least 0, got"):
        make(value)


def test_bad_arguments():
    with pytest.raises(ValueError, match="'L1' doesn't take these arguments: .*l2"):
        get({"class_name": "L1", "config": {"l2": 0.1}})
    assert regularizers.get({"class_name": "L1"}).l1 == 0.01


# -- for calls alone --


@pytest.mark.parametrize("mode", ["rows", "columns"])
def test_orthogonal_regularizer(mode):
    regularizer = regularizers.OrthogonalRegularizer(0.5, mode)
    vectors = W if mode == "rows" else W.T
    cosines = [abs(a @ b) / math.sqrt((a @ a) * (b @ b)) for i, a in enumerate(vectors) for b in vectors[:i]]
    assert regularizer(W) == pytest.approx(0.5 * np.mean(cosines), rel=1e-14)
    assert regularizer(3 * W[:, ::-1] if mode == "rows" else 3 * W[::-1]) == pytest.approx(regularizer(W), rel=1e-14)
    again = get(json.loads(json.dumps(serialize(regularizer))))
    assert type(again) is type(regularizer) and again.get_config() == {"factor": 0.5, "mode": mode}
    assert type(get("orthogonal_regularizer")) is type(regularizers.OrthogonalRegularizer.from_config({}))
    with pytest.raises(ValueError, match=r"must have rank 2. Received: inputs.shape=\(3,\)"):
        regularizer(W[0])
    with pytest.raises(ValueError, match="Expected one of .*Received: mode=diagonal"):
        regularizers.OrthogonalRegularizer(mode="diagonal")


class Cubic(Regularizer):
    def __call__(self, weights):
        return float(np.sum(np.abs(weights) ** 3))


@pytest.mark.parametrize("regularizer", [Cubic(), "orthogonal_regularizer"])
def test_layers_refuse_penalties_that_they_have_no_form_for(regularizer):
    with pytest.raises(ValueError, match=r"is for calls: a layer takes penalties l1 sum \|w\| \+ l2 sum w\^2"):
        Dense(2, kernel_regularizer=regularizer)
    assert Cubic()(W) == pytest.approx(float(np.sum(np.abs(W) ** 3)))


def test_descriptions_come_back():
    assert regularizers.deserialize(serialize(L2(0.5))).l2 == 0.5
    assert L1L2.from_config({"l2": 0.5}).get_config() == {"l1": 0.0, "l2": 0.5}
