"""Names in C: of the functions that are written, and of their files."""

from __future__ import annotations

import os
import re
from pathlib import Path

# C99's and C++'s, since Arduino's sketches are C++; names that headers and linkers know are below.
_KEYWORDS = frozenset(
    """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t char32_t class co_await
    co_return co_yield compl concept const const_cast consteval constexpr constinit continue decltype default delete do
    double dynamic_cast else enum explicit export extern false float for friend goto if inline int long mutable
    namespace new noexcept not not_eq nullptr operator or or_eq private protected public register reinterpret_cast
    requires restrict return short signed sizeof static static_assert static_cast struct switch template this
    thread_local throw true try typedef typeid typename typeof union unsigned using virtual void volatile wchar_t while
    xor xor_eq
    """.split()  # noqa: SIM905
)
_LIBRARY = frozenset("main abort exit free malloc memcpy memset printf std".split())  # noqa: SIM905
LONGEST = 31  # the first characters that C99 promises to tell external names apart by


def checked_name(name: str) -> str:
    """Return a name that C functions can begin with; refuse any other.

    Parameters
    ----------
    name : str
        The name.

    Raises
    ------
    ValueError
        If it is no identifier of ASCII letters, digits and underscores, too long, reserved, or taken.
    """
    why = None
    if not isinstance(name, str) or re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name, re.ASCII) is None:
        why = "must be a letter, then letters, digits and underscores of ASCII"
    elif len(name) > LONGEST:
        why = f"must have {LONGEST} characters at most, which is what C tells names apart by"
    elif name in _KEYWORDS:
        why = "is a keyword of C or C++"
    elif name in _LIBRARY:
        why = "is a name of C's library"
    if why is not None:
        raise ValueError(f"name {why}, got {name!r}: give another, such as name='network'")
    return name


def source_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a C source; refuse one of another suffix.

    Parameters
    ----------
    path : path
        The file.

    Raises
    ------
    ValueError
        If its name does not end in ".c".
    """
    target = Path(path)
    if target.suffix != ".c":
        raise ValueError(f"path must end in '.c' (the header is written beside it), got {os.fspath(path)!r}")
    return target


def name_of(path: Path, name: str | None) -> str:
    """Return the name that functions begin with: the one that is given, or the file's.

    Parameters
    ----------
    path : Path
        The file.
    name : str, optional
        The name that is given.

    Raises
    ------
    ValueError
        If it is no name for C functions.
    """
    return checked_name(path.stem if name is None else name)
