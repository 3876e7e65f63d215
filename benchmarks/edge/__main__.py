"""C for microcontrollers beside its peers, as a table.

    python -m benchmarks.edge [--pages]

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

from benchmarks.edge.networks import NETWORKS
from benchmarks.edge.peers import Row, rows_of
from benchmarks.publishing import pages

PROCESSORS = {"cortex-m0plus": "M0+", "cortex-m4": "M4"}
TITLES = {**PROCESSORS, "cortex-m4f": "M4 with FPU"}


def table(rows: list[Row]) -> str:
    """Return the table of all rows."""
    lines = [
        "| network | CPU | C of | code | constants | RAM | instructions | a multiply-add |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row.network} | {TITLES[row.target]} | {row.peer} | {row.text:,} | {row.constants:,} | {row.ram:,} | "
        f"{row.instructions:,} | {row.instructions / row.multiply_adds:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, and print or publish the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", action="store_true", help="write the table into the page that has its markers")
    parser.add_argument("--option", default="-Os", help="the compiler's; by default %(default)s")
    arguments = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, widths in NETWORKS.items():
            for target in PROCESSORS:
                rows += rows_of(name, widths, target, Path(folder), arguments.option)
    text = table(rows)
    print(text)
    if arguments.pages:
        pages.write({"edge": text})


if __name__ == "__main__":
    main()
