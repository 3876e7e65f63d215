"""The report page: well-formed, of itself alone, and of the numbers that it is given."""

import html
import re
import xml.etree.ElementTree as ET

import pytest

from nbdense.commands.page import svg
from nbdense.commands.page.document import page_files

CALIBRATION = {
    "of": "probability of b",
    "said": [0.1, 0.9],
    "share": [0.2, 0.8],
    "rows": [30, 20],
    "expected_calibration_error": 0.1,
}
CLASSES = {
    "rows": 50,
    "accuracy": 0.8,
    "balanced_accuracy": 0.75,
    "f1_macro": 0.7,
    "log_loss": 0.5,
    "roc_auc": None,
    "always_the_commonest": 0.6,
    "classes": [
        {"label": "a <b>", "rows": 30, "precision": 0.8, "recall": 0.9},
        {"label": "b", "rows": 20, "precision": 0.7, "recall": 0.6},
    ],
    "confusion": [[27, 3], [8, 12]],
    "calibration": CALIBRATION,
}
HISTOGRAM = {"counts": [1, 5, 2], "edges": [0.0, 1.0, 2.0, 3.0]}
VALUES = {
    "rows": 50,
    "r2": 0.9,
    "rmse": 1.5,
    "mae": 1.0,
    "median_error": 0.8,
    "always_the_mean": 4.5,
    "residuals": {"predicted": [1.0, 2.0], "actual": [1.5, 1.8], "histogram": HISTOGRAM},
}
COLUMNS = [
    {
        "name": "age & more",
        "kind": "number",
        "missing": 3,
        "different": 40,
        "mean": 1.5,
        "deviation": 1.0,
        "least": 0.0,
        "largest": 3.0,
        "histogram": HISTOGRAM,
    },
    {"name": "born", "kind": "date", "missing": 0, "different": 9, "least": 0.0, "largest": 20784.0, "mean": 1.0},
    {"name": "city", "kind": "text", "missing": 0, "different": 2, "commonest": {"<script>alert(1)</script>": 9}},
]


def metrics_of(task):
    classes = task == "classification"
    return {
        "nbdense_version": "0.1.0",
        "task": task,
        "target": "y<y>",
        "data": {
            "file": "data.csv",
            "rows": 250,
            "columns": COLUMNS,
            "left_out": {"id": "dropped"},
            "target": {"classes": {"a <b>": 150, "b": 100}} if classes else {"least": 0.0, "largest": 9.0, "mean": 4.0},
        },
        "training": {
            "rows": 200,
            "test_rows": 50,
            "epochs": 3,
            "loss": [1.0, 0.5, None],
            "validation": [0.5, 0.6, 0.7],
            "options": {"alpha": 0.1},
        },
        "train": CLASSES if classes else VALUES,
        "test": CLASSES if classes else VALUES,
        "importance": [{"name": "age & more", "mean": 0.2, "deviation": 0.01, "score": "log_loss"}],
        "network": {"widths": [3, 8, 1], "parameters": 41, "columns": ["a", "b", "c"]},
        "sizes": {"parameters": 41, "float32_bytes": 164, "onnx_bytes": 2000, "network_bytes": None},
        "notes": ["a & b"],
    }


NOISE = {
    "report": {
        "layers": [
            {"name": "hidden_1", "kind": "dense", "weight_bits": 8, "bytes": 100, "weight_sqnr_db": 41.25,
             "activation_sqnr_db": 38.5, "saturated": 0.01},
            {"name": "output", "kind": "dense", "weight_bits": 8, "bytes": 10, "weight_sqnr_db": None},
        ]
    }
}  # fmt: skip


@pytest.fixture(params=["classification", "regression", "integers"])
def files(request):
    metrics = metrics_of("regression" if request.param == "regression" else "classification")
    return page_files(metrics | ({"quantization": NOISE} if request.param == "integers" else {}))


def test_pages_are_well_formed_and_need_nothing_else(files):
    page = files["report.html"].decode()
    assert page.startswith("<!doctype html>")
    # All elements but these are closed, so that an XML parser reads the page
    ET.fromstring(re.sub(r"<!doctype html>|<(meta|link)[^>]*>", "", page))
    assert "<script" not in page
    outside = re.findall(r"(?:src|href)=\"([^\"]*)\"|url\(([^)]*)\)|@import", page)
    assert outside == [("data:,", "")]


def test_plots_are_svg_files(files):
    names = {name for name in files if name != "report.html"}
    assert {"plots/loss.svg", "plots/validation.svg", "plots/importance.svg", "plots/sizes.svg"} < names
    for name in names:
        root = ET.fromstring(files[name].decode())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_what_each_task_shows():
    classes = set(page_files(metrics_of("classification")))
    values = set(page_files(metrics_of("regression")))
    assert classes - values == {"plots/confusion.svg", "plots/calibration.svg"}
    assert values - classes == {"plots/predictions.svg", "plots/residuals.svg"}
    integers = set(page_files(metrics_of("classification") | {"quantization": NOISE}))
    assert integers - classes == {"plots/noise.svg"}


def test_numbers_and_names_are_on_the_page():
    page = page_files(metrics_of("classification") | {"quantization": NOISE})["report.html"].decode()
    text = html.unescape(re.sub(r"<[^>]*>", "\n", page))
    for words in ("80.0%", "75.0%", "a <b>", "age & more", "3 (1.2%)", "1970-01-01 to 2026-11-27", "dropped", "a & b",
                  "<script>alert(1)</script> (9)", "41.2 dB", "38.5 dB", "27", "12"):  # fmt: skip
        assert words in text, words


def test_places_are_those_of_the_numbers():
    """A curve's points lie where ticks say: three of y at 0, 5 and 10 are at equal distances, from the bottom up."""
    picture = svg.curves({"a": [(0, 0), (5, 5), (10, 10)]}, "x", "y")
    root = ET.fromstring(picture)
    circles = [node for node in root.iter() if node.tag.endswith("circle")]
    ys, xs = ([float(node.get(key)) for node in circles] for key in ("cy", "cx"))
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.2) and ys[0] > ys[2]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2) and xs[0] < xs[2]
    labels = {node.text: float(node.get("y")) for node in root.iter() if node.get("text-anchor") == "end"}
    assert labels["0"] == pytest.approx(ys[0] + 4, abs=0.2) and labels["10"] == pytest.approx(ys[2] + 4, abs=0.2)


@pytest.mark.parametrize("values", [[], [3.0], [0.0, 0.0], [float("nan"), 1.0], [-1e-12, 1e12]])
def test_odd_values_draw_too(values):
    picture = svg.curves({"a": [(float(i), value) for i, value in enumerate(values)]}, "x", "y")
    assert "nan" not in picture and ET.fromstring(picture) is not None


def test_many_classes_and_long_names_fit():
    names = [f"a class with a long name, number {i}" for i in range(40)]
    cells = [[i == j for j in range(40)] for i in range(40)]
    root = ET.fromstring(svg.heat_map(cells, names, "predicted", "actual"))
    width = float(root.get("viewBox").split()[2])
    rectangles = [node for node in root.iter() if node.tag.endswith("rect")]
    assert len(rectangles) == 1600
    assert max(float(node.get("x")) + float(node.get("width")) for node in rectangles) <= width
