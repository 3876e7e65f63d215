"""Metrics: scikit-learn's values where it has the metric, Keras's meaning of names, and what files keep of them."""

import json
import math
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import sklearn.metrics
from sklearn.exceptions import UndefinedMetricWarning

from nbdense import metrics
from nbdense.engine.elementwise.loss import metric_of_row
from nbdense.losses import BinaryCrossentropy, CategoricalCrossentropy, MeanSquaredError, SparseCategoricalCrossentropy
from nbdense.metrics import (
    AUC,
    BinaryAccuracy,
    F1Score,
    FunctionMetric,
    Precision,
    R2Score,
    Recall,
    RootMeanSquaredError,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
)
from tests.support.builders import make_model
from tests.support.compiled import compiled

BINARY, ONE_HOT, SPARSE, SQUARED = (
    BinaryCrossentropy(),
    CategoricalCrossentropy(),
    SparseCategoricalCrossentropy(),
    MeanSquaredError(),
)
RATIOS = [
    (Precision, sklearn.metrics.precision_score),
    (Recall, sklearn.metrics.recall_score),
    (F1Score, sklearn.metrics.f1_score),
]


@compiled
def _row_values(code, work, n, ld_target, out):
    """A metric of each row; ``work`` holds (rows, n) outputs, then (rows, ld_target) targets."""
    for i in range(out.size):
        out[i] = metric_of_row(code, work, i * n, out.size * n + i * ld_target, n)


def row_values(metric, targets, outputs):
    """The compiled form, a number a row."""
    rows, n = outputs.shape
    targets = np.asarray(targets, outputs.dtype).reshape(rows, -1)
    out = np.full(rows, np.nan)
    _row_values(np.int64(metric.code), np.concatenate([outputs.ravel(), targets.ravel()]), n, targets.shape[1], out)
    return out


def draws(count, n_out):
    """Outputs and class numbers: some with few distinct values (ties), one class, or one row."""
    rng = np.random.default_rng(count + n_out)
    for number in range(count):
        rows = [1, 2, 7, 40, 151][number % 5]
        outputs = rng.integers(0, 4, (rows, n_out)) / 4.0 if number % 2 else rng.normal(size=(rows, n_out))
        labels = rng.integers(0, max(n_out, 2), rows) if number % 3 else np.full(rows, number % max(n_out, 2))
        yield labels, outputs


# -- means over rows ------------------------------------------------------------------------------------------------


@pytest.mark.kernels
@pytest.mark.parametrize("n_out", [1, 2, 6, 17])
def test_top_k_counts_larger_outputs(n_out):
    """Keras's rule, which scikit-learn's equals where there are no ties."""
    for numbers, outputs in draws(10, n_out):
        labels = numbers % n_out
        larger = (outputs > outputs[np.arange(len(labels)), labels][:, None]).sum(axis=1)
        for k in (1, 2, 5, 17, 10**30):
            expected = larger < k
            np.testing.assert_array_equal(row_values(SparseTopKCategoricalAccuracy(k), labels, outputs), expected)
            one_hot = np.eye(n_out)[labels]
            np.testing.assert_array_equal(row_values(TopKCategoricalAccuracy(k), one_hot, outputs), expected)
            if n_out > 2 and k < n_out and len(np.unique(outputs)) == outputs.size:
                theirs = sklearn.metrics.top_k_accuracy_score(labels, outputs, k=k, labels=np.arange(n_out))
                assert expected.mean() == pytest.approx(theirs)


@pytest.mark.kernels
def test_nan_is_in_no_top():
    outputs = np.array([[np.nan, 1, 2], [np.nan, 1, 2], [np.nan] * 3, [np.inf, 0, np.inf], [-np.inf, 0, 1]])
    labels = [0, 2, 1, 2, 0]
    for k, expected in ((1, [0, 1, 0, 1, 0]), (3, [0, 1, 0, 1, 1]), (9, [0, 1, 0, 1, 1])):
        np.testing.assert_array_equal(row_values(SparseTopKCategoricalAccuracy(k), labels, outputs), expected)
        np.testing.assert_array_equal(
            row_values(TopKCategoricalAccuracy(k), np.eye(3)[labels], outputs.astype(np.float32)), expected
        )


