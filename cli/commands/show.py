"""`./livoa show`: one run with its plan, its steps and its answer, or the output of one of its steps."""

from __future__ import annotations

import argparse
from typing import Any

from cli.approving import waiting_lines
from cli.client import Api
from cli.connection import add_options, connect, run_id_of
from cli.exit_codes import ExitCode
from cli.output import human_console, print_json, progress, say, write_bytes
from cli.people import people_of

EXAMPLE = """
  ./livoa show last
  ./livoa show run-01kar… --json        {"run": …, "plan": …, "steps": […], "approvals": […]}
  ./livoa show last --payload spend > spend.json        the output of a step, as it is; on record
  ./livoa show last --link spend --valid-s 60           a link that opens it for whoever has it, for a minute
"""

SHORTEST_S = 10
"""For how long a link must be good at least."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `show`."""
    parser.add_argument("run_id", help="id of the run, or `last` for the newest")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--payload", metavar="STEP", help="write the output of this step to standard output instead")
    one.add_argument("--link", metavar="STEP", help="make a link that opens the output of this step without a token")
    parser.add_argument("--item", type=int, help="of a map: which item, counted from 0")
    parser.add_argument("--valid-s", type=int, default=300, help="how long the link is good, 10 to 900 s (default 300)")
    add_options(parser)


def run(options: argparse.Namespace) -> ExitCode:
    """Print the run as it stands. Exit code 0 whatever its status: looking is not judging."""
    api = connect(options)
    run_id = run_id_of(api, options.run_id)
    if options.payload is not None or options.link is not None:
        return _output(api, run_id, options)
    view, plan, steps = api.run(run_id), api.plan(run_id), api.steps(run_id)
    approvals = api.approvals(run_id)["approvals"]
    if options.json:
        print_json({"run": view, "plan": plan, "steps": steps, "approvals": approvals})
    else:
        _show(view, plan, steps)
        if not view.get("finished_at"):
            for line in waiting_lines(approvals, api.again, people_of(options)):
                progress(line)
        if not view.get("finished_at"):
            progress(f"Next: ./livoa events {run_id} --follow{api.again}")
    return ExitCode.OK


def _output(api: Api, run_id: str, options: argparse.Namespace) -> ExitCode:
    """One output, by a link that is made for it: the host has no other way to bytes, and this one is on record."""
    valid_s = options.valid_s if options.link is not None else SHORTEST_S
    made = api.link(run_id, options.link if options.link is not None else options.payload, options.item, valid_s)
    if options.payload is not None:
        write_bytes(api.linked(made["url"]))
        return ExitCode.OK
    if options.json:
        print_json(made)
    else:
        say(made["url"])
        progress(f"opens {made['size_bytes']:,} bytes until {made['expires_at']} for whoever has it")
    return ExitCode.OK


def _taken_over(step: dict[str, Any]) -> str:
    return f"taken over from {step['reused_from']}" if step.get("reused_from") else ""


def _show(view: dict[str, Any], plan: dict[str, Any] | None, steps: list[dict[str, Any]]) -> None:
    from cli.commands.run import show_answer
    from cli.render.text import planner_words
    from cli.render.views import plan_tree, steps_table
    from cli.run_state import StepState

    console = human_console()
    if view.get("planner"):
        console.print(f"planned {planner_words(view['planner'])}", markup=False, highlight=False)
    if view.get("parent_run_id"):
        from_step = f", from {view['rerun_from']} on" if view.get("rerun_from") else ""
        console.print(f"does {view['parent_run_id']} again{from_step}", markup=False, highlight=False)
    if view.get("plan_version", 0) > 1:
        console.print(f"version {view['plan_version']} of the plan: a failed step had it repaired", highlight=False)
    if plan is not None:
        console.print(plan_tree(plan["plan"], plan["plan_hash"]))
    planned = {step["id"]: step.get("capability") for step in (plan["plan"]["steps"] if plan is not None else ())}
    states = [
        StepState(
            step["id"],
            # One that ended before it began is on record without its capability.
            step.get("capability") or planned.get(step["id"]) or step["kind"],
            step["status"],
            step["attempt"],
            step["duration_ms"],
            # The message of an error stands below the table, in full.
            note=(step.get("error") or {}).get("code") or step.get("degraded") or _taken_over(step),
        )
        for step in steps
    ]
    if states:
        console.print(steps_table(states))
    show_answer(view, steps)
