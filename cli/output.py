"""Where output goes: results to stdout, progress to stderr; with `--json` exactly one JSON line per result on stdout.

Deliberately free of rich at import time, because machines and `--help` do not need it. Whatever a line quotes (a plan, a catalog,
a host's answer), it cannot drive the terminal.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from cli.render.text import clean

if TYPE_CHECKING:
    from rich.console import Console


PIPED_WIDTH = 120
"""Columns where there is no terminal to ask: rich would take 80, in which tables of figures break."""

WHOLE_LINES = 4096
"""Columns for a list in a pipe, where each row stays one line for grep and awk."""


_NOT_ESCAPED = re.compile(r"[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What could drive a terminal and need not be escaped in JSON."""


def print_json(value: Any) -> None:
    """Write one JSON line to stdout and flush it, so that a reader of a stream gets it now."""
    line = json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
    sys.stdout.write(_NOT_ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", line) + "\n")
    sys.stdout.flush()


def progress(text: str) -> None:
    """Write one line of progress to stderr."""
    sys.stderr.write(clean(text) + "\n")
    sys.stderr.flush()


def say(text: str) -> None:
    """Write one line of a result for people to stdout."""
    sys.stdout.write(clean(text) + "\n")
    sys.stdout.flush()


def write_bytes(data: bytes) -> None:
    """Write a result to stdout, without a line end of ours: as it is, and on a terminal without what could drive that."""
    if sys.stdout.isatty():
        data = clean(data.decode("utf-8", "replace")).encode()
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def human_console(*, stderr: bool = False, piped_width: int | None = None) -> Console:
    """A rich console, ``piped_width`` columns wide where there is no terminal (default: COLUMNS, else PIPED_WIDTH).

    Text of runs is never markup: pass it as `Text` or with `markup=False`.
    """
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None
    if not stream.isatty():
        width = piped_width or (None if "COLUMNS" in os.environ else PIPED_WIDTH)
    return Console(stderr=stderr, highlight=False, soft_wrap=False, width=width)
