"""Python code in a process of its own: what depends on the environment, on threads, or on where a process begins."""

import os
import subprocess
import sys

from tests.support.source_tree import ROOT

HANGS_AFTER = 1800  # seconds: only what would never end; kernels may be compiled on a slow machine that has other work


def run_python(code, *arguments, **environment):
    """Run code that must succeed, and return its output and what it wrote to stderr; it may import from tests."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        timeout=HANGS_AFTER,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, done.stderr
