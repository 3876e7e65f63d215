"""Results of `benchmarks.edge` as text: the pages' table."""

from __future__ import annotations

from typing import Any

PROCESSORS = {"cortex-m0plus": "M0+", "cortex-m4": "M4", "cortex-m4f": "M4 with FPU"}
_HEAD = ("network", "CPU", "C of", "code", "constants", "RAM", "instructions", "a multiply-add")


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of a source on a processor."""
    costs = (f"{row[cost]:,}" for cost in ("text", "constants", "ram", "instructions"))
    each = f"{row['instructions'] / row['multiply_adds']:.2f}"
    return row["network"], PROCESSORS[row["target"]], row["peer"], *costs, each


def render(results: dict[str, Any]) -> str:
    """Return the block of the edge benchmark."""
    lines = [_HEAD, ("---",) * len(_HEAD), *map(_line, results["rows"])]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        "Bytes and instructions, compiled for size; ours with integers at its ends, and with real numbers as the peers "
        f"have them:\n\n{table}\n\n"
        "Instructions are counted in an emulator, and are not cycles. emlearn computes in float, here on a Cortex-M4 "
        f"with an FPU.\n\nMeasured {machine['date']} by `make bench-edge`; {versions}."
    )
