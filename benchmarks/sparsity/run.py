"""The cost of pruning and compression in accuracy: ``python -m benchmarks.sparsity --help``.

A 784-300-100-10 network is trained on MNIST, once for each seed, then pruned further and further, each stage beginning
with the network of the one before. How all of it is set was chosen with ``--validation``: on all but the last 10,000
training rows, by the error on these. The test rows are only measured on.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from typing import Any

from benchmarks.mnist import TEST, Rows
from benchmarks.publishing import command, on_mnist
from benchmarks.sparsity import report
from benchmarks.sparsity.recipe import STAGES, Recipe, Stage, answers


def run(recipe: Recipe, stages: dict[str, Stage], rows: Rows, seeds: int, measured_on: str = TEST) -> dict[str, Any]:
    """Measure; return what the JSON file holds, errors in percent of the test rows."""
    results: dict[str, Any] = {
        **on_mnist.head_of_results(recipe, rows, seeds, measured_on),
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
            command.say(
                f"seed {seed}: {name:<8}{answer.error:.2f}%  {answer.parameters:,} parameters  {answer.file_bytes:,} "
                f"bytes  {time.perf_counter() - started:.0f} s"
            )
    return results


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks.sparsity", description="The error of pruned networks.")
    on_mnist.add_options(parser)
    command.add_options(parser)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run, and report; return 0 also where a target is missed, which the report says."""
    parser = _parser()
    options = on_mnist.parsed_with_data(parser, arguments)
    if options.pages and options.validation:
        parser.error("the pages' table is of the test rows: leave out --validation")

    def measure() -> dict[str, Any]:
        rows, measured_on = on_mnist.chosen_rows(options)
        return run(Recipe(), STAGES, rows, options.seeds, measured_on)

    command.publish(options, "sparsity", report.render, measure)
    return 0
