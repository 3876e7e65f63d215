"""A C function as the tables of kernels hold it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kernel:
    """A C function, or several that belong together.

    Attributes
    ----------
    text : str
        Their text, a `string.Template`: ``$value`` is the type of activations.
    needs : tuple of str
        The kernels that it calls.
    headers : tuple of str
        Headers, of C's library or another.
    fails : bool
        Whether it returns a status, 0 where there is no error.
    """

    text: str
    needs: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    fails: bool = False


def filled(text: str, **parts: str) -> str:
    """Return a text with other texts in their places, ``@NAME`` for each name.

    Parameters
    ----------
    text : str
        The text.
    **parts
        What stands for each name.
    """
    for name, part in parts.items():
        text = text.replace(f"@{name.upper()}", part)
    return text
