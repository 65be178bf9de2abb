"""`./livoa runs`: the runs you may see, newest first."""

from __future__ import annotations

import argparse
from typing import Any

from cli.connection import add_options, connect
from cli.exit_codes import ExitCode
from cli.output import WHOLE_LINES, human_console, print_json, progress

EXAMPLE = """
  ./livoa runs --status running
  ./livoa runs --limit 100 --json
  ./livoa runs --since 2026-11-01T00:00:00Z --count
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `runs`."""
    parser.add_argument("--status", help="only runs that stand there (running, succeeded, …)")
    parser.add_argument("--since", metavar="TIME", help="only runs created then or later (2026-11-01T00:00:00Z)")
    parser.add_argument("--until", metavar="TIME", help="only runs created before then")
    parser.add_argument(
        "--count", action="store_true", help="how many runs of the tenant stand where, instead of the runs"
    )
    parser.add_argument("--limit", type=int, default=20, help="how many (20, at most 200)")
    parser.add_argument("--cursor", help="go on where the last page ended")
    add_options(parser)


def run(options: argparse.Namespace) -> ExitCode:
    """Print one page, or the counts."""
    within = {"since": options.since, "until": options.until}
    if options.count:
        return _count(options, connect(options).run_counts(**within))
    page = connect(options).runs(status=options.status, limit=options.limit, cursor=options.cursor, **within)
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


def _count(options: argparse.Namespace, counts: dict[str, Any]) -> ExitCode:
    if options.json:
        print_json(counts)
        return ExitCode.OK
    console = human_console()
    for status, count in counts["by_status"].items():
        if count:
            console.print(f"{count:>7}  {status}")
    newest = "" if counts["is_complete"] else " (the newest; there are more)"
    console.print(f"{counts['total']:>7}  in all{newest}")
    return ExitCode.OK
