"""``nbdense bench``."""

from __future__ import annotations

from pathlib import Path

import click

from nbdense.commands.interface.base import Outcome, WholeNumbers, declare


@declare("bench", examples=["nbdense bench nbdense-model", "nbdense bench int8.safetensors --batches 1,64 --seconds 1"])
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--batches", type=WholeNumbers(1), default="1,32,1024", metavar="N,N,...", help="Rows a call.")
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), default=0.3, help="To spend on each line, at least."
)
def command(model: Path, batches: tuple[int, ...], seconds: float) -> Outcome:
    """Time a model's predictions here, beside onnxruntime's.

    MODEL is a folder that train, quantize or prune wrote, of which the network is timed, or a file: nbdense's own, ONNX
    or TFLite.
    """
    from nbdense.commands import bench

    result = bench.run(model, batches, seconds)
    return Outcome(bench.report(result), result)
