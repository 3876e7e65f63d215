"""``nbdense train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nbdense.commands.interface.base import (
    Outcome,
    Share,
    WholeNumber,
    WholeNumbers,
    declare,
    separator_option,
    tell,
)
from nbdense.commands.tables.schema import Wishes, column_of


class _ColumnAs(click.ParamType):
    """A column and its kind, ``NAME=KIND``."""

    name = "NAME=KIND"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return column_of(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _ClassWeight(click.ParamType):
    """``balanced``, or a weight for some classes."""

    name = "balanced|CLASS=WEIGHT,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "balanced":
            return value
        try:
            pairs = [entry.rpartition("=") for entry in value.split(",")]
            weights = {name: float(weight) for name, _, weight in pairs if name}
        except ValueError:
            weights = {}
        if len(weights) < len(value.split(",")) or not all(0 <= weight < float("inf") for weight in weights.values()):
            self.fail(f"expected balanced, or CLASS=WEIGHT with commas between them, got {value!r}", param, ctx)
        return weights


@declare(
    "train",
    examples=[
        "nbdense train data.csv --target y",
        "nbdense train data.csv --target y --out model --class-weight balanced",
        "nbdense train data.parquet --target price --hidden 128,64 --epochs 50 --drop id",
        "nbdense train data.csv --target y --as zip=text --as born=date:%d.%m.%Y",
    ],
)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--target", required=True, metavar="COLUMN", help="The column to predict.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("nbdense-model"), metavar="DIR", help="Folder to write."
)
@click.option("--overwrite", is_flag=True, help="Replace the folder if train wrote it.")
@click.option(
    "--task", type=click.Choice(["classification", "regression"]), help="By default found in the target's cells."
)
@click.option("--drop", multiple=True, metavar="COLUMN", help="A column to leave out; may be repeated.")
@click.option(
    "--as",
    "kinds",
    multiple=True,
    type=_ColumnAs(),
    help="A column's kind: number, text, boolean, date or date:FORMAT; may be repeated.",
)
@separator_option
@click.option("--hidden", type=WholeNumbers(1), default="64,32", metavar="N,N,...", help="Units of the hidden layers.")
@click.option("--activation", default="relu", help="Activation of the hidden layers.")
@click.option("--epochs", type=WholeNumber(1), default=200, help="Epochs, at most.")
@click.option("--patience", type=WholeNumber(1), default=10, help="Stop after so many epochs without an improvement.")
@click.option("--batch", type=WholeNumber(1), help="Rows a step; by default a fiftieth of all, 16 to 200.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), default=0.001, help="Step size of Adam.")
@click.option("--alpha", type=click.FloatRange(0), default=1e-4, help="L2 penalty.")
@click.option("--class-weight", type=_ClassWeight(), help="Weights of classes; balanced: all weigh alike.")
@click.option("--test", type=Share(), default=0.2, help="Share of the rows held out for the test.")
@click.option("--seed", type=WholeNumber(0), default=0, help="Seed of split, weights and shuffling.")
def command(
    data: Path,
    target: str,
    out: Path,
    overwrite: bool,
    task: str | None,
    drop: tuple[str, ...],
    kinds: tuple[Any, ...],
    batch: int | None,
    **choices: Any,
) -> Outcome:
    """Train on a table: a pipeline, its scores, a report and ONNX.

    DATA is CSV, Parquet (.parquet) or NumPy's .npy. Numbers, text, booleans, dates (as 2026-11-27) and missing cells
    are told apart by themselves, and the task by the target. The folder holds the fitted pipeline, its network, its
    scores, plots, a report page, and one ONNX file that reads the raw columns: dates as whole days since 1970-01-01,
    text with "" for a missing cell.
    """
    from nbdense.commands import train

    wishes = Wishes({column.name: column for column in kinds}, drop, task)
    options = train.Options(target=target, wishes=wishes, batch=batch or 0, **choices)
    metrics = train.run(data, out, options, overwrite, tell=tell)
    return Outcome(train.report(metrics, out), {"folder": out, **metrics})
