"""Errors: they name what is refused, and leave a model as it was."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

import nbdense as nb
from nbdense._checks import finite_number
from nbdense.callbacks import EarlyStopping
from nbdense.export import verify_onnx
from nbdense.initializers import VarianceScaling
from nbdense.layers import BatchNormalization, Dense, Input, LayerNormalization, LeakyReLU, ReLU, Residual
from nbdense.losses import BinaryCrossentropy, CategoricalCrossentropy, Quantile
from nbdense.metrics import BinaryAccuracy
from nbdense.models import Sequential
from nbdense.optimizers import SGD, Adam
from nbdense.schedules import PolynomialDecay
from tests.support.builders import make_model

X = np.random.default_rng(1).normal(size=(12, 4))
LABELS = np.random.default_rng(2).integers(0, 3, 12)


def model_for(loss="sparse_categorical_crossentropy", n_out=3, activation="softmax", dtype="float32"):
    """Trained once, so that there is an optimizer's state to spoil."""
    model = make_model([4, 6, n_out], ["tanh", activation], loss, "adam", dtype=dtype)
    y = LABELS if loss.startswith("sparse") else np.eye(3)[LABELS][:, :n_out]
    model.fit(X, y, verbose=0)
    return model


def changed(array, row, column, value):
    array = np.array(array, np.float64)
    array[(row,) if array.ndim == 1 else (row, column)] = value
    return array


BAD_INPUTS = [
    (np.zeros((12, 5)), ValueError, r"layer 'dense' expects shape \(rows, 4\), got \(12, 5\)"),
    (np.zeros(4), ValueError, r"expects shape \(rows, 4\), got \(4,\); one row is x.reshape\(1, -1\)"),
    (np.zeros((12, 4, 1)), ValueError, r"got \(12, 4, 1\)"),
    (np.zeros((12, 4), object), TypeError, "expected numbers, got dtype object"),
    (np.zeros((12, 4), complex), TypeError, "complex128"),
    ([["a"] * 4] * 12, TypeError, "expected numbers, got dtype <U1"),
    (np.zeros((12, 4), "datetime64[s]"), TypeError, "datetime64.*count days or seconds"),
    (np.array([[1.0, "a", 2.0, 3.0]] * 12, object), TypeError, r"column 1 holds text \('a'\).*OneHotEncoder"),
    (np.array([[1.0, 2.0, None, 3.0]] * 12, object), TypeError, r"column 2 has missing cells \(None\).*SimpleImputer"),
    (pd.DataFrame({"n": [1.0] * 12, "town": ["Rome"] * 12}), TypeError, r"column 'town' holds text \('Rome'\)"),
    (scipy.sparse.csr_matrix(np.eye(12, 5)), ValueError, r"layer 'dense' expects shape \(rows, 4\), got \(12, 5\)"),
    (
        scipy.sparse.coo_array(np.ones(4)),
        ValueError,
        r"expected a sparse matrix of shape \(rows, columns\), got \(4,\)",
    ),
    (scipy.sparse.csc_array(np.eye(12, 4) * 1j), TypeError, "numbers, got a sparse csc_array of dtype complex128"),
    (None, TypeError, "expected numbers, got None"),
    ([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0]], ValueError, "x: its rows must be of one length to make an array"),
]
NOT_FINITE = [
    (changed(X, 7, 2, np.nan), ValueError, "x: NaN or infinity .* in row 7, column 2"),
    (changed(X, 11, 3, np.inf), ValueError, "x: NaN or infinity .* in row 11, column 3"),
    (changed(X, 0, 0, -np.inf), ValueError, "row 0, column 0"),
    (changed(X, 5, 1, 1e39), ValueError, r"\(in float32\) in row 5, column 1"),
    (changed(X, 5, 1, np.nan).astype(np.float16), ValueError, "row 5, column 1"),
    (np.asfortranarray(changed(X, 5, 1, np.nan))[::-1], ValueError, "row 6, column 1"),
    (np.zeros((0, 4)), ValueError, "x: the data set is empty"),
    (scipy.sparse.csr_array((0, 4)), ValueError, "x: the data set is empty"),
    (scipy.sparse.csr_array(changed(X, 5, 1, 1e39)), ValueError, r"x: NaN or infinity \(in float32\) among the stored"),
]


