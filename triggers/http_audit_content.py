"""An HTTP function for auditors: the content that a run's audit records commit to, by its hash.

Records hold commitments, the payload store holds what they commit to: the request, the plan, prompts and completions, outputs,
the answer. Only what a record of the run commits to is given out, only after that is on record, and with what is needed to check
it, so neither can be exchanged for something else. Content that was erased stays erased; the records do not need it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING

from engine.domain.base import Frozen
from engine.domain.errors import NotFoundError
from engine.domain.run import Run
from engine.ports.deps import Deps, DepsProvider
from engine.ports.payload_store import Committed
from triggers.endpoint import Call, Endpoint, build_blueprint
from triggers.http_adapter import JSON, HttpResponse, json_response
from triggers.http_audit import AUDITORS, look_entry, run_for_audit
from triggers.submission import append_audit

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PAGE = 1_000
_KEPT = (
    "prompt_sha256",
    "output_sha256",
    "request_sha256",
    "plan_hash",
    "replaced_plan_hash",
    "diff_sha256",
    "answer_sha256",
)
"""Fields of records that commit to content which the payload store keeps."""


class AuditContent(Frozen):
    """Content as text, or in base64 where it is no UTF-8. ``sha256`` is that of its bytes.

    ``commitment`` is what stands in the record: HMAC-SHA-256 under ``commitment_key`` (hex) over the 32 bytes of ``sha256``, or
    ``sha256`` itself where there is no key.
    """

    run_id: str
    sha256: str
    commitment: str
    commitment_key: str | None = None
    size_bytes: int
    media_type: str
    text: str | None = None
    base64: str | None = None


async def get_audit_content(call: Call) -> HttpResponse:
    """``GET /api/runs/{run_id}/audit/content/{sha256}``. 404 ``audit.no_such_content`` for what no record commits to, 410
    ``payload.erased`` for what is gone."""
    run = await run_for_audit(call)
    wanted = call.request.route.get("sha256", "")
    if not _SHA256.fullmatch(wanted) or not await _is_committed(run, wanted, call.deps):
        raise NotFoundError("audit.no_such_content", "No audit record of this run commits to such content.")
    await append_audit(look_entry(call, run.run_id, {"content_sha256": wanted}), call.deps)
    found = await call.deps.payloads.committed(run.tenant_id, run.run_id, wanted)
    return json_response(_shown(run, wanted, found).model_dump(mode="json", exclude_none=True))


async def _is_committed(run: Run, wanted: str, deps: Deps) -> bool:
    """True when a record of the run commits to that."""
    after = 0
    while records := await deps.audit.read(run.tenant_id, after_seq=after, limit=_PAGE, run_id=run.run_id):
        if any(record.body.get(name) == wanted for record in records for name in _KEPT):
            return True
        after = records[-1].seq
        if len(records) < _PAGE:
            break
    return False


def _shown(run: Run, wanted: str, found: Committed) -> AuditContent:
    sha256, data = hashlib.sha256(found.data).hexdigest(), found.data
    refs = (run.request_ref, run.plan_ref, run.answer_ref)
    content = AuditContent(
        run_id=run.run_id,
        sha256=sha256,
        commitment=wanted,
        commitment_key=found.key.hex() if found.key is not None else None,
        size_bytes=len(data),
        media_type=next((ref.media_type for ref in refs if ref is not None and ref.sha256 == sha256), JSON),
    )
    try:
        return content.model_copy(update={"text": data.decode()})
    except UnicodeDecodeError:
        return content.model_copy(update={"base64": base64.b64encode(data).decode()})


ENDPOINTS = (Endpoint("get_audit_content", "GET", "runs/{run_id}/audit/content/{sha256}", get_audit_content, AUDITORS),)


def build(deps: DepsProvider, *, streaming: bool) -> Blueprint:
    """The blueprint of this endpoint."""
    return build_blueprint(ENDPOINTS, deps, streaming=streaming)
