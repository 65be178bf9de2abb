"""Taking over what another run has finished: records and outputs are copied, nothing is called.

The steps themselves go through the scheduler as always; whoever asks for one of these is answered from its record. Of a map that
did not succeed the items are taken over that did: it runs over the same items again, and their effects are not had twice.
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.domain.audit import AuditEntry, AuditType
from engine.domain.base import JsonObject
from engine.domain.errors import ConflictError
from engine.domain.events import EventType, StepEventData, new_event
from engine.domain.ids import undo_id
from engine.domain.run import Run, StepRecord
from engine.domain.status import StepStatus
from engine.evidence.on_record import put_on_record
from engine.plan import CheckedPlan
from engine.ports.deps import Deps

_WHEN_FALSE = "step.when_false"


async def reuse_finished(run: Run, plan: CheckedPlan, deps: Deps) -> None:
    """Give ``run`` the finished steps of its parent. Doing it again changes nothing.

    Raises ``ConflictError("rerun.parent_gone")`` when the parent is not there any more: its work cannot be told from work that
    was never done, and nothing is done twice on a guess.
    """
    if run.parent_run_id is None:
        return
    parent = await deps.runs.get(run.tenant_id, run.parent_run_id)
    if parent is None:
        raise ConflictError("rerun.parent_gone", "the run whose work was to be taken over is gone")
    records = {record.step_id: record for record in await deps.runs.steps(run.tenant_id, parent.run_id)}
    kept, begun = reusable(plan, records, run.rerun_from)
    for step_id in kept:
        await _take_over(run, records[step_id], deps)
    for step_id in begun:
        for item in await deps.runs.items(run.tenant_id, parent.run_id, step_id):
            if item.status is StepStatus.SUCCEEDED:
                await _take_over(run, item, deps)


def reusable(
    plan: CheckedPlan, records: Mapping[str, StepRecord], rerun_from: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The steps whose work stands: they succeeded, were not undone, and come after nothing that is done again. And the maps that
    did not succeed, of which the same is true but for that.

    A step whose condition was false is asked again, which costs nothing and gives the same answer, so it spoils nothing.
    """
    again: set[int] = set()
    kept: list[str] = []
    begun: list[str] = []
    for index in plan.order:
        step_id = plan.steps[index].id
        record = records.get(step_id)
        spoilt = step_id == rerun_from or any(need in again for need in plan.needs[index])
        undone = undo_id(step_id) in records
        if record is not None and record.status is StepStatus.SUCCEEDED and not spoilt and not undone:
            kept.append(step_id)
            continue
        if record is not None and record.kind == "map" and not spoilt and not undone:
            begun.append(step_id)
        if spoilt or not _was_false(record):
            again.add(index)
    return tuple(kept), tuple(begun)


def _was_false(record: StepRecord | None) -> bool:
    error = record.error if record is not None and record.status is StepStatus.SKIPPED else None
    return error is not None and error.code == _WHEN_FALSE


async def _take_over(run: Run, record: StepRecord, deps: Deps) -> None:
    if record.output_ref is not None:
        data = await deps.payloads.get(run.tenant_id, record.run_id, record.output_ref)
        await deps.payloads.put(run.tenant_id, run.run_id, data, record.output_ref.media_type)
    origin = record.reused_from or record.run_id
    await put_on_record(_entry(run, record, origin, deps), deps.audit)
    fields = {"run_id": run.run_id, "attempt": 1, "cost_micro_usd": 0, "reused_from": origin}
    data_of = StepEventData(
        step_id=record.step_id,
        attempt=1,
        item=record.item,
        capability=record.capability,
        item_count=record.item_count,
        message=f"taken over from {origin}",
    )
    event = new_event(EventType.STEP_SUCCEEDED, data_of, f"step.reused/{_place(record)}")
    await deps.runs.put_step(StepRecord(**(dict(record) | fields)), [event])


def _entry(run: Run, record: StepRecord, origin: str, deps: Deps) -> AuditEntry:
    """Whose work this is, and what came of it: the run's own evidence, in which no call of it stands."""
    body: JsonObject = {"step": record.step_id, "made_by": origin}
    optional = {
        "item": record.item,
        "capability": record.capability,
        "plan_hash": run.plan_hash,
        "output_sha256": record.output_ref.sha256 if record.output_ref is not None else None,
        "output_bytes": record.output_ref.size_bytes if record.output_ref is not None else None,
    }
    return AuditEntry(
        tenant_id=run.tenant_id,
        entry_id=f"{run.run_id}/{_place(record)}/{AuditType.RESULT_REUSED.value}",
        type=AuditType.RESULT_REUSED,
        at=deps.clock.now(),
        run_id=run.run_id,
        actor=run.principal.subject,
        body=body | {name: value for name, value in optional.items() if value is not None},
    )


def _place(record: StepRecord) -> str:
    return record.step_id if record.item is None else f"{record.step_id}/{record.item}"
