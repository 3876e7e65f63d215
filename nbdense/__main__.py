"""``python -m nbdense``: the ``nbdense`` command."""

import sys

from nbdense.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
