"""HTTP functions of runs: submit, list, look at, cancel. Reads come from the run store, never from durable management URLs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from engine.domain.answer import Answer
from engine.domain.audit import AuditEntry, AuditType
from engine.domain.base import JsonObject
from engine.domain.errors import ConflictError, LivoaError, NotFoundError
from engine.domain.ids import UNDO_SUFFIX, is_wire_id, undo_id
from engine.domain.principal import Role
from engine.domain.run import Run
from engine.domain.status import RunStatus, StepStatus
from engine.ports.deps import Deps, DepsProvider
from engine.ports.run_store import RunChange, RunFilter
from triggers.endpoint import Call, Endpoint, build_blueprint
from triggers.http_adapter import JSON, HttpResponse, json_response
from triggers.run_access import READERS, SUBMITTERS, integer_query, may_see, run_of, time_query
from triggers.starting import ask_to_cancel, is_started, try_start
from triggers.submission import append_audit, read_submission, submit
from triggers.views import (
    PlanView,
    RunCountsView,
    RunList,
    StepList,
    StepView,
    accepted_of,
    durable_status_of,
    run_path,
    step_view_of,
    summary_of,
    view_of,
)

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

MAX_PAGE = 200
POLL_AFTER_S = "1"


async def submit_run(call: Call) -> HttpResponse:
    """``POST /api/runs``: 202 with where to look."""
    submission = await read_submission(call.request, call.deps.settings.max_body_bytes)
    run = await submit(submission, call.principal, call.deps, call.durable, traceparent=call.traceparent)
    body = accepted_of(run, call.request.origin).model_dump(mode="json")
    return json_response(body, 202, (("location", run_path(run.run_id)), ("retry-after", POLL_AFTER_S)))


async def list_runs(call: Call) -> HttpResponse:
    """``GET /api/runs?status=&since=&until=&cursor=&limit=``: a page, newest first."""
    limit = integer_query(call, "limit", default=50, low=1, high=MAX_PAGE)
    page = await call.deps.runs.page(
        call.principal.tenant_id,
        status=_status_query(call),
        cursor=call.request.query.get("cursor"),
        limit=limit,
        since=time_query(call, "since"),
        until=time_query(call, "until"),
    )
    # The cursor goes by what was read, not by what is shown, so a filtered page can be short and nothing is skipped.
    shown = tuple(summary_of(run) for run in page.runs if may_see(call.principal, run))
    return json_response(RunList(runs=shown, next_cursor=page.next_cursor).model_dump(mode="json"))


async def count_runs(call: Call) -> HttpResponse:
    """``GET /api/run-counts?since=&until=``: how many runs of the tenant stand where."""
    which = RunFilter(since=time_query(call, "since"), until=time_query(call, "until"))
    counts = await call.deps.runs.counts(call.principal.tenant_id, which)
    by_status = {status: counts.by_status.get(status, 0) for status in RunStatus}
    body = RunCountsView(total=sum(by_status.values()), by_status=by_status, is_complete=counts.is_complete)
    return json_response(body.model_dump(mode="json"))


def _status_query(call: Call) -> RunStatus | None:
    text = call.request.query.get("status")
    if text is None:
        return None
    if text in {status.value for status in RunStatus}:
        return RunStatus(text)
    known = ", ".join(status.value for status in RunStatus)
    raise LivoaError("query.invalid", f"status must be one of {known}.", pointer="/status")


async def get_run(call: Call) -> HttpResponse:
    """``GET /api/runs/{run_id}``."""
    run = await run_of(call)
    return json_response(view_of(run, await _answer(run, call.deps)).model_dump(mode="json"))


async def get_status(call: Call) -> HttpResponse:
    """``GET /api/runs/{run_id}/status``: 202 while the run is going on, 200 when it is over."""
    run = await run_of(call)
    body = durable_status_of(run, await _answer(run, call.deps)).model_dump(mode="json")
    if run.status.is_final:
        return json_response(body)
    location = f"{run_path(run.run_id)}/status"
    return json_response(body, 202, (("location", location), ("retry-after", POLL_AFTER_S)))


async def _answer(run: Run, deps: Deps) -> Answer | None:
    if run.answer_ref is None:
        return None
    return Answer.model_validate_json(await deps.payloads.get(run.tenant_id, run.run_id, run.answer_ref))


async def get_plan(call: Call) -> HttpResponse:
    """``GET /api/runs/{run_id}/plan``. 404 ``plan.not_found`` before there is one."""
    run = await run_of(call)
    plan = await _plan(run, call.deps)
    if plan is None or run.plan_hash is None:
        raise NotFoundError("plan.not_found", "This run has no plan yet.")
    view = PlanView(run_id=run.run_id, plan_version=run.plan_version, plan_hash=run.plan_hash, plan=plan)
    return json_response(view.model_dump(mode="json"), headers=(("etag", f'"{run.plan_hash}"'),))


async def _plan(run: Run, deps: Deps) -> JsonObject | None:
    if run.plan_ref is None:
        return None
    plan: JsonObject = json.loads(await deps.payloads.get(run.tenant_id, run.run_id, run.plan_ref))
    return plan


async def list_steps(call: Call) -> HttpResponse:
    """``GET /api/runs/{run_id}/steps``: every step of the plan, in its order, each followed by its undoing where there is one.

    Behind them stand the steps that a repair of the plan has replaced.
    """
    run = await run_of(call)
    records = {record.step_id: record for record in await call.deps.runs.steps(run.tenant_id, run.run_id)}
    plan = await _plan(run, call.deps)
    steps = []
    entries = {entry["id"]: entry for entry in (plan or {}).get("steps", ())}
    replaced = [known for known in records if known not in entries and not known.endswith(UNDO_SUFFIX)]
    for step_id in (*entries, *replaced):
        record = records.get(step_id)
        steps.append(step_view_of(record) if record is not None else _pending(entries[step_id]))
        if (undoing := records.get(undo_id(step_id))) is not None:
            steps.append(step_view_of(undoing).model_copy(update={"output": None}))
    body = StepList(run_id=run.run_id, steps=tuple(steps)).model_dump(mode="json")
    return json_response(body)


def _pending(entry: dict[str, Any]) -> StepView:
    kind = (
        "map" if "for_each" in entry else "wait" if "wait" in entry else "approval" if "approval" in entry else "call"
    )
    return StepView(id=entry["id"], status=StepStatus.PENDING, kind=kind, capability=entry.get("capability"), attempt=1)


async def get_step_output(call: Call) -> HttpResponse:
    """``GET /api/runs/{run_id}/steps/{step_id}/output?item=``: the stored bytes.

    422 ``step.unknown`` for a step that the plan does not have and ``step.item_unknown`` for an item that
    never was, 409 ``step.no_output`` while (or because) there is none.
    """
    run = await run_of(call)
    step_id = call.request.route.get("step_id", "")
    item = integer_query(call, "item", default=0, low=0, high=9_999) if "item" in call.request.query else None
    record = await call.deps.runs.get_step(run.tenant_id, run.run_id, step_id, item) if is_wire_id(step_id) else None
    if record is None:
        await require_step(run, step_id, call.deps)
        if item is not None and run.status.is_final:
            raise LivoaError("step.item_unknown", "This step has no such item.", status=422, pointer="/item")
    if record is None or record.output_ref is None:
        status = record.status.value if record is not None else StepStatus.PENDING.value
        raise ConflictError("step.no_output", f"This step has no output; it is {status}.")
    data = await call.deps.payloads.get(run.tenant_id, run.run_id, record.output_ref)
    # Only JSON is named as what it is: an agent must not get a browser to render its output under our origin.
    media_type = JSON if record.output_ref.media_type == JSON else "application/octet-stream"
    return HttpResponse(200, (("content-type", media_type), ("etag", f'"{record.output_ref.sha256}"')), data)


async def require_step(run: Run, step_id: str, deps: Deps) -> None:
    """Raises ``LivoaError("step.unknown", status=422)`` for a step that the plan of the run does not have."""
    plan = await _plan(run, deps)
    if not any(entry["id"] == step_id for entry in (plan or {}).get("steps", ())):
        raise LivoaError("step.unknown", "The plan of this run has no such step.", status=422, pointer="/step_id")


async def cancel_run(call: Call) -> HttpResponse:
    """``POST /api/runs/{run_id}/cancel``: 202; asking again changes nothing. 409 ``run.finished`` when it is over.

    The audit record and the run's status come first; the event only wakes the orchestration, so losing it loses nothing.
    """
    run = await run_of(call)
    if run.status.is_final:
        raise ConflictError("run.finished", "This run is over; there is nothing to cancel.")
    await append_audit(_cancel_entry(run, call), call.deps)
    change = RunChange(status=RunStatus.CANCELLING)
    run = await call.deps.runs.change(run.tenant_id, run.run_id, change)
    if await is_started(run, call.durable):
        await ask_to_cancel(run, call.durable)
    else:
        await try_start(run, call.durable)  # so that the orchestration ends the run the one way runs end
    body = summary_of(run).model_dump(mode="json")
    return json_response(body, 202, (("location", run_path(run.run_id)), ("retry-after", POLL_AFTER_S)))


def _cancel_entry(run: Run, call: Call) -> AuditEntry:
    return AuditEntry(
        tenant_id=run.tenant_id,
        entry_id=f"{run.run_id}/{AuditType.RUN_CANCEL_REQUESTED.value}/{call.principal.subject}",
        type=AuditType.RUN_CANCEL_REQUESTED,
        at=call.deps.clock.now(),
        run_id=run.run_id,
        actor=call.principal.subject,
        body={"client_app": call.principal.client_app},
    )


ENDPOINTS = (
    Endpoint("submit_run", "POST", "runs", submit_run, SUBMITTERS, needs_client=True),
    Endpoint("list_runs", "GET", "runs", list_runs, READERS),
    Endpoint("count_runs", "GET", "run-counts", count_runs, frozenset({Role.RUNS_READ})),
    Endpoint("get_run", "GET", "runs/{run_id}", get_run, READERS),
    Endpoint("get_run_status", "GET", "runs/{run_id}/status", get_status, READERS),
    Endpoint("get_run_plan", "GET", "runs/{run_id}/plan", get_plan, READERS),
    Endpoint("list_run_steps", "GET", "runs/{run_id}/steps", list_steps, READERS),
    Endpoint("get_step_output", "GET", "runs/{run_id}/steps/{step_id}/output", get_step_output, READERS),
    Endpoint("cancel_run", "POST", "runs/{run_id}/cancel", cancel_run, SUBMITTERS, needs_client=True),
)


def build(deps: DepsProvider, *, streaming: bool) -> Blueprint:
    """The blueprint of these endpoints."""
    return build_blueprint(ENDPOINTS, deps, streaming=streaming)
