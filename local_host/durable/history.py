"""History events of one execution: typed values, their JSON row, and the minimal copy the SDK needs.

The row form uses the Durable Task Framework's key names, so that a status query can project it, plus keys of our own:
`Digest` (payload digest for the determinism check), `Listed` (how many actions the SDK had listed when an episode ended;
needed to renumber after a crash), `RetryOf` and `IsLast` (what a retry timer is for; needed to rewind). Activity inputs are
not kept in history.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar

Json = dict[str, Any]


class EventType(IntEnum):
    """Numbers of the events this host writes (the SDK wants the integers)."""

    EXECUTION_STARTED = 0
    EXECUTION_COMPLETED = 1
    EXECUTION_TERMINATED = 3
    TASK_SCHEDULED = 4
    TASK_COMPLETED = 5
    TASK_FAILED = 6
    SUB_CREATED = 7
    SUB_COMPLETED = 8
    SUB_FAILED = 9
    TIMER_CREATED = 10
    TIMER_FIRED = 11
    ORCHESTRATOR_STARTED = 12
    ORCHESTRATOR_COMPLETED = 13
    EVENT_SENT = 14
    EVENT_RAISED = 15
    EXECUTION_SUSPENDED = 19
    EXECUTION_RESUMED = 20
    EXECUTION_REWOUND = 21


@dataclass(frozen=True, slots=True)
class OrchestratorStarted:
    kind: ClassVar[EventType] = EventType.ORCHESTRATOR_STARTED
    at: str

    def fields(self) -> Json:
        return {}


@dataclass(frozen=True, slots=True)
class OrchestratorCompleted:
    kind: ClassVar[EventType] = EventType.ORCHESTRATOR_COMPLETED
    at: str
    listed: int | None = None

    def fields(self) -> Json:
        return {"Listed": self.listed}


@dataclass(frozen=True, slots=True)
class ExecutionStarted:
    """`input_json` is the JSON document the instance was started with, None for none."""

    kind: ClassVar[EventType] = EventType.EXECUTION_STARTED
    at: str
    name: str
    version: str | None
    input_json: str | None

    def fields(self) -> Json:
        return {"Name": self.name, "Version": self.version, "Input": self.input_json}


@dataclass(frozen=True, slots=True)
class TaskScheduled:
    kind: ClassVar[EventType] = EventType.TASK_SCHEDULED
    at: str
    event_id: int
    name: str
    digest: str

    def fields(self) -> Json:
        return {"Name": self.name, "Version": "", "Input": None, "Digest": self.digest}


@dataclass(frozen=True, slots=True)
class TaskCompleted:
    kind: ClassVar[EventType] = EventType.TASK_COMPLETED
    at: str
    task_id: int
    result: str | None

    def fields(self) -> Json:
        return {"TaskScheduledId": self.task_id, "Result": self.result}


@dataclass(frozen=True, slots=True)
class TaskFailed:
    kind: ClassVar[EventType] = EventType.TASK_FAILED
    at: str
    task_id: int
    reason: str
    details: str

    def fields(self) -> Json:
        return {"TaskScheduledId": self.task_id, "Reason": self.reason, "Details": self.details}


@dataclass(frozen=True, slots=True)
class SubCreated:
    kind: ClassVar[EventType] = EventType.SUB_CREATED
    at: str
    event_id: int
    name: str
    version: str | None
    instance_id: str
    digest: str

    def fields(self) -> Json:
        own = {"Name": self.name, "Version": self.version, "InstanceId": self.instance_id}
        return own | {"Input": None, "Digest": self.digest}


@dataclass(frozen=True, slots=True)
class SubCompleted:
    kind: ClassVar[EventType] = EventType.SUB_COMPLETED
    at: str
    task_id: int
    result: str | None

    def fields(self) -> Json:
        return {"TaskScheduledId": self.task_id, "Result": self.result}


@dataclass(frozen=True, slots=True)
class SubFailed:
    kind: ClassVar[EventType] = EventType.SUB_FAILED
    at: str
    task_id: int
    reason: str
    details: str

    def fields(self) -> Json:
        return {"TaskScheduledId": self.task_id, "Reason": self.reason, "Details": self.details}


@dataclass(frozen=True, slots=True)
class TimerCreated:
    """For a retry timer, `retry_of` is the failed attempt and `is_last` marks the timer after the last attempt."""

    kind: ClassVar[EventType] = EventType.TIMER_CREATED
    at: str
    event_id: int
    fire_at: str
    retry_of: int | None = None
    is_last: bool = False

    def fields(self) -> Json:
        retry = {} if self.retry_of is None else {"RetryOf": self.retry_of, "IsLast": self.is_last}
        return {"FireAt": self.fire_at} | retry


@dataclass(frozen=True, slots=True)
class TimerFired:
    kind: ClassVar[EventType] = EventType.TIMER_FIRED
    at: str
    timer_id: int
    fire_at: str

    def fields(self) -> Json:
        return {"TimerId": self.timer_id, "FireAt": self.fire_at}


@dataclass(frozen=True, slots=True)
class EventSent:
    """An entity call (answered by an EventRaised named `request_id`) or signal (never answered)."""

    kind: ClassVar[EventType] = EventType.EVENT_SENT
    at: str
    event_id: int
    entity_id: str
    operation: str
    request_id: str
    signal: bool
    digest: str

    def fields(self) -> Json:
        message = {"op": self.operation, "signal": self.signal, "id": self.request_id}
        return {"InstanceId": self.entity_id, "Name": "op", "Input": json.dumps(message), "Digest": self.digest}


@dataclass(frozen=True, slots=True)
class EventRaised:
    """An external event, or the answer to an entity call; `input_json` is JSON text."""

    kind: ClassVar[EventType] = EventType.EVENT_RAISED
    at: str
    name: str
    input_json: str | None

    def fields(self) -> Json:
        return {"Name": self.name, "Input": self.input_json}


@dataclass(frozen=True, slots=True)
class ExecutionCompleted:
    """`status` is Completed or Failed; `result` is JSON text for the former, plain text for the latter."""

    kind: ClassVar[EventType] = EventType.EXECUTION_COMPLETED
    at: str
    status: str
    result: str | None

    def fields(self) -> Json:
        return {"OrchestrationStatus": self.status, "Result": self.result}


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """Terminated, suspended, resumed or rewound, with the caller's reason."""

    kind: EventType
    at: str
    reason: str

    def fields(self) -> Json:
        return {"Reason": self.reason, "Input": self.reason}


