"""HTTP functions of approvals: what waits for a person, with the arguments as they will be used, and the person's answer.

Who may answer is decided here and again where the answer is used. An answer is written to the store first, then to the audit log,
then the orchestration is told; a crash in between delays the run and loses nothing, because asking again is safe and the step
looks by itself.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import ValidationError

from engine.domain.approval import Approval, ApprovalAnswer, require_approver
from engine.domain.errors import LivoaError, NotFoundError
from engine.domain.ids import is_wire_id
from engine.domain.principal import Role
from engine.domain.run import Run
from engine.evidence.approvals import approval_entry
from engine.ports.deps import DepsProvider
from triggers.approval_views import AnswerRequest, ApprovalList, PendingApprovals, summary_of, view_of
from triggers.endpoint import Call, Endpoint, build_blueprint
from triggers.http_adapter import HttpResponse, json_response
from triggers.run_access import READERS, integer_query, may_see
from triggers.starting import tell_answer
from triggers.submission import append_audit, read_json_body, violations_of

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

_LOG = logging.getLogger("livoa.approvals")
APPROVERS = frozenset({Role.RUNS_APPROVE})
MAX_PAGE = 200
MAX_ARGUMENTS_BYTES = 2 * 1024 * 1024
"""Arguments of all approvals of one answer together; what goes beyond is left out and said to be."""


async def list_approvals(call: Call) -> HttpResponse:
    """``GET /api/runs/{run_id}/approvals``."""
    run = await _run_of(call)
    views, left = [], MAX_ARGUMENTS_BYTES
    for approval in reversed(await call.deps.approvals.of_run(run.tenant_id, run.run_id)):
        size = approval.arguments_ref.size_bytes if approval.arguments_ref is not None else 0
        omitted = approval.binding.kind != "plan" and size > left
        views.append(await view_of(approval, call.deps, omitted=omitted))
        left -= 0 if omitted else size
    return json_response(ApprovalList(run_id=run.run_id, approvals=tuple(reversed(views))).model_dump(mode="json"))


async def list_pending(call: Call) -> HttpResponse:
    """``GET /api/approvals?limit=``: what the caller's tenant waits for."""
    limit = integer_query(call, "limit", default=50, low=1, high=MAX_PAGE)
    pending = await call.deps.approvals.pending(call.principal.tenant_id, limit=limit)
    now = call.deps.clock.now()
    shown = tuple(summary_of(approval) for approval in pending if now < approval.expires_at)
    return json_response(PendingApprovals(approvals=shown).model_dump(mode="json"))


async def answer_approval(call: Call) -> HttpResponse:
    """``POST /api/runs/{run_id}/approvals/{subject}``: 200 with the approval, also when the same answer comes again.

    404 for an unknown run or subject; 403 ``approval.self`` and ``approval.app_only``; 409 ``approval.closed``; 410
    ``approval.expired``.
    """
    request = _answer_of(await read_json_body(call.request, call.deps.settings.max_body_bytes))
    run = await _run_of(call)
    approval = await _approval_of(call, run, request)
    require_approver(approval, call.principal)
    answer = ApprovalAnswer(granted=request.decision == "approve", by=call.principal.subject, comment=request.comment)
    answered = await call.deps.approvals.answer(run.tenant_id, run.run_id, approval.approval_id, answer)
    await append_audit(approval_entry(answered), call.deps)
    await tell_answer(answered, call.durable)
    _LOG.info("approval answered", extra={"run_id": run.run_id, "status": answered.status.value})
    return json_response((await view_of(answered, call.deps)).model_dump(mode="json"))


def _answer_of(value: object) -> AnswerRequest:
    try:
        return AnswerRequest.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as err:
        message = "The answer is not valid; see errors."
        raise LivoaError("request.invalid", message, status=422, violations=violations_of(err)) from None


async def _run_of(call: Call) -> Run:
    """The run that the path names; who may approve sees every run of the tenant. Raises ``NotFoundError("run.not_found")``."""
    run_id, principal = call.request.route.get("run_id", ""), call.principal
    if is_wire_id(run_id):
        run = await call.deps.runs.get(principal.tenant_id, run_id)
        # The store has looked already; that it answers for this tenant alone is not left to it.
        own = run if run is not None and run.tenant_id == principal.tenant_id else None
        if own is not None and (may_see(principal, own) or principal.has(Role.RUNS_APPROVE)):
            return own
    raise NotFoundError("run.not_found", "There is no such run.")


async def _approval_of(call: Call, run: Run, request: AnswerRequest) -> Approval:
    """The approval that is answered: the one named, else the open one of the subject, else its latest."""
    subject = call.request.route.get("subject", "")
    of_subject = [a for a in await call.deps.approvals.of_run(run.tenant_id, run.run_id) if a.subject == subject]
    found = [a for a in of_subject if a.binding.item == request.item]
    if request.approval_id is not None:
        found = [a for a in of_subject if a.approval_id == request.approval_id]
    elif of_subject and not found and request.item is None:
        message = "Approvals of this step are for single items; name one."
        raise LivoaError("approval.item_missing", message, status=422, pointer="/item")
    if not found:
        raise NotFoundError("approval.not_found", "This run has no such approval.")
    return _current(found)


def _current(approvals: Sequence[Approval]) -> Approval:
    return next((approval for approval in approvals if approval.is_pending), approvals[-1])


ENDPOINTS = (
    Endpoint("list_run_approvals", "GET", "runs/{run_id}/approvals", list_approvals, READERS | APPROVERS),
    Endpoint(
        "answer_approval",
        "POST",
        "runs/{run_id}/approvals/{subject}",
        answer_approval,
        APPROVERS,
        needs_client=True,
    ),
    Endpoint("list_pending_approvals", "GET", "approvals", list_pending, APPROVERS),
)


def build(deps: DepsProvider, *, streaming: bool) -> Blueprint:
    """The blueprint of these endpoints."""
    return build_blueprint(ENDPOINTS, deps, streaming=streaming)
