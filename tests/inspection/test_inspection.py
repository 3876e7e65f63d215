"""Inspection of models: against numbers worked out in NumPy, and on faults that were planted."""

import builtins
import dataclasses
import json

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import nbdense as nb
from nbdense import layers as k
from nbdense.inspection.diagnosis import Thresholds
from nbdense.inspection.summary import readable_bytes
from nbdense.metrics import COLLECTED, FunctionMetric, Metric

mpl.use("Agg")


def made(layers, shape, loss="mse", metrics=None, dtype="float64", optimizer="adam", seed=3):
    model = nb.Sequential([k.Input(shape), *layers], dtype=dtype)
    model.seed = seed
    model.compile(optimizer, loss, metrics)
    assert model.network.params.size
    return model


def data(rows=40, columns=5, outputs=1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, columns)), rng.normal(size=(rows, outputs))


def everything(dtype="float64"):
    """A model of every kind of layer, and data for it."""
    inner = [k.LayerNormalization(), k.Dense(7, "tanh"), k.Dropout(0.5), k.Dense(6)]
    layers = [k.Dense(6), k.BatchNormalization(), k.ReLU(), k.Residual(inner), k.Flatten(), k.Dense(2, "sigmoid")]
    model = made(layers, (3, 5), "binary_crossentropy", ["accuracy"], dtype)
    rng = np.random.default_rng(1)
    return model, rng.normal(size=(30, 3, 5)), rng.integers(0, 2, (30, 2)).astype(float)


# -- summary ----------------------------------------------------------------------------------------------------------


def test_summary_counts(capsys):
    inner = [k.Dense(12, "tanh"), k.Dropout(0.2)]
    model = made([k.Dense(16, "relu"), k.Residual(inner), k.BatchNormalization(), k.Dense(1)], (3, 8), dtype="float32")
    model.summary()
    text = capsys.readouterr().out
    rows = {line.split(" (")[0]: line.split() for line in text.splitlines() if " (None" in line}
    assert rows["dense"][-6:] == ["144", "384", "576", "B", "192", "B"]
    assert rows["residual"][-6:] == ["396", "1,152", "1.5", "KiB", "144", "B"]
    assert rows["  dense"][-6:-4] == ["204", "576"]
    assert rows["  projection"][-6:-4] == ["192", "576"]  # 16 x 12, on three positions
    assert rows["batch_normalization"][-6] == "48" and "(None, 3, 12)" in text
    assert rows["dense_1"][-6:] == ["13", "36", "52", "B", "12", "B"]
    assert "Total parameters: 601 (2.3 KiB)" in text and "Trainable parameters: 577 " in text
    assert "Non-trainable parameters: 24 (96 B)" in text and "Optimizer parameters: 1,202 (4.7 KiB)" in text
    assert f"Multiply-adds of a row: {model.network.multiply_adds:,}" in text
    assert "Training workspace for a batch of 32: " in text


def test_summary_arguments():
    model = nb.Sequential([k.Input((4,)), k.Dense(3, name="a_layer_with_a_long_name_indeed"), k.Dense(2)])
    lines: list[str] = []
    model.summary(line_length=95, print_fn=lines.append)
    assert {len(line) for line in lines[1:6]} == {95} and "a_layer_with_a_..." in lines[4]
    assert not any("Optimizer" in line for line in lines)  # not compiled
    with pytest.raises(ValueError, match="line_length must be at least 85, got 20"):
        model.summary(line_length=20)


def test_readable_bytes():
    sizes = [0, 1023, 1024, 1536, 2**20, 5 * 2**30, 2**43]
    assert [readable_bytes(n) for n in sizes] == [
        "0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "5.0 GiB", "8192.0 GiB"
    ]  # fmt: skip


# -- diagnose ---------------------------------------------------------------------------------------------------------


