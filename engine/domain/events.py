"""Events: past-tense entries of a run's one ordered, gapless log. What people and consoles watch.

An event's ``data`` holds ids, codes, counts and, for ``answer.delta``, text of the answer; never inputs, outputs or prompts.
Each event is appended under a deterministic ``key``, so a replay or a retry cannot add it twice.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from engine.domain.base import Frozen, JsonObject, UtcDatetime
from engine.domain.ids import WireId


class EventType(StrEnum):
    """Every type an event log can hold."""

    RUN_ACCEPTED = "run.accepted"
    PLAN_PROPOSED = "plan.proposed"
    PLAN_REJECTED = "plan.rejected"
    PLAN_VETTED = "plan.vetted"
    PLAN_REPAIRED = "plan.repaired"
    APPROVAL_REQUESTED = "approval.requested"
    APPROVAL_GRANTED = "approval.granted"
    APPROVAL_REFUSED = "approval.refused"
    APPROVAL_EXPIRED = "approval.expired"
    APPROVAL_VOIDED = "approval.voided"
    STEP_READY = "step.ready"
    STEP_STARTED = "step.started"
    STEP_PROGRESSED = "step.progressed"
    STEP_SUCCEEDED = "step.succeeded"
    STEP_FAILED = "step.failed"
    STEP_RETRIED = "step.retried"
    STEP_DENIED = "step.denied"
    STEP_SKIPPED = "step.skipped"
    STEP_CANCELLED = "step.cancelled"
    BUDGET_RESERVED = "budget.reserved"
    BUDGET_EXHAUSTED = "budget.exhausted"
    BREAKER_OPENED = "breaker.opened"
    DEGRADED_ENTERED = "degraded.entered"
    ANSWER_STARTED = "answer.started"
    ANSWER_DELTA = "answer.delta"
    ANSWER_RESTARTED = "answer.restarted"
    ANSWER_COMPLETED = "answer.completed"
    RUN_SUCCEEDED = "run.succeeded"
    RUN_PARTIAL = "run.partial"
    RUN_DENIED = "run.denied"
    RUN_FAILED = "run.failed"
    RUN_CANCELLED = "run.cancelled"
    RUN_TERMINATED = "run.terminated"
    RUN_SUSPENDED = "run.suspended"
    RUN_RESUMED = "run.resumed"


FINAL_EVENTS = frozenset(
    {
        EventType.RUN_SUCCEEDED,
        EventType.RUN_PARTIAL,
        EventType.RUN_DENIED,
        EventType.RUN_FAILED,
        EventType.RUN_CANCELLED,
        EventType.RUN_TERMINATED,
    }
)
"""After one of these a run's log ends."""


class RunEventData(Frozen):
    """Data of ``run.*``: the reason when there is one, and the cost so far in micro-USD.

    ``request_id`` of ``run.accepted`` is what the caller gave: the Idempotency-Key, or the id of the message.
    """

    request_id: str | None = None
    code: str | None = None
    message: str | None = None
    cost_micro_usd: int | None = None


class PlanEventData(Frozen):
    """Data of ``plan.*``: size and hash of the plan, where it came from, and the codes of what was wrong with it.

    ``model`` wrote it, ``router`` decided what the intent is about after the ``fallbacks`` handed on, each with its reason
    (``small: model.timeout``). ``attempts`` counts proposals. ``serial_edges`` counts edges that only make a step wait.
    """

    plan_hash: str | None = None
    plan_version: int | None = None
    steps: int | None = None
    source: Literal["caller", "model", "playbook"] | None = None
    playbook: str | None = None
    model: str | None = None
    router: str | None = None
    fallbacks: tuple[str, ...] = ()
    attempts: int | None = None
    serial_edges: int | None = None
    codes: tuple[str, ...] = ()
    message: str | None = None


def _rounded(fraction: float) -> float:
    """As people read it, and the same text whatever sums it came from: 0.85, not 0.8500000000000001."""
    return round(fraction, 4)


