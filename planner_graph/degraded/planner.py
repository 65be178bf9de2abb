"""The planner that needs no model: route by words, fill a playbook, or say what the tenant could ask for."""

from __future__ import annotations

import asyncio

from engine.ports.catalog import Catalog
from engine.ports.clock import Clock
from engine.ports.planner import NoPlan, PlanningTask, PlanProposal, Review, Route
from planner_graph.degraded.fill import Filled, fill
from planner_graph.routing import CatalogRouter, CatalogRouters, clear_playbook

DEFAULT_REASON = "no model is configured"
_MAX_CHOICES = 4


class DegradedPlanner:
    """Implements the ``Planner`` port with playbooks alone. ``reason`` says why no model was asked.

    ``routers`` may be shared with other planners, so that each tenant's catalog is learned once.
    """

    def __init__(
        self,
        catalog: Catalog,
        clock: Clock,
        *,
        reason: str = DEFAULT_REASON,
        routers: CatalogRouters | None = None,
    ) -> None:
        self._catalog = catalog
        self._clock = clock
        self._reason = reason
        self._routers = routers or CatalogRouters()

    async def propose(self, task: PlanningTask, review: Review) -> PlanProposal | NoPlan:
        """Fill the playbook that the intent asks for, when there is one without doubt and its required parameters are there.
        A playbook is a whole plan: there is none for the rest of one.

        It does not ask ``review``: a playbook that fails its checks has no repair here, and whoever called sees it fail.
        """
        if task.repair is not None:
            return NoPlan(code="plan.unplannable", message="no model could plan the rest", degraded_reason=self._reason)
        router = self._routers.of(self._catalog, task.tenant)
        route = await _routed(router, task)
        if not route.in_scope or not router.playbooks:
            return self._no_plan(
                "plan.no_capability",
                f"nothing that {task.tenant.display_name} has enabled fits this request",
                route,
                router.suggestions(),
            )
        name = clear_playbook(route)
        if name is None:
            return self._unclear(route, router)
        playbook = router.playbooks[name]
        result = fill(playbook, task.request, self._clock.now().date())
        if isinstance(result, Filled):
            return PlanProposal(result.document, "playbook", playbook=name, degraded_reason=self._reason, route=route)
        missing = ", ".join(result.missing)
        return self._no_plan(
            "plan.missing_values",
            f"'{playbook.title}' fits, but needs these in context.values: {missing}",
            route,
        )

    async def route(self, task: PlanningTask) -> Route:
        """What the intent asks for, by words alone."""
        return await _routed(self._routers.of(self._catalog, task.tenant), task)

    def _unclear(self, route: Route, router: CatalogRouter) -> NoPlan:
        """A guess would answer a question nobody asked; the nearest choices help to ask it."""
        choices = router.suggestions([found.name for found in route.playbooks], limit=_MAX_CHOICES)
        return self._no_plan(
            "plan.unclear_intent", "this could mean several things: say which, for example as below", route, choices
        )

    def _no_plan(self, code: str, message: str, route: Route, suggestions: tuple[str, ...] = ()) -> NoPlan:
        return NoPlan(code=code, message=message, suggestions=suggestions, degraded_reason=self._reason, route=route)


async def _routed(router: CatalogRouter, task: PlanningTask) -> Route:
    """In a thread: a tenant's first intent trains its router, which takes most of a second, and others share the loop."""
    return await asyncio.to_thread(router.route, task.request.intent, task.request.goals)
