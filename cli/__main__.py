"""`python -m cli …`, the same as `./livoa …` inside an environment that has the pins."""

import sys

from cli.main import main

sys.exit(main(sys.argv[1:]))
