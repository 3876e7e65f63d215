"""Estimators beside scikit-learn's: ``python -m benchmarks.estimators --help``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.estimators import report
from benchmarks.estimators.cells import DATA_SETS, measured
from benchmarks.publishing import pages

FORMAT = 1


def run(names: list[str], seeds: int, rounds: int) -> dict[str, Any]:
    """Measure; return what the JSON file holds."""
    results: dict[str, Any] = {"format": FORMAT, "machine": machine.describe(), "seeds": seeds, "data_sets": {}}
    for name in names:
        results["data_sets"][name] = measured(DATA_SETS[name], seeds, rounds)
        print(f"{name}: measured", file=sys.stderr, flush=True)
    return results


def main(arguments: list[str] | None = None) -> int:
    """Run, and report; return 0 also where a target is missed, which the report says."""
    parser = argparse.ArgumentParser("python -m benchmarks.estimators", description="Estimators beside scikit-learn's.")
    parser.add_argument("--data-sets", nargs="+", choices=list(DATA_SETS), default=list(DATA_SETS))
    parser.add_argument("--seeds", type=int, default=5, help="of fits by lbfgs; default: 5")
    parser.add_argument("--rounds", type=int, default=7, help="timed fits of each library; default: 7")
    parser.add_argument("--json", metavar="FILE", type=Path, help="where results go")
    parser.add_argument("--from", metavar="FILE", type=Path, dest="source", help="take results from here: no run")
    parser.add_argument("--pages", action="store_true", help="write the table into the page that has its markers")
    options = parser.parse_args(arguments)
    if options.source:
        results = json.loads(options.source.read_text(encoding="utf-8"))
    else:
        results = run(options.data_sets, options.seeds, options.rounds)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.pages:
        pages.write({"estimators": report.render(results)})
    print(report.render(results))
    return 0
