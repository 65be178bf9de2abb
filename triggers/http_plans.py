"""HTTP functions about plans as such: check one without running it, and the schemas that everything on the wire follows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from engine.domain.errors import LivoaError, NotFoundError
from engine.ports.deps import DepsProvider
from triggers.endpoint import Call, Endpoint, PublicEndpoint, build_blueprint
from triggers.http_adapter import HttpRequest, HttpResponse, json_response
from triggers.run_access import READERS
from triggers.submission import read_json_body

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint


async def check_plan_only(call: Call) -> HttpResponse:
    """``POST /api/plans``: what the checks say about a plan for the caller's tenant. Nothing is stored; findings are no error."""
    from engine.plan import check_plan

    document = await read_json_body(call.request, call.deps.settings.max_body_bytes)
    tenant = await call.deps.tenants.get(call.principal.tenant_id)
    if tenant is None:
        raise LivoaError("auth.tenant_unknown", "The directory of this token is not onboarded.", status=401)
    result = await asyncio.to_thread(check_plan, document, tenant=tenant, catalog=call.deps.catalog)
    return json_response(result.to_json())


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
    PublicEndpoint("list_schemas", "schemas", list_schemas),
    PublicEndpoint("get_schema", "schemas/{name}", get_schema),
)


def build(deps: DepsProvider, *, streaming: bool) -> Blueprint:
    """The blueprint of these endpoints."""
    return build_blueprint(ENDPOINTS, deps, streaming=streaming)
