"""Parameters that scikit-learn has not: layers, optimizers, losses, validation sets; calibration."""

import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.estimator_checks import estimator_checks_generator

import nbdense as nb
from nbdense import activations, losses, schedules
from nbdense.estimators import MLPClassifier, MLPRegressor
from nbdense.estimators.calibration import temperature_of

RNG = np.random.default_rng(11)
X = RNG.normal(size=(160, 4))
CLASSES = X[:, :3].argmax(axis=1)
LABELS = np.stack([X[:, 0] > 0, X[:, 1] > 0, X[:, 2] > 1], axis=1).astype(int)
VALUES = X[:, 0] - X[:, 1] ** 2


def fitted(y=CLASSES, weights=None, eval_set=None, **options):
    estimator = MLPRegressor if y.dtype == float else MLPClassifier
    options = {"hidden_layer_sizes": (12, 9), "random_state": 0, "max_iter": 60, "learning_rate_init": 0.02} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator(**options).fit(X, y, weights, eval_set=eval_set)


LAYERS = {
    "plain": ({}, ["Dense", "Dense", "Dense"]),
    "dropout": ({"dropout": 0.1}, ["Dense", "Dropout", "Dense", "Dropout", "Dense"]),
    "dropout of one": ({"dropout": (0.0, 0.2)}, ["Dense", "Dense", "Dropout", "Dense"]),
    "batch_norm": ({"batch_norm": True}, ["Dense", "BatchNormalization", "Activation"] * 2 + ["Dense"]),
    "layer_norm": ({"layer_norm": True}, ["Dense", "LayerNormalization", "Activation"] * 2 + ["Dense"]),
    "residual": ({"residual": True}, ["Dense", "Residual", "Dense"]),
    "all": (
        {"residual": True, "batch_norm": True, "dropout": 0.05, "activation": "silu"},
        ["Dense", "BatchNormalization", "Activation", "Dropout", "Residual", "Dense"],
    ),
}


@pytest.mark.parametrize("case", LAYERS)
def test_layers(case):
    options, kinds = LAYERS[case]
    mlp = fitted(**options)
    assert [type(layer).__name__ for layer in mlp.model_.layers] == kinds
    assert [coefs.shape for coefs in mlp.coefs_] == [(4, 12), (12, 9), (9, 3)]
    assert [biases.shape for biases in mlp.intercepts_] == [(12,), (9,), (3,)]
    assert (mlp.n_layers_, mlp.n_outputs_) == (4, 3)
    assert mlp.score(X, CLASSES) > 0.9
    other = pickle.loads(pickle.dumps(mlp)).partial_fit(X, CLASSES)
    np.testing.assert_array_equal(mlp.partial_fit(X, CLASSES).predict_proba(X), other.predict_proba(X))
    with pytest.raises(ValueError, match=r"must stay as they are while .* hidden layers of \[12, 9\] in float32"):
        mlp.set_params(dropout=0.5).partial_fit(X, CLASSES)


def test_activations_of_layers():
    own = activations.custom("own", lambda z: z * z, lambda z: 2 * z)
    mlp = fitted(VALUES, activation=("tanh", own))
    assert [layer.activation.name for layer in mlp.model_.layers] == ["tanh", "own", "linear"]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(mlp.model_.get_weights()))[0], mlp.coefs_[0])
    assert mlp.score(X, VALUES) > 0.9
    search = GridSearchCV(
        MLPClassifier((6, 5), random_state=0, tol=1.0), {"activation": ["tanh", ("relu", "gelu")], "dropout": [0, 0.1]}
    )
    assert len(search.fit(X, CLASSES).cv_results_["params"]) == 4
    with pytest.raises(ValueError, match="activation must have a value for each of the 2 hidden layers, .* got 3"):
        fitted(activation=("relu", "tanh", "relu"))