@pytest.mark.kernels
def test_collecting_metrics_are_nothing_a_row():
    assert AUC().code == metrics.COLLECTED
    np.testing.assert_array_equal(row_values(AUC(), [1.0, 0.0], np.array([[np.nan], [3.0]])), [0, 0])


def test_top_k_in_evaluate():
    """The code reaches the compiled program, for both kinds of targets."""
    rng = np.random.default_rng(3)
    x, labels = rng.normal(size=(60, 4)), rng.integers(0, 8, 60)
    for loss, kind, y in (
        (SPARSE, SparseTopKCategoricalAccuracy, labels),
        (ONE_HOT, TopKCategoricalAccuracy, np.eye(8)[labels]),
    ):
        model = make_model([4, 8], ["softmax"], loss, metrics=[kind(), kind(k=2, name="top_2")])
        outputs = model.predict(x)
        larger = (outputs > outputs[np.arange(60), labels][:, None]).sum(axis=1)
        found = model.evaluate(x, y, return_dict=True)
        assert found[metrics.serialize(kind())["config"]["name"]] == np.mean(larger < 5)
        assert found["top_2"] == np.mean(larger < 2)


def test_errors_agree_with_scikit_learn():
    rng = np.random.default_rng(5)
    for n_out in (1, 3):
        targets, outputs = rng.normal(size=(50, n_out)), rng.normal(size=(50, n_out))
        for name, function in (
            ("mse", sklearn.metrics.mean_squared_error),
            ("mae", sklearn.metrics.mean_absolute_error),
        ):
            metric = metrics.get(name, SQUARED, n_out)
            found = metric.finish(row_values(metric, targets, outputs).mean())
            assert found == pytest.approx(function(targets, outputs), rel=1e-12)
        root = metrics.get("rmse", SQUARED, n_out)
        found = root.finish(row_values(root, targets, outputs).mean())
        assert found == pytest.approx(np.sqrt(np.mean((targets - outputs) ** 2)), rel=1e-12)
        if n_out == 1:
            assert found == pytest.approx(sklearn.metrics.root_mean_squared_error(targets, outputs), rel=1e-12)
    assert math.isnan(RootMeanSquaredError().finish(math.nan))


def test_threshold_of_binary_accuracy():
    outputs = np.array([[0.2], [0.3], [0.6], [0.9]])
    targets = np.array([[0], [1], [0], [1]])
    for threshold in (0.1, 0.3, 0.5, 0.7):
        metric = BinaryAccuracy(threshold=threshold)
        expected = sklearn.metrics.accuracy_score(targets[:, 0], outputs[:, 0] > threshold)
        assert metric.compute(targets, outputs) == expected
        assert metric.collects == (threshold != 0.5) == (metric.code == metrics.COLLECTED)
    assert row_values(BinaryAccuracy(), targets, outputs).mean() == BinaryAccuracy().compute(targets, outputs)


# -- precision, recall, F1 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "function"), RATIOS)
@pytest.mark.parametrize("average", [None, "binary", "macro", "micro", "weighted"])
def test_ratios_of_classes(kind, function, average):
    """One output, two classes and more, as class numbers and one-hot rows."""
    for n_out in (1, 2, 3, 9):
        if average == "binary" and n_out > 2:
            continue
        theirs = average or ("binary" if n_out <= 2 else "macro")
        for labels, outputs in draws(15, n_out):
            predicted = outputs[:, 0] > 0.5 if n_out == 1 else outputs.argmax(axis=1)
            expected = function(labels, predicted.astype(int), average=theirs, zero_division=0)
            metric = metrics.get(kind(average=average), SQUARED if n_out == 1 else SPARSE, n_out)
            assert metric.compute(labels.reshape(-1, 1), outputs) == pytest.approx(expected, abs=1e-14)
            if n_out > 1:
                one_hot = np.eye(n_out, dtype=np.float32)[labels]
                assert metrics.get(metric, ONE_HOT, n_out).compute(one_hot, outputs.astype(np.float32)) == (
                    pytest.approx(expected, abs=1e-14)
                )


