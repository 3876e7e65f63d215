"""A quantized model in use: evaluate, summary, reports as rows, and the integers at its ends."""

import json

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from nbdense.files import FileFormatError
from nbdense.layers import Dense, Flatten, Input, LayerNormalization, Residual
from nbdense.losses import CategoricalCrossentropy
from nbdense.metrics import MeanAbsoluteError
from nbdense.models import Sequential, load_model
from nbdense.quant import compare, quantize, sparsify
from nbdense.quant.model.network import LIMITS


def damaged(path, change):
    """Rewrite a file with its description changed."""
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    config = json.loads(metadata["config"])
    change(config)
    save_file(load_file(path), path, {**metadata, "config": json.dumps(config)})


def classifier(seed=0):
    model = Sequential([Input((6,)), Dense(12, "relu"), Residual([Dense(12, "tanh")]), Dense(3, "softmax")])
    model.seed = seed
    return model


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    return rng.normal(size=(120, 6)).astype(np.float32), rng.integers(0, 3, 120)


@pytest.fixture(scope="module")
def compiled(data):
    model = classifier()
    model.compile("sgd", "sparse_categorical_crossentropy", ["accuracy"], weighted_metrics=["accuracy"])
    return quantize(model, data[0])


def test_evaluate_is_of_its_own_outputs(compiled, data):
    x, y = data
    outputs = compiled.predict(x).astype(np.float64)
    weights = np.linspace(0, 2, 120)
    losses, right = -np.log(outputs[np.arange(120), y]), outputs.argmax(1) == y
    loss, accuracy, weighted = compiled.evaluate(x, y, 50, sample_weight=weights)
    assert loss == pytest.approx((losses * weights).mean(), rel=1e-5)
    assert accuracy == pytest.approx(right.mean()) and weighted == pytest.approx(
        (right * weights).sum() / weights.sum()
    )
    assert list(compiled.evaluate(x, y, return_dict=True)) == ["loss", "accuracy", "weighted_accuracy"]


def test_no_rows_and_other_models_are_refused(compiled, data):
    x, y = data
    with pytest.raises(ValueError, match="x: the data set is empty"):
        compiled.evaluate(x[:0], y[:0])
    with pytest.raises(ValueError, match="compare: x has no rows"):
        compare(classifier(), compiled, x[:0])
    other = Sequential([Input((6,)), Dense(2)])
    with pytest.raises(ValueError, match=r"compare: q is of shapes \(6,\) to \(3,\), the model of \(6,\) to \(2,\)"):
        compare(other, compiled, x)
    names = [layer.name for layer in compare(classifier(), compiled, x).layers]
    narrow = Sequential([Input((6,)), Dense(4, "relu"), Residual([Dense(4, "tanh")]), Dense(3, "softmax")])
    with pytest.raises(ValueError, match=f"layer '{names[0]}' puts out 4 numbers a row in the model and 12 in q; give"):
        compare(narrow, compiled, x)


def test_other_losses_and_metrics_can_be_given(compiled, data):
    x, y = data
    one_hot, outputs = np.eye(3)[y], compiled.predict(x)
    assert compiled.evaluate(x, one_hot, loss="mse", metrics=[]) == pytest.approx(np.square(outputs - one_hot).mean())
    metric = MeanAbsoluteError(name="off")
    given = compiled.evaluate(x, one_hot, loss="categorical_crossentropy", metrics=[metric], return_dict=True)
    assert given["off"] == pytest.approx(np.abs(outputs - one_hot).mean()) and float(metric.total) == 0
    assert compiled.evaluate(x, y, metrics=["acc"])[1] == compiled.evaluate(x, y)[1]
    bare = quantize(classifier(), x)
    with pytest.raises(ValueError, match=r"not compiled; give loss=\.\.\., and metrics="):
        bare.evaluate(x, y)
    assert bare.evaluate(x, y, loss="sparse_categorical_crossentropy") > 0
    with pytest.raises(ValueError, match="label 7 in row 0"):
        compiled.evaluate(x, np.full(120, 7))


def test_positions_count_as_rows(data):
    model = Sequential([Input((2, 3)), Dense(4, "relu"), Dense(2)])
    model.compile("sgd", "mse", ["mae"])
    x = data[0].reshape(120, 2, 3)
    q, y = quantize(model, x), np.zeros((120, 2, 2))
    outputs = q.predict(x)
    assert q.evaluate(x, y) == pytest.approx([np.square(outputs).mean(), np.abs(outputs).mean()], rel=1e-6)


def own_loss(y_true, y_pred):
    return np.mean(np.abs(y_true - y_pred) ** 3, axis=-1)


