"""Scores of weights, against central differences and least squares; and the same bits on any number of threads."""

import numpy as np
import pytest

from nbdense.quant import prune
from nbdense.quant.pruning.criteria import CRITERIA, dense_rows
from nbdense.quant.weights.gptq import input_moments
from nbdense.quant.weights.least_squares import inverse_diagonal, refit
from tests.reference import naive_pruning
from tests.support.builders import make_model


@pytest.fixture
def data():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(700, 7)) + rng.normal(size=(700, 1))
    return x, rng.normal(size=(700, 2))


def test_lamp_is_blind_to_the_scale_of_a_layer():
    model = make_model([7, 9, 5], ["relu", "linear"])
    first, last = (model.parameters[name] for name in ("dense/kernel", "dense_1/kernel"))
    scores = CRITERIA["lamp"].scores(model, model.network, dense_rows(model.network), None)
    for score, kernel in zip(scores, (first, last), strict=True):
        np.testing.assert_allclose(score, naive_pruning.lamp_scores(kernel), rtol=1e-12)
        assert score.max() == 1
    before = prune(model, 0.6, criterion="lamp").network.mask
    first[...] *= 1e-4
    np.testing.assert_array_equal(prune(model, 0.6, criterion="lamp").network.mask, before)
    assert not prune(model, 0.6).parameters["dense/kernel"].any()  # by magnitude the layer of small weights is gone
    first[...] = 0
    assert not prune(model, 0.6, criterion="lamp").parameters["dense/kernel"].any()


def test_movement_is_what_the_loss_grows_by_to_first_order(data):
    x, y = data
    model = make_model([7, 5, 2], ["tanh", "linear"])
    network = model.network
    (scores, last) = CRITERIA["movement"].scores(model, network, dense_rows(network), data)
    assert last.shape == (5, 2)
    kernel = model.parameters["dense/kernel"]
    step = 1e-4
    for place in [(0, 0), (3, 2), (6, 4)]:
        whole = kernel[place]
        losses = []
        for sign in (1, -1):
            kernel[place] = whole + sign * step * whole
            losses.append(np.square(model.predict(x) - y).mean(axis=1).sum())
        kernel[place] = whole
        slope = (losses[0] - losses[1]) / (2 * step)  # by the logarithm of the weight
        assert scores[place] == pytest.approx(-slope, rel=1e-6)


