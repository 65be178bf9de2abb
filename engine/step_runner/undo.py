"""Undo what a step did, in a run that comes to nothing: its ``compensate_with``, through the same gate as any call.

Only what is on record as having succeeded is undone. The undoing is recorded beside the step, under ``undo_id``, and numbers
its own attempts from there, so whoever asks again finds out how far it is. It deliberately decides neither which steps are undone
nor in which order: that is the scheduler's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from engine.domain.base import Frozen
from engine.domain.errors import LivoaError
from engine.domain.ids import undo_id
from engine.domain.outcomes import Failed, StepOutcome, Succeeded
from engine.domain.run import Run, StepRecord
from engine.domain.skeleton import UNDO_ATTEMPTS
from engine.domain.status import StepStatus
from engine.plan import ABSENT, Unbound, bind_compensation, bind_for_each
from engine.ports.deps import Deps
from engine.step_runner.authorise import CallInQuestion
from engine.step_runner.perform import dispatch
from engine.step_runner.records import Journal, outcome_of
from engine.step_runner.task import StepTask, task_of
from engine.step_runner.view import StepView, load_output, load_view

UNDO_BATCH = 20
"""Items of a map that one call undoes, one after another."""
STILL_OPEN = "undo.still_open"
"""Nobody knows yet whether the step took effect."""
ITEMS_FAILED = "undo.items_failed"
NO_INPUTS = "undo.no_inputs"
"""The manifest demands that the step can be undone, and the plan does not say with which inputs."""


class Undone(Frozen):
    """Nothing of the step's effect is left, or it never had one."""

    status: Literal["undone"] = "undone"


class MoreToUndo(Frozen):
    """Some items are undone, and there are others."""

    status: Literal["more"] = "more"


UndoOutcome = Undone | MoreToUndo | Failed


async def undo_step(task: StepTask, deps: Deps) -> UndoOutcome:
    """Undo one step, or the next items of a map, last finished first. Expected failures are outcomes; only surprises raise.

    A retryable ``Failed`` is worth asking again; any other is the last word. ``task.attempt`` says nothing here.
    """
    run = await deps.runs.get(task.tenant_id, task.run_id)
    if run is None:
        return Failed(code="run.not_found")
    if run.status.is_final:
        return Failed(code="run.finished")
    try:
        record = await deps.runs.get_step(task.tenant_id, task.run_id, task.step_id)
        if record is None or record.reused_from is not None:  # another run's effect is that run's to undo
            return Undone()
        return await (_undo_map(run, record, deps) if record.kind == "map" else _undo_call(run, record, deps))
    except LivoaError as err:
        return Failed(code=err.code, retryable=err.status >= 500)


async def _undo_call(run: Run, record: StepRecord, deps: Deps) -> UndoOutcome:
    if record.status is StepStatus.RUNNING:
        return await _still_open([record], deps)
    if record.status is not StepStatus.SUCCEEDED:
        return Undone()
    known = await deps.runs.get_step(run.tenant_id, run.run_id, undo_id(record.step_id), record.item)
    return _told(await _undo(run, record, known, deps))


async def _undo_map(run: Run, record: StepRecord, deps: Deps) -> UndoOutcome:
    items = await deps.runs.items(run.tenant_id, run.run_id, record.step_id)
    known = {undo.item: undo for undo in await deps.runs.items(run.tenant_id, run.run_id, undo_id(record.step_id))}
    own = (item for item in items if item.status is StepStatus.SUCCEEDED and item.reused_from is None)
    effects = sorted(own, key=_last_first, reverse=True)
    left = [item for item in effects if not _is_final(known.get(item.item))]
    for item in left[:UNDO_BATCH]:
        outcome = await _undo(run, item, known.get(item.item), deps)
        if isinstance(outcome, Failed) and outcome.retryable:
            return outcome
    if len(left) > UNDO_BATCH:
        return MoreToUndo()
    if running := [item for item in items if item.status is StepStatus.RUNNING]:
        return await _still_open(running, deps)
    return await _undo_of_map(run, record, len(effects), deps) if effects else Undone()


