"""Follow one run to its end and show it meanwhile: live on a terminal, line by line elsewhere, silently for machines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cli.approving import command_for, named
from cli.client import Api
from cli.errors import CliError
from cli.output import human_console, progress
from cli.render.text import STATUS_MARK, clean, duration, one_line, planner_words
from cli.run_state import RunState

if TYPE_CHECKING:
    from rich.console import Group

_SHOWN_LINES = {
    "step.started",
    "step.retried",
    "step.succeeded",
    "step.failed",
    "step.denied",
    "step.skipped",
    "step.cancelled",
}


def watch_run(
    api: Api,
    run_id: str,
    *,
    deadline: float | None = None,
    on_event: Callable[[Mapping[str, Any]], None] = lambda event: None,
) -> RunState:
    """Follow a run from its first event until it is over and return what the events told. Shows it on stderr.

    Raises CliError (TIMEOUT) when ``deadline`` (``time.monotonic()`` seconds) passes first; the run goes on.
    """
    state = RunState(run_id)
    show = _live if sys.stderr.isatty() else _lines
    show(api, state, deadline, on_event)
    return state


def _advance(api: Api, state: RunState, event: Mapping[str, Any]) -> dict[str, Any] | None:
    """Take up one event; the plan's view when the event put a new plan in force."""
    state.apply(event)
    if event["type"] not in {"plan.vetted", "plan.repaired"}:
        return None
    view = api.plan(state.run_id)
    if view is not None:
        state.learn_plan(view["plan"])
        state.plan_hash = view["plan_hash"]
    return view


def _gap(err: CliError) -> None:
    progress(f"livoa: {err}; waiting for the host to come back")


def _lines(api: Api, state: RunState, deadline: float | None, on_event: Callable[[Mapping[str, Any]], None]) -> None:
    from cli.render.views import plan_tree

    for event in api.follow(state.run_id, deadline=deadline, on_gap=_gap):
        view = _advance(api, state, event)
        text = line_of(event)
        if text:
            progress(text)
        if event["type"] == "approval.requested":
            progress(f"    Next: {command_for({'run_id': state.run_id, **event['data']}, api.again)}")
        if view is not None:
            human_console(stderr=True).print(plan_tree(view["plan"], view["plan_hash"]))
        on_event(event)


def line_of(event: Mapping[str, Any]) -> str:
    """One line about an event, or nothing for those that only a machine wants."""
    kind, data = str(event["type"]), event.get("data", {})
    if kind in _SHOWN_LINES:
        if data.get("item") is not None:
            return ""
        word = kind.removeprefix("step.")
        took = duration(data["duration_ms"]) if data.get("duration_ms") is not None else ""
        attempt = f"attempt {data['attempt']}" if data.get("attempt", 1) > 1 else ""
        extra = "  ".join(
            part for part in (took, attempt, one_line(data.get("message") or data.get("code") or "")) if part
        )
        mark = STATUS_MARK.get(word, "▶" if word == "started" else "↻")
        return f"  {mark} {clean(data.get('step_id', '?')):<18} {word:<10} {extra}".rstrip()
    if kind == "step.progressed" and data.get("worker") and data.get("item") is None:
        return f"  ⇢ {clean(data.get('step_id', '?')):<18} on {one_line(data['worker'])}, over the bus"
    if kind.startswith("approval."):
        return _approval_line(kind.removeprefix("approval."), data)
    if kind.startswith(("run.", "plan.", "degraded.", "budget.exhausted", "breaker.")):
        said = data.get("reason") or data.get("message") or data.get("code") or ""
        if kind.startswith("degraded."):  # the answer says why, once
            said = data.get("part") or ""
        if kind.startswith("run.") and data.get("code"):  # the message follows in full with the result
            said = data["code"]
        if kind == "plan.rejected" and data.get("codes"):  # the same
            said = ", ".join(map(str, data["codes"]))
        return "  ".join(part for part in (clean(kind), planner_words(data), one_line(said)) if part)
    return ""


_APPROVAL_MARK = {"requested": "?", "granted": "✓", "refused": "✗", "expired": "✗", "voided": "■"}


def _approval_line(word: str, data: Mapping[str, Any]) -> str:
    said = f"until {one_line(data['expires_at'])}" if word == "requested" and data.get("expires_at") else ""
    if data.get("approver"):
        said = f"by {one_line(data['approver'])}"
    if word == "voided":
        said = one_line(data.get("message") or "")
    if word == "requested":
        word = "waits for a person"
    mark = _APPROVAL_MARK.get(word, "?")
    return f"  {mark} {named(data):<18} {word}  {said}".rstrip()


def _live(api: Api, state: RunState, deadline: float | None, on_event: Callable[[Mapping[str, Any]], None]) -> None:
    from rich.live import Live

    from cli.render.views import plan_tree

    console = human_console(stderr=True)
    with Live(_frame(state), console=console, refresh_per_second=8, transient=False) as live:
        for event in api.follow(
            state.run_id,
            deadline=deadline,
            on_gap=lambda err: live.console.print(f"waiting: {one_line(err)}", markup=False),
        ):
            view = _advance(api, state, event)
            if view is not None:
                live.console.print(plan_tree(view["plan"], view["plan_hash"]))
            if event["type"] == "approval.requested":
                command = command_for({"run_id": state.run_id, **event["data"]}, api.again)
                live.console.print(f"{line_of(event)}\n    Next: {command}", markup=False)
            live.update(_frame(state))
            on_event(event)


def _frame(state: RunState) -> Group:
    from rich.console import Group

    from cli.render.views import run_header, steps_table

    return Group(steps_table(state.steps.values()), run_header(state))
