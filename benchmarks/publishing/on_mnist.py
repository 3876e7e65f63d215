"""Options and results that benchmarks of errors on MNIST share: which rows, how many seeds, and how was trained."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from benchmarks import machine, mnist
from benchmarks.publishing import command

FORMAT = 1  # of the results


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add --data, --seeds and --validation to a benchmark's options."""
    parser.add_argument("--data", metavar="DIR", type=mnist.folder, help="MNIST's four idx .gz files")
    parser.add_argument("--seeds", type=command.positive, default=5, help="default: 5")
    parser.add_argument("--validation", action="store_true", help="measure on the last 10,000 training rows instead")


def parsed_with_data(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """Return the options of `command.add_options` and `add_options`; without a source of results there must be data."""
    options = parser.parse_args(arguments)
    if not options.source and not options.data:
        parser.error("--data: say where MNIST lies, or --from where results lie")
    return options


def chosen_rows(options: argparse.Namespace) -> tuple[mnist.Rows, str]:
    """Return the rows of the options' folder, and which of them errors are measured on."""
    rows = mnist.Rows(*mnist.read(options.data))
    return (rows.validation(), mnist.VALIDATION) if options.validation else (rows, mnist.TEST)


def head_of_results(recipe: Any, rows: mnist.Rows, seeds: int, measured_on: str) -> dict[str, Any]:
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