def assert_unchanged(model, action, error, words):
    """``action(model)`` raises ``error``, and leaves weights, optimizer and settings."""

    def everything():
        vectors = model._train._vectors
        state = None if vectors is None else vectors.tobytes()
        settings = model.optimizer, model.loss, list(model._train.metrics), model.seed, model.epochs_trained
        counts = model.optimizer.iterations, model.history
        return model.network.params.tobytes(), state, settings, counts

    before = everything()
    with pytest.raises(error, match=words):
        action(model)
    assert everything() == before


@pytest.mark.parametrize(("x", "error", "words"), BAD_INPUTS)
def test_wrong_inputs(x, error, words):
    model = model_for()
    assert_unchanged(model, lambda m: m.fit(x, LABELS, verbose=0), error, words)
    assert_unchanged(model, lambda m: m.evaluate(x, LABELS), error, words)
    assert_unchanged(model, lambda m: m.predict(x), error, words)
    held_out = f"validation_data: .*{words}"
    assert_unchanged(model, lambda m: m.fit(X, LABELS, validation_data=(x, LABELS), verbose=0), error, held_out)


@pytest.mark.parametrize(("x", "error", "words"), NOT_FINITE)
def test_training_data_must_be_finite(x, error, words):
    model = model_for()
    y = LABELS[: x.shape[0]]
    assert_unchanged(model, lambda m: m.fit(x, y, verbose=0), error, words)
    assert_unchanged(model, lambda m: m.evaluate(x, y), error, words)
    assert_unchanged(model, lambda m: m.fit(X, LABELS, validation_data=(x, y), verbose=0), error, words)


def masked(array, *place):
    """The array with one element masked."""
    hidden = np.ma.array(array)
    hidden[place] = np.ma.masked
    return hidden


def test_masked_elements_are_refused():
    """NumPy would drop the mask, and take what lies behind it for data."""
    model = model_for("categorical_crossentropy")
    x, y, one_hot = masked(X, 7, 2), masked(np.eye(3)[LABELS], 9, 1), np.eye(3)[LABELS]
    weights = masked(np.ones(12), 10)
    in_x, in_y = "x: masked element in row 7, column 2;", "y: masked element in row 9, column 1;"
    in_weights = "sample_weight: masked element in row 10;"
    for action, words in (
        (lambda m: m.fit(x, one_hot), in_x),
        (lambda m: m.fit(list(x), one_hot), in_x),  # a list of rows, one of them masked
        (lambda m: m.fit(x, one_hot, validation_split=0.5), in_x),
        (lambda m: m.fit(X, y), in_y),
        (lambda m: m.fit(X, y, validation_split=0.5), in_y),
        (lambda m: m.fit(X, one_hot, sample_weight=weights, validation_split=0.5), in_weights),
        (lambda m: m.fit(X, one_hot, validation_data=(x, one_hot)), in_x),
        (lambda m: m.fit(X, one_hot, validation_data=(X, y)), in_y),
        (lambda m: m.fit(X, one_hot, validation_data=(X, one_hot, weights)), in_weights),
        (lambda m: m.evaluate(x, one_hot), in_x),
        (lambda m: m.evaluate(X, y), in_y),
        (lambda m: m.predict(x), in_x),
        (lambda m: m.predict(x.astype(np.float32)), in_x),
        (lambda m: m.forward(x), in_x),
        (lambda m: m.train_on_batch(X, y), in_y),
        (lambda m: m.saliency(x), in_x),
        (lambda m: m.importance(X, y), in_y),
        (lambda m: m.diagnose(x, one_hot), in_x),
        (
            lambda m: m.set_weights([masked(w, 0) for w in m.get_weights()]),
            "array 0: masked element in row 0, ",
        ),
        (lambda m: nb.to_categorical(masked(LABELS, 4)), "to_categorical: masked element in row 4;"),
    ):
        assert_unchanged(model, action, ValueError, words)
    model.forward(X)
    with pytest.raises(ValueError, match="grad_output: masked element in row 2, column 1;"):
        model.backward(masked(np.ones((12, 3)), 2, 1))


