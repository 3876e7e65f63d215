"""C for microcontrollers beside its peers: ``python -m benchmarks.edge --help``.

Each network is quantized (int8, per channel, rounding "onnx"), written by to_c for the processor, and by emx-onnx-cgen
from the ONNX file of the same integers; emlearn gets the float model. All are compiled by the ziglang wheel, linked
with what they need of its runtime, and run in unicorn, which says how many instructions a row takes. Flash is code and
constants, RAM is data and the stack that was used, without the caller's input and output. The peers take and give
floats: ours is counted with integers at its ends, and with floats. emlearn gets an M4 that has an FPU. Instructions
are not cycles.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.edge import report
from benchmarks.publishing import command

FORMAT = 1
PACKAGES = ("nbdense", "emlearn", "emx-onnx-cgen", "unicorn", "ziglang")
TARGETS = ("cortex-m0plus", "cortex-m4")
SIZE = "-Os"  # the compiler's option that the pages' table is of


def run(option: str = SIZE) -> dict[str, Any]:
    """Measure; return what the JSON file holds, sizes in bytes."""
    from benchmarks.edge.networks import NETWORKS  # the peers are not installed where results are only rendered
    from benchmarks.edge.peers import rows_of

    results: dict[str, Any] = {
        "format": FORMAT,
        "machine": machine.describe(PACKAGES),
        "option": option,
        "rows": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, widths in NETWORKS.items():
            for target in TARGETS:
                results["rows"] += [row._asdict() for row in rows_of(name, widths, target, Path(folder), option)]
    return results


def main(arguments: list[str] | None = None) -> int:
    """Run, and report."""
    parser = argparse.ArgumentParser("python -m benchmarks.edge", description="C for microcontrollers beside peers'.")
    parser.add_argument("--option", default=SIZE, help="the compiler's; default: %(default)s")
    command.add_options(parser)
    options = parser.parse_args(arguments)
    if options.pages and options.option != SIZE:
        parser.error("the pages' table is of code for size: leave out --option")
    command.publish(options, "edge", report.render, lambda: run(options.option))
    return 0
