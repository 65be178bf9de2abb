"""Submitting a run: from bytes to an accepted run. What to do is decided by pure functions; ``submit`` carries it out.

Order of the effects, and why it is safe to die between any two of them:

1. the audit record of the submission. When it cannot be written, nothing else happens (503).
2. the request into the payload store. Content-addressed: writing it again is the same object.
3. the run with its first event, in one transaction. From here on the run is accepted.
4. the start of the orchestration. Should it get lost, the next POST with the same key or the sweep starts the run.

With an Idempotency-Key the run id follows from tenant, caller and key, so a repeated submission meets its own traces.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_never

from pydantic import ValidationError

from engine.domain.audit import AuditEntry, AuditType
from engine.domain.canonical import canonical_form
from engine.domain.errors import ConflictError, LivoaError, Violation
from engine.domain.events import EventType, RunEventData, new_event
from engine.domain.ids import RunId, is_wire_id, run_id_from
from engine.domain.principal import Principal
from engine.domain.run import MAX_TITLE_CHARS, PayloadRef, Run, RunRequest
from engine.domain.status import RunStatus
from engine.domain.strict_json import Place, parse, pointer_of
from engine.domain.tenant import PLATFORM_MAX_JSON_DEPTH, TenantConfig
from engine.evidence.on_record import put_on_record
from engine.ports.deps import Deps
from engine.ports.identity import Rejection, Speaker
from engine.ports.quota import Door
from engine.ports.run_store import IdempotencyClaim
from triggers.http_adapter import JSON, DurableClient, HttpRequest, read_body
from triggers.starting import is_started, start, try_start

START_GRACE_S = 5.0
"""How long a run may be accepted but not started before that is taken for a crash of the request that accepted it."""
MAX_VIOLATIONS = 100

_BLANKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_NOT_STARTED = frozenset({RunStatus.ACCEPTED, RunStatus.CANCELLING})


@dataclass(frozen=True, slots=True)
class Submission:
    """A request that may be accepted. ``canonical`` is its RFC 8785 form, ``sha256`` the hash of that."""

    request: RunRequest
    canonical: bytes
    sha256: str
    idempotency_key: str | None


def require_json(request: HttpRequest) -> None:
    """Raises ``LivoaError("http.media_type", status=415)`` unless the body says it is plain JSON."""
    media_type, _, parameters = (request.header("content-type") or "").partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    encoded = (request.header("content-encoding") or "identity").strip().lower() != "identity"
    if media_type.strip().lower() != JSON or charset not in {"", "utf-8"} or encoded:
        raise LivoaError("http.media_type", f"The body must be {JSON}, in UTF-8 and not compressed.", status=415)


def idempotency_key(request: HttpRequest) -> str | None:
    """The caller's key, or None. Raises ``LivoaError("idempotency.key_invalid")``."""
    key = request.header("idempotency-key")
    if key is None or is_wire_id(key):
        return key
    raise LivoaError(
        "idempotency.key_invalid", "The Idempotency-Key must be 1 to 100 letters, digits, dots, underscores or dashes."
    )


async def read_json_body(request: HttpRequest, max_bytes: int) -> Any:
    """The JSON value of a request: media type, size, then a strict parse. Raises ``LivoaError`` 415, 413 or 400."""
    require_json(request)
    return parse(await read_body(request, max_bytes), max_bytes=max_bytes, max_depth=PLATFORM_MAX_JSON_DEPTH)


async def read_submission(request: HttpRequest, max_bytes: int) -> Submission:
    """Everything about a submission that can be checked without looking anything up. Raises ``LivoaError``."""
    key = idempotency_key(request)
    return submission_of(await read_json_body(request, max_bytes), key)


def submission_of(value: Any, key: str | None) -> Submission:
    """The submission in a JSON value: no coercion, no unknown fields, every bad field listed (422 ``request.invalid``)."""
    canonical = canonical_form(value)
    try:
        # From JSON text, because strictness then means JSON's types: an array is a tuple, but "63" is not a number.
        run_request = RunRequest.model_validate_json(canonical, strict=True)
    except ValidationError as err:
        raise _invalid(violations_of(err)) from None
    if not run_request.intent.strip():
        raise _invalid([Violation(code="request.blank", pointer="/intent", message="The intent says nothing.")])
    return Submission(run_request, canonical, hashlib.sha256(canonical).hexdigest(), key)