def test_diagnosis_equals_numpy():
    """Two dense layers, worked out by hand."""
    model = made([k.Dense(6, "relu"), k.Dense(4, "tanh"), k.Dense(2)], (5,))
    x, y = data(outputs=2)
    weight = np.random.default_rng(2).uniform(0.5, 2, 40)
    (w1, b1), (w2, b2), (w3, b3) = (layer.get_weights() for layer in model.layers)
    a1 = np.maximum(x @ w1 + b1, 0)
    a2 = np.tanh(a1 @ w2 + b2)
    out = a2 @ w3 + b3
    d3 = 2 * (out - y) / y.size * weight[:, None]
    d2 = d3 @ w3.T * (1 - a2**2)
    d1 = d2 @ w2.T * (a1 > 0)
    found = model.diagnose(x, y, sample_weight=weight)
    assert found.loss == pytest.approx((((out - y) ** 2).mean(axis=1) * weight).mean())
    triples = [(a1, d1, x), (a2, d2, a1), (out, d3, a2)]
    for record, (a, d, source), (w, _) in zip(found.layers, triples, [(w1, b1), (w2, b2), (w3, b3)], strict=True):
        assert (record.mean, record.std) == pytest.approx((a.mean(), a.std()), rel=1e-9)
        assert record.zeros == (a == 0).mean() and record.shape == (1, a.shape[1])
        assert record.delta_norm == pytest.approx(np.linalg.norm(d))
        kernel, bias = record.parameters[f"{record.name}/kernel"], record.parameters[f"{record.name}/bias"]
        slope = np.linalg.norm(source.T @ d)
        assert (kernel.norm, kernel.gradient_norm) == pytest.approx((np.linalg.norm(w), slope))
        assert kernel.ratio == pytest.approx(slope / np.linalg.norm(w))
        assert bias.gradient_norm == pytest.approx(np.linalg.norm(d.sum(axis=0))) and bias.ratio is None
    first, second, _ = found.layers
    assert first.dead == (a1 == 0).all(axis=0).mean() and first.saturated is None
    assert second.saturated == (np.abs(a2) > 0.98).mean() and second.dead is None
    assert found.warnings == []


LOGITS = [("sigmoid", "binary_crossentropy"), ("softmax", "categorical_crossentropy")]


@pytest.mark.parametrize("activation, loss", LOGITS)
def test_outputs_whose_loss_takes_logits_are_outputs(activation, loss):
    """Activations are reported, not logits; that they are at their ends is no fault there."""
    model = made([k.Dense(3, activation)], (5,), loss)
    model.parameters["dense/kernel"][...] *= 30
    x, _ = data()
    y = np.eye(3)[np.arange(40) % 3]
    record = model.diagnose(x, y).layers[0]
    out = model.predict(x)
    assert (record.mean, record.std) == pytest.approx((out.mean(), out.std()))
    assert record.delta_norm == pytest.approx(np.linalg.norm(out - y) / 40 / (3 if activation == "sigmoid" else 1))
    near = out.max(axis=1) > 0.99 if activation == "softmax" else (out < 0.01) | (out > 0.99)
    assert record.saturated == near.mean() > 0.5
    assert model.diagnose(x, y).warnings == []
    model.compile("sgd", "mse")  # here the gradient goes through it
    assert "saturated" in "".join(model.diagnose(x, y).warnings)


def test_diagnose_changes_nothing():
    model, x, y = everything()
    model.fit(x, y, epochs=2, verbose=0)
    arrays = {"params": model.network.params, "state": model.state}
    before = {name: array.copy() for name, array in arrays.items()}
    x_before, iterations, config = x.copy(), model.optimizer.iterations, model.optimizer.get_config()
    twice = [model.diagnose(x, y).to_dict() for _ in range(2)]
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])
    assert (model.optimizer.iterations, model.optimizer.get_config()) == (iterations, config)
    np.testing.assert_array_equal(x, x_before)
    assert twice[0] == twice[1] and json.loads(json.dumps(twice[0])) is not None


def test_diagnosis_of_every_kind_of_layer():
    model, x, y = everything("float32")
    found = model.diagnose(x, y)
    kinds = {record.name: record.kind for record in found.layers}
    assert kinds["batch_normalization"] == "batch_normalization" and kinds["re_lu"] == "activation"
    assert kinds["residual"] == "add" and kinds["flatten"] == "flatten"
    assert kinds["residual/layer_normalization"] == "layer_normalization" and kinds["residual/dropout"] == "dropout"
    by_name = {record.name: record for record in found.layers}
    assert by_name["batch_normalization"].mean == pytest.approx(0, abs=1e-5)  # the batch's statistics
    moving = by_name["batch_normalization"].parameters["batch_normalization/moving_mean"]
    assert moving.gradient_norm is None
    text = str(found)
    assert text.startswith("loss ") and all(record.name in text for record in found.layers)
    assert by_name["flatten"].shape == (1, 18) and by_name["dense"].shape == (3, 6)


