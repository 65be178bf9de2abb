"""Asking a person about a plan as a whole. It is stored and hashed before anybody is asked: what is approved is what runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from engine.domain.approval import Approval, ApprovalBinding, ApprovalStatus
from engine.domain.base import iso_utc
from engine.domain.errors import ConflictError
from engine.domain.policy import PlanPolicyDecision, Verdict
from engine.domain.run import ErrorInfo, PayloadRef, Run
from engine.domain.tenant import TenantConfig
from engine.evidence.approvals import approval_entry
from engine.ports.deps import Deps
from engine.step_runner import known_question, record_voided

_MAX_FINDINGS = 20
_REASONS = {
    ApprovalStatus.REFUSED: ErrorInfo(code="approval.refused", message="a person refused the plan"),
    ApprovalStatus.EXPIRED: ErrorInfo(code="approval.expired", message="nobody approved the plan in time"),
}
_VOID = ErrorInfo(code="approval.void", message="something else was asked about this plan meanwhile")
CANCELLED: dict[str, Any] = {"status": "failed", "code": "run.cancelled", "retryable": True}
"""What ``plan_run`` answers when the run is being cancelled: there is nothing to plan any more."""


def needs_a_person(decision: PlanPolicyDecision) -> bool:
    """True when an approval, and nothing else, would make it an allow."""
    cures = {cure.kind for cure in decision.cures}
    hard = any(finding.severity == "hard" for finding in decision.findings)
    return decision.verdict is Verdict.ESCALATE and cures == {"approval"} and not hard


async def ask_about_plan(
    run: Run, tenant: TenantConfig, plan_ref: PayloadRef, plan_hash: str, decision: PlanPolicyDecision, deps: Deps
) -> Approval | ErrorInfo | dict[str, Any]:
    """The granted approval of this plan under this policy set; why it is refused; or what ``plan_run`` is to answer meanwhile."""
    # The plan's hash is that of everything the approver reads, so it is the hash of the arguments too.
    binding = ApprovalBinding(
        kind="plan",
        plan_hash=plan_hash,
        arguments_sha256=plan_hash,
        policy_set_hash=decision.policy_set_hash,
    )
    approval_id, known = await known_question(run.tenant_id, run.run_id, binding, deps)
    is_new = known is None
    if known is None:
        known = _new(run, tenant, plan_ref, decision, binding, approval_id, deps)
        await deps.audit.append(approval_entry(known))
    if known.is_pending:
        try:
            known = await deps.approvals.request(known)
        except ConflictError:
            return CANCELLED
        if is_new:  # what it takes the place of is void now
            await record_voided(run.tenant_id, run.run_id, deps)
    if known.binding != binding or known.run_id != run.run_id:
        return ErrorInfo(code="approval.mismatch", message="the approval on record is not the one that was asked for")
    if known.is_pending:
        return {
            "status": "awaiting_approval",
            "approval_id": approval_id,
            "expires_at": iso_utc(known.expires_at),
            "left_s": (known.expires_at - deps.clock.now()).total_seconds(),
        }
    await deps.audit.append(approval_entry(known))
    return known if known.status is ApprovalStatus.GRANTED else _REASONS.get(known.status, _VOID)


def _new(
    run: Run,
    tenant: TenantConfig,
    plan_ref: PayloadRef,
    decision: PlanPolicyDecision,
    binding: ApprovalBinding,
    approval_id: str,
    deps: Deps,
) -> Approval:
    now = deps.clock.now()
    provenance = run.proposed_plan.provenance if run.proposed_plan is not None else run.provenance
    return Approval(
        tenant_id=run.tenant_id,
        run_id=run.run_id,
        approval_id=approval_id,
        binding=binding,
        plan_version=run.plan_version + 1,
        vetting_id=provenance.vetting_id if provenance is not None else "",
        arguments_ref=plan_ref,
        reasons=decision.reasons[:_MAX_FINDINGS],
        findings=decision.findings[:_MAX_FINDINGS],
        requested_by=run.principal.subject,
        requested_at=now,
        expires_at=min(now + timedelta(seconds=tenant.approvals.timeout_s), run.deadline_at),
        waiter=run.run_id,
    )
