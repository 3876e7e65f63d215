"""Ingredients of a command: its result, and the decorator that makes it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from nbdense.commands.errors import DONE, EXIT_CODES
from nbdense.commands.tables.json_text import json_text


@dataclass(frozen=True)
class Outcome:
    """The result of a command.

    Attributes
    ----------
    text : str
        The result in words, for stdout.
    data : mapping
        The same as data, for ``--json``.
    code : int
        The exit code.
    """

    text: str
    data: Mapping[str, Any] = field(default_factory=dict)
    code: int = DONE


class WholeNumber(click.ParamType):
    """A whole number of at least ``least``.

    Parameters
    ----------
    least : int
        The smallest that is taken.
    """

    name = "N"

    def __init__(self, least: int) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, or fail with a line that says what is wrong with it."""
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is not a whole number", param, ctx)
        if number < self.least:
            self.fail(f"must be at least {self.least}, got {number}", param, ctx)
        return number


class Share(click.ParamType):
    """A number in [0, 1), or in (0, 1) where nothing at all makes no sense.

    Parameters
    ----------
    zero : bool
        Whether 0 is taken.
    """

    name = "SHARE"

    def __init__(self, zero: bool = True) -> None:
        self.zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail with a line that says what is wrong with it."""
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number", param, ctx)
        if not (0 <= number < 1 and (self.zero or number > 0)):
            self.fail(f"must be in {'[' if self.zero else '('}0, 1), got {value}", param, ctx)
        return number


def declare(
    name: str, *, examples: Sequence[str], codes: Mapping[int, str] | None = None
) -> Callable[[Callable[..., Outcome]], click.Command]:
    """Return a decorator that makes a command of a function of its options, whose docstring is the help.

    The command prints what the function returns, in words or with ``--json`` as an object, and returns the exit code.

    Parameters
    ----------
    name : str
        What it is called by.
    examples : sequence of str
        Lines for --help, without the prompt.
    codes : mapping of int to str, optional
        Exit codes beside those that all commands have.
    """
    lines = [f"  {code:<4} {text}" for code, text in sorted({**EXIT_CODES, **(codes or {})}.items())]
    # "\b" keeps click from joining the lines
    epilog = "\n\n".join(
        "\n".join(["\b", head, *body])
        for head, body in (("Examples:", [f"  {line}" for line in examples]), ("Exit codes:", lines))
    )

    def decorate(function: Callable[..., Outcome]) -> click.Command:
        @functools.wraps(function)
        def run(as_json: bool, **options: Any) -> int:
            outcome = function(**options)
            click.echo(json_text(outcome.data) if as_json else outcome.text)
            return outcome.code

        made = click.command(name, epilog=epilog, context_settings={"show_default": True})(run)
        made.params.append(
            click.Option(["--json", "as_json"], is_flag=True, help="Print the result as one JSON object.")
        )
        return made

    return decorate


class WholeNumbers(click.ParamType):
    """Whole numbers of at least ``least``, with commas between them.

    Parameters
    ----------
    least : int
        The smallest that is taken.
    """

    name = "N,N,..."

    def __init__(self, least: int) -> None:
        self._number = WholeNumber(least)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return the numbers, or fail with a line that says what is wrong with one."""
        if not isinstance(value, str):
            return tuple(value)
        return tuple(self._number.convert(part, param, ctx) for part in value.split(",") if value.strip())


separator_option = click.option(
    "--separator", metavar="CHAR", help="What stands between cells of a CSV; by default a comma, a tab in .tsv."
)


def data_options(purpose: str) -> Callable[[Callable[..., Outcome]], Callable[..., Outcome]]:
    """Return the options of a table that a model is changed by.

    Parameters
    ----------
    purpose : str
        What the table is for.
    """
    options = (
        click.option("--data", type=click.Path(path_type=Path), metavar="FILE", help=purpose),
        click.option("--drop", multiple=True, metavar="COLUMN", help="A column of the data to leave out."),
        separator_option,
    )

    def decorate(function: Callable[..., Outcome]) -> Callable[..., Outcome]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def out_option(function: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Add the options of what is written.

    Parameters
    ----------
    function : callable
        The command's.
    """
    function = click.option("--overwrite", is_flag=True, help="Replace a folder of nbdense's.")(function)
    return click.option(
        "--out",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="Folder or file to write; by default called like the model, in this folder.",
    )(function)


def tell(line: str) -> None:
    """Print a line of what goes on at once, unless stdout is to be one JSON object.

    Parameters
    ----------
    line : str
        The line.
    """
    if not asked_for_json():
        click.echo(line)


def asked_for_json() -> bool:
    """Tell whether the running command was given ``--json``, so that stdout is the object alone."""
    return bool(click.get_current_context().params.get("as_json"))
