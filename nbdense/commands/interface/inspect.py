"""``nbdense inspect``."""

from __future__ import annotations

from pathlib import Path

import click

from nbdense.commands.interface.base import Outcome, declare


@declare(
    "inspect",
    examples=[
        "nbdense inspect nbdense-model",
        "nbdense inspect nbdense-model/pipeline.onnx",
        "nbdense inspect int8.safetensors --target cortex-m4",
    ],
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--target", metavar="PROCESSOR", help="What it takes there, layer by layer: cortex-m4, rv32imc, ...")
def command(model: Path, target: str | None) -> Outcome:
    """Show what is in a model: layers, sizes, ranges, histograms.

    MODEL is a folder that train, quantize or prune wrote, or a file: nbdense's own, ONNX or TFLite.
    """
    from nbdense.commands import inspect

    result = inspect.run(model, target)
    return Outcome(inspect.report(result), result)