@pytest.mark.parametrize(("kind", "function"), RATIOS)
@pytest.mark.parametrize("average", [None, "macro", "micro", "weighted"])
def test_ratios_of_labels(kind, function, average):
    """With a binary cross-entropy, several outputs are labels of their own."""
    rng = np.random.default_rng(11)
    for rows in (1, 2, 5, 60):
        for share in (0.0, 0.1, 0.6, 1.0):
            outputs, targets = rng.uniform(size=(rows, 4)), (rng.uniform(size=(rows, 4)) < share).astype(int)
            metric = metrics.get(kind(average=average), BINARY, 4)
            marked = (outputs > 0.5).astype(int)
            expected = function(targets, marked, average=average or "macro", zero_division=0)
            assert metric.compute(targets, outputs) == pytest.approx(expected, abs=1e-14)


def test_thresholds_move_the_prediction():
    labels, outputs = np.array([0, 0, 1, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8, 0.4])
    for threshold in (0.05, 0.35, 0.4, 0.9):
        marked = (outputs > threshold).astype(int)
        for metric, (_, function) in zip(
            (Precision(threshold), Recall(thresholds=threshold), F1Score(threshold=threshold)), RATIOS, strict=True
        ):
            assert metric.compute(labels, outputs) == pytest.approx(function(labels, marked, zero_division=0))
    logits = metrics.get(Precision(0.0), BinaryCrossentropy(from_logits=True), 1)
    assert logits.compute(labels, outputs - 0.38) == Precision(0.38).compute(labels, outputs)


def test_binary_average_is_for_two_classes():
    for metric, loss, n_out in ((Precision(average="binary"), SPARSE, 3), (F1Score("binary"), BINARY, 2)):
        with pytest.raises(ValueError, match="average='binary' is for two classes, there are .* use 'macro'"):
            metrics.get(metric, loss, n_out)
    with pytest.raises(ValueError, match="there are 3 classes"):
        Recall(average="binary").compute(np.array([0, 1]), np.eye(3)[:2])


# -- areas, R2 ------------------------------------------------------------------------------------------------------


