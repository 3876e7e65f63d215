"""MLPClassifier and MLPRegressor: scikit-learn's own checks, its MLPs as witnesses, and what is ours beside them."""

import copy
import io
import pickle
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pytest
from scipy.sparse import csc_array, csr_array
from sklearn import neural_network
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import nbdense
from nbdense.estimators import MLPClassifier, MLPRegressor
from nbdense.estimators.parameters import RULES
from nbdense.training.targets import weights_by_class

BOTH = [MLPClassifier, MLPRegressor]
ROUNDING = (
    "rows that come twice are added up in another order than rows of weight 2, which shows in float32's last digits; "
    "in float64 the check passes"
)
EXPECTED: dict[str, dict[str, str]] = {
    "float32": {f"check_sample_weight_equivalence_on_{kind}_data": ROUNDING for kind in ("dense", "sparse")},
    "float64": {},
}

rng = np.random.default_rng(0)
X = rng.standard_normal((120, 4))
CLASSES = (X[:, 0] + X[:, 1] > 0).astype(int) + (X[:, 2] > 0.5)  # 0, 1, 2
VALUES = X @ [1.0, -2.0, 0.5, 0.0]


@pytest.mark.parametrize("dtype", EXPECTED)
@pytest.mark.parametrize("estimator", BOTH)
def test_scikit_learn_checks(estimator, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in scikit-learn's own tests: fits are cut short, data are meaningless
        results = check_estimator(
            estimator(dtype=dtype), expected_failed_checks=EXPECTED[dtype], on_fail=None, on_skip=None
        )
    assert len(results) > 40
    assert [(r["check_name"], r["exception"]) for r in results if r["status"] == "failed"] == []
    assert {r["check_name"] for r in results if r["status"] == "xfail"} == set(EXPECTED[dtype])


MANY_LABELS = np.stack([X[:, 0] > 0, X[:, 1] > 0, X[:, 2] > 1], axis=1).astype(int)
WITNESSED = {
    "two classes": ("classifier", (X[:, 0] > 0).astype(int), {}),
    "three classes, tanh": ("classifier", CLASSES, {"activation": "tanh"}),
    "many labels": ("classifier", MANY_LABELS, {"activation": "logistic"}),
    "values": ("regressor", VALUES, {}),
    "two outputs": ("regressor", np.stack([VALUES, -VALUES], axis=1), {"alpha": 0.0}),
    "no hidden layer": ("regressor", VALUES, {"hidden_layer_sizes": ()}),
    "sgd": ("classifier", CLASSES, {"solver": "sgd", "learning_rate_init": 0.05}),
    "plain momentum": ("classifier", CLASSES, {"solver": "sgd", "nesterovs_momentum": False}),
    "invscaling": ("regressor", VALUES, {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.1}),
    "penalty": ("classifier", CLASSES, {"alpha": 10.0}),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("case", WITNESSED)
def test_trains_as_scikit_learn_does(case):
    """From the same weights through the same batches: the same weights and losses, step by step."""
    kind, y, parameters = WITNESSED[case]
    shared = {"hidden_layer_sizes": (7, 5), "batch_size": 30, "shuffle": False, "max_iter": 1, "random_state": 0}
    shared |= {"warm_start": True, "tol": 0.0} | parameters
    theirs = {"classifier": neural_network.MLPClassifier, "regressor": neural_network.MLPRegressor}[kind](**shared)
    ours = {"classifier": MLPClassifier, "regressor": MLPRegressor}[kind](**shared, dtype="float64")
    theirs.fit(X, y)
    ours.fit(X, y)
    ours.model_.set_weights([w for pair in zip(theirs.coefs_, theirs.intercepts_, strict=True) for w in pair])
    for estimator in (theirs, ours):
        estimator.set_params(max_iter=6).fit(X, y)
    for found, expected in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    factor = ours.n_outputs_ if kind == "regressor" else 1  # the sum over outputs, where scikit-learn says the mean
    np.testing.assert_allclose(ours.loss_curve_[1:], np.multiply(factor, theirs.loss_curve_[1:]), rtol=1e-6)
    assert (ours.n_iter_, ours.t_, ours.n_layers_) == (theirs.n_iter_, theirs.t_, theirs.n_layers_)
    assert (ours.n_outputs_, ours.out_activation_) == (theirs.n_outputs_, theirs.out_activation_)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-6)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("load", [load_digits, load_breast_cancer])
def test_as_accurate_as_scikit_learn(load):
    data, labels = load(return_X_y=True)
    learnt, held, y, y_held = train_test_split(data, labels, random_state=0)
    scores = [
        make_pipeline(StandardScaler(), mlp((32,), max_iter=40, random_state=1)).fit(learnt, y).score(held, y_held)
        for mlp in (MLPClassifier, neural_network.MLPClassifier)
    ]
    assert scores[0] > 0.92
    assert scores[0] > scores[1] - 0.02


def test_regression_as_good_as_scikit_learn():
    data, y = load_diabetes(return_X_y=True)
    y = (y - y.mean()) / y.std()
    learnt, held, y, y_held = train_test_split(data * 20, y, random_state=0)
    options = {"hidden_layer_sizes": (16,), "alpha": 1.0, "early_stopping": True, "random_state": 0, "max_iter": 400}
    scores = [mlp(**options).fit(learnt, y).score(held, y_held) for mlp in (MLPRegressor, neural_network.MLPRegressor)]
    assert scores[0] > 0.25
    assert scores[0] > scores[1] - 0.05


def fitted(estimator=MLPClassifier, y=None, data=X, **options):
    y = {MLPClassifier: CLASSES, MLPRegressor: VALUES}[estimator] if y is None else y
    options = {"hidden_layer_sizes": (8,), "random_state": 0, "max_iter": 5} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator(**options).fit(data, y)


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["cat", "dog"]),
        np.array(["cat", "cow", "dog"], dtype=object),
        np.array([False, True]),
        np.array([-7, 40, 3]),
        np.array([1.0, 2.0]),
        np.array([3, 200], np.uint8),
    ],
    ids=lambda labels: f"{labels.dtype} {len(labels)}",
)
def test_labels_of_any_type(labels):
    y = labels[np.minimum(CLASSES, len(labels) - 1)]
    mlp = fitted(y=y, max_iter=100, learning_rate_init=0.02)
    assert mlp.classes_.dtype == mlp.predict(X).dtype == labels.dtype
    np.testing.assert_array_equal(mlp.classes_, np.sort(labels))
    probabilities = mlp.predict_proba(X)
    assert probabilities.shape == (len(X), len(labels))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(mlp.classes_[probabilities.argmax(axis=1)], mlp.predict(X))
    with np.errstate(divide="ignore"):
        np.testing.assert_array_equal(mlp.predict_log_proba(X), np.log(probabilities))
    assert mlp.score(X, y) > 0.9
    assert mlp.model_.network.n_out == (1 if len(labels) == 2 else len(labels))


