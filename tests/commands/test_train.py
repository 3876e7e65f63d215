"""From a table to a folder, to predictions, to a smaller model: `nbdense train` and all that works on what it wrote."""

import csv
import json
import re
import shutil
import signal
import sys
import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest

from nbdense.commands import cli
from nbdense.commands.trained import folder as folders
from nbdense.commands.trained import pipelines
from tests.commands.csv_files import raw_columns, write_members, write_prices

FILES = {
    "columns.json",
    "metrics.json",
    "network.safetensors",
    "pipeline.onnx",
    "pipeline.skops",
    "plots",
    "report.html",
}
KINDS = {"age": "number", "visits": "number", "city": "text", "joined": "date", "member": "boolean"}
QUICK = ["--hidden", "16", "--epochs", "20", "--rate", "0.005"]


def run(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    lines = captured.err.splitlines(keepends=True)  # but those of a first run on this machine
    return code, captured.out, "".join(line for line in lines if not line.startswith("nbdense: compiling "))


def run_json(capsys, *arguments):
    code, out, err = run(capsys, *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    return write_members(tmp_path_factory.mktemp("data") / "members.csv")


@pytest.fixture(scope="module")
def trained(members):
    out = members.parent / "model"
    weights = ["--class-weight", "balanced"]
    assert cli.main(["train", str(members), "--target", "leaves", "--out", str(out), *weights, *QUICK]) == 0
    return out


@pytest.fixture(scope="module")
def regression(tmp_path_factory):
    data = write_prices(tmp_path_factory.mktemp("prices") / "prices.csv")
    out = data.parent / "model"
    assert cli.main(["train", str(data), "--target", "price", "--out", str(out), *QUICK]) == 0
    return data, out


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def session_of(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_train_says_what_it_found(members, tmp_path, capsys):
    code, out, err = run(capsys, "train", members, "--target", "leaves", "--out", tmp_path / "m", *QUICK)
    assert code == 0 and not err  # stderr is no terminal
    for line in (
        r"members\.csv: 1,000 rows, 5 columns to learn from",
        r"number   age, visits",
        r"text     city",
        r"date     joined",
        r"boolean  member",
        r"left out id: text that hardly repeats, 1,000 different in 1,000 rows",
        r"target 'leaves': classification, 2 classes: no 88\.0%, yes 12\.0%",
        r"note: yes is in 12\.0% of the rows; --class-weight balanced lets all classes weigh alike",
        r"test  accuracy .* \(the commonest class alone 88\.00%\)",
    ):
        assert re.search(line, out), line
    assert {path.name for path in (tmp_path / "m").iterdir()} == FILES


def test_it_has_learnt(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["test"]["balanced_accuracy"] > 0.8 and metrics["test"]["roc_auc"] > 0.9
    assert metrics["training"]["test_rows"] == metrics["test"]["rows"] == 200
    assert np.sum(metrics["test"]["confusion"]) == 200
    assert {entry["name"] for entry in metrics["importance"]} == set(KINDS)
    by_name = {entry["name"]: entry for entry in metrics["data"]["columns"]}
    assert by_name["city"]["different"] == 3 and 0 < by_name["age"]["missing"] < 200


def test_onnx_on_raw_columns_gives_the_answers_of_predict(members, trained, tmp_path, capsys):
    out = tmp_path / "predictions.csv"
    assert run(capsys, "predict", trained, members, "--out", out, "--probabilities")[0] == 0
    session = session_of(trained / "pipeline.onnx")
    assert {entry.name for entry in session.get_inputs()} == set(KINDS)
    labels, probabilities = session.run(None, raw_columns(members, KINDS))
    rows = rows_of(out)
    assert [row["prediction"] for row in rows] == labels.tolist()
    assert {"yes", "no"} == set(labels)
    said = [[float(row["probability of no"]), float(row["probability of yes"])] for row in rows]
    np.testing.assert_allclose(probabilities, said, atol=1e-5)


def test_the_onnx_file_says_how_cells_are_given(trained):
    metadata = {entry.key: entry.value for entry in onnx.load(trained / "pipeline.onnx").metadata_props}
    columns = json.loads(metadata["columns"])
    assert {name: entry["kind"] for name, entry in columns.items()} == KINDS
    assert columns["joined"]["cell"].startswith("whole days since 1970-01-01")
    assert columns["city"]["cell"] == 'text; "" for a missing cell'
    assert (metadata["target"], metadata["task"]) == ("leaves", "classification")


def test_predict_in_every_way(members, trained, tmp_path, capsys):
    code, text, _ = run(capsys, "predict", trained, members)
    answers = [row["prediction"] for row in csv.DictReader(text.splitlines())]
    assert code == 0 and len(answers) == 1000
    assert [row["prediction"] for row in run_json(capsys, "predict", trained, members)["rows"]] == answers
    assert run(capsys, "predict", trained / "pipeline.skops", members, "--out", tmp_path / "p.json")[0] == 0
    assert [row["prediction"] for row in json.loads((tmp_path / "p.json").read_text())] == answers
    # The target may be missing, columns may come in another order, and unknown text and missing cells are answered too
    lines = ["city,member,age,visits,joined", "Paris,,,1.5,2019-01-01", ",True,30,,"]
    (tmp_path / "new.csv").write_text("\n".join(lines))
    assert len(run(capsys, "predict", trained, tmp_path / "new.csv")[1].splitlines()) == 3


def test_evaluate(members, trained, capsys):
    scores = run_json(capsys, "evaluate", trained, members)
    answers = [row["prediction"] for row in run_json(capsys, "predict", trained, members)["rows"]]
    right = [row["leaves"] == answer for row, answer in zip(rows_of(members), answers, strict=True)]
    assert scores["accuracy"] == np.mean(right)
    code, text, _ = run(capsys, "evaluate", trained, members)
    assert code == 0 and f"accuracy {scores['accuracy']:.2%}" in text


def test_the_same_seed_the_same_answers(members, trained, tmp_path, capsys):
    weights = ["--class-weight", "balanced"]
    for seed, same in ((0, True), (1, False)):
        out = tmp_path / str(seed)
        assert (
            run(capsys, "train", members, "--target", "leaves", "--out", out, *weights, *QUICK, "--seed", seed)[0] == 0
        )
        for name in ("metrics.json", "network.safetensors", "pipeline.onnx", "report.html"):
            assert ((out / name).read_bytes() == (trained / name).read_bytes()) is same


def test_regression(regression, tmp_path, capsys):
    data, out = regression
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["task"] == "regression" and metrics["test"]["r2"] > 0.95
    predicted = [row["prediction"] for row in run_json(capsys, "predict", out, data)["rows"]]
    (values,) = session_of(out / "pipeline.onnx").run(None, raw_columns(data, {"area": "number", "floor": "number"}))
    np.testing.assert_allclose(values[:, 0], predicted, rtol=1e-5)
    actual = np.array([float(row["price"]) for row in rows_of(data)])
    rmse = np.sqrt(np.mean((np.array(predicted) - actual) ** 2))
    assert run_json(capsys, "evaluate", out, data)["rmse"] == pytest.approx(rmse)


def test_npy_and_parquet(tmp_path, capsys):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    np.save(tmp_path / "t.npy", np.column_stack([x, x[:, 0] > 0]))
    options = ["--target", "3", "--out", tmp_path / "m", "--hidden", "4", "--epochs", "5", "--test", "0"]
    assert run(capsys, "train", tmp_path / "t.npy", *options)[0] == 0
    assert json.loads((tmp_path / "m" / "metrics.json").read_text())["test"] is None
    assert len(run_json(capsys, "predict", tmp_path / "m", tmp_path / "t.npy")["rows"]) == 200


# -- on what train wrote ---------------------------------------------------------------------------------------------


def test_quantize(members, trained, tmp_path, capsys):
    out = tmp_path / "int8"
    result = run_json(capsys, "quantize", trained, "--data", members, "--out", out)
    assert {path.name for path in out.iterdir()} == FILES
    assert abs(result["after"]["accuracy"] - result["before"]["accuracy"]) < 0.03
    assert result["sizes"]["network_bytes"] < result["sizes"]["float32_bytes"]
    operators = {node.op_type for node in onnx.load(out / "pipeline.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    labels, _ = session_of(out / "pipeline.onnx").run(None, raw_columns(members, KINDS))
    answers = [row["prediction"] for row in run_json(capsys, "predict", out, members)["rows"]]
    assert np.mean(labels == np.array(answers)) >= 0.995
    assert run(capsys, "verify", out, "--data", members)[0] == 0
    assert "Quantization noise by layer" in (out / "report.html").read_text()
    code, text, _ = run(capsys, "inspect", out)
    assert code == 0 and "int8" in text


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_quantize_within_a_budget(members, trained, regression, tmp_path, capsys, task):
    """The search goes by the score that the folder has."""
    data, model = (members, trained) if task == "classification" else regression
    name = "accuracy" if task == "classification" else "r2"
    out = tmp_path / "int4"
    result = run_json(capsys, "quantize", model, "--data", data, "--bits", "4", "--budget", "0.001", "--out", out)
    found = json.loads((out / "metrics.json").read_text())["quantization"]["report"]["model"]["metric"]
    assert found["budget"] == 0.001 and found["quantized"] >= found["float"] - 0.001
    assert found["float"] == pytest.approx(result["before"][name], abs=1e-6)
    assert found["quantized"] == pytest.approx(result["after"][name], abs=1e-6)


def test_prune(members, trained, tmp_path, capsys):
    out = tmp_path / "pruned"
    result = run_json(capsys, "prune", trained, "--sparsity", "0.5", "--data", members, "--out", out, "--epochs", "5")
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["network"]["kept"] == round(0.5 * metrics["network"]["weights"])
    assert result["after"]["roc_auc"] > 0.9
    assert run(capsys, "verify", out)[0] == 0


def test_pruned_neurons_of_a_regression_keep_its_scale(regression, tmp_path, capsys):
    data, model = regression
    out = tmp_path / "narrow"
    result = run_json(
        capsys,
        *(
            "prune",
            model,
            "--sparsity",
            "0.25",
            "--structure",
            "neuron",
            "--data",
            data,
            "--out",
            out,
            "--epochs",
            "20",
        ),
    )
    assert json.loads((out / "metrics.json").read_text())["network"]["widths"] == [2, 12, 1]
    assert result["after"]["r2"] > 0.9
    assert run(capsys, "verify", out, "--data", data)[0] == 0


def test_files_of_networks(trained, tmp_path, capsys):
    network, rows = trained / "network.safetensors", tmp_path / "rows.npy"
    width = json.loads((trained / "metrics.json").read_text())["network"]["widths"][0]
    np.save(rows, np.random.default_rng(0).normal(size=(100, width)).astype(np.float32))
    small, sparse = tmp_path / "int8.safetensors", tmp_path / "sparse.safetensors"
    assert run(capsys, "quantize", network, "--data", rows, "--out", small)[0] == 0
    assert run(capsys, "prune", network, "--sparsity", "0.5", "--out", sparse)[0] == 0
    for model in (network, small, sparse):
        graph = tmp_path / f"{model.stem}.onnx"
        assert run(capsys, "export", model, "--to", "onnx", "--out", graph)[0] == 0
        code, text, _ = run(capsys, "verify", model, graph, "--data", rows)
        assert code == 0 and text.startswith("agrees")
    code, text, _ = run(capsys, "verify", sparse, tmp_path / "network.onnx", "--data", rows)
    assert code == 3 and text.startswith("differs")


def test_inspect(trained, capsys):
    result = run_json(capsys, "inspect", trained)
    assert result["columns"] == KINDS
    assert result["files"]["pipeline.onnx"] == (trained / "pipeline.onnx").stat().st_size
    code, text, _ = run(capsys, "inspect", trained, "--target", "cortex-m4")
    assert code == 0 and "once it is quantized to int8" in text and "hidden_1" in text
    graph = run_json(capsys, "inspect", trained / "pipeline.onnx")
    assert set(graph["inputs"]) == set(KINDS) and "columns" in graph["metadata"]
    network = run_json(capsys, "inspect", trained / "network.safetensors")
    (kernel,) = (entry for entry in network["tensors"] if entry["name"] == "hidden_1/kernel")
    assert sum(kernel["histogram"]["counts"]) == np.prod(kernel["shape"]) and kernel["least"] < 0 < kernel["largest"]


def test_verify_finds_a_difference(trained, members, tmp_path, capsys):
    model = onnx.load(trained / "pipeline.onnx")
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2:
            values = onnx.numpy_helper.to_array(tensor) * 1.5
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, tmp_path / "spoilt.onnx")
    code, text, _ = run(capsys, "verify", trained, tmp_path / "spoilt.onnx", "--data", members)
    assert code == 3 and text.startswith("differs: spoilt.onnx on 1,000 rows")


def test_bench(trained, capsys):
    timings = run_json(capsys, "bench", trained, "--batches", "1,8", "--seconds", "0.01")["timings"]
    assert {entry["runner"] for entry in timings} == {"nbdense", "onnxruntime"}
    assert {entry["batch"] for entry in timings} == {1, 8} and all(entry["microseconds"] > 0 for entry in timings)


def test_export_of_a_folder_is_its_network(trained, tmp_path, capsys):
    code, _text, _ = run(capsys, "export", trained, "--to", "c", "--out", tmp_path / "net.c")
    assert code == 0 and (tmp_path / "net.c").exists() and (tmp_path / "net.h").exists()


# -- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "nowhere", "{data}"], "no model at nowhere: expected a folder that `nbdense train` wrote"),
        (["predict", "{model}", "nowhere.csv"], "no data file at nowhere.csv"),
        (["inspect", "nowhere"], "no model at nowhere"),
        (["quantize", "nowhere.safetensors"], "no model file at nowhere.safetensors"),
        (["quantize", "{model}", "--out", "new"], "calibration"),
        (["prune", "{model}", "--sparsity", "0.5", "--out", "{model}"], "--overwrite"),
        (["train", "{data}", "--target", "left"], "there is no column 'left' (--target)"),
        (["train", "{data}", "--target", "leaves", "--out", "{model}"], "is there already: choose another --out"),
        (["train", "{data}", "--target", "leaves", "--overwrite", "--out", "{folder}"], "not of nbdense's making"),
        (["train", "{data}", "--target", "leaves", "--class-weight", "maybe=2"], "'maybe' is none of the classes"),
        (["train", "{data}", "--target", "age", "--class-weight", "balanced"], "goes with classification"),
        (["evaluate", "{model}", "{data}", "--drop", "leaves"], "lacks the target 'leaves'"),
        (["verify", "{model}/network.safetensors"], "name the ONNX or TFLite file"),
    ],
)
def test_mistakes(members, trained, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    before = content(trained)
    places = {"data": members, "model": trained, "folder": members.parent}
    code, _out, err = run(capsys, *(argument.format(**places) for argument in arguments))
    assert code == 1 and message in err
    assert err.startswith(f"nbdense {arguments[0]}: ") and err.count("\n") == 1
    assert not list(tmp_path.iterdir()) and content(trained) == before


def test_data_that_changed(trained, tmp_path, capsys):
    data, out = tmp_path / "new.csv", tmp_path / "p.csv"
    out.write_text("mine")
    for text, message in (
        ("age,visits,city,joined\n1,2,Rome,2019-01-01\n", "lacks the column 'member'"),
        (
            "age,visits,city,joined,member,x\n1,2,Rome,2019-01-01,True,1\n",
            "has a column 'x' that the model does not know",
        ),
        ("age,visits,city,joined,member\nold,2,Rome,2019-01-01,True\n", "'age' is of numbers, but row 1 holds 'old'"),
        ("age,visits,city,joined,member\n1,2,Rome,2019-01-01,True,5,6\n", "cells"),
    ):
        data.write_text(text)
        code, _, err = run(capsys, "predict", trained, data, "--out", out)
        assert code == 1 and message in err and err.count("\n") == 1
    assert out.read_text() == "mine"
    data.write_text("age,visits,city,joined,member,x\n1,2,Rome,2019-01-01,True,1\n")
    assert run(capsys, "predict", trained, data, "--drop", "x")[0] == 0


def test_what_a_pipeline_file_names_is_not_run(trained, tmp_path, capsys, monkeypatch):
    """A file that names another function is refused before that is imported."""
    copy = tmp_path / "model"
    copy.mkdir()
    for name, text in content(trained).items():
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_bytes(text)
    with zipfile.ZipFile(trained / "pipeline.skops") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["schema.json"] = (
        parts["schema.json"]
        .replace(b'"MLPClassifier"', b'"Popen"')
        .replace(b'"nbdense.estimators.classifier"', b'"subprocess"')
    )
    with zipfile.ZipFile(copy / "pipeline.skops", "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    code, _, err = run(capsys, "inspect", copy)
    assert code == 1 and "names subprocess.Popen, which no pipeline of nbdense's holds" in err
    shutil.copy(trained / "pipeline.skops", copy)
    with monkeypatch.context() as patch:
        patch.setattr(pipelines, "LARGEST", 10_000)
        assert "would unpack to more than 10,000 bytes" in run(capsys, "inspect", copy)[2]
    (copy / "pipeline.skops").write_bytes(b"PK\3\4 and so on")
    code, _, err = run(capsys, "inspect", copy)
    assert code == 1 and "is damaged, or no pipeline file" in err and err.count("\n") == 1
    (copy / "columns.json").write_text("{")
    assert "columns.json is damaged" in run(capsys, "inspect", copy)[2]


@pytest.mark.parametrize("name", ["columns.json", "network.safetensors"])
def test_a_full_disk_leaves_the_old_folder(members, trained, tmp_path, capsys, monkeypatch, name):
    """The disk is full at the folder's first file, or at its last."""
    out = tmp_path / "model"
    options = ["train", members, "--target", "leaves", "--out", out, *QUICK]
    assert run(capsys, *options)[0] == 0
    before = content(out)

    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    if name == "columns.json":
        monkeypatch.setattr(folders, "_write", full)
    else:
        monkeypatch.setattr("nbdense.models.sequential.Sequential.save", full)
    code, _, err = run(capsys, *options, "--overwrite")
    assert code == 1 and err.count("\n") == 1 and "No space left on device" in err
    assert content(out) == before and [path.name for path in tmp_path.iterdir()] == ["model"]


def test_overwrite(trained, members, tmp_path, capsys):
    out = tmp_path / "model"
    options = ["train", members, "--target", "leaves", "--out", out, *QUICK]
    assert run(capsys, *options)[0] == 0
    first = (out / "network.safetensors").read_bytes()
    assert run(capsys, *options, "--overwrite", "--seed", "5")[0] == 0
    assert (out / "network.safetensors").read_bytes() != first
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_ctrl_c_while_it_trains(members, tmp_path, capsys):
    """An estimator takes Ctrl-C for the end of its training, and goes on; the command does not."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 2.0)
    endless = ["--epochs", "10000000", "--patience", "10000000"]
    try:
        code, _, err = run(capsys, "train", members, "--target", "leaves", "--out", tmp_path / "m", *endless)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert code == 130 and err == "nbdense: interrupted\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["pandas", "skl2onnx", "sklearn", "skops"])
def test_without_an_extra(members, tmp_path, capsys, monkeypatch, missing):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, missing, None)
    code, _, err = run(capsys, "train", members, "--target", "leaves")
    assert code == 1 and err == f"nbdense train: tables of data need {missing}: pip install 'nbdense[table]'\n"
    assert not list(tmp_path.iterdir())
