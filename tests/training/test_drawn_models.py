"""Drawn dense networks, objectives and optimizers take the reference's steps."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import OBJECTIVES, OF_CLASSES, draw_targets, make_model
from tests.support.naive_training import VARIANTS, assert_weights, naive_fit
from tests.support.strategies import SEEDS, activations

ROWS = st.integers(1, 12)


@st.composite
def networks(draw):
    """(widths, activations, loss): up to three hidden layers before one that suits the loss."""
    loss, last = draw(st.sampled_from(OBJECTIVES))
    hidden = draw(st.lists(st.integers(1, 19), max_size=3))
    several = last == "softmax" or loss.sparse or isinstance(loss, OF_CLASSES)
    widths = [draw(st.integers(1, 17)), *hidden, draw(st.integers(2 if several else 1, 5))]
    return widths, [*(draw(activations(width)) for width in hidden), last], loss


@given(networks(), st.sampled_from(VARIANTS), ROWS, ROWS, st.booleans(), st.booleans(), SEEDS)
def test_an_epoch_is_the_references(network, variant, rows, batch, bias, weighted, seed):
    (widths, names, loss), (optimizer, options) = network, variant
    rng = np.random.default_rng(seed)
    model = make_model(widths, names, loss, type(optimizer)(**optimizer.get_config()), seed=seed, bias=bias)
    x, y = rng.normal(size=(rows, widths[0])), draw_targets(rng, loss, rows, widths[-1])
    weights = rng.uniform(0.5, 2, rows) if weighted else None
    layers, losses = naive_fit(model, x, y, batch, [np.arange(rows)], options, weights)
    history = model.fit(x, y, batch, sample_weight=weights, shuffle=False, verbose=0).history
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-9, atol=1e-12)
    assert_weights(model, layers, 1e-9)
