"""HTTP functions about what goes: erasing one run, and taking a batch of the caller's tenant through its retention.

Both are for the role ``Runs.Erase``, which gives no right to read anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from engine.domain.base import Frozen
from engine.domain.errors import LivoaError, NotFoundError
from engine.domain.ids import is_wire_id
from engine.domain.principal import Role
from engine.domain.tenant import TenantConfig
from engine.ports.deps import DepsProvider
from triggers.endpoint import Call, Endpoint, build_blueprint
from triggers.erasure import erase_content, erase_entry, erase_run, refuse_held, refuse_winding_up
from triggers.http_adapter import HttpResponse, json_response
from triggers.retention import retain
from triggers.submission import read_json_body, violations_of

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

ERASERS = frozenset({Role.RUNS_ERASE})
_MAX_BODY_BYTES = 4_096


class RetentionRequest(Frozen):
    """``dry_run``: say what is due and change nothing."""

    dry_run: bool = False


class ErasedRun(Frozen):
    """A run that is gone; ``objects`` of content were removed now."""

    run_id: str
    objects: int


async def erase(call: Call) -> HttpResponse:
    """``DELETE /api/runs/{run_id}``: 200 however often; 409 while it is not over, or held."""
    tenant, run_id = await _tenant(call), call.request.route.get("run_id", "")
    run = await call.deps.runs.get(tenant.tenant_id, run_id) if is_wire_id(run_id) else None
    if run is not None and run.tenant_id == tenant.tenant_id:
        refuse_held(tenant, run_id)
        if run.status.is_final:
            await refuse_winding_up(run, call.deps, call.durable)
        facts = {"client_app": call.principal.client_app, "status": run.status.value}
        entry = erase_entry(run.tenant_id, run_id, "run", call.deps, by=call.principal.subject, **facts)
        objects = await erase_run(run, entry, call.deps, call.durable)
    else:
        key = await call.deps.run_keys.get(tenant.tenant_id, run_id) if is_wire_id(run_id) else None
        if key is None or key.destroyed_at is None:
            raise NotFoundError("run.not_found", "There is no such run.")
        # Erased before; what a late writer may have left goes as well.
        objects = await erase_content(tenant.tenant_id, run_id, call.deps)
    return json_response(ErasedRun(run_id=run_id, objects=objects).model_dump(mode="json"))


async def run_retention(call: Call) -> HttpResponse:
    """``POST /api/retention``: one batch of the caller's tenant. Ask again while ``more`` is true."""
    wanted = _request_of(await read_json_body(call.request, _MAX_BODY_BYTES))
    report = await retain(await _tenant(call), call.deps, call.durable, dry_run=wanted.dry_run)
    return json_response(report.model_dump(mode="json", exclude_none=True))


async def _tenant(call: Call) -> TenantConfig:
    tenant = await call.deps.tenants.get(call.principal.tenant_id)
    if tenant is None:
        raise LivoaError("auth.tenant_unknown", "The directory of this token is not onboarded.", status=401)
    return tenant


def _request_of(value: object) -> RetentionRequest:
    try:
        return RetentionRequest.model_validate(value, strict=True)
    except ValidationError as err:
        message = "The request is not valid; see errors."
        raise LivoaError("request.invalid", message, status=422, violations=violations_of(err)) from None


ENDPOINTS = (
    Endpoint("erase_run", "DELETE", "runs/{run_id}", erase, ERASERS, needs_client=True),
    Endpoint("run_retention", "POST", "retention", run_retention, ERASERS, needs_client=True),
)


def build(deps: DepsProvider, *, streaming: bool) -> Blueprint:
    """The blueprint of these endpoints."""
    return build_blueprint(ENDPOINTS, deps, streaming=streaming)