def test_gradients_are_before_clipping_and_with_penalties():
    x, y = data()
    found = []
    for optimizer in ("adam", nb.Adam(clipnorm=1e-6)):
        model = made([k.Dense(1, use_bias=False)], (5,), optimizer=optimizer)
        model.network.segments["l2"] = 0.5
        found.append(model.diagnose(x, y))
    free, clipped = found
    assert free.to_dict() == clipped.to_dict()
    kernel = model.parameters["dense/kernel"]
    residual = x @ kernel - y
    assert free.loss == pytest.approx((residual**2).mean() + 0.5 * (kernel**2).sum())
    slope = 2 * x.T @ residual / len(x) + kernel
    assert free.layers[0].parameters["dense/kernel"].gradient_norm == pytest.approx(np.linalg.norm(slope))


def test_frozen_layers_have_no_gradient():
    model = made([k.Dense(4, "relu", trainable=False), k.Dense(3, "relu"), k.Dense(1)], (5,))
    first, second, _ = model.diagnose(*data()).layers
    assert first.delta_norm is None and first.parameters["dense/kernel"].gradient_norm is None
    assert second.delta_norm is not None and second.delta_norm > 0


def only(model, x, y, *words, **limits):
    """There is one warning, with these words."""
    warnings = model.diagnose(x, y, thresholds=Thresholds(**limits)).warnings
    assert len(warnings) == 1, warnings
    for word in words:
        assert word in warnings[0]


def test_dead_layer_is_named():
    model = made([k.Dense(8, "tanh"), k.Dense(6, "relu", name="dying"), k.Dense(1)], (5,))
    x, y = data()
    assert model.diagnose(x, y).warnings == []
    model.parameters["dying/bias"][:4] = -100
    only(model, x, y, "dead units: 4 of 6 units of layer 'dying' (relu)")
    assert model.diagnose(x, y, thresholds=Thresholds(dead=0.9)).warnings == []
    model.parameters["dying/bias"][:] = -100
    warnings = model.diagnose(x, y).warnings
    assert warnings[0].startswith("vanishing gradients") and "6 of 6 units of layer 'dying'" in warnings[1]


def test_saturated_layer_is_named():
    model = made([k.Dense(8, "tanh", name="full"), k.Dense(1)], (5,))
    x, y = data()
    assert model.diagnose(x, y).warnings == []
    model.parameters["full/kernel"][...] *= 100
    only(model, x, y, "saturated: ", "layer 'full' (tanh)")
    assert model.diagnose(x, y, thresholds=Thresholds(saturated=1.0)).warnings == []


def test_thirty_sigmoid_layers_vanish():
    model = made([*(k.Dense(10, "sigmoid") for _ in range(30)), k.Dense(1)], (5,))
    x, y = data()
    only(model, x, y, "vanishing gradients", "layer 'dense_30' back to", "in layer 'dense', ")
    assert model.diagnose(x, y, thresholds=Thresholds(vanishing=1e-30)).warnings == []


def test_weights_times_ten_explode():
    model = made([*(k.Dense(10) for _ in range(6)), k.Dense(1)], (5,))
    x, y = data()
    assert model.diagnose(x, y).warnings == []
    for name, view in model.parameters.items():
        if name.endswith("kernel"):
            view[...] *= 10
    only(model, x, y, "exploding gradients", "clipnorm")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_is_named(bad):
    model = made([k.Dense(8, "tanh"), k.Dense(6, name="broken"), k.BatchNormalization(), k.Dense(1)], (5,))
    model.parameters["broken/kernel"][2, 3] = bad
    x, y = data()
    found = model.diagnose(x, y)
    assert found.warnings == [
        "not finite: 1 of 48 numbers in 'broken/kernel' are NaN or infinite",
        "not finite: the outputs of layer 'broken' are the first that hold NaN or infinity",
    ]
    assert [record.finite for record in found.layers] == [True, False, False, False]
    assert not np.isfinite(found.loss) and all(record.delta_norm is None for record in found.layers)
    assert "nan" in str(found)
    found.plot().figure.clear()


def test_diagnose_refuses():
    x, y = data()
    with pytest.raises(RuntimeError, match="not compiled"):
        nb.Sequential([k.Input((5,)), k.Dense(1)]).diagnose(x, y)
    with pytest.raises(ValueError, match="expects shape"):
        made([k.Dense(1)], (4,)).diagnose(x, y)
    with pytest.raises(ValueError, match="Thresholds: dead must be a positive number"):
        Thresholds(dead=0)
    with pytest.raises(TypeError, match="diagnose: thresholds must be a Thresholds, got float"):
        made([k.Dense(1)], (5,)).diagnose(x, y, thresholds=0.1)


