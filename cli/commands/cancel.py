"""`./livoa cancel`: ask a run to stop."""

from __future__ import annotations

import argparse
import time

from cli.connection import add_options, connect, run_id_of
from cli.exit_codes import ExitCode
from cli.output import print_json, progress

EXAMPLE = """
  ./livoa cancel last --wait
  ./livoa cancel run-01kar… --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `cancel`."""
    parser.add_argument("run_id", help="id of the run, or `last` for the newest")
    parser.add_argument("--wait", action="store_true", help="return when the run is over")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="with --wait: how long (60)")
    add_options(parser)


def run(options: argparse.Namespace) -> ExitCode:
    """Ask; finished steps stay finished, running agents are told. A run that is over cannot be cancelled (exit code 1)."""
    api = connect(options)
    run_id = run_id_of(api, options.run_id)
    answer = api.cancel(run_id)
    if options.wait:
        for _ in api.follow(run_id, deadline=time.monotonic() + options.timeout):
            pass
        answer = api.run(run_id)
    if options.json:
        print_json(answer)
    else:
        progress(f"{answer['status']}    {run_id}")
    return ExitCode.OK
