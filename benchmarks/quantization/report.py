"""Results of `benchmarks.quantization` as text: the pages' table, and the verdicts."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from benchmarks.mnist import TEST
from benchmarks.quantization.methods import (
    FLOAT,
    FLOAT_ERROR,
    LARGEST_DIFFERENCE,
    METHODS,
    OTHER_CLASSES,
    SAME_INTEGERS,
    WORST,
)

_LAST_BIT = 1e-9  # errors are counts of rows divided: what is over by less is not over

Results = dict[str, Any]


def _met(met: bool) -> str:
    return "met" if met else "NOT MET"


@dataclass(frozen=True)
class Loss:
    """Errors of one method over the seeds, in percent, and by how many points they are above float's."""

    error: float
    mean: float
    worst: float
    allowed: str = ""
    verdict: str = ""


def losses(results: Results) -> dict[str, Loss]:
    """Return the losses of each method that was measured, with the verdict where something is allowed."""
    reference = results["methods"][FLOAT]["errors"]
    found = {}
    for name, row in results["methods"].items():
        points = [error - base for error, base in zip(row["errors"], reference, strict=True)]
        mean, worst, bound = statistics.fmean(points), max(points), METHODS[name].bound
        said = ("", "")
        if name == FLOAT:
            said = (f"error under {FLOAT_ERROR:g}", _met(max(reference) < FLOAT_ERROR))
        elif bound is not None:
            met = mean <= bound + _LAST_BIT and worst <= WORST * bound + _LAST_BIT
            said = (_allowed(bound), _met(met))
        found[name] = Loss(statistics.fmean(row["errors"]), mean, worst, *said)
    return found


@dataclass(frozen=True)
class Export:
    """The exported file in onnxruntime against `predict_integers`: the worst of the seeds."""

    rows: int
    same: float
    largest: int
    classes: int

    @property
    def verdict(self) -> str:
        """Verdict on all three figures together."""
        return _met(self.same >= SAME_INTEGERS and self.largest <= LARGEST_DIFFERENCE and self.classes <= OTHER_CLASSES)


def export(results: Results) -> Export | None:
    """Return the export's figures of the static int8 models; None where they were not measured."""
    rows = results["export"]
    if not rows:
        return None
    return Export(
        rows[0]["rows"],
        min(1 - row["differing_integers"] / row["integers"] for row in rows),
        max(row["max_integer_difference"] for row in rows),
        max(row["differing_classes"] for row in rows),
    )


def verdicts(results: Results) -> str:
    """Return each target, its figures, and whether it is met."""
    lines = []
    for name, loss in losses(results).items():
        if loss.verdict:
            shown = f"{loss.error:.3f}" if name == FLOAT else f"{_points(loss.mean)}, worst {_points(loss.worst)}"
            lines.append(f"{METHODS[name].title:<56}{loss.allowed:<29}{shown:<26}{loss.verdict}")
    there = results["methods"]
    missing = [method.title for name, method in METHODS.items() if method.bound is not None and name not in there]
    lines += [f"{title:<56}not measured" for title in missing]
    exported = export(results)
    title = f"{'exported: equal integers, largest difference, classes':<56}"
    if exported is None:
        return "\n".join([*lines, f"{title}not measured"])
    shown = f"{_share(exported.same)}, {exported.largest}, {exported.classes}"
    needed = f">= {SAME_INTEGERS:.1%}, <= {LARGEST_DIFFERENCE}, <= {OTHER_CLASSES}"
    return "\n".join([*lines, f"{title}{needed:<29}{shown:<26}{exported.verdict}"])


def _allowed(bound: float) -> str:
    return f"{bound:g}, a seed {round(WORST * bound, 9):g}"


def _points(value: float) -> str:
    """Write points with their sign, but for those that round to zero."""
    return "0.000" if abs(value) < 5e-4 else f"{value:+.3f}"


def _share(value: float) -> str:
    """Write a share rounded down: 100% is all of them."""
    return f"{int(value * 1e5) / 1e3:g}%"


def _table(results: Results) -> str:
    header = ["method", "by", "error, %", "above float", "worst seed", "bytes", "allowed", "target"]
    lines = [header, ["---"] * len(header)]
    for name, loss in losses(results).items():
        method, size = METHODS[name], f"{results['methods'][name]['bytes']:,}"
        above = ["", ""] if name == FLOAT else [_points(loss.mean), _points(loss.worst)]
        lines.append([method.title, method.library, f"{loss.error:.3f}", *above, size, loss.allowed, loss.verdict])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _exported(results: Results) -> str:
    found = export(results)
    if found is None:
        return ""
    return (
        f"The static int8 models as QDQ files in onnxruntime, on the same {found.rows:,} rows, beside nbdense's own "
        f"integers, the worst of the seeds: {_share(found.same)} of the output integers are equal (needed: "
        f"{SAME_INTEGERS:.1%}), the largest difference is {found.largest} (allowed: {LARGEST_DIFFERENCE}), "
        f"{found.classes} classes differ (allowed: {OTHER_CLASSES}): {found.verdict}.\n\n"
    )


def render(results: Results) -> str:
    """Return the block of the quantization benchmark."""
    recipe, machine = results["recipe"], results["machine"]
    versions = ", ".join(
        f"{n} {machine['versions'][n]}" for n in ("nbdense", "onnxruntime") if n in machine["versions"]
    )
    which = "test rows" if results["measured_on"] == TEST else "validation rows, cut off the training rows"
    return (
        f"MNIST, {'-'.join(map(str, recipe['widths']))} with relu: errors on the {results['rows']:,} {which}, means "
        f"over {results['seeds']} seeds, in percentage points:\n\n{_table(results)}\n\n"
        f"Float models are trained on {results['training_rows']:,} rows by Adam, batch {recipe['batch']}, "
        f"{recipe['epochs']} epochs, at {recipe['rate']:g} and down to 0 by a cosine; the others begin with them, in "
        f"both libraries with the first {recipe['calibration']:,} training rows for calibration. Quantization-aware "
        f"training takes {recipe['aware_epochs']} epochs more, from {recipe['aware_rate']:g}. All this was settled on "
        "10,000 training rows that were held back, not on the test rows. Bytes are of all constants: weights, biases, "
        f"scales, zero points, tables.\n\n{_exported(results)}"
        f"Measured {machine['date']} by `make bench-quantization`; {versions}."
    )
