"""`./livoa retention`: erase one run for good, or take the tenant through its retention now instead of at the next full hour."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from cli.client import Api
from cli.connection import add_options, connect, run_id_of
from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.output import print_json, progress, say

EXAMPLE = """
  ./livoa retention run --dry-run      # what is older than the tenant keeps it
  ./livoa retention run                # have it go, batch after batch
  ./livoa retention erase RUN          # one run that is over: its content from every copy, then the rest; the audit stays
"""
_ROLES = ("Runs.Erase", "Runs.Read")
_ERASER = "erik"
_TRIES, _PAUSE_S = 10, 2.0
_COUNTS = {
    "runs": "runs gone",
    "contents": "runs without their content",
    "instances": "runs that the durable engine has forgotten",
    "ownerless": "contents of no run gone",
    "failed": "failed; the next batch tries them again",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `retention`."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="run | erase")
    run_ = commands.add_parser("run", help="have what is older than the tenant keeps it go")
    run_.add_argument("--dry-run", action="store_true", help="say what is due and change nothing")
    erase = commands.add_parser("erase", help="erase one run that is over; its audit records stay")
    erase.add_argument("run_id", help="id of the run, or `last` for the newest")
    for each in (run_, erase):
        each.add_argument("--json", action="store_true", help="print JSON for machines")
        add_options(each)


def run(options: argparse.Namespace) -> ExitCode:
    """Erase, or run the retention. Both are on record."""
    api = connect(options, roles=_ROLES, default_user=_ERASER)
    return _erase(api, options) if options.what == "erase" else _run(api, options)


def _erase(api: Api, options: argparse.Namespace) -> ExitCode:
    gone = _erased(api, run_id_of(api, options.run_id))
    if options.json:
        print_json(gone)
    else:
        say(
            f"{gone['run_id']} is erased: {gone['objects']} objects of content, and everything else but its audit records"
        )
    return ExitCode.OK


def _erased(api: Api, run_id: str, *, sleep: Callable[[float], None] = time.sleep) -> dict[str, Any]:
    """A run that ended this very moment takes a few seconds until it can go."""
    for _ in range(_TRIES):
        try:
            return api.erase(run_id)
        except CliError as err:
            if err.code != "run.winding_up":
                raise
        sleep(_PAUSE_S)
    return api.erase(run_id)


def _run(api: Api, options: argparse.Namespace) -> ExitCode:
    report = total = api.retention(dry_run=options.dry_run)
    # A batch that only failed would be asked for for ever.
    while report["more"] and not options.dry_run:
        report = api.retention(dry_run=False)
        total = report | {name: total[name] + report[name] for name in _COUNTS}
    if options.json:
        print_json(total)
    else:
        _say(total, dry_run=options.dry_run)
    return ExitCode.FAILED if total["failed"] else ExitCode.OK


def _say(report: dict[str, Any], *, dry_run: bool) -> None:
    if report["legal_hold"]:
        say(f"{report['tenant_id']}: a legal hold keeps everything")
        return
    found = [f"{report[name]} {words}" for name, words in _COUNTS.items() if report[name]]
    due = "nothing is due" if dry_run else "nothing was due"
    say(f"{report['tenant_id']}: {', '.join(found) or due}")
    if dry_run and report["more"]:
        progress("and more: that was one batch")
    if (since := report.get("audit_older_since")) is not None:
        progress(f"Audit records since {since} are older than the tenant keeps them; the application removes none.")
