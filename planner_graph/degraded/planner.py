"""The planner that needs no model: route by words, fill a playbook, or say what the tenant could ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine.domain.playbook import Playbook
from engine.domain.tenant import TenantConfig
from engine.ports.catalog import Catalog
from engine.ports.clock import Clock
from engine.ports.planner import NoPlan, PlanningTask, PlanProposal, Ranked, Review, Route
from planner_graph.degraded.fill import Filled, fill
from planner_graph.degraded.router import MIN_COVERAGE, Candidate, LexicalRouter
from planner_graph.degraded.router import Route as PlaybookRoute

DEFAULT_REASON = "no model is configured"
_MAX_SUGGESTIONS = 8
_MAX_TRIES = 3


class DegradedPlanner:
    """Implements the ``Planner`` port with playbooks alone. ``reason`` says why no model was asked."""

    def __init__(self, catalog: Catalog, clock: Clock, *, reason: str = DEFAULT_REASON) -> None:
        self._catalog = catalog
        self._clock = clock
        self._reason = reason
        self._routers: dict[tuple[str, ...], LexicalRouter] = {}

    async def propose(self, task: PlanningTask, review: Review) -> PlanProposal | NoPlan:
        """Fill the best-ranked playbook whose words cover the intent and whose required parameters are there.

        It does not ask ``review``: a playbook that fails its checks has no repair here, and whoever called sees it fail.
        """
        request, tenant = task.request, task.tenant
        usable = self._usable(tenant)
        routes = self._router(tenant, usable).rank(" ".join((request.intent, *request.goals)))
        accepted = [route for route in routes if route.coverage >= MIN_COVERAGE][:_MAX_TRIES]
        if not accepted:
            return self._out_of_scope(usable, tenant)
        today = self._clock.now().date()
        missing: list[tuple[PlaybookRoute, tuple[str, ...]]] = []
        for route in accepted:
            result = fill(usable[route.name], request, today)
            if isinstance(result, Filled):
                return PlanProposal(result.document, "playbook", playbook=route.name, degraded_reason=self._reason)
            missing.append((route, result.missing))
        route, names = missing[0]
        return NoPlan(
            code="plan.missing_values",
            message=f"'{usable[route.name].title}' fits, but needs these in context.values: {', '.join(names)}",
            degraded_reason=self._reason,
        )

    async def route(self, task: PlanningTask) -> Route:
        """Rank the playbooks and what they use."""
        usable = self._usable(task.tenant)
        ranked = self._router(task.tenant, usable).rank(" ".join((task.request.intent, *task.request.goals)))
        fits = [found for found in ranked if found.coverage >= MIN_COVERAGE]
        confidence = fits[0].coverage if fits else 0.0
        names = [name for found in fits for name in _capabilities_of(usable[found.name].plan)]
        return Route(
            domain=fits[0].name if fits else "",
            capabilities=tuple(Ranked(name, confidence) for name in dict.fromkeys(names)),
            in_scope=bool(fits),
            confidence=confidence,
            router="lexical",
            playbooks=tuple(Ranked(found.name, found.coverage) for found in fits),
        )

    def _usable(self, tenant: TenantConfig) -> dict[str, Playbook]:
        return {
            name: playbook
            for name, playbook in sorted(self._catalog.playbooks.items())
            if tenant.enables_playbook(name)
            and all(tenant.enables(capability) for capability in _capabilities_of(playbook.plan))
        }

    def _router(self, tenant: TenantConfig, usable: dict[str, Playbook]) -> LexicalRouter:
        key = tuple(usable)
        if key not in self._routers:
            self._routers[key] = LexicalRouter(
                [Candidate(p.name, p.title, (p.description, *p.examples, *_vocabulary(p))) for p in usable.values()]
            )
        return self._routers[key]

    def _out_of_scope(self, usable: dict[str, Playbook], tenant: TenantConfig) -> NoPlan:
        suggestions = tuple(f"{p.title}: “{p.examples[0]}”" for p in usable.values())[:_MAX_SUGGESTIONS]
        return NoPlan(
            code="plan.no_capability",
            message=f"nothing that {tenant.display_name} has enabled fits this request",
            suggestions=suggestions,
            degraded_reason=self._reason,
        )


def _vocabulary(playbook: Playbook) -> Iterator[str]:
    """The names that fill a parameter are words of the playbook too: a question may name nothing else."""
    for parameter in playbook.parameters:
        for choice in parameter.choices:
            yield " ".join((choice.replace("_", " "), *parameter.synonyms.get(choice, ())))


def _capabilities_of(plan: dict[str, Any]) -> Iterator[str]:
    for step in plan.get("steps", ()):
        if "capability" in step:
            yield step["capability"]
