"""Names of metrics, what refuses to be one, and what files keep of them."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest

from nbdense import metrics
from nbdense.losses import BinaryCrossentropy, CategoricalCrossentropy, MeanSquaredError, SparseCategoricalCrossentropy
from nbdense.metrics import (
    AUC,
    BinaryAccuracy,
    ClassF1,
    ClassPrecision,
    ClassRecall,
    ExactAUC,
    F1Score,
    FunctionMetric,
    MeanMetricWrapper,
    Precision,
    R2Score,
    Recall,
    RootMeanSquaredError,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
)

BINARY, ONE_HOT, SPARSE, SQUARED = (
    BinaryCrossentropy(),
    CategoricalCrossentropy(),
    SparseCategoricalCrossentropy(),
    MeanSquaredError(),
)


def same(one, other):
    return type(one) is type(other) and one.get_config() == other.get_config()


def worst(y_true, y_pred):
    return np.abs(y_true - y_pred).max(axis=1)


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
        assert type(metric) is kind or name.lower() == "accuracy"  # which is as targets are, see above
        assert metric.name == name
        errors = ("Error", "Crossentropy", "Hinge", "Divergence", "Poisson", "False")
        assert metric.direction == ("min" if any(word in kind.__name__ for word in errors) else "max")
        assert metrics.direction_of(f"val_{name}", [metric]) == metric.direction
    assert {"AUC", "auc", "F1Score", "f1_score", "mse", "MAE", "rmse", "R2Score"} <= set(metrics.METRICS)
    assert same(metrics.get(AUC, SPARSE, 3), AUC())


def test_names_of_losses_are_metrics():
    """Those that Keras has no metric of too: the loss's number of each row."""
    targets, outputs = np.array([[1.0], [0.0], [2.0]]), np.array([[4.0], [0.5], [2.0]])
    metric = metrics.get("huber", SQUARED, 1)
    assert (metric.name, metric.direction, metric.targets) == ("huber", "min", "rows")
    assert metric(targets, outputs) == pytest.approx((2.5 + 0.125) / 3)
    with pytest.raises(ValueError, match="takes class numbers"):
        metrics.get("huber", SPARSE, 3)


def test_get_without_a_loss():
    assert type(metrics.get("mse")) is metrics.MeanSquaredError
    assert type(metrics.get("accuracy")) is metrics.Accuracy
    assert metrics.get({"class_name": "Precision", "config": {"class_id": 1}}).class_id == 1


def test_directions():
    """They are those of what the model reports, whatever it is called."""
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
    assert same(chosen[1], AUC(curve="PR", name="auc_1"))
    assert chosen[5].fn is worst