def test_seeds():
    first, again, other = (fitted(random_state=seed, max_iter=3).coefs_ for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert not any((a == b).all() for a, b in zip(first, other, strict=True))
    shared = np.random.RandomState(0)
    assert (fitted(random_state=shared).coefs_[0] != fitted(random_state=shared).coefs_[0]).any()


@pytest.mark.parametrize("estimator", BOTH)
def test_early_stopping_keeps_the_best(estimator):
    mlp = fitted(estimator, early_stopping=True, validation_fraction=0.25, max_iter=400, learning_rate_init=0.02)
    scores = mlp.validation_scores_
    assert mlp.best_loss_ is None
    assert mlp.best_validation_score_ == max(scores)
    assert len(scores) == len(mlp.loss_curve_) == mlp.n_iter_ < 400
    assert max(scores[:-11]) > max(scores[-11:]) - mlp.tol  # 11 epochs that were no better ended it
    random = np.random.RandomState(0)
    random.randint(np.iinfo(np.int32).max)  # the seed of the weights
    y = CLASSES if estimator is MLPClassifier else VALUES
    stratify = y if estimator is MLPClassifier else None
    _, held, _, y_held = train_test_split(X, y, test_size=0.25, random_state=random, stratify=stratify)
    assert mlp.score(held, y_held) == pytest.approx(mlp.best_validation_score_, abs=1e-6)


def test_early_stopping_needs_rows_to_judge_by():
    with pytest.raises(ValueError, match="validation_fraction=0.1 of 9 rows holds out too few"):
        MLPRegressor(early_stopping=True).fit(X[:9], VALUES[:9])
    with pytest.raises(ValueError, match="of 120 rows holds out too few"):  # a row that weighs nothing is none
        MLPRegressor(early_stopping=True, random_state=0).fit(X, VALUES, np.arange(120) == 0)


def test_stops_when_the_loss_does(capsys):
    mlp = fitted(tol=10.0, max_iter=100, verbose=True)
    assert mlp.n_iter_ == 12  # the first is better than nothing; then more than 10 that are no better
    assert mlp.best_loss_ == min(mlp.loss_curve_) == mlp.loss_
    said = capsys.readouterr().out
    assert f"Iteration 12, loss = {mlp.loss_:.8f}" in said
    assert "did not improve more than tol=10.000000 for 10 consecutive epochs. Stopping." in said
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(2\)"):
        MLPRegressor(max_iter=2).fit(X, VALUES)


def test_interrupted_fits_are_of_use(monkeypatch):
    count = iter(range(3))

    def interrupt(*said):
        if next(count) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("builtins.print", interrupt)
    mlp = MLPRegressor(verbose=True, random_state=0)
    with pytest.warns(UserWarning, match="interrupted"):
        mlp.fit(X, VALUES)
    assert mlp.n_iter_ == len(mlp.loss_curve_) == 3
    assert np.isfinite(mlp.predict(X)).all()


def test_adaptive_learning_rate(capsys):
    mlp = fitted(solver="sgd", learning_rate="adaptive", tol=10.0, n_iter_no_change=1, max_iter=100, verbose=True)
    assert mlp.model_.optimizer.learning_rate == pytest.approx(0.001 / 5**5)
    assert capsys.readouterr().out.count("Setting learning rate to") == 5
    assert mlp.n_iter_ < 100


@pytest.mark.parametrize("estimator", BOTH)
def test_pickles_go_on_where_they_were(estimator):
    y = CLASSES if estimator is MLPClassifier else VALUES
    mlp = fitted(estimator)
    memory = io.BytesIO()
    joblib.dump(mlp, memory)
    memory.seek(0)
    copies = [pickle.loads(pickle.dumps(mlp)), joblib.load(memory), copy.deepcopy(mlp)]
    mlp.partial_fit(X, y)
    for other in copies:
        assert other.get_params() == mlp.get_params()
        other.partial_fit(X, y)
        assert other.loss_curve_ == mlp.loss_curve_
        np.testing.assert_array_equal(other.predict(X), mlp.predict(X))
        assert all((a == b).all() for a, b in zip(other.coefs_, mlp.coefs_, strict=True))
    assert pickle.loads(pickle.dumps(estimator(alpha=3.0))).alpha == 3.0


def test_partial_fit():
    mlp = MLPClassifier((8,), learning_rate_init=0.01, random_state=0)
    with pytest.raises(ValueError, match="classes must be passed"):
        mlp.partial_fit(X, CLASSES)
    first = np.flatnonzero(CLASSES < 2)  # a class has not come yet
    mlp.partial_fit(X[first], CLASSES[first], classes=[2, 1, 0])
    assert mlp.predict_proba(X).shape == (len(X), 3)
    for _ in range(60):
        mlp.partial_fit(X, CLASSES)
    assert mlp.n_iter_ == 1 and len(mlp.loss_curve_) == 61
    assert mlp.score(X, CLASSES) > 0.8
    with pytest.raises(ValueError, match="classes must be those of the first call"):
        mlp.partial_fit(X, CLASSES, classes=[0, 1])
    with pytest.raises(ValueError, match="y has classes"):
        mlp.partial_fit(X, CLASSES + 1)
    with pytest.raises(ValueError, match="early_stopping"):
        mlp.set_params(early_stopping=True).partial_fit(X, CLASSES)
    with pytest.raises(ValueError, match=r"y: expected shape \(rows, 1\) as in earlier calls, got \(\d+, 2\)"):
        fitted(MLPRegressor).partial_fit(X, np.stack([VALUES, VALUES], axis=1))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_warm_start():
    mlp = fitted(warm_start=True)
    before = mlp.loss_
    mlp.fit(X, CLASSES)
    assert mlp.n_iter_ == 5 and len(mlp.loss_curve_) == 10 and mlp.loss_ < before
    mlp.set_params(early_stopping=True).fit(X, CLASSES)
    assert mlp.best_loss_ is None and len(mlp.validation_scores_) == 5
    mlp.set_params(early_stopping=False).fit(X, CLASSES)
    assert mlp.best_loss_ == min(mlp.loss_curve_[-5:])
    for changed in ({"hidden_layer_sizes": (9,)}, {"activation": "tanh"}, {"dtype": "float64"}):
        with pytest.raises(ValueError, match="must stay as they are"):
            clone(mlp).set_params(**changed, warm_start=True).__class__.fit(
                copy.deepcopy(mlp).set_params(**changed), X, CLASSES
            )
    with pytest.raises(ValueError, match=r"same classes .*Previously got \[0 1 2\], `y` has \[1 2 3\]"):
        mlp.fit(X, CLASSES + 1)
    for going_on in (mlp.fit, mlp.partial_fit):  # scikit-learn asks for the same of both
        with pytest.raises(ValueError, match=r"same classes .*Previously got \[0 1 2\], `y` has \[0 1\]"):
            going_on(X, np.minimum(CLASSES, 1))
    mlp.set_params(warm_start=False).partial_fit(X, np.minimum(CLASSES, 1))


def test_class_weight():
    rare = (X[:, 0] > 1.3).astype(int)
    options = {"max_iter": 60, "learning_rate_init": 0.01}
    plain, balanced, heavy = (
        fitted(y=rare, class_weight=weight, **options).predict(X).mean() for weight in (None, "balanced", {1: 1000.0})
    )
    assert plain < balanced < heavy
    by_row = MLPClassifier((8,), random_state=0, **options)
    with pytest.warns(ConvergenceWarning):
        by_row.fit(X, rare, sample_weight=np.where(rare, 1000.0, 1.0))
    assert by_row.predict(X).mean() == heavy


def test_balance_is_scikit_learns():
    y, weights = np.array([3, 1, 1, 0, 0, 0, 3, 1]), np.random.default_rng(8).uniform(0.1, 3, 8)
    classes = np.array([0, 1, 3])
    # compute_class_weight's, which takes sample weights since scikit-learn 1.7
    expected = [weights.sum() / (3 * weights[y == label].sum()) for label in y]
    found = weights_by_class("balanced", [0, 1, 3], np.searchsorted(classes, y), weights)
    np.testing.assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_balance_counts_rows_as_often_as_they_weigh():
    """Rows of weight 0 might as well be left out, and rows of weight 2 come twice."""
    weights = np.where(CLASSES == 1, np.arange(120) % 7 == 0, np.arange(120) % 3).astype(float)
    rows = np.repeat(np.arange(120), weights.astype(int))
    options = {"class_weight": "balanced", "dtype": "float64", "shuffle": False, "batch_size": 120, "max_iter": 40}
    weighted = MLPClassifier((8,), random_state=0, learning_rate_init=0.02, **options).fit(X, CLASSES, weights)
    options["batch_size"] = len(rows)
    repeated = MLPClassifier((8,), random_state=0, learning_rate_init=0.02, **options).fit(X[rows], CLASSES[rows])
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-6)
    assert weighted.loss_ == pytest.approx(repeated.loss_, rel=1e-9)


