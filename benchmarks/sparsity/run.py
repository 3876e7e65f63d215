"""The cost of pruning and compression in accuracy: ``python -m benchmarks.sparsity --help``.

A 784-300-100-10 network is trained on MNIST, once for each seed, then pruned further and further, each stage beginning
with the network of the one before. How all of it is set was chosen with ``--validation``: on all but the last 10,000
training rows, by the error on these. The test rows are only measured on.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from typing import Any

from benchmarks import machine, mnist
from benchmarks.publishing import command
from benchmarks.quantization.methods import TEST, VALIDATION, Rows
from benchmarks.quantization.run import positive
from benchmarks.sparsity import report
from benchmarks.sparsity.recipe import STAGES, Recipe, Stage, answers

FORMAT = 1


def _say(line: str) -> None:
    """Print progress to stderr: stdout is the report."""
    print(line, file=sys.stderr, flush=True)


def run(recipe: Recipe, stages: dict[str, Stage], rows: Rows, seeds: int, measured_on: str = TEST) -> dict[str, Any]:
    """Measure; return what the JSON file holds, errors in percent of the test rows."""
    results: dict[str, Any] = {
        "format": FORMAT,
        "machine": machine.describe(),
        "measured_on": measured_on,
        "recipe": {**asdict(recipe), "widths": list(recipe.widths)},
        "seeds": seeds,
        "training_rows": len(rows.x),
        "rows": len(rows.x_test),
        "stages": {
            name: {**asdict(stage), "errors": [], "parameters": [], "file_bytes": []} for name, stage in stages.items()
        },
    }
    for seed in range(seeds):
        started = time.perf_counter()
        for name, answer in answers(recipe, stages, rows, seed):
            found = results["stages"][name]
            found["errors"].append(round(answer.error, 6))
            found["parameters"].append(answer.parameters)
            found["file_bytes"].append(answer.file_bytes)
            _say(
                f"seed {seed}: {name:<8}{answer.error:.2f}%  {answer.parameters:,} parameters  {answer.file_bytes:,} "
                f"bytes  {time.perf_counter() - started:.0f} s"
            )
    return results


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks.sparsity", description="The error of pruned networks.")
    parser.add_argument("--data", metavar="DIR", type=mnist.folder, help="MNIST's four idx .gz files")
    parser.add_argument("--seeds", type=positive, default=5, help="default: 5")
    parser.add_argument("--validation", action="store_true", help="measure on the last 10,000 training rows instead")
    command.add_options(parser)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run, and report; return 0 also where a target is missed, which the report says."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.source and not options.data:
        parser.error("--data: say where MNIST lies, or --from where results lie")
    if options.pages and options.validation:
        parser.error("the pages' table is of the test rows: leave out --validation")

    def measure() -> dict[str, Any]:
        rows = Rows(*mnist.read(options.data))
        chosen, on = (rows.validation(), VALIDATION) if options.validation else (rows, TEST)
        return run(Recipe(), STAGES, chosen, options.seeds, on)

    command.publish(options, "sparsity", report.render, measure)
    return 0
