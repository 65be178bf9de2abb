"""`./livoa suspend`: hold a run."""

from __future__ import annotations

import argparse

from cli.connection import add_options, connect, run_id_of
from cli.exit_codes import ExitCode
from cli.output import print_json, progress

EXAMPLE = """
  ./livoa suspend last
  ./livoa resume last
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `suspend`."""
    parser.add_argument("run_id", help="id of the run, or `last` for the newest")
    add_options(parser)


def run(options: argparse.Namespace) -> ExitCode:
    """What has begun ends, nothing starts, the deadline holds. A run that is over or being cancelled is left alone (exit 1)."""
    api = connect(options)
    answer = api.suspend(run_id_of(api, options.run_id))
    if options.json:
        print_json(answer)
    else:
        progress(f"{answer['status']}    {answer['run_id']}    go on: ./livoa resume {answer['run_id']}{api.again}")
    return ExitCode.OK
