"""Plan a run: propose (or take the caller's plan), check, vet, store. Repeatable: a stored plan is answered again.

The plan stays in the payload store; durable history gets its skeleton. A plan that policy wants approved is stored first and
asked about; when this is delivered again after the answer, the stored plan goes on, vetted anew.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from activities.payloads import load_request
from activities.plan_approval import CANCELLED, ask_about_plan, needs_a_person
from activities.plan_facts import load_plan, origin_of, planned, told_of, vetted
from activities.plan_verdict import Allowed, Denied, NotApproved, verdict_of, words_of
from engine.domain.approval import Approval
from engine.domain.audit import AuditEntry, AuditType
from engine.domain.base import JsonObject
from engine.domain.errors import ConflictError, LivoaError
from engine.domain.events import DegradedEventData, EventType, NewEvent, PlanEventData, new_event
from engine.domain.policy import Cures, PlanPolicyDecision
from engine.domain.run import ErrorInfo, PayloadRef, PlanProvenance, Run
from engine.domain.status import RunStatus
from engine.domain.telemetry_names import DEGRADED, OPERATION, PLAN_HASH, RUN_ID, SPAN_PLAN
from engine.domain.tenant import TenantConfig
from engine.plan import CheckedPlan
from engine.ports.deps import Deps
from engine.ports.planner import NoPlan
from engine.ports.run_store import RunChange
from engine.ports.telemetry import Span
from engine.step_runner import held, reuse_finished
from planner_graph.planning import (
    PlanningCase,
    PreparedPlan,
    Proposed,
    decide_plan,
    fallbacks_of,
    open_account,
    prepare_plan,
    provenance_of,
)

_LOG = logging.getLogger("livoa.plans")
_MAX_MESSAGES = 5
_REJECTED = "plan.rejected"
_UNDECIDED = frozenset({RunStatus.PLANNING, RunStatus.AWAITING_APPROVAL})
"""Only in these a plan is put in force or refused."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """The run ends here: how, with which code, and what people and the log are told."""

    status: str
    error: ErrorInfo
    events: tuple[NewEvent, ...]
    degraded_reason: str | None = None


@dataclass(frozen=True, slots=True)
class _Stored:
    """A checked plan in the payload store, who made it (``origin`` as events tell it), and whether that was without a model."""

    plan: CheckedPlan
    ref: PayloadRef
    origin: JsonObject
    provenance: PlanProvenance
    degraded_reason: str | None


async def plan_run(payload: dict[str, Any], deps: Deps) -> dict[str, Any]:
    """Input ``{tenant_id, run_id}``.

    Result ``{"status": "planned", "skeleton"}``, ``{"status": "awaiting_approval", "approval_id", "expires_at"}``, or
    ``{"status": "rejected" | "denied" | "failed", "code", "retryable"?}``.
    """
    run = await deps.runs.get(payload["tenant_id"], payload["run_id"])
    if run is None:
        return {"status": "failed", "code": "run.not_found"}
    with deps.telemetry.span(
        SPAN_PLAN, traceparent=run.traceparent, attributes={RUN_ID: run.run_id, OPERATION: SPAN_PLAN}
    ) as span:
        try:
            return await _plan(run, deps, span)
        except LivoaError as err:
            span.fail(err.code)
            return {"status": "failed", "code": err.code, "retryable": err.status >= 500}


async def _plan(run: Run, deps: Deps, span: Span) -> dict[str, Any]:
    tenant = await deps.tenants.get(run.tenant_id)
    if tenant is None:
        return {"status": "denied", "code": "policy.tenant_unknown"}
    if (refused := _refused_before(run)) is not None:
        return refused
    if (suspended := held(run)) is not None:
        return dict(suspended.model_dump(mode="json"))
    if run.plan_ref is not None:
        kept = await load_plan(run, run.plan_ref, tenant, deps)
        if run.plan_version:
            return await _planned_again(run, kept, tenant, deps)
        return await _resume(await _begin(run, deps), tenant, kept, run.plan_ref, deps)
    run = await _begin(run, deps)
    if run.status.is_final or run.status is RunStatus.CANCELLING:
        return CANCELLED
    if (suspended := held(run)) is not None:
        return dict(suspended.model_dump(mode="json"))
    request = await load_request(run, deps)
    case = PlanningCase(run.run_id, run.principal, tenant, request, run.deadline_at, run.traceparent)
    await open_account(case, deps)
    prepared = await prepare_plan(case, deps)
    if isinstance(prepared, NoPlan):
        return await _refuse(run, _no_plan(prepared), deps)
    proposal, plan, decision = prepared.proposal, prepared.result.plan, prepared.decision
    span.set(DEGRADED, proposal.degraded_reason is not None)
    if plan is None or decision is None:
        findings = [(v.code, v.pointer, v.message) for v in prepared.result.violations]
        return await _refuse(run, _rejected(proposal, findings), deps)
    span.set(PLAN_HASH, plan.plan_hash)
    await _audit_plan(run, prepared, plan, decision, deps)
    ref = await deps.payloads.put(run.tenant_id, run.run_id, plan.canonical_bytes())
    stored = _Stored(plan, ref, origin_of(prepared), provenance_of(proposal), proposal.degraded_reason)
    return await _by_decision(run, case, stored, decision, deps, on_record=True)


def _refused_before(run: Run) -> dict[str, Any] | None:
    """The refusal that an earlier delivery has recorded: it stands, and nobody is asked again."""
    if run.error is None:
        return None
    if run.plan_ref is not None:
        return {"status": "denied", "code": run.error.code}
    if run.status.is_final or run.status is RunStatus.CANCELLING:
        return CANCELLED
    return {"status": "rejected" if run.error.code == _REJECTED else "failed", "code": run.error.code}


async def _resume(run: Run, tenant: TenantConfig, plan: CheckedPlan, ref: PayloadRef, deps: Deps) -> dict[str, Any]:
    """Go on with a plan that was held for an approval, or that is another run's."""
    if run.status.is_final or run.status is RunStatus.CANCELLING:
        return CANCELLED
    if run.provenance is None or plan.plan_hash != run.plan_hash:
        raise LivoaError("plan.tampered", "the stored plan is not the one that was vetted", status=409)
    if (suspended := held(run)) is not None:
        return dict(suspended.model_dump(mode="json"))
    request = await load_request(run, deps)
    case = PlanningCase(run.run_id, run.principal, tenant, request, run.deadline_at, run.traceparent)
    await open_account(case, deps)
    stored = _Stored(plan, ref, told_of(run.provenance), run.provenance, run.degraded_reason)
    decision = await decide_plan(case, run.provenance, plan, deps)
    return await _by_decision(run, case, stored, decision, deps, on_record=False)


