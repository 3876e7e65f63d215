"""Each loss: torch's values, kinks and extremes, weights and positions, custom ones, and what is said of misuse."""

import json
import math
import warnings

import numpy as np
import pytest

from nbdense import losses
from nbdense.activations import ACTIVATIONS
from nbdense.layers import Dense, Input
from nbdense.losses import LOSSES, Hinge, Huber, LogCosh, MeanSquaredError, Quantile, custom
from nbdense.models import Sequential
from nbdense.training import phases
from nbdense.training.targets import check_targets, row_weights
from tests.reference import naive
from tests.support.builders import draw_targets, make_loss, make_model, naive_objective, variants, workspace_and_data
from tests.support.python_process import run_python
from tests.support.source_tree import ROOT

GOLDEN = json.loads((ROOT / "tests" / "golden" / "losses.json").read_text(encoding="utf-8"))


def loss_and_gradient(loss, activation, z, y, weights=None, dtype="float64"):
    """The batch's loss, and its derivative by what enters the last layer's activation."""
    z = np.asarray(z, dtype)
    model = make_model([z.shape[1]] * 2, [activation], loss, dtype=dtype)
    model.set_weights([np.eye(z.shape[1]), np.zeros(z.shape[1])])
    workspace, data = workspace_and_data(model, z, y, weights)
    layers = model.network.layers
    _, totals = workspace.run(phases.training(layers, updates=False), data)
    return totals[0, 0] / len(z), workspace.tensor(layers[-1], "output", len(z), deltas=True)[:, 0].copy()


@pytest.mark.kernels
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [pytest.param("float64", 1e-10, marks=pytest.mark.double), ("float32", 1e-5)]
)
@pytest.mark.parametrize("case", GOLDEN, ids=lambda c: "-".join([c["activation"], c["loss"], *c["options"]]))
def test_values_and_gradients_are_torchs(case, dtype, tolerance):
    loss = LOSSES[case["loss"]](**case["options"])
    y, weights = np.array(case["targets"]), np.array(case["weights"])
    value, gradient = loss_and_gradient(loss, case["activation"], case["z"], y, weights, dtype)
    assert value == pytest.approx(case["value"], rel=tolerance, abs=tolerance)
    np.testing.assert_allclose(gradient, case["gradient"], rtol=tolerance, atol=tolerance)


def test_torch_has_seen_every_loss_that_it_has():
    compiled = {kind for kind in LOSSES.values() if not make_loss(kind).is_traced}
    assert compiled - {LOSSES[case["loss"]] for case in GOLDEN} == {LogCosh, Hinge}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("loss", [v for kind in dict.fromkeys(LOSSES.values()) for v in variants(kind)], ids=repr)
def test_many_columns_equal_naive(loss, dtype):
    """Whole vectors of columns and a rest."""
    rng = np.random.default_rng(3)
    activation = "linear" if getattr(loss, "from_logits", not loss.suited) else "softmax"
    if loss.kind == "binary_crossentropy" and not loss.from_logits:
        activation = "sigmoid"
    z, y = rng.normal(0, 2, (5, 131)), draw_targets(rng, loss, 5, 131)
    name, targets, options = naive_objective(loss, y, 131)
    eye = [(np.eye(131), None, activation)]
    expected, _, gradient = naive.mlp_loss_and_gradients(z, targets, eye, name, **options)
    value, found = loss_and_gradient(loss, activation, z, y, dtype=dtype)
    tolerance = 1e-11 if dtype == "float64" else 2e-5
    assert value == pytest.approx(expected, rel=tolerance)
    np.testing.assert_allclose(found, gradient, rtol=0, atol=tolerance * np.abs(gradient).max())


# -- kinks and extremes ---------------------------------------------------------------------------------------------


