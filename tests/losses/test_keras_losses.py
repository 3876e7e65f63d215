"""Losses, regularizers, constraints and initializers as users of Keras call them: golden values by Keras itself."""

import json

import numpy as np
import pytest

import nbdense
from nbdense import constraints, initializers, losses, regularizers
from nbdense.losses import LOSSES
from nbdense.training import phases
from nbdense.utils import set_random_seed
from tests.support.builders import make_model, workspace_and_data
from tests.support.source_tree import ROOT

GOLDEN = json.loads((ROOT / "tests" / "golden" / "keras_losses.json").read_text(encoding="utf-8"))
INPUTS = {key: np.array(value) for key, value in GOLDEN["inputs"].items()}
MODULES = {"losses": losses, "regularizers": regularizers, "constraints": constraints, "initializers": initializers}


def case_name(case):
    return "-".join([case["name"], *(f"{key}={value}" for key, value in case["arguments"].items())])


def called(case, dtype):
    """Return a case's class or function, applied to its inputs."""
    kind = getattr(losses, case["name"])
    inputs = {key: np.array(value) for key, value in case["inputs"].items()}
    if isinstance(kind, type):
        return kind(**case["arguments"], dtype=dtype)(**inputs)
    inputs["y_pred"] = inputs["y_pred"].astype(dtype)
    return kind(**inputs, **case["arguments"])


@pytest.mark.parametrize("case", GOLDEN["losses"], ids=case_name)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 2e-5)])
def test_calls_of_losses(case, dtype, tolerance):
    value = called(case, dtype)
    assert value.dtype == dtype and np.shape(value) == np.shape(case["value"])
    np.testing.assert_allclose(value, case["value"], rtol=tolerance, atol=tolerance)


TRAINED = [case for case in GOLDEN["losses"] if "gradient" in case]
REFUSED = [
    case
    for case in TRAINED
    if case["arguments"].get("axis", -1 if case["name"] not in ("Dice", "Tversky") else None) != -1
    or "ignore_class" in case["arguments"]
]


@pytest.mark.parametrize("case", [case for case in TRAINED if case not in REFUSED], ids=case_name)
def test_training_follows_the_same_gradient(case):
    """A model's loss on these outputs and its derivative by them; softmax and sigmoid do not take part here."""
    loss = getattr(losses, case["name"])(**case["arguments"])
    inputs = {key: np.array(value) for key, value in case["inputs"].items()}
    y_pred = inputs["y_pred"]
    columns = y_pred.shape[1]
    model = make_model([columns] * 2, ["linear"], loss)
    model.set_weights([np.eye(columns), np.zeros(columns)])
    with pytest.warns() if loss.advice_after("linear") else _nothing():
        workspace, data = workspace_and_data(model, y_pred, inputs["y_true"], inputs.get("sample_weight"))
    layers = model.network.layers
    _, totals = workspace.run(phases.training(layers, updates=False), data)
    assert totals[0, 0] / len(y_pred) == pytest.approx(case["value"], rel=1e-10)
    deltas = workspace.tensor(layers[-1], "output", len(y_pred), deltas=True)[:, 0]
    np.testing.assert_allclose(deltas, case["gradient"], rtol=1e-9, atol=1e-12)


class _nothing:  # noqa: N801 (a context manager)
    def __enter__(self):
        return None

    def __exit__(self, *arguments):
        return None


@pytest.mark.parametrize("case", REFUSED, ids=case_name)
def test_what_only_a_call_can_do_is_refused(case):
    with pytest.raises(ValueError, match=r"compile: \w+ has (axis|ignore_class)=.*(axis=-1|leave such rows out)"):
        make_model([3, 4], ["linear"], getattr(losses, case["name"])(**case["arguments"]))


@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight", "none", None])
def test_reductions_for_calls(reduction):
    with pytest.raises(
        ValueError, match=r"compile: mean_squared_error has reduction=.*, which is for calls; train with"
    ):
        make_model([3, 4], ["linear"], losses.MeanSquaredError(reduction=reduction))
    make_model([3, 4], ["linear"], losses.MeanSquaredError(reduction="mean"))


@pytest.mark.parametrize("case", [case for case in GOLDEN["losses"] if "config" in case], ids=case_name)
def test_descriptions_of_losses(case):
    """Name and reduction are Keras's; the rest is what makes the same again, which Keras leaves out of some."""
    loss = getattr(losses, case["name"])(**case["arguments"])
    config = loss.get_config()
    assert {key: config[key] for key in case["config"]} == case["config"]
    assert {key: config[key] for key in case["arguments"]} == case["arguments"]
    assert type(loss).from_config(json.loads(json.dumps(config))) == loss
    assert losses.deserialize(json.loads(json.dumps(losses.serialize(loss)))) == loss


