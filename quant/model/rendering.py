"""A quantization report as a table, as rows and as a plot: functions of the report's dictionary alone.

They lie below the model, which shows its report through them; `nbdense.quant.reporting`, above it, measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nbdense._tables import Table
from nbdense.inspection.plots import label_places, pyplot


def report_table(report: Mapping[str, Any]) -> Table:
    """Return a report as a table, with a few lines about the model below.

    Parameters
    ----------
    report : mapping
        As `QuantizedModel.report` gives it.
    """
    head = ("layer", "kind", "bits", "range", "weights dB", "outputs dB", "saturated", "bytes")
    rows, notes = [], []
    for entry in report["layers"]:
        bounds = entry.get("range")
        rows.append(
            (
                entry["name"],
                entry["kind"],
                _cell(entry["weight_bits"]),
                "" if bounds is None else f"{bounds[0]:.4g} .. {bounds[1]:.4g}",
                _cell(entry.get("weight_sqnr_db"), ".1f", "weight_sqnr_db" in entry),
                _cell(entry.get("activation_sqnr_db"), ".1f", "activation_sqnr_db" in entry),
                _cell(entry.get("saturated"), ".2%"),
                f"{entry['bytes']:,}",
            )
        )
        if "why" in entry:
            kept = "stays in float" if entry["kind"].startswith("float") else f"has {entry['weight_bits']} bits"
            notes.append(f"{entry['name']!r} {kept}: {entry['why']}")
    model = report["model"]
    notes.append(
        f"{model['bytes']:,} bytes (float32: {model['float_bytes']:,}), at most {model['peak_activation_bytes']:,} of "
        f"activations a row, {model['multiply_adds']:,} multiply-adds a row"
    )
    if "metric" in model:
        metric = model["metric"]
        notes.append(f"score {metric['quantized']:.4f} (float: {metric['float']:.4f}, may lose {metric['budget']:g})")
    for timing in report.get("timings", []):
        beside = f" (float: {timing['float_us']:.3g})" if "float_us" in timing else ""
        notes.append(f"{timing['us']:.3g} microseconds a row at {timing['rows']} rows a call{beside}, measured here")
    return Table(head, rows, notes=notes, left=2)


def _cell(value: Any, form: str = "", there: bool = False) -> str:
    if value is None:
        return "exact" if there else ""
    return format(value, form)


def report_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a report's layers as dictionaries of the same keys, each value a number or a string: rows of a DataFrame.

    What a layer has not is None. Bounds of a range are "range_low" and "range_high"; of what is a dictionary itself,
    "multiply_adds" of sparse models, each entry is a column, as "multiply_adds_many".

    Parameters
    ----------
    report : mapping
        As `QuantizedModel.report` gives it.
    """
    rows = []
    for entry in report["layers"]:
        row: dict[str, Any] = {}
        for key, value in entry.items():
            parts = dict(zip(("low", "high"), value, strict=True)) if isinstance(value, list) else value
            row |= {f"{key}_{name}": part for name, part in parts.items()} if isinstance(parts, dict) else {key: parts}
        rows.append(row)
    keys = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key) for key in keys} for row in rows]


def report_plot(report: Mapping[str, Any]) -> Any:
    """Draw noise, saturation and bytes of each layer, one above the other.

    Parameters
    ----------
    report : mapping
        As `QuantizedModel.report` gives it.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    figure, axes = pyplot().subplots(3, sharex=True, layout="constrained")
    layers = report["layers"]
    places = np.arange(len(layers))
    for offset, (key, label) in enumerate((("weight_sqnr_db", "weights"), ("activation_sqnr_db", "outputs"))):
        values = [entry.get(key) or 0.0 for entry in layers]
        axes[0].bar(places + 0.4 * offset - 0.2, values, width=0.4, label=label)
    axes[0].set_ylabel("SQNR (dB)")
    axes[0].legend()
    axes[1].bar(places, [100 * entry.get("saturated", 0.0) for entry in layers])
    axes[1].set_ylabel("saturated (%)")
    axes[2].bar(places, [entry["bytes"] for entry in layers])
    axes[2].set_ylabel("bytes")
    label_places(axes[2], [entry["name"] for entry in layers])
    return figure
