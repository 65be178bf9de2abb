"""Maps: count the items of a ``for_each`` step, and fold the items' outputs into the output of the step.

Items themselves go through ``perform_step`` like any step, one idempotency key each.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

from engine.domain.errors import LivoaError
from engine.domain.outcomes import Cancelled, Expanded, Failed, StepOutcome
from engine.domain.run import Run, StepRecord
from engine.domain.status import StepStatus
from engine.plan import ABSENT, Unbound, bind_for_each, evaluate_when
from engine.ports.deps import Deps
from engine.step_runner.perform import unbound_outcome
from engine.step_runner.records import Journal, allowed_attempts, outcome_of
from engine.step_runner.suspension import held
from engine.step_runner.task import StepTask
from engine.step_runner.view import StepView, load_output, load_view

_MAX_COLLECTED_BYTES = 16 * 1024 * 1024
"""Outputs of one map together, asked before they are read: ten thousand items of a mebibyte each would fit no memory."""


async def expand_map(task: StepTask, deps: Deps) -> StepOutcome:
    """Evaluate ``when`` and ``for_each``. ``Expanded`` with the item count, or why there is nothing to run."""
    prepared = await _prepare(task, deps)
    if not isinstance(prepared, tuple):
        return prepared
    view, journal = prepared
    environment = view.environment()
    if view.step.when is not None:
        decided = evaluate_when(view.step.when, environment)
        if isinstance(decided, Unbound):
            return await unbound_outcome(decided, journal)
        if not decided:
            return await journal.skipped("step.when_false", "its condition is false")
    items = bind_for_each(view.step, environment)
    if isinstance(items, Unbound):
        return await unbound_outcome(items, journal)
    limit = min(view.step.max_items or view.tenant.bounds.max_fan_out, view.tenant.bounds.max_fan_out)
    if len(items) > limit:
        return await journal.failed(
            "step.too_many_items", f"{len(items)} items; at most {limit} are allowed", retryable=False
        )
    await journal.started(item_count=len(items))
    return Expanded(item_count=len(items))


async def collect_map(task: StepTask, item_count: int, deps: Deps) -> StepOutcome:
    """The step's output is the array of its items' outputs in order, null where an item was skipped.

    The map has failed when an item failed or is missing, unless the step skips failed items (``on_failure: skip``). An item that
    policy denied denies the map either way: a call that died after writing that down was told to the scheduler as a crash.
    """
    prepared = await _prepare(task, deps)
    if not isinstance(prepared, tuple):
        return prepared
    view, journal = prepared
    records = {record.item: record for record in await deps.runs.items(task.tenant_id, task.run_id, task.step_id)}
    stood_in = next((record.degraded for record in records.values() if record.degraded is not None), None)
    journal = replace(journal, degraded=stood_in)
    bad = [index for index in range(item_count) if not _is_good(records.get(index))]
    for index in bad:
        if (item := records.get(index)) is not None and item.status is StepStatus.DENIED and item.error is not None:
            return await journal.denied(item.error.code, f"item {index}: {item.error.message}")
    if bad and view.step.on_failure != "skip":
        first = records.get(bad[0])
        code = first.error.code if first is not None and first.error is not None else "step.item_missing"
        words = f"{len(bad)} of {item_count} items did not succeed; the first is item {bad[0]} ({code})"
        return await journal.failed("step.items_failed", words, retryable=False)
    size_bytes = sum(record.output_ref.size_bytes for record in records.values() if record.output_ref is not None)
    if size_bytes > _MAX_COLLECTED_BYTES:
        words = f"the items' outputs have {size_bytes} bytes; at most {_MAX_COLLECTED_BYTES} are collected"
        return await journal.failed("payload.too_large", words, retryable=False)
    outputs = [await _output(view.run, records.get(index), deps) for index in range(item_count)]
    data = await asyncio.to_thread(_folded, outputs)
    try:
        ref = await deps.payloads.put(task.tenant_id, task.run_id, data)
    except LivoaError as err:
        if err.status >= 500:
            # Nothing is written down: collecting is asked for again oftener than the plan would have the step tried.
            return Failed(code=err.code, retryable=True)
        return await journal.failed(err.code, err.message, retryable=False)
    return await journal.succeeded(ref, item_count=item_count)


def _folded(outputs: list[Any]) -> bytes:
    return json.dumps(outputs, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


async def _prepare(task: StepTask, deps: Deps) -> tuple[StepView, Journal] | StepOutcome:
    run = await deps.runs.get(task.tenant_id, task.run_id)
    if run is None:
        return Failed(code="run.not_found")
    record = await deps.runs.get_step(task.tenant_id, task.run_id, task.step_id)
    finished = outcome_of(record) if record is not None else None
    if finished is not None:
        return finished
    if run.status.is_final:
        return Cancelled()
    if (suspended := held(run)) is not None:
        return suspended
    try:
        view = await load_view(task, run, deps)
    except LivoaError as err:
        return Failed(code=err.code, retryable=err.status >= 500)
    # Counting and collecting number their attempts apart; the record of the step must not look older than it is.
    attempt = max(task.attempt, record.attempt) if record is not None else task.attempt
    journal = Journal(
        task.model_copy(update={"attempt": attempt}),
        deps,
        kind="map",
        capability=view.step.capability,
        max_attempts=allowed_attempts(view.step, deps.catalog),
        skips_failures=view.step.on_failure == "skip",
        started_at=record.started_at if record is not None and record.started_at is not None else deps.clock.now(),
    )
    return view, journal


def _is_good(record: StepRecord | None) -> bool:
    return record is not None and record.status in (StepStatus.SUCCEEDED, StepStatus.SKIPPED)


async def _output(run: Run, record: StepRecord | None, deps: Deps) -> Any:
    output = await load_output(run, record, deps)
    return None if output is ABSENT else output
