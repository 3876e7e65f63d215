"""``nbdense predict``."""

from __future__ import annotations

from pathlib import Path

import click

from nbdense.commands.interface.base import Outcome, asked_for_json, declare, separator_option


@declare(
    "predict",
    examples=[
        "nbdense predict nbdense-model new.csv",
        "nbdense predict nbdense-model new.csv --out predictions.csv --probabilities",
        "nbdense predict nbdense-model new.parquet --out predictions.json",
    ],
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="CSV or .json to write; by default CSV on stdout."
)
@click.option("--probabilities", is_flag=True, help="Add a column for each class.")
@click.option("--drop", multiple=True, metavar="COLUMN", help="A column of DATA to leave out; may be repeated.")
@separator_option
def command(
    model: Path, data: Path, out: Path | None, probabilities: bool, drop: tuple[str, ...], separator: str | None
) -> Outcome:
    """Predict the rows of a table.

    MODEL is a folder that train, quantize or prune wrote. DATA has the columns that it was trained on; the target may
    be missing.
    """
    from nbdense.commands import predict

    answers = predict.run(model, data, probabilities, drop, separator)
    if out is not None:
        predict.write(out, answers)
        text = f"wrote {out}: {len(answers.index):,} rows"
        return Outcome(text, {"out": out, "rows": len(answers.index)})
    if asked_for_json():
        return Outcome("", {"rows": predict.records(answers)})
    return Outcome(predict.csv_text(answers).rstrip("\n"))