def test_arrays_with_nothing_masked_are_data():
    x, y, weights = np.ma.array(X), np.ma.array(LABELS, mask=np.zeros(12, bool)), np.ma.array(np.arange(12.0))
    found = []
    for data in ((X, LABELS, np.arange(12.0)), (x, y, weights)):
        model = model_for()
        model.fit(data[0], data[1], sample_weight=data[2], verbose=0)
        found.append((model.network.params.tolist(), model.evaluate(*data[:2]), model.predict(data[0]).tolist()))
    assert found[0] == found[1]
    assert type(model.predict(x)) is np.ndarray


def test_one_column_is_no_matrix():
    model = make_model([1, 2], ["linear"], "mse")
    with pytest.raises(ValueError, match=r"expects shape \(rows, 1\), got \(12,\); a column is x.reshape\(-1, 1\)"):
        model.predict(X[:, 0])


def test_a_model_without_layers():
    model = Sequential()
    model.compile("sgd", "mse")
    for action in (lambda: model.predict(X), lambda: model.fit(X, LABELS), lambda: model.network):
        with pytest.raises(ValueError, match="the model has no layers"):
            action()


def test_first_fit_refused_and_then_done():
    """A model that was not built yet can still be fitted to good data."""
    model = Sequential([Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="row 7, column 2"):
        model.fit(changed(X, 7, 2, np.nan), LABELS, verbose=0)
    with pytest.raises(ValueError, match="shape"):
        model.fit(X[0], LABELS, verbose=0)
    with pytest.raises(ValueError, match="x: its rows must be of one length"):
        model.fit([[1.0, 2.0], [3.0]], [0, 1], verbose=0)
    model.fit(X[:, :2], LABELS, verbose=0)
    assert model.network.n_in == 2


SPARSE, DENSE, BINARY, SQUARED = (
    "sparse_categorical_crossentropy",
    "categorical_crossentropy",
    "binary_crossentropy",
    "mean_squared_error",
)


@pytest.mark.parametrize(
    ("loss", "y", "error", "words"),
    [
        (SPARSE, changed(LABELS, 5, 0, 3), ValueError, r"label 3.* in row 5 is not .* 0\.\.2, .* layer 'dense_1'"),
        (SPARSE, changed(LABELS, 2, 0, -1), ValueError, "label -1.* in row 2"),
        (SPARSE, changed(LABELS, 9, 0, 1.5), ValueError, "label 1.5 in row 9"),
        (SPARSE, changed(LABELS, 9, 0, np.nan), ValueError, "label nan in row 9"),
        (SPARSE, changed(LABELS, 9, 0, np.inf), ValueError, "label inf in row 9"),
        (SPARSE, changed(LABELS, 5, 0, 200).astype(np.uint8), ValueError, "label 200 in row 5"),
        (SPARSE, np.eye(3)[LABELS], ValueError, "for one-hot rows use loss='categorical_crossentropy'"),
        (SPARSE, LABELS.astype(str), TypeError, "number the classes from 0"),
        (
            SPARSE,
            scipy.sparse.csr_matrix(LABELS),
            TypeError,
            "got a sparse csr_matrix; .*toarray",
        ),
        (SPARSE, LABELS[:-1], ValueError, r"each of the 12 rows of x, got shape \(11,\)"),
        (SPARSE, 1, ValueError, r"got shape \(\)"),
        (DENSE, LABELS, ValueError, "use loss='sparse_categorical_crossentropy', or to_categorical"),
        (DENSE, np.eye(4)[LABELS], ValueError, r"takes targets of shape \(12, 3\), got \(12, 4\)"),
        (DENSE, changed(np.eye(3)[LABELS], 4, 1, np.nan), ValueError, "y: NaN or infinity .* in row 4, column 1"),
        (BINARY, changed(np.eye(3)[LABELS], 4, 1, 2), ValueError, r"targets in \[0, 1\], got 0.0 to 2.0"),
        (BINARY, changed(np.eye(3)[LABELS], 4, 1, -1), ValueError, "got -1.0"),
        (BINARY, changed(np.eye(3)[LABELS], 4, 1, np.nan), ValueError, "y: NaN or infinity .* in row 4, column 1"),
        (SQUARED, changed(np.eye(3)[LABELS], 4, 1, np.inf), ValueError, "y: NaN or infinity .* in row 4, column 1"),
        (SQUARED, LABELS, ValueError, r"takes targets of shape \(12, 3\), got \(12,\)"),
        (SQUARED, np.zeros((12, 3), object), TypeError, "dtype object"),
    ],
)
def test_wrong_targets(loss, y, error, words):
    model = model_for(loss)
    assert_unchanged(model, lambda m: m.fit(X, y, verbose=0), error, words)
    assert_unchanged(model, lambda m: m.evaluate(X, y), error, words)
    assert_unchanged(
        model,
        lambda m: m.fit(X, np.eye(3)[LABELS] if loss != SPARSE else LABELS, validation_data=(X, y), verbose=0),
        error,
        words,
    )


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"sample_weight": np.ones(11)}, ValueError, "sample_weight: expected 12 numbers"),
        ({"sample_weight": changed(np.ones(12), 3, 0, np.nan)}, ValueError, "sample_weight: NaN or infinity in row 3"),
        (
            {"sample_weight": np.ma.masked_greater(np.arange(12.0), 10)},
            ValueError,
            "sample_weight: masked element in row 11",
        ),
        ({"class_weight": [1.0, 3.0, 1.0]}, TypeError, "class_weight: expected a mapping of .*got list"),
        ({"class_weight": np.ones(3)}, TypeError, "class_weight: expected a mapping of .*got ndarray"),
        ({"class_weight": {"0": 1.0}}, TypeError, "class_weight: its keys must be class numbers, got '0'"),
        ({"class_weight": {np.str_("a"): 1.0}}, TypeError, "class numbers, got 'a'"),
        ({"class_weight": "even"}, ValueError, "class_weight: expected a mapping or 'balanced', got 'even'"),
        ({"class_weight": {0: 1.0, 2: -1.5}}, ValueError, "the weight of class 2 must be .*at least 0, got -1.5"),
        ({"class_weight": {7: np.float64("nan")}}, ValueError, "the weight of class 7 must be .*, got nan"),
        ({"class_weight": {0: np.inf}}, ValueError, "the weight of class 0 must be a finite number"),
        ({"class_weight": {0: "heavy"}}, ValueError, "the weight of class 0 must be .*, got 'heavy'"),
        (
            {"class_weight": "balanced", "sample_weight": changed(np.ones(12), 3, 0, -2)},
            ValueError,
            r"sample_weight: -2\.0 in row 3; class_weight='balanced' takes weights of at least 0",
        ),
        ({"batch_size": 0}, ValueError, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": 2.5}, ValueError, "batch_size"),
        ({"batch_size": True}, ValueError, "batch_size"),
        ({"verbose": 7}, ValueError, "verbose"),
        ({"validation_split": 1.0}, ValueError, "validation_split"),
        ({"validation_split": -0.5}, ValueError, "validation_split"),
        ({"validation_split": 0.99}, ValueError, "leaves none for training"),
        (
            {"validation_data": np.array(0.5)},
            ValueError,
            r"\(x, y, sample_weight\), or an iterable of batches, got ndarray",
        ),
        ({"validation_data": (X, LABELS, None, None)}, ValueError, "got 4 parts"),
        ({"epochs": "3"}, ValueError, "fit: epochs must be a whole number of at least 0, got '3'"),
        ({"initial_epoch": -1}, ValueError, "fit: initial_epoch must be a whole number of at least 0, got -1"),
        ({"callbacks": ["stop"]}, TypeError, "callbacks must be a list of Callback objects, got str"),
        ({"callbacks": nb.TerminateOnNaN()}, TypeError, "a list of Callback objects, got TerminateOnNaN"),
    ],
)
def test_wrong_options_of_fit(options, error, words):
    assert_unchanged(model_for(), lambda m: m.fit(X, LABELS, **{"verbose": 0, **options}), error, words)


