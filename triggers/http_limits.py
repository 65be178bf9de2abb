"""HTTP functions about limits: which circuits are open, and how much of its quota the caller's tenant takes.

Both read entities as they were a moment ago; neither waits for them nor changes anything.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

from engine.domain.base import Frozen, UtcDatetime
from engine.domain.errors import NotFoundError
from engine.domain.names import TENANT_QUOTA
from engine.domain.principal import Role
from engine.domain.tenant import TenantConfig
from engine.limits.quota import QuotaState
from engine.ports.deps import DepsProvider
from triggers.endpoint import Call, Endpoint, build_blueprint
from triggers.http_adapter import HttpResponse, json_response

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

READERS = frozenset({Role.RUNS_READ, Role.RUNS_SUBMIT, Role.TENANTS_ADMIN})


class BreakerView(Frozen):
    """One circuit. ``half_open``: a few calls try whether the capability works again."""

    circuit: str
    capability: str
    region: str
    phase: Literal["closed", "open", "half_open"]
    failures_in_row: float
    breaks: int
    probing: int
    open_until_at: UtcDatetime | None


class BreakerList(Frozen):
    """The circuits of the capabilities that the tenant may use, by name."""

    breakers: tuple[BreakerView, ...]


class QuotaView(Frozen):
    """Runs under way and runs that wait for a place, and the limits of both doors."""

    running: int
    waiting: int
    max_concurrent_runs: int
    submissions_per_minute: int
    burst: int


async def list_breakers(call: Call) -> HttpResponse:
    """``GET /api/breakers``."""
    call.deps.entities.use(call.durable)
    tenant = await _tenant(call)
    known = call.deps.catalog.capabilities
    capabilities = [known[name] for name in sorted(set(tenant.enabled_capabilities)) if name in known]
    views = await call.deps.circuits.views(tenant, capabilities)
    body = BreakerList(breakers=tuple(BreakerView(**asdict(view)) for view in views))
    return json_response(body.model_dump(mode="json"))


async def get_quota(call: Call) -> HttpResponse:
    """``GET /api/quota``. 503 ``engine.unavailable`` when the count of runs cannot be read."""
    call.deps.entities.use(call.durable)
    tenant = await _tenant(call)
    stored = await call.deps.entities.read(TENANT_QUOTA, tenant.tenant_id)
    state = QuotaState() if stored is None else QuotaState.from_json(stored)
    live = state.live(int(call.deps.clock.now().timestamp() * 1_000))
    body = QuotaView(
        running=len(live.leases),
        waiting=len(live.waiting),
        max_concurrent_runs=tenant.quota.max_concurrent_runs,
        submissions_per_minute=tenant.quota.submissions_per_minute,
        burst=tenant.quota.burst,
    )
    return json_response(body.model_dump(mode="json"))


async def _tenant(call: Call) -> TenantConfig:
    tenant = await call.deps.tenants.get(call.principal.tenant_id)
    if tenant is None:
        raise NotFoundError("tenant.not_found", "There is no such tenant.")
    return tenant


ENDPOINTS = (
    Endpoint("list_breakers", "GET", "breakers", list_breakers, READERS, needs_client=True),
    Endpoint("get_quota", "GET", "quota", get_quota, READERS, needs_client=True),
)


def build(deps: DepsProvider, *, streaming: bool) -> Blueprint:
    """The blueprint of these endpoints."""
    return build_blueprint(ENDPOINTS, deps, streaming=streaming)