async def _by_decision(
    run: Run, case: PlanningCase, stored: _Stored, decision: PlanPolicyDecision, deps: Deps, *, on_record: bool
) -> dict[str, Any]:
    """Accept what policy allows, by itself or with a person's word; refuse everything else."""
    held_run = run

    async def decide(cures: Cures) -> PlanPolicyDecision:
        return await decide_plan(case, stored.provenance, stored.plan, deps, cures)

    async def ask(decision: PlanPolicyDecision) -> Approval | ErrorInfo | dict[str, Any]:
        nonlocal held_run
        held_run = await _hold(held_run, stored, decision, deps)
        return await ask_about_plan(held_run, case.tenant, stored.ref, stored.plan.plan_hash, decision, deps)

    end = await verdict_of(decision, decide, ask)
    if isinstance(end, Allowed | Denied) and not (on_record and end.at_once):
        await _audit_last_word(held_run, stored, end.decision, end.approval, deps)
    match end:
        case Allowed():
            plan = await _accept(held_run, case.tenant, stored, end.decision, deps)
            return await _planned_again(held_run, plan, case.tenant, deps)
        case NotApproved(error):
            return await _refuse_plan(held_run, stored, _not_approved(stored.plan, error), deps)
        case Denied():
            return await _refuse_plan(held_run, stored, _denied(stored.plan, end.decision), deps)
        case waits:
            return waits


async def _refuse_plan(run: Run, stored: _Stored, refusal: _Refusal, deps: Deps) -> dict[str, Any]:
    return await _refuse(run, refusal, deps, plan_ref=stored.ref, plan_hash=stored.plan.plan_hash)