# -- importance and saliency ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric, falls", [(None, False), ("loss", True), ("mae", True), ("mean_squared_error", True)])
def test_importance_equals_numpy(metric, falls, monkeypatch):
    """Shuffled by hand, in blocks that do not divide the rows; x is read-only."""
    from nbdense.inspection import attribution

    monkeypatch.setattr(attribution, "_BLOCK", 37)
    monkeypatch.setattr(attribution, "_BATCH", 16)
    model = made([k.Dense(6, "tanh"), k.Dense(1, "sigmoid")], (3,), "mse", ["binary_accuracy"])
    x, _ = data(100, 3)
    y = (x[:, 0] > 0).astype(float)
    x.flags.writeable = False

    def value(rows):
        out = model.predict(rows)[:, 0]
        kinds = {"mae": np.abs(out - y).mean(), None: ((out > 0.5) == (y > 0.5)).mean()}
        return kinds.get(metric, ((out - y) ** 2).mean())

    found = model.importance(x, y, metric, repeats=3, seed=7)
    assert found.baseline == pytest.approx(value(x)) and found.importances.shape == (3, 3)
    for j in range(3):
        for r in range(3):
            shuffled = x.copy()
            shuffled[:, j] = x[np.random.default_rng([7, j, r]).permutation(100), j]
            worse = value(shuffled) - value(x) if falls else value(x) - value(shuffled)
            assert found.importances[j, r] == pytest.approx(worse, abs=1e-12)
    np.testing.assert_allclose(found.importances_mean, found.importances.mean(axis=1))
    np.testing.assert_allclose(found.importances_std, found.importances.std(axis=1))


def share(targets, outputs):
    return ((outputs > 0.5) == (targets > 0.5)).mean()


@dataclasses.dataclass(frozen=True)
class Misses(Metric):
    """Nothing in its name says that it is an error."""

    name: str = "misses"
    code: int = COLLECTED
    collects = True
    direction = "min"

    def compute(self, targets, outputs):
        return float(1 - share(targets, outputs))


@pytest.mark.parametrize(
    "metric",
    [None, "MAE", "MeanSquaredError", "misses", Misses(), FunctionMetric(share, "error", "max"), "r2", "ClassF1"],
    ids=lambda metric: getattr(metric, "name", str(metric)),
)
def test_importance_is_positive_where_the_column_matters(metric):
    """By the metric's own direction; its name may say anything."""
    x, _ = data(100, 2)
    y = (x[:, 0] > 0).astype(float)
    model = made([k.Dense(1, "sigmoid")], (2,), "mse", [Misses()])
    model.set_weights([np.array([[9.0], [0.0]]), np.zeros(1)])
    found = model.importance(x, y, metric)
    assert (found.importances[0] > 0.1).all() and found.columns == (0, 1)
    np.testing.assert_allclose(found.importances[1], 0, atol=1e-12)


def test_importance_of_named_columns():
    x, _ = data(100, 2)
    model = made([k.Dense(1, "sigmoid")], (2,), "mse")
    model.set_weights([np.array([[0.0], [9.0]]), np.zeros(1)])
    found = model.importance(pd.DataFrame(x, columns=["constant term", "age"]), (x[:, 1] > 0).astype(float))
    assert found.columns == ("constant term", "age")
    lines = str(found).splitlines()
    assert "age" in lines[2] and "constant term" in lines[3]
    ax = found.plot()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["age", "constant term"]
    ax.figure.clear()


def test_importance_asks_which_way_is_better():
    x, y = data()
    model = made([k.Dense(1)], (5,), "mse", [FunctionMetric(share, "error")])
    for metric in (None, "error", FunctionMetric(share)):
        with pytest.raises(ValueError, match=r"importance: whether '(error|share)' is .* direction='max'\), or 'min'"):
            model.importance(x, y, metric)


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_importance_finds_the_column_that_matters(metric):
    x, _ = data(400, 6)
    y = (x[:, 4] > 0).astype(float)
    model = made([k.Dense(8, "relu"), k.Dense(1, "sigmoid")], (6,), "binary_crossentropy", ["accuracy"])
    model.fit(x, y, epochs=40, verbose=0)
    state = model.network.params.copy()
    found = model.importance(x, y, metric)
    rest = np.delete(found.importances_mean, 4)
    assert found.importances_mean[4] > 0.2 and found.importances_mean[4] > 8 * np.abs(rest).max()
    assert str(found).splitlines()[2].split()[0] == "4"
    np.testing.assert_array_equal(model.network.params, state)
    assert found.baseline == pytest.approx(model.evaluate(x, y, return_dict=True)[metric])


