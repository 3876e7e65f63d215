"""``nbdense warmup``."""

from __future__ import annotations

import dataclasses

import click

from nbdense.commands.interface.base import Outcome, declare, tell

_DTYPES = click.Choice(["float32", "float64"])


@declare(
    "warmup", examples=["nbdense warmup", "nbdense warmup --quant", "nbdense warmup --quant --dtype float32 float64"]
)
@click.option("--dtype", multiple=True, type=_DTYPES, default=["float32"], help="Type of the models to come.")
@click.argument("dtypes", nargs=-1, type=_DTYPES, metavar="[DTYPE]...")  # more of --dtype's, without a --dtype each
@click.option("--quant", is_flag=True, help="Compile nbdense.quant's programs too.")
def command(dtype: tuple[str, ...], dtypes: tuple[str, ...], quant: bool) -> Outcome:
    """Compile ahead of time all that is not in the cache yet.

    That is the programs of training and predictions, and all activations, losses, optimizers and layers. Processes
    share the work.
    """
    from nbdense._compile import kernel_cache
    from nbdense.commands import warmup

    done = warmup.warm_up(list(dict.fromkeys((*dtype, *dtypes))), quant, tell)
    folder = kernel_cache.cache_folder()
    text = f"{len(done)} compiled, in {folder}" if done else f"all was compiled already, in {folder}"
    return Outcome(text, {"folder": folder, "compiled": [dataclasses.asdict(each) for each in done]})