def _invalid(violations: list[Violation]) -> LivoaError:
    return LivoaError("request.invalid", "The request is not valid; see errors.", status=422, violations=violations)


def violations_of(error: ValidationError) -> list[Violation]:
    """A model's complaints with codes and JSON Pointers, none of which repeats the input."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return [
        Violation(code=_code(entry["type"]), pointer=_pointer(entry["loc"]), message=entry["msg"])
        for entry in found[:MAX_VIOLATIONS]
    ]


def _pointer(tokens: tuple[str | int, ...]) -> str:
    place: Place = None
    for token in tokens:
        place = (place, token)
    return pointer_of(place)


def _code(kind: str) -> str:
    match kind:
        case "missing":
            return "request.missing"
        case "extra_forbidden":
            return "request.unknown_field"
        case _ if kind.endswith("_type") or kind.startswith(("int_", "float_", "bool_")):
            return "request.type"
        case _:
            return "request.range"


def own_run_id(principal: Principal, key: str) -> RunId:
    """The run id of a keyed submission. Anybody else's key, or another one of the caller's, leads elsewhere."""
    # The separator cannot occur in a tenant id or in a key, so no two scopes share a text.
    scope = f"{principal.tenant_id}\n{principal.subject}\n{key}"
    digest = hashlib.sha256(f"livoa-run\n{scope}".encode()).digest()
    return run_id_from(int.from_bytes(digest[:6], "big"), digest[6:16])


def title_of(intent: str) -> str:
    """One line to recognise a run by."""
    line = _BLANKS.sub(" ", intent).strip()
    return line if len(line) <= MAX_TITLE_CHARS else line[: MAX_TITLE_CHARS - 1].rstrip() + "…"


def deadline_of(submission: Submission, tenant: TenantConfig, now: datetime) -> datetime:
    """When the run must be over: a caller may ask for less time than the tenant has, never for more."""
    asked_s = submission.request.constraints.deadline_s
    limit_s = tenant.bounds.max_wall_time_s
    return now + timedelta(seconds=limit_s if asked_s is None else min(asked_s, limit_s))


def check_own_plan(submission: Submission, tenant: TenantConfig, deps: Deps) -> None:
    """Raises ``LivoaError("plan.invalid", status=422)`` with everything that is wrong with the caller's plan."""
    if submission.request.plan is None:
        return
    from engine.plan import check_plan

    result = check_plan(
        submission.request.plan, tenant=tenant, catalog=deps.catalog, constraints=submission.request.constraints
    )
    if result.plan is None:
        violations = [v.model_copy(update={"pointer": "/plan" + v.pointer}) for v in result.violations]
        raise LivoaError("plan.invalid", "The plan is not valid; see errors.", status=422, violations=violations)


def submitted_entry(
    run_id: str, submission: Submission, principal: Principal, tenant: TenantConfig, at: datetime
) -> AuditEntry:
    """What the audit log keeps of a submission. Its id holds the request's hash: another request is another fact.

    ``tenant_version`` is the version of the tenant's configuration that the run was admitted under.
    """
    return AuditEntry(
        tenant_id=principal.tenant_id,
        entry_id=f"{run_id}/{AuditType.RUN_SUBMITTED.value}/{submission.sha256[:16]}",
        type=AuditType.RUN_SUBMITTED,
        at=at,
        run_id=run_id,
        actor=principal.subject,
        body={
            "request_sha256": submission.sha256,
            "client_app": principal.client_app,
            "kind": principal.kind,
            "own_plan": submission.request.plan is not None,
            "keyed": submission.idempotency_key is not None,
            "tenant_version": tenant.version,
        },
    )


def new_run(
    run_id: str,
    submission: Submission,
    ref: PayloadRef,
    principal: Principal,
    tenant: TenantConfig,
    now: datetime,
    traceparent: str | None,
) -> Run:
    """The run as it is first stored."""
    return Run(
        tenant_id=principal.tenant_id,
        run_id=run_id,
        status=RunStatus.ACCEPTED,
        title=title_of(submission.request.intent),
        request_ref=ref,
        principal=principal,
        created_at=now,
        updated_at=now,
        deadline_at=deadline_of(submission, tenant, now),
        traceparent=traceparent,
    )


async def append_audit(entry: AuditEntry, deps: Deps) -> None:
    """Append, or refuse to go on: ``LivoaError("audit.unavailable", status=503)``."""
    try:
        await put_on_record(entry, deps.audit)
    except Exception as err:
        raise not_recorded() from err


