"""Python code in a process of its own: what depends on the environment, on threads, or on where a process begins."""

import os
import re
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


def run_tests(pattern, *options, **environment):
    """Run tests that must pass, none skipped; return how many they were.

    Of those files alone whose path or text has the pattern: to import all of them takes longer than many a test. Those
    that run tests themselves are left out.
    """
    tests = ROOT / "tests"
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(tests.rglob("test_*.py"))}
    files = [
        path
        for path, text in texts.items()
        if re.search(pattern, path.relative_to(tests).as_posix() + text) and "run_tests" not in text
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *files],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " skipped" not in done.stdout
    return int(re.search(r"(\d+) passed", done.stdout)[1])