def test_not_compiled():
    model = Sequential([Input((4,)), Dense(3)])
    for action in (lambda: model.fit(X, LABELS), lambda: model.evaluate(X, LABELS)):
        with pytest.raises(RuntimeError, match="not compiled: call compile"):
            action()
    assert model.predict(X).shape == (12, 3)


def test_not_built():
    with pytest.raises(ValueError, match="its input's width is not known"):
        Sequential([Dense(3)]).parameters  # noqa: B018
    with pytest.raises(ValueError, match="layer 'dense' is not built yet"):
        Dense(3).count_params()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("adamant", "mse"), "unknown optimizer 'adamant'; there are: .*adam"),
        (("adam", "hubert"), "unknown loss 'hubert'; there are: .*mse"),
        (("adam", "mse", ["accurate"]), "unknown metric 'accurate'; there are: accuracy"),
        (("adam", SPARSE, ["mse"]), "takes class numbers"),
        (("adam",), "name a loss"),
        ((None, "mse"), "unknown optimizer None"),
    ],
)
def test_unknown_names(arguments, words):
    assert_unchanged(model_for(), lambda m: m.compile(*arguments), ValueError, words)


@pytest.mark.parametrize("value", [True, "0.5", None, [0.5], np.nan, np.inf, 10**400], ids=repr)
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda value: SGD(momentum=value), r"SGD: momentum must be in \[0, 1\], got "),
        (lambda value: SGD(ema_momentum=value), r"SGD: ema_momentum must be in \[0, 1\], got "),
        (lambda value: Adam(epsilon=value), "Adam: epsilon must be a number above 1.2e-38, got "),
        (lambda value: VarianceScaling(value), "VarianceScaling: scale must be a finite number of at least 0, got "),
        (
            lambda value: PolynomialDecay(0.1, value),
            "PolynomialDecay: decay_steps must be a finite number above 0, got ",
        ),
        (lambda value: Quantile(value), "quantile: quantile must be between 0 and 1, got "),
        (lambda value: BatchNormalization(momentum=value), r"BatchNormalization: momentum must be in \[0, 1\], got "),
        (lambda value: LayerNormalization(epsilon=value), "LayerNormalization: epsilon must be .* above 0, got "),
        (lambda value: ReLU(negative_slope=value), "ReLU: negative_slope must be .* at least 0, got "),
        (lambda value: LeakyReLU(value), "LeakyReLU: negative_slope must be .* at least 0, got "),
        (lambda value: BinaryAccuracy(threshold=value), "BinaryAccuracy: threshold must be one finite number, got "),
    ],
)
def test_one_rule_says_what_a_number_is(make, words, value):
    with pytest.raises(ValueError, match=words):
        make(value)
    assert finite_number("f", "x", np.float32(0.5)) == finite_number("f", "x", np.array(0.5)) == 0.5
    for ends, fits in {"[]": (0, 1), "[)": (0,), "(]": (1,), "()": ()}.items():
        for end in (0, 1):
            if end in fits:
                assert finite_number("f", "x", end, 0, 1, ends=ends) == end
            else:
                with pytest.raises(ValueError, match="f: x must be in .*0, 1.*, got"):
                    finite_number("f", "x", end, 0, 1, ends=ends)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Dense(3, "rulu"), "unknown activation 'rulu'; there are: .*relu"),
        (lambda: Dense(3, kernel_initializer="glorious"), "unknown initializer 'glorious'"),
        (lambda: Dense(0), "units must be a whole number of at least 1, got 0"),
        (lambda: Dense(2.5), "units"),
        (lambda: Dense(1, "softmax"), "softmax over 1 unit is always 1"),
        (lambda: Dense(3, name="a/b"), "name"),
        (lambda: Input((2, 0)), "Input: shape must be a whole number of at least 1, got 0"),
        (lambda: SGD(-1), "learning_rate"),
        (lambda: SGD(np.nan), "learning_rate"),
        (lambda: SGD(momentum=1.5), "momentum"),
        (lambda: Adam(beta_2=1.0), "beta_2"),
        (lambda: Adam(epsilon=-1e-7), "epsilon"),
        (lambda: BinaryCrossentropy(label_smoothing=2), "label_smoothing"),
        (lambda: CategoricalCrossentropy(label_smoothing=-1), "label_smoothing"),
        (lambda: Sequential(dtype="float16"), "'float32' or 'float64'"),
        (lambda: Sequential([Dense(2, name="a"), Dense(2, name="a")]), "a layer named 'a' already"),
        (lambda: Sequential([Dense(2), Input((2,))]), "Input must be the first"),
        (lambda: Sequential([Input((2,))]).build(2), "no layers"),
        (lambda: Sequential([Input((2,)), Dense(2)]).build(3), r"the Input has shape \(2,\), not \(3,\)"),
        (lambda: Sequential([Dense(2)]).get_layer("other"), "no layer named 'other'; there are: dense"),
        (lambda: Sequential([Dense(2)]).get_layer(index=1), "no layer of index 1; there are 1"),
        (lambda: nb.set_random_seed(-1), "seed"),
        (lambda: nb.set_random_seed(np.inf), "seed must be a whole number of at least 0, got inf"),
        (lambda: nb.set_num_threads(0), "at least 1, got 0"),
        (lambda: nb.set_num_threads(np.inf), "at least 1, got inf"),
        (lambda: nb.to_categorical([0, 3], 3), r"class 3 is not in 0\.\.2"),
        (lambda: nb.to_categorical([0, 0.5]), "class 0.5 is not a whole number from 0"),
        (lambda: nb.to_categorical([0, np.nan]), "class nan"),
        (lambda: nb.to_categorical([0], 1.5), "num_classes must be a whole number of at least 1, got 1.5"),
        (lambda: nb.to_categorical([-1]), "class -1"),
        # NumPy's numbers are shown as Python's
        (lambda: Dense(np.int64(-3)), "at least 1, got -3"),
        (lambda: SGD(np.float64(-0.5)), r"at least 0, got -0\.5"),
        (lambda: Adam(beta_1=np.float32(1.5)), r"\[0, 1\), got 1\.5"),
        (lambda: nb.regularizers.L2(np.float64(-2)), r"at least 0, got -2\.0"),
    ],
)
def test_wrong_arguments(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_wrong_weights():
    weights = model_for().get_weights()
    assert_unchanged(model_for(), lambda m: m.set_weights(weights[:-1]), ValueError, "expected 4 arrays, got 3")
    for wrong in ([["a"] * 3] * 6, np.zeros((6, 3), complex)):
        others = [*(weight + 1 for weight in weights[:2]), wrong, weights[3]]
        assert_unchanged(model_for(), lambda m, w=others: m.set_weights(w), TypeError, "array 2: expected numbers, got")
    weights[2] = weights[2].T
    assert_unchanged(
        model_for(), lambda m: m.set_weights(weights), ValueError, r"array 2 should have shape \(6, 3\), got \(3, 6\)"
    )


def test_layers_are_layers():
    with pytest.raises(TypeError, match="Sequential: expected layers, got int"):
        Sequential([3])
    with pytest.raises(TypeError, match=r"Sequential: layers must be a list, as in Sequential\(\[Dense"):
        Sequential(Dense(3), Dense(1))
    with pytest.raises(TypeError, match="add: expected a layer, got int"):
        Sequential().add(3)
    for wrong in ([3], np.ones(2), [{"kind": "dense"}]):
        with pytest.raises(TypeError, match="Residual: expected layers, got"):
            Residual(wrong)


def test_layers_have_one_place():
    layer = Dense(4)
    for make in (Sequential, Residual):
        with pytest.raises(ValueError, match="layer 'dense' is there twice: it has one place; make another"):
            make([layer, ReLU(), layer])
    model = make_model([4, 4], ["linear"], "mse")
    for inner in (model, Sequential([model]), Residual([Dense(4), model])):
        assert_unchanged(model, lambda m, inner=inner: m.add(inner), ValueError, "cannot be a layer of itself")
    assert_unchanged(model, lambda m: m.predict(X, batch_size=0), ValueError, "predict: batch_size must be a whole")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Adam(lr=0.1), "Adam takes no argument 'lr'; did you mean learning_rate"),
        (lambda: Adam(learning_rat=0.1), "Adam takes no argument 'learning_rat'; did you mean learning_rate"),
        (lambda: SGD(momentun=0.9), "SGD takes no argument 'momentun'; did you mean momentum"),
        (lambda: SGD(betas=(0.9, 0.99)), "SGD takes no argument 'betas'$"),
        (lambda: model_for().fit(X, LABELS, callbacks=[EarlyStopping]), r"got the class EarlyStopping; make one"),
        (lambda: verify_onnx(model_for(), "model.onnx", X), "first argument is the ONNX file.*got Sequential first"),
    ],
)
def test_arguments_that_are_something_else(make, words):
    with pytest.raises(TypeError, match=words):
        make()


def test_rows_of_a_generator_beside_targets():
    with pytest.raises(ValueError, match=r"x is a generator, which yields batches.*leave y out, or.*np.stack"):
        model_for().fit((row for row in X), LABELS, verbose=0)
