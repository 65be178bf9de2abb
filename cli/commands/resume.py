"""`./livoa resume`: let a suspended run go on."""

from __future__ import annotations

import argparse

from cli.connection import add_options, connect, run_id_of
from cli.exit_codes import ExitCode
from cli.output import print_json, progress

EXAMPLE = """
  ./livoa resume last
  ./livoa resume last --budget 2500000        # micro-USD: 2.50 dollars for the whole run
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `resume`."""
    parser.add_argument("run_id", help="id of the run, or `last` for the newest")
    parser.add_argument(
        "--budget",
        type=int,
        metavar="MICRO_USD",
        help="what the whole run may cost, when it was suspended for want of budget",
    )
    add_options(parser)


def run(options: argparse.Namespace) -> ExitCode:
    """Go on where the run was held. One that is not suspended is left alone (exit code 1)."""
    api = connect(options)
    body = {} if options.budget is None else {"max_cost_micro_usd": options.budget}
    answer = api.resume(run_id_of(api, options.run_id), body)
    if options.json:
        print_json(answer)
    else:
        progress(f"{answer['status']}    {answer['run_id']}")
    return ExitCode.OK
