"""A loop of the user's own: forward, backward and apply_gradients, and what may come between them."""

import numpy as np
import pytest

import nbdense as nb
from nbdense import layers as k
from tests.support.stacks import made, randomise


def test_own_loop_errors():
    model = made([k.Dense(2)], (3,))
    with pytest.raises(RuntimeError, match="backward: call forward first"):
        model.backward(np.zeros((1, 2)))
    with pytest.raises(RuntimeError, match="apply_gradients: the model is not compiled"):
        model.apply_gradients()
    with pytest.raises(ValueError, match="expects shape"):
        model.forward(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="forward: x has no rows"):
        model.forward(np.zeros((0, 3)))
    model.forward(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"outputs' shape \(2, 2\), got \(2, 3\)"):
        model.backward(np.zeros((2, 3)))
    model.backward(np.zeros((2, 2)))
    with pytest.raises(RuntimeError, match="a forward serves one backward"):
        model.backward(np.zeros((2, 2)))


X, Y = np.linspace(-1, 1, 24).reshape(8, 3), np.linspace(0, 1, 16).reshape(8, 2)
CHANGES = {
    "fit": lambda model: model.fit(X, Y, verbose=0),
    "train_on_batch": lambda model: model.train_on_batch(X, Y),
    "apply_gradients": lambda model: model.apply_gradients(),
    "set_weights": lambda model: model.set_weights(model.get_weights()),
    "a layer's set_weights": lambda model: model.layers[0].set_weights(model.layers[0].get_weights()),
}


def fail_to_train(model):
    with pytest.raises(FloatingPointError):
        model.train_on_batch(X, 1e200 * Y)


LOOKS = {
    "predict": lambda model: model.predict(X),
    "evaluate": lambda model: model.evaluate(X, Y),
    "train_on_batch that fails": fail_to_train,
    "diagnose": lambda model: model.diagnose(X, Y),
    "importance": lambda model: model.importance(X, Y),
    "saliency": lambda model: model.saliency(X),
    "summary": lambda model: model.summary(print_fn=lambda line: None),
    "another": lambda model: model.upto("dense"),
}


@pytest.mark.parametrize("use_ema", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_backward_refuses_a_forward_of_other_weights(change, use_ema):
    model = made([k.Dense(2)], (3,))
    model.compile(nb.SGD(0.0, use_ema=use_ema, ema_overwrite_frequency=1), "mse")  # its values stay: it is the writing
    model.backward(model.forward(X))
    out = model.forward(X)
    CHANGES[change](model)
    with pytest.raises(RuntimeError, match="backward: the weights have changed since forward .*; call forward again"):
        model.backward(out - Y)
    model.backward(model.forward(X) - Y)
    model.apply_gradients()


@pytest.mark.parametrize("look", LOOKS)
def test_a_look_between_forward_and_backward_changes_nothing(look):
    model = made([k.Dense(4, "tanh"), k.Dense(2)], (3,))
    model.compile("adam", "mse")
    out = model.forward(X)
    slope = model.backward(out - Y)
    for _ in range(2):  # gradients are taken several times before a step, as to accumulate them
        model.forward(X)
        LOOKS[look](model)
        np.testing.assert_array_equal(model.backward(out - Y), slope)
    model.apply_gradients()


@pytest.mark.parametrize("change", [lambda model: model.compile("sgd", "mse"), lambda model: model.build(3)])
def test_steps_begin_anew_with_a_new_network(change):
    model = made([k.Dense(2)], (3,))
    model.compile("adam", "mse")
    model.train_on_batch(X, Y)
    out = model.forward(X)
    change(model)
    with pytest.raises(RuntimeError, match="backward: call forward first"):
        model.backward(out)
    before = model.get_weights()
    model.train_on_batch(X, Y)
    assert (model.get_weights()[0] != before[0]).any()


def test_own_loop_trains_as_fit_does():
    """Forward, the loss's derivative, backward and apply_gradients are train_on_batch, and that is a step of fit."""
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(32, 4)), rng.normal(size=(32, 2))
    models = []
    for _ in range(3):
        model = randomise(made([k.Dense(9), k.BatchNormalization(), k.ReLU(), k.Dropout(0.3), k.Dense(2)], (4,)))
        model.compile(nb.Adam(0.01, weight_decay=0.1, clipvalue=0.5), "mse")
        models.append(model)
    losses = []
    for _ in range(5):
        out = models[0].forward(x, training=True)
        losses.append(((out - y) ** 2).mean())
        models[0].backward(2 * (out - y) / y.size)
        models[0].apply_gradients()
        assert abs(models[1].train_on_batch(x, y) - losses[-1]) < 1e-12
    history = models[2].fit(x, y, 32, epochs=5, shuffle=False, verbose=0)
    np.testing.assert_allclose(history.history["loss"], losses, rtol=1e-10)
    np.testing.assert_array_equal(models[1].network.params, models[2].network.params)
    np.testing.assert_allclose(models[0].network.params, models[2].network.params, atol=1e-10)


@pytest.mark.parametrize("widths", [(5, 64, 2), (20, 70, 40, 1), (3, 130, 3, 50, 4)])
def test_gradients_of_few_columns_are_the_same_in_a_step_that_uses_them_at_once(widths):
    """A step of fit may multiply them the other way round; backward leaves them to be read, and does not."""
    rng = np.random.default_rng(9)
    model = randomise(made([k.Dense(n, "relu") for n in widths[1:-1]] + [k.Dense(widths[-1])], (widths[0],)))
    model.compile(nb.SGD(1.0), "mse")
    x, y = (rng.normal(size=(32, n)).astype(model.dtype) for n in (widths[0], widths[-1]))
    out = model.forward(x, training=True)
    model.backward((out - y) * (2 / y.size))  # exact, as y.size is a power of two
    weights, gradients = model.get_weights(), [gradient.copy() for gradient in model.gradients.values()]
    model.train_on_batch(x, y)
    for after, before, gradient in zip(model.get_weights(), weights, gradients, strict=True):
        assert gradient.any()
        np.testing.assert_array_equal(after, before - gradient)
