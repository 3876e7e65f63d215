"""Reports of pruned models, sweeps over sparsity, and what pruning, quantizing and exporting make together."""

import json

import matplotlib as mpl
import numpy as np
import pytest

import nbdense as nb
from nbdense.quant import PruningSchedule, prune, pruning_report, sparsity_sweep
from tests.support.builders import make_model

RNG = np.random.default_rng(8)
X = RNG.normal(size=(200, 6)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(np.int64)


@pytest.fixture(autouse=True)
def _no_window():
    mpl.use("agg")


@pytest.fixture
def model():
    made = make_model([6, 16, 8, 2], ["relu", "relu", "softmax"], "sparse_categorical_crossentropy", "adam",
                      metrics=["accuracy"], dtype="float32")  # fmt: skip
    made.fit(X, Y, epochs=10, verbose=0)
    return made


def test_a_report_counts_what_is_there(model):
    pruned = prune(model, 0.75)
    report = pruning_report(pruned, model, evaluate=(X, Y), form="dict")
    assert json.loads(json.dumps(report)) == report
    kernels = pruned.get_weights()[::2]
    for layer, kernel in zip(report["layers"], kernels, strict=True):
        assert layer["kernel"] == list(kernel.shape) and layer["weights"] == kernel.size
        assert layer["kept"] == layer["kept_multiply_adds"] == int((kernel != 0).sum())
        assert layer["sparsity"] == pytest.approx((kernel == 0).mean())
        assert layer["empty_rows"] == sum(not row.any() for row in kernel)
        assert layer["empty_columns"] == sum(not column.any() for column in kernel.T)
    weights = 6 * 16 + 16 * 8 + 8 * 2
    totals = report["model"]
    assert totals["sparsity"] == 0.75 and totals["multiply_adds"] == weights
    assert totals["parameters"] == weights + 26 and totals["kept_parameters"] == weights // 4 + 26
    assert totals["kept_multiply_adds"] == weights // 4 and totals["bytes"] == 4 * (weights + 26)
    assert totals["compressed_bytes"] < totals["file_bytes"] > totals["bytes"]
    assert totals["score"] == pytest.approx(pruned.evaluate(X, Y)[1])
    assert report["before"]["score"] == pytest.approx(model.evaluate(X, Y)[1])
    assert report["before"]["sparsity"] == 0


def test_a_report_counts_multiply_adds_at_every_position():
    model = nb.Sequential([nb.Input((5, 4)), nb.Dense(3), nb.Flatten(), nb.Dense(2)])
    layers = pruning_report(model, form="dict")["layers"]
    assert [layer["multiply_adds"] for layer in layers] == [5 * 12, 30]


def test_reports_as_text_table_and_plot(model, tmp_path):
    pruned = prune(model, 0.75)
    text = pruning_report(pruned, model, lambda m: 0.5)
    assert "75.00% of the weights are zero; 86 of 266 parameters" in text and text.count("score 0.5000") == 2
    table = pruning_report(pruned, form="table")
    assert table[0][0] == "layer" and [row[0] for row in table[1:]] == ["dense", "dense_1", "dense_2"]
    assert {len(row) for row in table} == {9}
    figure = pruning_report(pruned, form="plot")
    assert len(figure.axes) == 3
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), pruned.get_weights()[0] != 0)
    figure.savefig(tmp_path / "patterns.png")
    with pytest.raises(ValueError, match="pruning_report: form must be 'text' or .*got 'html'"):
        pruning_report(pruned, form="html")
    with pytest.raises(ValueError, match="pruning_report: expected a built model or a Network, got int"):
        pruning_report(3)


def test_sweeps(model, capsys, tmp_path):
    tuned = []
    sweep = sparsity_sweep(
        model, (X, Y), [0, 0.5, 0.9], fine_tune=lambda m: tuned.append(m.fit(X, Y, verbose=0)), keep_models=True
    )
    assert "100%" in capsys.readouterr().err
    assert sweep.sparsities == [0, 0.5, 0.9] and len(tuned) == 3
    assert sweep.parameters == [266, 146, 50]
    for pruned, score, count in zip(sweep.models, sweep.scores, sweep.parameters, strict=True):
        assert score == pytest.approx(pruned.evaluate(X, Y)[1])
        assert sum(int((kernel != 0).sum()) for kernel in pruned.get_weights()[::2]) == count - 26
    assert str(sweep).splitlines()[2].split()[:2] == ["50.00%", "146"]
    ax = sweep.plot()
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), sweep.scores)
    ax.figure.savefig(tmp_path / "sweep.png")
    narrow = sparsity_sweep(model, (X, Y), [0.5], verbose=0, structure="neuron")
    assert narrow.parameters[0] < 146 and narrow.models == []
    assert capsys.readouterr().err == ""
    with pytest.raises(ValueError, match=r"^sparsity_sweep: evaluate must be \(x, y\), or a function"):
        sparsity_sweep(model, X, [0.5], verbose=0)
    with pytest.raises(ValueError, match=r"each of sparsities must lie in \[0, 1\), got 1.5"):
        sparsity_sweep(model, (X, Y), [0.5, 1.5], verbose=0)


@pytest.mark.parametrize("bits", [8, 4])
def test_pruned_quantized_and_trained_with_both_held(model, bits, tmp_path):
    model.fit(X, Y, epochs=8, verbose=0, callbacks=[PruningSchedule(0.7, frequency=5)])
    held = [kernel == 0 for kernel in model.get_weights()[::2]]
    assert sum(int(zero.sum()) for zero in held) == round(0.7 * 240)
    aware = nb.quantize_aware(model, X, bits=bits)
    aware.fit(X, Y, epochs=3, verbose=0)
    kernels = [view for name, view in aware.parameters.items() if name.endswith("kernel")]
    for kernel, zero in zip(kernels, held, strict=True):
        assert not kernel[zero].any() and kernel[~zero].all()
    assert not aware.state[1:, aware.network.mask == 0].any()
    quantized = nb.quantize(aware)
    for layer, zero in zip(quantized.network.layers, held, strict=True):
        assert layer.kernel.dtype == np.int8 and not layer.kernel[zero].any()
    quantized.save(tmp_path / "plain")
    quantized.save(tmp_path / "q", compressed=True)
    loaded = nb.load_model(tmp_path / "q")
    np.testing.assert_array_equal(loaded.predict_integers(X), quantized.predict_integers(X))
    aware.save(tmp_path / "aware", compressed=True)
    again = nb.load_model(tmp_path / "aware")
    again.fit(X, Y, epochs=1, verbose=0)
    again_kernels = [view for name, view in again.parameters.items() if name.endswith("kernel")]
    for kernel, zero in zip(again_kernels, held, strict=True):
        assert not kernel[zero].any()
    nb.to_onnx(quantized, tmp_path / "q.onnx")  # compared with onnxruntime


def test_zeros_of_a_pruned_model_are_written_out(model):
    """ONNX's initializers are dense, and those of a model with fewer neurons smaller."""
    pruned = prune(model, 0.75)
    sizes = [len(nb.to_onnx(m).SerializeToString()) for m in (model, pruned, prune(model, 0.5, structure="neuron"))]
    assert abs(sizes[0] - sizes[1]) < 100 < sizes[0] - sizes[2]