@pytest.mark.parametrize("sparse", [False, True])
def test_files_keep_what_was_compiled(sparse, data, tmp_path):
    x, y = data
    model, path = classifier(), tmp_path / "m.nbdense"
    model.compile("sgd", own_loss, ["mae"])
    q = quantize(model, x)
    made = sparsify(q, choice="4x16") if sparse else q
    wanted = made.evaluate(x, np.eye(3)[y])
    assert wanted[0] == pytest.approx((np.abs(np.eye(3)[y] - made.predict(x)) ** 3).mean(), rel=1e-5)
    made.save(path)
    assert load_model(path, custom_objects={"own_loss": own_loss}).evaluate(x, np.eye(3)[y]) == wanted
    loaded = load_model(path)  # it predicts without
    np.testing.assert_array_equal(loaded.predict(x), made.predict(x))
    with pytest.raises(ValueError, match=r"custom_objects=\{'own_loss': \.\.\.\}"):
        loaded.evaluate(x, np.eye(3)[y])
    loaded.save(path)  # as it was described
    assert load_model(path, custom_objects={"own_loss": own_loss}).evaluate(x, np.eye(3)[y]) == wanted


def test_the_loss_is_the_float_models(data, tmp_path):
    model, path = classifier(), tmp_path / "q.nbdense"
    assert quantize(model, data[0]).loss is None
    model.compile("sgd", CategoricalCrossentropy(label_smoothing=0.1))
    q = quantize(model, data[0])
    q.save(path)
    assert q.loss == load_model(path).loss == sparsify(q).loss == model.loss
    model.compile("sgd", lambda y_true, y_pred: (y_true - y_pred) ** 2)
    q = quantize(model, data[0])
    q.save(path)
    assert q.loss is model.loss and load_model(path).loss is None  # a file only names it


def test_a_description_that_is_none_is_refused(compiled, tmp_path):
    path = tmp_path / "m.nbdense"
    compiled.save(path)
    damaged(path, lambda config: config["compiled"].pop("metrics"))
    with pytest.raises(FileFormatError, match="its loss or metrics cannot be made"):
        load_model(path)


# -- tables --


def test_summary(compiled, capsys):
    compiled.summary()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Quantized model: static, weights of 8 bits, int8 activations, (6,) -> (3,)"
    cells = {line.split()[0]: line.split() for line in lines[2:6]}
    assert cells["dense"][1:] == ["(dense)", "(None,", "12)", "8", "72", str(6 * 12 + 12 * 8)]
    assert cells["dense_1"][-2:] == ["36", str(12 * 3 + 3 * 8)]
    assert lines[6] == f"Bytes of weights, biases, scales and tables: {compiled.size_bytes:,}"
    assert lines[8] == f"Multiply-adds of a row: {72 + 144 + 36}"
    kept = []
    quantize(classifier(), scheme="weight_only", bits=4).summary(print_fn=kept.append)  # made without data
    assert kept[0] == "Quantized model: weight_only, weights of 4 bits, (6,) -> (3,)"


def test_repr_says_what_it_is(compiled):
    wanted = "static, weights of 8 bits, int8 activations, (6,) -> (3,)"
    assert repr(compiled) == f"<QuantizedModel: {wanted}, {compiled.size_bytes:,} bytes>"
    assert repr(sparsify(compiled, choice="dense")).startswith(f"<SparseModel: {wanted}, ")


def test_reports_as_rows(compiled):
    rows, report = compiled.report("rows"), compiled.report("dict", timings=False)
    assert len({tuple(row) for row in rows}) == 1 and json.loads(json.dumps(rows)) == rows
    table = pd.DataFrame(rows).set_index("name")
    assert table.index.tolist() == [layer.name for layer in compiled.network.layers]
    assert table.loc["dense", "range_high"] == report["layers"][0]["range"][1]
    assert table["bytes"].sum() == compiled.size_bytes
    sparse = sparsify(compiled, choice="4x16")
    rows = sparse.report("rows")
    assert rows[0]["multiply_adds_many"] == sparse.report("dict", timings=False)["layers"][0]["multiply_adds"]["many"]
    assert rows[0]["weights"] == 72


def test_calibration_data_may_be_a_table(data):
    x, _ = data
    model = classifier()
    made = [quantize(model, given) for given in (x, pd.DataFrame(x, columns=list("abcdef")))]
    np.testing.assert_array_equal(*(q.predict_integers(pd.DataFrame(x)) for q in made))


# -- integers at the ends --


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_integers_at_the_ends(dtype, data):
    x, _ = data
    q = quantize(classifier(), x, activation_dtype=dtype)
    scale, zero_point = q.output_quantization
    integers = q.predict_integers(x)
    logits = (integers.astype(np.float64) - zero_point) * scale
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(q.predict(x), exponentials / exponentials.sum(1, keepdims=True), atol=1e-6)
    scale, zero_point = q.input_quantization
    low, high = LIMITS[dtype]
    seen = np.clip(np.rint(x / np.float32(scale)) + zero_point, low, high)
    np.testing.assert_array_equal(q.predict_integers((seen - zero_point) * np.float32(scale)), integers)


def test_ends_that_are_no_integers(data):
    x, _ = data
    for options in ({"scheme": "dynamic"}, {"scheme": "weight_only"}):
        q = quantize(classifier(), x, **options)
        assert q.input_quantization is None and q.output_quantization is None
    normed = quantize(Sequential([Input((2, 3)), Flatten(), LayerNormalization(), Dense(2)]), x.reshape(-1, 2, 3))
    assert normed.input_quantization is None and normed.output_quantization is not None
