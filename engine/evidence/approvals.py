"""Audit entries about approvals: who was asked what, by hashes, and who answered. Words stay out of the chain."""

from __future__ import annotations

from engine.domain.approval import Approval, ApprovalStatus
from engine.domain.audit import ENGINE_ACTOR, AuditEntry, AuditType
from engine.domain.base import JsonObject

_TYPES = {
    ApprovalStatus.PENDING: AuditType.APPROVAL_REQUESTED,
    ApprovalStatus.GRANTED: AuditType.APPROVAL_GRANTED,
    ApprovalStatus.REFUSED: AuditType.APPROVAL_REFUSED,
    ApprovalStatus.EXPIRED: AuditType.APPROVAL_EXPIRED,
    ApprovalStatus.VOID: AuditType.APPROVAL_VOIDED,
}


def approval_entry(approval: Approval) -> AuditEntry:
    """The entry for where the approval stands now. The same for every writer, so whoever needs it to be there may append it."""
    kind = _TYPES[approval.status]
    binding = approval.binding
    body: JsonObject = {
        "approval_id": approval.approval_id,
        "kind": binding.kind,
        "subject": approval.subject,
        "plan_hash": binding.plan_hash,
        "arguments_sha256": binding.arguments_sha256,
        "policy_set": binding.policy_set_hash,
        "requested_by": approval.requested_by,
    }
    optional = {
        "item": binding.item,
        "capability": approval.capability,
        "vetting_id": approval.vetting_id or None,
        "step_hash": approval.step_hash or None,
        "void_code": approval.void_code,
        "redacted": list(approval.redacted) or None,
    }
    return AuditEntry(
        tenant_id=approval.tenant_id,
        entry_id=f"{approval.run_id}/{approval.approval_id}/{kind.value}",
        type=kind,
        at=approval.decided_at or approval.requested_at,
        run_id=approval.run_id,
        # Void is what the engine makes of it, and no act of who had granted it.
        actor=ENGINE_ACTOR if kind is AuditType.APPROVAL_VOIDED else approval.decided_by or approval.requested_by,
        body=body | {name: value for name, value in optional.items() if value is not None},
    )
