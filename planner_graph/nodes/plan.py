"""Plan: ask the planner model for a proposal."""

from __future__ import annotations

from planner_graph.nodes.drafting import draft, opening
from planner_graph.prompts import prompt_file
from planner_graph.state import Session, State


async def plan(state: State, session: Session) -> State:
    """A first draft."""
    names = ("plan", "request") if session.task.repair is None else ("plan", "request", "suffix")
    return await draft(session, "plan", opening(state, session), prompt_file(*names))