def test_class_weights_that_will_not_do():
    for weight, error, words in (
        ({0: -1.0}, ValueError, "class_weight: the weight of class 0 must be a finite number of at least 0, got -1.0"),
        ({0: np.float64("nan")}, ValueError, "the weight of class 0 .*, got nan"),
        ({0: 2.0, "1": 3.0}, ValueError, r"class_weight: '1' is none of the classes, which are \[0 1 2\]"),
        ([1.0, 2.0, 3.0], TypeError, "class_weight: expected a mapping of .*, got list"),
        ("even", ValueError, "class_weight: expected a mapping or 'balanced', got 'even'"),
    ):
        with pytest.raises(error, match=words):
            MLPClassifier(class_weight=weight).fit(X, CLASSES)
    with pytest.raises(ValueError, match=r"sample_weight: -1\.0 in row 2; class_weight='balanced' takes"):
        MLPClassifier(class_weight="balanced").fit(X, CLASSES, np.where(np.arange(120) == 2, -1.0, 1.0))
    fitted(class_weight={0: 1.0, 1: 1.0, 2: 1.0, 3: 5.0})  # of a class that this data has not


def test_in_scikit_learns_hands():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        search = GridSearchCV(
            make_pipeline(StandardScaler(), MLPClassifier(random_state=0, max_iter=20, learning_rate_init=0.02)),
            {"mlpclassifier__hidden_layer_sizes": [(1,), (16, 8)], "mlpclassifier__activation": ["relu", "silu"]},
            cv=2,
        ).fit(X, CLASSES)
        scores = cross_val_score(MLPRegressor(random_state=0, learning_rate_init=0.02), X, VALUES, cv=3)
    assert search.best_params_["mlpclassifier__hidden_layer_sizes"] == (16, 8)
    assert scores.min() > 0.8


