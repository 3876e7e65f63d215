"""Metrics: scikit-learn's values where it has the metric, Keras's meaning of names, and what files keep of them."""

import math
import warnings

import numpy as np
import pytest
import sklearn.metrics
from sklearn.exceptions import UndefinedMetricWarning

from nbdense import losses, metrics
from nbdense.engine.elementwise.loss import metric_of_row
from nbdense.layers import Dense, Input
from nbdense.losses import BinaryCrossentropy, CategoricalCrossentropy, MeanSquaredError, SparseCategoricalCrossentropy
from nbdense.metrics import (
    AUC,
    BinaryAccuracy,
    ClassF1,
    ClassPrecision,
    ClassRecall,
    ExactAUC,
    F1Score,
    FalsePositives,
    FunctionMetric,
    MeanMetricWrapper,
    Precision,
    R2Score,
    RootMeanSquaredError,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
)
from nbdense.metrics.collected import decision_threshold, predicted_classes
from nbdense.models import Sequential
from tests.support.builders import make_model
from tests.support.compiled import compiled

BINARY, ONE_HOT, SPARSE, SQUARED = (
    BinaryCrossentropy(),
    CategoricalCrossentropy(),
    SparseCategoricalCrossentropy(),
    MeanSquaredError(),
)
RATIOS = [
    (ClassPrecision, sklearn.metrics.precision_score),
    (ClassRecall, sklearn.metrics.recall_score),
    (ClassF1, sklearn.metrics.f1_score),
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


def test_classes_of_outputs():
    """One output at the threshold itself is of class 0 to Keras and scikit-learn, of class 1 to an ONNX file."""
    one = np.float32([[0.25], [0.5], [np.nextafter(np.float32(0.5), 1, dtype=np.float32)], [1.0], [np.nan]])
    assert predicted_classes(one).tolist() == [0, 0, 1, 1, 0]
    assert predicted_classes(one, at_threshold=1).tolist() == [0, 1, 1, 1, 0]
    assert predicted_classes(one, 0.25, at_threshold=1).tolist() == [1, 1, 1, 1, 0]
    several = np.array([[[0.2, 0.9, 0.9], [0.1, 0.0, -3.0]], [[0.0, 0.0, 0.0], [0.0, 0.1, 0.4]]])
    for at_threshold in (0, 1):
        assert predicted_classes(several, at_threshold=at_threshold).tolist() == [[1, 0], [0, 2]]
    assert ClassPrecision()([0, 1, 1], [0.25, 0.5, 0.75]) == 1 and ClassRecall()([0, 1, 1], [0.25, 0.5, 0.75]) == 0.5


@pytest.mark.parametrize(
    ("loss", "threshold"),
    [
        ("mean_squared_error", 0.5),
        ("binary_crossentropy", 0.5),
        (losses.BinaryCrossentropy(from_logits=True), 0.0),
        (losses.BinaryFocalCrossentropy(from_logits=True), 0.0),
        ("hinge", 0.0),
        ("squared_hinge", 0.0),
    ],
)
@pytest.mark.filterwarnings("ignore:binary_crossentropy after 'linear':UserWarning")
def test_the_loss_says_where_one_output_is_cut(loss, threshold):
    """A logit of 0 is a probability of 1/2. Metrics of Keras's names compare outputs as they are, as Keras does."""
    model = Sequential([Input((1,)), Dense(1)])
    model.compile("sgd", loss, metrics=["class_recall", ClassRecall(threshold=0.2, name="own"), "binary_accuracy"])
    assert decision_threshold(model) == threshold
    x, y = np.float32([[-1.0], [0.1], [0.3], [0.7]]), np.array([0, 1, 1, 1])
    model.set_weights([np.ones((1, 1)), np.zeros(1)])  # the output is x
    found = model.evaluate(x, y, return_dict=True)
    assert found["class_recall"] == pytest.approx((x[1:] > threshold).mean())
    assert found["own"] == pytest.approx(2 / 3) and found["binary_accuracy"] == 0.5


def test_logits_of_labels_are_cut_at_zero():
    model = Sequential([Input((2,)), Dense(2)])
    model.compile("sgd", losses.BinaryCrossentropy(from_logits=True), metrics=["f1"])
    model.set_weights([np.eye(2), np.zeros(2)])
    x, y = np.float32([[-1.0, 0.1], [0.3, -0.2], [0.4, 0.2]]), np.array([[0, 1], [1, 0], [1, 1]])
    assert model.evaluate(x, y, return_dict=True)["f1"] == 1.0


def test_the_threshold_of_what_has_no_known_loss():
    class Other:
        loss = "binary_crossentropy"

    assert decision_threshold(Other()) == decision_threshold(None) == decision_threshold(Sequential([Dense(1)])) == 0.5


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
            (ClassPrecision(threshold=threshold), ClassRecall(threshold=threshold), ClassF1(threshold=threshold)),
            RATIOS,
            strict=True,
        ):
            assert metric.compute(labels, outputs) == pytest.approx(function(labels, marked, zero_division=0))
    logits = metrics.get(ClassPrecision(threshold=0.0), BinaryCrossentropy(from_logits=True), 1)
    assert logits.compute(labels, outputs - 0.38) == ClassPrecision(threshold=0.38).compute(labels, outputs)


