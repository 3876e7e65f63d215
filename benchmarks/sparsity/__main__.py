"""`python -m benchmarks.sparsity`."""

import sys

from benchmarks.sparsity.run import main

sys.exit(main())