def test_movement_prunes_what_is_not_wanted():
    """A weight that the targets do not need moves towards zero; the others of its size away from it."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 4))
    model = make_model([4, 1], ["linear"])
    model.parameters["dense/kernel"][:, 0] = [0.5, 0.5, 0.5, 0.4]
    y = x @ np.array([[1.0], [1.0], [0.0], [1.0]])
    pruned = prune(model, 0.25, criterion="movement", calibration=(x, y))
    np.testing.assert_array_equal(pruned.parameters["dense/kernel"][:, 0], [0.5, 0.5, 0, 0.4])


def test_movement_sees_behind_a_mask_and_changes_nothing(data):
    model = make_model([7, 6, 2], ["relu", "linear"], optimizer="adam")
    model.fit(*data, epochs=1, verbose=0)
    pruned = prune(model, 0.5, scope="layer")
    pruned.fit(*data, epochs=1, verbose=0)
    before = pruned.network.params.copy(), pruned.state.copy(), pruned.network.mask.copy()
    again = prune(pruned, 0.7, criterion="movement", calibration=data, scope="layer")
    after = pruned.network.params, pruned.state, pruned.network.mask
    for ahead, behind in zip(before, after, strict=True):
        np.testing.assert_array_equal(ahead, behind)
    assert (again.network.mask <= pruned.network.mask).all()  # what was pruned goes first


def test_second_order_scores_are_the_errors_of_outputs_refitted(data):
    x, _ = data
    model = make_model([7, 3], ["linear"])
    moments = input_moments(model.network, x)[0]
    diagonal = inverse_diagonal(moments, damping=0.0)
    np.testing.assert_allclose(diagonal, np.diagonal(np.linalg.inv(moments)), rtol=1e-9)
    kernel = model.parameters["dense/kernel"]
    scores = np.square(kernel) / (2 * diagonal[:, None])
    for column in range(3):
        for i in range(7):
            error, _ = naive_pruning.output_error(x, kernel, column, np.delete(np.arange(7), i))
            assert scores[i, column] == pytest.approx(error / len(x), rel=1e-9)


def test_what_is_kept_makes_up_for_what_goes(data):
    x, _ = data
    model = make_model([7, 5], ["linear"])
    kernel = model.parameters["dense/kernel"].copy()
    kept = np.random.default_rng(0).random(kernel.shape) < 0.6
    kept[:, 0], kept[:, 1] = True, False
    moments = input_moments(model.network, x)[0]
    made = refit(kernel, kept, moments, damping=0.0)
    np.testing.assert_array_equal(made[:, 0], kernel[:, 0])
    assert not made[~kept].any()
    for column in range(2, 5):
        _, best = naive_pruning.output_error(x, kernel, column, np.flatnonzero(kept[:, column]))
        np.testing.assert_allclose(made[kept[:, column], column], best, rtol=1e-8)


def test_update_loses_less(data):
    x, _ = data
    model = make_model([7, 40, 30, 2], ["relu", "relu", "linear"])
    outputs = model.predict(x)
    errors = []
    for options in ({"criterion": "magnitude"}, {}, {"update": True}):
        pruned = prune(model, 0.6, **{"criterion": "second_order", "calibration": x, "scope": "layer", **options})
        assert sum(int((view == 0).sum()) for view in pruned.get_weights()[::2]) == 168 + 720 + 36
        errors.append(np.square(pruned.predict(x) - outputs).mean())
    assert errors[2] < errors[1] and errors[2] < 0.5 * errors[0]


def test_an_input_that_was_always_zero_costs_nothing(data):
    x, _ = data
    x[:, 2] = 0
    model = make_model([7, 3], ["linear"])
    model.parameters["dense/kernel"][2] = 100.0
    pruned = prune(model, 1 / 7, criterion="second_order", calibration=x)
    assert not pruned.parameters["dense/kernel"][2].any()


@pytest.mark.parametrize("criterion", ["movement", "second_order"])
def test_bits_do_not_depend_on_threads(criterion, set_threads):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(1500, 90)).astype(np.float32), rng.integers(0, 9, 1500)
    model = make_model([90, 130, 9], ["relu", "softmax"], "sparse_categorical_crossentropy", dtype="float32")
    options = {"calibration": (x, y)} if criterion == "movement" else {"calibration": x, "update": True}
    results = []
    for threads in (1, 2):
        set_threads(threads)
        results.append(prune(model, 0.8, criterion=criterion, **options).network.params)
    np.testing.assert_array_equal(*results)


def test_data_that_a_criterion_lacks(data):
    x, _ = data
    model = make_model([7, 3, 2], ["tanh", "linear"])
    for criterion, words in (("movement", r"calibration=, \(x, y\)"), ("second_order", "calibration=, inputs")):
        with pytest.raises(ValueError, match=f"^prune: this criterion needs {words}"):
            prune(model, 0.5, criterion=criterion)
    with pytest.raises(ValueError, match=r"calibration=\(x, y\)"):
        prune(model, 0.5, criterion="movement", calibration=x)
    with pytest.raises(ValueError, match="needs a compiled Sequential, got a Network"):
        prune(model.network, 0.5, criterion="movement", calibration=data)
    model.layers[0].trainable = False
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="Dense layer 'dense' is frozen, so its weights have no gradients"):
        prune(model, 0.5, criterion="movement", calibration=data)
    assert prune(model, 0.5, criterion="movement", calibration=data, exempt="dense").network.mask is not None
