"""Every kernel as plain Python too: what debuggers step through, and what runs where numba cannot compile."""

import os
import subprocess
import sys

from tests.support.source_tree import ROOT


def test_kernels_without_the_jit():
    """The tests marked "kernels", in a process with the JIT disabled; those of quant have a process of their own."""
    options = ["-q", "-m", "kernels", "-p", "no:cacheprovider", "--ignore=tests/quant/kernels/test_integer.py"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests"],
        cwd=ROOT,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout and " skipped" not in run.stdout
