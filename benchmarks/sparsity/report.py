"""Results of `benchmarks.sparsity` as text: the pages' table, with what is allowed and what is published."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.mnist import TEST
from benchmarks.sparsity.recipe import DENSE, PUBLISHED

_LAST_BIT = 1e-9  # errors are counts of rows divided: what is over by less is not over

Results = dict[str, Any]


def allowed(results: Results, name: str) -> list[tuple[str, bool]]:
    """Return what is allowed of a stage, each with whether it is met."""
    stages = results["stages"]
    stage, mean = stages[name], statistics.fmean(stages[name]["errors"])
    limits = []
    if stage["at_most_dense"]:
        limits.append(("dense's", mean <= statistics.fmean(stages[DENSE]["errors"]) + _LAST_BIT))
    if stage["allowed"] is not None:
        limits.append((f"{stage['allowed']:.2f}", mean <= stage["allowed"] + _LAST_BIT))
    if stage["bytes_allowed"] is not None:
        limits.append((f"{stage['bytes_allowed']:,} bytes", max(stage["file_bytes"]) <= stage["bytes_allowed"]))
    return limits


def _table(results: Results) -> str:
    stages = results["stages"]
    dense = max(stages[DENSE]["parameters"])
    head = ["network", "weights", "fewer", "error, %", "worst seed", "compressed file, bytes", "allowed", "target"]
    lines = [head, ["---"] * len(head)]
    for name, stage in stages.items():
        limits, kept = allowed(results, name), max(stage["parameters"])
        met = all(fits for _, fits in limits)
        lines.append(
            [
                stage["title"],
                f"{kept:,}",
                f"{dense / kept:.1f}x",
                f"{statistics.fmean(stage['errors']):.3f}",
                f"{max(stage['errors']):.2f}",
                f"{max(stage['file_bytes']):,}",
                ", ".join(text for text, _ in limits),
                "" if not limits else "met" if met else "NOT MET",
            ]
        )
    lines += [[source, size, "", f"{error:.2f}", "", "", "", "published"] for source, error, size in PUBLISHED]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _epochs(results: Results) -> str:
    """Write each stage's epochs."""
    parts = []
    for name, stage in results["stages"].items():
        aware = f" and {stage['aware_epochs']} with the rounding" if stage["aware_epochs"] else ""
        parts.append(f"{name} {stage['epochs']}{aware}")
    return ", ".join(parts)


def render(results: Results) -> str:
    """Return the block of the sparsity benchmark."""
    recipe, machine = results["recipe"], results["machine"]
    shares = ", ".join(f"{share:.1%}" for share in recipe["kept"])
    which = "test rows" if results["measured_on"] == TEST else "validation rows, cut off the training rows"
    return (
        f"MNIST, {'-'.join(map(str, recipe['widths']))} with relu: errors on the {results['rows']:,} {which}, means "
        f"over {results['seeds']} seeds, and the worst of them. Weights are all parameters other than zero, biases "
        "counted; files are those of `save(compressed=True)`, loaded again before they are measured:\n\n"
        f"{_table(results)}\n\n"
        "No augmentation, no teacher. Each network is made of the one before: weights are removed by magnitude, "
        f"from each layer by a `PruningSchedule` of its own, so that the layers have {shares} of what is kept, in the "
        f"first {recipe['pruned_by']:.0%} of a stage's steps. AdamW, batch {recipe['batch']}, weight decay, dropout "
        f"that gets less, a cosine down to 0 and averages of weights in each stage; epochs: {_epochs(results)}. All "
        "this was settled on 10,000 training rows that were held back, not on the test rows.\n\n"
        f"Measured {machine['date']} by `make bench-sparsity`; nbdense {machine['versions']['nbdense']}."
    )
