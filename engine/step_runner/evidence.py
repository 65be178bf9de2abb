"""The audit entries of one attempt. Bodies hold codes, counts and commitments; content never stands in the chain."""

from __future__ import annotations

from datetime import datetime

from engine.domain.approval import Approval
from engine.domain.audit import AuditEntry, AuditType
from engine.domain.base import JsonObject
from engine.domain.capability import Capability
from engine.domain.policy import Cures, PolicyDecision, Verdict
from engine.domain.principal import Principal
from engine.domain.run import PayloadRef
from engine.evidence.canonical import canonical_sha256
from engine.step_runner.task import StepTask


def _entry(
    task: StepTask, principal: Principal, kind: AuditType, at: datetime, body: JsonObject, suffix: str = ""
) -> AuditEntry:
    return AuditEntry(
        tenant_id=task.tenant_id,
        entry_id=f"{task.attempt_key}/{kind.value}{suffix}",
        type=kind,
        at=at,
        run_id=task.run_id,
        actor=principal.subject,
        body={"step": task.step_id, "attempt": task.attempt}
        | ({"item": task.item} if task.item is not None else {})
        | ({"purpose": task.purpose} if task.purpose != "step" else {})
        | body,
    )


def _decision_body(decision: PolicyDecision) -> JsonObject:
    return {
        "verdict": decision.verdict.value,
        "policies": list(decision.policy_ids),
        "policy_set": decision.policy_set_hash,
    }


def decision_entry(
    task: StepTask,
    principal: Principal,
    at: datetime,
    *,
    capability: str,
    plan_hash: str,
    inputs_sha256: str,
    decision: PolicyDecision,
    cures: Cures,
    code: str = "",
) -> AuditEntry:
    """A decision other than a clean allow: a denial, or a verdict with the cures it names.

    Its words stay out: a chain cannot forget. The step's record, or the approval, has them. ``facts_sha256`` names what policy
    was asked; ``code`` is why the step ended when that is not the decision's own.
    """
    done = cures.model_dump(mode="json", exclude=None if cures.masked else {"masked"})
    facts = {"capability": capability, "plan_hash": plan_hash, "inputs_sha256": inputs_sha256, "cures": done}
    facts_sha256 = canonical_sha256(facts)
    body: JsonObject = {
        "capability": capability,
        "inputs_sha256": inputs_sha256,
        "facts_sha256": facts_sha256,
        "code": code or decision.code,
    }
    if decision.cures:
        body["cures"] = [cure.model_dump() for cure in decision.cures]
    if cures != Cures():
        body["cured"] = done
    # Several decisions may fall in one attempt; the last word of it keeps the plain id.
    suffix = f"/{decision.verdict.value}/{facts_sha256[:16]}" if decision.verdict in _CURABLE and not code else ""
    return _entry(task, principal, AuditType.POLICY_DECISION, at, body | _decision_body(decision), suffix)


_CURABLE = (Verdict.ESCALATE, Verdict.TRANSFORM)


def intent_entry(
    task: StepTask,
    principal: Principal,
    at: datetime,
    *,
    capability: Capability,
    plan_hash: str,
    inputs_sha256: str,
    decision: PolicyDecision,
    reserved_micro_usd: int,
    approval: Approval | None = None,
    redacted: tuple[str, ...] = (),
    masked: tuple[str, ...] = (),
) -> AuditEntry:
    """The effect that is about to happen, with the decision that allowed it and what cured it. Durable before the call.

    ``redacted`` and ``masked`` are pointers into the inputs: places, not values.
    """
    cured: JsonObject = {"redacted": list(redacted)} if redacted else {}
    earlier: JsonObject = {}
    if masked:
        cured["masked"] = list(masked)
    if approval is not None:
        cured |= {"approval_id": approval.approval_id, "approved_by": approval.decided_by}
        if approval.binding.plan_hash != plan_hash:  # the step is the same one in this version of the plan
            earlier = {"approved_plan_hash": approval.binding.plan_hash, "step_hash": approval.step_hash}
    return _entry(
        task,
        principal,
        AuditType.DISPATCH_INTENDED,
        at,
        {
            "capability": capability.name,
            "capability_version": capability.version,
            "side_effect": capability.side_effect,
            "plan_hash": plan_hash,
            "idempotency_key": task.key,
            "inputs_sha256": inputs_sha256,
            "reserved_micro_usd": reserved_micro_usd,
            "decision": _decision_body(decision) | cured,
            **earlier,
        },
    )


def degraded_entry(
    task: StepTask, principal: Principal, at: datetime, *, capability: str | None, reason: str
) -> AuditEntry:
    """Something else stands in for the step's capability from this attempt on."""
    body: JsonObject = {"capability": capability or "", "reason": reason}
    return _entry(task, principal, AuditType.DEGRADED_ENTERED, at, body)


def reused_entry(
    task: StepTask,
    principal: Principal,
    at: datetime,
    *,
    capability: Capability,
    plan_hash: str,
    inputs_sha256: str,
    decision: PolicyDecision,
    output: PayloadRef,
    made_by: str,
) -> AuditEntry:
    """A step that was answered with the earlier result of run ``made_by``: nothing was called."""
    body: JsonObject = {
        "capability": capability.name,
        "capability_version": capability.version,
        "plan_hash": plan_hash,
        "inputs_sha256": inputs_sha256,
        "output_sha256": output.sha256,
        "output_bytes": output.size_bytes,
        "made_by": made_by,
        "decision": _decision_body(decision),
    }
    return _entry(task, principal, AuditType.RESULT_REUSED, at, body)


def result_entry(
    task: StepTask,
    principal: Principal,
    at: datetime,
    *,
    status: str,
    code: str | None,
    output: PayloadRef | None,
    cost_micro_usd: int,
) -> AuditEntry:
    """What came of the effect. A redelivered attempt may see another result, so the outcome is part of the entry's id."""
    body: JsonObject = {"status": status, "cost_micro_usd": cost_micro_usd}
    if code is not None:
        body["code"] = code
    if output is not None:
        body |= {"output_sha256": output.sha256, "output_bytes": output.size_bytes}
    suffix = f"/{code}" if code is not None else ""
    return _entry(task, principal, AuditType.DISPATCH_RESULT, at, body, suffix)