def theirs_or_nan(function, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        warnings.filterwarnings("ignore", "No positive class found", UserWarning)
        return function(*arguments, **options)


@pytest.mark.parametrize("curve", ["ROC", "PR"])
def test_areas_of_two_classes(curve):
    function = sklearn.metrics.roc_auc_score if curve == "ROC" else sklearn.metrics.average_precision_score
    undefined = 0
    for labels, outputs in draws(40, 1):
        expected = theirs_or_nan(function, labels, outputs[:, 0])
        undefined += math.isnan(expected)
        assert AUC(curve=curve).compute(labels, outputs) == pytest.approx(expected, abs=1e-13, nan_ok=True)
        assert AUC(curve=curve).compute(labels, outputs.astype(np.float32) * 2) == pytest.approx(
            theirs_or_nan(function, labels, outputs.astype(np.float32)[:, 0]), abs=1e-13, nan_ok=True
        )
        two = np.stack([np.zeros(len(outputs)), outputs[:, 0]], axis=1)
        for loss, targets in ((SPARSE, labels[:, None]), (ONE_HOT, np.eye(2)[labels])):
            found = metrics.get(AUC(curve=curve), loss, 2).compute(targets, two)
            assert found == pytest.approx(expected, abs=1e-13, nan_ok=True)
    assert (undefined > 0) == (curve == "ROC")


@pytest.mark.parametrize("curve", ["ROC", "PR"])
def test_areas_of_many_classes(curve):
    """The mean over one-versus-rest curves; scikit-learn refuses a class without a row, here that is NaN."""
    rng = np.random.default_rng(2)
    for rows, n_out in ((12, 3), (90, 7)):
        outputs = rng.integers(1, 6, (rows, n_out)).astype(float)
        outputs /= outputs.sum(axis=1, keepdims=True)
        labels = np.arange(rows) % n_out
        if curve == "ROC":
            expected = sklearn.metrics.roc_auc_score(labels, outputs, multi_class="ovr", average="macro")
        else:
            expected = sklearn.metrics.average_precision_score(np.eye(n_out)[labels], outputs)
        for loss, targets in ((SPARSE, labels[:, None]), (ONE_HOT, np.eye(n_out)[labels])):
            found = metrics.get(AUC(curve=curve), loss, n_out).compute(targets, outputs)
            assert found == pytest.approx(expected, abs=1e-13)
    if curve == "ROC":
        assert math.isnan(AUC().compute(np.array([[0], [1]]), np.eye(3)[:2]))


@pytest.mark.parametrize("curve", ["ROC", "PR"])
def test_areas_of_labels(curve):
    function = sklearn.metrics.roc_auc_score if curve == "ROC" else sklearn.metrics.average_precision_score
    rng = np.random.default_rng(8)
    for n_out in (2, 5):
        targets = rng.integers(0, 2, (30, n_out))
        outputs = rng.integers(0, 9, (30, n_out)) / 9.0
        metric = metrics.get(AUC(curve=curve), BINARY, n_out)
        assert metric.compute(targets, outputs) == pytest.approx(function(targets, outputs), abs=1e-13)
        assert AUC(curve=curve, multi_label=True).compute(targets, outputs) == metric.compute(targets, outputs)


def test_r2():
    rng = np.random.default_rng(4)
    for n_out in (1, 4):
        for rows in (2, 3, 50):
            targets, outputs = rng.normal(size=(rows, n_out)), rng.normal(size=(rows, n_out))
            assert R2Score().compute(targets, outputs) == pytest.approx(sklearn.metrics.r2_score(targets, outputs))
            targets[:, 0] = 0.1
            assert R2Score().compute(targets, outputs) == pytest.approx(sklearn.metrics.r2_score(targets, outputs))
            assert R2Score().compute(targets, targets) == 1.0
    assert math.isnan(R2Score().compute(np.ones((1, 1)), np.ones((1, 1))))
    assert R2Score().compute(np.array([1.0, 2.0]), np.array([np.inf, 2.0])) == -np.inf


@pytest.mark.parametrize("metric", [AUC(), AUC(curve="PR"), R2Score(), Precision(), Recall(), F1Score()], ids=repr)
def test_undefined_is_nan(metric):
    for n_out in (1, 3):
        assert math.isnan(metric.compute(np.zeros((0, n_out)), np.zeros((0, n_out))))
        outputs = np.ones((4, n_out))
        outputs[2, 0] = np.nan
        assert math.isnan(metric.compute(np.eye(4)[:, :n_out], outputs))


def test_shapes_that_do_not_go_together():
    for metric in (AUC(), R2Score(), Precision(), BinaryAccuracy(threshold=0.1)):
        with pytest.raises(ValueError, match=r"targets of shape \(3, 1\) do not go with outputs of shape \(4, 2\)"):
            metric.compute(np.zeros(3), np.zeros((4, 2)))


# -- one's own ------------------------------------------------------------------------------------------------------


def worst(y_true, y_pred):
    return np.abs(y_true - y_pred).max(axis=1)


def test_functions_are_metrics():
    targets, outputs = np.zeros((4, 2)), np.arange(8.0).reshape(4, 2)
    metric = metrics.get(worst, SQUARED, 2)
    assert (metric.name, metric.collects, metric.compute(targets, outputs)) == ("worst", True, 4.0)
    for value, expected in ((3, 3.0), (np.float32(2.5), 2.5), ([1, 2, 3, 6], 3.0), (True, 1.0), (outputs, 3.5)):
        assert FunctionMetric(lambda t, y, value=value: value).compute(targets, outputs) == expected
    for value in ([1, 2], "much", None, np.zeros((2, 4))):
        with pytest.raises(ValueError, match="metric 'mine' must return a number, or one for each of the 4 rows"):
            FunctionMetric(lambda t, y, value=value: value, name="mine").compute(targets, outputs)


# -- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "n_out", "kind"),
    [
        (SPARSE, 3, "SparseCategoricalAccuracy"),
        (ONE_HOT, 3, "CategoricalAccuracy"),
        (BINARY, 1, "BinaryAccuracy"),
        (SQUARED, 1, "BinaryAccuracy"),
        (BINARY, 2, "CategoricalAccuracy"),
    ],
)
def test_accuracy_by_shape(loss, n_out, kind):
    for name in ("accuracy", "acc", "Accuracy"):
        metric = metrics.get(name, loss, n_out)
        assert (type(metric).__name__, metric.name) == (kind, name)


