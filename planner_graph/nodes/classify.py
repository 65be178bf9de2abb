"""Classify: what the intent is about, by a router model if one answers with sense, else without one.

Every router that was tried and handed on is a hop with its reason. What a model says counts only as far as it names
capabilities that the tenant has enabled.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from engine.domain.base import JsonObject
from engine.domain.capability import Capability
from engine.domain.tenant import TenantConfig
from engine.ports.models import Message
from engine.ports.planner import NoPlan, Ranked, Route, RouteHop
from planner_graph.model_calls import Answered, Unanswered
from planner_graph.nodes.asking import Question, ask
from planner_graph.prompts import load_prompt, prompt_file
from planner_graph.scope import suggestions
from planner_graph.seen.capabilities import MAX_LISTED, domain_of, enabled, listing
from planner_graph.seen.request import words_only
from planner_graph.state import Session, State

_MAX_OUTPUT_TOKENS = 1_000
SURE = 0.5
"""From this confidence on a router model's word that an intent is out of scope is final."""


async def classify(state: State, session: Session) -> State:
    """Route the intent; decide the planning when it is out of scope."""
    route = await route_intent(session)
    if route.in_scope or not _is_final(route, session):
        return {"route": route}
    return {"route": route, "outcome": out_of_scope(session, route)}


def _is_final(route: Route, session: Session) -> bool:
    """Without a model to plan, the mode without models has its own word on scope; with one, only a sure router model has."""
    by_model = session.models.deployment(route.router) is not None
    return by_model and route.confidence >= SURE


def out_of_scope(session: Session, route: Route | None) -> NoPlan:
    """Nothing fits, and what the tenant could ask for instead."""
    tenant = session.task.tenant
    return NoPlan(
        code="plan.no_capability",
        message=f"nothing that {tenant.display_name} has enabled fits this request",
        suggestions=suggestions(session.catalog, tenant),
        route=route,
    )


async def route_intent(session: Session) -> Route:
    """Ask the router models in their order, one after the other where one answers nonsense, and then whoever needs no model."""
    names = tuple(one.name for one in session.models.for_tenant(session.task.tenant, "router"))
    candidates = await _candidates(session) if names else ()
    hops: tuple[RouteHop, ...] = ()
    number = 1
    while names and candidates:
        asked = await ask(session, _question(session, candidates, number), tenant=_with_routers(session, names))
        hops += tuple(RouteHop(hop.deployment, hop.reason) for hop in asked.hops)
        if asked.reply is None:
            hops = hops or (RouteHop(names[0], asked.code),)
            break
        who = asked.reply.deployment
        if isinstance(asked, Answered):
            route = _route(asked.value, who, hops)
            if route is not None:
                return route
        hops = (*hops, RouteHop(who, asked.code if isinstance(asked, Unanswered) else "model.invalid_output"))
        names = names[names.index(who) + 1 :] if who in names else ()
        number += 1
    return await _without_model(session, hops)


def _with_routers(session: Session, names: tuple[str, ...]) -> TenantConfig:
    """The tenant with these routers left to ask."""
    tenant = session.task.tenant
    return tenant.model_copy(update={"models": tenant.models.model_copy(update={"router": names})})


async def _candidates(session: Session) -> tuple[Capability, ...]:
    """What a router model chooses from: everything enabled, or, of a large catalog, the part whose words fit best."""
    every = enabled(session.catalog, session.task.tenant)
    if len(every) <= MAX_LISTED:
        return every
    ranked = [found.name for found in (await session.without_model.route(session.task)).capabilities]
    by_name = {capability.name: capability for capability in every}
    names = dict.fromkeys((*(name for name in ranked if name in by_name), *by_name))
    return tuple(by_name[name] for name in names)[:MAX_LISTED]


async def _without_model(session: Session, hops: tuple[RouteHop, ...]) -> Route:
    route = await session.without_model.route(session.task)
    return dataclasses.replace(route, fallbacks=(*hops, *route.fallbacks))


def _question(session: Session, candidates: tuple[Capability, ...], number: int) -> Question:
    prompt = load_prompt("classify").render(capabilities=listing(candidates))
    return Question(
        node="classify" if number == 1 else f"classify.{number}",
        work="router",
        messages=(Message("system", prompt), Message("user", words_only(session.task.request))),
        schema=route_schema(candidates),
        schema_name="livoa_route",
        max_output_tokens=_MAX_OUTPUT_TOKENS,
        prompt=prompt_file("classify"),
    )


def route_schema(candidates: tuple[Capability, ...]) -> JsonObject:
    """What a router model answers: names out of the catalog and nothing else."""
    names = [candidate.name for candidate in candidates]
    choice = {
        "type": "object",
        "properties": {"name": {"type": "string", "enum": names}, "score": {"type": "number"}},
        "required": ["name", "score"],
        "additionalProperties": False,
    }
    domains = [*dict.fromkeys(map(domain_of, names)), "other"]
    properties = {
        "domain": {"type": "string", "enum": list(dict.fromkeys(domains))},
        "capabilities": {"type": "array", "items": choice},
        "in_scope": {"type": "boolean"},
        "confidence": {"type": "number"},
    }
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _route(value: Any, deployment: str, hops: tuple[RouteHop, ...]) -> Route | None:
    """The route in an answer that has the right shape; None when it makes no sense. Scores outside 0 to 1 make none."""
    best: dict[str, float] = {}
    for chosen in value["capabilities"]:
        best[chosen["name"]] = max(best.get(chosen["name"], 0.0), float(chosen["score"]))
    confidence, in_scope = float(value["confidence"]), bool(value["in_scope"])
    if not all(0 <= score <= 1 for score in (confidence, *best.values())) or (in_scope and not best):
        return None
    ranked = sorted((Ranked(name, score) for name, score in best.items()), key=lambda one: (-one.score, one.name))
    return Route(
        domain=value["domain"],
        capabilities=tuple(ranked),
        in_scope=in_scope,
        confidence=confidence,
        router=deployment,
        fallbacks=hops,
    )
