"""Repair a plan that runs: have the rest planned anew, check and vet the whole, put it in force as the next version.

Repeatable: a repair that was decided is answered again, accepted or refused. A version that policy wants approved is stored first
and asked about; delivered again after the answer, that version goes on. Without a repair nothing changes: the step has failed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from activities.payloads import load_request
from activities.plan_approval import CANCELLED, ask_about_plan
from activities.plan_facts import load_plan, origin_of, planned, told_of, vetted
from activities.plan_verdict import Allowed, Denied, NotApproved, verdict_of, words_of
from activities.repair_case import RepairTask, not_repairable, suffix_of
from engine.domain.approval import Approval
from engine.domain.audit import AuditEntry, AuditType
from engine.domain.base import JsonObject
from engine.domain.errors import ConflictError, LivoaError
from engine.domain.events import EventType, PlanEventData, new_event
from engine.domain.policy import Cures, PlanPolicyDecision
from engine.domain.run import ErrorInfo, PlanVersion, Run
from engine.domain.status import FINAL_RUN_STATUSES, RunStatus
from engine.domain.telemetry_names import OPERATION, PLAN_HASH, RUN_ID, SPAN_PLAN
from engine.domain.tenant import TenantConfig
from engine.evidence.canonical import canonical_bytes
from engine.plan import CheckedPlan, diff_of
from engine.ports.deps import Deps
from engine.ports.planner import NoPlan
from engine.ports.run_store import RunChange
from engine.ports.telemetry import Span
from engine.step_runner import held
from planner_graph.planning import PlanningCase, decide_plan, open_account, prepare_plan, provenance_in

_LOG = logging.getLogger("livoa.plans")
_GOING_ON = frozenset({RunStatus.RUNNING, RunStatus.AWAITING_APPROVAL})
"""Only in these a new version is put in force."""
_NOT_OVER = frozenset(RunStatus) - FINAL_RUN_STATUSES
"""Refusing one changes nothing that runs, so that may be written down in all of these."""
_MAX_MESSAGES = 5


@dataclass(frozen=True, slots=True)
class _Job:
    """One repair: of which run and plan, by which task, and the case that planning and policy see."""

    run: Run
    task: RepairTask
    tenant: TenantConfig
    plan: CheckedPlan
    case: PlanningCase


@dataclass(frozen=True, slots=True)
class _Draft:
    """A checked version that is not in force, and who made it, as events tell it."""

    version: PlanVersion
    plan: CheckedPlan
    origin: JsonObject


async def repair_plan(payload: dict[str, Any], deps: Deps) -> dict[str, Any]:
    """Input ``{tenant_id, run_id, number, step_id, code}``; result as of ``plan_run``, with the skeleton of the whole version."""
    try:
        task = RepairTask.model_validate({name: payload.get(name) for name in RepairTask.model_fields})
    except ValidationError:
        return {"status": "failed", "code": "plan.malformed_task"}
    run = await deps.runs.get(task.tenant_id, task.run_id)
    if run is None:
        return {"status": "failed", "code": "run.not_found"}
    attributes = {RUN_ID: run.run_id, OPERATION: SPAN_PLAN}
    with deps.telemetry.span(SPAN_PLAN, traceparent=run.traceparent, attributes=attributes) as span:
        try:
            return await _repair(run, task, deps, span)
        except LivoaError as err:
            span.fail(err.code)
            return {"status": "failed", "code": err.code, "retryable": err.status >= 500}


async def _repair(run: Run, task: RepairTask, deps: Deps, span: Span) -> dict[str, Any]:
    tenant = await deps.tenants.get(run.tenant_id)
    if tenant is None:
        return {"status": "denied", "code": "policy.tenant_unknown"}
    if task.number <= run.repairs_decided:
        return await _decided(run, task, tenant, deps)
    if run.status.is_final or run.status is RunStatus.CANCELLING:
        return CANCELLED
    if (suspended := held(run)) is not None:
        return dict(suspended.model_dump(mode="json"))
    try:
        job = await _begin(run, task, tenant, deps)
        if isinstance(job, ErrorInfo):
            return await _refuse(run, task, "failed", job, deps)
        draft = await _draft(job, deps)
        if isinstance(draft, dict):
            return draft
        span.set(PLAN_HASH, draft.plan.plan_hash)
        return await _by_decision(job, draft, deps)
    except LivoaError as err:
        if err.status >= 500:
            raise
        # It will not be better the next time, and a delivery that finds it better must not contradict this one.
        return await _refuse(run, task, "failed", ErrorInfo(code=err.code, message=str(err)), deps)


async def _decided(run: Run, task: RepairTask, tenant: TenantConfig, deps: Deps) -> dict[str, Any]:
    for version in (*run.earlier_plans, *((run.plan_in_force,) if run.plan_in_force is not None else ())):
        if version.repair == task.number:
            return planned(await load_plan(run, version.plan_ref, tenant, deps), tenant)
    return {"status": "failed", "code": "plan.repair_refused"}


async def _begin(run: Run, task: RepairTask, tenant: TenantConfig, deps: Deps) -> _Job | ErrorInfo:
    current = run.plan_in_force
    if current is None:
        raise LivoaError("run.no_plan", "the run has no plan in force", status=409)
    plan = await load_plan(run, current.plan_ref, tenant, deps)
    if plan.plan_hash != current.plan_hash:
        raise LivoaError("plan.tampered", "the stored plan is not the one that was vetted", status=409)
    records = {record.step_id: record for record in await deps.runs.steps(run.tenant_id, run.run_id)}
    if (error := not_repairable(task, plan, tenant, records)) is not None:
        return error
    case = PlanningCase(
        run.run_id,
        run.principal,
        tenant,
        await load_request(run, deps),
        run.deadline_at,
        run.traceparent,
        plan_version=current.plan_version + 1,
        repair=await suffix_of(run, task, plan, records, deps),
        written_by=current.provenance,
    )
    await open_account(case, deps)
    return _Job(run, task, tenant, plan, case)


async def _draft(job: _Job, deps: Deps) -> _Draft | dict[str, Any]:
    """The version that was proposed already, or a new one; or the refusal when there is none."""
    run, known = job.run, job.run.proposed_plan
    if known is not None and known.repair == job.task.number:
        kept = await load_plan(run, known.plan_ref, job.tenant, deps)
        if kept.plan_hash != known.plan_hash:
            raise LivoaError("plan.tampered", "the stored plan is not the one that was asked about", status=409)
        return _Draft(known, kept, told_of(known.provenance))
    prepared = await prepare_plan(job.case, deps)
    if isinstance(prepared, NoPlan):
        error = ErrorInfo(code=prepared.code, message=prepared.message)
        codes = tuple(found.code for found in prepared.violations)
        return await _refuse(run, job.task, "failed", error, deps, codes)
    plan = prepared.result.plan
    if plan is None:
        found = prepared.result.violations
        words = "; ".join(f"{one.pointer or '/'}: {one.message}" for one in found[:_MAX_MESSAGES])
        error = ErrorInfo(code="plan.rejected", message=words)
        return await _refuse(run, job.task, "rejected", error, deps, tuple(one.code for one in found))
    version = PlanVersion(
        plan_version=job.case.plan_version,
        plan_ref=await deps.payloads.put(run.tenant_id, run.run_id, plan.canonical_bytes()),
        plan_hash=plan.plan_hash,
        provenance=provenance_in(job.case, prepared.proposal),
        repair=job.task.number,
    )
    # Before anything is said about it: whoever comes after a crash goes on with this version instead of another one.
    await _change(run, RunChange(proposed_plan=version), [], deps)
    return _Draft(version, plan, origin_of(prepared))


async def _by_decision(job: _Job, draft: _Draft, deps: Deps) -> dict[str, Any]:
    """Put in force what policy allows, by itself or with a person's word; refuse everything else."""

    async def decide(cures: Cures) -> PlanPolicyDecision:
        return await decide_plan(job.case, draft.version.provenance, draft.plan, deps, cures)

    async def ask(decision: PlanPolicyDecision) -> Approval | ErrorInfo | dict[str, Any]:
        return await _ask(job, draft, decision, deps)

    match await verdict_of(await decide(Cures()), decide, ask):
        case Allowed() as end:
            return await _accept(job, draft, end.decision, end.approval, deps)
        case NotApproved(error):
            return await _refuse(job.run, job.task, "denied", error, deps)
        case Denied() as end:
            entry = await _entry(job, draft, end.decision, end.approval, AuditType.PLAN_REJECTED, deps)
            await deps.audit.append(entry)
            return await _refuse(job.run, job.task, "denied", words_of(end.decision), deps)
        case waits:
            return waits