Event = (
    OrchestratorStarted
    | OrchestratorCompleted
    | ExecutionStarted
    | TaskScheduled
    | TaskCompleted
    | TaskFailed
    | SubCreated
    | SubCompleted
    | SubFailed
    | TimerCreated
    | TimerFired
    | EventSent
    | EventRaised
    | ExecutionCompleted
    | Lifecycle
)
Completion = TaskCompleted | TaskFailed | SubCompleted | SubFailed | TimerFired
Created = TaskScheduled | SubCreated | TimerCreated | EventSent


def to_row(event: Event) -> Json:
    """The event as a JSON object in the framework's own key names."""
    event_id = event.event_id if isinstance(event, Created) else -1
    row = {"EventType": int(event.kind), "EventId": event_id, "IsPlayed": False, "Timestamp": event.at}
    return row | event.fields()


_FROM_ROW: dict[EventType, Callable[[Json, str], Event]] = {
    EventType.ORCHESTRATOR_STARTED: lambda r, at: OrchestratorStarted(at),
    EventType.ORCHESTRATOR_COMPLETED: lambda r, at: OrchestratorCompleted(at, r["Listed"]),
    EventType.EXECUTION_STARTED: lambda r, at: ExecutionStarted(at, r["Name"], r["Version"], r["Input"]),
    EventType.TASK_SCHEDULED: lambda r, at: TaskScheduled(at, r["EventId"], r["Name"], r["Digest"]),
    EventType.TASK_COMPLETED: lambda r, at: TaskCompleted(at, r["TaskScheduledId"], r["Result"]),
    EventType.TASK_FAILED: lambda r, at: TaskFailed(at, r["TaskScheduledId"], r["Reason"], r["Details"]),
    EventType.SUB_CREATED: lambda r, at: SubCreated(
        at, r["EventId"], r["Name"], r["Version"], r["InstanceId"], r["Digest"]
    ),
    EventType.SUB_COMPLETED: lambda r, at: SubCompleted(at, r["TaskScheduledId"], r["Result"]),
    EventType.SUB_FAILED: lambda r, at: SubFailed(at, r["TaskScheduledId"], r["Reason"], r["Details"]),
    EventType.TIMER_CREATED: lambda r, at: TimerCreated(
        at, r["EventId"], r["FireAt"], r.get("RetryOf"), r.get("IsLast", False)
    ),
    EventType.TIMER_FIRED: lambda r, at: TimerFired(at, r["TimerId"], r["FireAt"]),
    EventType.EVENT_SENT: lambda r, at: _event_sent(r, at),
    EventType.EVENT_RAISED: lambda r, at: EventRaised(at, r["Name"], r["Input"]),
    EventType.EXECUTION_COMPLETED: lambda r, at: ExecutionCompleted(at, r["OrchestrationStatus"], r["Result"]),
}


def _event_sent(row: Json, at: str) -> EventSent:
    message = json.loads(row["Input"])
    return EventSent(
        at, row["EventId"], row["InstanceId"], message["op"], message["id"], message["signal"], row["Digest"]
    )


def from_row(row: Json) -> Event:
    """Inverse of `to_row`."""
    kind = EventType(row["EventType"])
    build = _FROM_ROW.get(kind)
    return build(row, row["Timestamp"]) if build else Lifecycle(kind, row["Timestamp"], row["Reason"])


_UNREAD: dict[EventType, tuple[str, ...]] = {
    EventType.TASK_SCHEDULED: ("Version", "Input"),
    EventType.SUB_CREATED: ("Input",),
}
"""Keys that the SDK or a status query is shown and that `from_row` has no use for."""


def _stored(event: Event) -> Json:
    row = to_row(event)
    del row["IsPlayed"]
    if row["EventId"] == -1:
        del row["EventId"]
    for key in _UNREAD.get(event.kind, ()):
        del row[key]
    return row


def dump_chunk(events: Iterable[Event]) -> str:
    """One episode's events as one JSON text (one storage row), without what goes without saying."""
    return json.dumps([_stored(event) for event in events], separators=(",", ":"))


def load_chunk(text: str) -> list[Event]:
    """Inverse of `dump_chunk`."""
    return [from_row(row) for row in json.loads(text)]


_SDK_READS = frozenset(
    {
        EventType.ORCHESTRATOR_STARTED,
        EventType.EXECUTION_STARTED,
        EventType.TASK_COMPLETED,
        EventType.TASK_FAILED,
        EventType.SUB_COMPLETED,
        EventType.SUB_FAILED,
        EventType.TIMER_FIRED,
        EventType.EVENT_SENT,
        EventType.EVENT_RAISED,
    }
)


def sdk_events(events: Iterable[Event]) -> list[Event]:
    """The events the SDK acts on. It ignores the created/scheduled ones, which would double the request."""
    return [event for event in events if event.kind in _SDK_READS]
