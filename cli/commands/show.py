"""`./livoa show`: one run with its plan, its steps and its answer."""

from __future__ import annotations

import argparse
from typing import Any

from cli.approving import waiting_lines
from cli.connection import add_options, connect, run_id_of
from cli.exit_codes import ExitCode
from cli.output import human_console, print_json, progress

EXAMPLE = """
  ./livoa show last
  ./livoa show run-01kar… --json        {"run": …, "plan": …, "steps": […], "approvals": […]}
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `show`."""
    parser.add_argument("run_id", help="id of the run, or `last` for the newest")
    add_options(parser)


def run(options: argparse.Namespace) -> ExitCode:
    """Print the run as it stands. Exit code 0 whatever its status: looking is not judging."""
    api = connect(options)
    run_id = run_id_of(api, options.run_id)
    view, plan, steps = api.run(run_id), api.plan(run_id), api.steps(run_id)
    approvals = api.approvals(run_id)["approvals"]
    if options.json:
        print_json({"run": view, "plan": plan, "steps": steps, "approvals": approvals})
    else:
        _show(view, plan, steps)
        if not view.get("finished_at"):
            for line in waiting_lines(approvals, api.again):
                progress(line)
        if not view.get("finished_at"):
            progress(f"Next: ./livoa events {run_id} --follow{api.again}")
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
    states = [
        StepState(
            step["id"],
            step.get("capability") or step["kind"],
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