def test_binary_average_is_for_two_classes():
    for metric, loss, n_out in ((ClassPrecision("binary"), SPARSE, 3), (ClassF1("binary"), BINARY, 2)):
        with pytest.raises(ValueError, match="average='binary' is for two classes, there are .* use 'macro'"):
            metrics.get(metric, loss, n_out)
    with pytest.raises(ValueError, match="there are 3 classes"):
        ClassRecall(average="binary").compute(np.array([0, 1]), np.eye(3)[:2])


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
        assert ExactAUC(curve).compute(labels, outputs) == pytest.approx(expected, abs=1e-13, nan_ok=True)
        assert ExactAUC(curve).compute(labels, outputs.astype(np.float32) * 2) == pytest.approx(
            theirs_or_nan(function, labels, outputs.astype(np.float32)[:, 0]), abs=1e-13, nan_ok=True
        )
        two = np.stack([np.zeros(len(outputs)), outputs[:, 0]], axis=1)
        for loss, targets in ((SPARSE, labels[:, None]), (ONE_HOT, np.eye(2)[labels])):
            found = metrics.get(ExactAUC(curve), loss, 2).compute(targets, two)
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
            found = metrics.get(ExactAUC(curve), loss, n_out).compute(targets, outputs)
            assert found == pytest.approx(expected, abs=1e-13)
    if curve == "ROC":
        assert math.isnan(ExactAUC().compute(np.array([[0], [1]]), np.eye(3)[:2]))


@pytest.mark.parametrize("curve", ["ROC", "PR"])
def test_areas_of_labels(curve):
    function = sklearn.metrics.roc_auc_score if curve == "ROC" else sklearn.metrics.average_precision_score
    rng = np.random.default_rng(8)
    for n_out in (2, 5):
        targets = rng.integers(0, 2, (30, n_out))
        outputs = rng.integers(0, 9, (30, n_out)) / 9.0
        metric = metrics.get(ExactAUC(curve), BINARY, n_out)
        assert metric.compute(targets, outputs) == pytest.approx(function(targets, outputs), abs=1e-13)
        assert ExactAUC(curve, multi_label=True).compute(targets, outputs) == metric.compute(targets, outputs)


@pytest.mark.parametrize(("kind", "function"), RATIOS)
def test_scores_of_weighted_rows(kind, function):
    rng = np.random.default_rng(21)
    labels, outputs, weights = rng.integers(0, 3, 40), rng.normal(size=(40, 3)), rng.uniform(0, 2, 40)
    weights[::7] = 0.0
    for average in ("macro", "micro", "weighted"):
        expected = function(labels, outputs.argmax(axis=1), average=average, sample_weight=weights, zero_division=0)
        metric = kind(average)
        for part in (slice(0, 15), slice(15, None)):
            metric.update_state(labels[part], outputs[part], weights[part])
        assert metric.result() == pytest.approx(expected, abs=1e-14)


def test_exact_areas_of_weighted_rows():
    rng = np.random.default_rng(22)
    labels, outputs, weights = rng.integers(0, 2, 60), rng.integers(0, 9, 60) / 9.0, rng.uniform(0, 2, 60)
    for curve, function in (
        ("ROC", sklearn.metrics.roc_auc_score),
        ("PR", sklearn.metrics.average_precision_score),
    ):
        expected = function(labels, outputs, sample_weight=weights)
        assert ExactAUC(curve)(labels, outputs, weights) == pytest.approx(expected, abs=1e-13)