def test_model_is_a_sequential():
    mlp = fitted()
    assert isinstance(mlp.model_, nbdense.Sequential)
    np.testing.assert_array_equal(mlp.model_.predict(X), mlp.predict_proba(X))
    assert [layer.name for layer in mlp.model_.layers] == ["hidden_1", "output"]


@pytest.mark.parametrize("estimator", BOTH)
def test_sparse_rows_are_made_dense(estimator):
    rows = np.where(X > 0.5, X, 0.0)
    dense, sparse = fitted(estimator, data=rows), fitted(estimator, data=csc_array(rows))
    np.testing.assert_array_equal(sparse.predict(csr_array(rows)), dense.predict(rows))


BAD = {"activation": "softmax", "alpha": -1, "batch_size": 0, "beta_1": 1.0, "beta_2": -0.1, "dtype": "float16"}
BAD |= {"dropout": (0.1, 1.0), "batch_norm": 1, "layer_norm": None, "residual": "no", "max_fun": 0}
BAD |= {"early_stopping": "yes", "epsilon": 0, "learning_rate": "slow", "learning_rate_init": 0.0, "max_iter": 1.5}
BAD |= {"momentum": 1.1, "n_iter_no_change": 0, "nesterovs_momentum": 1, "power_t": -1, "shuffle": None}
BAD |= {"solver": "newton", "tol": float("nan"), "validation_fraction": 1, "verbose": "much", "warm_start": 0}


