"""Finish a run: record the steps that never ran, then the final status, its event and its audit record. Repeatable."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from engine.domain.audit import AuditEntry, AuditType
from engine.domain.errors import ConflictError
from engine.domain.events import EventType, RunEventData, StepEventData, new_event
from engine.domain.ids import undo_id
from engine.domain.run import ErrorInfo, Run, StepRecord
from engine.domain.status import RunStatus, StepStatus
from engine.domain.telemetry_names import METRIC_RUNS_FINISHED
from engine.ports.deps import Deps
from engine.ports.run_store import RunChange
from engine.step_runner.asked import record_voided
from engine.step_runner.end_words import STEP_MESSAGES, run_error, step_words
from engine.step_runner.leftovers import close_items, items_of, release_budget, with_untold
from engine.step_runner.unknown import record_unknown_results

_LOG = logging.getLogger("livoa.runs")

_EVENT = {
    RunStatus.SUCCEEDED: EventType.RUN_SUCCEEDED,
    RunStatus.PARTIAL: EventType.RUN_PARTIAL,
    RunStatus.DENIED: EventType.RUN_DENIED,
    RunStatus.FAILED: EventType.RUN_FAILED,
    RunStatus.CANCELLED: EventType.RUN_CANCELLED,
    RunStatus.TERMINATED: EventType.RUN_TERMINATED,
}

_STEP_EVENT = {
    StepStatus.SKIPPED: EventType.STEP_SKIPPED,
    StepStatus.CANCELLED: EventType.STEP_CANCELLED,
    StepStatus.FAILED: EventType.STEP_FAILED,
    StepStatus.DENIED: EventType.STEP_DENIED,
}


async def finish_run(payload: dict[str, Any], deps: Deps) -> dict[str, Any]:
    """Input ``{tenant_id, run_id, status, code?, steps: {status: [step id]}, codes: {step id: code}, not_undone?: {step id:
    code}}``; result ``{}``."""
    run = await deps.runs.get(payload["tenant_id"], payload["run_id"])
    if run is None or run.status.is_final:
        return {}
    status = RunStatus(payload["status"])
    # From here on no worker's answer counts, and its next heartbeat tells it so.
    await deps.assignments.void_run(run.tenant_id, run.run_id, deps.clock.now())
    await deps.approvals.close(run.tenant_id, run.run_id)
    await record_voided(run.tenant_id, run.run_id, deps)
    not_undone: dict[str, str] = payload.get("not_undone") or {}
    steps, codes = payload.get("steps") or {}, payload.get("codes") or {}
    settled = await with_untold(run, steps, codes, payload.get("code"), deps)
    stopped = status in (RunStatus.CANCELLED, RunStatus.TERMINATED)
    known = await _close_steps(run, *settled, not_undone, deps, stopped=stopped)
    error = _with_effects(run.error or run_error(payload.get("code"), known), not_undone)
    body = await _facts(run, status, error, not_undone, deps)
    await record_unknown_results(run, deps)
    told = await deps.audit.append(_entry(run, body, deps))
    if told.body.get("status") != status.value:
        # Somebody else recorded another end first, as one who terminates a run that is just finishing: there is one end.
        status, error = RunStatus(told.body["status"]), run_error(told.body.get("code"), known)
    data = RunEventData(
        code=error.code if error else None,
        message=error.message if error else None,
        cost_micro_usd=run.cost_micro_usd,
    )
    await _close(run, status, error, data, deps)
    await _anchor(run, deps)
    deps.telemetry.count(METRIC_RUNS_FINISHED, attributes={"status": status.value})
    _LOG.info(
        "run finished", extra={"run_id": run.run_id, "status": status.value, "code": error.code if error else None}
    )
    return {}


def _entry(run: Run, body: dict[str, Any], deps: Deps) -> AuditEntry:
    return AuditEntry(
        tenant_id=run.tenant_id,
        entry_id=f"{run.run_id}/{AuditType.RUN_FINISHED.value}",
        type=AuditType.RUN_FINISHED,
        at=deps.clock.now(),
        run_id=run.run_id,
        actor=run.principal.subject,
        body=body,
    )


async def _facts(
    run: Run, status: RunStatus, error: ErrorInfo | None, not_undone: dict[str, str], deps: Deps
) -> dict[str, Any]:
    """What the audit record of the end says."""
    spent = await deps.budgets.state(run.tenant_id, run.run_id)
    body: dict[str, Any] = {"status": status.value, "spent_micro_usd": spent.spent_micro_usd if spent else 0}
    if error is not None:
        body["code"] = error.code
    if not_undone:
        body["not_undone"] = dict(sorted(not_undone.items()))
    if run.plan_hash is not None:
        body["plan_hash"] = run.plan_hash
    if run.degraded_reason is not None:
        body["degraded"] = True
    return body


async def _anchor(run: Run, deps: Deps) -> None:
    """Have the run's evidence anchored. The run is over whether or not that can be done now: the timer makes up for it."""
    try:
        await deps.checkpoints.make(run.tenant_id)
    except Exception:
        _LOG.exception("no checkpoint could be made", extra={"run_id": run.run_id, "tenant_id": run.tenant_id})


