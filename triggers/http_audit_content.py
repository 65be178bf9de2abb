"""An HTTP function for auditors: the content that a run's audit records commit to, by its hash.

Records hold hashes, the payload store holds what was hashed: the request, the plan, prompts and completions, outputs, the answer.
Only what a record of the run commits to is given out, only after that is on record, and the hash of what comes is the hash of the
record, so neither can be exchanged for something else. Content that was erased stays erased; the records do not need it.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from engine.domain.audit import AuditRecord
from engine.domain.base import Frozen
from engine.domain.errors import NotFoundError
from engine.domain.run import PayloadRef, Run
from engine.ports.deps import Deps, DepsProvider
from triggers.endpoint import Call, Endpoint, build_blueprint
from triggers.http_adapter import HttpResponse, json_response
from triggers.http_audit import AUDITORS, look_entry, run_for_audit
from triggers.submission import append_audit

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PAGE = 1_000
_SIZED = {"prompt_sha256": "prompt_bytes", "output_sha256": "output_bytes"}
_UNSIZED = ("request_sha256", "plan_hash", "answer_sha256")


class AuditContent(Frozen):
    """Content as text, or in base64 where it is no UTF-8. ``sha256`` is that of its bytes."""

    run_id: str
    sha256: str
    size_bytes: int
    media_type: str
    text: str | None = None
    base64: str | None = None


async def get_audit_content(call: Call) -> HttpResponse:
    """``GET /api/runs/{run_id}/audit/content/{sha256}``. 404 ``audit.no_such_content`` for what no record commits to."""
    run = await run_for_audit(call)
    sha256 = call.request.route.get("sha256", "")
    ref = await _committed(run, sha256, call.deps) if _SHA256.fullmatch(sha256) else None
    if ref is None:
        raise NotFoundError("audit.no_such_content", "No audit record of this run commits to such content.")
    await append_audit(look_entry(call, run.run_id, {"content_sha256": sha256}), call.deps)
    data = await call.deps.payloads.get(run.tenant_id, run.run_id, ref)
    return json_response(_shown(run, ref, data).model_dump(mode="json", exclude_none=True))


async def _committed(run: Run, sha256: str, deps: Deps) -> PayloadRef | None:
    """Where the content is, when a record of the run commits to it."""
    own = {ref.sha256: ref for ref in (run.request_ref, run.plan_ref, run.answer_ref) if ref is not None}
    after = 0
    while records := await deps.audit.read(run.tenant_id, after_seq=after, limit=_PAGE, run_id=run.run_id):
        for record in records:
            if (ref := _in_record(record, sha256, own)) is not None:
                return ref
        after = records[-1].seq
        if len(records) < _PAGE:
            break
    return None


def _in_record(record: AuditRecord, sha256: str, own: dict[str, PayloadRef]) -> PayloadRef | None:
    for name, size in _SIZED.items():
        if record.body.get(name) == sha256 and size in record.body:
            return own.get(sha256) or PayloadRef(sha256=sha256, size_bytes=record.body[size])
    if any(record.body.get(name) == sha256 for name in _UNSIZED):
        return own.get(sha256)
    return None


def _shown(run: Run, ref: PayloadRef, data: bytes) -> AuditContent:
    content = AuditContent(run_id=run.run_id, sha256=ref.sha256, size_bytes=len(data), media_type=ref.media_type)
    try:
        return content.model_copy(update={"text": data.decode()})
    except UnicodeDecodeError:
        return content.model_copy(update={"base64": base64.b64encode(data).decode()})


ENDPOINTS = (Endpoint("get_audit_content", "GET", "runs/{run_id}/audit/content/{sha256}", get_audit_content, AUDITORS),)


def build(deps: DepsProvider, *, streaming: bool) -> Blueprint:
    """The blueprint of this endpoint."""
    return build_blueprint(ENDPOINTS, deps, streaming=streaming)
