"""`python -m benchmarks.edge`."""

import sys

from benchmarks.edge.run import main

sys.exit(main())
