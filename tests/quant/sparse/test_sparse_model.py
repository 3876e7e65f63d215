"""sparsify() and SparseModel: the dense network's bits in every form, what is picked, files, reports."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import nbdense as nb
from nbdense.files import FileFormatError
from nbdense.layers import BatchNormalization, Dense, Flatten, Input, LayerNormalization, Residual
from nbdense.models import Sequential, load_model
from nbdense.quant import QuantizedModel, prune, quantize
from nbdense.quant.kernels.sparse_tiles import LANES
from nbdense.quant.sparse import choosing
from nbdense.quant.sparse.forms import DENSE, FLOAT_FORMS, INTEGER_FORMS, Form
from nbdense.quant.sparse.model import SparseModel
from nbdense.quant.sparse.programs import Limits
from nbdense.quant.sparse.sparsify import sparsify

FEW = Limits().few
ROWS = [0, 1, FEW, FEW + 1, 16, 17, 100]
FORMS = [*FLOAT_FORMS, DENSE]
EPS = float(np.finfo(np.float32).eps)


def pruned(layers, seed=0, share=0.8, shape=(37,)):
    model = Sequential([Input(shape), *layers])
    rng = np.random.default_rng(seed)
    weights = {name: rng.normal(size=view.shape) for name, view in model.parameters.items()}
    for name, view in model.parameters.items():
        view[...] = abs(weights[name]) if name.endswith("variance") else weights[name]
    return prune(model, share)


def plain(seed=0, share=0.8):
    return pruned([Dense(40, "relu"), Dense(24, "tanh"), Dense(5, "softmax")], seed, share)


def rows_of(model, rows, seed=1):
    return np.random.default_rng(seed).normal(size=(rows, *model.input_shape[1:])).astype(np.float32)


def same(a, b):
    np.testing.assert_array_equal(a, b)
    assert a.dtype == b.dtype


@pytest.mark.parametrize("form", FORMS)
def test_outputs_are_the_dense_models_bit_for_bit(form):
    model = plain()
    sparse = sparsify(model, choice=form)
    for rows in ROWS:
        x = rows_of(model, rows)
        same(sparse.predict(x), model.predict(x))


def test_outputs_are_the_masked_networks():
    """A reference in float64 that knows nothing of the library."""
    model = pruned([Dense(300, "relu"), Dense(7)], shape=(130,), share=0.9)
    x = rows_of(model, 33)
    w, b, v, c = (tensor.astype(np.float64) for tensor in model.get_weights())
    hidden = np.maximum(x.astype(np.float64) @ w + b, 0)
    sizes = (np.abs(x) @ np.abs(w) + np.abs(b)) @ np.abs(v) + np.abs(c)  # of the terms
    for form in FLOAT_FORMS:
        got = sparsify(model, choice=form).predict(x)
        assert (np.abs(got - (hidden @ v + c)) <= 8 * EPS * sizes).all()  # two layers


@pytest.mark.parametrize("form", ["1x1", "1x16"])
@pytest.mark.parametrize("rows", [1, 50])
@pytest.mark.parametrize(
    "layers, shape",
    [
        ([Dense(20, "relu"), Residual([LayerNormalization(), Dense(20, "gelu"), Dense(20)]), Dense(3)], (9,)),
        ([Dense(8, "softsign"), Dense(6, "log_softmax"), Flatten(), Dense(4, "softmax")], (3, 5)),
        ([Dense(1), Dense(1, "relu6"), Dense(17, "elu")], (1,)),
    ],
)
def test_layers_around_sparse_ones(layers, shape, rows, form):
    model = pruned([layer.copy() for layer in layers], shape=shape, share=0.6)
    x = rows_of(model, rows)
    same(sparsify(model, choice=form).predict(x), sparsify(model, choice=DENSE).predict(x))
    same(sparsify(model, choice=(DENSE, form)).predict(x), model.predict(x))


def test_batch_normalisation_is_folded_and_zeros_stay():
    model = pruned([Dense(12), BatchNormalization(), Dense(3)], share=0.5)
    sparse = sparsify(model, choice="1x1")
    assert [layer["sparsity"] for layer in sparse.report("dict", timings=False)["layers"]] == [
        float((w == 0).mean()) for w in model.get_weights() if w.ndim == 2
    ]
    np.testing.assert_allclose(
        sparse.predict(rows_of(model, 20)), model.predict(rows_of(model, 20)), rtol=1e-4, atol=1e-4
    )


@settings(deadline=None, max_examples=20)
@given(
    st.integers(1, 70), st.integers(1, 40), st.sampled_from([0.0, 0.3, 0.97]), st.sampled_from([1, 8, 30]), st.data()
)
def test_drawn_shapes(n_in, n_out, share, rows, data):
    model = pruned([Dense(n_out, "relu"), Dense(3)], shape=(n_in,), share=share)
    names = [layer.name for layer in model.layers]
    forms = st.sampled_from(FORMS)
    choice = {name: data.draw(st.tuples(forms, forms)) for name in names}
    x = rows_of(model, rows)
    same(sparsify(model, choice=choice).predict(x), model.predict(x))


def test_a_layer_without_weights():
    model = plain()
    weights = model.get_weights()
    weights[2][...] = 0
    model.set_weights(weights)
    for form in FLOAT_FORMS:
        for rows in (1, 20):
            same(sparsify(model, choice=form).predict(rows_of(model, rows)), model.predict(rows_of(model, rows)))


def test_a_row_with_a_nan_harms_no_other():
    model = plain()
    sparse = sparsify(model, choice="1x1")
    x = rows_of(model, 20)
    clean = sparse.predict(x)
    x[3, 5] = np.nan
    for part in (x, x[2:6]):
        got = sparse.predict(part)
        there = np.isnan(part).any(axis=1)
        assert np.isnan(got[there]).all()
        same(got[~there], (clean if len(part) == 20 else clean[2:6])[~there])


@pytest.mark.parametrize("form", [*INTEGER_FORMS, DENSE])
@pytest.mark.parametrize("options", [{}, {"activation_dtype": "uint8"}, {"rounding": "tflite"}, {"bits": 4}])
def test_integers_are_the_quantized_models(form, options):
    model = plain(share=0.9)
    dense = quantize(model, rows_of(model, 100), **options)
    sparse = sparsify(dense, choice=form)
    for rows in ROWS:
        x = rows_of(model, rows, 2)
        same(sparse.predict_integers(x), dense.predict_integers(x))
        same(sparse.predict(x), dense.predict(x))


@pytest.mark.parametrize("integers", [False, True])
def test_threads_and_parts_change_no_bit(integers):
    model = pruned([Dense(256, "relu"), Dense(256, "relu"), Dense(10, "softmax")], shape=(200,))
    x = rows_of(model, 700)
    sparse = sparsify(quantize(model, x), choice="4x16") if integers else sparsify(model, choice="1x1")
    nb.set_num_threads(1)
    try:
        one = sparse.predict(x)
    finally:
        nb.set_num_threads(2)
    same(sparse.predict(x), one)
    same(sparse.predict(x, batch_size=37), one)
    same(np.concatenate([sparse.predict(x[i : i + 1]) for i in range(20)]), one[:20])


# -- what is picked --


def timed_as(monkeypatch, seconds):
    """Let a program take the seconds a call that ``seconds`` gives for how many of its kernels are sparse, and rows."""
    made = choosing.program_of

    def program_of(network, kernels):
        program = made(network, kernels)
        values = program.values
        program.values = lambda x: (taken.append(seconds(kernels, len(x))), values(x))[1]
        return program

    def timings(calls):
        times = {}
        for name, call in calls.items():
            taken.clear()
            call()
            times[name] = list(taken)
        return times

    taken = []
    monkeypatch.setattr(choosing, "program_of", program_of)
    monkeypatch.setattr(choosing, "timings", timings)


def test_the_faster_forms_are_picked(monkeypatch):
    model = plain()
    timed_as(monkeypatch, lambda kernels, rows: rows * 0.5 if kernels.blocks else rows)
    sparse = sparsify(model)
    assert set(sparse.choice.values()) == {Form("1x1", "1x1")}
    assert sparse.limits == Limits(LANES - 1, LANES)


def test_all_are_dense_where_none_is_much_faster(monkeypatch):
    model = plain()
    timed_as(monkeypatch, lambda kernels, rows: 0.97 if kernels.blocks else 1.0)
    sparse = sparsify(model)
    assert set(sparse.choice.values()) == {Form(DENSE, DENSE)}
    x = rows_of(model, 20)
    same(sparse.predict(x), model.predict(x))


def test_a_layer_that_is_faster_dense_is_dense_among_sparse_ones(monkeypatch):
    timed_as(monkeypatch, lambda kernels, rows: 1.0 - 0.2 * len(kernels.blocks) + 0.4 * (1 in kernels.blocks))
    sparse = sparsify(plain())
    assert [form.few for form in sparse.choice.values()] == ["1x1", DENSE, "1x1"]


def test_calls_between_few_rows_and_many_run_dense(monkeypatch):
    """A row takes a third of its time in the program for few; in that for many a call costs eight rows, at first."""

    def seconds(kernels, rows):
        if not kernels.blocks:
            return float(rows)
        return rows / 3 if kernels.few else LANES / 2 * -(-rows // LANES) + 8

    timed_as(monkeypatch, seconds)
    model = plain()
    sparse = sparsify(model)
    most = sparse.limits.few
    assert set(sparse.choice.values()) == {Form("1x1", "1x1")} and 0 < most < LANES
    assert sparse.limits.many in choosing.FEWER[:-1]
    for rows in (most, most + 1, sparse.limits.many - 1, sparse.limits.many, 4 * LANES + 1, 4 * LANES + most + 1):
        x = rows_of(model, rows)
        same(sparse.predict(x), model.predict(x))


def test_blocks_are_found(monkeypatch):
    """The largest form whose blocks are full is tried, and single weights."""
    seen = set()
    timed_as(monkeypatch, lambda kernels, rows: seen.update(blocks.width for blocks in kernels.blocks.values()) or 1.0)
    model = Sequential([Input((20,)), Dense(32)])
    mask = np.repeat(np.random.default_rng(0).random((20, 4)) < 0.3, 8, axis=1)
    model.set_weights([np.where(mask, 1, 0).astype(np.float32), np.zeros(32, np.float32)])
    sparsify(model)
    assert seen == {1, 8}


def test_layers_that_gain_together_lose(monkeypatch):
    """At many rows all sparse layers are slower than the dense network, and each dense in their place slower still."""
    timed_as(monkeypatch, lambda kernels, rows: 0.5 if kernels.few else 1.5 if len(kernels.blocks) == 3 else 1.45)
    assert {form.many for form in sparsify(plain()).choice.values()} == {DENSE}


def test_what_is_full_is_not_timed(monkeypatch):
    monkeypatch.setattr(choosing, "timings", None)
    assert set(sparsify(plain(share=0.0)).choice.values()) == {Form(DENSE, DENSE)}


def test_measuring_on_this_machine():
    """A kernel of which almost nothing is left is faster without its zeros, on any machine."""
    model = pruned([Dense(512)], shape=(784,), share=0.999)
    (form,) = sparsify(model).choice.values()
    assert form.many != DENSE


# -- files --


def test_a_file_gives_the_same_model_back(tmp_path):
    model = plain()
    model.compile("sgd", "sparse_categorical_crossentropy", ["accuracy"])
    sparse = sparsify(model, choice=names_of(model))
    path = tmp_path / "m.nbdense"
    sparse.save(path)
    loaded = load_model(path)
    assert isinstance(loaded, SparseModel) and loaded.choice == sparse.choice
    assert loaded.report("dict", timings=False) == sparse.report("dict", timings=False)
    for rows in ROWS:
        same(loaded.predict(rows_of(model, rows)), sparse.predict(rows_of(model, rows)))
    x, y = rows_of(model, 30), np.arange(30) % 5
    assert loaded.evaluate(x, y) == sparse.evaluate(x, y)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def names_of(model):
    forms = [("1x1", "dense"), "1x4", "dense"]
    return dict(zip((layer.name for layer in model.layers), forms, strict=True))


def test_a_file_of_integers(tmp_path):
    model = plain(share=0.9)
    sparse = sparsify(quantize(model, rows_of(model, 50)), choice="4x16")
    sparse.save(tmp_path / "m")
    x = rows_of(model, 30)
    same(load_model(tmp_path / "m").predict_integers(x), sparse.predict_integers(x))


def test_files_are_small(tmp_path):
    model = pruned([Dense(300, "relu"), Dense(10)], shape=(784,), share=0.95)
    sparse = sparsify(model, choice="1x1")
    sparse.save(tmp_path / "m")
    kept = sum(int(np.count_nonzero(w)) for w in model.get_weights() if w.ndim == 2)
    assert (tmp_path / "m").stat().st_size < 6 * kept + 4 * 4 * 310 + 4096
    assert sparse.size_bytes == 6 * kept + 2 * 4 * 310
    assert type(sparse.network) is type(quantize(model, rows_of(model, 9)).network)


def damaged(path, change):
    """Rewrite a file with its tensors or description changed."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    tensors, config = load_file(path), json.loads(metadata["config"])
    change(tensors, config)
    save_file(tensors, path, {**metadata, "config": json.dumps(config)})


