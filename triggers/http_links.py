"""HTTP functions about links to outputs: one makes a link for who may read the run, the other is the link.

A link is for a browser or a program without a token of this API: it opens one output of one run for some minutes, and whoever has
it has that. Content is encrypted, so the storage's own links would be of no use. Making one is on record before it is given out,
and each of its uses before anything is shown. They are numbered and there is an end to them, so nobody can fill a chain
by reloading.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from engine.domain.audit import AuditEntry, AuditType
from engine.domain.base import Frozen, UtcDatetime
from engine.domain.errors import ConflictError, LivoaError
from engine.domain.ids import WireId
from engine.ports.deps import Deps, DepsProvider
from engine.ports.payload_links import Linked, link_invalid
from triggers.endpoint import Call, Endpoint, OpenEndpoint, build_blueprint
from triggers.http_adapter import JSON, HttpRequest, HttpResponse, json_response
from triggers.http_runs import require_step
from triggers.run_access import READERS, run_of
from triggers.submission import append_audit, not_recorded, read_json_body, require_permit, violations_of

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

MAX_VALID_S = 900
MAX_USES = 20
"""Of one link. A browser that asks twice and a download that is begun anew fit in."""
_MAX_BODY_BYTES = 4_096
_ROUTE = "POST runs/{run_id}/links"
_BINARY = "application/octet-stream"


class LinkRequest(Frozen):
    """The output of a step, or of one item of a map, and for how many seconds the link is to be good."""

    step_id: WireId
    item: int | None = Field(default=None, ge=0, le=9_999)
    valid_s: int = Field(default=300, ge=10, le=MAX_VALID_S)


class Link(Frozen):
    """``url`` opens the output until ``expires_at`` for whoever has it."""

    url: str
    link_id: str
    expires_at: UtcDatetime
    size_bytes: int
    media_type: str


async def make_link(call: Call) -> HttpResponse:
    """``POST /api/runs/{run_id}/links``. 409 ``step.no_output`` where there is none, 422 ``step.unknown``, 429 ``quota.links``.

    A link costs the tenant one of the permits that it has for links.
    """
    run = await run_of(call)
    wanted = _request_of(await read_json_body(call.request, _MAX_BODY_BYTES))
    tenant = await call.deps.tenants.get(run.tenant_id)
    if tenant is None:
        raise LivoaError("auth.tenant_unknown", "The directory of this token is not onboarded.", status=401)
    message = "This tenant asks for more than it may at the moment; no link was made."
    await require_permit(tenant, call.principal, _ROUTE, call.deps, code="quota.links", message=message, door="links")
    record = await call.deps.runs.get_step(run.tenant_id, run.run_id, wanted.step_id, wanted.item)
    if record is None:
        await require_step(run, wanted.step_id, call.deps)
    if record is None or record.output_ref is None:
        raise ConflictError("step.no_output", "This step, or this item of it, has no output.")
    now = call.deps.clock.now()
    expires_at = now.replace(microsecond=0) + timedelta(seconds=wanted.valid_s)
    ref = record.output_ref
    made = await call.deps.payload_links.make(run.tenant_id, run.run_id, ref, expires_at)
    entry = AuditEntry(
        tenant_id=run.tenant_id,
        entry_id=f"{run.run_id}/{AuditType.CONTENT_LINKED.value}/{made.link_id}",
        type=AuditType.CONTENT_LINKED,
        at=now,
        run_id=run.run_id,
        actor=call.principal.subject,
        body={
            "client_app": call.principal.client_app,
            "step": wanted.step_id,
            **({"item": wanted.item} if wanted.item is not None else {}),
            "link": made.link_id,
            "content": made.commitment,
            "valid_s": wanted.valid_s,
        },
    )
    await append_audit(entry, call.deps)
    link = Link(
        url=f"{call.request.origin}/api/links/{run.tenant_id}/{run.run_id}/{made.token}",
        link_id=made.link_id,
        expires_at=expires_at,
        size_bytes=ref.size_bytes,
        media_type=_shown_as(ref.media_type == JSON),
    )
    return json_response(link.model_dump(mode="json"), 201)


async def follow_link(request: HttpRequest, deps: Deps) -> HttpResponse:
    """``GET /api/links/{tenant}/{run_id}/{token}``: the bytes, as a download. 404 ``link.invalid``, 410 ``link.expired`` and
    ``link.used_up``, 503 ``audit.unavailable``."""
    tenant_id, run_id = request.route.get("tenant", ""), request.route.get("run_id", "")
    found = await deps.payload_links.follow(tenant_id, run_id, request.route.get("token", ""))
    tenant = await deps.tenants.get(tenant_id)
    if tenant is None or tenant.status != "active" or await deps.runs.get(tenant_id, run_id) is None:
        raise link_invalid()
    await _record_use(tenant_id, run_id, found, deps)
    headers = (
        ("content-type", _shown_as(found.is_json)),
        (
            "content-disposition",
            f'attachment; filename="{run_id}-{found.link_id}{".json" if found.is_json else ".bin"}"',
        ),
    )
    return HttpResponse(200, headers, found.data)


async def _record_use(tenant_id: str, run_id: str, found: Linked, deps: Deps) -> None:
    """Put one use on record under the first number that is free. Raises 410 ``link.used_up``, 503 ``audit.unavailable``."""
    use = secrets.token_hex(8)
    try:
        first = await _first_free(tenant_id, run_id, found.link_id, deps)
        for number in range(first, MAX_USES + 1):
            # A number that is taken meanwhile answers with whose it is.
            record = await deps.audit.append(_read_entry(tenant_id, run_id, found, number, use, deps.clock.now()))
            if record.body.get("use") == use:
                return
    except Exception as err:
        raise not_recorded() from err
    message = f"This link has been used {MAX_USES} times; ask for another one."
    raise LivoaError("link.used_up", message, status=410)


async def _first_free(tenant_id: str, run_id: str, link_id: str, deps: Deps) -> int:
    """The first number that nobody has: numbers have no gaps, so five looks find it."""
    low, high = 1, MAX_USES + 1
    while low < high:
        middle = (low + high) // 2
        if await deps.audit.find(tenant_id, _use_id(run_id, link_id, middle)) is None:
            high = middle
        else:
            low = middle + 1
    return low


def _use_id(run_id: str, link_id: str, number: int) -> str:
    return f"{run_id}/{AuditType.CONTENT_READ.value}/{link_id}/{number}"


def _read_entry(tenant_id: str, run_id: str, found: Linked, number: int, use: str, at: datetime) -> AuditEntry:
    return AuditEntry(
        tenant_id=tenant_id,
        entry_id=_use_id(run_id, found.link_id, number),
        type=AuditType.CONTENT_READ,
        at=at,
        run_id=run_id,
        actor=f"link:{found.link_id}",
        body={"link": found.link_id, "content": found.commitment, "number": number, "use": use},
    )


def _shown_as(is_json: bool) -> str:
    # An agent must not get a browser to render its output under our origin.
    return JSON if is_json else _BINARY


def _request_of(value: object) -> LinkRequest:
    try:
        return LinkRequest.model_validate(value, strict=True)
    except ValidationError as err:
        message = "The request is not valid; see errors."
        raise LivoaError("request.invalid", message, status=422, violations=violations_of(err)) from None


ENDPOINTS = (
    Endpoint("make_link", "POST", "runs/{run_id}/links", make_link, READERS),
    OpenEndpoint("follow_link", "links/{tenant}/{run_id}/{token}", follow_link),
)


def build(deps: DepsProvider, *, streaming: bool) -> Blueprint:
    """The blueprint of these endpoints."""
    return build_blueprint(ENDPOINTS, deps, streaming=streaming)
