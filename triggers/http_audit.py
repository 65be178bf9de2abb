"""HTTP functions for auditors: the audit records of one run, and of the caller's whole tenant, in the order of the chain.

Looking is recorded before anything is shown; what cannot be recorded is not shown. Records hold codes, counts and hashes, never
content. They come as they stand in the chain, so a copy can be verified offline (`./livoa audit verify`).
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from engine.domain.audit import AuditEntry, AuditRecord, AuditType
from engine.domain.base import Frozen, JsonObject
from engine.domain.errors import NotFoundError
from engine.domain.ids import is_wire_id
from engine.domain.principal import Role
from engine.domain.run import Run
from engine.ports.deps import DepsProvider
from triggers.endpoint import Call, Endpoint, build_blueprint
from triggers.http_adapter import HttpResponse, json_response
from triggers.run_access import integer_query, refuse_erased
from triggers.submission import append_audit

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

AUDITORS = frozenset({Role.AUDIT_READ})
MAX_RECORDS = 1_000
MAX_SEQ = 10**12


class AuditPage(Frozen):
    """Records with ``seq`` above the one asked for, in order. Ask on with ``after=next_after`` while ``more`` is true."""

    tenant_id: str
    records: tuple[AuditRecord, ...]
    next_after: int
    more: bool


async def get_run_audit(call: Call) -> HttpResponse:
    """``GET /api/runs/{run_id}/audit?after=&limit=``. An auditor sees every run of the tenant, also one that was erased."""
    run_id = call.request.route.get("run_id", "")
    key = await call.deps.run_keys.get(call.principal.tenant_id, run_id) if is_wire_id(run_id) else None
    erased = key is not None and key.destroyed_at is not None
    return await _page(call, run_id if erased else (await run_for_audit(call)).run_id)


async def run_for_audit(call: Call) -> Run:
    """The run that the path names, of the caller's tenant, whoever submitted it.

    Raises ``NotFoundError("run.not_found")``, and ``LivoaError("run.erased", status=410)`` for one that was there once.
    """
    run_id = call.request.route.get("run_id", "")
    run = await call.deps.runs.get(call.principal.tenant_id, run_id) if is_wire_id(run_id) else None
    if run is None and is_wire_id(run_id):
        await refuse_erased(call.deps, call.principal.tenant_id, run_id)
    if run is None or run.tenant_id != call.principal.tenant_id:
        raise NotFoundError("run.not_found", "There is no such run.")
    return run


async def list_audit(call: Call) -> HttpResponse:
    """``GET /api/audit?after=&limit=``: the chain of the caller's tenant."""
    return await _page(call, None)


async def _page(call: Call, run_id: str | None) -> HttpResponse:
    after = integer_query(call, "after", default=0, low=0, high=MAX_SEQ)
    limit = integer_query(call, "limit", default=MAX_RECORDS, low=1, high=MAX_RECORDS)
    await append_audit(look_entry(call, run_id, {"after": after, "limit": limit}), call.deps)
    tenant_id = call.principal.tenant_id
    found = await call.deps.audit.read(tenant_id, after_seq=after, limit=limit, run_id=run_id)
    page = AuditPage(
        tenant_id=tenant_id,
        records=found,
        next_after=found[-1].seq if found else after,
        more=len(found) == limit,
    )
    return json_response(page.model_dump(mode="json"))


def look_entry(call: Call, run_id: str | None, at_what: JsonObject) -> AuditEntry:
    """The entry about a look at evidence. Every look is a fact of its own, so its id is drawn."""
    return AuditEntry(
        tenant_id=call.principal.tenant_id,
        entry_id=f"{AuditType.AUDIT_READ.value}/{secrets.token_hex(16)}",
        type=AuditType.AUDIT_READ,
        at=call.deps.clock.now(),
        run_id=run_id,
        actor=call.principal.subject,
        body={"client_app": call.principal.client_app, **at_what},
    )


ENDPOINTS = (
    Endpoint("get_run_audit", "GET", "runs/{run_id}/audit", get_run_audit, AUDITORS),
    Endpoint("list_audit", "GET", "audit", list_audit, AUDITORS),
)


def build(deps: DepsProvider, *, streaming: bool) -> Blueprint:
    """The blueprint of these endpoints."""
    return build_blueprint(ENDPOINTS, deps, streaming=streaming)
