"""The sparsity benchmark, on digits: its stages work, its verdicts are right."""

import copy
import dataclasses
import json

import numpy as np
import pytest
from sklearn.datasets import load_digits

from benchmarks.mnist import Rows
from benchmarks.publishing import pages
from benchmarks.sparsity import report
from benchmarks.sparsity.recipe import DENSE, PUBLISHED, STAGES, Recipe, weights_kept
from benchmarks.sparsity.run import main, run

RECIPE = Recipe(widths=(64, 48, 33, 10), batch=32, momentum=0.9, kept=(0.6, 0.3, 0.1), frequency=10)
WEIGHTS = 64 * 48 + 48 * 33 + 33 * 10
PARAMETERS = WEIGHTS + 48 + 33 + 10


@pytest.fixture(scope="module")
def rows():
    x, y = load_digits(return_X_y=True)
    x, y = (x / 16).astype(np.float32), y.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(x))
    return Rows(x[order[:1400]], y[order[:1400]], x[order[1400:]], y[order[1400:]])


@pytest.fixture(scope="module")
def measured(rows):
    """Stages of a few epochs, that prune less than those of the table."""
    stages = {
        name: dataclasses.replace(
            stage, factor=max(1, stage.factor / 8), epochs=6, rate=5e-3, aware_epochs=2 if stage.quantized else 0
        )
        for name, stage in STAGES.items()
    }
    return run(RECIPE, stages, rows, 1)


def test_every_stage_runs_and_keeps_what_it_says(measured):
    assert list(measured["stages"]) == list(STAGES)
    for name, stage in measured["stages"].items():
        (error,), (count,), (size,) = stage["errors"], stage["parameters"], stage["file_bytes"]
        assert error < 15, name
        assert count <= PARAMETERS / stage["factor"] < count + 2, name
        floats = not stage["quantized"]
        assert size < (4 * PARAMETERS + 2000 if floats else PARAMETERS), name
    text = report.render(measured)
    assert all(f"| {stage.title} |" in text for stage in STAGES.values())
    assert all(source in text for source, *_ in PUBLISHED)


def test_weights_that_are_kept_leave_room_for_biases():
    recipe = Recipe()
    for factor, kept in ((12, 22_217), (40, 6_665), (56, 4_760)):
        assert sum(weights_kept(recipe, factor)) + 410 == kept <= 266_610 / factor
    assert weights_kept(dataclasses.replace(recipe, kept=(0.1, 0.1, 0.8)), 2) == [118_605, 13_290, 1000]


def results(**errors):
    stages = {name: {**dataclasses.asdict(stage)} for name, stage in STAGES.items()}
    for name, stage in stages.items():
        stage |= {"errors": errors.get(name, [1.5, 1.5]), "parameters": [1000, 1001], "file_bytes": [26_000, 27_000]}
    return {
        "machine": {"date": "2000-01-01", "versions": {"nbdense": "0"}},
        "measured_on": "test", "seeds": 2, "training_rows": 600, "rows": 100, "stages": stages,
        "recipe": {**dataclasses.asdict(Recipe()), "widths": [4, 3, 2]},
    }  # fmt: skip


def test_verdicts():
    made = results(**{"12x": [1.4, 1.6], "40x": [1.8, 2.0], "56x": [1.98, 2.01]})
    assert report.allowed(made, DENSE) == []
    assert report.allowed(made, "12x") == [("dense's", True), ("1.60", True)]
    assert report.allowed(made, "file") == [("1.58", True), ("27,000 bytes", True)]
    assert report.allowed(made, "40x") == [("1.90", True)]
    assert report.allowed(made, "56x") == [("1.99", False)]
    made["stages"][DENSE]["errors"] = [1.3, 1.5]
    assert report.allowed(made, "12x") == [("dense's", False), ("1.60", True)]
    made["stages"]["file"]["file_bytes"] = [20_000, 27_001]
    assert report.allowed(made, "file") == [("1.58", True), ("27,000 bytes", False)]
    assert report.render(made).count("NOT MET") == 3


def test_command_line(tmp_path, capsys, monkeypatch):
    path, page = tmp_path / "results.json", tmp_path / "README.md"
    path.write_text(json.dumps(results()), encoding="utf-8")
    page.write_text("# x\n\n<!-- benchmark: sparsity -->\n<!-- /benchmark -->\n\nmore\n", encoding="utf-8")
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    assert main(["--from", str(path), "--pages"]) == 0
    once = page.read_text(encoding="utf-8")
    assert once.index("# x") < once.index("27 KB") < once.index("\nmore")
    assert main(["--from", str(path), "--pages"]) == 0
    assert page.read_text(encoding="utf-8") == once
    assert "27 KB" in capsys.readouterr().out


def test_command_line_refuses(tmp_path, capsys):
    """Before anything is measured."""
    data = ["--data", str(tmp_path)]
    with pytest.raises(SystemExit):
        main(data)
    assert "lacks train-images-idx3-ubyte.gz, train-labels-idx1" in capsys.readouterr().err
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte.gz").touch()
    for arguments, named in (
        ([], "--data"),
        ([*data, "--pages", "--validation"], "leave out --validation"),
        ([*data, "--seeds", "0"], "--seeds"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert named in capsys.readouterr().err.partition("error:")[2]


def test_seeds_alone_decide(measured, rows):
    stages = {DENSE: dataclasses.replace(STAGES[DENSE], epochs=6, rate=5e-3)}
    again = run(RECIPE, copy.deepcopy(stages), rows, 1)["stages"][DENSE]
    assert again["errors"] == measured["stages"][DENSE]["errors"]
