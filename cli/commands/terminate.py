"""`./livoa terminate`: end a run at once."""

from __future__ import annotations

import argparse

from cli.connection import add_options, connect, run_id_of
from cli.exit_codes import ExitCode
from cli.output import print_json, progress

EXAMPLE = """
  ./livoa terminate run-01kar…
  ./livoa cancel run-01kar…        # in order: running steps end, effects are undone
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `terminate`."""
    parser.add_argument("run_id", help="id of the run, or `last` for the newest")
    add_options(parser)


def run(options: argparse.Namespace) -> ExitCode:
    """Nothing is undone, no answer is composed, what is under way is not waited for. `./livoa cancel` ends a run in order."""
    api = connect(options)
    answer = api.terminate(run_id_of(api, options.run_id))
    if options.json:
        print_json(answer)
    else:
        progress(f"{answer['status']}    {answer['run_id']}")
    return ExitCode.OK
