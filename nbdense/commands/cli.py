"""The ``nbdense`` command: the registry of its commands, and the codes that it exits with.

The command line is click's: it is light to import, brings the shells' completion, and needs nothing itself.
"""

from __future__ import annotations

import errno
import importlib
import sys
from collections.abc import Sequence
from typing import Any

import click

from nbdense import __version__
from nbdense.commands.errors import FAILED, INTERRUPTED, WRONG_ARGUMENTS, CommandError

# Each is the object `command` of a module of its name in nbdense.commands.interface.
COMMANDS = (
    "train",
    "predict",
    "evaluate",
    "inspect",
    "quantize",
    "prune",
    "export",
    "verify",
    "bench",
    "demo",
    "doctor",
    "warmup",
)

_EPILOG = """\b
Exit codes: 0 done, 1 it cannot be done (one line on stderr says why), 2 wrong arguments,
3 what was compared differs, 130 interrupted. Each command's --help has its own.

\b
Completion, for bash; zsh and fish likewise, with zsh_source and fish_source:
  eval "$(_NBDENSE_COMPLETE=bash_source nbdense)"
"""


class Commands(click.Group):
    """The commands of the registry, each of which is imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the registry's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"nbdense.commands.interface.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error that the user can put right becomes a line on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("nbdense: interrupted", file=sys.stderr)
            return INTERRUPTED
        except (CommandError, ArithmeticError, ImportError, MemoryError, OSError, RuntimeError, ValueError) as error:
            if isinstance(error, click.exceptions.Exit) or getattr(error, "errno", None) == errno.EPIPE:
                raise  # --help; and a reader who has seen enough, which click knows about
            line = " ".join(str(error).split()) or type(error).__name__
            print(f"nbdense {ctx.invoked_subcommand}: {line}", file=sys.stderr)
            return FAILED


@click.group(
    cls=Commands, invoke_without_command=True, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def nbdense(context: click.Context) -> int:
    """Train small neural networks on a CPU, shrink them, ship them as ONNX."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the program's name; by default the process's own.

    Returns
    -------
    int
        The exit code: 0, 1 for an error that the user can put right (one line on stderr), 3 where what was compared
        differs, 130 for Ctrl-C.

    Raises
    ------
    SystemExit
        With 2 for wrong arguments, which stderr names.

    Examples
    --------
    >>> from nbdense.commands.cli import main
    >>> main([])  # doctest: +ELLIPSIS
    Usage: nbdense ...
    0
    """
    try:
        code: int = nbdense.main(args=argv, prog_name="nbdense", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        raise SystemExit(WRONG_ARGUMENTS) from None
    return code