@pytest.mark.kernels
@pytest.mark.double
@pytest.mark.parametrize(
    ("loss", "y", "t", "value", "slope"),
    [
        ("mae", 2.0, 2.0, 0.0, 0.0),
        ("quantile", 2.0, 2.0, 0.0, 0.0),
        (Quantile(0.9), 0.0, 1.0, 0.9, -0.9),
        (Quantile(0.9), 1.0, 0.0, 0.1, 0.1),
        (Huber(2.0), 2.0, 0.0, 2.0, 2.0),
        (Huber(2.0), -3.0, 0.0, 4.0, -2.0),
        (Huber(1e-3), 1e6, 0.0, 1e3 - 5e-7, 1e-3),
        ("hinge", 1.0, 1.0, 0.0, 0.0),
        ("hinge", -2.0, 1.0, 3.0, -1.0),
        ("hinge", -2.0, -1.0, 0.0, 0.0),
        ("log_cosh", 0.0, 0.0, 0.0, 0.0),
        ("log_cosh", 1e-6, 0.0, 5e-13, 1e-6),
        ("log_cosh", 1000.0, 0.0, 1000.0 - math.log(2), 1.0),
        ("log_cosh", 0.0, 1e30, 1e30, -1.0),
        ("log_cosh", 20.5, 0.0, 20.5 - math.log(2), 1.0),
    ],
)
def test_kinks_and_extremes(loss, y, t, value, slope):
    for dtype, tolerance in (("float64", 1e-9), ("float32", 1e-6)):
        found = loss_and_gradient(loss, "linear", [[y]], np.array([[t]]), dtype=dtype)
        assert found[0] == pytest.approx(value, rel=tolerance, abs=0)
        assert found[1] == pytest.approx(slope, rel=tolerance, abs=0)


