"""Pictures of the published results, as SVG: text that depends on the results alone, no fonts, dates or versions.

Each is a dot plot (Cleveland, "The Elements of Graphing Data", 1985): a line for each network, a mark for each library,
at how many times nbdense's time it takes, on a logarithmic axis. Left of 1 a library is faster.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from benchmarks import report
from benchmarks.cases import CASES
from benchmarks.peers import PEERS

WIDTH, LEFT, RIGHT = 800, 340, 20
LINE, TITLE, LEGEND, AXIS = 22, 34, 20, 44  # heights
LEGEND_COLUMNS = 3
# Colours that the colour-blind tell apart (Okabe and Ito, "Color Universal Design", 2008), and a shape besides.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
SHAPES = ("M-5,-5h10v10h-10z", "M0,-6.5L6.5,0L0,6.5L-6.5,0z", "M0,-6L6,5H-6z", "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0z")

Results = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """A line of a plot: how many times the reference's time each series takes; None for a heading."""

    label: str
    times: Mapping[str, float] | None = None


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'


def _mark(x: float, y: float, series: int, text: str) -> str:
    colour, shape = COLOURS[series % len(COLOURS)], SHAPES[series % len(SHAPES)]
    title = f"<title>{escape(text)}</title>"
    return (
        f'<path d="{shape}" transform="translate({x:.1f},{y:.1f})" fill="{colour}" fill-opacity="0.85">{title}</path>'
    )


def _ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten, from the last below to the first above."""
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    values = [float(f"{digit}e{exponent}") for exponent in exponents for digit in (1, 2, 5)]
    first = max(index for index, value in enumerate(values) if value <= low)
    last = min(index for index, value in enumerate(values) if value >= high)
    return values[first : last + 1]


class _Axis:
    """A logarithmic axis that has room for all values, and for 1."""

    def __init__(self, lines: Iterable[Line]) -> None:
        values = [1.0, *(value for line in lines for value in (line.times or {}).values())]
        self.ticks = _ticks(min(values), max(values))

    def place(self, value: float) -> float:
        low, high = math.log(self.ticks[0]), math.log(self.ticks[-1])
        return LEFT + (math.log(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT)


def dot_plot(title: str, reference: str, lines: Sequence[Line]) -> str:
    """Return a plot of how many times the reference's time each series takes.

    Parameters
    ----------
    title : str
        Stands above, and is what screen readers read.
    reference : str
        Its times are 1: a vertical line.
    lines : sequence of Line
        From the top. Series are told apart in the order in which they first come.

    Returns
    -------
    str
        An SVG image.
    """
    axis = _Axis(lines)
    series = list(dict.fromkeys(name for line in lines for name in line.times or {}))
    top = TITLE + LEGEND * math.ceil(len(series) / LEGEND_COLUMNS) + 10
    bottom = top + LINE * len(lines)
    parts = [_text(12, 22, title, weight="bold")]
    for number, name in enumerate(series):
        row, column = divmod(number, LEGEND_COLUMNS)
        x, y = 20 + column * (WIDTH - 40) / LEGEND_COLUMNS, TITLE + LEGEND * row + 10
        parts += [_mark(x, y, number, name), _text(x + 12, y + 4, name)]
    for tick in axis.ticks:
        x, colour = axis.place(tick), "#333333" if tick == 1 else "#dddddd"
        parts.append(f'<path d="M{x:.1f},{top}V{bottom}" stroke="{colour}"/>')
        parts.append(_text(x, bottom + 16, f"{tick:g}", "middle"))
    parts.append(
        _text((LEFT + WIDTH - RIGHT) / 2, bottom + 36, f"times as long as {reference}; left of 1 is faster", "middle")
    )
    for number, line in enumerate(lines):
        y = top + LINE * (number + 0.5)
        parts.append(_text(12, y + 4, line.label, weight="bold" if line.times is None else "normal"))
        for name, value in (line.times or {}).items():
            parts.append(_mark(axis.place(value), y, series.index(name), f"{name}: {value:.2f}"))
    return _image(title, bottom + AXIS, parts)


def _image(title: str, height: int, parts: Iterable[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12" role="img">'
    )
    ground = f'<rect width="{WIDTH}" height="{height}" fill="white"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", ground, *parts, "</svg>", ""])


@dataclass(frozen=True)
class Plot:
    """A picture of one part of the results, beside whose times."""

    part: str
    title: str
    reference: str

    def draw(self, published: Iterable[Results]) -> str:
        """Return the picture, with the lines of each kind of CPU under its name."""
        lines = [line for results in published if results.get(self.part) for line in self._lines(results)]
        return dot_plot(self.title, PEERS[self.reference].title, lines)

    def _lines(self, results: Results) -> Iterable[Line]:
        cpu, llvm_cpu = (results["machine"][key] for key in ("cpu", "llvm_cpu"))
        for threads, rows in itertools.groupby(results[self.part], key=lambda row: row["threads"]):
            yield Line(f"{cpu} ({llvm_cpu}), {threads} thread{'s' if threads > 1 else ''}")
            groups: dict[str, dict[str, float]] = {}
            for row in rows:
                case = CASES[row["case"]]
                pattern = f", {row['pattern']}" if "pattern" in row else ""
                label = f"{case.shape}{pattern}, batch {row.get('batch', case.batch)}"
                groups.setdefault(label, {})[row["library"]] = row["each_s"]
            for label, seconds in groups.items():
                if ours := seconds.pop(self.reference, None):
                    yield Line(label, {PEERS[library].title: each_s / ours for library, each_s in seconds.items()})


PLOTS = {
    "training": Plot("training", "Training: the time of a step", report.OURS),
    "inference": Plot("inference", "Inference: the time of a call", report.OURS),
    "int8": Plot("int8", "Inference in 8-bit integers: the time of a call", report.OURS_INT8),
    "sparse": Plot("sparse", "Inference, most weights zero: the time of a call", report.OURS_SPARSE),
}


def pictures(published: list[Results]) -> dict[str, str]:
    """Return every picture, by its name."""
    return {name: plot.draw(published) for name, plot in PLOTS.items()}
