"""HTTP functions about plans as such: look at one without running it, route an intent, and the schemas of the wire."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from engine.domain.errors import LivoaError, NotFoundError
from engine.domain.run import MAX_INTENT_CHARS, RunRequest
from engine.ports.deps import DepsProvider
from planner_graph.planning import PlanningCase, preview_plan, preview_route
from triggers.endpoint import Call, Endpoint, PublicEndpoint, build_blueprint, require_role
from triggers.http_adapter import HttpRequest, HttpResponse, json_response
from triggers.plan_views import preview_of, route_view_of
from triggers.run_access import READERS, SUBMITTERS
from triggers.submission import read_json_body, submission_of

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

_INTENT = "intent"
_UNTITLED = "a plan to look at"
_PREVIEW_TIME = timedelta(seconds=120)
"""Less than load balancers wait for an answer."""


async def check_plan_only(call: Call) -> HttpResponse:
    """``POST /api/plans``: what a plan, or the plan for an intent, would come to for the caller. Findings are no error.

    The body is a plan, or a run request: then a plan is made for its intent as a run would, which may cost model calls and
    so needs the role Runs.Submit. Nothing is run and no plan is stored.
    """
    body = await read_json_body(call.request, call.deps.settings.max_body_bytes)
    if isinstance(body, dict) and _INTENT in body:
        require_role(call.principal, SUBMITTERS)
        request = submission_of(body, None).request
    else:
        request = _request_around(body)
    preview = preview_of(await preview_plan(await _case(call, request), call.deps))
    return json_response(preview.model_dump(mode="json"))


def _request_around(document: Any) -> RunRequest:
    """A request whose own plan is ``document``; it is not read here, whatever it is."""
    goal = document.get("goal") if isinstance(document, dict) else None
    words = goal[:MAX_INTENT_CHARS] if isinstance(goal, str) and goal.strip() else _UNTITLED
    return RunRequest(intent=words).model_copy(update={"plan": {} if document is None else document})


async def route_intent(call: Call) -> HttpResponse:
    """``POST /api/route``: what an intent is about, which router said so, and which ones handed on."""
    body = await read_json_body(call.request, call.deps.settings.max_body_bytes)
    request = submission_of(body, None).request
    route = await preview_route(await _case(call, request), call.deps)
    return json_response(route_view_of(route).model_dump(mode="json"))


async def _case(call: Call, request: RunRequest) -> PlanningCase:
    tenant = await call.deps.tenants.get(call.principal.tenant_id)
    if tenant is None:
        raise LivoaError("auth.tenant_unknown", "The directory of this token is not onboarded.", status=401)
    return PlanningCase(
        run_id=f"preview-{secrets.token_hex(16)}",
        principal=call.principal,
        tenant=tenant,
        request=request,
        deadline_at=call.deps.clock.now() + _PREVIEW_TIME,
        traceparent=call.traceparent,
    )


def list_schemas(request: HttpRequest) -> HttpResponse:
    """``GET /api/schemas``: names and paths."""
    from triggers.schemas import NAMES

    return json_response({"schemas": [{"name": name, "path": f"/api/schemas/{name}"} for name in NAMES]})


def get_schema(request: HttpRequest) -> HttpResponse:
    """``GET /api/schemas/{name}``."""
    from triggers.schemas import NAMES, schema

    name = request.route.get("name", "")
    if name not in NAMES:
        raise NotFoundError("schema.not_found", f"There is no such schema; there are {', '.join(NAMES)}.")
    response = json_response(schema(name))
    return HttpResponse(200, (("content-type", "application/schema+json"),), response.body)


ENDPOINTS = (
    Endpoint("check_plan", "POST", "plans", check_plan_only, READERS),
    Endpoint("route_intent", "POST", "route", route_intent, SUBMITTERS),
    PublicEndpoint("list_schemas", "schemas", list_schemas),
    PublicEndpoint("get_schema", "schemas/{name}", get_schema),
)


def build(deps: DepsProvider, *, streaming: bool) -> Blueprint:
    """The blueprint of these endpoints."""
    return build_blueprint(ENDPOINTS, deps, streaming=streaming)