async def _hold(run: Run, stored: _Stored, decision: PlanPolicyDecision, deps: Deps) -> Run:
    """Keep the plan with its run while a person is asked; it is not in force, so its version stays 0."""
    change = RunChange(
        plan_ref=stored.ref,
        plan_hash=stored.plan.plan_hash,
        provenance=vetted(stored.provenance, stored.plan, decision, deps),
        degraded_reason=stored.degraded_reason,
    )
    events = _proposed(stored, new_event(EventType.PLAN_PROPOSED, _facts(stored)))
    try:
        return await deps.runs.change(run.tenant_id, run.run_id, change, events, only_from=_UNDECIDED)
    except ConflictError as err:
        raise LivoaError("run.cancelled", "the run was cancelled while it was planned", status=503) from err


async def _begin(run: Run, deps: Deps) -> Run:
    try:
        return await deps.runs.change(
            run.tenant_id,
            run.run_id,
            RunChange(status=RunStatus.PLANNING),
            only_from=frozenset({RunStatus.ACCEPTED, RunStatus.PLANNING}),
        )
    except ConflictError:
        current = await deps.runs.get(run.tenant_id, run.run_id)
        if current is None:
            raise
        return current


async def _planned_again(run: Run, plan: CheckedPlan, tenant: TenantConfig, deps: Deps) -> dict[str, Any]:
    """The skeleton of a plan in force, once the work that is taken over from another run stands in this one's records."""
    if run.parent_run_id is not None:
        await reuse_finished(run, plan, deps)
    return planned(plan, tenant)


async def _audit_plan(
    run: Run, prepared: PreparedPlan, plan: CheckedPlan, decision: PlanPolicyDecision, deps: Deps
) -> None:
    body: JsonObject = {
        "plan_hash": plan.plan_hash,
        "steps": len(plan.steps),
        **origin_of(prepared),
        "catalog": deps.catalog.version,
        "verdict": decision.verdict.value,
        "policies": list(decision.policy_ids),
        "policy_set": decision.policy_set_hash,
        "estimated_cost_micro_usd": plan.estimated_cost_micro_usd,
    }
    await deps.audit.append(
        AuditEntry(
            tenant_id=run.tenant_id,
            entry_id=f"{run.run_id}/plan/{plan.plan_hash[:16]}",
            type=_audit_type(decision),
            at=deps.clock.now(),
            run_id=run.run_id,
            actor=run.principal.subject,
            body=body,
        )
    )


async def _audit_last_word(
    run: Run, stored: _Stored, decision: PlanPolicyDecision, approval: Approval | None, deps: Deps
) -> None:
    """What policy says of a plan after a person was asked: the escalation on record is not how it ended."""
    body: JsonObject = {
        "plan_hash": stored.plan.plan_hash,
        "verdict": decision.verdict.value,
        "code": decision.code,
        "policies": list(decision.policy_ids),
        "policy_set": decision.policy_set_hash,
    }
    if approval is not None:
        body["approval_id"] = approval.approval_id
    kind = AuditType.PLAN_VALIDATED if decision.allows else AuditType.PLAN_REJECTED
    await deps.audit.append(
        AuditEntry(
            tenant_id=run.tenant_id,
            entry_id=f"{run.run_id}/plan/{stored.plan.plan_hash[:16]}/{kind.value}",
            type=kind,
            at=deps.clock.now(),
            run_id=run.run_id,
            actor=run.principal.subject,
            body=body,
        )
    )


def _audit_type(decision: PlanPolicyDecision) -> AuditType:
    if decision.allows:
        return AuditType.PLAN_VALIDATED
    return AuditType.PLAN_PROPOSED if needs_a_person(decision) else AuditType.PLAN_REJECTED


def _facts(stored: _Stored) -> PlanEventData:
    plan = stored.plan
    told = {"plan_hash": plan.plan_hash, "plan_version": 1, "steps": len(plan.steps), **stored.origin}
    return PlanEventData.model_validate(told)


def _proposed(stored: _Stored, *events: NewEvent) -> list[NewEvent]:
    """Events about a plan, after the one that it was made without a model."""
    if stored.degraded_reason is None:
        return list(events)
    data = DegradedEventData(part="planner", reason=stored.degraded_reason)
    return [new_event(EventType.DEGRADED_ENTERED, data, "degraded/planner"), *events]