@pytest.mark.parametrize("name", RULES)
def test_bad_parameters_are_named(name):
    for estimator, y in ((MLPClassifier, CLASSES), (MLPRegressor, VALUES)):
        with pytest.raises(ValueError, match=rf"{estimator.__name__}: {name} must be "):
            estimator(**{name: BAD[name]}).fit(X, y)


@pytest.mark.parametrize("sizes", [0, (4, -1), (2.5,), "12", True, None])
def test_bad_layers_are_named(sizes):
    with pytest.raises(ValueError, match="hidden_layer_sizes must be"):
        MLPRegressor(hidden_layer_sizes=sizes).fit(X, VALUES)


def test_layers_in_place_of_a_loss():
    """The first argument is the loss, as scikit-learn has it."""
    with pytest.raises(ValueError, match=r"loss must be .*got \(64, 32\); did you mean hidden_layer_sizes=\?"):
        MLPRegressor((64, 32)).fit(X, VALUES)


def test_bad_data_and_a_loss_that_is_not_finite():
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        MLPClassifier().fit(X, VALUES)
    with pytest.raises(ValueError, match="must be 0 and 1"):
        MLPClassifier().fit(X, 3 + MANY_LABELS)
    with pytest.raises(ValueError, match="loss must be one of"):
        MLPRegressor(loss="gamma").fit(X, VALUES)
    with pytest.raises(ValueError, match=r"x: NaN or infinity \(in float32\)"):
        MLPRegressor().fit(X * 1e300, VALUES)
    with pytest.warns(UserWarning, match="batch_size=1000 is more than the 120 rows"):
        fitted(batch_size=1000)
    mlp = fitted(MLPRegressor)
    with pytest.raises(FloatingPointError, match="the loss is"):
        mlp.fit(X, VALUES * 1e30)
    with pytest.raises(NotFittedError):  # nothing of the fit before it is left
        mlp.predict(X)
    with pytest.raises(ValueError, match=r"alpha must be a finite number of at least 0, got -0\.5"):
        fitted(alpha=np.float64(-0.5))


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("label", [5, "a", 0.5 + 0.5])
def test_one_class_is_fitted_as_scikit_learn_does(label, early_stopping):
    """As scikit-learn 1.9's MLPClassifier; older ones fail on strings."""
    y = np.full(len(X), label)
    ours = fitted_by(MLPClassifier, X, y, max_iter=5, early_stopping=early_stopping)
    np.testing.assert_array_equal(ours.classes_, y[:1])
    assert (ours.n_outputs_, ours.out_activation_, ours.n_layers_) == (1, "logistic", 3)
    assert ours.best_validation_score_ == (1.0 if early_stopping else None)
    np.testing.assert_array_equal(ours.predict(X), y)
    assert ours.predict(X).dtype == y.dtype
    assert ours.predict_proba(X).shape == (len(X), 2)
    assert (ours.predict(-100 * X) == label).all()  # even where another class is the likelier
    assert ours.score(X, y) == 1.0
    assert (MLPClassifier().partial_fit(X, y, classes=[label]).predict(X) == label).all()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(ours)).predict(X), y)