OPTIMIZERS = {
    "by name": {"solver": "adamw"},
    "another": {"solver": "lion", "learning_rate_init": 0.003},
    "an object": {"solver": nb.AdamW(schedules.CosineDecay(0.03, 60), weight_decay=0.001)},
    "a schedule": {"learning_rate_init": schedules.ExponentialDecay(0.03, 20, 0.9)},
    "momentum that stays": {"solver": "sgd", "momentum": 1.0, "learning_rate_init": 1e-2, "max_iter": 40},
}


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_optimizers(case):
    options = OPTIMIZERS[case]
    mlp = fitted(**options)
    assert mlp.score(X, CLASSES) > 0.8
    if case == "an object":
        assert type(mlp.model_.optimizer) is nb.AdamW and mlp.model_.optimizer is not options["solver"]
        assert options["solver"].iterations == 0  # it is a parameter: fits leave it as it is
        again = clone(mlp).fit(X, CLASSES)
        np.testing.assert_array_equal(again.predict_proba(X), mlp.predict_proba(X))
    copied = pickle.loads(pickle.dumps(mlp))
    np.testing.assert_array_equal(copied.partial_fit(X, CLASSES).coefs_[0], mlp.partial_fit(X, CLASSES).coefs_[0])


def test_a_schedule_and_a_course_of_the_rate():
    with pytest.raises(ValueError, match="learning_rate='adaptive' changes the rate, and so does the schedule"):
        fitted(solver="sgd", learning_rate="adaptive", learning_rate_init=schedules.CosineDecay(0.1, 10))


def squared(y_true, y_pred):
    return np.mean(np.square(y_true - y_pred), axis=-1)


@pytest.mark.parametrize(
    ("loss", "y"),
    [
        (squared, CLASSES),
        (squared, CLASSES > 0),
        (squared, LABELS),
        (squared, VALUES),
        ("log_cosh", VALUES),
        (losses.Quantile(0.5), VALUES),
        (losses.CategoricalFocalCrossentropy(), CLASSES),
        (losses.SparseCategoricalCrossentropy(), (CLASSES > 0).astype(int)),
        ("binary_focal_crossentropy", LABELS),
    ],
)
def test_losses(loss, y):
    mlp = fitted(y, loss=loss)
    assert mlp.score(X, y) > 0.8
    if y.dtype != float and y.ndim == 1:
        np.testing.assert_allclose(mlp.predict_proba(X).sum(axis=1), 1, rtol=1e-6)
    if loss is squared and y is VALUES:
        assert mlp.loss_ == pytest.approx(np.mean((mlp.predict(X) - VALUES) ** 2), rel=0.3)
    copied = pickle.loads(pickle.dumps(mlp)).partial_fit(X, y)
    assert copied.loss_ == mlp.partial_fit(X, y).loss_
    one = mlp.learn_one(X[0], y[0]).loss_
    assert np.isfinite(one)


def test_losses_that_will_not_do():
    with pytest.raises(ValueError, match="MLPClassifier: loss must be one of 'log_loss', .* got 'squared_error'"):
        fitted(loss="squared_error")
    with pytest.raises(ValueError, match="is of one class a row, but rows have several labels"):
        fitted(LABELS, loss="categorical_crossentropy")


def test_class_weights_of_several_labels():
    settings = [{0: 1.0, 1: 3.0}, {1: 0.5}, {0: 2.0}]
    weights = compute_sample_weight([{0: 1.0, 1: 1.0} | setting for setting in settings], LABELS)
    for setting, expected in ((settings, weights), ("balanced", compute_sample_weight("balanced", LABELS))):
        by_class = fitted(LABELS, class_weight=setting, max_iter=5)
        by_row = fitted(LABELS, expected, max_iter=5)
        np.testing.assert_allclose(by_class.predict_proba(X), by_row.predict_proba(X), rtol=1e-4)
    with pytest.raises(ValueError, match="class_weight: rows have 3 labels each here; give a list of as many"):
        fitted(LABELS, class_weight={0: 1.0, 1: 2.0})


