"""What a run leaves behind that nobody will come back for: items still open, and money still set aside.

Steps end on their own. But a run may end while calls are open (cancel, deadline), and an activity may die between two writes.
Whatever is left then is closed here, once, when the run is finished; doing it again changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from engine.domain.events import EventType, StepEventData, new_event
from engine.domain.run import ErrorInfo, Run, StepRecord
from engine.domain.status import StepStatus
from engine.ports.budget import MODEL_KEYS
from engine.ports.deps import Deps
from engine.step_runner.task import StepTask, task_of

NEVER_TOLD = "step.never_begun"
_UNFINISHED = ErrorInfo(code="step.item_unfinished", message="the run ended before this item did")


_MAX_LATE_STARTS = 5


async def items_of(run: Run, steps: Iterable[StepRecord], deps: Deps) -> list[StepRecord]:
    """The records of the items of every map; one that skips failed items may have succeeded with some still open."""
    maps = [step for step in steps if step.kind == "map"]
    return [item for step in maps for item in await deps.runs.items(run.tenant_id, run.run_id, step.step_id)]


async def with_untold(
    run: Run, steps: dict[str, list[str]], codes: dict[str, str], code: str | None, deps: Deps
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The report of a run's steps with those that the orchestration was never told of: it ended (by a cancel, by the deadline)
    before it learned of the version of the plan that a repair had put in force."""
    if not run.earlier_plans or run.plan_ref is None:
        return steps, codes
    plan = json.loads(await deps.payloads.get(run.tenant_id, run.run_id, run.plan_ref))
    told = {step_id for ids in steps.values() for step_id in ids}
    untold = [step["id"] for step in plan["steps"] if step["id"] not in told]
    cancelled = StepStatus.CANCELLED.value
    return steps | {cancelled: [*steps.get(cancelled, ()), *untold]}, codes | dict.fromkeys(untold, code or NEVER_TOLD)


async def release_budget(run: Run, unrecorded: Iterable[str], records: Iterable[StepRecord], deps: Deps) -> None:
    """Settle the reservations of attempts that did not live to do it: of open records, and of steps that have none.

    At the manifest's price where the attempt had begun, because its call may have been made; at nothing otherwise. Call it
    before those records are closed, or a second delivery does not find them. Requests to models that nobody settled may have
    been made and are spent as set aside. What is open after that belongs to no attempt that called anybody: it is given back,
    or the tenant's day would carry it until midnight.
    """
    state = await deps.budgets.state(run.tenant_id, run.run_id)
    if state is None or not (state.reserved_micro_usd or state.reserved_tokens):
        return
    prices = {StepTask(tenant_id=run.tenant_id, run_id=run.run_id, step_id=step_id): 0 for step_id in unrecorded}
    for record in records:
        if not record.status.is_final:
            prices[task_of(record, record.attempt)] = _price(record, deps)
            # The next attempt may have reserved, and died before its start was recorded.
            prices[task_of(record, record.attempt + 1)] = 0
    for task, price in prices.items():
        await deps.budgets.settle(run.tenant_id, run.run_id, task.attempt_key, spent_micro_usd=price)
    await deps.budgets.close(run.tenant_id, run.run_id, prefix=MODEL_KEYS, as_spent=True)
    await deps.budgets.close(run.tenant_id, run.run_id)


def _price(record: StepRecord, deps: Deps) -> int:
    if record.approval_id is not None:  # it waited for a person; nothing was called
        return 0
    capability = deps.catalog.capabilities.get(record.capability or "")
    return capability.cost.per_call_micro_usd if capability is not None else 0


async def close_items(items: Iterable[StepRecord], steps: Iterable[StepRecord], deps: Deps) -> None:
    """Give every open item of a map its end.

    An item that was to be tried again has failed with the error it has; one that was under way shares the fate of its map.
    """
    by_id = {step.step_id: step for step in steps}
    for item in items:
        if not item.status.is_final:
            await _close(item, by_id[item.step_id], deps)


async def _close(item: StepRecord, step: StepRecord, deps: Deps) -> None:
    was_cut = item.error is None and step.status is StepStatus.CANCELLED
    error = item.error or (step.error if was_cut else None) or _UNFINISHED
    status = StepStatus.CANCELLED if was_cut else StepStatus.FAILED
    fields = {"status": status, "error": error, "finished_at": deps.clock.now()}
    data = StepEventData(
        step_id=item.step_id, attempt=item.attempt, item=item.item, capability=item.capability, code=error.code
    )
    event_type = EventType.STEP_CANCELLED if was_cut else EventType.STEP_FAILED
    event = new_event(event_type, data, f"step.settled/{item.step_id}/{item.item}")
    for _ in range(_MAX_LATE_STARTS):
        if await deps.runs.put_step(StepRecord(**(dict(item) | fields)), [event]):
            return
        # A late delivery has begun another attempt since we looked.
        latest = await deps.runs.get_step(item.tenant_id, item.run_id, item.step_id, item.item)
        if latest is None or latest.status.is_final:
            return
        item = latest
