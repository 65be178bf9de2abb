"""One module per command: EXAMPLE, configure(parser), run(options). Nothing heavy at import time."""
