"""Penalties on activities: part of the loss and of its gradient, and of nothing that is shipped.

Their gradients are held to differences, to two threads and to a resumed fit as one of STACKS; Keras's values are in
tests/golden, as those of a snippet.
"""

import numpy as np
import onnxruntime
import pytest

import nbdense as nb
from nbdense._compile import thread_pool
from nbdense.engine.rows import ACTIVITY, rows_of
from nbdense.layers import Activation, ActivityRegularization, BatchNormalization, Dense, Dropout, Input, Residual

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype(np.float32)
Y = RNG.normal(size=(60, 3)).astype(np.float32)


def made(*layers, dtype="float32", seed=1):
    nb.set_random_seed(seed)
    model = nb.Sequential([Input((4,)), *layers], dtype=dtype)
    model.compile(nb.SGD(0.05), "mse", metrics=["mae"])
    return model


def hidden(**options):
    return Dense(6, "relu", name="hidden", **options)


def with_and_without():
    """The same weights, with and without penalties."""
    last = Dense(3, "sigmoid", activity_regularizer=nb.L2(0.2), name="last")
    penalised = made(hidden(activity_regularizer=nb.L1(0.1)), ActivityRegularization(0.3, 0.4), last)
    plain = made(hidden(), Dense(3, "sigmoid", name="last"))
    plain.set_weights(penalised.get_weights())
    return penalised, plain


def test_the_loss_is_the_mean_over_rows_whatever_their_weights():
    penalised, plain = with_and_without()
    a, b = plain.layers[0](X).astype(float), plain(X).astype(float)
    penalty = (0.1 * np.abs(a).sum() + 0.3 * np.abs(a).sum() + 0.4 * (a**2).sum() + 0.2 * (b**2).sum()) / len(X)
    weights = RNG.uniform(0.5, 2.0, len(X))
    for options in ({}, {"sample_weight": weights}, {"batch_size": 7}, {"batch_size": 7, "sample_weight": weights}):
        expected = plain.evaluate(X, Y, return_dict=True, **options)
        found = penalised.evaluate(X, Y, return_dict=True, **options)
        np.testing.assert_allclose(found["loss"], expected["loss"] + penalty, rtol=1e-6)
        assert found["mae"] == expected["mae"]
    # whose metrics are of outputs before the step
    np.testing.assert_allclose(penalised.train_on_batch(X, Y)[0], plain.train_on_batch(X, Y)[0] + penalty, rtol=1e-6)


def test_single_batches_are_evaluated_alike():
    penalised, _ = with_and_without()
    expected = penalised.evaluate(X, Y, batch_size=len(X))
    for _ in range(2):  # the second batch of a form takes the short way
        np.testing.assert_allclose(penalised.test_on_batch(X, Y), expected, rtol=1e-6)


def test_the_loss_of_an_evaluation_does_not_drop():
    """Penalties are taken of what inference computes."""
    model = made(Dropout(0.5), Dense(50, activity_regularizer="l2"), Dense(3))
    a = model.layers[1](X).astype(float)
    plain = made(Dense(50), Dense(3))
    plain.set_weights(model.get_weights())
    expected = plain.evaluate(X, Y)[0] + 0.01 * (a**2).sum() / len(X)
    np.testing.assert_allclose(model.evaluate(X, Y)[0], expected, rtol=1e-6)


def test_losses_are_the_same_on_two_threads(monkeypatch):
    monkeypatch.setattr(thread_pool, "_chosen", thread_pool._chosen)
    monkeypatch.setattr(thread_pool, "PARALLEL_FLOPS", dict.fromkeys(thread_pool.PARALLEL_FLOPS, 0.0))
    monkeypatch.setattr(thread_pool, "LEAST_PARALLEL_FLOPS", 0.0)
    results = []
    for threads in (1, 2):
        nb.set_num_threads(threads)
        model = made(Dense(190, "tanh", activity_regularizer=nb.L1L2(0.1, 0.2)), Dense(3, activity_regularizer="l1"))
        x, y = np.tile(X, (30, 1)), np.tile(Y, (30, 1))
        history = model.fit(x, y, batch_size=256, epochs=2, verbose=0, validation_data=(x, y)).history
        results.append((history, model.evaluate(x, y, batch_size=512), model.get_weights()))
    assert results[0][:2] == results[1][:2]
    for one, two in zip(results[0][2], results[1][2], strict=True):
        np.testing.assert_array_equal(one, two)


def test_it_pulls_activities_to_zero():
    penalised, plain = made(hidden(activity_regularizer=nb.L1(0.2)), Dense(3)), made(hidden(), Dense(3))
    for model in (penalised, plain):
        model.fit(X, Y, batch_size=10, epochs=40, verbose=0)
    assert np.abs(penalised.layers[0](X)).mean() < 0.5 * np.abs(plain.layers[0](X)).mean()


