"""The report as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from nbdense.commands.page import svg
from nbdense.commands.page.charts import Chart, Metrics, charts_of, judged

PAGE, PLOTS = "report.html", "plots"  # in the folder of a model
_STYLE = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .75rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; }
p { margin: .25rem 0; } .muted, figcaption { color: var(--muted); }
figcaption { font-size: .85rem; margin-top: .35rem; }
.tiles { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr));
  margin-top: 1.25rem; }
.tile, figure, .table { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
.tile { padding: .7rem .9rem; } .tile b { display: block; font-size: 1.45rem; font-weight: 600; line-height: 1.3; }
.tile span { font-size: .85rem; color: var(--muted); }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); }
.charts + .table, p + .charts { margin-top: 1rem; }
figure { margin: 0; padding: .9rem; } figure svg { width: 100%; max-width: 36rem; height: auto;
  display: block; margin: 0 auto; }
.table { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { padding: .4rem .7rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; } th { font-weight: 600; color: var(--muted); white-space: nowrap; }
td.values { min-width: 13rem; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
ul { padding-left: 1.2rem; margin: .25rem 0; }
""".strip()

Cell = tuple[str, str]  # HTML, and the class of the cell


def page_files(metrics: Metrics) -> dict[str, bytes]:
    """Return the report page and the plots, by their paths inside of the model's folder.

    Parameters
    ----------
    metrics : mapping
        What metrics.json says.
    """
    charts = charts_of(metrics)
    files = {PAGE: page(metrics, charts).encode()}
    return files | {f"{PLOTS}/{name}.svg": svg.standalone(chart.picture).encode() for name, chart in charts.items()}


def page(metrics: Metrics, charts: Mapping[str, Chart]) -> str:
    """Return the report page.

    Parameters
    ----------
    metrics : mapping
        What metrics.json says.
    charts : mapping of str to Chart
        Its charts.
    """
    title = f"{metrics['task'].capitalize()} of {metrics['target']}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="muted">{escape(_subtitle(metrics))}</p>',
        _tiles(metrics),
        *_notes(metrics),
        "<h2>What it has learnt</h2>",
        _figures(charts, "loss", "validation", "confusion", "predictions", "residuals", "calibration"),
        *_classes(metrics),
        "<h2>What it looks at</h2>",
        _figures(charts, "importance"),
        "<h2>The data</h2>",
        _data(metrics),
        *_quantization(metrics, charts),
        "<h2>The network</h2>",
        _network(metrics),
        _figures(charts, "sizes"),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>\n{svg.STYLE}\n{_STYLE}\n</style>\n'
        "</head>\n<body>\n<main>\n" + "\n".join(part for part in body if part) + "\n</main>\n</body>\n</html>\n"
    )


def _subtitle(metrics: Metrics) -> str:
    data, training = metrics["data"], metrics["training"]
    return (
        f"{data['file']}: {data['rows']:,} rows, {training['rows']:,} to learn from and {training['test_rows']:,} for "
        f"the test; nbdense {metrics['nbdense_version']}"
    )


def _tiles(metrics: Metrics) -> str:
    part, scores = judged(metrics)
    if metrics["task"] == "classification":
        tiles = [
            (f"{scores['accuracy']:.1%}", f"accuracy ({part})"),
            (f"{scores['always_the_commonest']:.1%}", "the commonest class alone"),
            (f"{scores['balanced_accuracy']:.1%}", "balanced accuracy"),
            *([(f"{scores['roc_auc']:.3f}", "ROC AUC")] if scores["roc_auc"] is not None else []),
        ]
    else:
        tiles = [
            (_figure(scores["r2"]), f"R\u00b2 ({part})"),
            (_figure(scores["rmse"]), "RMSE"),
            (_figure(scores["always_the_mean"]), "RMSE of the mean alone"),
            (_figure(scores["mae"]), "mean absolute error"),
        ]
    tiles += [
        (f"{metrics['network']['parameters']:,}", "parameters"),
        (f"{metrics['training']['epochs']:,}", "epochs"),
    ]
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{escape(value)}</b><span>{escape(what)}</span></div>' for value, what in tiles)
        + "</div>"
    )


