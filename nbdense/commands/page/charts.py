"""The charts of a model: which there are of its metrics, and what each shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nbdense.commands.page import svg

Metrics = Mapping[str, Any]
MOST_BARS = 20


@dataclass(frozen=True)
class Chart:
    """A chart of the report.

    Attributes
    ----------
    title : str
        What it shows.
    picture : str
        SVG.
    note : str
        How to read it.
    """

    title: str
    picture: str
    note: str = ""


def charts_of(metrics: Metrics) -> dict[str, Chart]:
    """Return the charts that a model's metrics allow, by the names of their files.

    Parameters
    ----------
    metrics : mapping
        What metrics.json says.
    """
    drawn = {name: draw(metrics) for name, draw in _CHARTS.items()}
    return {name: chart for name, chart in drawn.items() if chart is not None}


def judged(metrics: Metrics) -> tuple[str, Metrics]:
    """Return the part of the rows that the model is judged by, and its scores there.

    Parameters
    ----------
    metrics : mapping
        What metrics.json says.
    """
    return ("test", metrics["test"]) if metrics.get("test") else ("train", metrics["train"])


def _loss(metrics: Metrics) -> Chart | None:
    losses = metrics["training"]["loss"]
    if not losses:
        return None
    pairs = [(float(epoch), _number(value)) for epoch, value in enumerate(losses, 1)]
    return Chart("Training loss", svg.curves({"loss": pairs}, "epoch", "loss"), "The loss with its penalty, by epoch.")


def _validation(metrics: Metrics) -> Chart | None:
    scores = metrics["training"]["validation"]
    if not scores:
        return None
    name = "accuracy" if metrics["task"] == "classification" else "R2"
    pairs = [(float(epoch), _number(value)) for epoch, value in enumerate(scores, 1)]
    return Chart(
        "Score on held-out rows",
        svg.curves({name: pairs}, "epoch", name),
        "Of the rows held out of the training, by which it stopped; the best epoch's weights were kept.",
    )


def _confusion(metrics: Metrics) -> Chart | None:
    part, scores = judged(metrics)
    if "confusion" not in scores:
        return None
    names = [str(entry["label"]) for entry in scores["classes"]]
    return Chart(
        "Confusion matrix",
        svg.heat_map(scores["confusion"], names, "predicted", "actual"),
        f"Rows of the {part} data: each line is shaded by its shares.",
    )


def _calibration(metrics: Metrics) -> Chart | None:
    part, scores = judged(metrics)
    if "calibration" not in scores:
        return None
    calibration = scores["calibration"]
    pairs = list(zip(calibration["said"], calibration["share"], strict=True))
    return Chart(
        "Calibration",
        svg.curves({"observed": [*pairs]}, calibration["of"], "share that is so", ideal=True),
        f"Of the {part} rows, in ten bins: on the dashed line a probability is what it says. Expected calibration "
        f"error {calibration['expected_calibration_error']:.3f}.",
    )


def _predictions(metrics: Metrics) -> Chart | None:
    part, scores = judged(metrics)
    if "residuals" not in scores:
        return None
    residuals = scores["residuals"]
    pairs = list(zip(residuals["actual"], residuals["predicted"], strict=True))
    return Chart(
        "Predicted and actual",
        svg.curves({"rows": pairs}, "actual", "predicted", ideal=True, points=True),
        f"Some of the {part} rows: on the dashed line a prediction is right.",
    )


def _residuals(metrics: Metrics) -> Chart | None:
    part, scores = judged(metrics)
    spread = scores.get("residuals", {}).get("histogram")
    if spread is None:
        return None
    return Chart(
        "Residuals",
        svg.histogram(spread["counts"], spread["edges"], "predicted minus actual"),
        f"Of the {part} rows.",
    )


def _importance(metrics: Metrics) -> Chart | None:
    entries = metrics["importance"][:MOST_BARS]
    if not entries:
        return None
    score = entries[0]["score"].replace("_", " ")
    values = {entry["name"]: _number(entry["mean"]) for entry in entries}
    texts = [f"{_number(entry['mean']):.3g} ± {_number(entry['deviation']):.1g}" for entry in entries]
    note = f"By how much the {score} gets worse where the column is shuffled over the {judged(metrics)[0]} rows."
    return Chart("Importance of columns", svg.bars(values, texts, f"worse {score}"), note)


def _noise(metrics: Metrics) -> Chart | None:
    layers = metrics.get("quantization", {}).get("report", {}).get("layers", [])
    values, texts, second = {}, [], []
    for layer in layers:
        for key, kind in (("weight_sqnr_db", "weights"), ("activation_sqnr_db", "outputs")):
            if layer.get(key) is not None:
                name = f"{layer['name']} {kind}"
                values[name] = float(layer[key])
                texts.append(f"{layer[key]:.1f} dB")
                second += [name] if kind == "outputs" else []
    if not values:
        return None
    return Chart(
        "Quantization noise by layer",
        svg.bars(values, texts, "signal-to-noise ratio in dB", second),
        "How far the integers' values are from the float network's: more decibels are less noise, 6 dB are a bit.",
    )


def _sizes(metrics: Metrics) -> Chart | None:
    sizes = metrics.get("sizes", {})
    names = {"float32_bytes": "float32 weights", "network_bytes": "this network", "onnx_bytes": "ONNX file"}
    values = {title: float(sizes[key]) for key, title in names.items() if sizes.get(key)}
    if not values:
        return None
    texts = [f"{value:,.0f} B" for value in values.values()]
    return Chart("Sizes", svg.bars(values, texts, "bytes"), "The ONNX file holds the preprocessing too.")


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


_CHARTS: dict[str, Callable[[Metrics], Chart | None]] = {
    "loss": _loss,
    "validation": _validation,
    "confusion": _confusion,
    "calibration": _calibration,
    "predictions": _predictions,
    "residuals": _residuals,
    "importance": _importance,
    "noise": _noise,
    "sizes": _sizes,
}
