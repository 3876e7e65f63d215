"""Charts as SVG: lines, points, bars, histograms and heat maps, in the colours of the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 420, 280
LEFT, RIGHT, TOP, BOTTOM = 58, 18, 14, 46  # margins around what is drawn
_BAR, _GAP = 18, 8
_LONGEST = 22  # letters of a label
_UNITS = ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))  # from where, what it is, and its letter

# Light and dark, for pages and for charts that stand alone.
STYLE = """
:root { --paper: #fbfbf9; --card: #ffffff; --ink: #1d2125; --muted: #5d666f; --line: #dcdfe2; --first: #2a6f97;
  --second: #c8553d; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --card: #1c2024; --ink: #e9e7e3; --muted: #a3abb3;
  --line: #363c42; --first: #74b9de; --second: #f0907a; } }
svg { font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
svg text { fill: var(--ink); } svg .muted { fill: var(--muted); } svg .inverse { fill: var(--card); }
svg .grid { stroke: var(--line); stroke-width: 1; fill: none; }
svg .first { stroke: var(--first); } svg .second { stroke: var(--second); }
svg .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .bar { fill: var(--first); stroke: none; } svg .bar.second { fill: var(--second); stroke: none; }
svg .point { fill: var(--first); fill-opacity: 0.45; stroke: none; }
svg .ideal { stroke: var(--muted); stroke-width: 1; stroke-dasharray: 4 4; fill: none; }
""".strip()

Pairs = Sequence[tuple[float, float]]


def standalone(chart: str) -> str:
    """Return a chart as a file of its own, which brings its colours.

    Parameters
    ----------
    chart : str
        The SVG element.
    """
    head, _, rest = chart.partition(">")
    background = '<rect width="100%" height="100%" style="fill: var(--paper)"/>'
    return f"{head}><style>{STYLE}</style>{background}{rest}\n"


def curves(series: Mapping[str, Pairs], x_label: str, y_label: str, ideal: bool = False, points: bool = False) -> str:
    """Draw curves, or points, of x and y.

    Parameters
    ----------
    series : mapping of str to pairs of numbers
        One or two of them, by their names.
    x_label, y_label : str
        What the axes are called.
    ideal : bool
        Whether both axes have the same ends, and a dashed line where x is y.
    points : bool
        Whether to draw points instead of lines.
    """
    every = [pair for pairs in series.values() for pair in pairs]
    xs, ys = [x for x, _ in every], [y for _, y in every]
    if ideal:
        xs = ys = [*xs, *ys]
    x_axis, y_axis = _Axis(xs, LEFT, WIDTH - RIGHT), _Axis(ys, HEIGHT - BOTTOM, TOP)
    parts = _frame(x_axis, y_axis, x_label, y_label)
    if ideal:
        (x0, x1), (y0, y1) = x_axis.ends, y_axis.ends
        parts.append(f'<path class="ideal" d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"/>')
    for number, (name, pairs) in enumerate(series.items()):
        places = [(x_axis.place(x), y_axis.place(y)) for x, y in pairs]
        if points:
            parts += [f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in places]
        else:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
            colour = ("first", "second")[number % 2]
            parts.append(f'<path class="curve {colour}" d="M{path}"><title>{escape(name)}</title></path>')
            if len(places) <= 20:
                parts += [f'<circle class="curve {colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places]
    if len(series) > 1:
        parts += _legend(list(series))
    return _svg(HEIGHT, f"{y_label} by {x_label}", parts)


def histogram(counts: Sequence[float], edges: Sequence[float], x_label: str) -> str:
    """Draw how often values come.

    Parameters
    ----------
    counts : sequence of float
        Of each bin.
    edges : sequence of float
        Of the bins, one more.
    x_label : str
        What the values are.
    """
    x_axis, y_axis = _Axis(edges, LEFT, WIDTH - RIGHT, tight=True), _Axis([0, *counts], HEIGHT - BOTTOM, TOP)
    parts = _frame(x_axis, y_axis, x_label, "rows")
    parts += _bins(counts, edges, x_axis, y_axis)
    return _svg(HEIGHT, f"histogram of {x_label}", parts)


def sparkline(counts: Sequence[float]) -> str:
    """Draw how often values come, in the height of a line of text.

    Parameters
    ----------
    counts : sequence of float
        Of each bin.
    """
    width, height, largest = 120, 24, max([*counts, 1])
    step = width / max(len(counts), 1)
    bars = [
        f'<rect class="bar" x="{i * step:.1f}" y="{height * (1 - n / largest):.1f}" width="{step - 1:.1f}" '
        f'height="{height * n / largest:.1f}"/>'
        for i, n in enumerate(counts)
    ]
    return (
        f'<svg class="spark" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'xmlns="http://www.w3.org/2000/svg" aria-hidden="true">{"".join(bars)}</svg>'
    )


def bars(values: Mapping[str, float], texts: Sequence[str], label: str, second: Iterable[str] = ()) -> str:
    """Draw horizontal bars, one below the other.

    Parameters
    ----------
    values : mapping of str to float
        Lengths, by what is written beside them.
    texts : sequence of str
        What is written at the end of each.
    label : str
        What they measure.
    second : iterable of str
        Names of bars in the second colour.
    """
    marked = set(second)
    left = 16 + 7.5 * min(_LONGEST, max([*map(len, values), 4]))
    largest = max([abs(value) for value in values.values()] + [1e-300])
    room = WIDTH - left - 12 - 7 * max([*map(len, texts), 1])
    parts, y = [], 6.0
    for (name, value), text in zip(values.items(), texts, strict=True):
        length = room * max(value, 0.0) / largest
        middle = y + _BAR / 2 + 4
        colour = "bar second" if name in marked else "bar"
        parts += [
            f'<text x="{left - 8}" y="{middle:.1f}" text-anchor="end">{_short(name)}</text>',
            f'<rect class="{colour}" x="{left}" y="{y:.1f}" width="{length:.1f}" height="{_BAR}" rx="2"/>',
            f'<text class="muted" x="{left + length + 6:.1f}" y="{middle:.1f}">{escape(text)}</text>',
        ]
        y += _BAR + _GAP
    parts.append(f'<text class="muted" x="{left}" y="{y + 12:.1f}">{escape(label)}</text>')
    return _svg(math.ceil(y + 22), label, parts)


def heat_map(cells: Sequence[Sequence[float]], names: Sequence[str], x_label: str, y_label: str) -> str:
    """Draw a matrix of counts, each row shaded by its shares.

    Parameters
    ----------
    cells : sequence of sequences of float
        A row for each name, a cell for each name.
    names : sequence of str
        Of rows and columns.
    x_label, y_label : str
        What columns and rows are.
    """
    names_width = 7.5 * min(12, max(map(len, names)))
    left = 30 + names_width
    side = min(96.0, (WIDTH - left - RIGHT) / len(names))
    top = 16.0
    left = max(left, (WIDTH - len(names) * side) / 2)
    parts = []
    for i, row in enumerate(cells):
        total = sum(row) or 1
        y = top + i * side
        if side >= 12:
            parts.append(
                f'<text x="{left - 6}" y="{y + side / 2 + 4:.1f}" text-anchor="end">{_short(names[i], 12)}</text>'
            )
        for j, count in enumerate(row):
            x, share = left + j * side, count / total
            parts.append(
                f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{side - 1:.1f}" height="{side - 1:.1f}" '
                f'style="fill-opacity: {0.06 + 0.94 * share:.3f}"><title>{escape(names[i])} as {escape(names[j])}: '
                f"{count:,}</title></rect>"
            )
            if side >= 30:
                colour = ' class="inverse"' if share > 0.55 else ""
                parts.append(
                    f'<text{colour} x="{x + side / 2 - 0.5:.1f}" y="{y + side / 2 + 4:.1f}" text-anchor="middle">'
                    f"{_count(count)}</text>"
                )
    bottom = top + len(names) * side
    if side >= 12:
        for j, name in enumerate(names):
            x, text = left + (j + 0.5) * side, _short(name, max(2, int(side / 7)))
            parts.append(f'<text x="{x:.1f}" y="{bottom + 14:.1f}" text-anchor="middle">{text}</text>')
    x, y = left - names_width - 14, (top + bottom) / 2
    parts += [
        (
            f'<text class="muted" x="{left + len(names) * side / 2:.1f}" y="{bottom + 34:.1f}" '
            f'text-anchor="middle">{escape(x_label)}</text>'
        ),
        (
            f'<text class="muted" transform="translate({x:.1f} {y:.1f}) rotate(-90)" '
            f'text-anchor="middle">{escape(y_label)}</text>'
        ),
    ]
    return _svg(math.ceil(bottom + 44), f"{y_label} by {x_label}", parts)


def number_text(value: float) -> str:
    """Return a number to four digits, whole ones in full.

    Parameters
    ----------
    value : float
        The number.
    """
    whole = value == round(value) or abs(value) >= 1e4
    return f"{value:,.0f}" if whole and abs(value) < 1e9 else f"{value:.4g}"


class _Axis:
    """The places of values between two ends of a chart."""

    def __init__(self, values: Iterable[float], start: float, end: float, tight: bool = False) -> None:
        there = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(there), max(there)
        if low == high:
            low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
        self.ticks = _ticks(low, high)
        if not tight:
            step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else high - low
            low, high = min(low, math.floor(low / step) * step), max(high, math.ceil(high / step) * step)
            self.ticks = _ticks(low, high)
        self._low, self._high, self._start, self._end = low, high, start, end

    @property
    def ends(self) -> tuple[float, float]:
        return self._start, self._end

    def place(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low) if math.isfinite(value) else 0.0
        return self._start + (self._end - self._start) * min(max(share, 0.0), 1.0)


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers between two ends, about five."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _frame(x_axis: _Axis, y_axis: _Axis, x_label: str, y_label: str) -> list[str]:
    parts = []
    for tick in y_axis.ticks:
        y = y_axis.place(tick)
        parts += [
            f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>',
            f'<text class="muted" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_tick(tick)}</text>',
        ]
    for tick in x_axis.ticks:
        x = x_axis.place(tick)
        parts.append(
            f'<text class="muted" x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{_tick(tick)}</text>'
        )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts += [
        (
            f'<text class="muted" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
            f"{escape(x_label)}</text>"
        ),
        (
            f'<text class="muted" transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">'
            f"{escape(y_label)}</text>"
        ),
    ]
    return parts


def _bins(counts: Sequence[float], edges: Sequence[float], x_axis: _Axis, y_axis: _Axis) -> list[str]:
    floor = y_axis.place(0)
    parts = []
    for i, count in enumerate(counts):
        x0, x1, y = x_axis.place(edges[i]), x_axis.place(edges[i + 1]), y_axis.place(count)
        parts.append(
            f'<rect class="bar" x="{x0:.1f}" y="{y:.1f}" width="{max(x1 - x0 - 1, 0.5):.1f}" '
            f'height="{floor - y:.1f}"><title>{count:,}</title></rect>'
        )
    return parts


def _legend(names: Sequence[str]) -> list[str]:
    parts, x = [], WIDTH - RIGHT - 4
    for number in reversed(range(len(names))):
        x -= 7 * len(names[number]) + 26
        colour = ("first", "second")[number % 2]
        parts += [
            f'<path class="curve {colour}" d="M{x} {TOP + 8}h16"/>',
            f'<text x="{x + 20}" y="{TOP + 12}">{escape(names[number])}</text>',
        ]
    return parts


def _tick(value: float) -> str:
    for least, size, unit in _UNITS:
        if least <= abs(value) < 1e12:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value < 1e5 else _tick(float(f"{value:.3g}"))


def _short(text: str, longest: int = _LONGEST) -> str:
    short = text if len(text) <= longest else f"{text[: longest - 1]}\u2026"
    return escape(short) if short == text else f"{escape(short)}<title>{escape(text)}</title>"


def _svg(height: int, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
