"""``POST /api/runs/{run_id}/rerun``: a new run with the plan of a finished one, which takes over what that one has done.

The plan keeps its provenance, so it is trusted no more than before; it is checked and vetted anew, by the rules of today.
"""

from __future__ import annotations

import json
import secrets
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from engine.domain.audit import AuditEntry, AuditType
from engine.domain.base import Frozen
from engine.domain.errors import ConflictError, LivoaError
from engine.domain.events import EventType, RunEventData, new_event
from engine.domain.ids import WireId, run_id_from
from engine.domain.run import Run, RunRequest
from engine.domain.status import RunStatus
from engine.domain.tenant import TenantConfig
from engine.evidence import canonical_sha256
from engine.ports.deps import DepsProvider
from engine.ports.run_store import IdempotencyClaim
from triggers.endpoint import Call, Endpoint, build_blueprint
from triggers.http_adapter import HttpResponse, json_response
from triggers.run_access import SUBMITTERS, run_of
from triggers.starting import is_started, start, try_start
from triggers.submission import (
    append_audit,
    idempotency_key,
    key_reused,
    own_run_id,
    read_json_body,
    require_admission,
    violations_of,
)
from triggers.views import accepted_of, run_path

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint


class RerunRequest(Frozen):
    """What to do again: the step named and everything that depends on it, besides all that did not succeed."""

    from_step: WireId | None = Field(default=None, alias="from", description="id of a step of the plan")


async def rerun_run(call: Call) -> HttpResponse:
    """202 with the new run; with an Idempotency-Key the same one again. 409 while the run is not over."""
    parent = await run_of(call)
    request = _request_of(await read_json_body(call.request, call.deps.settings.max_body_bytes))
    key = idempotency_key(call.request)
    run = await _rerun(parent, request.from_step, key, call)
    body = accepted_of(run, call.request.origin).model_dump(mode="json")
    return json_response(body, 202, (("location", run_path(run.run_id)), ("retry-after", "1")))


async def _rerun(parent: Run, from_step: str | None, key: str | None, call: Call) -> Run:
    principal, deps, now = call.principal, call.deps, call.deps.clock.now()
    tenant = await deps.tenants.get(principal.tenant_id)
    if tenant is None:
        raise LivoaError("auth.tenant_unknown", "The directory of this token is not onboarded.", status=401)
    if key is None:
        run_id = run_id_from(int(now.timestamp() * 1000), secrets.token_bytes(10))
    else:
        run_id = own_run_id(principal, key)
        if (existing := await deps.runs.get(principal.tenant_id, run_id)) is not None:
            return await _repeated(existing, parent, from_step, tenant, call)
    plan = await _plan_of(parent, from_step, call)
    await require_admission(tenant, principal, "POST runs/{run_id}/rerun", deps)
    sha256 = canonical_sha256({"rerun": parent.run_id, "from": from_step})
    await append_audit(_entry(run_id, parent, from_step, sha256, call), deps)
    request = await deps.payloads.get(parent.tenant_id, parent.run_id, parent.request_ref)
    await deps.payloads.put(parent.tenant_id, run_id, request)
    await deps.payloads.put(parent.tenant_id, run_id, plan)
    run = _new_run(run_id, parent, from_step, _deadline(request, tenant, now), call)
    claim = IdempotencyClaim(key, sha256) if key is not None else None
    result = await deps.runs.create(run, [new_event(EventType.RUN_ACCEPTED, RunEventData())], claim)
    if result.outcome != "created":
        return await _repeated(result.run, parent, from_step, tenant, call)
    await try_start(result.run, call.durable, tenant.quota)
    return result.run


async def _plan_of(parent: Run, from_step: str | None, call: Call) -> bytes:
    """The plan that was in force, as stored. Raises ``ConflictError`` and ``LivoaError("step.unknown", status=422)``."""
    if not parent.status.is_final:
        raise ConflictError(
            "run.not_finished", f"This run is {parent.status.value}; only a finished run is done again."
        )
    if parent.plan_ref is None or not parent.plan_version or parent.provenance is None:
        raise ConflictError("run.no_plan", "This run never had a plan in force; submit its intent again.")
    data = await call.deps.payloads.get(parent.tenant_id, parent.run_id, parent.plan_ref)
    known = {step["id"] for step in json.loads(data)["steps"]}
    if from_step is not None and from_step not in known:
        raise LivoaError("step.unknown", "The plan of this run has no such step.", status=422, pointer="/from")
    return data


def _new_run(run_id: str, parent: Run, from_step: str | None, deadline_at: datetime, call: Call) -> Run:
    now = call.deps.clock.now()
    made_without_model = parent.provenance is not None and parent.provenance.source == "playbook"
    return Run(
        tenant_id=parent.tenant_id,
        run_id=run_id,
        status=RunStatus.ACCEPTED,
        title=parent.title,
        request_ref=parent.request_ref,
        principal=call.principal,
        created_at=now,
        updated_at=now,
        deadline_at=deadline_at,
        plan_ref=parent.plan_ref,
        plan_hash=parent.plan_hash,
        provenance=parent.provenance,
        degraded_reason=parent.degraded_reason if made_without_model else None,
        traceparent=call.traceparent,
        parent_run_id=parent.run_id,
        rerun_from=from_step,
    )


def _deadline(request: bytes, tenant: TenantConfig, now: datetime) -> datetime:
    asked_s = RunRequest.model_validate_json(request).constraints.deadline_s
    limit_s = tenant.bounds.max_wall_time_s
    return now + timedelta(seconds=limit_s if asked_s is None else min(asked_s, limit_s))


async def _repeated(existing: Run, parent: Run, from_step: str | None, tenant: TenantConfig, call: Call) -> Run:
    if (existing.parent_run_id, existing.rerun_from) != (parent.run_id, from_step):
        raise key_reused()
    if existing.status is RunStatus.ACCEPTED and not await is_started(existing, call.durable):
        await start(existing, call.durable, tenant.quota)
    return existing


def _entry(run_id: str, parent: Run, from_step: str | None, sha256: str, call: Call) -> AuditEntry:
    return AuditEntry(
        tenant_id=parent.tenant_id,
        entry_id=f"{run_id}/{AuditType.RUN_SUBMITTED.value}/{sha256[:16]}",
        type=AuditType.RUN_SUBMITTED,
        at=call.deps.clock.now(),
        run_id=run_id,
        actor=call.principal.subject,
        body={
            "request_sha256": sha256,
            "client_app": call.principal.client_app,
            "kind": call.principal.kind,
            "parent_run_id": parent.run_id,
            "rerun_from": from_step or "",
            "plan_hash": parent.plan_hash or "",
        },
    )


def _request_of(value: object) -> RerunRequest:
    try:
        return RerunRequest.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as err:
        message = "The request is not valid; see errors."
        raise LivoaError("request.invalid", message, status=422, violations=violations_of(err)) from None


ENDPOINTS = (Endpoint("rerun_run", "POST", "runs/{run_id}/rerun", rerun_run, SUBMITTERS, needs_client=True),)


def build(deps: DepsProvider, *, streaming: bool) -> Blueprint:
    """The blueprint of this endpoint."""
    return build_blueprint(ENDPOINTS, deps, streaming=streaming)
