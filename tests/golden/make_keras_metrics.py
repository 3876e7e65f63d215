"""Write keras_metrics.json: values of Keras's metrics on seeded data, for tests/test_keras_metrics.py.

Run where Keras 3 is installed, as `KERAS_BACKEND=jax python tests/golden/make_keras_metrics.py`. The data are in the
file too: rows are counted in two batches of different sizes.
"""

import json
import pathlib

import keras
import numpy as np

ROWS, FIRST = 40, 25  # rows of all data, and of the first batch

# Class, arguments, data set; each with and without weights of rows.
CASES = [
    ("Accuracy", {}, "sparse_ids"),
    ("BinaryAccuracy", {}, "binary"),
    ("BinaryAccuracy", {"threshold": 0.3}, "binary"),
    ("BinaryAccuracy", {}, "labels"),
    ("CategoricalAccuracy", {}, "classes"),
    ("SparseCategoricalAccuracy", {}, "sparse"),
    ("TopKCategoricalAccuracy", {"k": 2}, "classes"),
    ("SparseTopKCategoricalAccuracy", {"k": 2}, "sparse"),
    ("MeanSquaredError", {}, "numbers"),
    ("RootMeanSquaredError", {}, "numbers"),
    ("MeanAbsoluteError", {}, "numbers"),
    ("MeanAbsolutePercentageError", {}, "numbers"),
    ("MeanSquaredLogarithmicError", {}, "labels"),
    ("CosineSimilarity", {}, "numbers"),
    ("LogCoshError", {}, "numbers"),
    ("R2Score", {}, "numbers"),
    ("R2Score", {"class_aggregation": None}, "numbers"),
    ("R2Score", {"class_aggregation": "variance_weighted_average"}, "numbers"),
    ("R2Score", {"num_regressors": 3}, "numbers"),
    ("PearsonCorrelation", {}, "numbers"),
    ("ConcordanceCorrelation", {}, "numbers"),
    ("KLDivergence", {}, "classes"),
    ("Poisson", {}, "classes"),
    ("BinaryCrossentropy", {}, "labels"),
    ("BinaryCrossentropy", {"from_logits": True, "label_smoothing": 0.2}, "logits"),
    ("CategoricalCrossentropy", {}, "classes"),
    ("CategoricalCrossentropy", {"label_smoothing": 0.1}, "classes"),
    ("SparseCategoricalCrossentropy", {}, "sparse"),
    ("SparseCategoricalCrossentropy", {"ignore_class": 1}, "sparse"),
    ("Hinge", {}, "logits"),
    ("SquaredHinge", {}, "logits"),
    ("CategoricalHinge", {}, "classes"),
    ("TruePositives", {}, "binary"),
    ("TrueNegatives", {"thresholds": 0.3}, "binary"),
    ("FalsePositives", {"thresholds": [0.3, 0.9, 0.5]}, "binary"),
    ("FalseNegatives", {}, "labels"),
    ("Precision", {}, "binary"),
    ("Precision", {}, "classes"),
    ("Precision", {"thresholds": [0.2, 0.4, 0.8]}, "labels"),
    ("Precision", {"thresholds": [0.0, 0.5, 1.0]}, "labels"),
    ("Precision", {"top_k": 2}, "classes"),
    ("Precision", {"class_id": 1}, "labels"),
    ("Precision", {"class_id": 2, "top_k": 1}, "classes"),
    ("Recall", {}, "binary"),
    ("Recall", {}, "classes"),
    ("Recall", {"thresholds": 0.3}, "labels"),
    ("Recall", {"top_k": 2, "class_id": 0}, "classes"),
    ("Recall", {"top_k": 2, "thresholds": 0.3}, "classes"),
    ("F1Score", {}, "classes"),
    ("F1Score", {"average": "macro"}, "classes"),
    ("F1Score", {"average": "micro"}, "classes"),
    ("F1Score", {"average": "weighted"}, "classes"),
    ("F1Score", {"threshold": 0.5}, "binary"),
    ("F1Score", {"threshold": 0.5, "average": "macro"}, "labels"),
    ("FBetaScore", {"beta": 2.0, "threshold": 0.4}, "labels"),
    ("FBetaScore", {"beta": 0.5, "average": "weighted"}, "classes"),
    ("AUC", {}, "binary"),
    ("AUC", {}, "classes"),
    ("AUC", {"curve": "PR"}, "binary"),
    ("AUC", {"curve": "PR", "summation_method": "majoring"}, "binary"),
    ("AUC", {"curve": "PRGAIN"}, "binary"),
    ("AUC", {"num_thresholds": 11, "summation_method": "minoring"}, "binary"),
    ("AUC", {"thresholds": [0.5, 0.2, 0.7]}, "binary"),
    ("AUC", {"from_logits": True}, "logits"),
    ("AUC", {"multi_label": True}, "labels"),
    ("AUC", {"multi_label": True, "curve": "PR"}, "labels"),
    ("AUC", {"multi_label": True, "label_weights": [1.0, 2.0, 0.5]}, "labels"),
    ("AUC", {"label_weights": [1.0, 2.0, 0.5]}, "labels"),
    ("IoU", {"num_classes": 3, "target_class_ids": [0, 2], "dtype": "float32"}, "sparse_ids"),
    ("BinaryIoU", {"threshold": 0.4, "dtype": "float32"}, "binary"),
    ("MeanIoU", {"num_classes": 3, "sparse_y_pred": False, "ignore_class": 1, "dtype": "float32"}, "sparse"),
    ("OneHotIoU", {"num_classes": 3, "target_class_ids": [1], "dtype": "float32"}, "classes"),
    ("OneHotMeanIoU", {"num_classes": 3, "dtype": "float32"}, "classes"),
    ("SensitivityAtSpecificity", {"specificity": 0.6}, "binary"),
    ("SpecificityAtSensitivity", {"sensitivity": 0.6, "num_thresholds": 10}, "binary"),
    ("PrecisionAtRecall", {"recall": 0.6}, "binary"),
    ("RecallAtPrecision", {"precision": 0.6, "class_id": 1}, "labels"),
]
# Function, arguments, data set: a value for each row.
FUNCTIONS = [
    ("binary_accuracy", {}, "labels"),
    ("binary_accuracy", {"threshold": 0.3}, "labels"),
    ("categorical_accuracy", {}, "classes"),
    ("sparse_categorical_accuracy", {}, "sparse"),
    ("top_k_categorical_accuracy", {"k": 2}, "classes"),
    ("sparse_top_k_categorical_accuracy", {"k": 2}, "sparse"),
    ("pearson_correlation", {"axis": 0}, "numbers"),
    ("concordance_correlation", {}, "numbers"),
    ("mean_squared_error", {}, "numbers"),
    ("mean_absolute_error", {}, "numbers"),
    ("mean_absolute_percentage_error", {}, "numbers"),
    ("mean_squared_logarithmic_error", {}, "labels"),
    ("log_cosh", {}, "numbers"),
    ("huber", {"delta": 0.5}, "numbers"),
    ("binary_crossentropy", {}, "labels"),
    ("categorical_crossentropy", {}, "classes"),
    ("sparse_categorical_crossentropy", {}, "sparse"),
    ("kl_divergence", {}, "classes"),
    ("poisson", {}, "classes"),
    ("hinge", {}, "logits"),
    ("squared_hinge", {}, "logits"),
    ("categorical_hinge", {}, "classes"),
]


