"""Keras's values of its metrics, by themselves and in a model (tests/golden/make_keras_metrics.py wrote them)."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

import nbdense as nb
from nbdense import losses, metrics
from nbdense.engine.elementwise.loss import COLLECTED
from nbdense.training import evaluation

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "keras_metrics.json").read_text())
WEIGHTS, FIRST = np.array(GOLDEN["weights"]), GOLDEN["first"]
PARTS = (slice(0, FIRST), slice(FIRST, None))
# Keras weighs numbers by their weights but counts all of them for the adjustment, and its epsilon is in float32.
CLOSE = {"rtol": 3e-6, "atol": 1e-6}


def data(name):
    targets, outputs = GOLDEN["data"][name]
    return np.array(targets), np.array(outputs, np.float32)


def made(case):
    return getattr(metrics, case["class"])(**case["config"])


def name_of(case):
    return "-".join([case.get("class") or case["function"], case["data"], *map(str, case["config"].values())])


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=name_of)
def test_by_itself(case):
    """In two batches, with and without weights; again after reset_state, and as from_config makes it."""
    targets, outputs = data(case["data"])
    first = made(case)
    for metric in (first, first, type(first).from_config(json.loads(json.dumps(first.get_config())))):
        for key, weights in (("result", None), ("weighted", WEIGHTS)):
            metric.reset_state()
            for part in PARTS:
                metric.update_state(targets[part], outputs[part], None if weights is None else weights[part])
            np.testing.assert_allclose(metric.result(), case[key], **CLOSE)
    metric.reset_state()
    assert all((np.asarray(variable) == 0).all() for variable in metric.variables)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=name_of)
def test_in_a_model(case):
    """`evaluate` of a model that puts out its inputs: compiled forms and collected outputs give the same."""
    targets, outputs = data(case["data"])
    columns, metric = outputs.shape[1], made(case)
    model = nb.Sequential([nb.Input((columns,)), nb.Dense(columns, use_bias=False)])
    sparse = case["data"] == "sparse"
    loss = losses.SparseCategoricalCrossentropy(from_logits=True) if sparse else "mse"
    model.compile("sgd", loss, metrics=[metric])
    model.set_weights([np.eye(columns)])
    found = model.evaluate(outputs, targets, batch_size=FIRST, return_dict=True, verbose=0)
    np.testing.assert_allclose(found[metric.name], case["result"], **CLOSE)
    assert all((np.asarray(variable) == 0).all() for variable in metric.variables)  # its state is the user's


@pytest.mark.parametrize("case", GOLDEN["functions"], ids=name_of)
def test_functions(case):
    values = getattr(metrics, case["function"])(*data(case["data"]), **case["config"])
    np.testing.assert_allclose(values, case["values"], **CLOSE)
    assert np.shape(values) == np.shape(case["values"])


def test_all_of_keras_metrics_are_tried():
    """Each class under a Keras name is in the golden file; what is not has no such name there."""
    own = {"ClassPrecision", "ClassRecall", "ClassF1", "ExactAUC"}
    assert {kind.__name__ for kind in metrics.METRICS.values()} - own <= {case["class"] for case in GOLDEN["cases"]}


def test_logs_of_several_numbers(tmp_path, capsys):
    """A number for each class is an array in the history, as in Keras; callbacks that want one number say so."""
    targets, outputs = data("classes")
    model = nb.Sequential([nb.Input((3,)), nb.Dense(3, "softmax")])
    several = [metrics.F1Score(), metrics.Precision([0.2, 0.5], name="p"), metrics.F1Score("macro", name="one")]
    model.compile("sgd", "categorical_crossentropy", metrics=several)
    log = nb.callbacks.CSVLogger(tmp_path / "log.csv")
    history = model.fit(outputs, targets, epochs=2, verbose=2, callbacks=[log], validation_data=(outputs, targets))
    for name, numbers in (("f1_score", 3), ("p", 2), ("val_f1_score", 3)):
        assert [np.shape(value) for value in history.history[name]] == [(numbers,)] * 2
    assert all(isinstance(value, float) for value in history.history["one"])
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert str(history.history["f1_score"][1].tolist()) in lines[2]
    assert f"p: [{' '.join(f'{number:.4g}' for number in history.history['p'][0])}]" in capsys.readouterr().out
    stop = nb.callbacks.EarlyStopping("f1_score", mode="max")
    with pytest.raises(ValueError, match="'f1_score' has 3 numbers an epoch; monitor a metric with one"):
        model.fit(outputs, targets, epochs=1, verbose=0, callbacks=[stop])
    with pytest.raises(ValueError, match="metric 'f1_score' has 3 numbers; give one with a single number"):
        model.importance(outputs, targets, "f1_score")


class TruePositivesByHand(metrics.Metric):
    """A metric as Keras's guide writes it."""

    direction = "max"

    def __init__(self, name="by_hand", threshold=0.5, **kwargs):
        super().__init__(name=name, **kwargs)
        self.threshold = threshold
        self.hits = self.add_weight(name="hits", initializer="zeros")
        self.seen = self.add_variable((), initializer="zeros", name="seen")

    def update_state(self, y_true, y_pred, sample_weight=None):
        hits = ((y_true > 0) & (y_pred > self.threshold)).astype("float32")
        if sample_weight is not None:
            hits = hits * np.reshape(sample_weight, (-1, 1))
        self.hits.assign_add(np.sum(hits))
        self.seen.assign(self.seen + len(y_true))

    def result(self):
        return self.hits


