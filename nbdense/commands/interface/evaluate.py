"""``nbdense evaluate``."""

from __future__ import annotations

from pathlib import Path

import click

from nbdense.commands.interface.base import Outcome, declare, separator_option


@declare(
    "evaluate", examples=["nbdense evaluate nbdense-model test.csv", "nbdense evaluate nbdense-model test.csv --json"]
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--drop", multiple=True, metavar="COLUMN", help="A column of DATA to leave out; may be repeated.")
@separator_option
def command(model: Path, data: Path, drop: tuple[str, ...], separator: str | None) -> Outcome:
    """Score a model's predictions on a table that has the target.

    MODEL is a folder that train, quantize or prune wrote.
    """
    from nbdense.commands import evaluate

    scores = evaluate.run(model, data, drop, separator)
    return Outcome(evaluate.report(scores), scores)
