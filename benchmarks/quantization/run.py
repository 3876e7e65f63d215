"""The cost of quantization in accuracy: ``python -m benchmarks.quantization --help``.

A 784-300-100-10 network is trained on MNIST, once for each seed, and quantized in every way of METHODS, by nbdense and
by onnxruntime.quantization. How training and quantizers are set was chosen with ``--validation``: on all but the last
10,000 training rows, by the error on these. The test rows are only measured on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks.mnist import TEST, Rows
from benchmarks.publishing import command, on_mnist
from benchmarks.quantization import report
from benchmarks.quantization.methods import (
    EXPORTED,
    FLOAT,
    METHODS,
    Recipe,
    Trained,
    compare_export,
)


def run(recipe: Recipe, rows: Rows, seeds: int, names: Iterable[str] = METHODS, measured_on: str = TEST) -> Any:
    """Measure; return what the JSON file holds, errors in percent of the test rows."""
    chosen = [name for name in METHODS if name == FLOAT or (name in names and METHODS[name].installed)]
    results: dict[str, Any] = {
        **on_mnist.head_of_results(recipe, rows, seeds, measured_on),
        "methods": {name: {"errors": []} for name in chosen},
        "export": [],
    }
    for seed in range(seeds):
        started = time.perf_counter()
        trained = Trained(recipe, rows, seed)
        command.say(f"seed {seed}: trained in {time.perf_counter() - started:.1f} s")
        for name in chosen:
            started = time.perf_counter()
            answer = METHODS[name].make(trained)
            error = 100 * float(np.mean(answer.classes != rows.y_test))
            found = results["methods"][name]
            found["errors"].append(round(error, 6))
            found["bytes"] = answer.size_bytes  # shapes alone decide them
            command.say(f"  {name:<28}{error:.3f}%  {time.perf_counter() - started:.1f} s")
            if name == EXPORTED:
                results["export"].append({"seed": seed, **compare_export(answer.model, rows)})
    return results


def _methods(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in METHODS]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are: {', '.join(METHODS)}")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.quantization", description="The error of quantized networks, beside onnxruntime's."
    )
    recipe = Recipe()
    on_mnist.add_options(parser)
    parser.add_argument("--methods", type=_methods, help=f"of {','.join(METHODS)}; default: all")
    parser.add_argument(
        "--calibration", type=command.positive, default=recipe.calibration, help="rows of calibration data"
    )
    parser.add_argument(
        "--aware-epochs", type=command.positive, default=recipe.aware_epochs, help="of quantization-aware training"
    )
    parser.add_argument("--aware-rate", type=float, default=recipe.aware_rate, help="its learning rate")
    command.add_options(parser)
    return parser


def _measured(options: argparse.Namespace) -> Any:
    """Return the results of what the options choose."""
    names = options.methods or METHODS
    if left_out := [name for name in names if not METHODS[name].installed]:
        command.say(f"left out, for lack of {METHODS[left_out[0]].needs}: {', '.join(left_out)}")
    recipe = Recipe(calibration=options.calibration, aware_epochs=options.aware_epochs, aware_rate=options.aware_rate)
    rows, measured_on = on_mnist.chosen_rows(options)
    return run(recipe, rows, options.seeds, names, measured_on)


def main(arguments: list[str] | None = None) -> int:
    """Run, and report; return 0 also where a target is missed, which the report says."""
    parser = _parser()
    options = on_mnist.parsed_with_data(parser, arguments)
    if options.pages and (options.validation or options.methods):
        parser.error("the pages' table is of all methods, on the test rows: leave out --validation and --methods")
    results = command.publish(options, "quantization", report.render, lambda: _measured(options))
    print()
    print(report.verdicts(results))
    return 0