def fitted_by(estimator, data, y, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator(hidden_layer_sizes=(8,), random_state=0, **options).fit(data, y)


DIVERGING = {"hidden_layer_sizes": (8,), "solver": "sgd", "random_state": 0}


@pytest.mark.parametrize("dtype", EXPECTED)
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("batch", [7, 120])
@pytest.mark.parametrize("rate", [1e3, 1e30])
@pytest.mark.parametrize("max_iter", [1, 2, 40])
@pytest.mark.parametrize("estimator", BOTH)
def test_fits_that_diverge_end_with_a_warning(estimator, dtype, early_stopping, batch, rate, max_iter):
    y = CLASSES if estimator is MLPClassifier else VALUES
    options = {"dtype": dtype, "early_stopping": early_stopping, "batch_size": batch, "max_iter": max_iter}
    mlp = estimator(**DIVERGING, **options, learning_rate_init=rate)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        mlp.fit(X, y)
    assert {warning.category for warning in said} <= {ConvergenceWarning, UserWarning}  # batch_size is clipped
    if max_iter == 40 and not early_stopping and estimator is MLPRegressor:
        assert "The loss was no longer finite in iteration" in str(said[-1].message)
        assert said[-1].filename == __file__
    assert np.isfinite(mlp.loss_) and mlp.loss_ == mlp.loss_curve_[-1]
    assert 1 <= mlp.n_iter_ == len(mlp.loss_curve_) <= max_iter
    assert np.isfinite(mlp.model_.predict(X)).all()
    assert np.isfinite(mlp.model_.evaluate(X, y))


@pytest.mark.parametrize("dtype", EXPECTED)
def test_partial_fits_that_diverge_warn(dtype):
    mlp = MLPRegressor(**DIVERGING, learning_rate_init=1e6, dtype=dtype)
    warned = 0
    for _ in range(12):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            mlp.partial_fit(X, VALUES)
        warned += any("no longer finite" in str(warning.message) for warning in said)
        assert mlp.n_iter_ == 1 and np.isfinite(mlp.loss_)
        assert np.isfinite(mlp.predict(X)).all()
    assert warned
    before = mlp.coefs_
    with pytest.raises(FloatingPointError, match="the loss of this batch is"):  # nothing can be learnt of these
        mlp.partial_fit(X, VALUES * {"float32": 1e30, "float64": 1e300}[dtype])
    assert all((a == b).all() for a, b in zip(mlp.coefs_, before, strict=True))


def test_masked_elements_are_refused():
    X_hidden, y_hidden, weights = np.ma.array(X), np.ma.array(CLASSES), np.ma.array(np.ones(120))
    X_hidden[7, 2] = y_hidden[9] = weights[3] = np.ma.masked
    in_X = "X: masked element in row 7, column 2;"
    for estimator in BOTH:
        mlp = fitted(estimator)
        with pytest.raises(ValueError, match=in_X):
            mlp.predict(X_hidden)
        for arguments, words in (
            ((X_hidden, CLASSES), in_X),
            ((X, y_hidden), "y: masked element in row 9;"),
            ((X, CLASSES, weights), "sample_weight: masked element in row 3;"),
        ):
            with pytest.raises(ValueError, match=words):
                fitted(estimator).partial_fit(*arguments)
            with pytest.raises(ValueError, match=words):
                estimator().fit(*arguments)
    np.testing.assert_array_equal(fitted(data=np.ma.array(X)).predict(np.ma.array(X)), fitted().predict(X))


def test_without_scikit_learn():
    lacks = "import sys; sys.modules['sklearn'] = None; import nbdense; "
    for use in ("nbdense.MLPClassifier((8,), random_state=0)", "import nbdense.estimators"):
        done = subprocess.run([sys.executable, "-c", lacks + use], capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert done.stderr.strip().endswith("pip install 'nbdense[sklearn]'")
        assert "ImportError: nbdense.estimators needs scikit-learn" in done.stderr
