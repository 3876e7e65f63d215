"""The ``nbdense`` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from nbdense import __version__
from nbdense.commands.export import FORMS

DEMO_FOLDER = Path("nbdense-demo")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the program's name; by default the process's own.

    Returns
    -------
    int
        The exit code: 0, 1 for an error that the user can put right (one line on stderr), 130 for Ctrl-C.

    Examples
    --------
    >>> from nbdense.commands.cli import main
    >>> main([])  # doctest: +ELLIPSIS
    usage: nbdense ...
    0
    """
    commands = parser()
    arguments = commands.parse_args(argv)
    if arguments.command is None:
        commands.print_help()
        return 0
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        print("nbdense: interrupted", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="nbdense", description="Train small neural networks on a CPU, shrink them, ship them as ONNX."
    )
    made.add_argument("--version", action="version", version=f"nbdense {__version__}")
    commands = made.add_subparsers(dest="command", title="commands", metavar="{demo,doctor,export,warmup}")
    demo = commands.add_parser(
        "demo",
        help="the whole product on scikit-learn's digits: train, quantize, prune, export, verify",
        description="Train, quantize, prune, export and verify a 64-128-64-10 MLP on scikit-learn's digits.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--out", type=Path, default=DEMO_FOLDER, metavar="DIR", help="folder for the files")
    demo.add_argument("--seed", type=_whole(0), default=0, metavar="N", help="seed of split, weights and shuffling")
    demo.add_argument(
        "--epochs", type=_whole(1), default=60, metavar="N", help="epochs of training, and of fine-tuning"
    )
    demo.set_defaults(run=_demo)
    doctor = commands.add_parser(
        "doctor",
        help="what nbdense finds on this machine, and what would be better",
        description="Report versions, CPU, threads and the cache of compiled kernels, with advice.",
    )
    doctor.add_argument("--clean", action="store_true", help="remove other versions' compiled kernels first")
    doctor.set_defaults(run=_doctor)
    export = commands.add_parser(
        "export",
        help="a model file as ONNX, TFLite, C, an object file or a package",
        description="Write a model, as save() has written it, in another form, and see that it computes the same.",
    )
    export.add_argument("model", type=Path, help="the model's file")
    export.add_argument("--to", required=True, choices=list(FORMS), help="the form", dest="form")
    export.add_argument(
        "--out", type=Path, metavar="PATH", help="file or folder to write; by default called like the model"
    )
    export.add_argument("--name", help="what C functions begin with; by default the file's name")
    export.add_argument("--target", help="the processor that C is for: generic, cortex-m4, ...")
    export.set_defaults(run=_export)
    warmup = commands.add_parser(
        "warmup",
        help="compile everything ahead of time",
        description="Compile into the cache whatever is not there yet, so that no later process has to: the programs "
        "of training and predictions, and all activations, losses, optimizers and layers. Processes share the work.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    dtypes = ("float32", "float64")
    warmup.add_argument("--dtype", nargs="+", choices=dtypes, default=["float32"], help="of the models to come")
    warmup.add_argument("--quant", action="store_true", help="nbdense.quant's programs too")
    warmup.set_defaults(run=_warmup)
    return made


def _whole(least: int) -> Callable[[str], int]:
    """Return an argparse type: a whole number of at least ``least``."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
        return value

    number.__name__ = "whole number"
    return number


def _demo(arguments: argparse.Namespace) -> int:
    from nbdense.commands import demo

    try:
        results = demo.run(arguments.out, seed=arguments.seed, epochs=arguments.epochs)
    except (demo.DemoError, OSError) as error:
        print(f"nbdense demo: {error}", file=sys.stderr)
        return 1
    print(demo.report(results))
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from nbdense.commands import doctor

    if arguments.clean:
        folders, size = doctor.clean()
        print(f"removed {folders} folders of other versions, {size / 1e6:.1f} MB")
    print(doctor.examine())
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from nbdense.commands import export

    try:
        written = export.run(arguments.model, arguments.form, arguments.out, arguments.name, arguments.target)
    except export.ExportError as error:
        print(f"nbdense export: {error}", file=sys.stderr)
        return 1
    print(f"wrote {written}")
    return 0


def _warmup(arguments: argparse.Namespace) -> int:
    from nbdense._compile import kernel_cache
    from nbdense.commands import warmup

    try:
        done = warmup.warm_up(arguments.dtype, arguments.quant, tell=lambda line: print(line, flush=True))
    except warmup.WarmupError as error:
        print(f"nbdense warmup: {error}", file=sys.stderr)
        return 1
    folder = kernel_cache.cache_folder()
    print(f"{len(done)} compiled, in {folder}" if done else f"all was compiled already, in {folder}")
    return 0