@pytest.mark.filterwarnings("ignore:kl_divergence after 'linear'|poisson after 'linear'")
def test_clips_are_keras_ones():
    """An output has no gradient where it is clipped; poisson's logarithm is kept from 0."""
    value, slope = loss_and_gradient("kl_divergence", "linear", [[0.0, 2.0]], np.array([[0.5, 0.5]]))
    assert value == pytest.approx(0.5 * math.log(0.5 / 1e-7) + 0.5 * math.log(0.5), rel=1e-12)
    assert (slope == 0.0).all()
    value, slope = loss_and_gradient("kl_divergence", "linear", [[0.5, 0.5]], np.array([[0.0, 1.0]]))
    assert value == pytest.approx(1e-7 * math.log(1e-7 / 0.5) + math.log(2), rel=1e-12)
    np.testing.assert_allclose(slope, [[-2e-7, -2.0]], rtol=1e-12)
    value, slope = loss_and_gradient("poisson", "linear", [[0.0, 3.0]], np.array([[2.0, 0.0]]))
    assert value == pytest.approx((-2 * math.log(1e-7) + 3.0) / 2, rel=1e-12)
    np.testing.assert_allclose(slope, [[(1 - 2e7) / 2, 0.5]], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_crossentropy_of_a_row_of_zeros_is_clipped(dtype):
    """As relu may put out: Keras divides 0 by 0."""
    z = [[-1.0, -2.0, 0.0], [1.0, 3.0, 0.0]]
    value, slope = loss_and_gradient("sparse_categorical_crossentropy", "relu", z, np.array([1, 1]), dtype=dtype)
    assert value == pytest.approx((-math.log(1e-7) - math.log(0.75)) / 2, rel=1e-6)
    np.testing.assert_allclose(slope, [[0, 0, 0], [0.125, (1 / 4 - 1 / 3) / 2, 0]], rtol=1e-6, atol=1e-9)


# -- weights and positions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(set(LOSSES.values()), key=lambda kind: kind.__name__))
def test_positions_are_rows(kind):
    """The mean over rows and positions, each weighted by its row: as if every position were a row of its own."""
    rng = np.random.default_rng(5)
    loss, activation = make_loss(kind), "linear" if kind in (MeanSquaredError, Huber) else "softmax"
    x, y, weights = rng.normal(size=(7, 3, 4)), draw_targets(rng, loss, 21, 5), rng.uniform(0, 2, 7)
    both = []
    for shape in ((3, 4), (4,)):
        model = Sequential([Input(shape), Dense(5, activation)], dtype="float64")
        model.seed = 1
        model.compile("sgd", loss)
        rows = 7 if len(shape) == 2 else 21
        inputs, targets = x.reshape(rows, *shape), y.reshape(rows, *shape[:-1], *([] if loss.sparse else [5]))
        options = {"sample_weight": weights if rows == 7 else np.repeat(weights, 3)}
        found = [model.evaluate(inputs, targets, **options), model.evaluate(inputs, targets)]
        model.fit(inputs, targets, rows, shuffle=False, verbose=0, **options)
        both.append([*found, *(value for array in model.get_weights() for value in array.ravel())])
    np.testing.assert_allclose(both[0], both[1], rtol=1e-12)


def test_reduction_divides_by_the_batch_size():
    """And not by the sum of weights; class weights and sample weights multiply."""
    x, y = np.array([[1.0], [2.0], [4.0]]), np.array([0, 1, 1])
    model = make_model([1, 1], ["sigmoid"], "binary_crossentropy", "sgd")
    model.set_weights([[[1.0]], [0.0]])
    each = np.logaddexp(0, np.where(y == 1, -1, 1) * x[:, 0])
    assert model.evaluate(x, y, sample_weight=[3.0, 0.0, 1.0]) == pytest.approx((3 * each[0] + each[2]) / 3)
    history = model.fit(
        x, y, 3, sample_weight=[3.0, 0.0, 1.0], class_weight={0: 0.5, 1: 4.0}, verbose=0, shuffle=False
    ).history
    assert history["loss"] == [pytest.approx((1.5 * each[0] + 4 * each[2]) / 3)]


def test_hinge_takes_zero_for_minus_one():
    """Decided for the whole data set: the last batch of these has a 1 only, the first a 0 only."""
    x = np.random.default_rng(6).normal(size=(6, 3))
    zeros = np.array([0, 1, 1, 0, 0, 1])
    signed = 2 * zeros - 1
    losses_found = set()
    for y in (zeros, zeros.astype(bool), zeros.astype(np.uint8), zeros.astype(np.float32), signed, signed * 1.0):
        model = make_model([3, 1], ["linear"], "hinge", seed=3)
        kept = y.copy()
        model.fit(x, y, 1, epochs=2, verbose=0)
        np.testing.assert_array_equal(y, kept)
        losses_found.add(model.evaluate(x, y))
    assert len(losses_found) == 1
    mixed = check_targets(np.array([0.0, 1.0, -1.0]), Hinge(), 3, (1,), "dense")
    np.testing.assert_array_equal(mixed[:, 0], [0.0, 1.0, -1.0])


@pytest.mark.parametrize(("by_class", "expected"), [({0: 2.0, 1: 3.0}, [2, 3]), ({-1: 2.0, 1: 3.0}, [2, 3])])
def test_class_weights_of_hinge(by_class, expected):
    y = check_targets(np.array([0, 1]), Hinge(), 2, (1,), "dense")
    np.testing.assert_array_equal(row_weights(None, by_class, y, Hinge())[:, 0], expected)


def test_class_weights_round_as_keras():
    y = np.array([[0.1], [0.9]])
    loss = losses.for_training("binary_crossentropy")
    np.testing.assert_array_equal(row_weights(None, {0: 2.0, 1: 3.0}, y, loss)[:, 0], [2, 3])
    np.testing.assert_array_equal(row_weights(None, {1: 3.0, 7: 9.0}, y, loss)[:, 0], [1, 3])  # 1 for the rest
    np.testing.assert_array_equal(row_weights([2.0, -1.0], {1: 3.0}, y, loss)[:, 0], [2, -3])
    assert row_weights(None, {}, y, loss).tolist() == [[1.0], [1.0]]


def test_quantile_finds_the_quantile():
    y = np.random.default_rng(7).exponential(size=400)
    model = make_model([1, 1], ["linear"], Quantile(0.9), "adam")
    model.optimizer.learning_rate = 0.05
    model.fit(np.ones((400, 1)), y, 50, epochs=30, verbose=0)
    assert model.predict(np.ones((1, 1)))[0, 0] == pytest.approx(np.quantile(y, 0.9), abs=0.15)


# -- custom ---------------------------------------------------------------------------------------------------------


def smooth(y, t):
    return math.sqrt(1.0 + (y - t) * (y - t)) - 1.0


def smooth_derivative(y, t):
    return (y - t) / math.sqrt(1.0 + (y - t) * (y - t))


def squared(y, t):
    return (y - t) * (y - t)


def squared_derivative(y, t):
    return 2 * (y - t)


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", [pytest.param("float64", marks=pytest.mark.double), "float32"])
def test_custom_loss_is_the_mean_of_its_function(dtype):
    rng = np.random.default_rng(8)
    z, y, weights = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.uniform(0, 2, 4)
    loss = custom("smooth", smooth, smooth_derivative)
    value, slope = loss_and_gradient(loss, "linear", z, y, weights, dtype)
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    root = np.sqrt(1 + (z - y) ** 2)
    assert value == pytest.approx(np.mean(weights * (root - 1).mean(1)), rel=tolerance)
    expected = weights[:, None] / 4 * (z - y) / root / 3
    np.testing.assert_allclose(slope, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.kernels
@pytest.mark.double
def test_custom_loss_trains_as_a_built_in_one():
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(12, 4)), rng.normal(size=(12, 2))
    found = []
    for loss in (custom("squared", squared, squared_derivative), "mse"):
        model = make_model([4, 3, 2], ["tanh", "sigmoid"], loss, "adam", metrics=["mae"])
        history = model.fit(x, y, 5, epochs=2, validation_split=0.25, sample_weight=np.arange(12.0), verbose=0).history
        found.append([*model.network.params, *history["loss"], *history["val_loss"]])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12, atol=1e-15)


