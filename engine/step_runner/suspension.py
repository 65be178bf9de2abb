"""Suspending a run from inside: a step that the budget does not cover stops the run, not itself.

Somebody entitled to it raises the budget and resumes the run, or its deadline ends it. Suspending from outside is a route.
"""

from __future__ import annotations

from engine.domain.audit import AuditEntry, AuditType
from engine.domain.errors import ConflictError
from engine.domain.events import EventType, RunEventData, new_event
from engine.domain.outcomes import Cancelled, Failed, StepOutcome, Suspended
from engine.domain.run import Run
from engine.domain.status import RunStatus
from engine.ports.deps import Deps
from engine.ports.run_store import RunChange
from engine.step_runner.task import StepTask

OUT_OF_BUDGET = "budget.exhausted"
SUSPENDABLE = frozenset({RunStatus.ACCEPTED, RunStatus.PLANNING, RunStatus.AWAITING_APPROVAL, RunStatus.RUNNING})
"""Where a run can be suspended from: what ends is not held up."""


def held(run: Run) -> Suspended | None:
    """What a call of a suspended run answers, before it does anything."""
    return Suspended(number=max(1, run.suspensions)) if run.status is RunStatus.SUSPENDED else None


async def suspend_for_budget(task: StepTask, deps: Deps) -> StepOutcome:
    """Suspend the run because its budget does not cover ``task``, whose attempt is not used up.

    Several steps may find that out at once; the first one suspends. Evidence first, as with every decision.
    """
    run = await deps.runs.get(task.tenant_id, task.run_id)
    if run is None:
        return Failed(code="run.not_found")
    if (outcome := held(run)) is not None:
        return outcome
    if run.status not in SUSPENDABLE:
        return Cancelled()
    await deps.audit.append(
        AuditEntry(
            tenant_id=run.tenant_id,
            entry_id=f"{task.attempt_key}/{AuditType.BUDGET_EXHAUSTED.value}/{run.version}",
            type=AuditType.BUDGET_EXHAUSTED,
            at=deps.clock.now(),
            run_id=run.run_id,
            actor=run.principal.subject,
            body={"step": task.step_id, "attempt": task.attempt},
        )
    )
    event = new_event(
        EventType.RUN_SUSPENDED,
        RunEventData(code=OUT_OF_BUDGET, message=f"the budget does not cover {task.step_id}"),
        f"{EventType.RUN_SUSPENDED.value}/{run.version}",
    )
    change = RunChange(status=RunStatus.SUSPENDED, suspended_reason="budget")
    try:
        run = await deps.runs.change(run.tenant_id, run.run_id, change, [event], only_from=SUSPENDABLE)
    except ConflictError:
        run = await deps.runs.get(run.tenant_id, run.run_id) or run
    return held(run) or Cancelled()
