"""Losses, regularizers, constraints and initializers as users of Keras call them: golden values by Keras itself."""

import json
from pathlib import Path

import numpy as np
import pytest

import nbdense
from builders import make_model, workspace_and_data
from nbdense import constraints, initializers, losses, regularizers
from nbdense.losses import LOSSES
from nbdense.training import phases

GOLDEN = json.loads((Path(__file__).parent / "golden" / "keras_losses.json").read_text(encoding="utf-8"))
INPUTS = {key: np.array(value) for key, value in GOLDEN["inputs"].items()}
MODULES = {"losses": losses, "regularizers": regularizers, "constraints": constraints, "initializers": initializers}


def case_name(case):
    return "-".join([case["name"], *(f"{key}={value}" for key, value in case["arguments"].items())])


def called(case, dtype):
    """What a case's class or function makes of its inputs."""
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
    if case["arguments"].get("axis", -1 if case["name"] not in ("Dice", "Tversky") else None) not in (-1,)
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
    deltas = workspace.outputs(len(y_pred), layers=layers, deltas=True)[:, 0]
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
    made = getattr(initializers, case["name"])(**case["arguments"])
    assert made.get_config() == {**case["config"], **case["arguments"]}  # Keras forgets Identity's
    values = made(tuple(GOLDEN["inputs"]["shape"]))
    assert str(values.dtype) == case["dtype"]
    spread = case["std"]
    np.testing.assert_allclose(values.std(), spread, rtol=0.02)
    np.testing.assert_allclose(values.mean(), case["mean"], atol=0.02 * spread)
    if case["name"] not in ("RandomNormal", "Orthogonal") and "untruncated_normal" not in case["arguments"].values():
        np.testing.assert_allclose([values.min(), values.max()], [case["min"], case["max"]], atol=0.3 * spread + 1e-7)


def test_public_names():
    for kind in LOSSES.values():
        assert getattr(losses, kind.__name__) is kind
        assert getattr(nbdense, kind.__name__) is kind
        assert getattr(losses, kind.kind) is kind.function
