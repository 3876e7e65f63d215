"""``nbdense export``."""

from __future__ import annotations

from pathlib import Path

import click

from nbdense.commands.export import FORMS
from nbdense.commands.interface.base import Outcome, declare


@declare(
    "export",
    examples=[
        "nbdense export model.safetensors --to onnx",
        "nbdense export int8.safetensors --to c --target cortex-m4 --name digits",
    ],
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--to", "form", required=True, type=click.Choice(list(FORMS)), help="The form.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="File or folder to write; by default called like the model, in this folder.",
)
@click.option("--name", help="What C functions begin with; by default the file's name.")
@click.option("--target", help="The processor that C is for: generic, cortex-m4, ...")
def command(model: Path, form: str, out: Path | None, name: str | None, target: str | None) -> Outcome:
    """Write a model in another form that computes the same.

    MODEL is a folder that train, quantize or prune wrote, of which the network is written, or a file: nbdense's own,
    ONNX or TFLite.
    """
    from nbdense.commands import export

    written = export.run(model, form, out, name, target)
    return Outcome(f"wrote {written}", {"written": written})
