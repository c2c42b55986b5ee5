"""`python -m amenable`: the command line where the `amenable` script is not on the path."""

import sys

from amenable.cli import main

if __name__ == "__main__":
    sys.exit(main())
