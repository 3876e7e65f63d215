"""C compilers at hand: the one that is named, the system's, or the ziglang wheel's, which is one for all targets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

COMMON = ("-std=c99", "-O2")
ZIG = (sys.executable, "-m", "ziglang", "cc")


def compiler_at_hand(named: str | None = None) -> tuple[str, ...] | None:
    """Return the command of a compiler for this machine; None where there is none.

    Parameters
    ----------
    named : str, optional
        The compiler to take: a program, or "ziglang". By default the environment's CC, then cc, gcc, clang, then the
        ziglang wheel.

    Raises
    ------
    RuntimeError
        If the one that is named is not there.
    """
    if named == "ziglang" and find_spec("ziglang") is not None:
        return ZIG
    if named is not None:
        found = shutil.which(named)
        if found is None:
            raise RuntimeError(f"there is no compiler {named!r} on this machine: install it, or `pip install ziglang`")
        return (found,)
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and shutil.which(name):
            return (str(shutil.which(name)),)
    return ZIG if find_spec("ziglang") is not None else None


def cross_compiler(flags: Sequence[str]) -> tuple[str, ...]:
    """Return the command of the ziglang wheel's compiler with the options of a target.

    Parameters
    ----------
    flags : sequence of str
        The target's options.

    Raises
    ------
    RuntimeError
        If the wheel is not installed.
    """
    if find_spec("ziglang") is None:
        raise RuntimeError("the compiler for other processors is the ziglang wheel: `pip install ziglang`")
    return (*ZIG, *flags)


def compile_c(command: Sequence[str], sources: Sequence[Path], output: Path, options: Sequence[str] = ()) -> None:
    """Compile C sources into a program or an object.

    Parameters
    ----------
    command : sequence of str
        The compiler's command.
    sources : sequence of Path
        The sources.
    output : Path
        What is made.
    options : sequence of str
        Options beside `COMMON`.

    Raises
    ------
    RuntimeError
        If the compiler fails; its message is in the error's.
    """
    parts = [*command, *COMMON, *map(str, sources), *options, "-o", str(output)]
    done = subprocess.run(parts, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not output.exists():
        raise RuntimeError(f"the C compiler failed: {' '.join(parts)}\n{done.stderr[-4000:]}")
