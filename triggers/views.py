"""What callers see of runs and steps. Models of their own, so that a change inside does not change the wire by accident."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from engine.domain.answer import Answer
from engine.domain.base import Frozen, JsonObject, JsonValue, UtcDatetime
from engine.domain.events import EventType, RunEvent
from engine.domain.names import RUN_ORCHESTRATOR
from engine.domain.run import ErrorInfo, Run, StepRecord
from engine.domain.status import DURABLE_STATUS, RunStatus, StepStatus


def run_path(run_id: str) -> str:
    """The path of a run."""
    return f"/api/runs/{run_id}"


class RunLinks(Frozen):
    """Paths of what belongs to a run."""

    self: str
    status: str
    plan: str
    steps: str
    approvals: str
    events: str
    cancel: str
    suspend: str
    resume: str
    rerun: str
    terminate: str


class RunSummary(Frozen):
    """A run as it stands in lists. ``submitted_by`` is the subject of the caller's token."""

    run_id: str
    status: RunStatus
    title: str
    degraded: bool
    degraded_reason: str | None
    suspended_reason: Literal["request", "budget"] | None = None
    parent_run_id: str | None = None
    rerun_from: str | None = None
    plan_hash: str | None
    plan_version: int
    cost_micro_usd: int
    error: ErrorInfo | None
    submitted_by: str
    created_at: UtcDatetime
    updated_at: UtcDatetime
    deadline_at: UtcDatetime
    finished_at: UtcDatetime | None
    links: RunLinks


class PlannerView(Frozen):
    """Who made the plan of a run: the caller, a playbook or a model, routed by whom after which ``fallbacks`` handed on."""

    source: Literal["caller", "playbook", "model"]
    playbook: str | None
    model: str | None
    router: str | None
    fallbacks: tuple[str, ...]
    attempts: int


class RunView(RunSummary):
    """One run, with who planned it and its answer once there are such."""

    planner: PlannerView | None = None
    answer: Answer | None = None


class RunList(Frozen):
    """A page of runs, newest first; a caller who may see only some of a tenant's runs can get short pages."""

    runs: tuple[RunSummary, ...]
    next_cursor: str | None


class RunCountsView(Frozen):
    """How many runs of a tenant stand where. Every status is there. Not ``is_complete``: there are more runs than are
    counted, and these are the newest of them."""

    total: int
    by_status: dict[RunStatus, int]
    is_complete: bool


class Accepted(Frozen):
    """The answer to a submission, in the shape that durable clients know. Every URI is one of ours and checks the tenant."""

    id: str
    run_id: str
    status: RunStatus
    statusQueryGetUri: str  # noqa: N815  # names of the durable protocol
    terminatePostUri: str  # noqa: N815  # cancelling, which ends a run in order, is among the links of the run
    suspendPostUri: str  # noqa: N815
    resumePostUri: str  # noqa: N815


class CustomStatus(Frozen):
    """What ``runtimeStatus`` is too coarse for."""

    status: RunStatus
    degraded: bool
    code: str | None = None


class DurableInput(Frozen):
    """The input as the status query shows it: ids only."""

    run_id: str


class DurableStatus(Frozen):
    """The status-query shape of durable functions."""

    name: str = RUN_ORCHESTRATOR
    instanceId: str  # noqa: N815
    runtimeStatus: Literal["Pending", "Running", "Suspended", "Completed", "Failed", "Terminated"]  # noqa: N815
    input: DurableInput
    customStatus: CustomStatus  # noqa: N815
    output: JsonValue
    createdTime: str  # noqa: N815
    lastUpdatedTime: str  # noqa: N815


class PlanView(Frozen):
    """The checked plan of a run."""

    run_id: str
    plan_version: int
    plan_hash: str
    plan: JsonObject


class StepView(Frozen):
    """One step; ``pending`` when nothing has happened to it yet."""

    id: str
    status: StepStatus
    kind: Literal["call", "map", "wait", "approval"]
    capability: str | None
    attempt: int
    item_count: int | None = None
    error: ErrorInfo | None = None
    degraded: str | None = Field(default=None, description="why something stood in for the capability, if it did")
    reused_from: str | None = Field(default=None, description="the run whose work this is")
    started_at: UtcDatetime | None = None
    finished_at: UtcDatetime | None = None
    duration_ms: int | None = None
    cost_micro_usd: int = 0
    output: str | None = Field(default=None, description="path of the output, once there is one")


class StepList(Frozen):
    """The steps of a run in the order of its plan."""

    run_id: str
    steps: tuple[StepView, ...]


