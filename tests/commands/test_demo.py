"""`nbdense demo` keeps its promises: run as a user runs it, with nothing compiled yet, and then once more."""

import contextlib
import dataclasses
import io
import os
import shutil
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest

import nbdense as nb
from nbdense._compile import kernel_cache
from nbdense.commands import cli, demo

COMMAND = "import sys; from nbdense.commands.cli import main; sys.exit(main())"
FILES = {"digits.npz"} | {
    f"{name}.{suffix}" for name in ("float", "int8", "pruned") for suffix in ("onnx", "safetensors")
}


@dataclasses.dataclass
class FirstRun:
    output: str
    errors: str
    files: dict[str, bytes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo") / "made" / "by it"


@pytest.fixture(scope="module")
def first(folder, tmp_path_factory):
    """The command in a process of its own, with an empty cache; a warning would end it.

    What it has compiled serves the other tests too.
    """
    cache = tmp_path_factory.mktemp("cache")
    environment = {**os.environ, "NBDENSE_CACHE_DIR": str(cache)}
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", COMMAND, "demo", "--out", str(folder)],
        env=environment,
        cwd=tmp_path_factory.mktemp("cwd"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    shutil.copytree(cache, kernel_cache.cache_root(), dirs_exist_ok=True)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return FirstRun(process.stdout, process.stderr, files)


@pytest.fixture(scope="module")
def results(first, folder):
    """A second run into the same folder, for its data."""
    return demo.run(folder, progress=False)


@pytest.fixture(scope="module")
def digits(results):
    with np.load(results.data) as data:
        return dict(data)


def accuracy(model, digits):
    return np.mean(model.predict(digits["x_test"]).argmax(axis=1) == digits["y_test"])


def run_onnx(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[-1]


def test_writes_its_files_and_says_where(first, folder):
    assert set(first.files) == FILES
    assert str(folder) in first.output
    assert all(name in first.output for name in FILES)


def test_shows_progress_and_says_nothing_else(first):
    lines = [line for line in first.errors.replace("\r", "\n").splitlines() if line.strip()]
    bars = [line for line in lines if "epoch" in line]
    assert any("train" in line and "100%" in line for line in bars)
    assert any("fine-tune" in line and "100%" in line for line in bars)
    assert [line for line in lines if line not in bars and not line.startswith("nbdense: compiling ")] == []


def test_second_run_gives_the_same_models(first, results):
    files = {path.name: path.read_bytes() for path in results.folder.iterdir()}
    assert set(files) == FILES
    for name in ("float", "int8", "pruned"):
        assert files[f"{name}.onnx"] == first.files[f"{name}.onnx"]


def test_accuracies(results):
    assert results.float32.accuracy >= 0.97
    assert abs(results.int8.accuracy - results.float32.accuracy) <= 0.005
    assert results.pruned.accuracy >= results.float32.accuracy - 0.01


def test_files_hold_the_models_that_were_measured(results, digits):
    assert len(digits["x_test"]) == results.test_rows == 450
    for model in (results.float32, results.int8, results.pruned):
        assert accuracy(nb.load_model(model.file), digits) == model.accuracy
        assert model.onnx_bytes == model.onnx.stat().st_size
        assert model.microseconds > 0
    assert results.int8.onnx_bytes < 0.4 * results.float32.onnx_bytes


def test_pruned_is_80_percent_zeros(results):
    model = nb.load_model(results.pruned.file)
    weights = model.get_weights()
    kernels = np.concatenate([tensor.ravel() for tensor in weights if tensor.ndim == 2])
    assert abs(np.mean(kernels == 0) - 0.8) < 1e-4
    assert results.sparsity == np.mean(kernels == 0)
    assert results.pruned.parameters == results.float32.parameters == model.count_params()
    assert results.pruned.non_zero == sum(np.count_nonzero(tensor) for tensor in weights)


@pytest.mark.parametrize("name", ["float32", "pruned"])
def test_onnx_float_is_within_1e_5(results, digits, name):
    model = getattr(results, name)
    expected = nb.load_model(model.file).predict(digits["x_test"])
    difference = np.abs(run_onnx(model.onnx, digits["x_test"]) - expected).max()
    assert difference <= 1e-5
    assert model.difference <= 1e-5
    assert model.differing_classes == 0


def test_qdq_predicts_the_same_class_on_every_row(results, digits):
    expected = nb.load_model(results.int8.file).predict(digits["x_test"]).argmax(axis=1)
    np.testing.assert_array_equal(run_onnx(results.int8.onnx, digits["x_test"]).argmax(axis=1), expected)
    assert results.int8.differing_classes == 0


def test_data_can_be_made_again_from_its_mean_and_deviation(digits):
    from sklearn.datasets import load_digits

    pixels = load_digits().data
    rows = digits["x_test"] * digits["deviation"] + digits["mean"]
    nearest = [np.abs(pixels - row).max(axis=1).min() for row in rows[:20]]
    assert max(nearest) < 1e-4


def test_table_shows_the_results(results):
    text = demo.report(results)
    for model in (results.float32, results.int8, results.pruned):
        (line,) = (line for line in text.splitlines() if line.startswith(model.name))
        assert f"{model.accuracy:.2%}" in line
        assert f"{model.onnx_bytes / 1000:.1f} kB" in line
        assert f"{model.microseconds:.3f}" in line
        assert f"{model.difference:.1e}" in line


def test_what_it_says_to_do_next_works(results):
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(demo.next_steps(results), {})
    assert float(output.getvalue()) == results.int8.accuracy
    report = demo.report(results)
    assert all(line in report for line in demo.next_steps(results).splitlines())


def test_another_seed_is_another_split():
    first, second = demo.load_data(0), demo.load_data(1)
    assert not np.array_equal(first.y_test, second.y_test)
    np.testing.assert_allclose(first.x_train.mean(axis=0), 0, atol=1e-5)
    assert first.x_train.std(axis=0).max() < 1.001


def test_onnx_that_differs_is_an_error(results, tmp_path, monkeypatch):
    import nbdense.export

    verification = nbdense.export.verify_onnx(results.float32.onnx, nb.load_model(results.float32.file))
    wrong = dataclasses.replace(verification, agrees=False)
    monkeypatch.setattr(nbdense.export, "verify_onnx", lambda *arguments: wrong)
    with pytest.raises(demo.DemoError, match=r"float\.onnx: onnxruntime does not compute what nbdense does: differs"):
        demo._export("float32", nb.load_model(results.float32.file), tmp_path, demo.load_data(0))


@pytest.fixture
def no_training(monkeypatch):
    """Errors come before the work."""

    def refuse(*arguments):
        raise AssertionError("the demo had begun")

    monkeypatch.setattr(demo, "load_data", refuse)


def test_folder_that_cannot_be_written(tmp_path, capsys, no_training):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert cli.main(["demo", "--out", str(out)]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("nbdense demo: cannot write to the folder")
        assert str(out) in captured.err
        assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (["sklearn"], "needs scikit-learn: pip install 'nbdense[sklearn]'"),
        (["onnxruntime"], "needs onnxruntime: pip install 'nbdense[onnxruntime]'"),
        (["sklearn", "onnxruntime"], "needs scikit-learn and onnxruntime: pip install 'nbdense[sklearn,onnxruntime]'"),
    ],
)
def test_missing_package(tmp_path, capsys, monkeypatch, no_training, missing, message):
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    assert cli.main(["demo", "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"nbdense demo: {message}\n"
    assert not (tmp_path / "out").exists()