CUSTOM_THREADS = """
import hashlib, json
import numpy as np
import nbdense as nb
from tests.support.builders import make_model
from nbdense._compile import thread_pool
from nbdense.losses import custom
from tests.losses.test_losses import smooth, smooth_derivative

rng = np.random.default_rng(0)
x, y = rng.normal(size=(1000, 70)).astype(np.float32), rng.normal(size=(1000, 7))
found = []
for threads in (1, 2):
    nb.set_num_threads(threads)
    model = make_model([70, 130, 7], ["tanh", "linear"], custom("smooth", smooth, smooth_derivative), dtype="float32")
    assert thread_pool.worthwhile(6.0 * 250 * model.network.multiply_adds) == threads
    loss = model.fit(x, y, 250, epochs=2, verbose=0).history["loss"]
    found.append(hashlib.sha256(model.network.params.tobytes()).hexdigest() + json.dumps(loss))
print(len(set(found)))
"""


def test_custom_loss_with_two_threads():
    assert run_python(CUSTOM_THREADS, NUMBA_NUM_THREADS="2", OMP_NUM_THREADS="2")[0] == "1\n"


def test_custom_derivative_is_tried():
    with pytest.warns(UserWarning, match=r"derivative\(0.3127, 0.0\) is 0.3127, .* slope there is 0.6254"):
        custom("wrong", squared, lambda y, t: y - t)
    with pytest.warns(UserWarning, match="slope there is"):
        custom("swapped", squared, lambda y, t: 2 * (t - y))
    with pytest.warns(UserWarning, match="is nan"):
        custom("nothing", squared, lambda y, t: math.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        custom("kinked", lambda y, t: abs(y - t), lambda y, t: 1.0 if y > t else -1.0)
        custom("domain", lambda y, t: y - t * math.log(y), lambda y, t: 1 - t / y)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("", squared, squared), ValueError, "custom: name must be a string"),
        (("mse", squared, squared), ValueError, "'mse' is a loss already"),
        (("own", squared, None), TypeError, "derivative must be a function"),
        (("own", lambda y: y, squared), TypeError, r"loss 'own': .* called with \(output, target\)"),
        (("own", lambda y, t: [y], squared), TypeError, "'own': value must return a number, got list"),
        (("own", squared, lambda y, t: None), TypeError, "'own': derivative must return a number, got NoneType"),
    ],
)
def test_custom_takes_functions_of_two_numbers(arguments, error, words):
    with pytest.raises(error, match=words):
        custom(*arguments)


