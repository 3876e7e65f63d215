"""Settings that must be in place before a test module imports nbdense, and the order of the test files."""

import os
from pathlib import Path

# Compiled kernels persist between runs, inside the clone: a user's cache is neither used nor touched.
os.environ.setdefault("NBDENSE_CACHE_DIR", str(Path(__file__).resolve().parent.parent / ".cache" / "kernels"))

# Minutes each, in single tests: begun last, one would go on alone while all other workers had nothing left to do.
LONGEST = ["test_instruction_sets.py", "test_demo.py", "test_processes.py", "test_no_jit.py"]


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