@pytest.mark.parametrize("case", GOLDEN["names"], ids=lambda case: f"{case['module']}-{case['name']}")
def test_names(case):
    made = MODULES[case["module"]].get(case["name"])
    if case["module"] == "losses":
        assert (not isinstance(made, losses.Loss)) == case["is_function"]
        value = made(INPUTS["y_true"], INPUTS["y_pred"])
        if case["is_function"]:
            assert getattr(losses, case["name"]) is made
            assert losses.get(losses.serialize(made)) is made
    else:
        value = made(INPUTS["kernel"])
    np.testing.assert_allclose(value, case["value"], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("case", GOLDEN["weights"], ids=case_name)
def test_regularizers_and_constraints(case):
    made = getattr(MODULES[case["module"]], case["name"])(**case["arguments"])
    np.testing.assert_allclose(made(INPUTS["kernel"]), case["value"], rtol=1e-6, atol=1e-9)
    assert made.get_config() == pytest.approx(case["config"])
    assert type(made).from_config(made.get_config()).get_config() == made.get_config()


@pytest.mark.parametrize("case", GOLDEN["initializers"], ids=case_name)
def test_initializers(case):
    """Keras's numbers are its generators'; ours have the same distribution."""
    set_random_seed(0)  # draws are near the expected ones or are not, in every run
    made = getattr(initializers, case["name"])(**case["arguments"])
    assert made.get_config() == {**case["config"], **case["arguments"]}  # Keras forgets Identity's
    values = made(tuple(GOLDEN["inputs"]["shape"]))
    assert str(values.dtype) == case["dtype"]
    spread = case["std"]
    np.testing.assert_allclose(values.std(), spread, rtol=0.02)
    np.testing.assert_allclose(values.mean(), case["mean"], atol=0.02 * spread)
    if case["name"] not in ("RandomNormal", "Orthogonal") and "untruncated_normal" not in case["arguments"].values():
        np.testing.assert_allclose([values.min(), values.max()], [case["min"], case["max"]], atol=0.3 * spread + 1e-7)


def test_files_of_before_are_read():
    """A loss was {"name": ..., "config": its options} once."""
    old = {"name": "sparse_categorical_crossentropy", "config": {"from_logits": True, "label_smoothing": 0.1}}
    expected = losses.SparseCategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    assert losses.get(old) == expected and losses.for_training(old) == expected
    assert losses.get({"name": "huber", "config": {"delta": 0.5, "name": "mine"}}) == losses.Huber(0.5, name="mine")


def test_losses_of_ones_own_are_called_alike():
    y_true, y_pred = INPUTS["y_true"], INPUTS["y_pred"]
    squared = losses.custom("squared", lambda y, t: (y - t) ** 2, lambda y, t: 2 * (y - t))
    function = losses.FunctionLoss(lambda t, y: np.mean(np.square(t - y), axis=-1), reduction="sum", dtype="float64")
    expected = losses.mean_squared_error(y_true, y_pred)
    np.testing.assert_allclose(squared.call(y_true, y_pred), expected)
    assert squared(y_true, y_pred, sample_weight=2.0) == pytest.approx(2 * expected.mean(), rel=1e-6)
    assert function(y_true, y_pred) == pytest.approx(expected.sum()) and function.name == "lambda"


def test_ranks_and_weights_as_in_keras():
    """A last axis of size 1 comes or goes; weights are broadcast to the numbers of rows."""
    column = np.array([[3.0], [0.0], [1.0]])
    assert losses.mean_squared_error([4, 8, 12], column).tolist() == [1.0, 64.0, 121.0]
    loss = losses.MeanAbsoluteError(reduction=None)
    np.testing.assert_allclose(loss([4, 8, 12], column, sample_weight=[[1], [0], [2]]), [[1], [0], [22]])
    steps = np.arange(12.0).reshape(2, 3, 2)
    weights = np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(loss(np.zeros_like(steps), steps, weights), steps.mean(-1) * weights)
    assert losses.MeanAbsoluteError()([[1.0]], [[2.0]], sample_weight=0) == 0.0
    assert losses.MeanAbsoluteError(reduction="mean_with_sample_weight")([[1.0]], [[2.0]], sample_weight=[0.0]) == 0.0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: losses.MeanSquaredError(dtype="bfloat16"),
            "mean_squared_error: dtype must be None, 'float32'",
        ),
        (lambda: losses.MeanSquaredError(dtype=np.float16), "dtype must be None, 'float32' or 'float64', got"),
        (lambda: losses.Huber(reduction="abc"), "Invalid value for argument `reduction`"),
        (
            lambda: losses.binary_crossentropy([[0], [1]], [[0.1, 0.2], [0.3, 0.4]]),
            "have the same shape, got",
        ),
        (
            lambda: losses.sparse_categorical_crossentropy([[0, 1]], [[0.1, 0.9]]),
            "same shape up until",
        ),
        (lambda: losses.categorical_crossentropy([[0, 1]], [[0.1, 0.9]], axis=True), "`axis` must be of type `int`"),
        (lambda: losses.CategoricalGeneralizedCrossEntropy(1.0), "q must be between 0 and 1, got 1.0"),
        (lambda: losses.mean_squared_error(np.ma.array([1.0], mask=[True]), [1.0]), "y_true: masked element in row 0"),
    ],
)
def test_errors(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_public_names():
    for kind in LOSSES.values():
        assert getattr(losses, kind.__name__) is kind
        assert getattr(nbdense, kind.__name__) is kind
        assert getattr(losses, kind.kind) is kind.function