def test_each_name_is_a_metric_under_that_name():
    for name, kind in metrics.METRICS.items():
        metric = metrics.get(name, SPARSE if kind.targets == "classes" else SQUARED, 3)
        assert type(metric) is kind
        assert metric.name == name
        assert metric.direction == ("min" if "Error" in kind.__name__ else "max")
        assert metrics.direction_of(f"val_{name}", [metric]) == metric.direction
    assert {"AUC", "auc", "F1Score", "f1_score", "mse", "MAE", "rmse", "R2Score"} <= set(metrics.METRICS)
    assert metrics.get(AUC, SPARSE, 3) == AUC()


def test_directions():
    """Each direction is of what the model reports, whatever it is called."""
    own = [FunctionMetric(worst), FunctionMetric(worst, "accuracy"), FunctionMetric(worst, "auc", "min"), AUC()]
    chosen = metrics.get_all([*own, RootMeanSquaredError("error"), metrics.MeanAbsoluteError("mae")], SQUARED, 1)
    names = {"loss": "min", "worst": "", "accuracy": "", "auc": "min", "auc_1": "max", "error": "min", "mae": "min"}
    for name, direction in {**names, "val_loss": "min", "val_auc_1": "max", "mse": "", "auc_2": ""}.items():
        assert metrics.direction_of(name, chosen) == direction
    described = metrics.serialize(own[2])
    assert metrics.deserialize(described, {"worst": worst}).direction == "min"
    with pytest.raises(ValueError, match="FunctionMetric: direction must be 'max', 'min' or '', got 'up'"):
        FunctionMetric(worst, direction="up")


def test_names_are_told_apart():
    chosen = metrics.get_all([AUC(), AUC(curve="PR"), "auc", "mse", worst, worst], SQUARED, 1)
    assert [metric.name for metric in chosen] == ["auc", "auc_1", "auc_2", "mse", "worst", "worst_1"]
    assert chosen[1] == AUC(curve="PR", name="auc_1")
    assert chosen[5].function is worst


