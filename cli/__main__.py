"""`python -m cli …`, the same as `./livoa …` inside an environment that has the pins."""

import gc
import sys

from cli.main import main

code = main(sys.argv[1:])
gc.freeze()  # the process ends: looking through its heap for what could be freed takes 0.1 s and frees nothing
sys.exit(code)
