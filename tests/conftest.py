"""Settings that must be in place before a test module imports nbdense."""

import os
from pathlib import Path

# Compiled kernels persist between runs, inside the clone: a user's cache is neither used nor touched.
os.environ.setdefault("NBDENSE_CACHE_DIR", str(Path(__file__).resolve().parent.parent / ".cache" / "kernels"))