def test_lambdas_have_a_name():
    """As in Keras: one that a history's key, a file's description and a format string can hold."""
    near, far = (lambda t, y: np.abs(t - y) < 1), (lambda t, y: np.abs(t - y) >= 1)
    chosen = metrics.get_all([near, far, FunctionMetric(far, "far")], SQUARED, 1)
    assert [metric.name for metric in chosen] == ["lambda", "lambda_1", "far"]
    described = json.loads(json.dumps(metrics.serialize(near)))
    assert metrics.deserialize(described, {"lambda": near}) == chosen[0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: metrics.get("accurate", SQUARED, 1),
            "unknown metric 'accurate'; there are: accuracy, auc, .*mse, .*rmse",
        ),
        (lambda: metrics.get(5, SQUARED, 1), "unknown metric 5"),
        (lambda: metrics.get("mse", SPARSE, 3), "'mse' needs targets of the outputs' shape, but sparse_.* class num"),
        (lambda: metrics.get(R2Score(), SPARSE, 3), "takes class numbers"),
        (lambda: metrics.get(SparseTopKCategoricalAccuracy, ONE_HOT, 3), "needs class numbers, but categorical_cross"),
        (lambda: TopKCategoricalAccuracy(0), "TopKCategoricalAccuracy: k must be a whole number of at least 1"),
        (lambda: SparseTopKCategoricalAccuracy(2.5), "SparseTopKCategoricalAccuracy: k"),
        (lambda: Precision([0.2, 0.5]), "Precision: thresholds must be one finite number"),
        (lambda: Recall(math.nan), "Recall: thresholds"),
        (lambda: F1Score(threshold="low"), "F1Score: threshold"),
        (lambda: F1Score("samples"), "F1Score: average must be None, 'binary', .* got 'samples'"),
        (lambda: BinaryAccuracy(threshold=True), "BinaryAccuracy: threshold"),
        (lambda: AUC(curve="roc"), "AUC: curve must be 'ROC' or 'PR', got 'roc'"),
        (lambda: AUC(num_thresholds=0), "num_thresholds"),
        (lambda: AUC(name="loss"), "name must be a non-empty string other than 'loss'"),
        (lambda: FunctionMetric("f"), "expected a function"),
        (lambda: metrics.serialize(metrics.Metric("m", 0)), "expected a name, a function, or a metric"),
        (lambda: metrics.deserialize(5), "expected a name, or class_name and config, got 5"),
        (lambda: metrics.deserialize({"class_name": "AUC"}), "class_name and config"),
        (lambda: metrics.deserialize({"class_name": "os.system", "config": {}}), "'os.system' is not nbdense's: pass"),
        (lambda: metrics.deserialize({"class_name": "AUC", "config": {"k": 1}}), "are not its arguments"),
        (lambda: metrics.deserialize(metrics.serialize(worst)), "'worst' is not nbdense's: pass custom_objects"),
    ],
)
def test_misuse(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# -- files ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread(metrics.Metric):
    """A metric of one's own with a parameter."""

    name: str = "spread"
    code: int = metrics.COLLECTED
    low: float = 0.0
    collects = True

    def compute(self, targets, outputs):
        return float(np.ptp(outputs) - self.low)


@pytest.mark.parametrize(
    "metric",
    [
        *(kind() for kind in dict.fromkeys(metrics.METRICS.values())),
        BinaryAccuracy("b", 0.25),
        TopKCategoricalAccuracy(3, "top"),
        Precision(0.3, average="micro", name="p"),
        F1Score("macro", 0.1, "f", True),
        AUC(50, "PR", "area", True),
    ],
    ids=repr,
)
def test_files_keep_a_metric(metric):
    loss = SPARSE if metric.targets == "classes" else SQUARED
    description = json.loads(json.dumps(metrics.serialize(metric)))
    back = metrics.get(description, loss, 3)
    assert type(back) is type(metric)
    assert back == metrics.get(metric, loss, 3)
    assert back.collects == metric.collects


def test_files_keep_names_and_find_custom_objects():
    assert metrics.serialize("acc") == metrics.deserialize("acc") == "acc"
    assert metrics.get(metrics.serialize(AUC), SPARSE, 2) == AUC()
    own = {"worst": worst, "Spread": Spread}
    back = metrics.deserialize(json.loads(json.dumps(metrics.serialize(worst))), own)
    assert (back.function, back.name) == (worst, "worst")
    back = metrics.deserialize(metrics.serialize(Spread(low=2.0)), own)
    assert isinstance(back, Spread)
    assert metrics.get(back, SPARSE, 2).compute(None, np.array([[1.0, 6.0]])) == 3.0
