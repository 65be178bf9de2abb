"""One episode: accept messages, run user code, walk the list, decide what to write. No I/O: the result is `EpisodeWrites`.

If the transaction with those writes fails, the `Execution` must be thrown away and rebuilt: it has already moved on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import assert_never
from uuid import NAMESPACE_OID, uuid4, uuid5

from local_host.durable.determinism import NonDeterministicError, check_framework
from local_host.durable.execution import BrokenReplyError, Execution
from local_host.durable.functions import DurableFunctions
from local_host.durable.history import (
    Completion,
    Event,
    EventRaised,
    EventSent,
    ExecutionCompleted,
    ExecutionStarted,
    OrchestratorCompleted,
    OrchestratorStarted,
    SubCompleted,
    SubCreated,
    SubFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
)
from local_host.durable.protocol import (
    HTTP_ACTIVITY,
    CallActivity,
    CallHttp,
    CallSubOrchestrator,
    ContinueAsNew,
    CreateTimer,
    EntityOperation,
    ProtocolError,
    WaitForEvent,
    digest_of,
    from_stamp,
    identity_of,
    to_stamp,
)
from local_host.durable.records import (
    EntityItem,
    EpisodeWrites,
    InboxItem,
    Instance,
    ParentLink,
    TimerItem,
    WorkItem,
    notification,
)
from local_host.durable.walker import Role, Scheduled, SdkIds, walk_again

MAX_CUSTOM_STATUS_BYTES = 16 * 1024
"""Limit of the extension, counted in UTF-16."""


class OrchestrationFailedError(Exception):
    """The host itself fails the instance; the text becomes its output."""


def missing_function(name: str, kind: str) -> str:
    """The extension's message for a name the app does not have; `kind` is e.g. "activity" or "orchestrator"."""
    article = "a" if kind not in ("activity", "entity", "orchestrator") else "an"
    return (
        f"The function '{name}' doesn't exist, is disabled, or is not {article} {kind} function."
        f" Additional info: No {kind} functions with this name are currently registered!"
    )


@dataclass(slots=True)
class Mail:
    """What an episode is asked to process. Completions are in memory only: their work rows vouch for them."""

    completions: list[Completion] = field(default_factory=list)
    inbox: list[InboxItem] = field(default_factory=list)


def time_of(instance: Instance, mail: Mail, now: str) -> str:
    """The instance's time: what the clock says, but never before what it was, nor before a timer that has fired.

    The clock may be set back at any moment. An orchestrator that saw its time go back would wait again for what it waited for.
    """
    fired = [to_stamp(from_stamp(each.fire_at)) for each in mail.completions if isinstance(each, TimerFired)]
    return max(now, instance.updated_at, *fired)


