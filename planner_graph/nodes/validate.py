"""Validate: all checks of the plan language and the policy decision over a draft. No draft becomes an outcome in another way."""

from __future__ import annotations

from engine.ports.planner import PlanProposal
from planner_graph.seen.request import integrity_of as seen_integrity
from planner_graph.state import Session, State
from planner_graph.suffix import integrity_of as summaries_integrity


async def validate(state: State, session: Session) -> State:
    """Accept the draft, or say what is wrong with it, pointing into the proposal."""
    draft, faults = state["draft"], state.get("faults", ())
    if draft.lowered is None or faults:
        return {"attempts": (faults,)}
    proposal = PlanProposal(
        document=draft.lowered.document,
        source="model",
        route=state.get("route"),
        model=draft.model,
        seen_integrity=_seen(session),
        violations_by_attempt=state.get("attempts", ()),
    )
    found = draft.lowered.told(await session.review(proposal))
    if found:
        return {"faults": found, "attempts": (found,)}
    return {"outcome": proposal}


def _seen(session: Session) -> int:
    task = session.task
    seen = seen_integrity(task.request.context, task.tenant)
    return seen if task.repair is None else min(seen, summaries_integrity(task.repair, session.catalog))
