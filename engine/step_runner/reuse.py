"""Taking over what another run has finished: records and outputs are copied, nothing is called.

The steps themselves go through the scheduler as always; whoever asks for one of these is answered from its record.
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.domain.errors import ConflictError
from engine.domain.events import EventType, StepEventData, new_event
from engine.domain.ids import undo_id
from engine.domain.run import Run, StepRecord
from engine.domain.status import StepStatus
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
    for step_id in reusable(plan, records, run.rerun_from):
        await _take_over(run, records[step_id], deps)


def reusable(plan: CheckedPlan, records: Mapping[str, StepRecord], rerun_from: str | None) -> tuple[str, ...]:
    """The steps whose work stands: they succeeded, were not undone, and come after nothing that is done again.

    A step whose condition was false is asked again, which costs nothing and gives the same answer, so it spoils nothing.
    """
    again: set[int] = set()
    kept: list[str] = []
    for index in plan.order:
        step_id = plan.steps[index].id
        record = records.get(step_id)
        spoilt = step_id == rerun_from or any(need in again for need in plan.needs[index])
        undone = undo_id(step_id) in records
        if record is not None and record.status is StepStatus.SUCCEEDED and not spoilt and not undone:
            kept.append(step_id)
        elif spoilt or not _was_false(record):
            again.add(index)
    return tuple(kept)


def _was_false(record: StepRecord | None) -> bool:
    error = record.error if record is not None and record.status is StepStatus.SKIPPED else None
    return error is not None and error.code == _WHEN_FALSE


async def _take_over(run: Run, record: StepRecord, deps: Deps) -> None:
    if record.output_ref is not None:
        data = await deps.payloads.get(run.tenant_id, record.run_id, record.output_ref)
        await deps.payloads.put(run.tenant_id, run.run_id, data, record.output_ref.media_type)
    origin = record.reused_from or record.run_id
    fields = {"run_id": run.run_id, "attempt": 1, "cost_micro_usd": 0, "reused_from": origin}
    data_of = StepEventData(
        step_id=record.step_id,
        attempt=1,
        capability=record.capability,
        item_count=record.item_count,
        message=f"taken over from {origin}",
    )
    event = new_event(EventType.STEP_SUCCEEDED, data_of, f"step.reused/{record.step_id}")
    await deps.runs.put_step(StepRecord(**(dict(record) | fields)), [event])
