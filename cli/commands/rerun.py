"""`./livoa rerun`: do a finished run again."""

from __future__ import annotations

import argparse
from typing import Any

from cli.connection import add_options, connect, run_id_of
from cli.exit_codes import ExitCode
from cli.output import print_json, progress

EXAMPLE = """
  ./livoa rerun last                          # what did not succeed, and what depends on it
  ./livoa rerun last --from summarise         # that step and what depends on it, too
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `rerun`."""
    parser.add_argument("run_id", help="id of the run, or `last` for the newest")
    parser.add_argument("--from", dest="from_step", metavar="STEP", help="do this step again although it succeeded")
    add_options(parser)


def _unsure(steps: list[dict[str, Any]]) -> list[str]:
    """The steps of which nobody knows whether they had an effect that must not be repeated."""
    from engine.domain.execute import MAY_HAVE_HAD_ITS_EFFECT

    return [
        str(step["id"])
        for step in steps
        if str((step.get("error") or {}).get("message") or "").endswith(MAY_HAVE_HAD_ITS_EFFECT)
    ]


def run(options: argparse.Namespace) -> ExitCode:
    """A new run with the same plan, vetted anew. What succeeded is taken over: its effects are not repeated."""
    api = connect(options)
    body = {} if options.from_step is None else {"from": options.from_step}
    run_id = run_id_of(api, options.run_id)
    unsure = _unsure(api.steps(run_id))
    answer = api.rerun(run_id, body)
    if unsure:
        progress(f"warning: it does again what may have had its effect already: {', '.join(unsure)}")
    if options.json:
        print_json(answer)
    else:
        progress(
            f"{answer['status']}    {answer['run_id']}    follow: ./livoa events {answer['run_id']} --follow{api.again}"
        )
    return ExitCode.OK
