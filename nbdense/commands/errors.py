"""Exit codes of the ``nbdense`` command, and the error that becomes a line on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DONE, FAILED, WRONG_ARGUMENTS, DIFFERS, INTERRUPTED = 0, 1, 2, 3, 130

# For --help: of every command, and of those that compare.
EXIT_CODES = {
    DONE: "done",
    FAILED: "it cannot be done; one line on stderr says why, and nothing was overwritten",
    WRONG_ARGUMENTS: "the arguments are wrong",
    INTERRUPTED: "interrupted by Ctrl-C; nothing was overwritten",
}


class CommandError(Exception):
    """An error that the user can put right; the message says how, in one line."""


@contextmanager
def need_extra(extra: str, purpose: str) -> Iterator[None]:
    """Turn a missing package into a line that names the extra which brings it.

    Parameters
    ----------
    extra : str
        The extra of nbdense's.
    purpose : str
        What needs it, such as "tables of data".

    Raises
    ------
    CommandError
        If an import inside of the block fails.
    """
    try:
        yield
    except ImportError as error:
        missing = error.name or "a package"
        raise CommandError(f"{purpose} need {missing.partition('.')[0]}: pip install 'nbdense[{extra}]'") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write into a line that names the file or folder.

    Parameters
    ----------
    path : Path
        What is written.

    Raises
    ------
    CommandError
        If the block raises an OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise CommandError(reason if str(path) in reason else f"cannot write {path}: {reason}") from error
