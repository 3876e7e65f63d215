"""``nbdense prune``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nbdense.commands.interface.base import Outcome, Share, WholeNumber, data_options, declare, out_option


@declare(
    "prune",
    examples=[
        "nbdense prune nbdense-model --sparsity 0.8 --data data.csv --epochs 20",
        "nbdense prune nbdense-model --sparsity 0.5 --structure neuron --data data.csv",
        "nbdense prune network.safetensors --sparsity 0.9 --out sparse.safetensors",
    ],
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--sparsity", type=Share(), required=True, help="Share of weights, or of neurons, to remove.")
@data_options("A table with the target, to fine-tune on and to score by.")
@out_option
@click.option("--epochs", type=WholeNumber(0), default=20, help="Epochs of fine-tuning, where there is data.")
@click.option("--structure", default="unstructured", help="unstructured, block, neuron, or n:m such as 2:4.")
@click.option("--scope", type=click.Choice(["global", "layer"]), default="global", help="What is ranked together.")
@click.option("--criterion", type=click.Choice(["magnitude", "lamp"]), default="magnitude", help="What is ranked by.")
def command(
    model: Path,
    sparsity: float,
    data: Path | None,
    out: Path | None,
    overwrite: bool,
    drop: tuple[str, ...],
    separator: str | None,
    epochs: int,
    **options: Any,
) -> Outcome:
    """Remove the least of a model's weights, or of its neurons.

    MODEL is a folder that train wrote, or a file of a float model (.safetensors, .onnx). What is written is of the same
    kind.
    """
    from nbdense.commands import prune
    from nbdense.commands.trained.changing import change_text

    if out is None:
        out = Path(f"{model.stem}-pruned" + ("" if model.is_dir() else ".safetensors"))
    result = prune.run(model, sparsity, out, options, data, epochs, overwrite, drop, separator)
    return Outcome(change_text(result), result)