def test_importance_weighs_rows_and_refuses():
    x, y = data()
    model = made([k.Dense(1)], (5,))
    model.network.segments["l2"] = 0.5
    weight = np.arange(40) / 20
    assert model.importance(x, y, sample_weight=weight).baseline == pytest.approx(model.evaluate(x, y, None, 0, weight))
    for arguments, words in (
        ({"repeats": 0}, "importance: repeats"),
        ({"seed": -1}, "importance: seed"),
        ({"metric": "best"}, "unknown metric 'best'"),
    ):
        with pytest.raises(ValueError, match=words):
            model.importance(x, y, **arguments)
    with pytest.raises(ValueError, match="NaN or infinity"):
        model.importance(np.where(x == x[0, 0], np.nan, x), y)
    with pytest.raises(ValueError, match="x: the data set is empty"):
        model.importance(x[:0], y[:0])
    with pytest.raises(ValueError, match="must have one axis"):
        made([k.Dense(1)], (2, 5)).importance(np.zeros((3, 2, 5)), np.zeros((3, 2, 1)))


@pytest.mark.parametrize("output", [None, 0, 1])
def test_saliency_equals_finite_differences(output, monkeypatch):
    from nbdense.inspection import attribution

    monkeypatch.setattr(attribution, "_BATCH", 8)
    model, x, y = everything()
    model.fit(x, y, epochs=3, verbose=0)
    gradients = model.state.copy()
    found = model.saliency(x, output)
    assert found.shape == x.shape and (found >= 0).all()
    chosen = model.predict(x).argmax(axis=1) if output is None else np.full(30, output)
    rows = np.arange(30)
    for index in np.ndindex(x.shape[1:]):
        step = np.zeros(x.shape[1:])
        step[index] = 1e-6
        slope = (model.predict(x + step) - model.predict(x - step))[rows, chosen] / 2e-6
        np.testing.assert_allclose(found[(slice(None), *index)], np.abs(slope), atol=1e-7)
    np.testing.assert_array_equal(model.state, gradients)


def test_saliency_of_frozen_layers_positions_and_no_rows():
    model = made([k.Dense(3, "tanh", trainable=False), k.Dense(2, trainable=False)], (4, 5))
    x = np.random.default_rng(0).normal(size=(2, 4, 5))
    (w1, b1), (w2, _) = (layer.get_weights() for layer in model.layers)
    a = np.tanh(x @ w1 + b1)
    np.testing.assert_allclose(model.saliency(x, 1), np.abs((1 - a**2) * w2[:, 1] @ w1.T), atol=1e-12)
    assert model.saliency(x[:0]).shape == (0, 4, 5)
    for wrong in (2, -1, True):
        with pytest.raises(ValueError, match=r"saliency: output must be a column in 0\.\.1"):
            model.saliency(x, wrong)


# -- plots ------------------------------------------------------------------------------------------------------------


def test_plot_weights():
    import matplotlib.pyplot as plt

    model, _, _ = everything()
    model.parameters["dense/kernel"][0, 0] = np.nan
    ax = model.plot_weights()
    assert [label.get_text() for label in ax.get_xticklabels()] == list(model.parameters)
    top = max(line.get_ydata().max() for line in ax.lines)
    assert top == pytest.approx(max(np.nanmax(view) for view in model.parameters.values()))
    own = plt.figure().add_subplot()
    assert model.plot_weights(own) is own
    plt.close("all")


def test_plot_diagnosis():
    import matplotlib.pyplot as plt

    model, x, y = everything()
    found = model.diagnose(x, y)
    ax = found.plot()
    assert ax.get_yscale() == "log" and len(ax.lines) == 3
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [record.std for record in found.layers])
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [record.delta_norm for record in found.layers])
    plt.close("all")


def test_plots_say_what_they_need(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install nbdense\[plot\]"):
        everything()[0].plot_weights()
