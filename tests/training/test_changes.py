"""Models that are changed between two calls, or amid one: steps never work on memory laid out for others."""

import copy

import numpy as np
import pytest

import nbdense as nb
from tests.support.builders import make_model

RNG = np.random.default_rng(4)
X, Y = RNG.normal(size=(40, 4)).astype(np.float32), RNG.normal(size=(40, 2)).astype(np.float32)


def trained(optimizer="sgd", loss="mse"):
    model = make_model([4, 9, 2], ["tanh", "linear"], loss, optimizer)
    model.fit(X, Y, 8, verbose=0)
    return model


@pytest.mark.parametrize(("first", "second"), [("sgd", "adam"), ("adam", "sgd"), ("adam", nb.SGD(0.1, momentum=0.9))])
def test_an_assigned_optimizer_begins_anew(first, second):
    """As compile has it: an SGD has no vector beside the weights, Adam has two."""
    model = trained(first)
    other = copy.deepcopy(model)
    model.optimizer = copy.copy(second)
    other.compile(copy.copy(second), "mse")
    for each in (model, other):
        assert each.optimizer.iterations == 0 and not each.state.any()
        each.fit(X, Y, 8, epochs=2, verbose=0)
    np.testing.assert_array_equal(model.network.params, other.network.params)
    np.testing.assert_array_equal(model.state, other.state)
    same = model.optimizer
    model.optimizer = same
    assert model.optimizer.iterations == 10


def test_an_assigned_loss_is_learnt_by():
    model = trained()
    other = copy.deepcopy(model)
    model.loss = "mae"
    other.compile("sgd", "mae")
    for each in (model, other):
        each.fit(X, Y, 8, verbose=0)
    np.testing.assert_array_equal(model.network.params, other.network.params)
    for setting in ("loss", "optimizer"):
        with pytest.raises(ValueError, match=f"unknown {setting} 'none such'"):
            setattr(model, setting, "none such")


def test_gradients_are_not_applied_by_another_optimizer():
    model = trained()
    model.forward(X)
    model.backward(Y)
    model.optimizer = "adam"
    with pytest.raises(RuntimeError, match="apply_gradients: call forward and backward first"):
        model.apply_gradients()
    other = copy.deepcopy(model)
    other.compile("adam", "mse")
    for each in (model, other):
        each.forward(X)
        each.backward(Y)
        each.apply_gradients()
    np.testing.assert_array_equal(model.network.params, other.network.params)


def _add_and_build(model):
    model.add(nb.Dense(2))
    model.predict(X)


CHANGES = {
    "compile": lambda model: model.compile("adam", "mse"),
    "optimizer": lambda model: setattr(model, "optimizer", nb.Adam()),
    "add": lambda model: model.add(nb.Dense(2)),
    "add, and build": _add_and_build,
    "pop": lambda model: model.pop(),
}


@pytest.mark.parametrize("hook", ["on_epoch_end", "on_train_batch_end", "on_test_begin", "on_test_end"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_callback_that_changes_the_model_amid_fit(change, hook):
    class Change(nb.callbacks.Callback):
        done = False

    def once(self, *_, logs=None):
        if not self.done:
            self.done = True
            CHANGES[change](self.model)

    setattr(Change, hook, once)
    model = trained()
    with pytest.raises(RuntimeError, match="a callback has compiled the model anew, or changed"):
        model.fit(X, Y, 8, epochs=3, verbose=0, validation_data=(X, Y), callbacks=[Change()])
    assert np.isfinite(model.network.params).all()
    if change != "pop":  # whose layer left has other outputs
        assert np.isfinite(model.fit(X, Y, 8, verbose=0).history["loss"]).all()
