"""``nbdense quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nbdense.commands.interface.base import Outcome, data_options, declare, out_option


@declare(
    "quantize",
    examples=[
        "nbdense quantize nbdense-model --data data.csv --out nbdense-int8",
        "nbdense quantize nbdense-model --data data.csv --budget 0.01",
        "nbdense quantize network.safetensors --data rows.npy --out int8.safetensors",
        "nbdense quantize nbdense-model --scheme weight_only --bits 4",
    ],
)
@click.argument("model", type=click.Path(path_type=Path))
@data_options("Rows to calibrate with: the table that was trained on, or rows for a file's network.")
@out_option
@click.option("--scheme", default="static", help="static, dynamic or weight_only.")
@click.option("--bits", type=click.IntRange(4, 8), default=8, help="Bits of the weights: 8 or 4.")
@click.option("--granularity", default="per_channel", help="per_channel, per_tensor or block.")
@click.option("--range-method", default="minmax", help="minmax, percentile, mse or entropy.")
@click.option("--activation-dtype", type=click.Choice(["int8", "uint8"]), default="int8", help="Of static.")
@click.option("--rounding", default="onnx", help="onnx, tflite, gemmlowp or ruy.")
@click.option("--budget", type=click.FloatRange(0), help="How much of the score may be lost on the data.")
def command(
    model: Path,
    data: Path | None,
    out: Path | None,
    overwrite: bool,
    drop: tuple[str, ...],
    separator: str | None,
    budget: float | None,
    **options: Any,
) -> Outcome:
    """Turn a model into integers.

    MODEL is a folder that train or prune wrote, or a file of a float model (.safetensors, .onnx). What is written is of
    the same kind: a folder with its ONNX file and its report, or a file.
    """
    from nbdense.commands import quantize
    from nbdense.commands.trained.changing import change_text

    if out is None:
        ending = f"-int{options['bits']}"
        out = Path(model.stem + ending + ("" if model.is_dir() else ".safetensors"))
    result = quantize.run(model, data, out, options, budget, overwrite, drop, separator)
    return Outcome(change_text(result), result)
