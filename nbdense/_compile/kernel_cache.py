"""The folders in which compiled kernels are kept, one for each version of the sources that they are made from."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path

import llvmlite
import numba
from numba.core import config

# Of other versions' folders, when a new version makes its own: those that were used in so many days, the last ones
# first, up to so many bytes. A folder takes a few megabytes.
DAYS_KEPT, BYTES_KEPT = 90, 1 << 29
TIMES = "seconds.json"  # how long compiling took on this machine, for all versions
SUFFIX, UNFINISHED = ".nbk", ".tmp"
save_error: OSError | None = None  # why the last kernel that could not be kept was not


@functools.cache
def cache_root() -> Path | None:
    """Return the user's cache folder for nbdense, or NBDENSE_CACHE_DIR; None where there is no home folder."""
    chosen = os.environ.get("NBDENSE_CACHE_DIR")
    try:
        if chosen:
            return Path(chosen).expanduser().absolute()
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "nbdense" / "cache"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "nbdense"
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nbdense"
    except RuntimeError:
        return None


@functools.cache
def cache_folder() -> Path | None:
    """Return the folder of compiled kernels: a subfolder of `cache_root` for each version.

    The subfolder's name hashes the package's sources and the versions of numba and llvmlite: numba itself
    does not notice a change in an imported function, and users would run stale kernels after an upgrade.
    """
    root = cache_root()
    if root is None:
        return None
    settings = (config.BOUNDSCHECK, config.OPT, config.LOOP_VECTORIZE, config.SLP_VECTORIZE)
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__} {settings}".encode())
    for source in compiled_sources():
        digest.update(source.read_bytes())
    return root / digest.hexdigest()[:16]


def compiled_sources() -> list[Path]:
    """Return the source files that compiled code is made from: changing one starts a new cache folder."""
    from importlib.util import find_spec

    here = Path(__file__).parent
    files = [here / f"{name}.py" for name in ("policy", "libraries", "numba_internals", "processor", "loops")]
    files += (here.parent / "engine").rglob("*.py")
    quant = find_spec("nbdense.quant")
    if quant is not None and quant.origin is not None:
        files += (Path(quant.origin).parent / "kernels").glob("*.py")
    return sorted(file for file in files if file.exists())


def writable(folder: Path) -> bool:
    """Tell whether files can be made in the folder, or the folder itself, if it is not there. Leaves nothing behind."""
    try:
        while not folder.exists():
            folder = folder.parent
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def kernel_files(folder: Path) -> list[Path]:
    """Return the files of compiled kernels in a cache folder, those included whose writing was cut short."""
    try:
        return sorted(file for file in folder.iterdir() if file.suffix in (SUFFIX, UNFINISHED))
    except OSError:
        return []


def other_folders() -> list[Path]:
    """Return other versions' cache folders, the one used last first; none that may be anyone else's is among them."""
    folder = cache_folder()
    if folder is None:
        return []
    dated = []
    try:
        for other in folder.parent.iterdir():
            ours = re.fullmatch("[0-9a-f]{16}", other.name) and other.is_dir() and not other.is_symlink()
            if ours and other != folder and len(kernel_files(other)) == len(list(other.iterdir())):
                dated.append((other.stat().st_mtime, other))
    except OSError:
        pass  # not there, or another process is clearing up too
    return [other for _, other in sorted(dated, reverse=True)]


def remove_old_folders() -> None:
    """Remove other versions' folders that are old, or more than there is room for."""
    size = 0
    for folder in other_folders():
        try:
            size += sum(file.stat().st_size for file in kernel_files(folder))
            old = time.time() - folder.stat().st_mtime > DAYS_KEPT * 86400
        except OSError:  # another process is clearing up too
            continue
        if old or size > BYTES_KEPT:
            remove_folder(folder)


@functools.cache
def mark_used(folder: Path) -> None:
    """Note that a cache folder is in use, once a process."""
    with suppress(OSError):  # it can only be read
        os.utime(folder)


@functools.cache
def seconds_taken() -> dict[str, float]:
    """Return what compiling each entry has taken on this machine, by its name, as far as that is known."""
    root = cache_root()
    try:
        known = json.loads((root / TIMES).read_text(encoding="utf-8")) if root else {}
        return {str(name): float(seconds) for name, seconds in known.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def note_seconds(name: str, seconds: float) -> None:
    """Keep how long compiling an entry took."""
    root = cache_root()
    seconds_taken.cache_clear()  # other processes have noted theirs meanwhile
    known = seconds_taken()
    known[name] = round(seconds, 1)
    if root is not None:
        unfinished = root / f"{uuid.uuid4().hex}{UNFINISHED}"
        with suppress(OSError):
            unfinished.write_text(json.dumps(known), encoding="utf-8")
            unfinished.replace(root / TIMES)


def remove_folder(folder: Path) -> None:
    """Remove a cache folder. A process that uses it goes on, and compiles again when it is next started."""
    try:
        for file in kernel_files(folder):
            file.unlink(missing_ok=True)
        folder.rmdir()
    except OSError:
        pass  # in use (Windows), or no longer there