def test_a_loss_that_is_not_finite_ends_the_fit():
    model = made(Dense(3, activity_regularizer=nb.L2(3e38)))
    with pytest.raises(FloatingPointError, match="the loss is (inf|nan) in epoch 1, step 2; the weights are those of"):
        model.fit(1e5 * X, Y, verbose=0)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_described_saved_and_loaded(tmp_path):
    penalised, _ = with_and_without()
    penalised.fit(X, Y, verbose=0)
    penalised.save(tmp_path / "model")
    loaded = nb.load_model(tmp_path / "model")
    for model in (loaded, nb.Sequential.from_config(penalised.get_config())):
        first, layer, last = model.layers
        assert first.activity_regularizer.get_config() == {"l1": 0.1}
        assert (layer.l1, layer.l2) == (0.3, 0.4)
        assert last.activity_regularizer.get_config() == {"l2": 0.2}
    assert loaded.evaluate(X, Y) == penalised.evaluate(X, Y)
    assert "activity_regularizer" not in Dense(3).get_config()


def test_nothing_of_it_is_left_in_inference_files_and_integers():
    penalised, plain = with_and_without()
    assert not rows_of(penalised.network.inference, ACTIVITY).size
    assert len(penalised.network.inference) == len(plain.network.inference) == 2
    np.testing.assert_array_equal(penalised.predict(X), plain.predict(X))
    protos = [nb.to_onnx(model) for model in (penalised, plain)]
    assert protos[0].graph.SerializeToString() == protos[1].graph.SerializeToString()
    session = onnxruntime.InferenceSession(protos[0].SerializeToString())
    np.testing.assert_allclose(session.run(None, {session.get_inputs()[0].name: X})[0], plain.predict(X), atol=1e-6)
    for scheme in ("static", "dynamic", "weight_only"):
        quantized = [nb.quantize(model, X, scheme=scheme).predict(X) for model in (penalised, plain)]
        np.testing.assert_array_equal(*quantized)


def test_an_activation_behind_it_is_a_row_of_its_own():
    """The pre-activation is penalised then."""
    model = made(Dense(3, activity_regularizer=nb.L2(1.0)), Activation("relu"))
    kernel, bias = (weight.astype(float) for weight in model.get_weights())
    z = X @ kernel + bias
    expected = np.square(np.maximum(z, 0) - Y).mean() + np.square(z).sum() / len(X)
    np.testing.assert_allclose(model.evaluate(X, Y)[0], expected, rtol=1e-6)


def test_behind_a_softmax_at_the_end_crossentropy_is_that_of_probabilities():
    labels = np.arange(60) % 3
    model = made(Dense(3, "softmax", activity_regularizer=nb.L2(0.5)))
    model.compile(nb.SGD(0.05), "sparse_categorical_crossentropy")
    p = model.predict(X).astype(float)
    expected = -np.log(p[np.arange(60), labels]).mean() + 0.5 * (p**2).sum() / 60
    np.testing.assert_allclose(model.evaluate(X, labels), expected, rtol=1e-5)
    history = model.fit(X, labels, epochs=30, verbose=0).history["loss"]
    assert history[-1] < history[0]


def test_frozen_and_in_blocks():
    """A frozen layer's penalty is reported, and its gradient goes on to the layers before it, as in Keras."""
    frozen = Dense(4, "tanh", activity_regularizer=nb.L2(0.3), trainable=False)
    model = made(Dense(4), Residual([Dense(5, "tanh"), frozen]), Dense(3), dtype="float64")
    loss, old, rate = model.evaluate(X, Y)[0], model.get_weights(), 1e-4
    model.compile(nb.SGD(rate), "mse")
    model.train_on_batch(X, Y)
    slopes = [(before - after) / rate for before, after in zip(old, model.get_weights(), strict=True)]
    assert [slope.any() for slope in slopes] == [True] * 4 + [False] * 2 + [True] * 2
    squares = sum(np.square(slope).sum() for slope in slopes)
    np.testing.assert_allclose(loss - model.evaluate(X, Y), rate * squares, rtol=1e-3)


def test_quantization_aware_training_keeps_it_behind_the_rounding():
    model = made(
        Dense(6, activity_regularizer=nb.L1(0.1), name="hidden"),
        BatchNormalization(),
        Activation("relu"),
        ActivityRegularization(l2=0.2),
        Dense(3, "tanh", activity_regularizer=nb.L2(0.3)),
    )
    model.fit(X, Y, epochs=2, verbose=0)
    aware = nb.quantize_aware(model, X)
    penalties = [(layer.l1, layer.l2) for layer in aware.layers if isinstance(layer, ActivityRegularization)]
    assert penalties == [(0.1, 0.0), (0.0, 0.2), (0.0, 0.3)]
    outputs, total = X, 0.0
    for layer in aware.layers:
        outputs = layer(outputs)
        if isinstance(layer, ActivityRegularization):
            total += (layer.l1 * np.abs(outputs).sum() + layer.l2 * np.square(outputs.astype(float)).sum()) / len(X)
    aware.compile(nb.SGD(0.01), "mse")
    np.testing.assert_allclose(aware.evaluate(X, Y), np.square(outputs - Y).mean() + total, rtol=1e-5)
    aware.fit(X, Y, epochs=3, verbose=0)
    assert nb.quantize(aware).predict(X).shape == (60, 3)


def test_penalties_of_nothing_write_nothing():
    model = made(Dense(3, activity_regularizer=nb.L1L2(0.0, 0.0)), ActivityRegularization())
    assert not rows_of(model.network.layers, ACTIVITY).size
    with pytest.raises(ValueError, match="L1L2: l1 must be"):
        ActivityRegularization(-1.0)
    with pytest.raises(ValueError, match="regularizer OrthogonalRegularizer is for calls"):
        Dense(3, activity_regularizer="orthogonal_regularizer")
