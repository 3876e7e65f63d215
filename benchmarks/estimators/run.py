"""Estimators beside scikit-learn's: ``python -m benchmarks.estimators --help``."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks import machine
from benchmarks.estimators import report
from benchmarks.estimators.cells import DATA_SETS, measured
from benchmarks.publishing import command

FORMAT = 1


def run(names: list[str], seeds: int, rounds: int) -> dict[str, Any]:
    """Measure; return what the JSON file holds."""
    results: dict[str, Any] = {"format": FORMAT, "machine": machine.describe(), "seeds": seeds, "data_sets": {}}
    for name in names:
        results["data_sets"][name] = measured(DATA_SETS[name], seeds, rounds)
        command.say(f"{name}: measured")
    return results


def main(arguments: list[str] | None = None) -> int:
    """Run, and report; return 0 also where a target is missed, which the report says."""
    parser = argparse.ArgumentParser("python -m benchmarks.estimators", description="Estimators beside scikit-learn's.")
    parser.add_argument("--data-sets", nargs="+", choices=list(DATA_SETS), default=list(DATA_SETS))
    parser.add_argument("--seeds", type=int, default=5, help="of fits by lbfgs; default: 5")
    parser.add_argument("--rounds", type=int, default=7, help="timed fits of each library; default: 7")
    command.add_options(parser)
    options = parser.parse_args(arguments)
    command.publish(options, "estimators", report.render, lambda: run(options.data_sets, options.seeds, options.rounds))
    return 0