async def _close_steps(
    run: Run,
    steps: dict[str, list[str]],
    codes: dict[str, str],
    not_undone: dict[str, str],
    deps: Deps,
    *,
    stopped: bool,
) -> Sequence[StepRecord]:
    """Leave nothing open: money first, while the open records still say where it may be. Returns the records as they were."""
    before = await deps.runs.steps(run.tenant_id, run.run_id)
    items = await items_of(run, before, deps)
    begun = {record.step_id for record in before}
    lost = [*steps.get(StepStatus.FAILED.value, ()), *steps.get(StepStatus.CANCELLED.value, ())]
    await release_budget(run, [step_id for step_id in lost if step_id not in begun], [*before, *items], deps)
    await _record_unrun(run, steps, codes, deps, stopped=stopped)
    if not_undone:
        await _record_not_undone(run, not_undone, deps)
        # Items of undoings are listed under their map, which may have got its record only now.
        items = await items_of(run, await deps.runs.steps(run.tenant_id, run.run_id), deps)
    if items:
        await close_items(items, await deps.runs.steps(run.tenant_id, run.run_id), deps)
    return before


async def _close(run: Run, status: RunStatus, error: ErrorInfo | None, data: RunEventData, deps: Deps) -> None:
    change = RunChange(status=status, error=error, finished_at=deps.clock.now())
    try:
        await deps.runs.change(run.tenant_id, run.run_id, change, [new_event(_EVENT[status], data)])
    except ConflictError:
        # Another delivery of this activity finished the run between our read and this write.
        current = await deps.runs.get(run.tenant_id, run.run_id)
        if current is None or not current.status.is_final:
            raise


def _with_effects(error: ErrorInfo | None, not_undone: dict[str, str]) -> ErrorInfo | None:
    """The error, with the steps whose effects still stand."""
    if error is None or not not_undone:
        return error
    named = [f"{step_id} ({code})" for step_id, code in sorted(not_undone.items())]
    more = f" and {len(named) - _MAX_NAMED} more" if len(named) > _MAX_NAMED else ""
    words = f"{error.message}; could not be undone: {', '.join(named[:_MAX_NAMED])}{more}"
    return error.model_copy(update={"message": words})


_MAX_NAMED = 10


async def _record_not_undone(run: Run, not_undone: dict[str, str], deps: Deps) -> None:
    """Give the undoings that nobody goes on with their end. Their own records may still say that they go on, or be missing."""
    for step_id, code in not_undone.items():
        before = await deps.runs.get_step(run.tenant_id, run.run_id, undo_id(step_id))
        if before is not None and before.status.is_final:
            continue
        step = before or await deps.runs.get_step(run.tenant_id, run.run_id, step_id)
        record = StepRecord(
            tenant_id=run.tenant_id,
            run_id=run.run_id,
            step_id=undo_id(step_id),
            status=StepStatus.FAILED,
            attempt=before.attempt if before else 1,
            capability=before.capability if before else None,
            kind=step.kind if step else "call",
            error=ErrorInfo(code=code, message=STEP_MESSAGES.get(code, f"the effect still stands: {code}")),
            started_at=before.started_at if before else None,
            finished_at=deps.clock.now(),
        )
        data = StepEventData(step_id=record.step_id, attempt=record.attempt, capability=record.capability, code=code)
        await deps.runs.put_step(record, [new_event(EventType.STEP_FAILED, data, f"step.settled/{record.step_id}")])


async def _record_unrun(
    run: Run, steps: dict[str, list[str]], codes: dict[str, str], deps: Deps, *, stopped: bool
) -> None:
    """Write the steps that the scheduler settled without running them to an end (skipped, cancelled, out of time)."""
    settled = {record.step_id: record for record in await deps.runs.steps(run.tenant_id, run.run_id)}
    for status, event_type in _STEP_EVENT.items():
        for step_id in steps.get(status.value, ()):
            code = codes.get(step_id, f"step.{status.value}")
            before = settled.get(step_id)
            for _ in range(_MAX_LATE_STARTS):
                if before is not None and before.status.is_final:
                    break
                record = _unrun(run, step_id, before, status, code, deps, stopped=stopped)
                data = StepEventData(step_id=step_id, attempt=record.attempt, capability=record.capability, code=code)
                if await deps.runs.put_step(record, [new_event(event_type, data, f"step.settled/{step_id}")]):
                    break
                # A late delivery has begun another attempt since we looked.
                before = await deps.runs.get_step(run.tenant_id, run.run_id, step_id)


def _unrun(
    run: Run, step_id: str, before: StepRecord | None, status: StepStatus, code: str, deps: Deps, *, stopped: bool
) -> StepRecord:
    return StepRecord(
        tenant_id=run.tenant_id,
        run_id=run.run_id,
        step_id=step_id,
        status=status,
        attempt=before.attempt if before else 1,
        capability=before.capability if before else None,
        kind=before.kind if before else "call",
        item_count=before.item_count if before else None,
        error=ErrorInfo(code=code, message=step_words(code, before, stopped=stopped)),
        degraded=before.degraded if before else None,
        started_at=before.started_at if before else None,
        finished_at=deps.clock.now(),
    )


_MAX_LATE_STARTS = 5
"""How often a step is looked at again because an attempt of it began meanwhile; nothing starts once its record is final."""