def test_lambdas_have_a_name():
    """As in Keras: one that a history's key, a file's description and a format string can hold."""
    near, far = (lambda t, y: np.abs(t - y) < 1), (lambda t, y: np.abs(t - y) >= 1)
    chosen = metrics.get_all([near, far, FunctionMetric(far, "far")], SQUARED, 1)
    assert [metric.name for metric in chosen] == ["lambda", "lambda_1", "far"]
    described = json.loads(json.dumps(metrics.serialize(near)))
    assert same(metrics.deserialize(described, {"lambda": near}), chosen[0])


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
        (lambda: Precision([0.2, 1.5]), r"Precision: thresholds must be in \[0, 1\], got 1.5"),
        (
            lambda: Precision(class_id=1)([1, 0], [0.2, 0.3]),
            r"class_id=1: outputs of several classes are expected, got",
        ),
        (lambda: Recall(top_k=0), "Recall: top_k must be a whole number of at least 1"),
        (lambda: Recall(math.nan), "Recall: thresholds"),
        (lambda: F1Score(threshold="low"), "F1Score: threshold"),
        (lambda: F1Score("samples"), "F1Score: average must be None, 'micro', .* got 'samples'"),
        (lambda: metrics.FBetaScore(beta=2), "FBetaScore: beta must be a float above 0, got 2"),
        (lambda: ClassF1("samples"), "ClassF1: average must be None, 'binary', .* got 'samples'"),
        (lambda: metrics.PrecisionAtRecall(1.5), r"PrecisionAtRecall: recall must be in \[0, 1\], got 1.5"),
        (lambda: R2Score("mean"), "R2Score: class_aggregation must be None, 'uniform_average' or .* got 'mean'"),
        (lambda: R2Score(num_regressors=-1), "R2Score: num_regressors must be a whole number of at least 0, got -1"),
        (lambda: BinaryAccuracy(threshold=True), "BinaryAccuracy: threshold"),
        (lambda: AUC(curve="det"), "AUC: curve must be one of 'ROC', 'PR', 'PRGAIN', got 'DET'"),
        (lambda: ExactAUC("roc"), "ExactAUC: curve must be 'ROC' or 'PR', got 'roc'"),
        (lambda: AUC(num_thresholds=1), "AUC: num_thresholds must be a whole number of at least 2, got 1"),
        (lambda: AUC(num_labels=3), "AUC: num_labels is for multi_label=True"),
        (lambda: AUC(dtype="float16"), "AUC: dtype must be None, 'float32' or 'float64', got 'float16'"),
        (lambda: AUC(name="loss"), "name must be a non-empty string other than 'loss'"),
        (lambda: FunctionMetric("f"), "expected a function"),
        (lambda: MeanMetricWrapper("f"), "expected a function"),
        (lambda: metrics.serialize(metrics.Metric(name="m")), "no instance of a metric's class"),
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
        BinaryAccuracy("b", threshold=0.25),
        TopKCategoricalAccuracy(3, "top"),
        Precision([0.3, 0.5], top_k=2, class_id=1, name="p"),
        F1Score("macro", 0.1, "f"),
        metrics.FBetaScore("weighted", 2.0),
        AUC(50, "PR", "minoring", "area", "float64", multi_label=True, num_labels=3, label_weights=np.ones(3)),
        AUC(thresholds=[0.2, 0.7], from_logits=True),
        metrics.PrecisionAtRecall(0.3, 50, class_id=2),
        metrics.SensitivityAtSpecificity(0.3),
        metrics.TruePositives([0.1, 0.2]),
        metrics.SparseCategoricalCrossentropy(ignore_class=2),
        ClassF1("macro", 0.1, True, "f"),
        R2Score(None, 2),
        metrics.Mean(),
        metrics.Sum("s", "float64"),
    ],
    ids=lambda metric: metric.name,
)
def test_files_keep_a_metric(metric):
    loss = SPARSE if metric.targets == "classes" else SQUARED
    description = json.loads(json.dumps(metrics.serialize(metric)))
    back = metrics.get(description, loss, 3)
    assert type(back) is type(metric)
    assert same(back, metrics.get(metric, loss, 3))
    assert back.collects == metric.collects


def test_files_keep_names_and_find_custom_objects():
    assert metrics.serialize("acc") == metrics.deserialize("acc") == "acc"
    assert same(metrics.get(metrics.serialize(AUC), SPARSE, 2), AUC())
    own = {"worst": worst, "Spread": Spread}
    back = metrics.deserialize(json.loads(json.dumps(metrics.serialize(worst))), own)
    assert (back.fn, back.name) == (worst, "worst")
    back = metrics.deserialize(json.loads(json.dumps(metrics.serialize(FunctionMetric(worst)))), own)
    assert (type(back), back.function, back.name) == (FunctionMetric, worst, "worst")
    back = metrics.deserialize(metrics.serialize(Spread(low=2.0)), own)
    assert isinstance(back, Spread)
    assert metrics.get(back, SPARSE, 2).compute(None, np.array([[1.0, 6.0]])) == 3.0


@pytest.mark.parametrize(
    ("description", "metric"),
    [
        (("Precision", {"name": "p", "average": None, "multi_label": False, "thresholds": 0.3}), ClassPrecision),
        (("Recall", {"name": "p", "average": "micro", "multi_label": True, "thresholds": None}), ClassRecall),
        (("F1Score", {"name": "p", "average": "macro", "multi_label": False, "threshold": None}), ClassF1),
        (("AUC", {"name": "p", "num_thresholds": 200, "curve": "PR", "multi_label": False}), ExactAUC),
    ],
)
def test_former_files_keep_their_values(description, metric):
    """Files written when these names had scikit-learn's values bring the metric that has them now."""
    name, config = description
    back = metrics.deserialize({"class_name": name, "config": config})
    assert (type(back), back.name) == (metric, "p")
    assert back.multi_label == config["multi_label"]
    assert getattr(back, "threshold", None) == config.get("thresholds")
