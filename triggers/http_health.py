"""Is the process alive, and can it do its work? Liveness asks nothing; readiness asks each part, briefly."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from engine import VERSION
from engine.ports.deps import DepsProvider
from engine.ports.policy import PolicyState, PolicyWatch
from triggers.endpoint import Call, Endpoint, PublicEndpoint, build_blueprint
from triggers.http_adapter import HttpRequest, HttpResponse, json_response

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

CHECK_TIMEOUT_S = 5.0
_LOG = logging.getLogger("livoa.health")


def live(request: HttpRequest) -> HttpResponse:
    """``GET /api/health/live``."""
    return json_response({"status": "ok"})


async def ready(call: Call) -> HttpResponse:
    """``GET /api/health/ready``: 200 when every part answers, else 503 naming those that do not, and nothing about why."""
    tenant_id = call.principal.tenant_id
    checks = {
        "tenants": call.deps.tenants.get(tenant_id),
        "runs": call.deps.runs.page(tenant_id, status=None, cursor=None, limit=1),
        "audit": call.deps.audit.read(tenant_id, after_seq=0, limit=1),
    }
    results = await asyncio.gather(*(_passes(name, check) for name, check in checks.items()))
    parts = {name: "ok" if passed else "failing" for name, passed in zip(checks, results, strict=True)}
    well = all(results)
    status = "ok" if well else "failing"
    body = {
        "status": status,
        "parts": parts,
        "version": VERSION,
        "catalog": call.deps.catalog.version,
        # What is broken stands in the log: a tenant's people are not the catalog's owner.
        "catalog_files": (await call.deps.catalog_watch.look()).state,
        "policies": await _policies(call.deps.policy_watch, tenant_id),
    }
    return json_response(body, 200 if well else 503, () if well else (("retry-after", "5"),))


async def _policies(watch: PolicyWatch, tenant_id: str) -> PolicyState:
    try:
        return await asyncio.wait_for(watch.look(tenant_id), CHECK_TIMEOUT_S)
    except Exception:
        _LOG.warning("the policies cannot be looked at", exc_info=True)
        return "broken"


async def _passes(name: str, check: Awaitable[object]) -> bool:
    try:
        await asyncio.wait_for(check, CHECK_TIMEOUT_S)
    except Exception:
        _LOG.warning("%s is not ready", name, exc_info=True)
        return False
    return True


ENDPOINTS = (
    PublicEndpoint("health_live", "health/live", live),
    Endpoint("health_ready", "GET", "health/ready", ready, frozenset()),
)


def build(deps: DepsProvider, *, streaming: bool) -> Blueprint:
    """The blueprint of these endpoints."""
    return build_blueprint(ENDPOINTS, deps, streaming=streaming)
