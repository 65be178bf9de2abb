"""Repair: hand a draft back to the planner model with what is wrong with it, as a typed list.

A revision after a self-critique is the same with findings in place of faults, and is not counted as a repair.
"""

from __future__ import annotations

import json

from engine.domain.errors import Violation
from engine.ports.models import Message
from planner_graph.nodes.drafting import draft, opening
from planner_graph.prompts import load_prompt, prompt_file
from planner_graph.state import Finding, Session, State

_MAX_TOLD = 30
_MAX_MESSAGE_CHARS = 400


async def repair(state: State, session: Session) -> State:
    """The next draft."""
    findings = state.get("findings", ())
    if findings:
        told, name = load_prompt("revise").render(findings=findings_text(findings)), "revise"
        counted: State = {"revisions": 1}
        node = "revise"
    else:
        told, name = load_prompt("repair").render(violations=violations_text(state.get("faults", ()))), "repair"
        counted = {"repairs": 1}
        node = f"repair.{state.get('repairs', 0) + 1}"
    messages = (
        *opening(state, session),
        Message("assistant", state["draft"].text or "(nothing readable)"),
        Message("user", told),
    )
    changed = await draft(session, node, messages, prompt_file("plan", "request", name))
    if findings and not _is_readable(changed):
        return {"revisions": 1, "findings": ()}
    return changed | counted


def _is_readable(changed: State) -> bool:
    """A revision that fails is no reason to lose the draft it was to better."""
    return "draft" in changed and not changed["faults"]


def violations_text(violations: tuple[Violation, ...]) -> str:
    """One JSON object a line: code, pointer, message."""
    return "\n".join(
        json.dumps(
            {"code": found.code, "pointer": found.pointer, "message": found.message[:_MAX_MESSAGE_CHARS]},
            ensure_ascii=False,
        )
        for found in violations[:_MAX_TOLD]
    )


def findings_text(findings: tuple[Finding, ...]) -> str:
    """One JSON object a line: kind, step, message."""
    return "\n".join(
        json.dumps(
            {"kind": found.kind, "step": found.step_id, "message": found.message[:_MAX_MESSAGE_CHARS]},
            ensure_ascii=False,
        )
        for found in findings[:_MAX_TOLD]
    )
