"""What people see of approvals, and how they answer."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import Field

from engine.domain.approval import MAX_COMMENT_CHARS, VOID_WORDS, Approval, ApprovalStatus
from engine.domain.base import Frozen, JsonValue, UtcDatetime
from engine.domain.ids import WireId
from engine.domain.policy import PolicyFinding
from engine.domain.run import ErrorInfo
from engine.ports.deps import Deps
from triggers.views import run_path


class ApprovalSummary(Frozen):
    """One question to a person. ``subject`` is ``plan`` or the id of a step; ``answer`` is where the answer goes, ``void`` why
    none is taken any more."""

    run_id: str
    approval_id: str
    subject: str
    item: int | None
    kind: Literal["plan", "step", "question"]
    status: ApprovalStatus
    capability: str | None
    reasons: tuple[str, ...]
    requested_by: str
    requested_at: UtcDatetime
    expires_at: UtcDatetime
    decided_by: str | None
    decided_at: UtcDatetime | None
    void: ErrorInfo | None = None
    answer: str


class ApprovalView(ApprovalSummary):
    """One question in full: the arguments it is about, where they come from, and everything that the answer is bound to.

    ``arguments`` is ``{"capability", "inputs"}`` as the call will be made, ``{"question"}`` of an ``approval`` step, or null for
    a plan (read ``plan``). ``redacted`` are the places whose values policy had taken out.
    """

    comment: str | None
    findings: tuple[PolicyFinding, ...]
    redacted: tuple[str, ...]
    arguments: JsonValue = None
    arguments_omitted: bool = False
    plan: str
    plan_hash: str
    plan_version: int
    arguments_sha256: str
    policy_set_hash: str
    vetting_id: str


class ApprovalList(Frozen):
    """The approvals of a run, oldest first."""

    run_id: str
    approvals: tuple[ApprovalView, ...]


class PendingApprovals(Frozen):
    """What waits for an answer in the caller's tenant, oldest first."""

    approvals: tuple[ApprovalSummary, ...]


class AnswerRequest(Frozen):
    """A person's answer. ``approval_id`` makes sure that it is the question they have read; ``item`` names one of a map."""

    decision: Literal["approve", "reject"]
    approval_id: WireId | None = None
    item: int | None = Field(default=None, ge=0)
    comment: str | None = Field(default=None, max_length=MAX_COMMENT_CHARS)


def summary_of(approval: Approval) -> ApprovalSummary:
    """An approval for a list."""
    return ApprovalSummary(
        run_id=approval.run_id,
        approval_id=approval.approval_id,
        subject=approval.subject,
        item=approval.binding.item,
        kind=approval.binding.kind,
        status=approval.status,
        capability=approval.capability,
        reasons=approval.reasons,
        requested_by=approval.requested_by,
        requested_at=approval.requested_at,
        expires_at=approval.expires_at,
        decided_by=approval.decided_by,
        decided_at=approval.decided_at,
        void=_void(approval),
        answer=f"{run_path(approval.run_id)}/approvals/{approval.subject}",
    )


def _void(approval: Approval) -> ErrorInfo | None:
    code = approval.void_code
    return ErrorInfo(code=code, message=VOID_WORDS[code]) if code is not None else None


async def view_of(approval: Approval, deps: Deps, *, omitted: bool = False) -> ApprovalView:
    """An approval in full; ``omitted`` leaves its arguments out."""
    arguments: JsonValue = None
    if approval.arguments_ref is not None and approval.binding.kind != "plan" and not omitted:
        arguments = json.loads(await deps.payloads.get(approval.tenant_id, approval.run_id, approval.arguments_ref))
    return ApprovalView(
        **dict(summary_of(approval)),
        comment=approval.comment,
        findings=approval.findings,
        redacted=approval.redacted,
        arguments=arguments,
        arguments_omitted=omitted,
        plan=f"{run_path(approval.run_id)}/plan",
        plan_hash=approval.binding.plan_hash,
        plan_version=approval.plan_version,
        arguments_sha256=approval.binding.arguments_sha256,
        policy_set_hash=approval.binding.policy_set_hash,
        vetting_id=approval.vetting_id,
    )