def test_balance_of_what_has_come_so_far():
    parts = np.array_split(np.argsort(CLASSES, kind="stable"), [30, 100])
    options = {"hidden_layer_sizes": (8,), "random_state": 0, "dtype": "float64"}
    balanced, weighted = MLPClassifier(class_weight="balanced", **options), MLPClassifier(**options)
    seen = np.zeros(3)
    for rows in parts:
        seen += np.bincount(CLASSES[rows], minlength=3)
        present = seen > 0
        factors = np.divide(seen.sum(), present.sum() * seen, where=present, out=np.zeros(3))
        balanced.partial_fit(X[rows], CLASSES[rows], classes=[0, 1, 2])
        weighted.partial_fit(X[rows], CLASSES[rows], factors[CLASSES[rows]], classes=[0, 1, 2])
        np.testing.assert_allclose(balanced.predict_proba(X), weighted.predict_proba(X), rtol=1e-9)


def test_a_validation_set_of_ones_own():
    judged = (X[100:], CLASSES[100:], np.arange(60) % 3)
    mlp = fitted(eval_set=judged, max_iter=20, warm_start=True)
    assert len(mlp.validation_scores_) == len(mlp.loss_curve_) == 20
    assert mlp.validation_scores_[-1] == pytest.approx(mlp.score(*judged))
    assert mlp.best_validation_score_ == max(mlp.validation_scores_) and mlp.best_loss_ == min(mlp.loss_curve_)
    stopped = fitted(eval_set=[judged], early_stopping=True, max_iter=400)
    assert stopped.converged_ and stopped.best_loss_ is None and stopped.t_ == 160 * stopped.n_iter_  # none held out
    assert stopped.score(*judged) == pytest.approx(max(stopped.validation_scores_))
    for wrong, words in (
        (X, "eval_set: expected .* got ndarray"),
        ((X[:, :2], CLASSES), "eval_set: X has 2 features"),
        ((X, CLASSES + 1), "eval_set: y has classes"),
        ((X, CLASSES, np.zeros(160)), "eval_set: .*weights"),
    ):
        with pytest.raises(ValueError, match=words):
            fitted(eval_set=wrong)


def test_early_stopping_of_partial_fits():
    judged = X[120:], CLASSES[120:]
    mlp = MLPClassifier((8,), early_stopping=True, learning_rate_init=0.05, n_iter_no_change=3, random_state=0)
    scores, weights = [], []
    for number in range(200):
        mlp.partial_fit(X[:120], CLASSES[:120], classes=[0, 1, 2], eval_set=judged)
        if mlp.converged_:
            break
        scores.append(mlp.score(*judged))
        weights.append(mlp.coefs_)
        if number == 2:
            mlp = pickle.loads(pickle.dumps(mlp))
    assert mlp.converged_ and 3 < number < 199
    assert mlp.validation_scores_[:-1] == pytest.approx(scores)
    best = int(np.argmax(scores))
    np.testing.assert_array_equal(mlp.coefs_[0], weights[best][0])  # of the best call
    calls = len(mlp.loss_curve_)
    assert len(mlp.partial_fit(X, CLASSES, eval_set=judged).loss_curve_) == calls  # and there they stay
    assert len(mlp.set_params(early_stopping=False).partial_fit(X, CLASSES).loss_curve_) == calls + 1


@pytest.mark.parametrize("y", [CLASSES, CLASSES > 0, LABELS], ids=["classes", "two", "labels"])
def test_decision_function(y):
    mlp = fitted(y, dtype="float64")
    logits, probabilities = mlp.decision_function(X), mlp.predict_proba(X)
    if y.ndim == 1 and y.dtype == bool:
        assert logits.shape == (160,)
        np.testing.assert_allclose(probabilities[:, 1], 1 / (1 + np.exp(-logits)), rtol=1e-9)
    elif y.ndim == 1:
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        np.testing.assert_allclose(probabilities, shares / shares.sum(axis=1, keepdims=True), rtol=1e-9)
    else:
        np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits)), rtol=1e-9)
    before = mlp.decision_function(X[:1])
    mlp.partial_fit(X, y)
    assert (mlp.decision_function(X[:1]) != before).any()  # it follows the weights