async def _ask(
    job: _Job, draft: _Draft, decision: PlanPolicyDecision, deps: Deps
) -> Approval | ErrorInfo | dict[str, Any]:
    """Keep the version with the run, and ask about it."""
    run, version = job.run, draft.version
    if not version.provenance.vetting_id:
        await deps.audit.append(await _entry(job, draft, decision, None, AuditType.PLAN_PROPOSED, deps))
        made = vetted(version.provenance, draft.plan, decision, deps)
        change = RunChange(proposed_plan=version.model_copy(update={"provenance": made}))
        run = await _change(run, change, [], deps)
    return await ask_about_plan(run, job.tenant, version.plan_ref, version.plan_hash, decision, deps)


async def _accept(
    job: _Job, draft: _Draft, decision: PlanPolicyDecision, approval: Approval | None, deps: Deps
) -> dict[str, Any]:
    """Evidence first, then the version is in force; of two deliveries at once the first one's stands for both."""
    await deps.audit.append(await _entry(job, draft, decision, approval, AuditType.PLAN_REPAIRED, deps))
    version, plan = draft.version, draft.plan
    diff = diff_of(job.plan.document, plan.document)
    replaced = f"{len(diff.removed)} steps replaced by {len(diff.added)}"
    told: JsonObject = {
        "plan_hash": plan.plan_hash,
        "plan_version": version.plan_version,
        "steps": len(plan.steps),
        "message": f"{job.task.step_id} failed: {replaced}",
        **draft.origin,
    }
    event = new_event(
        EventType.PLAN_REPAIRED, PlanEventData.model_validate(told), f"plan.repaired/{version.plan_version}"
    )
    made = vetted(version.provenance, plan, decision, deps)
    change = RunChange(next_plan=version.model_copy(update={"provenance": made}), repairs_decided=job.task.number)
    await _change(job.run, change, [event], deps)
    _LOG.info("plan repaired", extra={"run_id": job.run.run_id, "status": job.run.status.value})
    return planned(plan, job.tenant)


