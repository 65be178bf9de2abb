"""`./livoa events`: the ordered event log of a run."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Any

from cli.client import Api
from cli.connection import add_options, connect, run_id_of
from cli.exit_codes import ExitCode
from cli.output import print_json, progress

EXAMPLE = """
  ./livoa events last --follow
  ./livoa events run-01kar… --after 12 --json     one line per event; the number of the last one resumes
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `events`."""
    parser.add_argument("run_id", help="id of the run, or `last` for the newest")
    parser.add_argument("--follow", action="store_true", help="wait for more until the run is over")
    parser.add_argument("--after", type=int, default=0, metavar="SEQ", help="only events after this number")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="with --follow: stop waiting after this")
    add_options(parser)


def run(options: argparse.Namespace) -> ExitCode:
    """Print events as they come: one JSON line each, or number, time, type and data."""
    api = connect(options)
    run_id = run_id_of(api, options.run_id)
    for event in _events(api, run_id, options):
        if options.json:
            print_json(event)
        else:
            sys.stdout.write(_line(event) + "\n")
            sys.stdout.flush()
    return ExitCode.OK


def _events(api: Api, run_id: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    if options.follow:
        deadline = None if options.timeout is None else time.monotonic() + options.timeout
        yield from api.follow(
            run_id, after=options.after, deadline=deadline, on_gap=lambda err: progress(f"livoa: {err}; waiting")
        )
        return
    after = options.after
    while True:
        page = api.events(run_id, after=after)
        yield from page["events"]
        if not page["events"] or page["ended"]:
            return
        after = page["next_after"]


_FIRST = {name: place for place, name in enumerate(("step_id", "subject", "code", "message"))}
"""What a line that is too long must not lose."""
_SHOWN_CHARS = 160
"""So much of an event stands on a terminal; a pipe gets all of it."""


def _line(event: dict[str, Any]) -> str:
    from cli.render.text import clean, number, one_line

    facts = sorted(event.get("data", {}).items(), key=lambda fact: _FIRST.get(fact[0], len(_FIRST)))
    data = "  ".join(f"{name}={number(value) if isinstance(value, float) else value}" for name, value in facts)
    shown = one_line(data, _SHOWN_CHARS if sys.stdout.isatty() else None)
    return f"{event['seq']:>5}  {str(event['at'])[11:23]:<12}  {clean(event['type']):<18} {shown}".rstrip()