@dataclass(slots=True)
class Episode:
    """One run; `at` is the stamp of all its events. `held` are inbox rows left for later."""

    execution: Execution
    functions: DurableFunctions
    at: str
    strict: bool
    default_version: str | None = None
    held: list[InboxItem] = field(default_factory=list)

    def run(self, mail: Mail) -> EpisodeWrites:
        """Process `mail`; mutates the execution."""
        execution = self.execution
        writes = EpisodeWrites(execution.instance, execution.chunk, [])
        new_events: list[Event] = [OrchestratorStarted(self.at)]
        if execution.is_new:
            item = execution.instance
            new_events.append(ExecutionStarted(self.at, item.name, item.version, item.input_json))
        new_events += self._accept(mail, writes, len(execution.events) + len(new_events))
        try:
            self._run_user_code(new_events)
            created = [self._create(item, writes) for item in execution.walk.take_scheduled()]
        except (NonDeterministicError, ProtocolError, OrchestrationFailedError) as err:
            return self._end(writes, new_events, "Failed", self._failure_text(str(err)))
        except BrokenReplyError as err:
            return self._end(writes, new_events, "Failed", self._failure_text(str(err)))
        new_events += created
        for event in created:
            execution.walk.apply(event)
        for event in new_events:
            execution.note(event)
        execution.events += new_events
        if execution.is_finished():
            return self._finish(writes, new_events)
        return self._continue(writes, new_events)

    def fail(self, mail: Mail, reason: str) -> EpisodeWrites:
        """End the instance without running user code (its history cannot be replayed)."""
        writes = EpisodeWrites(self.execution.instance, self.execution.chunk, [])
        return self._end(writes, [OrchestratorStarted(self.at)], "Failed", self._failure_text(reason))

    def _failure_text(self, message: str) -> str:
        if message.startswith("Non-Deterministic"):
            return message
        return f"Orchestrator function '{self.execution.instance.name}' failed: {message}"

    def _accept(self, mail: Mail, writes: EpisodeWrites, history_length: int) -> list[Event]:
        """The batch, in the order it enters history: retry events, completions, messages. Duplicates end here."""
        execution = self.execution
        batch: list[Event] = []
        wanted: set[int] = set()
        fresh: list[Completion] = []
        for completion in mail.completions:
            task_id = completion.timer_id if isinstance(completion, TimerFired) else completion.task_id
            consumed = writes.consumed_timers if isinstance(completion, TimerFired) else writes.consumed_work
            consumed.append(task_id)
            if task_id in execution.outstanding and task_id not in wanted:
                wanted.add(task_id)
                fresh.append(replace(completion, at=self.at))
        for item in mail.inbox:
            event = item.event
            if isinstance(event, EventRaised):
                continue
            # Ends of children, and messages that only wake the instance (rewound).
            writes.consumed_inbox.append(item.id)
            if not isinstance(event, SubCompleted | SubFailed) or item.execution_id != execution.instance.execution_id:
                continue
            if event.task_id in execution.outstanding and event.task_id not in wanted:
                wanted.add(event.task_id)
                fresh.append(replace(event, at=self.at))
        batch += execution.numbering.order_batch(fresh)
        self._accept_raised(mail.inbox, batch, writes, history_length)
        return batch

    def _accept_raised(
        self, inbox: Iterable[InboxItem], batch: list[Event], writes: EpisodeWrites, history_length: int
    ) -> None:
        execution = self.execution
        taken: dict[str, int] = {}
        for item in inbox:
            event = item.event
            if not isinstance(event, EventRaised):
                continue
            if item.execution_id is not None:
                writes.consumed_inbox.append(item.id)
                if event.name in execution.requests and event.name not in taken:
                    taken[event.name] = 1
                    batch.append(replace(event, at=self.at))
            elif execution.ended or execution.wanted_events(event.name) > taken.get(event.name, 0):
                taken[event.name] = taken.get(event.name, 0) + 1
                writes.consumed_inbox.append(item.id)
                batch.append(replace(event, at=self.at))
            else:
                self._hold(item, writes, history_length + len(batch))

    def _hold(self, item: InboxItem, writes: EpisodeWrites, position: int) -> None:
        """Keep an early event: the SDK would lose one of two of a name and give one to every later wait."""
        if not item.is_seen_saved:
            seen_at = position if item.seen_at is None else item.seen_at
            item = replace(item, seen_at=seen_at, is_seen_saved=True)
            writes.seen[item.id] = seen_at
        self.held.append(item)

    def _run_user_code(self, new_events: Sequence[Event]) -> None:
        execution = self.execution
        for event in new_events:
            execution.numbering.on_event(event)
        if execution.ended is None:
            execution.absorb(execution.invoke(new_events))
            status = execution.custom_status_json
            if status is not None and len(status.encode("utf-16-le")) > MAX_CUSTOM_STATUS_BYTES:
                size_kb = len(status.encode("utf-16-le")) / 1024
                raise OrchestrationFailedError(
                    "The UTF-16 size of the JSON-serialized payload must not exceed 16 KB."
                    f" The current size is {size_kb:.1f} KB."
                )
        if self.strict and execution.listing.has_retries:
            check_framework([*execution.events, *new_events], execution.listing, execution.numbering)
        execution.walk_on(new_events)

    def _create(self, item: Scheduled, writes: EpisodeWrites) -> Event:
        """The created event of newly scheduled work; its outgoing row goes to `writes`."""
        if item.role is Role.RETRY_TIMER:
            return self._retry_timer(item, writes)
        action = item.leaf.action
        digest = identity_of(action).digest
        match action:
            case CallActivity(name=name, input_json=payload):
                if not self.functions.has_activity(name):
                    raise OrchestrationFailedError(missing_function(name, "activity"))
                self._add_work(item.id, "activity", name, payload, writes)
                return TaskScheduled(self.at, item.id, name, digest)
            case CallHttp(request_json=payload):
                self._add_work(item.id, "http", HTTP_ACTIVITY, payload, writes)
                return TaskScheduled(self.at, item.id, HTTP_ACTIVITY, digest)
            case CreateTimer(fire_at=fire_at):
                return self._timer(item.id, fire_at, writes)
            case CallSubOrchestrator():
                return self._child(item.id, action, digest, writes)
            case EntityOperation():
                return self._entity(item.id, action, digest, writes)
            case WaitForEvent() | ContinueAsNew():
                raise AssertionError("waits and continue-as-new are never scheduled")
            case _:
                assert_never(action)

    def _add_work(self, task_id: int, kind: str, name: str, payload: str, writes: EpisodeWrites) -> None:
        item = self.execution.instance
        writes.work.append(WorkItem(item.instance_id, item.execution_id, task_id, kind, name, payload))

    def _timer(self, task_id: int, fire_at: str, writes: EpisodeWrites) -> TimerCreated:
        item = self.execution.instance
        writes.timers.append(TimerItem(item.instance_id, item.execution_id, task_id, fire_at, self.at))
        return TimerCreated(self.at, task_id, fire_at)

    def _retry_timer(self, item: Scheduled, writes: EpisodeWrites) -> TimerCreated:
        """Constant interval; the timer after the last attempt fires at once (the SDK needs it to surface the error)."""
        assert item.leaf.retry is not None
        delay_ms = 0 if item.is_last_timer else item.leaf.retry.first_interval_ms
        timer = self._timer(item.id, to_stamp(from_stamp(self.at) + timedelta(milliseconds=delay_ms)), writes)
        return replace(timer, retry_of=self.execution.numbering.cause[item.id], is_last=item.is_last_timer)

    def _child(self, task_id: int, action: CallSubOrchestrator, digest: str, writes: EpisodeWrites) -> SubCreated:
        if not self.functions.has_orchestrator(action.name):
            raise OrchestrationFailedError(missing_function(action.name, "orchestrator"))
        mine = self.execution.instance
        child_id = action.instance_id or f"{mine.execution_id}:{task_id}"
        version = action.version if action.version is not None else self.default_version
        parent = ParentLink(mine.instance_id, mine.execution_id, task_id)
        child = new_instance(child_id, action.name, version, json.dumps(action.input_json), self.at, parent)
        writes.children.append(child)
        return SubCreated(self.at, task_id, action.name, version, child_id, digest)

    def _entity(self, task_id: int, action: EntityOperation, digest: str, writes: EpisodeWrites) -> EventSent:
        mine = self.execution.instance
        name = action.entity_id[1:].partition("@")[0]
        if not self.functions.has_entity(name):
            raise OrchestrationFailedError(missing_function(name, "entity"))
        request_id = str(uuid5(NAMESPACE_OID, f"{mine.instance_id}\n{mine.execution_id}\n{task_id}"))
        caller = (None, None, None) if action.signal else (request_id, mine.instance_id, mine.execution_id)
        writes.entity_items.append(EntityItem(0, action.entity_id, action.operation, action.input_json, *caller))
        return EventSent(self.at, task_id, action.entity_id, action.operation, request_id, action.signal, digest)

    def _continue(self, writes: EpisodeWrites, new_events: list[Event]) -> EpisodeWrites:
        execution = self.execution
        closing = OrchestratorCompleted(self.at, len(execution.listing.leaves))
        execution.events.append(closing)
        writes.events = [*new_events, closing]
        writes.instance = replace(
            execution.instance,
            status="Running",
            custom_status_json=execution.custom_status_json,
            updated_at=self.at,
        )
        execution.instance = writes.instance
        execution.chunk += 1
        return writes

    def _finish(self, writes: EpisodeWrites, new_events: list[Event]) -> EpisodeWrites:
        ended = self.execution.ended
        assert ended is not None
        if ended.error is not None:
            return self._end(writes, new_events, "Failed", self._failure_text(ended.error))
        if self.execution.walk.continue_as_new is not None:
            return self._continue_as_new(writes, self.execution.walk.continue_as_new)
        return self._end(writes, new_events, "Completed", ended.output_json)

    def _end(self, writes: EpisodeWrites, new_events: list[Event], status: str, output: str | None) -> EpisodeWrites:
        closing: list[Event] = [
            OrchestratorCompleted(self.at, len(self.execution.listing.leaves)),
            ExecutionCompleted(self.at, status, output),
        ]
        ended = replace(
            self.execution.instance,
            status=status,
            suspended=False,
            output=output,
            output_is_json=status == "Completed",
            custom_status_json=self._bounded_status(),
            updated_at=self.at,
        )
        # Work scheduled by an episode that fails the instance is not dispatched any more.
        return EpisodeWrites(
            ended,
            writes.chunk,
            [*new_events, *closing],
            children=writes.children if status == "Completed" else [],
            entity_items=writes.entity_items,
            notify=notification(ended, self.at),
        )

    def _bounded_status(self) -> str | None:
        status = self.execution.custom_status_json
        if status is not None and len(status.encode("utf-16-le")) > MAX_CUSTOM_STATUS_BYTES:
            return self.execution.instance.custom_status_json
        return status

    def _continue_as_new(self, writes: EpisodeWrites, action: ContinueAsNew) -> EpisodeWrites:
        """A new execution with a new history.

        External events that came after the walk had reached continue-as-new are carried over, the others are gone, consumed or
        not: that is what the framework does, and with an unblocked walk it re-delivers consumed events too.
        """
        execution = self.execution
        _, reached_at = walk_again(execution.listing, execution.events, SdkIds(execution.numbering))
        boundary = -1 if reached_at is None else reached_at
        requests = {event.request_id for event in execution.events if isinstance(event, EventSent)}
        carried: list[Event] = [
            event
            for event in execution.events[boundary + 1 :]
            if isinstance(event, EventRaised) and event.name not in requests
        ]
        kept = {item.id for item in self.held if (item.seen_at or 0) > boundary}
        dropped = [item.id for item in self.held if item.id not in kept]
        self.held = [replace(item, seen_at=None, is_seen_saved=False) for item in self.held if item.id in kept]
        following = replace(
            execution.instance,
            execution_id=uuid4().hex,
            status="Running",
            input_json=json.dumps(action.input_json),
            custom_status_json=execution.custom_status_json,
            updated_at=self.at,
        )
        return EpisodeWrites(
            following,
            0,
            [],
            reset=True,
            children=writes.children,
            entity_items=writes.entity_items,
            consumed_inbox=[*writes.consumed_inbox, *dropped],
            seen=dict.fromkeys(kept),
            carried=carried,
        )


def new_instance(
    instance_id: str,
    name: str,
    version: str | None,
    input_json: str | None,
    at: str,
    parent: ParentLink | None = None,
) -> Instance:
    """A pending instance with a fresh execution id."""
    return Instance(
        instance_id, uuid4().hex, name, version, "Pending", False, input_json, None, False, None, at, at, parent
    )


def failure_details(type_name: str, message: str, stack: str) -> str:
    """`TaskFailed.Details` as the extension serialises a .NET exception: some apps parse `Message` out of it."""
    return json.dumps(
        {
            "$type": "System.Exception, System.Private.CoreLib",
            "ClassName": "System.Exception",
            "Message": f" {type_name}: {message}",
            "StackTraceString": stack[:8192],
        }
    )


def activity_failure_reason(name: str, type_name: str, message: str) -> str:
    """`TaskFailed.Reason`; the two spaces come from how the host cuts the worker's message."""
    return f"Activity function '{name}' failed:  {type_name}: {message}"


__all__ = [
    "Episode",
    "Mail",
    "OrchestrationFailedError",
    "activity_failure_reason",
    "digest_of",
    "failure_details",
    "missing_function",
    "new_instance",
    "time_of",
]