class EventView(Frozen):
    """One event. ``seq`` counts from 1 without gaps; it is the cursor of pages and the id of server-sent events."""

    run_id: str
    seq: int
    type: EventType
    at: UtcDatetime
    data: JsonObject


class EventPage(Frozen):
    """A page of a run's events. Ask on with ``after=next_after``; ``ended`` means that nothing will follow."""

    events: tuple[EventView, ...]
    next_after: int
    ended: bool


def links_of(run_id: str) -> RunLinks:
    """The paths of a run."""
    path = run_path(run_id)
    return RunLinks(
        self=path,
        status=f"{path}/status",
        plan=f"{path}/plan",
        steps=f"{path}/steps",
        approvals=f"{path}/approvals",
        events=f"{path}/events",
        cancel=f"{path}/cancel",
        suspend=f"{path}/suspend",
        resume=f"{path}/resume",
        rerun=f"{path}/rerun",
        terminate=f"{path}/terminate",
    )


def summary_of(run: Run) -> RunSummary:
    """A run for a list."""
    return RunSummary(
        run_id=run.run_id,
        status=run.status,
        title=run.title,
        degraded=run.degraded,
        degraded_reason=run.degraded_reason,
        suspended_reason=run.suspended_reason if run.status is RunStatus.SUSPENDED else None,
        parent_run_id=run.parent_run_id,
        rerun_from=run.rerun_from,
        plan_hash=run.plan_hash,
        plan_version=run.plan_version,
        cost_micro_usd=run.cost_micro_usd,
        error=run.error,
        submitted_by=run.principal.subject,
        created_at=run.created_at,
        updated_at=run.updated_at,
        deadline_at=run.deadline_at,
        finished_at=run.finished_at,
        links=links_of(run.run_id),
    )


def view_of(run: Run, answer: Answer | None) -> RunView:
    """One run in full."""
    return RunView(**dict(summary_of(run)), planner=planner_view_of(run), answer=answer)


def planner_view_of(run: Run) -> PlannerView | None:
    """Who made the plan of a run that has one."""
    made = run.provenance
    if made is None:
        return None
    return PlannerView(
        source=made.source,
        playbook=made.playbook,
        model=made.model,
        router=made.router,
        fallbacks=made.fallbacks,
        attempts=made.attempts,
    )


def accepted_of(run: Run, origin: str) -> Accepted:
    """The answer to a submission; ``origin`` is scheme and authority as the caller used them."""
    links = links_of(run.run_id)
    return Accepted(
        id=run.run_id,
        run_id=run.run_id,
        status=run.status,
        statusQueryGetUri=origin + links.status,
        terminatePostUri=origin + links.terminate,
        suspendPostUri=origin + links.suspend,
        resumePostUri=origin + links.resume,
    )


def durable_status_of(run: Run, answer: Answer | None) -> DurableStatus:
    """A run in the status-query shape. The output is the answer, or the error of a run that has none."""
    output: JsonValue = None
    if run.status.is_final and answer is not None:
        output = answer.model_dump(mode="json")
    elif run.status.is_final and run.error is not None:
        output = run.error.model_dump(mode="json")
    code = run.error.code if run.error is not None else None
    return DurableStatus.model_validate(
        {
            "instanceId": run.run_id,
            "runtimeStatus": DURABLE_STATUS[run.status],
            "input": {"run_id": run.run_id},
            "customStatus": {"status": run.status, "degraded": run.degraded, "code": code},
            "output": output,
            "createdTime": _durable_time(run.created_at),
            "lastUpdatedTime": _durable_time(run.updated_at),
        }
    )


def _durable_time(at: datetime) -> str:
    """Whole seconds, as the durable extension writes them."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def step_view_of(record: StepRecord) -> StepView:
    """A step that something has happened to."""
    output = f"{run_path(record.run_id)}/steps/{record.step_id}/output" if record.output_ref is not None else None
    return StepView(
        id=record.step_id,
        status=record.status,
        kind=record.kind,
        capability=record.capability,
        attempt=record.attempt,
        item_count=record.item_count,
        error=record.error,
        degraded=record.degraded,
        reused_from=record.reused_from,
        started_at=record.started_at,
        finished_at=record.finished_at,
        duration_ms=record.duration_ms,
        cost_micro_usd=record.cost_micro_usd,
        output=output,
    )


def event_view_of(event: RunEvent) -> EventView:
    """An event without the tenant, which the caller knows."""
    return EventView(run_id=event.run_id, seq=event.seq, type=event.type, at=event.at, data=event.data)