def set_to(name, index, value):
    return lambda tensors, config: tensors[name].__setitem__(index, value)


DAMAGE = {
    "an index too large": set_to("0/kernel.indices", -1, 60_000),
    "indices that fall": set_to("0/kernel.indices", slice(0, 2), [3, 3]),
    "a count below zero": set_to("0/kernel.counts", 0, -1),
    "counts of another sum": set_to("0/kernel.counts", 0, 99),
    "a weight that is none": set_to("0/kernel.values", 0, np.nan),
    "no indices": lambda tensors, config: tensors.pop("0/kernel.indices"),
    "indices of another type": lambda tensors, config: tensors.update(
        {"0/kernel.indices": tensors["0/kernel.indices"].astype(np.int64)}
    ),
    "weights of another type": lambda tensors, config: tensors.update(
        {"0/kernel.values": tensors["0/kernel.values"].astype(np.float64)}
    ),
    "another width": lambda tensors, config: config["sparse"]["0"].update(shape=[37, 400]),
    "more than memory holds": lambda tensors, config: config["sparse"]["0"].update(shape=[2**40, 40]),
    "no kernel at all": lambda tensors, config: config["sparse"]["0"].update(shape=[0, 40]),
    "an unknown form": lambda tensors, config: config["sparse"]["0"].update(form="3x3"),
    "an unknown choice": lambda tensors, config: config["choice"].update({next(iter(config["choice"])): ["1x1", "x"]}),
    "a choice too few": lambda tensors, config: config["choice"].popitem(),
    "few rows that are none": lambda tensors, config: config.update(few_rows="x"),
    "many rows that are none": lambda tensors, config: config.update(many_rows=-1),
    "no choice": lambda tensors, config: config.pop("choice"),
    "sparse what is not there": lambda tensors, config: config["sparse"].update(
        {"9": {"shape": [1, 1], "form": "1x1"}}
    ),
    "a loss that is none": lambda tensors, config: config.update(compiled={"loss": "?", "metrics": []}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_refused(damage, tmp_path):
    path = tmp_path / "m.nbdense"
    sparsify(plain(), choice="1x1").save(path)
    damaged(path, DAMAGE[damage])
    with pytest.raises(FileFormatError, match="m.nbdense"):
        load_model(path)


# -- reports, evaluation, errors --


def test_report():
    model = plain(share=0.75)
    sparse = sparsify(model, choice=names_of(model))
    report = sparse.report("dict")
    kernels = [w for w in model.get_weights() if w.ndim == 2]
    assert [layer["kept"] for layer in report["layers"]] == [int(np.count_nonzero(w)) for w in kernels]
    assert report["model"]["weights"] == sum(w.size for w in kernels)
    assert report["model"]["sparsity"] == pytest.approx(0.75, abs=1e-3)
    first, second, third = report["layers"]
    assert first["multiply_adds"] == {"few": first["kept"], "many": kernels[0].size}
    assert second["kept"] <= second["multiply_adds"]["many"] < kernels[1].size
    assert third["multiply_adds"] == dict.fromkeys(("few", "many"), kernels[2].size)
    assert report["model"]["bytes"] == sparse.size_bytes and report["model"]["memory_bytes"] > 0
    assert [set(timing) for timing in report["timings"]] == [{"rows", "us", "dense_us", "float_us"}] * 2
    assert json.loads(json.dumps(report)) == report
    text = sparse.report()
    assert sparse.report("table") in text and "microseconds a row at 256 rows" in text
    assert "microseconds" not in sparse.report(timings=False)


def test_evaluate_is_the_models():
    model = plain()
    model.set_weights([w / 5 for w in model.get_weights()])  # no probability is so small that the loss would clip it
    model.compile("sgd", "sparse_categorical_crossentropy", ["accuracy"])
    x, y = rows_of(model, 200), np.random.default_rng(0).integers(0, 5, 200)
    weights = np.linspace(0, 1, 200)
    sparse = sparsify(model, choice="1x1")
    assert sparse.evaluate(x, y) == pytest.approx(model.evaluate(x, y), rel=1e-5)
    assert sparse.evaluate(x, y, return_dict=True).keys() == model.evaluate(x, y, return_dict=True).keys()
    assert sparse.evaluate(x, y, sample_weight=weights)[0] == pytest.approx(
        model.evaluate(x, y, sample_weight=weights)[0], rel=1e-5
    )
    with pytest.raises(ValueError, match="not compiled"):
        sparsify(plain(), choice="1x1").evaluate(x, y)


def test_a_sparse_model_is_made_sparse_anew():
    model = plain()
    sparse = sparsify(sparsify(model, choice="1x1"), choice="1x4")
    same(sparse.predict(rows_of(model, 9)), model.predict(rows_of(model, 9)))


def test_it_is_exported_dense():
    from nbdense.export import from_onnx, to_onnx

    model = plain()
    x = rows_of(model, 12)
    again = from_onnx(to_onnx(sparsify(model, choice="1x1")))
    np.testing.assert_allclose(again.predict(x), model.predict(x), atol=1e-6)


def test_errors():
    model = plain()
    with pytest.raises(ValueError, match="must be one of 'dense', '1x1', '1x4', '1x8', '1x16'.*got '2x2'"):
        sparsify(model, choice="2x2")
    with pytest.raises(ValueError, match="a form for each of the layers"):
        sparsify(model, choice={"other": "1x1"})
    with pytest.raises(ValueError, match="no Dense layer"):
        sparsify(Sequential([Input((3,)), LayerNormalization()]))
    with pytest.raises(ValueError, match="must be float32, got float64"):
        sparsify(Sequential([Input((3,)), Dense(2)], dtype="float64"))
    with pytest.raises(ValueError, match="expected a built model"):
        sparsify(3)
    with pytest.raises(ValueError, match="scheme 'static' can be sparse, got 'weight_only'"):
        sparsify(quantize(model, scheme="weight_only"))
    with pytest.raises(ValueError, match="form must be"):
        sparsify(model, choice="1x1").report("plot")
    assert issubclass(SparseModel, QuantizedModel)
