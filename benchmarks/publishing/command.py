"""Options that benchmarks of one table share: where results come from, where they go, and whether pages get them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.publishing import pages

Results = dict[str, Any]


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
