"""Settings that must be in place before a test module imports nbdense, drawn examples, and the order of the files."""

import os
from pathlib import Path

from hypothesis import settings

# Compiled kernels persist between runs, inside the clone: a user's cache is neither used nor touched.
CACHE = Path(__file__).resolve().parent.parent / ".cache"
os.environ.setdefault("NBDENSE_CACHE_DIR", str(CACHE / "kernels"))
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(CACHE / "hypothesis"))

# The same examples where the same modules are loaded (Hypothesis tries numbers that stand in them), however slow the
# machine is. More and others are tried with `pytest --hypothesis-profile=thorough`.
settings.register_profile("nbdense", derandomize=True, deadline=None, database=None, max_examples=40)
settings.register_profile("thorough", settings.get_profile("nbdense"), derandomize=False, max_examples=500)
settings.load_profile("nbdense")

# A minute each and more: begun last, one would go on alone while all other workers had nothing left to do. What the
# demo compiles serves those behind it.
LONGEST = [
    "test_instruction_sets.py",
    "test_demo.py",
    "test_processes.py",
    "test_cuda.py",
    "test_no_jit.py",
    "test_readme.py",
]


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
