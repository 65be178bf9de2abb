"""`./livoa approvals`: what waits for a person, or everything that was asked about one run."""

from __future__ import annotations

import argparse

from cli.approving import APPROVER, ROLES, command_for, lines_of
from cli.connection import add_options, connect, run_id_of
from cli.exit_codes import ExitCode
from cli.output import print_json, progress, say
from cli.people import people_of

EXAMPLE = """
  ./livoa approvals                     what waits for an answer in the tenant
  ./livoa approvals last                everything asked about one run, with arguments and their way through the plan
  ./livoa approvals --json              {"approvals": […]}
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `approvals`."""
    parser.add_argument("run_id", nargs="?", help="id of a run, or `last` for the newest; default: all that waits")
    parser.add_argument("--limit", type=int, default=50, help="without a run: how many (50, at most 200)")
    add_options(parser)


def run(options: argparse.Namespace) -> ExitCode:
    """List approvals."""
    api = connect(options, ROLES, APPROVER)
    if options.run_id is None:
        listed = api.pending_approvals(limit=options.limit)
    else:
        listed = api.approvals(run_id_of(api, options.run_id))
    if options.json:
        print_json(listed)
        return ExitCode.OK
    people = people_of(options)
    for approval in listed["approvals"]:
        first, *rest = lines_of({"run_id": listed.get("run_id"), **approval}, people)
        say(f"{first}    {approval['run_id']}" if options.run_id is None else first)
        for line in rest:
            say(line)
        if approval["status"] == "pending":
            progress(f"Next: {command_for(approval, api.again)}, or reject")
    if not listed["approvals"]:
        progress("nothing waits for an answer" if options.run_id is None else "nothing was asked about this run")
    return ExitCode.OK
