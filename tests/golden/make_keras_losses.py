"""Write keras_losses.json: Keras's losses, regularizers, constraints and initializers, for tests/test_keras_losses.py.

Run it by hand where keras and jax are installed:

    KERAS_BACKEND=jax JAX_ENABLE_X64=1 python tests/golden/make_keras_losses.py

A case names a class, a function or an alias, the arguments that users give it, its inputs, and what Keras makes of them
in float64: values; of losses that train the derivative by the outputs, too; of initializers moments and bounds.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import keras
import numpy as np

keras.src.ops.mean = jnp.mean  # Keras's own adds up float64 in float32

RNG = np.random.default_rng(23)
ROWS, COLUMNS = 6, 4
NUMBERS = {"y_true": RNG.normal(size=(ROWS, COLUMNS)).round(3), "y_pred": RNG.normal(size=(ROWS, COLUMNS)).round(3)}
COUNTS = {"y_true": RNG.poisson(2.0, (ROWS, COLUMNS)), "y_pred": RNG.uniform(0.1, 3, (ROWS, COLUMNS)).round(3)}
LABELS = {"y_true": RNG.integers(0, 2, (ROWS, COLUMNS)), "y_pred": RNG.uniform(0.02, 0.98, (ROWS, COLUMNS)).round(3)}
LOGITS = {"y_true": LABELS["y_true"], "y_pred": NUMBERS["y_pred"] * 2}
CLASSES = RNG.integers(0, COLUMNS, ROWS)
PROBABILITIES = RNG.dirichlet(np.ones(COLUMNS), ROWS).round(4)
HOT = {"y_true": np.eye(COLUMNS)[CLASSES], "y_pred": PROBABILITIES}
HOT_LOGITS = {"y_true": HOT["y_true"], "y_pred": NUMBERS["y_pred"] * 2}
SPARSE = {"y_true": CLASSES, "y_pred": PROBABILITIES}
SPARSE_LOGITS = {"y_true": CLASSES, "y_pred": NUMBERS["y_pred"] * 2}
KL = {"y_true": RNG.dirichlet(np.ones(COLUMNS), ROWS).round(4), "y_pred": PROBABILITIES}
WEIGHTS = {"sample_weight": RNG.uniform(0, 2, ROWS).round(3)}

# class or function, arguments, inputs; those of a class that trains are held against its gradient
LOSSES = [
    ("MeanSquaredError", {}, NUMBERS),
    ("MeanSquaredError", {}, {"y_true": np.array([4, 8, 12]), "y_pred": np.array([[3.0], [0.0], [1.0]])}),
    ("MeanSquaredError", {}, {**NUMBERS, **WEIGHTS}),
    *(
        ("MeanSquaredError", {"reduction": reduction}, {**NUMBERS, **WEIGHTS})
        for reduction in ("sum", "mean", "mean_with_sample_weight", "none", None)
    ),
    ("MeanSquaredError", {"reduction": "sum", "name": "mine"}, NUMBERS),
    ("MeanAbsoluteError", {}, NUMBERS),
    ("MeanAbsolutePercentageError", {}, NUMBERS),
    ("MeanSquaredLogarithmicError", {}, COUNTS),
    ("MeanSquaredLogarithmicError", {}, NUMBERS),
    ("Huber", {}, NUMBERS),
    ("Huber", {"delta": 0.4}, NUMBERS),
    ("LogCosh", {}, NUMBERS),
    ("CosineSimilarity", {}, NUMBERS),
    ("CosineSimilarity", {"axis": 0}, NUMBERS),
    ("Poisson", {}, COUNTS),
    ("KLDivergence", {}, KL),
    ("Hinge", {}, LABELS),
    ("Hinge", {}, {**NUMBERS, "y_true": 2 * LABELS["y_true"] - 1}),
    ("SquaredHinge", {}, LABELS),
    ("SquaredHinge", {}, {**NUMBERS, "y_true": 2 * LABELS["y_true"] - 1}),
    ("CategoricalHinge", {}, HOT_LOGITS),
    ("BinaryCrossentropy", {}, LABELS),
    ("BinaryCrossentropy", {"label_smoothing": 0.1}, LABELS),
    ("BinaryCrossentropy", {"from_logits": True}, {**LOGITS, **WEIGHTS}),
    ("BinaryFocalCrossentropy", {}, LABELS),
    ("BinaryFocalCrossentropy", {"from_logits": True, "gamma": 3.0}, LOGITS),
    ("BinaryFocalCrossentropy", {"apply_class_balancing": True, "alpha": 0.4, "label_smoothing": 0.2}, LABELS),
    ("CategoricalCrossentropy", {}, HOT),
    ("CategoricalCrossentropy", {"from_logits": True}, HOT_LOGITS),
    ("CategoricalCrossentropy", {"from_logits": True, "label_smoothing": 0.1}, HOT_LOGITS),
    ("CategoricalCrossentropy", {"axis": 0}, HOT),
    ("CategoricalFocalCrossentropy", {}, HOT),
    ("CategoricalFocalCrossentropy", {"alpha": 0.5, "gamma": 1.5, "from_logits": True}, HOT_LOGITS),
    ("SparseCategoricalCrossentropy", {}, SPARSE),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, {**SPARSE_LOGITS, **WEIGHTS}),
    ("SparseCategoricalCrossentropy", {"from_logits": True, "ignore_class": 1}, SPARSE_LOGITS),
    ("SparseCategoricalCrossentropy", {"ignore_class": -1}, {**SPARSE, "y_true": np.where(CLASSES == 2, -1, CLASSES)}),
    ("CategoricalGeneralizedCrossEntropy", {"q": 0.7}, SPARSE),
    ("Dice", {}, LABELS),
    ("Dice", {"axis": -1}, LABELS),
    ("Tversky", {"alpha": 0.3, "beta": 0.6}, LABELS),
    ("Tversky", {"alpha": 0.3, "beta": 0.6, "axis": -1}, LABELS),
    ("mean_squared_error", {}, NUMBERS),
    ("mean_absolute_error", {}, NUMBERS),
    ("mean_absolute_percentage_error", {}, NUMBERS),
    ("mean_squared_logarithmic_error", {}, COUNTS),
    ("huber", {"delta": 0.4}, NUMBERS),
    ("log_cosh", {}, NUMBERS),
    ("cosine_similarity", {"axis": -1}, NUMBERS),
    ("poisson", {}, COUNTS),
    ("kl_divergence", {}, KL),
    ("hinge", {}, LABELS),
    ("squared_hinge", {}, LABELS),
    ("categorical_hinge", {}, HOT_LOGITS),
    ("binary_crossentropy", {"from_logits": True, "label_smoothing": 0.2, "axis": -1}, LOGITS),
    ("binary_focal_crossentropy", {"apply_class_balancing": True}, LABELS),
    ("categorical_crossentropy", {"label_smoothing": 0.2}, HOT),
    ("categorical_focal_crossentropy", {"gamma": 1.0}, HOT),
    ("sparse_categorical_crossentropy", {"from_logits": True}, SPARSE_LOGITS),
    ("dice", {}, LABELS),
    ("tversky", {"axis": -1}, LABELS),
]
NAMES = {
    "losses": [
        "mse",
        "MSE",
        "mae",
        "MAE",
        "mape",
        "MAPE",
        "msle",
        "MSLE",
        "mean_squared_error",
        "log_cosh",
        "huber",
        "cosine_similarity",
        "MeanSquaredError",
        "Huber",
        "LogCosh",
    ],
    "regularizers": ["l1", "L1", "l2", "L2", "l1l2", "L1L2", "orthogonal_regularizer"],
    "constraints": ["max_norm", "MaxNorm", "non_neg", "NonNeg", "unit_norm", "UnitNorm", "min_max_norm", "MinMaxNorm"],
}
WEIGHTS_CASES = [
    ("regularizers", "L1", {"l1": 0.3}),
    ("regularizers", "L2", {"l2": 0.3}),
    ("regularizers", "l2", {"l2": 0.01}),
    ("regularizers", "L1L2", {"l1": 0.1, "l2": 0.2}),
    ("regularizers", "l1_l2", {"l2": 0.2}),
    ("regularizers", "OrthogonalRegularizer", {"factor": 0.2, "mode": "columns"}),
    ("regularizers", "orthogonal_regularizer", {}),
    ("constraints", "MaxNorm", {"max_value": 1.0}),
    ("constraints", "max_norm", {"max_value": 1.0, "axis": 1}),
    ("constraints", "UnitNorm", {"axis": 0}),
    ("constraints", "MinMaxNorm", {"min_value": 0.5, "max_value": 1.5, "rate": 0.6, "axis": 0}),
    ("constraints", "NonNeg", {}),
]
INITIALIZERS = [
    ("GlorotUniform", {}),
    ("GlorotNormal", {}),
    ("HeUniform", {}),
    ("HeNormal", {}),
    ("LecunUniform", {}),
    ("LecunNormal", {}),
    ("glorot_uniform", {"seed": 3}),
    ("RandomNormal", {"mean": 1.0, "stddev": 0.5}),
    ("RandomUniform", {"minval": -1.0, "maxval": 3.0}),
    ("TruncatedNormal", {"stddev": 0.5}),
    ("VarianceScaling", {"scale": 2.0, "mode": "fan_out", "distribution": "uniform"}),
    ("VarianceScaling", {"scale": 0.5, "mode": "fan_avg", "distribution": "untruncated_normal"}),
    ("Orthogonal", {"gain": 2.0}),
    ("Zeros", {}),
    ("ones", {}),
    ("Constant", {"value": 0.25}),
    ("Identity", {"gain": 2.0}),
]
SHAPE = (150, 200)


def plain(value):
    return np.asarray(value, np.float64).tolist()


def loss_case(name, arguments, inputs):
    kind = getattr(keras.losses, name, None) or getattr(keras.src.losses.losses, name)
    case = {"name": name, "arguments": arguments, "inputs": {key: plain(value) for key, value in inputs.items()}}
    y_true, y_pred = (np.asarray(inputs[key]) for key in ("y_true", "y_pred"))
    if not isinstance(kind, type):
        return {**case, "value": plain(kind(y_true, y_pred.astype(float), **arguments))}
    loss = kind(**arguments, dtype="float64")
    weights = inputs.get("sample_weight")
    case["value"] = plain(loss(y_true, y_pred, weights))
    config = loss.get_config()
    case["config"] = {key: config[key] for key in ("name", "reduction")}
    if loss.reduction in ("sum_over_batch_size", "mean"):
        gradient = jax.grad(lambda y: loss(y_true, y, weights))(y_pred.astype(float))
        case["gradient"] = plain(gradient)
    return case


def main():
    cases = {"losses": [loss_case(*case) for case in LOSSES], "names": [], "weights": [], "initializers": []}
    positive = {key: np.abs(value) for key, value in NUMBERS.items()}
    kernel = keras.ops.convert_to_tensor(NUMBERS["y_pred"])  # of an array, Keras normalises columns by axis -1
    for module, names in NAMES.items():
        for name in names:
            made = getattr(keras, module).get(name)
            value = made(positive["y_true"], positive["y_pred"]) if module == "losses" else made(kernel)
            is_function = not isinstance(made, keras.losses.Loss) and module == "losses"
            cases["names"].append({"module": module, "name": name, "value": plain(value), "is_function": is_function})
    for module, name, arguments in WEIGHTS_CASES:
        made = getattr(getattr(keras, module), name)(**arguments)
        config = {key: float(value) if isinstance(value, float) else value for key, value in made.get_config().items()}
        cases["weights"].append(
            {"module": module, "name": name, "arguments": arguments, "value": plain(made(kernel)), "config": config}
        )
    for name, arguments in INITIALIZERS:
        made = getattr(keras.initializers, name)(**arguments)
        values = np.asarray(made(SHAPE))
        found = {"mean": values.mean(), "std": values.std(), "min": values.min(), "max": values.max()}
        cases["initializers"].append(
            {
                "name": name,
                "arguments": arguments,
                "config": made.get_config(),
                "dtype": str(values.dtype),
                **{key: float(value) for key, value in found.items()},
            }
        )
    inputs = {key: plain(value) for key, value in positive.items()} | {"kernel": plain(kernel), "shape": SHAPE}
    lines = [f'"inputs": {json.dumps(inputs)}']
    for key, rows in cases.items():
        lines.append(f'"{key}": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]")
    Path(__file__).with_name("keras_losses.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
