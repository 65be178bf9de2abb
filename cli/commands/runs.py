"""`./livoa runs`: the runs you may see, newest first."""

from __future__ import annotations

import argparse

from cli.connection import add_options, connect
from cli.exit_codes import ExitCode
from cli.output import WHOLE_LINES, human_console, print_json, progress

EXAMPLE = """
  ./livoa runs --status running
  ./livoa runs --limit 100 --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `runs`."""
    parser.add_argument("--status", help="only runs that stand there (running, succeeded, …)")
    parser.add_argument("--limit", type=int, default=20, help="how many (20, at most 200)")
    parser.add_argument("--cursor", help="go on where the last page ended")
    add_options(parser)


def run(options: argparse.Namespace) -> ExitCode:
    """Print one page."""
    page = connect(options).runs(status=options.status, limit=options.limit, cursor=options.cursor)
    if options.json:
        print_json(page)
        return ExitCode.OK
    from cli.render.views import runs_table

    if page["runs"]:
        console = human_console(piped_width=WHOLE_LINES)
        width = console.width if console.is_terminal else None
        console.print(runs_table(page["runs"], width))
    else:
        progress('no runs here. Next: ./livoa run "…" submits one')
    if page["next_cursor"]:
        progress(f"more: --cursor {page['next_cursor']}")
    return ExitCode.OK
