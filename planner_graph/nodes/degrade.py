"""Degrade: plan without a model, from playbooks, when models cannot go on or could not do it right."""

from __future__ import annotations

import dataclasses
from itertools import chain

from engine.domain.errors import Violation
from engine.ports.planner import NoPlan
from planner_graph.state import Session, State

Attempts = tuple[tuple[Violation, ...], ...]

OUT_OF_ATTEMPTS = "planner.attempts_exhausted"
OUT_OF_TIME = "planner.deadline"


async def degrade(state: State, session: Session) -> State:
    """A playbook's plan, reviewed like any other, or why there is no plan at all."""
    attempts = state.get("attempts", ())
    reason = _reason(state, session)
    if session.task.repair is not None:
        return {"outcome": _unplannable(state, attempts, reason)}
    outcome = await session.without_model.propose(session.task, session.review)
    route = state.get("route") or outcome.route
    outcome = dataclasses.replace(outcome, route=route, degraded_reason=reason or outcome.degraded_reason)
    if isinstance(outcome, NoPlan):
        return {"outcome": outcome if not attempts else _unplannable(state, attempts, reason)}
    if not attempts:
        return {"outcome": outcome}
    found = await session.review(outcome)
    if found:
        return {"outcome": _unplannable(state, (*attempts, found), reason), "attempts": (found,)}
    return {"outcome": dataclasses.replace(outcome, violations_by_attempt=attempts)}


def _reason(state: State, session: Session) -> str | None:
    """Why no model made this plan, as a code; None when none is configured, which the mode without models says itself."""
    if not session.has_planner:
        return None
    if (trouble := state.get("trouble")) is not None:
        return trouble
    had_all = bool(state.get("attempts")) and state.get("repairs", 0) >= session.task.tenant.planner.max_repairs
    return OUT_OF_ATTEMPTS if had_all else OUT_OF_TIME


def _unplannable(state: State, attempts: Attempts, reason: str | None) -> NoPlan:
    words = f"no proposal passed the checks in {len(attempts)} attempts" if attempts else "no model could plan the rest"
    return NoPlan(
        code="plan.unplannable",
        message=words,
        violations=tuple(chain.from_iterable(attempts)),
        degraded_reason=reason,
        route=state.get("route"),
    )