class StepEventData(Frozen):
    """Data of ``step.*``. ``item`` counts from 0 inside a ``for_each`` step; ``progress`` runs from 0 to 1, in four decimals.
    ``worker`` has taken the step off the bus."""

    step_id: WireId
    attempt: int = Field(default=1, ge=1)
    item: int | None = None
    capability: str | None = None
    code: str | None = None
    message: str | None = None
    duration_ms: int | None = None
    item_count: int | None = None
    progress: Annotated[float, AfterValidator(_rounded)] | None = Field(default=None, ge=0, le=1)
    worker: str | None = Field(default=None, max_length=100)


class ApprovalEventData(Frozen):
    """Data of ``approval.*``: what is to be approved (``plan`` or a step id), by when, and who answered.

    ``kind`` says who asks: policy about the plan or a step, or an ``approval`` step its question. ``code`` and ``message`` say
    why an approval is void.
    """

    subject: str
    approval_id: str | None = None
    kind: Literal["plan", "step", "question"] | None = None
    item: int | None = None
    capability: str | None = None
    expires_at: UtcDatetime | None = None
    approver: str | None = None
    code: str | None = None
    message: str | None = None


class BudgetEventData(Frozen):
    """Data of ``budget.*`` in micro-USD."""

    reserved_micro_usd: int = 0
    spent_micro_usd: int = 0
    limit_micro_usd: int = 0
    step_id: str | None = None


class BreakerEventData(Frozen):
    """Data of ``breaker.opened``."""

    breaker: str
    open_until_at: UtcDatetime | None = None


class DegradedEventData(Frozen):
    """Data of ``degraded.entered``: which part works without a model, and why."""

    part: Literal["planner", "composer", "router", "step"]
    reason: str


class AnswerEventData(Frozen):
    """Data of ``answer.*``: a piece of text for deltas, size for the completed one.

    ``answer_attempt`` counts writings from 1: after ``answer.restarted`` only deltas of its attempt make up the answer.
    ``code`` says why it began anew.
    """

    text: str | None = None
    index: int | None = None
    answer_attempt: int | None = None
    code: str | None = None
    size_bytes: int | None = None


EventData = (
    RunEventData
    | PlanEventData
    | StepEventData
    | ApprovalEventData
    | BudgetEventData
    | BreakerEventData
    | DegradedEventData
    | AnswerEventData
)

_BY_PREFIX: dict[str, type[Frozen]] = {
    "run": RunEventData,
    "plan": PlanEventData,
    "step": StepEventData,
    "approval": ApprovalEventData,
    "budget": BudgetEventData,
    "breaker": BreakerEventData,
    "degraded": DegradedEventData,
    "answer": AnswerEventData,
}


def data_model(event_type: EventType) -> type[Frozen]:
    """The model that ``data`` of this event type conforms to."""
    return _BY_PREFIX[event_type.value.split(".", 1)[0]]


class NewEvent(Frozen):
    """An event about to be appended. ``key`` is unique within the run: a second append under it changes nothing."""

    type: EventType
    key: str = Field(min_length=1, max_length=300)
    data: JsonObject = Field(default_factory=dict)


def new_event(event_type: EventType, data: EventData, key: str | None = None) -> NewEvent:
    """Build an event whose data has the right model.

    Without ``key`` the type alone is the key: such an event happens once in a run.
    Raises ``TypeError`` when ``data`` is not of the type's model.
    """
    if not isinstance(data, data_model(event_type)):
        raise TypeError(f"{event_type} takes {data_model(event_type).__name__}, not {type(data).__name__}")
    return NewEvent(type=event_type, key=key or event_type.value, data=data.model_dump(mode="json", exclude_none=True))


class RunEvent(Frozen):
    """An appended event. ``seq`` counts from 1 without gaps and is the cursor and the SSE id."""

    tenant_id: WireId
    run_id: WireId
    seq: int = Field(ge=1)
    type: EventType
    at: UtcDatetime
    data: JsonObject = Field(default_factory=dict)
