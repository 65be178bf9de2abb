"""The planner port by a graph of model calls, with the planner that needs no model behind it.

It proposes only. The graph is loaded when a tenant with a model plans for the first time; a tenant without any is served by the
mode without models directly, as if nothing else were there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from engine.domain.tenant import TenantConfig
from engine.ports.catalog import Catalog
from engine.ports.clock import Clock
from engine.ports.models import ChatModels
from engine.ports.planner import NoPlan, Planner, PlanningTask, PlanProposal, Review, Route
from planner_graph.nodes.classify import route_intent
from planner_graph.state import Circuits, Gateway, Session, State


def all_closed(tenant: TenantConfig) -> Mapping[str, str]:
    """Every capability is available."""
    return {}


class LangGraphPlanner:
    """Implements ``Planner``. ``circuits`` says which capabilities are unavailable, and with what to do without them."""

    def __init__(
        self,
        catalog: Catalog,
        clock: Clock,
        gateway: Gateway,
        models: ChatModels,
        without_model: Planner,
        *,
        circuits: Circuits = all_closed,
    ) -> None:
        self._catalog = catalog
        self._clock = clock
        self._gateway = gateway
        self._models = models
        self._without_model = without_model
        self._circuits = circuits

    async def propose(self, task: PlanningTask, review: Review) -> PlanProposal | NoPlan:
        """See the port. Ends before ``task.deadline_at``, apart from the checks of one last proposal."""
        session = self._session(task, review)
        if not (session.has_planner or session.has_router) and task.repair is None:
            return await self._without_model.propose(task, review)
        graph = await asyncio.to_thread(_graph)
        state: State = await graph.run_graph(session)
        return state["outcome"]

    async def route(self, task: PlanningTask) -> Route:
        """See the port."""
        return await route_intent(self._session(task, _accept_nothing))

    def _session(self, task: PlanningTask, review: Review) -> Session:
        return Session(
            task=task,
            review=review,
            gateway=self._gateway,
            models=self._models,
            catalog=self._catalog,
            clock=self._clock,
            without_model=self._without_model,
            circuits=self._circuits,
        )


def _graph() -> Any:
    """The module with the graph: in a thread, because its first import takes seconds and others share the loop."""
    from planner_graph import graph

    graph.compiled()
    return graph


async def _accept_nothing(proposal: PlanProposal) -> tuple[()]:
    raise AssertionError("routing proposes nothing")