async def _accept(
    run: Run, tenant: TenantConfig, stored: _Stored, decision: PlanPolicyDecision, deps: Deps
) -> CheckedPlan:
    """Put the plan in force. Returns the plan that is: of two deliveries at once the first one's stands for both."""
    plan, facts = stored.plan, _facts(stored)
    events = _proposed(stored, new_event(EventType.PLAN_PROPOSED, facts), new_event(EventType.PLAN_VETTED, facts))
    change = RunChange(
        status=RunStatus.RUNNING,
        plan_ref=stored.ref,
        plan_hash=plan.plan_hash,
        plan_version=1,
        provenance=vetted(stored.provenance, plan, decision, deps),
        degraded_reason=stored.degraded_reason,
    )
    try:
        await deps.runs.change(run.tenant_id, run.run_id, change, events, only_from=_UNDECIDED)
    except ConflictError as err:
        current = await deps.runs.get(run.tenant_id, run.run_id)
        if current is not None and current.plan_ref is not None and current.plan_version:
            return await load_plan(current, current.plan_ref, tenant, deps)
        raise LivoaError("run.cancelled", "the run was cancelled while it was planned", status=503) from err
    _LOG.info("plan accepted", extra={"run_id": run.run_id, "status": RunStatus.RUNNING.value})
    return plan


def _no_plan(outcome: NoPlan) -> _Refusal:
    words = outcome.message
    if outcome.suggestions:
        words += ". You could ask for — " + "; ".join(outcome.suggestions)
    codes = tuple(dict.fromkeys((outcome.code, *(v.code for v in outcome.violations))))
    router = outcome.route.router if outcome.route is not None else None
    facts = PlanEventData(codes=codes, message=words, router=router, fallbacks=fallbacks_of(outcome.route))
    events = [new_event(EventType.PLAN_REJECTED, facts)]
    if outcome.degraded_reason is not None:
        data = DegradedEventData(part="planner", reason=outcome.degraded_reason)
        events.insert(0, new_event(EventType.DEGRADED_ENTERED, data, "degraded/planner"))
    return _Refusal("failed", ErrorInfo(code=outcome.code, message=words), tuple(events), outcome.degraded_reason)


def _rejected(proposal: Proposed, findings: list[tuple[str, str, str]]) -> _Refusal:
    words = "; ".join(f"{pointer or '/'}: {message}" for _, pointer, message in findings[:_MAX_MESSAGES])
    codes = tuple(dict.fromkeys(code for code, _, _ in findings))
    data = PlanEventData.model_validate({"codes": codes, "message": words, "source": proposal.source})
    events = (new_event(EventType.PLAN_REJECTED, data),)
    return _Refusal("rejected", ErrorInfo(code=_REJECTED, message=words), events, proposal.degraded_reason)


def _not_approved(plan: CheckedPlan, error: ErrorInfo) -> _Refusal:
    data = PlanEventData(plan_hash=plan.plan_hash, steps=len(plan.steps), codes=(error.code,), message=error.message)
    return _Refusal("denied", error, (new_event(EventType.PLAN_REJECTED, data),))


def _denied(plan: CheckedPlan, decision: PlanPolicyDecision) -> _Refusal:
    error = words_of(decision)
    data = PlanEventData(plan_hash=plan.plan_hash, steps=len(plan.steps), codes=(decision.code,), message=error.message)
    return _Refusal("denied", error, (new_event(EventType.PLAN_REJECTED, data),))


async def _refuse(
    run: Run,
    refusal: _Refusal,
    deps: Deps,
    *,
    plan_ref: PayloadRef | None = None,
    plan_hash: str | None = None,
) -> dict[str, Any]:
    if plan_ref is None:
        # First, because the run's record keeps a second delivery from coming this far.
        await deps.audit.append(
            AuditEntry(
                tenant_id=run.tenant_id,
                entry_id=f"{run.run_id}/{AuditType.PLAN_REJECTED.value}",
                type=AuditType.PLAN_REJECTED,
                at=deps.clock.now(),
                run_id=run.run_id,
                actor=run.principal.subject,
                body={"code": refusal.error.code},
            )
        )
    change = RunChange(
        error=refusal.error, degraded_reason=refusal.degraded_reason, plan_ref=plan_ref, plan_hash=plan_hash
    )
    try:
        await deps.runs.change(run.tenant_id, run.run_id, change, refusal.events, only_from=_UNDECIDED)
    except ConflictError as err:
        # Cancelled, or another delivery's plan is in force: the next one finds which.
        raise LivoaError("run.conflict", "the run was decided while it was planned", status=503) from err
    _LOG.info("plan refused", extra={"run_id": run.run_id, "code": refusal.error.code})
    return {"status": refusal.status, "code": refusal.error.code}