class Both(metrics.Metric):
    """Two numbers by name, of metrics among the attributes."""

    def __init__(self, name="both", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.total, self.others = metrics.Sum(), [metrics.Mean()]

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.update_state(y_pred)
        self.others[0].update_state(y_pred)

    def result(self):
        return {"total": self.total.result(), "average": self.others[0].result()}


def test_a_metric_of_ones_own():
    """By itself and in a model at once; the model's counting is not the user's, nor his the model's."""
    targets, outputs = data("labels")
    metric = TruePositivesByHand(threshold=0.25)
    expected = ((targets > 0) & (outputs > 0.25)).sum()
    assert float(metric(targets[:5], outputs[:5])) == ((targets > 0) & (outputs > 0.25))[:5].sum()
    kept = [float(variable) for variable in metric.variables]
    model = nb.Sequential([nb.Input((3,)), nb.Dense(3, use_bias=False)])
    model.compile(nb.SGD(0.0), "mse", metrics=[metric, Both()])
    model.set_weights([np.eye(3)])
    history = model.fit(outputs, targets, epochs=2, batch_size=7, verbose=0).history
    assert history["by_hand"] == [expected, expected]
    np.testing.assert_allclose(history["average"], outputs.mean(), rtol=1e-6)
    assert "both" not in history
    assert model.evaluate(outputs, targets, verbose=0, return_dict=True)["total"] == pytest.approx(outputs.sum())
    assert [float(variable) for variable in metric.variables] == kept == [kept[0], 5.0]
    again = metrics.deserialize(metrics.serialize(metric), {"TruePositivesByHand": TruePositivesByHand})
    assert (again.name, again.threshold, again.dtype) == ("by_hand", 0.25, "float32")
    assert float(again(targets, outputs, WEIGHTS)) != expected
    assert len(Both().variables) == 3


class Batches(metrics.Metric):
    """Number of batches."""

    def __init__(self):
        super().__init__()
        self.number = 0

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.number += 1

    def result(self):
        return self.number

    def reset_state(self):
        self.number = 0


@pytest.mark.parametrize("together", [1, 20, 10**6])
def test_batches_are_handed_over(together, monkeypatch):
    """One by one where a metric may ask; the library's own get many at once, which changes nothing."""
    monkeypatch.setattr(evaluation, "ROWS_TOGETHER", together)
    targets, outputs = data("labels")
    model = nb.Sequential([nb.Input((3,)), nb.Dense(3, use_bias=False)])

    def largest(y_true, y_pred):
        return y_pred.max()

    own = [Batches(), largest, metrics.FunctionMetric(largest, "of_all")]
    model.compile(nb.SGD(0.0), "mse", metrics=[*own, "auc", "f1_score", "mape", "r2_score", "exact_auc"])
    model.set_weights([np.eye(3)])
    found = model.evaluate(outputs, targets, batch_size=7, verbose=0, return_dict=True)
    assert found["batches"] == 6
    assert found["largest"] == pytest.approx(np.mean([outputs[i : i + 7].max() for i in range(0, 40, 7)]))
    assert found["of_all"] == outputs.max()
    for name in ("auc", "f1_score", "mape", "r2_score", "exact_auc"):
        np.testing.assert_allclose(found[name], metrics.get(name)(targets, outputs), rtol=1e-6)


def test_variables():
    variable = metrics.Metric(name="m").add_variable((2,), initializer="ones", dtype="float32", name="v")
    variable.assign_add([1.0, 2.0])
    variable.assign_sub(1.0)
    np.testing.assert_array_equal(variable, [1.0, 2.0])
    np.testing.assert_array_equal(2 * variable / (variable - 3), [-1.0, -4.0])
    np.testing.assert_array_equal(np.sqrt(variable) ** 2 >= 0, [True, True])
    assert (variable.shape, variable.dtype, variable.name, variable[1], len(variable)) == ((2,), "float32", "v", 2.0, 2)
    copy = variable.value
    copy[:] = 7.0
    assert variable.numpy().tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match=r"v: shape \(2,\) was expected, got \(3,\)"):
        variable.assign(np.zeros(3))


def test_what_is_no_metric():
    class Nothing(metrics.Metric):
        pass

    class Plain(metrics.Metric):
        def compute(self, targets, outputs):
            return float(outputs.sum())

    for call in (lambda: Nothing().update_state([1], [1]), lambda: Nothing().result(), lambda: Nothing().compute(1, 1)):
        with pytest.raises(NotImplementedError, match="Nothing must define update_state and result, or compute"):
            call()
    assert math.isnan(Plain().result())
    with pytest.raises(ValueError, match="metric 'plain' weighs no rows"):
        Plain()([1.0], [1.0], [2.0])
    metric = metrics.ExactAUC()
    metric.update_state([1], [0.5])
    with pytest.raises(ValueError, match="metric 'exact_auc': give each batch a sample_weight, or none"):
        metric.update_state([1], [0.5], [2.0])


def test_compiled_forms_are_few():
    """The program has a code for these; all others count in NumPy, batch by batch."""
    kinds = {case["class"] for case in GOLDEN["cases"] if made(case).code != COLLECTED}
    assert kinds == {
        "BinaryAccuracy",
        "CategoricalAccuracy",
        "SparseCategoricalAccuracy",
        "TopKCategoricalAccuracy",
        "SparseTopKCategoricalAccuracy",
        "MeanSquaredError",
        "RootMeanSquaredError",
        "MeanAbsoluteError",
    }


def test_variables_begin_with_all_digits():
    first = np.array([18729665, 16777217])  # float32 has neither
    metric = metrics.Mean()
    variable = metric.add_variable((2,), lambda shape, dtype=None: first.astype(dtype))
    np.testing.assert_array_equal(variable.value, first)
    np.testing.assert_array_equal(metric.add_variable((2,), first).value, first)
