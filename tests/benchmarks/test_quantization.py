"""The quantization benchmark, on digits: its parts work, its verdicts are right."""

import gzip
import json

import numpy as np
import onnx
import pytest
from sklearn.datasets import load_digits

from benchmarks.__main__ import RESULTS
from benchmarks.mnist import Rows
from benchmarks.quantization import peers, report
from benchmarks.quantization.methods import FLOAT, METHODS, OURS, Recipe, Trained, compare_export
from benchmarks.quantization.run import main, run

RECIPE = Recipe(widths=(64, 48, 33, 10), batch=32, epochs=12, rate=3e-3, aware_epochs=2, calibration=300)
INSTALLED = [name for name, method in METHODS.items() if method.installed]


@pytest.fixture(scope="module")
def rows():
    x, y = load_digits(return_X_y=True)
    x, y = (x / 16).astype(np.float32), y.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(x))
    return Rows(x[order[:1400]], y[order[:1400]], x[order[1400:]], y[order[1400:]])


@pytest.fixture(scope="module")
def trained(rows):
    return Trained(RECIPE, rows, 0)


@pytest.fixture(scope="module")
def measured(rows):
    return run(RECIPE, rows, 1)


def results(**points):
    """Return results of two seeds as if the methods were that many points above float."""
    methods = {FLOAT: {"errors": [1.5, 1.7], "bytes": 4000}}
    for name, above in points.items():
        methods[name] = {"errors": [1.5 + above[0], 1.7 + above[1]], "bytes": 1000}
    exported = {"rows": 100, "integers": 1000, "differing_integers": 1, "max_integer_difference": 1}
    return {
        "machine": {"date": "2000-01-01", "versions": {"nbdense": "0", "onnxruntime": "1"}},
        "measured_on": "test", "seeds": 2, "training_rows": 600, "rows": 100, "methods": methods,
        "recipe": {
            "widths": [4, 3, 2], "batch": 8, "epochs": 5, "rate": 1e-3, "aware_epochs": 2, "aware_rate": 1e-4,
            "calibration": 50,
        },
        "export": [{"seed": seed, "differing_classes": 0, **exported} for seed in range(2)],
    }  # fmt: skip


def test_every_method_runs(measured, rows):
    """From training to the table; 1% of these rows is four rows, which quantization may well cost here."""
    assert list(measured["methods"]) == INSTALLED
    errors = {name: row["errors"][0] for name, row in measured["methods"].items()}
    assert errors[FLOAT] < 5
    assert {name: error for name, error in errors.items() if abs(error - errors[FLOAT]) > 2} == {}
    # Ours alone: what a peer's file holds beside what its graph reads is its release's affair.
    sizes = {name: row["bytes"] for name, row in measured["methods"].items() if METHODS[name].library == OURS}
    weights = 64 * 48 + 48 * 33 + 33 * 10
    assert sizes.pop(FLOAT) == 4 * (weights + 48 + 33 + 10)
    fours = {name for name in sizes if "4" in METHODS[name].title}
    assert len(fours) >= 2 and len(sizes) - len(fours) >= 5
    assert all(weights / 2 < sizes[name] < weights for name in fours)
    assert all(weights < size < 2 * weights for name, size in sizes.items() if name not in fours)
    (exported,) = measured["export"]
    assert exported["integers"] == 10 * len(rows.x_test)
    assert exported["differing_integers"] <= 0.001 * exported["integers"] and exported["differing_classes"] == 0
    said = report.render(measured)
    assert all(f"| {METHODS[name].title} | {METHODS[name].library} |" in said for name in INSTALLED)


def test_seeds_alone_decide(measured, rows):
    again = run(RECIPE, rows, 1, ["aware_int4"])["methods"]
    assert list(again) == [FLOAT, "aware_int4"]
    assert again["aware_int4"]["errors"] == measured["methods"]["aware_int4"]["errors"]
    assert again[FLOAT]["errors"] == measured["methods"][FLOAT]["errors"]


@pytest.mark.parametrize(
    ("how", "operator", "count"),
    [("static", "QuantizeLinear", 4), ("dynamic", "MatMulInteger", 3), ("int4_gptq", "MatMulNBits", 3)],
)
def test_onnxruntime_has_quantized(trained, how, operator, count):
    before = bytes(trained.file)
    made = peers.quantize(trained.file, trained.calibration, how)
    assert sum(node.op_type == operator for node in made.graph.node) >= count
    assert trained.file == before
    floats = peers.classes(onnx.load_from_string(trained.file), trained.rows.x_test)
    np.testing.assert_array_equal(floats, trained.model.predict(trained.rows.x_test).argmax(axis=-1))
    assert (peers.classes(made, trained.rows.x_test) == floats).mean() > 0.97


def test_calibration_rows_are_all_read(rows):
    reader = peers.Reader(rows.x[:1203], "input")
    batches = []
    while (batch := reader.get_next()) is not None:
        batches.append(batch["input"])
    np.testing.assert_array_equal(np.concatenate(batches), rows.x[:1203])
    assert peers.size_bytes(onnx.ModelProto()) == 0


