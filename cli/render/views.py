"""Rich renderables of plans, steps, answers and lists. Imported only when a person is looking."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from cli.render.text import STATUS_MARK, STATUS_STYLE, clean, duration, figure, headed, number, one_line
from cli.run_state import RunState, StepState, kind_of

MAX_SHOWN_STEPS = 200


def plan_tree(plan: Mapping[str, Any], plan_hash: str | None) -> Tree:
    """The task graph as a tree: each step below the last of its needs, the others named beside it."""
    steps = list(plan.get("steps", ()))
    place = {step["id"]: index for index, step in enumerate(steps)}
    title = Text("plan ", style="bold") + Text((plan_hash or "")[:12], style="dim")
    root = Tree(title + Text(f"  {one_line(plan.get('goal', ''), 90)}"))
    nodes: dict[str, tuple[Tree, int]] = {}
    for step in itertools.islice(_after_needs(steps), MAX_SHOWN_STEPS):
        needs = sorted((need for need in step.get("needs", ()) if need in nodes), key=place.__getitem__)
        parent = max(needs, key=lambda need: nodes[need][1], default=None)
        above, level = nodes[parent] if parent else (root, 0)
        nodes[step["id"]] = (above.add(_step_label(step, needs, parent)), level + 1)
    if len(steps) > MAX_SHOWN_STEPS:
        root.add(Text(f"… and {len(steps) - MAX_SHOWN_STEPS} more steps", style="dim"))
    return root


def _after_needs(steps: Sequence[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    """The steps so that each comes after its needs; of those that are ready, in the order of the plan."""
    done: set[str] = set()
    waiting = list(steps)
    known = {step["id"] for step in steps}
    while waiting:
        ready = [step for step in waiting if not (set(step.get("needs", ())) & known) - done]
        if not ready:  # a cycle cannot get here; should one do so, show the rest flat instead of hanging
            ready = waiting
        yield from ready
        done |= {step["id"] for step in ready}
        waiting = [step for step in waiting if step["id"] not in done]


def _step_label(step: Mapping[str, Any], needs: Sequence[str], parent: str | None) -> Text:
    label = Text(clean(step["id"]), style="bold") + Text(
        f"  {clean(step.get('capability') or kind_of(step))}", style="cyan"
    )
    marks = [name.replace("_", " ") for name in ("for_each", "when", "optional") if step.get(name)]
    others = [need for need in needs if need != parent]
    if others:
        marks.append(f"also needs {', '.join(others)}")
    return label + Text(f"  {' · '.join(clean(mark) for mark in marks)}", style="dim")


def steps_table(steps: Iterable[StepState]) -> Table:
    """Live states of steps."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, justify in (("", "left"), ("step", "left"), ("capability", "left"), ("status", "left"), ("attempt", "right"),
                            ("time", "right"), ("", "left")):  # fmt: skip
        table.add_column(column, justify="right" if justify == "right" else "left", overflow="fold")
    for step in steps:
        style = STATUS_STYLE.get(step.status, "")
        items = f"{step.items_done}/{step.items} items " if step.items is not None else ""
        table.add_row(
            Text(STATUS_MARK.get(step.status, "?"), style=style),
            Text(clean(step.step_id)),
            Text(clean(step.capability), style="dim"),
            Text(clean(step.status), style=style),
            str(step.attempt),
            duration(step.duration_ms),
            Text(items + one_line(step.note or (step.worker and f"on {step.worker}"), 60), style="dim"),
        )
    return table


def run_header(state: RunState) -> Text:
    """One line about the whole run."""
    style = STATUS_STYLE.get(state.status, "bold")
    line = Text(f"{STATUS_MARK.get(state.status, '•')} {clean(state.status)}", style=style)
    if state.degraded:  # the answer says why, once
        line += Text("   degraded", style="yellow")
    if state.note:
        line += Text(f"   {one_line(state.note, 100)}", style="dim")
    return line


def answer_panel(answer: Mapping[str, Any]) -> RenderableType:
    """The answer: summary, KPIs as a table, further tables, insights, what is missing."""
    summary = clean(answer.get("summary", ""))
    said = {" ".join(line.split()) for line in summary.splitlines()}
    parts: list[RenderableType] = [Text(summary)]
    if answer.get("kpis"):
        parts.append(_kpi_table(answer["kpis"]))
    for shown in answer.get("tables", ()):
        parts.append(_answer_table(shown))
    for insight in answer.get("insights", ()):
        if one_line(insight.get("text", "")) not in said:  # a composer without a model opens with its first findings
            parts.append(Text("• " + clean(insight.get("text", ""))))
    for missing in answer.get("missing", ()):
        if one_line(missing) not in one_line(summary):
            parts.append(Text("missing: " + clean(missing), style="yellow"))
    if answer.get("degraded_reason"):
        parts.append(Text("degraded: " + clean(answer["degraded_reason"]), style="yellow"))
    return Panel(
        Group(*parts), title=Text(one_line(answer.get("goal", "answer"), 100)), box=box.ROUNDED, padding=(1, 2)
    )


def _kpi_table(kpis: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="KPIs", title_justify="left", title_style="bold")
    for column in ("KPI", "value", "unit", "change", "interval", "from step"):
        numeric = column in {"value", "change", "interval"}
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for kpi in kpis:
        low, high = kpi.get("low"), kpi.get("high")
        change = kpi.get("change")
        table.add_row(
            Text(clean(kpi.get("name", ""))),
            number(kpi.get("value")),
            Text(clean(kpi.get("unit") or "")),
            "" if change is None else f"{change:+.1%}",
            "" if low is None or high is None else f"{number(low)} to {number(high)}",
            Text(clean(kpi.get("step_id", "")), style="dim"),
        )
    return table


def _answer_table(shown: Mapping[str, Any]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, title=Text(clean(shown.get("title", ""))), title_justify="left", title_style="bold"
    )
    rows = [list(row) for row in shown.get("rows", ())]
    columns = list(shown.get("columns", ()))
    units = dict(enumerate(shown.get("units") or ()))
    for index, column in enumerate(columns):
        numeric = any(isinstance(row[index], int | float) for row in rows if index < len(row))
        label = headed(column, units.get(index, ""))
        table.add_column(Text(label), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(figure(value, units.get(index, ""))) for index, value in enumerate(row)))
    return table


def runs_table(runs: Sequence[Mapping[str, Any]], width: int | None) -> Table:
    """A list of runs. Only the title gives way to ``width`` columns: an id that is cut is of no use. None: nothing gives way."""
    wide = width is None or width >= 100
    shown = [
        (
            clean(run["run_id"]),
            clean(run["status"]) + (" (degraded)" if wide and run.get("degraded") else ""),
            str(run.get("created_at", ""))[: 19 if wide else 16].replace("T", " "),
        )
        for run in runs
    ]
    taken = 1 + 2 * 4 + sum(max((len(row[at]) for row in shown), default=0) for at in range(3))
    rest = None if width is None else max(8, width - taken)
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
    )  # two columns between cells
    for column in ("", "run", "status", "created", "title"):
        table.add_column(column, overflow="fold")
    for run, (run_id, status, created) in zip(runs, shown, strict=True):
        style = STATUS_STYLE.get(run["status"], "")
        mark = Text(STATUS_MARK.get(run["status"], "•"), style=style)
        title = Text(one_line(run.get("title") or "", rest))
        table.add_row(mark, Text(run_id), Text(status, style=style), created, title)
    return table
