"""Planning only the rest of a run: what a failure has not touched stays as it is, the model proposes what replaces the rest.

The result is a whole plan again, so that the same checks and the same policy see all of it. A step id that any version of the
plan has used is never used for another step. Running such a plan is not decided here.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from engine.domain.base import JsonObject
from engine.domain.errors import Violation
from engine.ports.catalog import Catalog
from engine.ports.planner import SuffixRepair
from planner_graph.lowering import Lowered, Rejected
from planner_graph.prompts import load_prompt
from planner_graph.seen.spotlight import spotlight

_MAX_SUMMARIES_CHARS = 24_000


def suffix_text(repair: SuffixRepair) -> str:
    """The part of the prompt about what is done already. Summaries come from outputs, so they are shown as data."""
    finished = [
        {"id": step.step_id, "capability": step.capability, "status": step.status, "output": step.summary}
        for step in repair.finished
    ]
    return load_prompt("suffix").render(
        finished=spotlight("finished steps", json.dumps(finished, ensure_ascii=False), _MAX_SUMMARIES_CHARS),
        failed=repair.failed_step_id,
        code=repair.failed_code,
        taken=", ".join(dict.fromkeys((*_steps(repair), *repair.taken))),
    )


def join(lowered: Lowered, repair: SuffixRepair) -> Lowered | Rejected:
    """The whole plan: kept steps verbatim, then the new ones. Refused where a new step takes an id that was used before."""
    old = _steps(repair)
    taken = {*old, *repair.taken}
    faults = [
        Violation(
            code="proposal.id_taken",
            pointer=f"/steps/{index}/id",
            message="this id belongs to a step of the earlier plan; a new step has a new id",
        )
        for index, step in enumerate(lowered.document["steps"])
        if step["id"] in taken
    ]
    if faults:
        return Rejected(tuple(faults))
    kept = _kept(repair, old)
    document = lowered.document | {
        "goal": repair.plan.get("goal", lowered.document["goal"]),
        "steps": [*(old[step_id] for step_id in kept), *lowered.document["steps"]],
    }
    return replace(lowered, document=document, kept=len(kept))


def integrity_of(repair: SuffixRepair, catalog: Catalog) -> int:
    """The meet over what the planner sees of outputs: the summaries, and the code of the failure, which an agent chose."""
    seen = [step.capability for step in repair.finished if step.summary]
    failed = _steps(repair).get(repair.failed_step_id, {})
    seen.append(failed.get("capability") or "")
    return min(_ceiling(capability, catalog) for capability in seen)


def _ceiling(capability: str, catalog: Catalog) -> int:
    if not capability:  # a wait or a question: the engine's own output
        return 3
    found = catalog.capabilities.get(capability)
    return found.output_label.integrity if found is not None else 0


def _steps(repair: SuffixRepair) -> dict[str, JsonObject]:
    return {step["id"]: step for step in repair.plan.get("steps", ())}


def _kept(repair: SuffixRepair, old: dict[str, JsonObject]) -> list[str]:
    """Finished steps and everything they came after, in the order of the earlier plan."""
    pending: list[Any] = [step.step_id for step in repair.finished]
    kept: set[str] = set()
    while pending:
        step_id = pending.pop()
        if step_id in old and step_id not in kept:
            kept.add(step_id)
            pending.extend(old[step_id].get("needs", ()))
    return [step_id for step_id in old if step_id in kept]