def test_a_wrong_export_is_seen(trained):
    """A model with other weights than the file's has other integers."""
    answer = METHODS["static"].make(trained)

    class Other:
        network = answer.model.network

        def predict(self, x):
            return answer.model.predict(x)[:, ::-1]

        def predict_integers(self, x):
            return answer.model.predict_integers(x) // 2

    found = compare_export(Other(), trained.rows)
    assert found["differing_integers"] > 0.5 * found["integers"] and found["max_integer_difference"] > 10
    assert found["differing_classes"] > 0.5 * found["rows"]
    assert found["rows"] == len(trained.rows.x_test)


def test_validation_rows_are_the_last_training_rows(rows):
    held = rows.validation(100)
    assert len(held.x) == 1300 and len(held.y) == 1300
    np.testing.assert_array_equal(held.x_test, rows.x[1300:])
    np.testing.assert_array_equal(held.y_test, rows.y[1300:])


@pytest.mark.parametrize(
    ("above", "verdict"),
    [
        ((0.05, 0.05), "met"),  # at the bound
        ((-0.05, 0.15), "met"),  # three times the bound
        ((-0.1, 0.16), "NOT MET"),  # one seed over that
        ((0.06, 0.06), "NOT MET"),  # the mean over the bound
        ((-0.5, -0.4), "met"),  # better than float
    ],
)
def test_verdicts(above, verdict):
    loss = report.losses(results(static=above))["static"]
    assert loss.mean == pytest.approx(sum(above) / 2) and loss.worst == pytest.approx(max(above))
    assert loss.verdict == verdict and loss.allowed == "0.05, a seed 0.15"
    said = report.verdicts(results(static=above)).splitlines()
    assert said[0].split()[-1] == "met" and said[1].endswith(f"  {verdict}")
    bounds = sum(method.bound is not None for method in METHODS.values())
    assert sum("not measured" in line for line in said) == bounds - 1


def test_float_models_have_a_target_too():
    good = results()
    assert report.losses(good)[FLOAT].verdict == "met"
    good["methods"][FLOAT]["errors"][1] = 2.0
    assert report.losses(good)[FLOAT].verdict == "NOT MET"


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "met"),
        ({"differing_integers": 2}, "NOT MET"),
        ({"max_integer_difference": 2}, "NOT MET"),
        ({"differing_classes": 1}, "NOT MET"),
    ],
)
def test_exported_files_are_judged_by_their_worst_seed(change, verdict):
    found = results()
    found["export"][1].update(change)
    assert report.export(found).verdict == verdict
    assert f": {verdict}." in report.render(found)
    found["export"] = []
    assert report.export(found) is None and "QDQ" not in report.render(found)


def test_published_results_are_whole():
    found = json.loads((RESULTS / "quantization.json").read_text(encoding="utf-8"))
    assert list(found["methods"]) == list(METHODS) and found["measured_on"] == "test"
    assert {len(row["errors"]) for row in found["methods"].values()} == {found["seeds"]}


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))


def test_command_line(tmp_path, capsys):
    """From idx files to JSON, and from JSON to the same report."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 400), ("t10k", 100)):
        y = rng.integers(0, 10, count).astype(np.uint8)
        images = rng.integers(0, 100, (count, 28, 28)).astype(np.uint8)
        images[np.arange(count), y] += 150  # a bright row of pixels for each class
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", y)
    path = tmp_path / "new" / "results.json"
    assert main(["--data", str(tmp_path), "--seeds", "1", "--methods", "static", "--json", str(path)]) == 0
    said = capsys.readouterr()
    assert "seed 0: trained" in said.err and f"| static int8 | {OURS} |" in said.out and "not measured" in said.out
    found = json.loads(path.read_text(encoding="utf-8"))
    assert list(found["methods"]) == [FLOAT, "static"] and found["export"][0]["rows"] == 100
    assert main(["--from", str(path)]) == 0
    assert capsys.readouterr().out == said.out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "--data"),
        (["--pages", "--validation"], "leave out --validation"),
        (["--pages", "--methods", "static"], "leave out --validation and --methods"),
        (["--methods", "none"], "--methods"),
        (["--seeds", "0"], "--seeds"),
    ],
)
def test_command_line_refuses(arguments, named, tmp_path, capsys):
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte.gz").touch()
    with pytest.raises(SystemExit):
        main(["--data", str(tmp_path), *arguments] if arguments else [])
    assert named in capsys.readouterr().err.partition("error:")[2]


def test_folder_without_the_data(tmp_path, capsys):
    """Said before anything is measured."""
    (tmp_path / "train-images-idx3-ubyte.gz").touch()
    with pytest.raises(SystemExit):
        main(["--data", str(tmp_path)])
    assert "lacks train-labels-idx1-ubyte.gz, t10k-images" in capsys.readouterr().err