def _notes(metrics: Metrics) -> list[str]:
    if not metrics["notes"]:
        return []
    return ["<h2>Notes</h2>", "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in metrics["notes"]) + "</ul>"]


def _figures(charts: Mapping[str, Chart], *names: str) -> str:
    figures = [
        f"<figure><h3>{escape(chart.title)}</h3>{chart.picture}<figcaption>{escape(chart.note)}</figcaption></figure>"
        for chart in (charts[name] for name in names if name in charts)
    ]
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ""


def _classes(metrics: Metrics) -> list[str]:
    part, scores = judged(metrics)
    if "classes" not in scores:
        return []
    head = [("class", ""), ("rows", "number"), ("precision", "number"), ("recall", "number")]
    rows = [
        [
            (escape(str(entry["label"])), ""),
            (f"{entry['rows']:,}", "number"),
            (f"{entry['precision']:.1%}", "number"),
            (f"{entry['recall']:.1%}", "number"),
        ]
        for entry in scores["classes"]
    ]
    return [f"<h2>Classes, on the {part} rows</h2>", _table(head, rows)]


def _data(metrics: Metrics) -> str:
    head = [("column", ""), ("kind", ""), ("missing", "number"), ("different", "number"), ("values", ""), ("", "")]
    rows: list[list[Cell]] = [[*map(_text_cell, (metrics["target"], "target")), *_target_cells(metrics)]]
    for entry in metrics["data"]["columns"]:
        share = entry["missing"] / max(metrics["data"]["rows"], 1)
        missing = f"{entry['missing']:,} ({share:.1%})" if entry["missing"] else "0"
        words = entry.get("commonest")
        values = _words(words) if words is not None else _range(entry)
        spark = svg.sparkline(entry["histogram"]["counts"]) if "histogram" in entry else ""
        rows.append(
            [
                *map(_text_cell, (entry["name"], entry["kind"])),
                (missing, "number"),
                (f"{entry['different']:,}", "number"),
                (values, "values"),
                (spark, ""),
            ]
        )
    for name, reason in metrics["data"]["left_out"].items():
        rows.append([*map(_text_cell, (name, "left out")), ("", ""), ("", ""), _text_cell(reason), ("", "")])
    return _table(head, rows)


def _target_cells(metrics: Metrics) -> list[Cell]:
    target = metrics["data"]["target"]
    classes = target.get("classes")
    if classes is not None:
        shares = sorted(classes.items(), key=lambda pair: -pair[1])[:8]
        return [("0", "number"), (f"{len(classes):,}", "number"), (_words(dict(shares)), ""), ("", "")]
    spark = svg.sparkline(target["histogram"]["counts"]) if "histogram" in target else ""
    return [("0", "number"), ("", "number"), (_range(target), ""), (spark, "")]


def _words(words: Mapping[str, int]) -> str:
    return ", ".join(f"{escape(word)} ({count:,})" for word, count in words.items())


def _range(entry: Mapping[str, Any]) -> str:
    if "least" not in entry:
        return ""
    if entry.get("kind") == "date":
        return f"{_day(entry['least'])} to {_day(entry['largest'])}"
    ends = f"{svg.number_text(entry['least'])} to {svg.number_text(entry['largest'])}"
    return f"{ends}, mean {svg.number_text(entry['mean'])}"


def _day(days: float) -> str:
    import datetime as dt

    return str(dt.date(1970, 1, 1) + dt.timedelta(days=int(days)))


def _quantization(metrics: Metrics, charts: Mapping[str, Chart]) -> list[str]:
    quantization = metrics.get("quantization")
    if not quantization:
        return []
    head = [("layer", ""), ("kind", ""), ("bits", "number"), ("saturated", "number"), ("bytes", "number")]
    rows = [
        [
            *map(_text_cell, (layer["name"], layer["kind"])),
            (str(layer["weight_bits"] or ""), "number"),
            (f"{layer['saturated']:.2%}" if layer.get("saturated") is not None else "", "number"),
            (f"{layer['bytes']:,}", "number"),
        ]
        for layer in quantization["report"].get("layers", [])
    ]
    return ["<h2>Quantization</h2>", _figures(charts, "noise"), _table(head, rows)]


def _network(metrics: Metrics) -> str:
    network = metrics["network"]
    lines = [
        (
            f"Layers of {' - '.join(map(str, network['widths']))} units, {network['parameters']:,} parameters; "
            f"the first reads {len(network['columns']):,} numbers, which the pipeline makes of the columns."
        )
    ]
    if "kept" in network:
        lines.append(
            f"{network['kept']:,} weights are not zero: {1 - network['kept'] / network['weights']:.1%} pruned."
        )
    chosen = metrics["training"]["options"]
    lines.append("Options: " + ", ".join(f"{name}={value}" for name, value in chosen.items() if value is not None))
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _figure(value: float | None) -> str:
    return "\u2013" if value is None or value != value else svg.number_text(value)


def _text_cell(text: str) -> Cell:
    return escape(str(text)), ""


def _table(head: Sequence[Cell], rows: Sequence[Sequence[Cell]]) -> str:
    def line(cells: Sequence[Cell], tag: str) -> str:
        return "".join(
            f'<{tag} class="{kind}">{text}</{tag}>' if kind else f"<{tag}>{text}</{tag}>" for text, kind in cells
        )

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f'<div class="table"><table><tr>{line(head, "th")}</tr>{body}</table></div>'