def test_r2():
    """scikit-learn's value, but of a column whose targets are all the same, which Keras counts as 0 or NaN."""
    rng = np.random.default_rng(4)
    for n_out in (1, 4):
        for rows in (2, 3, 50):
            targets, outputs = rng.normal(size=(rows, n_out)) + 1e6, rng.normal(size=(rows, n_out)) + 1e6
            expected = sklearn.metrics.r2_score(targets, outputs)
            assert R2Score().compute(targets, outputs) == pytest.approx(expected, rel=1e-9)
            metric = R2Score()
            for part in (slice(0, 1), slice(1, None)):
                metric.update_state(targets[part], outputs[part])
            assert metric.result() == pytest.approx(expected, rel=1e-9)
            each = sklearn.metrics.r2_score(targets, outputs, multioutput="raw_values")
            np.testing.assert_allclose(R2Score(None).compute(targets, outputs), each, rtol=1e-9)
            targets[:, 0] = 0.0
            expected = np.concatenate([[0.0], each[1:]]).mean()
            assert R2Score().compute(targets, outputs) == pytest.approx(expected, rel=1e-9)
            assert math.isnan(R2Score().compute(targets, targets))
    assert R2Score().compute(np.array([1.0, 2.0]), np.array([0.0, 2.0])) == -1.0


def test_adjusted_r2():
    targets, outputs = np.array([1.0, 2.0, 3.0, 5.0]), np.array([1.5, 2.0, 2.5, 4.0])
    plain = R2Score()(targets, outputs)
    assert R2Score(num_regressors=1)(targets, outputs) == pytest.approx(1 - (1 - plain) * 3 / 2)
    with pytest.warns(UserWarning, match="num_regressors=3 leaves nothing of 4 numbers"):
        assert R2Score(num_regressors=3)(targets, outputs) == plain


@pytest.mark.parametrize(
    "metric", [ExactAUC(), ExactAUC("PR"), ClassPrecision(), ClassRecall(), ClassF1()], ids=lambda metric: metric.name
)
def test_undefined_is_nan(metric):
    for n_out in (1, 3):
        assert math.isnan(metric.compute(np.zeros((0, n_out)), np.zeros((0, n_out))))
        outputs = np.ones((4, n_out))
        outputs[2, 0] = np.nan
        assert math.isnan(metric.compute(np.eye(4)[:, :n_out], outputs))


def test_shapes_that_do_not_go_together():
    for metric in (ExactAUC(), R2Score(), ClassPrecision()):
        with pytest.raises(ValueError, match=r"targets of shape \(3, 1\) do not go with outputs of shape \(4, 2\)"):
            metric.compute(np.zeros(3), np.zeros((4, 2)))
    for metric in (AUC(), Precision(), FalsePositives()):
        with pytest.raises(ValueError, match=r"y_true of shape \(3, 1\) does not go with y_pred of shape \(4, 2\)"):
            metric(np.zeros((3, 1)), np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"F1Score: targets and outputs are expected in the shape \(rows, columns\)"):
        F1Score()(np.zeros(3), np.zeros(3))


# -- one's own ------------------------------------------------------------------------------------------------------


def worst(y_true, y_pred):
    return np.abs(y_true - y_pred).max(axis=1)


def test_functions_are_metrics():
    targets, outputs = np.zeros((4, 2)), np.arange(8.0).reshape(4, 2)
    metric = metrics.get(worst, SQUARED, 2)
    assert (type(metric), metric.name, metric.collects) == (MeanMetricWrapper, "worst", True)
    assert metric.compute(targets, outputs) == 4.0
    for value, expected in ((3, 3.0), (np.float32(2.5), 2.5), ([1, 2, 3, 6], 3.0), (True, 1.0), (outputs, 3.5)):
        assert FunctionMetric(lambda t, y, value=value: value).compute(targets, outputs) == expected
    for value in ([1, 2], "much", None, np.zeros((2, 4))):
        with pytest.raises(ValueError, match="metric 'mine' must return a number, or one for each of the 4 rows"):
            FunctionMetric(lambda t, y, value=value: value, name="mine").compute(targets, outputs)
    for value in ("much", None):
        with pytest.raises(ValueError, match="metric 'mine' must return a number, or one for each of the 4 rows"):
            MeanMetricWrapper(lambda t, y, value=value: value, name="mine")(targets, outputs)


def test_functions_of_batches_and_of_all_rows():
    """A plain function is called with each batch and averaged, as in Keras; a FunctionMetric with all rows."""

    def largest(y_true, y_pred):
        return np.max(y_pred)

    batches = [np.array([[1.0], [4.0]]), np.array([[2.0]])]
    for metric, expected in ((metrics.get(largest), 3.0), (FunctionMetric(largest), 4.0)):
        for outputs in batches:
            metric.update_state(np.zeros_like(outputs), outputs)
        assert metric.result() == expected