def data_sets():
    """Return targets and outputs by name; outputs lie at thresholds now and then."""
    random = np.random.default_rng(31)
    logits = random.normal(size=(ROWS, 3)).astype(np.float32)
    ids = random.integers(0, 3, ROWS)
    probabilities = np.round(np.exp(logits + 1.5 * np.eye(3)[ids]), 2)
    probabilities = (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)
    labels = random.integers(0, 2, (ROWS, 3))
    scores = np.round(np.clip(random.uniform(size=(ROWS, 3)) * 0.7 + 0.3 * labels, 0, 1), 2).astype(np.float32)
    numbers = random.normal(size=(ROWS, 3)).astype(np.float32)
    return {
        "binary": (labels[:, :1], scores[:, :1]),
        "labels": (labels, scores),
        "logits": (labels, logits),
        "classes": (np.eye(3, dtype=int)[ids], probabilities),
        "sparse": (ids[:, None], probabilities),
        "sparse_ids": (ids[:, None], random.integers(0, 3, (ROWS, 1)).astype(np.float32)),
        "numbers": (numbers, (numbers + 0.5 * logits).astype(np.float32)),
    }


def plain(value):
    return np.asarray(value, np.float64).tolist()


def main():
    data = data_sets()
    weights = np.round(np.random.default_rng(32).uniform(0, 2, ROWS), 2)
    weights[::9] = 0.0
    cases = []
    for name, config, which in CASES:
        case = {"class": name, "config": config, "data": which}
        for key, rows in (("result", None), ("weighted", weights)):
            metric = getattr(keras.metrics, name)(**config)
            for part in (slice(0, FIRST), slice(FIRST, ROWS)):
                targets, outputs = (array[part] for array in data[which])
                metric.update_state(targets, outputs, None if rows is None else rows[part])
            case[key] = plain(metric.result())
        cases.append(case)
    functions = [
        {
            "function": name,
            "config": config,
            "data": which,
            "values": plain(getattr(keras.metrics, name)(*data[which], **config)),
        }
        for name, config, which in FUNCTIONS
    ]
    content = {
        "keras": keras.__version__,
        "first": FIRST,
        "weights": plain(weights),
        "data": {name: [plain(array) for array in pair] for name, pair in data.items()},
        "cases": cases,
        "functions": functions,
    }
    text = json.dumps(content).replace('{"class"', '\n{"class"').replace('{"function"', '\n{"function"')
    pathlib.Path(__file__).with_name("keras_metrics.json").write_text(text + "\n")


main()