async def _still_open(records: Sequence[StepRecord], deps: Deps) -> Failed:
    """Take back what workers have of it, so that they stop and nothing is done after it was undone."""
    for record in records:
        key = task_of(record, record.attempt).key
        assigned = await deps.assignments.get(record.tenant_id, record.run_id, key)
        if assigned is not None:
            of = (record.tenant_id, record.run_id, key, assigned.token)
            await deps.assignments.void(*of, now=deps.clock.now(), lapsed_only=False)
    return Failed(code=STILL_OPEN, retryable=True)


async def _undo_of_map(run: Run, record: StepRecord, count: int, deps: Deps) -> UndoOutcome:
    """Record how the undoing of the whole map ended, where the run's steps are listed."""
    undos = await deps.runs.items(run.tenant_id, run.run_id, undo_id(record.step_id))
    bad = [undo for undo in undos if undo.status is not StepStatus.SUCCEEDED]
    task = _task(run, record, None)
    now = deps.clock.now()
    journal = Journal(task, deps, kind="map", capability=undos[0].capability if undos else None, started_at=now)
    if bad:
        words = f"{len(bad)} of {count} items could not be undone; the first is item {bad[0].item}"
        return _told(await journal.failed(ITEMS_FAILED, words, retryable=False))
    return _told(await journal.succeeded(None, item_count=count))


async def _undo(run: Run, record: StepRecord, known: StepRecord | None, deps: Deps) -> StepOutcome:
    """Undo one effect. Asked again, it goes on where it stands: another attempt after a failure, the same one after a crash."""
    finished = outcome_of(known) if known is not None else None
    if finished is not None:
        return finished
    task = _task(run, record, known)
    view = await load_view(task, run, deps)
    call = view.step.compensate_with
    capability = deps.catalog.capabilities.get(call.capability) if call is not None else None
    name = call.capability if call is not None else None
    journal = Journal(task, deps, capability=name, max_attempts=UNDO_ATTEMPTS, started_at=deps.clock.now())
    if call is None:
        return await journal.failed(NO_INPUTS, "the plan does not say how this step is undone", retryable=False)
    output = await load_output(run, record, deps)
    environment = view.environment(_item(view, record))
    bound = bind_compensation(view.step, output, environment)
    if isinstance(bound, Unbound):
        return await journal.failed(bound.code, f"{bound.pointer}: {bound.message}", retryable=False)
    return await dispatch(CallInQuestion(task, view, journal, call.capability, capability, bound.inputs), deps)


def _task(run: Run, record: StepRecord, known: StepRecord | None) -> StepTask:
    attempt = 1
    if known is not None:
        attempt = known.attempt + (known.status is StepStatus.WAITING)
    task = StepTask(tenant_id=run.tenant_id, run_id=run.run_id, step_id=record.step_id, item=record.item)
    return task.model_copy(update={"attempt": attempt, "purpose": "compensation"})


def _item(view: StepView, record: StepRecord) -> Any:
    """The element that the item ran for."""
    if record.item is None:
        return ABSENT
    items = bind_for_each(view.step, view.environment())
    return items[record.item] if not isinstance(items, Unbound) and record.item < len(items) else ABSENT


def _told(outcome: StepOutcome) -> UndoOutcome:
    if isinstance(outcome, Succeeded):
        return Undone()
    if isinstance(outcome, Failed):
        return outcome
    return Failed(code=getattr(outcome, "code", "undo.unexpected_outcome"))


def _is_final(record: StepRecord | None) -> bool:
    return record is not None and record.status.is_final


def _last_first(record: StepRecord) -> tuple[float, int]:
    finished_at = record.finished_at.timestamp() if record.finished_at is not None else 0.0
    return finished_at, record.item or 0
