"""`python -m benchmarks.estimators`."""

import sys

from benchmarks.estimators.run import main

sys.exit(main())
