"""Ingredients of benchmarks of one table: where results come from, where they go, and errors of networks on MNIST."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import machine, mnist
from benchmarks.publishing import pages

Results = dict[str, Any]
FORMAT = 1  # of results of errors on MNIST


def say(line: str) -> None:
    """Print progress to stderr: stdout is the report."""
    print(line, file=sys.stderr, flush=True)


def positive(text: str) -> int:
    """Return an option's number, which has to be at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add --json, --from and --pages to a benchmark's options."""
    parser.add_argument("--json", metavar="FILE", type=Path, help="where results go")
    parser.add_argument("--from", metavar="FILE", type=Path, dest="source", help="take results from here: no run")
    parser.add_argument("--pages", action="store_true", help="write the table into the page that has its markers")


def publish(
    options: argparse.Namespace, block: str, render: Callable[[Results], str], measure: Callable[[], Results]
) -> Results:
    """Measure, or read results that were; write them where the options say, and print the table.

    Parameters
    ----------
    options : Namespace
        The options of `add_options`, parsed.
    block : str
        The name of the table's markers.
    render : callable
        Returns the table of results.
    measure : callable
        Returns results.

    Returns
    -------
    dict
        The results.
    """
    results: Results = json.loads(options.source.read_text(encoding="utf-8")) if options.source else measure()
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    table = render(results)
    if options.pages:
        pages.write({block: table})
    print(table)
    return results


# -- errors of networks that are trained on MNIST ---------------------------------------------------------------------


def add_mnist_options(parser: argparse.ArgumentParser) -> None:
    """Add --data, --seeds and --validation to a benchmark's options."""
    parser.add_argument("--data", metavar="DIR", type=mnist.folder, help="MNIST's four idx .gz files")
    parser.add_argument("--seeds", type=positive, default=5, help="default: 5")
    parser.add_argument("--validation", action="store_true", help="measure on the last 10,000 training rows instead")


def parsed_with_data(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """Return the options of `add_options` and `add_mnist_options`; without a source of results there must be data."""
    options = parser.parse_args(arguments)
    if not options.source and not options.data:
        parser.error("--data: say where MNIST lies, or --from where results lie")
    return options


def chosen_rows(options: argparse.Namespace) -> tuple[mnist.Rows, str]:
    """Return the rows of the options' folder, and which of them errors are measured on."""
    rows = mnist.Rows(*mnist.read(options.data))
    return (rows.validation(), mnist.VALIDATION) if options.validation else (rows, mnist.TEST)


def head_of_results(recipe: Any, rows: mnist.Rows, seeds: int, measured_on: str) -> Results:
    """Return what the JSON file says first, of the machine and of the way in which networks are trained.

    Parameters
    ----------
    recipe : dataclass
        How they are trained; it has their ``widths``.
    rows : Rows
        What they are trained on.
    seeds : int
        How many are trained.
    measured_on : str
        TEST or VALIDATION.
    """
    return {
        "format": FORMAT,
        "machine": machine.describe(),
        "measured_on": measured_on,
        "recipe": {**asdict(recipe), "widths": list(recipe.widths)},
        "seeds": seeds,
        "training_rows": len(rows.x),
        "rows": len(rows.x_test),
    }
