"""A plan that is only looked at, in lines of text: who made it, what it would take, what stands in its way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cli.render.text import counted, money, one_line, planner_words

INFERRED = "plan.edge_inferred"
"""The note that comes with every reference a planner writes: true, and of no use to most who read it."""


def notes_of(warnings: Iterable[Mapping[str, Any]], *, verbose: bool) -> tuple[list[Mapping[str, Any]], str]:
    """The notes to show one by one, and a line about those that only count (empty when there are none)."""
    found = list(warnings)
    shown = [note for note in found if verbose or note["code"] != INFERRED]
    return shown, _inferred(len(found) - len(shown))


def _inferred(count: int) -> str:
    many = f"{counted(count, 'edge')} {'is' if count == 1 else 'are'}"
    return f"note  {many} inferred from references (-v shows each)" if count else ""


def preview_lines(preview: Mapping[str, Any], *, verbose: bool = False) -> Iterator[str]:
    """What there is to say about a preview, the plan itself apart."""
    if preview.get("planner"):
        yield f"planned {planner_words(preview['planner'])}"
    if preview.get("degraded_reason"):
        yield f"degraded: {one_line(preview['degraded_reason'])}"
    if preview.get("refusal"):
        refusal = preview["refusal"]
        yield f"no plan  {one_line(refusal['code'])}: {one_line(refusal['message'])}"
        yield from (f"  you could ask: {one_line(suggestion)}" for suggestion in refusal["suggestions"])
    notes, summary = notes_of(preview["warnings"], verbose=verbose)
    for mark, findings in (("error", preview["errors"]), ("note", notes)):
        yield from (f"{mark}  {_finding(found)}" for found in findings)
    if summary:
        yield summary
    for found in preview["serial_edges"]:
        yield f"note  step {one_line(found['step_id'])} {one_line(found['message'])}"
    if preview.get("critical_path"):
        path = " → ".join(map(one_line, preview["critical_path"]))
        yield f"critical path: {path} ({preview['critical_path_s']:.0f} s expected)"
        yield f"estimated cost: {money(preview['estimated_cost_micro_usd'])}"
    if preview.get("decision"):
        yield from _decision(preview["decision"])


def _finding(found: Mapping[str, Any]) -> str:
    return f"{one_line(found['pointer'] or '/')}  {one_line(found['code'])}  {one_line(found['message'])}"


def _decision(decision: Mapping[str, Any]) -> Iterator[str]:
    yield f"policy: {one_line(decision['verdict'])}"
    yield from (f"  {one_line(reason)}" for reason in decision["reasons"])
    yield from map(_policy_finding, decision["findings"])
    for step_id, own in decision["steps"].items():
        if own["verdict"] != "allow":
            yield f"  step {one_line(step_id)}: {one_line(own['verdict'])}"
            yield from (f"  {_policy_finding(found)}" for found in own["findings"])
    if decision["approvals"]:
        yield f"would ask for approval: {', '.join(map(one_line, decision['approvals']))}"


def _policy_finding(found: Mapping[str, Any]) -> str:
    path = f" ({' → '.join(map(one_line, found['path']))})" if found["path"] else ""
    return f"  {one_line(found['policy_id'])}: {one_line(found['message'])}{path}"