def not_recorded() -> LivoaError:
    """What is answered when the audit log does not take what must be on record first."""
    message = "This cannot be recorded at the moment, so it is not done."
    return LivoaError("audit.unavailable", message, status=503, retry_after_s=5)


async def require_admission(tenant: TenantConfig, principal: Principal, route: str, deps: Deps) -> None:
    """Let one more submission of the tenant in. Raises ``LivoaError("quota.submissions", status=429)``, which is on record."""
    message = "This tenant submits more than it may at the moment; nothing was accepted."
    await require_permit(tenant, principal, route, deps, code="quota.submissions", message=message)


async def require_permit(
    tenant: TenantConfig,
    principal: Principal,
    route: str,
    deps: Deps,
    *,
    code: str,
    message: str,
    door: Door = "submissions",
) -> None:
    """Take a permit of the tenant for this door. Without one raises ``LivoaError(code, status=429)``, which is on record."""
    admitted = await deps.admission.admit(tenant.tenant_id, tenant.quota, door)
    if not admitted.granted:
        speaker = Speaker(principal.tenant_id, principal.subject, principal.client_app)
        await deps.rejections.record(Rejection(code, route, speaker))
        raise LivoaError(code, message, status=429, retry_after_s=admitted.retry_after_s)


async def submit(
    submission: Submission,
    principal: Principal,
    deps: Deps,
    client: DurableClient,
    *,
    traceparent: str | None = None,
) -> Run:
    """Accept a run and start it, or find the run that this submission led to before.

    Raises ``LivoaError``: 429 ``quota.submissions``, 422 ``plan.invalid`` or ``idempotency.mismatch``, 409
    ``idempotency.in_flight``, 503 ``audit.unavailable``, and what a store raises.
    """
    tenant = await deps.tenants.get(principal.tenant_id)
    if tenant is None:
        raise LivoaError("auth.tenant_unknown", "The directory of this token is not onboarded.", status=401)
    now, key = deps.clock.now(), submission.idempotency_key
    if key is None:
        run_id = run_id_from(int(now.timestamp() * 1000), secrets.token_bytes(10))
    else:
        run_id = own_run_id(principal, key)
        if (existing := await deps.runs.get(principal.tenant_id, run_id)) is not None:
            return await _repeated(existing, submission, tenant, client, now)
    await require_admission(tenant, principal, "POST runs", deps)
    # A large plan takes a while to check; other requests of this process go on meanwhile.
    await asyncio.to_thread(check_own_plan, submission, tenant, deps)
    await append_audit(submitted_entry(run_id, submission, principal, tenant, now), deps)
    ref = await deps.payloads.put(principal.tenant_id, run_id, submission.canonical)
    run = new_run(run_id, submission, ref, principal, tenant, now, traceparent)
    claim = IdempotencyClaim(key, submission.sha256) if key is not None else None
    result = await deps.runs.create(run, [new_event(EventType.RUN_ACCEPTED, RunEventData(request_id=key))], claim)
    match result.outcome:
        case "created":
            await try_start(result.run, client, tenant.quota)
            return result.run
        case "existing":
            return await _repeated(result.run, submission, tenant, client, now)
        case "mismatch":
            raise key_reused()
        case _:
            assert_never(result.outcome)


async def _repeated(
    run: Run, submission: Submission, tenant: TenantConfig, client: DurableClient, now: datetime
) -> Run:
    """The same submission once more: answer with its run, and start that if whoever accepted it never got to it."""
    if run.request_ref.sha256 != submission.sha256 or run.parent_run_id is not None:
        raise key_reused()  # a rerun has the request of its parent, and is another request
    if run.status in _NOT_STARTED and not await is_started(run, client):
        if now - run.created_at < timedelta(seconds=START_GRACE_S):
            raise _in_flight()
        await start(run, client, tenant.quota)
    return run


def _in_flight() -> ConflictError:
    error = ConflictError("idempotency.in_flight", "A request with this Idempotency-Key is still being worked on.")
    error.retry_after_s = 1
    return error


def key_reused() -> LivoaError:
    """What a key that belongs to another request is answered with."""
    return LivoaError(
        "idempotency.mismatch",
        "This Idempotency-Key was used with another request; use a new key for a new request.",
        status=422,
    )
