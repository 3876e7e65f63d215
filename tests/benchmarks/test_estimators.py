"""The estimators' benchmark: a data set works, the verdicts are right. Nothing is timed."""

import json

import pytest

from benchmarks.__main__ import RESULTS
from benchmarks.estimators import report
from benchmarks.estimators.cells import DATA_SETS
from benchmarks.estimators.run import main


@pytest.fixture
def found():
    both = {"nbdense": 1.0, "sklearn": 4.0}
    return {
        "scores": {"nbdense": [0.9, 0.9], "sklearn": [0.9, 0.94]},
        "fit_seconds": dict(both),
        "lbfgs": {"losses": {"nbdense": [0.2, 0.1], "sklearn": [0.1, 0.2]}, "seconds": dict(both)},
    }


def test_a_data_set(tmp_path, capsys):
    path = tmp_path / "results.json"
    assert main(["--data-sets", "wine", "--seeds", "1", "--rounds", "1", "--json", str(path)]) == 0
    results = json.loads(path.read_text(encoding="utf-8"))
    assert list(results["data_sets"]) == ["wine"]
    assert report.verdicts(results["data_sets"]["wine"])["score"]
    assert "| wine | " in capsys.readouterr().out


def test_verdicts(found):
    assert all(report.verdicts(found).values())
    found["scores"]["nbdense"] = [0.89, 0.89]
    found["fit_seconds"]["sklearn"] = 2.9
    found["lbfgs"]["losses"]["nbdense"] = [0.2, 0.11]
    found["lbfgs"]["seconds"]["sklearn"] = 1.9
    assert not any(report.verdicts(found).values())


def test_published_results_are_of_all_data_sets():
    results = json.loads((RESULTS / "estimators.json").read_text(encoding="utf-8"))
    assert list(results["data_sets"]) == list(DATA_SETS)
