"""Compose the one answer from what succeeded and stream it into the event log. Repeatable: a stored answer is kept."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

from activities.answer_stream import AnswerStream
from activities.payloads import load_json, load_request, store_model
from engine.domain.answer import Answer
from engine.domain.audit import AuditEntry, AuditType
from engine.domain.base import JsonObject
from engine.domain.errors import ConflictError, LivoaError
from engine.domain.events import AnswerEventData, DegradedEventData, EventType, new_event
from engine.domain.run import ErrorInfo, PayloadRef, Run, StepRecord
from engine.domain.status import FINAL_RUN_STATUSES, RunStatus, StepStatus
from engine.domain.telemetry_names import OPERATION, RUN_ID, SPAN_COMPOSE
from engine.plan import Plan, parse_checked_plan
from engine.ports.deps import Deps
from engine.ports.planner import ComposeRequest, StepResult
from engine.ports.run_store import RunChange
from engine.ports.telemetry import Span
from engine.step_runner import held

_LOG = logging.getLogger("livoa.runs")
_LIVE = frozenset(RunStatus) - FINAL_RUN_STATUSES
_COMPOSING_TIME = timedelta(seconds=120)
"""What composing may take: as long as a run waits for its answer beyond the deadline."""
_MAX_OUTPUT_BYTES = 4 * 1024 * 1024
_MAX_OUTPUTS_BYTES = 16 * 1024 * 1024
_TOO_LARGE = ErrorInfo(code="answer.output_too_large", message="the output is too large to be part of the answer")


async def compose_answer(payload: dict[str, Any], deps: Deps) -> dict[str, Any]:
    """Input ``{tenant_id, run_id, steps: {status: [step id]}, codes}``; result ``{"status": "composed"}``.

    ``{"status": "failed", "code", "retryable"}`` when the run, its plan or its payloads cannot be read.
    """
    run = await deps.runs.get(payload["tenant_id"], payload["run_id"])
    if run is None or run.plan_ref is None:
        return {"status": "failed", "code": "run.no_plan"}
    if run.answer_ref is not None or run.status.is_final:
        return {"status": "composed"}
    if (suspended := held(run)) is not None and deps.clock.now() < run.deadline_at:
        # After the deadline nobody can resume it, and finished work deserves its answer.
        return dict(suspended.model_dump(mode="json"))
    attributes = {RUN_ID: run.run_id, OPERATION: SPAN_COMPOSE}
    with deps.telemetry.span(SPAN_COMPOSE, traceparent=run.traceparent, attributes=attributes) as span:
        try:
            return await _compose(run, run.plan_ref, payload, deps, span)
        except LivoaError as err:
            span.fail(err.code)
            return {"status": "failed", "code": err.code, "retryable": err.status >= 500}


async def _compose(run: Run, plan_ref: PayloadRef, payload: dict[str, Any], deps: Deps, span: Span) -> dict[str, Any]:
    plan = parse_checked_plan(await load_json(run, plan_ref, deps))
    statuses = {step_id: status for status, ids in (payload.get("steps") or {}).items() for step_id in ids}
    request = ComposeRequest(
        request=await load_request(run, deps),
        goal=plan.goal,
        instructions=plan.answer.instructions or "",
        steps=await _results(run, plan, statuses, payload.get("codes") or {}, deps),
        all_statuses=statuses,
        run_id=run.run_id,
        plan_version=max(1, run.plan_version),
        tenant=await deps.tenants.get(run.tenant_id),
        actor=run.principal.subject,
        deadline_at=deps.clock.now() + _COMPOSING_TIME,
        traceparent=span.traceparent or run.traceparent,
    )
    stream = AnswerStream(run, deps.events)
    await stream.open()
    try:
        answer = await deps.composer.compose(request, stream)
    except BaseException:
        await stream.close(flush=False)
        raise
    await stream.close()
    ref = await store_model(run, answer, deps)
    await _record(run, answer, ref, deps)
    events = [new_event(EventType.ANSWER_COMPLETED, AnswerEventData(size_bytes=ref.size_bytes))]
    if answer.degraded_reason is not None:
        data = DegradedEventData(part="composer", reason=answer.degraded_reason)
        events.insert(0, new_event(EventType.DEGRADED_ENTERED, data, "degraded/composer"))
    reason = run.degraded_reason or answer.degraded_reason or await _stood_in(run, deps)
    change = RunChange(answer_ref=ref, degraded_reason=reason)
    try:
        await deps.runs.change(run.tenant_id, run.run_id, change, events, only_from=_LIVE)
    except ConflictError:
        _LOG.info("an answer came too late", extra={"run_id": run.run_id})
    return {"status": "composed"}


async def _stood_in(run: Run, deps: Deps) -> str | None:
    """The first step that something else was called for, and why."""
    records = await deps.runs.steps(run.tenant_id, run.run_id)
    return next(
        (f"step {record.step_id}: {record.degraded}" for record in records if record.degraded is not None), None
    )


async def _record(run: Run, answer: Answer, ref: PayloadRef, deps: Deps) -> None:
    """The evidence of an answer, before it stands."""
    body: JsonObject = {
        "answer_sha256": ref.sha256,
        "kpis": len(answer.kpis),
        "degraded": answer.degraded_reason is not None,
        "model": answer.model or "",
        "unsupported_figures": len(answer.unsupported_figures),
        "removed_links": answer.removed_links,
    }
    await deps.audit.append(
        AuditEntry(
            tenant_id=run.tenant_id,
            # With the hash: a delivery that died before it stored its answer may have written another one.
            entry_id=f"{run.run_id}/{AuditType.SYNTHESIS.value}/{ref.sha256[:16]}",
            type=AuditType.SYNTHESIS,
            at=deps.clock.now(),
            run_id=run.run_id,
            actor=run.principal.subject,
            body=body,
        )
    )


async def _results(
    run: Run, plan: Plan, statuses: dict[str, str], codes: dict[str, str], deps: Deps
) -> tuple[StepResult, ...]:
    records = {record.step_id: record for record in await deps.runs.steps(run.tenant_id, run.run_id)}
    results: list[StepResult] = []
    left_bytes = _MAX_OUTPUTS_BYTES
    for step_id in plan.answer.uses or tuple(step.id for step in plan.steps):
        record = records.get(step_id)
        result = await _result(run, step_id, record, statuses, min(left_bytes, _MAX_OUTPUT_BYTES), deps)
        if result.output is not None and record is not None and record.output_ref is not None:
            left_bytes -= record.output_ref.size_bytes
        if result.error is None and step_id in codes:
            result = replace(result, error=ErrorInfo(code=codes[step_id], message=codes[step_id]))
        results.append(result)
    return tuple(results)


async def _result(
    run: Run, step_id: str, record: StepRecord | None, statuses: dict[str, str], max_bytes: int, deps: Deps
) -> StepResult:
    """One step for the composer. An output of more than ``max_bytes`` stays unread, and the answer has to say so."""
    status = statuses.get(step_id, record.status.value if record else StepStatus.PENDING.value)
    if record is None:
        return StepResult(step_id, step_id, status)
    output = None
    if record.status is StepStatus.SUCCEEDED and record.output_ref is not None:
        status = record.status.value
        if record.output_ref.size_bytes > max_bytes:
            return StepResult(step_id, step_id, status, error=_TOO_LARGE)
        output = await load_json(run, record.output_ref, deps)
    return StepResult(step_id, step_id, status, output=output, error=record.error)