def test_custom_loss_that_numba_cannot_compile():
    loss = custom("strange", lambda y, t: sum(x for x in {str(y): (y - t) ** 2}.values()), squared_derivative)
    model = make_model([2, 1], ["linear"], loss)
    with pytest.raises(ValueError, match="loss 'strange': numba cannot compile its function "):
        model.fit(np.zeros((3, 2)), np.zeros(3), verbose=0)


# -- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "named",
    [
        "huber",
        "Huber",
        Huber,
        Huber(),
        {"name": "huber", "config": {"delta": 1.0}},
        {"class_name": "Huber", "config": {"delta": 1.0, "reduction": "sum_over_batch_size"}},
    ],
    ids=str,
)
def test_names_of_one_loss(named):
    assert losses.for_training(named) == Huber(1.0)


def test_aliases_are_keras_ones():
    for name, kind in {
        "mse": "MeanSquaredError",
        "MSE": "MeanSquaredError",
        "MAE": "MeanAbsoluteError",
        "bce": "BinaryCrossentropy",
        "KLD": "KLDivergence",
        "logcosh": "LogCosh",
        "KLDivergence": "KLDivergence",
    }.items():
        assert type(losses.for_training(name)).__name__ == kind


def test_every_loss_is_made_again_from_its_description():
    for kind in LOSSES.values():
        for loss in [*variants(kind), make_loss(kind, name="mine", reduction="sum"), make_loss(kind, dtype="float64")]:
            again = losses.get(json.loads(json.dumps(losses.serialize(loss))))
            assert again == loss and type(again) is type(loss) and again.name == loss.name


