"""``nbdense demo``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from nbdense.commands.interface.base import Outcome, WholeNumber, declare


@declare("demo", examples=["nbdense demo", "nbdense demo --out here --seed 7"])
@click.option(
    "--out", default=Path("nbdense-demo"), type=click.Path(path_type=Path), metavar="DIR", help="Folder for the files."
)
@click.option("--seed", default=0, type=WholeNumber(0), help="Seed of split, weights and shuffling.")
@click.option("--epochs", default=60, type=WholeNumber(1), help="Epochs of training, and of fine-tuning.")
def command(out: Path, seed: int, epochs: int) -> Outcome:
    """Show the whole product at work on scikit-learn's digits."""
    from nbdense.commands import demo

    results = demo.run(out, seed=seed, epochs=epochs)
    return Outcome(demo.report(results), dataclasses.asdict(results))
