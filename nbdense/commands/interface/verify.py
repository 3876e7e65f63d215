"""``nbdense verify``."""

from __future__ import annotations

from pathlib import Path

import click

from nbdense.commands.errors import DIFFERS, DONE
from nbdense.commands.interface.base import Outcome, declare, separator_option


@declare(
    "verify",
    examples=[
        "nbdense verify nbdense-model",
        "nbdense verify nbdense-model --data data.csv",
        "nbdense verify network.safetensors network.onnx --data rows.npy",
    ],
    codes={DIFFERS: "they differ"},
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path), required=False)
@click.option(
    "--data", type=click.Path(path_type=Path), metavar="FILE", help="Rows to compare on; by default drawn ones."
)
@click.option("--drop", multiple=True, metavar="COLUMN", help="A column of the data to leave out; may be repeated.")
@separator_option
def command(
    model: Path, other: Path | None, data: Path | None, drop: tuple[str, ...], separator: str | None
) -> Outcome:
    """Compare a model with its ONNX or TFLite form, row by row.

    MODEL is a folder that train, quantize or prune wrote, whose ONNX file is run on raw columns by onnxruntime; or a
    model's file, beside OTHER, the file that was made of it.
    """
    from nbdense.commands import verify

    result = verify.run(model, other, data, drop, separator)
    return Outcome(result["text"], result, DONE if result["agrees"] else DIFFERS)
