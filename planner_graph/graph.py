"""The planner as a LangGraph state machine: nodes, and the edges that ``planner_graph.edges`` decides.

The only module that imports LangGraph. Import it where a model plans for the first time, in a thread: that takes seconds.
No checkpointer and no retries in here, because the activity around it is repeated as a whole; a recursion limit as a last bound.
Tracing to anybody's service stays off whatever the environment says: states hold prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langsmith import tracing_context

from planner_graph import edges, nodes
from planner_graph.edges import NodeName, Standing
from planner_graph.nodes.self_critique import is_due
from planner_graph.state import Node, Session, State

RECURSION_LIMIT = edges.longest_path(edges.MAX_REPAIRS) + 2
"""Above the longest path, so it is met only if an edge is wrong; then planning fails instead of going round."""

_NODES: dict[NodeName, Node] = {
    "classify": nodes.classify,
    "plan": nodes.plan,
    "self_critique": nodes.self_critique,
    "validate": nodes.validate,
    "repair": nodes.repair,
    "degrade": nodes.degrade,
}
_EDGES: dict[NodeName, tuple[Callable[[Standing], NodeName], tuple[NodeName, ...]]] = {
    "classify": (edges.after_classify, ("plan", "degrade", "end")),
    "plan": (edges.after_draft, ("self_critique", "validate", "degrade", "end")),
    "self_critique": (edges.after_critique, ("repair", "validate")),
    "repair": (edges.after_repair, ("validate", "degrade", "end")),
    "validate": (edges.after_validate, ("repair", "degrade", "end")),
}


def standing_of(state: State, session: Session, *, drafted: bool = False) -> Standing:
    """The facts that edges decide by. ``drafted``: a first draft has just been made, so a review of it may be due."""
    return Standing(
        has_planner=session.has_planner,
        has_router=session.has_router,
        suffix=session.task.repair is not None,
        decided="outcome" in state,
        trouble=state.get("trouble") is not None,
        faults=bool(state.get("faults")),
        findings=bool(state.get("findings")),
        critique_due=drafted and is_due(state, session),
        revisions=state.get("revisions", 0),
        repairs=state.get("repairs", 0),
        max_repairs=session.task.tenant.planner.max_repairs,
        time_left_s=session.time_left_s,
    )


def _running(node: Node) -> Any:
    async def run(state: State, runtime: Runtime[Session]) -> State:
        return await node(state, runtime.context)

    return run


def _deciding(decide: Callable[[Standing], NodeName]) -> Any:
    def choose(state: State, runtime: Runtime[Session]) -> str:
        return decide(standing_of(state, runtime.context, drafted=decide is edges.after_draft))

    return choose


def _path(targets: tuple[NodeName, ...]) -> Any:
    return {target: END if target == "end" else target for target in targets}


@cache
def compiled() -> Any:
    """The graph, compiled once per process."""
    builder = StateGraph(State, context_schema=Session)
    for name, node in _NODES.items():
        builder.add_node(name, _running(node))
    builder.add_conditional_edges(START, _deciding(edges.first), _path(("classify", "plan", "degrade")))
    for name, (decide, targets) in _EDGES.items():
        builder.add_conditional_edges(name, _deciding(decide), _path(targets))
    builder.add_edge("degrade", END)
    return builder.compile()


async def run_graph(session: Session) -> State:
    """Run one planning to its outcome."""
    with tracing_context(enabled=False):
        state: State = await compiled().ainvoke({}, config={"recursion_limit": RECURSION_LIMIT}, context=session)
    return state