async def _refuse(
    run: Run, task: RepairTask, status: str, error: ErrorInfo, deps: Deps, codes: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Write down that there is no repair. The plan in force stays, and so does the failure."""
    await deps.audit.append(
        AuditEntry(
            tenant_id=run.tenant_id,
            entry_id=f"{run.run_id}/repair/{task.number}/{AuditType.PLAN_REJECTED.value}",
            type=AuditType.PLAN_REJECTED,
            at=deps.clock.now(),
            run_id=run.run_id,
            actor=run.principal.subject,
            body={"code": error.code, "repair": task.number, "failed_step": task.step_id},
        )
    )
    words = f"{task.step_id} failed and the plan was not repaired: {error.message}"
    data = PlanEventData(codes=tuple(dict.fromkeys((error.code, *codes))), message=words)
    event = new_event(EventType.PLAN_REJECTED, data, f"plan.rejected/repair/{task.number}")
    change = RunChange(repairs_decided=task.number)
    try:
        await deps.runs.change(run.tenant_id, run.run_id, change, [event], only_from=_NOT_OVER)
    except ConflictError as err:
        # Another delivery has decided it, or the run is over, after whose last event there is none: the next one finds which.
        raise LivoaError("run.conflict", "the repair was decided meanwhile", status=503) from err
    _LOG.info("plan not repaired", extra={"run_id": run.run_id, "code": error.code})
    return {"status": status, "code": error.code}


async def _change(run: Run, change: RunChange, events: list[Any], deps: Deps) -> Run:
    try:
        return await deps.runs.change(run.tenant_id, run.run_id, change, events, only_from=_GOING_ON)
    except ConflictError as err:
        # Cancelled or suspended, or another delivery was first: the next one finds which.
        raise LivoaError("run.conflict", "the run changed while its plan was repaired", status=503) from err


async def _entry(
    job: _Job,
    draft: _Draft,
    decision: PlanPolicyDecision,
    approval: Approval | None,
    kind: AuditType,
    deps: Deps,
) -> AuditEntry:
    """The evidence about a version: which plan it is and which it replaces, what differs, who made it and what policy says."""
    run, plan = job.run, draft.plan
    diff = diff_of(job.plan.document, plan.document)
    kept = await deps.payloads.put(run.tenant_id, run.run_id, canonical_bytes(diff.to_json()))
    body: JsonObject = {
        "plan_hash": plan.plan_hash,
        "plan_version": draft.version.plan_version,
        "replaced_plan_hash": job.plan.plan_hash,
        "repair": job.task.number,
        "failed_step": job.task.step_id,
        "failed_code": job.task.code,
        "steps": len(plan.steps),
        "steps_kept": len(diff.kept),
        "steps_removed": len(diff.removed),
        "steps_added": len(diff.added),
        "diff_sha256": kept.sha256,
        "diff_bytes": kept.size_bytes,
        "seen_integrity": draft.version.provenance.seen_integrity,
        **draft.origin,
        "catalog": deps.catalog.version,
        "verdict": decision.verdict.value,
        "code": decision.code,
        "policies": list(decision.policy_ids),
        "policy_set": decision.policy_set_hash,
        "estimated_cost_micro_usd": plan.estimated_cost_micro_usd,
    }
    if approval is not None:
        body["approval_id"] = approval.approval_id
    return AuditEntry(
        tenant_id=run.tenant_id,
        entry_id=f"{run.run_id}/repair/{job.task.number}/{plan.plan_hash[:16]}/{kind.value}",
        type=kind,
        at=deps.clock.now(),
        run_id=run.run_id,
        actor=run.principal.subject,
        body=body,
    )
