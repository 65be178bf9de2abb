"""Asking a person: one approval for one question about one step, and what its answer means for the step.

The store is the truth and asking twice is asking once, so this is simply done again whenever the step is looked at. No answer is
used before its audit record stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from engine.domain.approval import Approval, ApprovalBinding, ApprovalKind, ApprovalStatus
from engine.domain.base import JsonObject, iso_utc
from engine.domain.errors import ConflictError
from engine.domain.outcomes import AwaitingApproval, Cancelled, StepOutcome
from engine.domain.policy import PolicyDecision
from engine.evidence.approvals import approval_entry
from engine.evidence.canonical import canonical_bytes, canonical_sha256
from engine.plan import Plan, Step
from engine.ports.deps import Deps
from engine.step_runner.asked import known_question, record_voided
from engine.step_runner.records import Journal
from engine.step_runner.task import StepTask
from engine.step_runner.view import StepView

_MAX_FINDINGS = 20


@dataclass(frozen=True, slots=True)
class NotApproved:
    """The answer was no, or there will be none."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Unanswered:
    """There is no answer to use: the step waits for one, or somebody has ended it meanwhile."""

    outcome: StepOutcome


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. ``shown`` is what the approver reads; its hash binds the answer."""

    kind: ApprovalKind
    shown: JsonObject
    timeout_s: float
    arguments_sha256: str
    capability: str | None = None
    decision: PolicyDecision | None = None
    redacted: tuple[str, ...] = ()


async def ask(
    question: Question, task: StepTask, view: StepView, journal: Journal, deps: Deps
) -> Approval | NotApproved | Unanswered:
    """The granted approval of exactly this question, or why there is none (yet)."""
    binding = _binding(question, task, view)
    approval_id, known = await known_question(task.tenant_id, task.run_id, binding, deps)
    if known is None and (known := await _survivor(binding, task, view, deps)) is not None:
        approval_id, binding = known.approval_id, known.binding
    is_new = known is None
    if known is None:
        known = await _new(question, binding, approval_id, task, view, deps)
        await deps.audit.append(approval_entry(known))
    if known.is_pending:
        # Before the run is judged to wait for people alone: its record must not look as if this step were under way.
        if not await journal.awaiting(approval_id):
            return Unanswered(await journal.known())
        try:
            known = await deps.approvals.request(known)
        except ConflictError:
            return Unanswered(Cancelled())
        if is_new:  # what it takes the place of is void now
            await record_voided(task.tenant_id, task.run_id, deps)
    if known.binding != binding or known.run_id != task.run_id:
        return NotApproved("approval.mismatch", "the approval on record is not the one that was asked for")
    if known.is_pending:
        left_s = (known.expires_at - deps.clock.now()).total_seconds()
        expires_at = iso_utc(known.expires_at)
        return Unanswered(AwaitingApproval(approval_id=approval_id, expires_at=expires_at, left_s=left_s))
    await deps.audit.append(approval_entry(known))
    return known if known.status is ApprovalStatus.GRANTED else _not_approved(known)


def _not_approved(approval: Approval) -> NotApproved:
    match approval.status:
        case ApprovalStatus.REFUSED:
            return NotApproved("approval.refused", "a person refused it")
        case ApprovalStatus.EXPIRED:
            return NotApproved("approval.expired", "nobody answered in time")
        case _:
            return NotApproved("approval.void", "something else was asked meanwhile")


def _binding(question: Question, task: StepTask, view: StepView) -> ApprovalBinding:
    return ApprovalBinding(
        kind=question.kind,
        step_id=task.step_id,
        item=task.item,
        plan_hash=view.plan_hash,
        arguments_sha256=question.arguments_sha256,
        policy_set_hash=question.decision.policy_set_hash if question.decision is not None else "",
    )


async def _survivor(binding: ApprovalBinding, task: StepTask, view: StepView, deps: Deps) -> Approval | None:
    """The question as it was asked, or answered with a yes, under an earlier version of the plan.

    It is the same question when nothing of it has changed but the plan around the step: capability, bound inputs, condition,
    transitive needs and policy set are those of then.
    """
    earlier = {version.plan_hash for version in view.run.earlier_plans}
    if not earlier:
        return None
    same = binding.model_dump(exclude={"plan_hash"})
    this_step = step_hash(view.plan, view.step, binding.arguments_sha256)
    for known in reversed(await deps.approvals.of_run(task.tenant_id, task.run_id)):
        alive = known.status in (ApprovalStatus.PENDING, ApprovalStatus.GRANTED)
        asked_then = known.binding.plan_hash in earlier and known.binding.model_dump(exclude={"plan_hash"}) == same
        if alive and asked_then and known.step_hash == this_step:
            return known
    return None


async def _new(
    question: Question, binding: ApprovalBinding, approval_id: str, task: StepTask, view: StepView, deps: Deps
) -> Approval:
    now = deps.clock.now()
    shown = await deps.payloads.put(task.tenant_id, task.run_id, canonical_bytes(question.shown))
    decision, provenance = question.decision, view.run.provenance
    return Approval(
        tenant_id=task.tenant_id,
        run_id=task.run_id,
        approval_id=approval_id,
        binding=binding,
        plan_version=view.run.plan_version,
        vetting_id=provenance.vetting_id if provenance is not None else "",
        step_hash=step_hash(view.plan, view.step, question.arguments_sha256),
        capability=question.capability,
        arguments_ref=shown,
        reasons=decision.reasons[:_MAX_FINDINGS] if decision is not None else (),
        findings=decision.findings[:_MAX_FINDINGS] if decision is not None else (),
        redacted=question.redacted,
        requested_by=view.run.principal.subject,
        requested_at=now,
        expires_at=min(now + timedelta(seconds=question.timeout_s), view.run.deadline_at),
        waiter=task.waiter or task.run_id,
    )


def step_hash(plan: Plan, step: Step, arguments_sha256: str) -> str:
    """What makes a step the same one in another version of its plan: capability, bound inputs, condition, transitive needs."""
    needs: set[str] = set()
    waiting = list(step.needs)
    while waiting:
        need = waiting.pop()
        if need not in needs:
            needs.add(need)
            found = plan.step(need)
            waiting += found.needs if found is not None else ()
    facts = {
        "capability": step.capability,
        "inputs_sha256": arguments_sha256,
        "when": step.when.model_dump(mode="json", exclude_unset=True) if step.when is not None else None,
        "needs": sorted(needs),
    }
    return canonical_sha256(facts)