def test_custom_losses_come_by_custom_objects():
    from nbdense._registry import custom_objects

    loss = custom("smooth", smooth, smooth_derivative)
    described = losses.serialize(loss)
    assert described == {"custom": "smooth"}
    with custom_objects({"smooth": loss}):
        assert losses.get(described) is loss
    with pytest.raises(ValueError, match="loss 'smooth' .*custom_objects"):
        losses.get(described)
    with custom_objects({"smooth": smooth}), pytest.raises(ValueError, match=r"'smooth' cannot be traced: float\(\)"):
        losses.for_training(described)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: losses.get("hubert"), "unknown loss 'hubert'; there are: .*huber"),
        (lambda: losses.get(3), r"unknown loss 3.*a function of \(y_true, y_pred\).* losses.custom\(name, value, der"),
        (lambda: losses.get({"name": "hubert"}), "unknown loss 'hubert'"),
        (
            lambda: losses.get({"name": "huber", "config": {"dela": 1}}),
            "loss 'Huber' doesn't take these arguments: .*dela",
        ),
        (lambda: losses.get(losses.Loss), "unknown loss"),
        (lambda: Huber(0), "huber: delta must be a finite number above 0, got 0"),
        (lambda: Huber(math.inf), "huber: delta"),
        (lambda: Huber("1"), "huber: delta"),
        (lambda: Quantile(1.0), "quantile: quantile must be between 0 and 1, got 1.0"),
        (lambda: Quantile(math.nan), "quantile: quantile"),
        (lambda: losses.BinaryCrossentropy(0.1), "from_logits must be True or False, got 0.1"),
        (lambda: MeanSquaredError(reduction="summe"), "reduction must be one of .*'sum', .* got 'summe'"),
    ],
)
def test_wrong_losses(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# -- targets and last layers ----------------------------------------------------------------------------------------

CLASSES = np.array([0, 1, 2, 1])
HOT = np.eye(3)[CLASSES]


@pytest.mark.parametrize(
    ("loss", "y", "n_out", "words"),
    [
        ("categorical_crossentropy", CLASSES, 3, "use loss='sparse_categorical_crossentropy', or to_categorical"),
        ("categorical_crossentropy", -HOT, 3, "class probabilities, which are never negative; got -1.0"),
        ("categorical_crossentropy", HOT[:, :1], 1, "over the 1 unit of layer 'dense' is always 0; use .*binary_cross"),
        ("sparse_categorical_crossentropy", CLASSES % 2, 1, "is always 0; use loss='binary_crossentropy'"),
        ("sparse_categorical_crossentropy", HOT, 3, "for one-hot rows use loss='categorical_crossentropy'"),
        ("binary_crossentropy", 2 * HOT - 1, 3, r"got -1.0 to 1.0; for labels -1 and 1 use loss='hinge'"),
        ("binary_crossentropy", CLASSES, 3, r"takes targets of shape \(4, 3\), got \(4,\); of class numbers to_cat"),
        ("kl_divergence", CLASSES, 3, "of class numbers to_categorical"),
        ("kl_divergence", HOT - 0.1, 3, "never negative; got -0.1"),
        ("hinge", CLASSES, 1, "takes labels -1 and 1, or 0 and 1; got 0 to 2"),
        ("poisson", np.array([3, -1, 0, 2]), 1, "poisson takes counts, which are never negative; got -1"),
    ],
)
def test_wrong_targets(loss, y, n_out, words):
    with pytest.raises(ValueError, match=words):
        check_targets(y, losses.for_training(loss), len(y), (n_out,), "dense")


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "kl_divergence"])
def test_probabilities_that_do_not_sum_to_one(loss):
    y = HOT.copy()
    y[2] = [1, 1, 0]
    with pytest.warns(UserWarning, match="those of row 2 sum to 2; .* use loss='binary_crossentropy'"):
        check_targets(y, losses.for_training(loss), 4, (3,), "dense")
    with pytest.warns(UserWarning, match="those of row 1 sum to 2"):
        check_targets(y.reshape(2, 2, 3), losses.for_training(loss), 2, (2, 3), "dense")
    for fine in (HOT, HOT.astype(np.float16) * 0.7 + 0.1, HOT.astype(bool)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_targets(fine, losses.for_training(loss), 4, (3,), "dense")


@pytest.mark.parametrize(
    ("loss", "activation", "words"),
    [
        ("categorical_crossentropy", "linear", "outputs are taken for probabilities; end with 'softmax', or say from_"),
        ("sparse_categorical_crossentropy", "tanh", "end with 'softmax', or say from_logits=True"),
        ("binary_crossentropy", "linear", "end with 'sigmoid', or say from_logits=True"),
        (losses.CategoricalCrossentropy(True), "softmax", "takes these probabilities for logits; leave it out"),
        (losses.SparseCategoricalCrossentropy(True), "sigmoid", "takes these probabilities for logits"),
        (losses.BinaryCrossentropy(from_logits=True), "sigmoid", "takes these probabilities for logits"),
        ("poisson", "linear", "it takes the outputs' logarithm"),
        ("kl_divergence", "linear", "it takes outputs for probabilities"),
    ],
)
def test_losses_that_do_not_suit_the_last_layer(loss, activation, words):
    """Keras is silent; here a warning says it, of the user's line, once after each compile, and nothing is changed."""
    model = make_model([2, 2], [activation], loss)
    model.set_weights([np.zeros((2, 2)), [0.4, 0.6]])  # there is a logarithm of these
    x, y = np.ones((2, 2)), np.array([0, 1]) if model.loss.sparse else np.eye(2)

    def evaluate():
        model.evaluate(x, y)

    def fit():
        model.fit(x, y, epochs=3, validation_data=(x, y), verbose=0)

    def train_on_batch():
        model.train_on_batch(x, y)

    for first in (evaluate, fit, train_on_batch):
        model.compile("sgd", loss)
        with pytest.warns(UserWarning, match=f"{model.loss.name} after '{activation}': .*{words}") as caught:
            for use in (first, evaluate, fit, train_on_batch):
                use()
        assert [(warning.filename, warning.lineno) for warning in caught] == [
            (__file__, first.__code__.co_firstlineno + 1)
        ]


def test_losses_that_suit_say_nothing():
    for activation in ACTIVATIONS:
        for loss in ("mse", "mae", "huber", "log_cosh", "quantile", "hinge"):
            assert not losses.for_training(loss).advice_after(activation)
    for loss in dict.fromkeys(LOSSES.values()):
        assert not make_loss(loss).advice_after("softmax") and not make_loss(loss).advice_after("my_own")