@pytest.mark.parametrize("y", [CLASSES, (CLASSES > 0).astype(int), LABELS], ids=["classes", "two", "labels"])
def test_calibration(y):
    noisy = np.where(RNG.random(y.shape) < 0.2, 1 - np.minimum(y, 1), y)  # labels that are wrong make logits too sure
    mlp = fitted(noisy, max_iter=300, alpha=0.0)
    held = RNG.normal(size=(400, 4))
    truth = {3: held[:, :3].argmax(axis=1), 2: (held[:, :3].argmax(axis=1) > 0).astype(int)}[len(np.unique(y))]
    if y.ndim == 2:
        truth = np.stack([held[:, 0] > 0, held[:, 1] > 0, held[:, 2] > 1], axis=1).astype(int)
    logits, labels = mlp.decision_function(held), mlp.predict(held)

    def loss():
        probabilities = mlp.predict_proba(held)
        if y.ndim == 1:
            return log_loss(truth, probabilities)
        right = np.where(truth == 1, probabilities, 1 - probabilities)
        return -np.log(np.maximum(right, 1e-30)).sum(axis=1).mean()

    before = loss()
    assert mlp.calibrate(held, truth) is mlp
    assert mlp.temperature_ > 1.0 and loss() < before
    np.testing.assert_allclose(mlp.decision_function(held), logits / mlp.temperature_, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(mlp.predict(held), labels)
    least = loss()
    for factor in (0.97, 1.03):  # no temperature beside it is better
        mlp.model_.set_weights([*mlp.model_.get_weights()[:-2], *(w / factor for w in mlp.model_.get_weights()[-2:])])
        assert loss() > least - 1e-7
        mlp.model_.set_weights([*mlp.model_.get_weights()[:-2], *(w * factor for w in mlp.model_.get_weights()[-2:])])
    again = pickle.loads(pickle.dumps(mlp))
    assert again.temperature_ == mlp.temperature_
    np.testing.assert_array_equal(again.predict_proba(held), mlp.predict_proba(held))


def test_temperature_by_hand():
    # One logit of 3 for everybody, right 3 times in 4: sigmoid(3 / T) = 3 / 4.
    logits, right = np.full((4, 1), 3.0), np.array([1, 1, 0, 1])
    assert temperature_of(logits, right, None) == pytest.approx(3 / np.log(3), rel=1e-9)
    assert temperature_of(logits, right, np.array([1.0, 1.0, 3.0, 1.0])) == pytest.approx(
        100.0
    )  # no better than chance
    two = np.hstack([np.zeros((4, 1)), logits])
    assert temperature_of(two, right, None) == pytest.approx(3 / np.log(3), rel=1e-9)


def test_scikit_learns_calibration_takes_the_decision_function():
    calibrated = CalibratedClassifierCV(MLPClassifier((8,), random_state=0, tol=0.1), cv=2).fit(X, CLASSES)
    assert calibrated.predict_proba(X).shape == (160, 3)


@pytest.mark.parametrize("y", [CLASSES, VALUES], ids=["classes", "values"])
def test_dtype_of_the_data(y):
    for dtype in (np.float32, np.float64, np.int64):
        mlp = MLPRegressor() if y.dtype == float else MLPClassifier()
        mlp.set_params(hidden_layer_sizes=(5,), dtype="auto", tol=100.0, random_state=0)
        mlp.fit((10 * X).astype(dtype), y)
        wanted = np.float32 if dtype == np.float32 else np.float64
        assert {array.dtype for array in mlp.coefs_ + mlp.intercepts_} == {np.dtype(wanted)}
        mlp.partial_fit(X.astype(np.float32), y)  # goes on in the type that it has
        assert mlp.coefs_[0].dtype == wanted


def test_only_one_norm():
    with pytest.raises(ValueError, match="give only one of batch_norm and layer_norm"):
        fitted(batch_norm=True, layer_norm=True)


def test_scikit_learn_checks_of_balanced_classes():
    """Those that have to do with weights; the others know nothing of them."""
    about_weights = [
        (estimator, check)
        for estimator, check in estimator_checks_generator(MLPClassifier(class_weight="balanced", dtype="float64"))
        if any(word in str(check) for word in ("class_weight", "sample_weight", "partial_fit"))
    ]
    assert len(about_weights) > 8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for estimator, check in about_weights:
            check(estimator)
