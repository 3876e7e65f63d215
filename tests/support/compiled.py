"""Entries of the tests' own, so that a test can call a kernel."""

import hashlib
import inspect
from pathlib import Path

from nbdense._compile.policy import entry


def compiled(function):
    """Compile a test's function under the compile policy, cached under a name that its file's text is part of.

    The cache folder's name hashes the library's sources only: an edited test would run its old machine code.
    """
    source = Path(inspect.getsourcefile(function)).read_bytes()
    function.__qualname__ += hashlib.sha256(source).hexdigest()[:12]
    return entry(function)
